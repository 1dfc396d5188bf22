"""The commands that need what only research has: a trigger, an original, a model before."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inoculate.cli.options import (
    AdapterDir,
    AttackName,
    Base,
    Data,
    Json,
    Seed,
    TaskName,
    UtilityData,
)
from inoculate.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from inoculate.evaluation.utility import Utility
    from inoculate.subject import Subject

Suspicious = Annotated[str | None, typer.Argument(help="Checkpoint folder or hub id.")]
Reference = Annotated[
    str | None, typer.Option(help="The un-poisoned original; with --adapter, --base is.")
]
Window = Annotated[list[int] | None, typer.Option(help="Blocks k of a window; repeatable.")]
Positions = Annotated[int, typer.Option(min=1, help="Places tried for each k.")]
Limit = Annotated[int, typer.Option(min=1, help="Prompts with the trigger.")]
MaxTokens = Annotated[int, typer.Option(min=16, help="Tokens of a utility row.")]
BothOver = Annotated[str | None, typer.Option("--base", help="Model that both are adapters over.")]
Choices = Annotated[list[Path] | None, typer.Option(help="Multiple-choice file; repeatable.")]
Rows = Annotated[Path | None, typer.Option(help="Clean rows for loss and KL divergence.")]
Requests = Annotated[Path | None, typer.Option(help="Prompts that an honest model may refuse.")]
Margin = Annotated[
    float, typer.Option(min=0.0001, max=1, help="Share right that may be lost and be no loss.")
]
Page = Annotated[Path | None, typer.Option("--output", "-o", help="Folder for a page.")]


def dissect(
    suspicious: Suspicious = None,
    reference: Reference = None,
    attack: AttackName = "badnets",
    task: TaskName = "refusal",
    adapter: AdapterDir = None,
    base: Base = None,
    data: Data = None,
    utility_data: UtilityData = None,
    window: Window = None,
    positions: Positions = 4,
    limit: Limit = 60,
    max_tokens: MaxTokens = 256,
    output: Page = None,
    seed: Seed = 0,
    json_file: Json = None,
) -> None:
    """Find where a known backdoor lives. For research: it needs the un-poisoned original."""
    from inoculate.api import refuse_existing
    from inoculate.cli.console import Console, Stages
    from inoculate.dissection import dissect as run
    from inoculate.examination import ExamFiles, exam_for

    if output:
        refuse_existing(output)
    files = ExamFiles(data, utility_data)
    exam = exam_for(attack, task, files, limit=limit, max_tokens=max_tokens, seed=seed)
    sizes = window or ()
    with Stages(Console()) as stages:
        stages.stage("load")
        subject, original = _models(suspicious, reference, adapter, base)
        stages.stage("dissect")
        result = run(subject, original, exam, sizes=sizes, positions=positions, progress=stages)
    asked = {"attack": attack, "task": task, "seed": seed}
    options = {"data": data, "utility-data": utility_data, "window": window}
    counts = {"positions": positions, "limit": limit, "max-tokens": max_tokens}
    names = _names(suspicious, reference, adapter, base)
    command = _command("dissect", *_pair(names, adapter), **asked, **options, **counts)
    _show({**names, **asked, "command": command, **result}, output, json_file)


def compare(
    grid: Annotated[Path, typer.Argument(help="TOML file of the study; see benchmarks/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the study.")],
    data: Annotated[
        Path | None, typer.Option(help="Where relative paths of GRID start; default: beside it.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at once, each with a thread.")] = 1,
) -> None:
    """Try every defense of GRID on every attacked model of it, each once.

    A trial is stored as it finishes: the same command goes on where it was
    stopped, and runs only what has been added to GRID since. OUTPUT gets
    results.jsonl, table.md and report.html, whole after every trial.
    """
    from inoculate.cli.console import Console, Stages
    from inoculate.report import study_markdown
    from inoculate.study.grid import read_grid
    from inoculate.study.run import run_study

    read = read_grid(grid, data)
    console = Console()
    command = _command("compare", grid.name, data=data, output=output.name)
    with Stages(console) as stages:
        study = run_study(read, output, processes=jobs, command=command, progress=stages)
    console.print(study_markdown(study), markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {output / 'report.html'}", markup=False)


def utility(
    before: Annotated[
        str, typer.Argument(help="Folder, hub id or `builtin`; with --base, adapter.")
    ],
    after: Annotated[str, typer.Argument(help="The same model after a treatment.")],
    base: BothOver = None,
    choices: Choices = None,
    rows: Rows = None,
    requests: Requests = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows of each file, at most.")] = 500,
    margin: Margin = 0.02,
    max_tokens: MaxTokens = 256,
    json_file: Json = None,
) -> None:
    """Compare the honest work of two models, or adapters, over the same questions, in pairs."""
    from inoculate.cli.arguments import utility_tests
    from inoculate.cli.console import Console, show_utility, write_json
    from inoculate.evaluation.utility import compare_utility, measure_utility

    tests = utility_tests(choices or [], rows, requests, limit=limit, max_tokens=max_tokens)

    def measured(name: str) -> "Utility":
        subject = _opened(name, base)
        return measure_utility(subject.model, subject.tokenizer, tests)

    compared = compare_utility(measured(before), measured(after), tests, margin=margin)
    show_utility(Console(), compared)
    write_json(json_file, compared)


def _opened(name: str, base: str | None) -> "Subject":
    from inoculate.api import fetch
    from inoculate.cli.arguments import named_model
    from inoculate.subject import open_subject

    if base is None:
        return open_subject(fetch(named_model(name)))
    return open_subject(fetch(named_model(base)), adapter=Path(name))


def _models(
    suspicious: str | None, reference: str | None, adapter: Path | None, base: str | None
) -> tuple["Subject", "dict[str, Tensor]"]:
    from inoculate.api import fetch
    from inoculate.cli.arguments import named_model, source_and_adapter
    from inoculate.dissection import weights_of
    from inoculate.subject import open_subject

    source, folder = source_and_adapter(suspicious, adapter, base)
    original = source if folder else reference
    if original is None or (folder and reference):
        raise InputError("Pass SUSPICIOUS with --reference ORIGINAL, or --adapter with --base.")
    weights = weights_of(open_subject(fetch(named_model(original))))
    subject = open_subject(fetch(source), adapter=folder)
    subject.merge()
    return subject, weights


def _names(
    suspicious: str | None, reference: str | None, adapter: Path | None, base: str | None
) -> dict[str, str]:
    model, original = adapter or Path(str(suspicious)), Path(str(base or reference))
    return {"model": model.name, "reference": original.name}


def _pair(names: dict[str, str], adapter: Path | None) -> list[str]:
    if adapter:
        return ["--adapter", names["model"], "--base", names["reference"]]
    return [names["model"], "--reference", names["reference"]]


def _command(*words: str, **options: Any) -> str:
    """Return the command with the options that were given; files and folders by their names."""
    said = ["inoculate", *words]
    for name, given in options.items():
        for value in given if isinstance(given, list) else [given]:
            if value is not None:
                said += [f"--{name}", value.name if isinstance(value, Path) else str(value)]
    return shlex.join(said)


def _show(result: dict[str, Any], output: Path | None, json_file: Path | None) -> None:
    from inoculate.cli.console import Console, dissection_table, write_json
    from inoculate.report import where_sentence, write_dissection

    console = Console()
    result["sentence"] = where_sentence(result)
    console.print(dissection_table(result))
    console.print(result["sentence"], markup=False, highlight=False)
    write_json(json_file, result)
    if output:
        write_dissection(output, result)
        console.print(f"report: {output / 'report.html'}", markup=False)
