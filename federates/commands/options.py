"""Options that several commands share. Imports typer and the standard library only."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

import typer

from federates.runs.options import RunOptions


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
    typer.Option(
        "--arm", metavar="NAME", help="Let this device be commanded; can be given repeatedly."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/NAME-TIME.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Stop after this many feeder steps.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the run.")]
Placed = Annotated[
    Where | None,
    typer.Option(
        help="Federates as threads on HELICS, as processes on HELICS, or in a single thread "
        "without HELICS. Default: thread."
    ),
]
Join = Annotated[
    str | None, typer.Option(metavar="URL", help="Join the HELICS broker at tcp://host:port.")
]
Listen = Annotated[
    str | None, typer.Option(metavar="URL", help="Run the broker here, at tcp://host:port.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="NAMES", help="Run only these federates here (comma-separated)."),
]
Pcap = Annotated[
    bool, typer.Option("--pcap", help="Capture the Modbus traffic: DIR/pcap/DEVICE.pcapng.")
]
Report = Annotated[bool, typer.Option(help="Write report.html at the end.")]

# Field of RunOptions -> (its option, default).
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "out": (Out, None),
    "steps": (Steps, None),
    "overrides": (Overrides, None),
    "placement": (Placed, None),
    "seed": (Seed, None),
    "attack": (Attack, None),
    "defence": (Defence, None),
    "join": (Join, None),
    "listen": (Listen, None),
    "only": (Only, None),
    "armed": (Arm, None),
    "pcap": (Pcap, False),
    "report": (Report, True),
}


def run_options(*fields: str, **helps: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these `RunOptions` fields (default: all).

    The command declares one parameter, ``options: RunOptions``; its place in the signature is the
    place of the options in ``--help``. `helps` replaces the help text of a field's option.
    """
    chosen = {field: _OPTIONS[field] for field in fields or _OPTIONS}
    for field, text in helps.items():
        (annotation, default) = chosen[field]
        kind, info = get_args(annotation)
        info = copy.copy(info)
        info.help = text
        chosen[field] = (Annotated[kind, info], default)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name != "options":
                parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
                continue
            parameters += [
                inspect.Parameter(
                    field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                )
                for field, (annotation, default) in chosen.items()
            ]

        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            found = {field: given.pop(field) for field in chosen}
            command(options=_checked(found), **given)

        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def _checked(found: dict[str, Any]) -> RunOptions:
    """Return what was given as run options.

    Raises
    ------
    typer.BadParameter
        A URL is malformed, or a placement does not suit a run over several hosts.
    """
    for field in ("join", "listen"):
        _check_url(f"--{field}", found.get(field))
    for field in ("overrides", "armed"):
        found[field] = tuple(found.get(field) or ())
    if found.get("only") is not None:
        names = (name.strip() for item in found["only"] for name in item.split(","))
        found["only"] = tuple(name for name in names if name)
    where = found.get("placement")
    found["placement"] = None if where is None else where.value
    options = RunOptions(**found)
    if options.spans_hosts and options.placement != "process":
        if options.placement is not None:
            raise typer.BadParameter(
                f"--join, --listen and --only need --placement process, found {options.placement}"
            )
        found["placement"] = "process"
    return RunOptions(**found)


def _check_url(option: str, url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme == "tcp" and parts.hostname and parts.port
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter(f"{option}: found '{url}', expected tcp://host:port")


def print_json(data: Any) -> None:
    """Write JSON to standard output."""
    typer.echo(json.dumps(data, indent=2))
