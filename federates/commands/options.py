"""Options that several commands share. Imports typer and the standard library only."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Where(StrEnum):
    """Where the federates run."""

    thread = "thread"
    process = "process"
    single = "single"


ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="Path of a scenario, or a name of the list.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key; can be given repeatedly."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")
]
Attack = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_NAME",
        help="Attack it, in place of the scenario's own attack; '' for none.",
    ),
]
Defence = Annotated[
    str | None, typer.Option(metavar="NAME", help="With this defence of the scenario.")
]
Arm = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Let this device be commanded; can be given repeatedly."),
]


def print_json(data: Any) -> None:
    """Write JSON to standard output."""
    typer.echo(json.dumps(data, indent=2))
