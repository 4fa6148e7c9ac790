"""Which ports, labels and elements a target means, and the draw of a share of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from federates.errors import WiringError
from federates.scenario.attack_schema import AttackSpec, Target
from grid_models.base import counter_rng

_DRAW_CHANNEL = 34


def matching(names: Iterable[str], globs: Sequence[str]) -> list[str]:
    """Return the names that match one of the globs, in their order."""
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def drawn(
    names: Sequence[str], target: Target, spec: AttackSpec, step: int, channel: int = _DRAW_CHANNEL
) -> list[str]:
    """Return the share of `names` that the target's fraction or count leaves, in their order.

    A fraction is rounded to the nearest whole number, a half up, and is at least one. The draw
    depends on the attack's seed, the step's id and the name only, not on how the federation is
    hosted or on what else matches.

    Parameters
    ----------
    names : What matches; may be empty.
    step : Position of the step in the attack.
    channel : Of the random numbers.

    Raises WiringError: The count is more than there is.
    """
    n = len(names)
    if not n or (target.fraction is None and target.count is None):
        return list(names)
    if target.fraction is not None:
        n = max(1, math.floor(target.fraction * len(names) + 0.5))
    elif target.count is not None:
        n = target.count
    if n > len(names):
        where = spec.where("steps", step, "target", "count")
        things = "labels" if target.key == "port" else target.key
        raise WiringError(
            [f"{where}: {n} of {len(names)} {things}; expected at most {len(names)}"], where=""
        )
    streams = counter_rng.stream_ids(f"{spec.steps[step].id}/{name}" for name in names)
    rank = counter_rng.uniform(spec.seed, streams, 0, channel)
    kept = set(np.argsort(rank, kind="stable")[:n].tolist())
    return [name for i, name in enumerate(names) if i in kept]
