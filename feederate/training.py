"""The function `train` of the package `feederate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from federates.errors import ScenarioError
from federates.runs.options import path_text
from federates.scenario.schema import Scenario
from feederate.functions import Changes, PathLike, load, readable_errors, warn

if TYPE_CHECKING:
    from federates.training.study import TrainingResult

_LEAST_MINUTES = 0.05  # of the command line, too


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
        Processor time of the updates, at most, from 0.05; simulations of held-out days come on
        top.
    seed : int
        Of the training's days and random cases.
    randomise : bool
        Vary loads, their diversity and the source's voltage in training.

    Raises
    ------
    FeederateError
        The scenario cannot be trained for, or an argument is out of range.
    """
    from federates.reports.training import write_training
    from federates.training.study import train as make

    for name, given, kinds, least in (
        ("minutes", minutes, int | float, _LEAST_MINUTES),
        ("seed", seed, int, 0),
    ):
        if not isinstance(given, kinds) or not least <= given < math.inf:
            number = "whole number" if kinds is int else "number"
            raise ScenarioError(
                f"found {given!r:.60}", where=name, expected=f"a {number} from {least:g}"
            )
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
