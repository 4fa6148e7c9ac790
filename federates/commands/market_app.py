"""``feederate market``: arguments; what the commands do is in `federates.commands.certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from federates.commands import complete
from federates.commands.options import AsJson

market_app = typer.Typer(
    help="Check a run's market: how far its dispatch can be from the optimum.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@market_app.callback()
def _group() -> None:
    """Keep `certify` a command of its own while it is the only one."""


@market_app.command("certify")
def market_certify(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run.", autocompletion=complete.run),
    ],
    interval: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Market interval, from 0; default: the last."),
    ] = None,
    time: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="S", help="The interval of this simulated time, s."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bound the cost of a three-phase dispatch from below, by a semidefinite relaxation.

    Radial feeders only. Takes seconds to a minute.
    """
    from federates.commands.certify import certify_command

    certify_command(run, interval, time, as_json=as_json)
