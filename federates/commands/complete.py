"""Completion of names in a shell: scenarios, attacks, runs, defences, devices, keys.

``feederate --install-completion`` sets it up. Imports the standard library only; what is looked up
is imported when the shell asks. A completion that fails is an empty one: it must not write to the
line that a user is typing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Completer = Callable[[Any, str], list[str]]
_CONTROLLER = re.compile(r"(.*\.controller=)")
_MODEL = re.compile(r"(grid\.model=)")


def _quiet(names: Callable[[Any, str], Iterable[str]]) -> Completer:
    """Return a completer of those of `names` that begin with what was typed."""

    @functools.wraps(names)
    def complete(ctx: Any, incomplete: str) -> list[str]:
        try:
            found = dict.fromkeys(n for n in names(ctx, incomplete) if n.startswith(incomplete))
        except Exception:
            return []
        return list(found)

    return complete


@_quiet
def scenario(ctx: Any, incomplete: str) -> Iterator[str]:
    """Complete shipped scenarios, and YAML files."""
    from federates.scenario.schema import shipped_scenarios

    yield from shipped_scenarios()
    yield from _paths(incomplete, "*.yaml")


@_quiet
def attack(ctx: Any, incomplete: str) -> Iterator[str]:
    """Complete shipped attacks, and YAML files."""
    from federates.scenario.attack_files import shipped_attacks
    from federates.scenario.schema import shipped_dir

    yield from shipped_attacks(shipped_dir())
    yield from _paths(incomplete, "*.yaml")


def either(ctx: Any, incomplete: str) -> list[str]:
    """Complete scenarios and attacks."""
    return list(dict.fromkeys((*scenario(ctx, incomplete), *attack(ctx, incomplete))))


@_quiet
def run(ctx: Any, incomplete: str) -> Iterator[str]:
    """Complete folders of runs; those in ``runs`` without its name having been typed."""
    at = Path(incomplete).parent if "/" in incomplete else Path()
    for folder in (at, Path("runs")):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            paired = path != Path("runs") and any(path.glob("*/manifest.json"))
            if paired or (path / "manifest.json").is_file():
                yield str(path)


@_quiet
def device(ctx: Any, incomplete: str) -> Iterator[str]:
    """Complete shipped device files, and YAML files."""
    from hil.devices.file import shipped_devices

    yield from shipped_devices()
    yield from _paths(incomplete, "*.yaml")


@_quiet
def defence(ctx: Any, incomplete: str) -> Iterator[str]:
    """Complete the defences of the scenario that was typed before."""
    yield from _data(ctx)[0].get("defences") or {}


@_quiet
def override(ctx: Any, incomplete: str) -> Iterator[str]:
    """Complete keys of the scenario that was typed before; names of controllers and feeders."""
    for pattern, names in ((_CONTROLLER, _controllers), (_MODEL, _feeders)):
        found = pattern.match(incomplete)
        if found:
            yield from (found[1] + name for name in names())
            return
    from grid_models.base.yaml_lines import dotted

    yield from (f"{dotted(path)}=" for path in _data(ctx)[1])


def _controllers() -> Iterable[str]:
    from controllers.core.registry import descriptions

    return descriptions()


def _feeders() -> Iterable[str]:
    from grid_models.catalog import shipped_feeders

    return shipped_feeders()


def _paths(incomplete: str, glob: str) -> Iterator[str]:
    folder = Path(incomplete).parent if "/" in incomplete else Path()
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield f"{path}/"
        elif path.match(glob):
            yield str(path)


def _data(ctx: Any) -> tuple[dict[str, Any], dict[Any, int]]:
    """Return the scenario of the command line, as its file has it, and the lines of its keys."""
    from federates.scenario.schema import find_scenario
    from grid_models.base.yaml_lines import read_yaml

    # After an option without its value the arguments are not taken in yet.
    given = ctx.params.get("into") or ctx.params.get("scenario") or ctx.args[0]
    return read_yaml(find_scenario(given))
