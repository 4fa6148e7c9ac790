"""Paired runs: one scenario without the attack, with it, and with it under each defence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BASELINE, ATTACKED = "baseline", "attacked"


@dataclass(frozen=True)
class State:
    """One of the runs to be compared."""

    name: str
    folder: Path
    attack: str | None
    """As `run --attack`: '' for none, None for the scenario's own."""
    defence: str | None = None


def states_of(folder: Path, attack: str | None, defences: Sequence[str]) -> list[State]:
    """Return the runs to be made in sub-folders of `folder`."""
    states = [State(BASELINE, folder / BASELINE, ""), State(ATTACKED, folder / ATTACKED, attack)]
    return states + [State(name, folder / name, attack, name) for name in defences]


def readable(states: Sequence[State]) -> Iterator[State]:
    """Yield the states whose folder holds a run."""
    return (state for state in states if (state.folder / "manifest.json").is_file())
