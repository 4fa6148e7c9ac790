"""``feederate optimise``: arguments; what it does is in `federates.commands.optimise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from federates.commands.options import AsJson


def optimise(
    problem: Annotated[
        str,
        typer.Argument(metavar="PROBLEM", help="dispatch-1000, consensus-ring-100 and the like."),
    ],
    algorithms: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Which to compare. Default: all that can solve it."),
    ] = None,
    links: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|KEY=VALUE,...",
            help="Links between agents, as in a scenario: a file with 'links', or one rule for "
            "all links. Default: perfect.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Residual at which agents stop, relative. Default: the algorithm's, at most 1e-6.",
        ),
    ] = None,
    max_iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Then an algorithm ends. Default: 10000, of a case 2000."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the problem's numbers and of the links.")
    ] = 0,
    regions: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Of a case. Default: its areas if several, else three."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="ALGORITHM.OPTION=VALUE",
            help="An option of an algorithm; can be given repeatedly.",
        ),
    ] = None,
    period: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Simulated time between two steps of the agents. Default: a tenth of the longest "
            "delay of a link, 1 ms at least.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write tables and a page into this new folder.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare distributed optimisation algorithms on one problem over imperfect links."""
    from federates.commands.optimise import optimise_command

    return optimise_command(
        problem,
        algorithms=algorithms,
        links=tuple(links or ()),
        tolerance=tolerance,
        max_iterations=max_iterations,
        seed=seed,
        regions=regions,
        options=tuple(options or ()),
        period_s=period,
        out=out,
        as_json=as_json,
    )
