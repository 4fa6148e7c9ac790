"""``feederate hosting``: arguments; what it does is in `federates.commands.hosting`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from federates.commands.options import AsJson, ScenarioArgument, run_options
from federates.runs.options import RunOptions


@run_options(
    *("out", "overrides", "seed"),
    out="Also write tables, summary.json and a page with a map into this new folder.",
    seed="Of placements, noise and scenarios. Default: the scenario's.",
)
def hosting(
    scenario: ScenarioArgument,
    options: RunOptions,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="static: random placements of PV until a limit is passed. alone: each site by "
            "itself. dynamic: PV, batteries, heat pumps and vehicles coordinated over the day. "
            "stochastic: where and how large, for many days at once.",
        ),
    ] = "static",
    placements: Annotated[
        int | None,
        typer.Option(metavar="N", help="Random designs, or scenarios of the stochastic method."),
    ] = None,
    as_json: AsJson = False,
) -> Any:
    """How much PV and flexible demand a feeder can take, and what ends it."""
    from dataclasses import replace

    from federates.commands.hosting import hosting_command

    hosting_command(
        replace(options, scenario=scenario), method=method, placements=placements, as_json=as_json
    )
