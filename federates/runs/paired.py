"""Paired runs: one scenario, and that scenario with each defence, with and without the attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BASELINE, ATTACKED, CLEAN = "baseline", "attacked", "-clean"
"""Names of states: a defence's own is its run under attack, with `CLEAN` behind it that without."""


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
    for name in defences:
        clean = f"{name}{CLEAN}"
        states += [State(name, folder / name, attack, name), State(clean, folder / clean, "", name)]
    return states


def clean_of(name: str) -> str | None:
    """Return the state that a state is compared with: the same without the attack.

    A defence without the attack is compared with the baseline, and the baseline with nothing.
    """
    if name == BASELINE:
        return None
    return BASELINE if name == ATTACKED or name.endswith(CLEAN) else f"{name}{CLEAN}"


def readable(states: Sequence[State]) -> Iterator[State]:
    """Yield the states whose folder holds a run."""
    return (state for state in states if (state.folder / "manifest.json").is_file())
