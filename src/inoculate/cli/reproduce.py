"""The command that runs a purification again from its record."""

from pathlib import Path
from typing import Annotated

import typer

from inoculate.cli.options import Out
from inoculate.errors import ReproductionError


def reproduce(
    file: Annotated[Path, typer.Argument(help="reproduce.toml of a purified folder.")],
    output: Out,
    model: Annotated[
        str | None, typer.Option(help="Suspicious model, or the adapter's base; else by name.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Suspicious adapter; else by name.")] = None,
    clean_data: Annotated[Path | None, typer.Option(help="Clean rows; else by name.")] = None,
    device: Annotated[str | None, typer.Option(help="In place of the recorded one.")] = None,
) -> None:
    """Purify again as FILE says, and tell which outputs agree with the original."""
    from inoculate.cli.console import Console, Stages
    from inoculate.destination import refuse_existing
    from inoculate.reproduction import APART, Given, read_record
    from inoculate.reproduction import reproduce as run
    from inoculate.show import visible

    refuse_existing(output)
    record, console = read_record(file), Console()
    given = Given(model, adapter, clean_data)
    with Stages(console) as stages:
        agreements = run(record, output, given, device=device, progress=stages)
    for one in agreements:
        detail = f" ({one.detail})" if one.detail else ""
        line = visible(f"{one.name}: {one.verdict}{detail}", keep="")
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    apart = [one.name for one in agreements if one.verdict == APART]
    if apart:
        raise ReproductionError(
            f"{len(apart)} of {len(agreements)} outputs differ from {file}, the first is "
            f"{apart[0]}. Compare versions, device and threads."
        )
