"""The function `train` of the package `feederate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from federates.runs.options import path_text
from federates.scenario.schema import Scenario
from feederate.functions import Changes, PathLike, load, readable_errors, warn

if TYPE_CHECKING:
    from federates.training.study import TrainingResult


def train(
    scenario: PathLike | Scenario,
    out: PathLike,
    *,
    minutes: float = 1.0,
    seed: int = 1,
    randomise: bool = True,
    set: Changes | None = None,
) -> TrainingResult:
    """Train local volt/var curves for the inverters of a scenario's feeder.

    Writes the policy file, which the controller ``learned-droop`` reads, and a report beside it.

    Parameters
    ----------
    scenario, set
        As in `load`.
    out : str or Path
        The policy file, ``NAME.csv``.
    minutes : float
        Processor time of the updates, at most; simulations of held-out days come on top.
    seed : int
        Of the training's days and random cases.
    randomise : bool
        Vary loads, their diversity and the source's voltage in training.

    Raises
    ------
    FeederateError
        The scenario cannot be trained for, or `out` is no such name.
    """
    from federates.reports.training import write_training
    from federates.training.study import train as make

    chosen = load(scenario, set=set)
    with readable_errors():
        found = make(
            chosen,
            Path(path_text(out, "out")),
            minutes=minutes,
            seed=seed,
            randomised=randomise,
        )
        write_training(found)
    for note in found.notes:
        warn(note)
    return found
