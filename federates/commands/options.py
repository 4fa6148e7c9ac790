"""Options that several commands share. Imports typer and the standard library only."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

import typer
from typer.core import TyperCommand

from federates.commands import complete
from federates.live.address import ANY_PORT, parse_address
from federates.runs.options import Placement, RunOptions

ScenarioArgument = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="Path of a scenario, or a name of the list.",
        autocompletion=complete.scenario,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key; can be given repeatedly.",
        autocompletion=complete.override,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")
]
Attack = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_NAME",
        help="Attack it, in place of the scenario's own attack; '' for none.",
        autocompletion=complete.attack,
    ),
]
Defence = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="With this defence of the scenario.",
        autocompletion=complete.defence,
    ),
]
Arm = Annotated[
    list[str] | None,
    typer.Option(
        "--arm", metavar="NAME", help="Let this device be commanded; can be given repeatedly."
    ),
]


def _check_url(url: str | None) -> str | None:
    if url is not None:
        try:
            parts = urlsplit(url)
            good = parts.scheme == "tcp" and parts.hostname and parts.port
        except ValueError:
            good = False
        if not good:
            raise typer.BadParameter(f"found '{url}', expected tcp://host:port")
    return url


def _check_live(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_address(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return text


def _check_seed(seed: int | None) -> int | None:
    if seed is not None and seed >= 2**63:
        raise typer.BadParameter(f"found {seed}, expected from 0 to {2**63 - 1}")
    return seed


def _option(kind: Any, text: str, *names: str, default: Any = None, **more: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, help=text, **more)], default


_PLACEMENT = (
    "Federates in one loop behind one HELICS federate, as threads or processes with a HELICS "
    "federate each, or in a single thread without HELICS. Default: shared."
)
_URL: dict[str, Any] = {"metavar": "URL", "callback": _check_url}
_ONLY = "Run only these federates here (comma-separated)."
_LIVE = "Serve a page of the run while it goes on; loopback unless a HOST is given."
_PCAP = "Capture the Modbus traffic: DIR/pcap/DEVICE.pcapng."
# Field of RunOptions -> (its option, default).
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "out": _option(Path | None, "Folder of the run. Default: runs/NAME-TIME."),
    "steps": _option(int | None, "Stop after this many feeder steps.", min=1),
    "overrides": (Overrides, None),
    "placement": _option(Placement | None, _PLACEMENT),
    "seed": _option(int | None, "Seed of the run.", min=0, callback=_check_seed),
    "attack": (Attack, None),
    "defence": (Defence, None),
    "join": _option(str | None, "Join the HELICS broker at tcp://host:port.", **_URL),
    "listen": _option(str | None, "Run the broker here, at tcp://host:port.", **_URL),
    "only": _option(list[str] | None, _ONLY, metavar="NAMES"),
    "armed": (Arm, None),
    "pcap": _option(bool, _PCAP, "--pcap", default=False),
    "live": _option(str | None, _LIVE, metavar="[[HOST:]PORT]", callback=_check_live),
    "report": _option(bool, "Write report.html at the end.", default=True),
}


def run_options(*fields: str, **helps: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
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

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
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
        def wrapped(**given: Any) -> Any:
            found = {field: given.pop(field) for field in chosen}
            return command(options=_checked(found), **given)

        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def _checked(found: dict[str, Any]) -> RunOptions:
    """Return the given values as run options.

    Raises typer.BadParameter: The placement does not suit a run over several hosts.
    """
    for field in ("overrides", "armed"):
        found[field] = tuple(found.get(field) or ())
    if found.get("only") is not None:
        names = (name.strip() for item in found["only"] for name in item.split(","))
        found["only"] = tuple(name for name in names if name)
    options = RunOptions(**found)
    if options.spans_hosts and options.placement in ("thread", "single"):
        raise typer.BadParameter(
            "--join, --listen and --only need --placement shared or process, "
            f"found {options.placement}"
        )
    return options


class LiveCommand(TyperCommand):
    """A command whose option ``--live`` may stand without an address; typer has no such options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put an address behind each ``--live`` that has none."""
        words = []
        for word, after in zip(args, [*args, ""][1:], strict=True):
            words.append(word)
            # A scenario may follow; an address begins with a digit, or has a colon.
            if word == "--live" and not (after[:1].isdigit() or ":" in after):
                words.append(ANY_PORT)
        return super().parse_args(ctx, words)


def print_json(data: Any) -> None:
    """Write JSON to standard output."""
    typer.echo(json.dumps(data, indent=2))
