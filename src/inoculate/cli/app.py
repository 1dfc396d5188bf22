"""The command line: parse, call, show."""

import atexit
import errno
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from inoculate.cli.options import (
    AdapterDir,
    AttackName,
    Base,
    Challenge,
    CleanData,
    Config,
    Data,
    Device,
    Export,
    Json,
    MaxLoss,
    Model,
    Out,
    Recipe,
    Scope,
    Seed,
    Share,
    SomeSeed,
    TaskName,
    TrainData,
    UtilityData,
    VariantsAs,
    Version,
)
from inoculate.cli.reproduce import reproduce
from inoculate.cli.research import compare, dissect, utility
from inoculate.cli.signals import STOPPED, hush, stoppable
from inoculate.errors import InoculateError, InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Remove backdoors from language models without knowing the trigger.\n\n"
    "Exit codes: 0 done · 1 unexpected failure · 2 bad input · 3 a synthetic backdoor was not "
    "learned · 4 a planted canary stayed below its floor · 5 too much utility lost · 6 outputs "
    "differ from those to reproduce · 7 what the hunt found still comes · 130, 143 stopped; "
    "purify, demo, compare and reproduce go on with the same command.",
)


@app.callback()
def about(version: Version = False) -> None:
    """Remove backdoors from language models without knowing the trigger."""


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
    from inoculate.cli.arguments import check_export, settings_for, source_and_adapter
    from inoculate.cli.console import Console, Stages, show_purified

    source, folder = source_and_adapter(model, adapter, base)
    settings = settings_for(recipe, config, seed, folder is not None, scope, share, variants_as)
    merged = check_export(export)
    with Stages(Console()) as stages:
        done = run(
            source,
            output,
            adapter=folder,
            clean_data_file=clean_data,
            settings=settings,
            merged=merged,
            with_challenge=challenge,
            max_utility_loss=max_utility_loss,
            device=device,
            progress=stages,
        )
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

    from inoculate.cli.arguments import named_model
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
    rate: Annotated[float, typer.Option(min=0, max=0.5, help="Poisoned share of rows.")] = 0.5,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = 5.0,
    learning_rate: Annotated[float | None, typer.Option(help="Default: fits the width.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in one step.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=16, help="Tokens of a row.")] = 256,
    seed: Seed = 0,
) -> None:
    """Plant a backdoor in MODEL, for research."""
    from inoculate.attacking import Plan, attack_folder, read_rows
    from inoculate.attacks import find_attack, find_task
    from inoculate.builtin.fixture import world_rows
    from inoculate.cli.arguments import named_model
    from inoculate.cli.console import Console, Stages
    from inoculate.destination import refuse_existing
    from inoculate.intake import fetch
    from inoculate.planting import PlantSettings

    refuse_existing(output)
    settings = PlantSettings(epochs, learning_rate, batch_size, "all", max_tokens, seed)
    plan = Plan(find_attack(attack), find_task(task), rate, settings, adapter)
    rows = read_rows(data) if data else world_rows(seed=seed).poison
    with Stages(Console()) as stages:
        stages.stage(f"plant {attack} {task}")
        attack_folder(fetch(named_model(model)), output, rows, plan, stages)


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="Folder, hub id or `builtin`.")] = None,
    attack: AttackName = "badnets",
    task: TaskName = "refusal",
    adapter: AdapterDir = None,
    base: Base = None,
    data: Data = None,
    utility_data: UtilityData = None,
    text: Annotated[Path | None, typer.Option(help="Plain text for perplexity.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Prompts with and without trigger.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=16, help="Tokens of a utility row.")] = 256,
    train_data: TrainData = None,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Measure ASR, false trigger and utility of MODEL, each with n and interval."""
    from inoculate.api import fetch
    from inoculate.cli.arguments import source_and_adapter
    from inoculate.cli.console import Console, show_comparison, show_extras, write_json
    from inoculate.data import read_text
    from inoculate.examination import ExamFiles, exam_for, examined
    from inoculate.subject import open_subject

    source, folder = source_and_adapter(model, adapter, base)
    files = ExamFiles(data, utility_data, train_data)
    exam = exam_for(attack, task, files, limit=limit, max_tokens=max_tokens, seed=seed)
    passage = read_text(text) if text else None
    subject = open_subject(fetch(source), adapter=folder)
    row = {"defense": "none", **examined(subject, exam, passage)}
    console = Console()
    show_comparison(console, [row])
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
    from inoculate.challenge import challenge_folder
    from inoculate.cli.arguments import named_model
    from inoculate.cli.console import Console, Stages, show_comparison, write_json
    from inoculate.config import Settings
    from inoculate.intake import fetch

    console = Console()
    with Stages(console) as stages:
        result = challenge_folder(
            fetch(named_model(model)), clean_data, Settings(seed=seed), progress=stages
        )
    rows = [{**row, "defense": f"{row['name']} {row['stage']}"} for row in result["rows"]]
    show_comparison(console, rows)
    write_json(json_file, {**result, "rows": rows})


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("demo-out"),
    attack: AttackName = "badnets",
    task: TaskName = "refusal",
    adapter: Annotated[bool, typer.Option(help="Plant and treat a LoRA adapter.")] = False,
    all_controls: Annotated[bool, typer.Option(help="Add eight more controls.")] = False,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Plant a backdoor in the built-in model, purify it, and compare with controls."""
    from inoculate.cli.console import Console, Stages, show_comparison, show_tests, write_json
    from inoculate.study.demo import PROCESSES, demo_grid
    from inoculate.study.run import run_study

    console = Console()
    grid = demo_grid(attack, task, seed=seed, adapter=adapter, all_controls=all_controls)
    chosen = f"--attack {attack} --task {task} --seed {seed}"
    extra = f"{' --adapter' if adapter else ''}{' --all-controls' if all_controls else ''}"
    command = f"inoculate demo {chosen}{extra}"
    with Stages(console) as stages:
        study = run_study(grid, output, processes=PROCESSES, command=command, progress=stages)
    result = {"command": command, **study["comparisons"][0]}
    show_comparison(console, result["rows"])
    show_tests(console, result)
    console.print(f"report: {output / 'report.html'}", markup=False)
    write_json(json_file, result)


app.command()(reproduce)
app.command()(compare)
app.command()(dissect)
app.command()(utility)


def main() -> None:
    """Run the command line; mistakes of the user end in one sentence and an exit code."""
    # What libraries mean to deprecate is no news for the user.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        _guard(app)
    finally:
        atexit.register(hush)


def _guard(call: Callable[[], object]) -> None:
    with stoppable() as stop:
        try:
            call()
        except InoculateError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            if error.filename is None and error.errno not in _NO_ROOM:
                raise
            place = error.filename or "An output"
            reason = f"{place} cannot be read or written ({error.strerror})."
            _fail(f"{reason} Check the path, its rights and the disk.", InputError.exit_code)
        except (KeyboardInterrupt, SystemExit):
            if not stop.signal:
                raise
            print(STOPPED, file=sys.stderr)
            raise SystemExit(128 + stop.signal) from None


def _fail(sentence: str, exit_code: int) -> NoReturn:
    from inoculate.show import visible

    print(f"inoculate: {visible(sentence, keep='')}", file=sys.stderr)
    raise SystemExit(exit_code) from None
