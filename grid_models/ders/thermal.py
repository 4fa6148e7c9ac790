"""What houses and water heaters share: one thermal mass each, and parameters drawn by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.base.errors import GridModelError

Array = NDArray[np.float64]


def label_keys(labels: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Return one random stream per label, independent of the other labels."""
    return stream_ids(f"{seed}/{label}" for label in labels)


def uniform_between(keys: NDArray[np.uint64], counter: int, low: float, high: float) -> Array:
    """Return a number between `low` and `high` per stream; each parameter has its `counter`."""
    return low + (high - low) * uniform(0, keys, counter, 0)


def grouped(group: NDArray[np.intp], values: Array, n: int) -> Array:
    """Return the sum of `values` by group, shape (n,)."""
    return np.bincount(group, values, n).astype(np.float64, copy=False)


def check_arrays(parameters: Any, may_be_zero: Sequence[str]) -> None:
    """Refuse arrays of unequal length, or with what is not finite or not positive."""
    shape = parameters.r_k_per_kw.shape
    for field in fields(parameters):
        values = getattr(parameters, field.name)
        low_ok = values >= 0.0 if field.name in may_be_zero else values > 0.0
        if field.name.endswith("_c"):
            low_ok = np.isfinite(values)
        if values.shape != shape or len(shape) != 1 or not (np.isfinite(values) & low_ok).all():
            raise GridModelError(
                f"{field.name} is not usable",
                where="house parameters",
                expected="positive finite numbers, one per house",
            )


class Decay:
    """theta = exp(-dt / RC), kept until the step length changes."""

    def __init__(self, rc_h: Array) -> None:
        self._rc_h = rc_h
        self._dt_s: float | None = None
        self.theta = np.ones_like(rc_h)

    def at(self, dt_s: float) -> Array:
        """Return theta for a step of `dt_s`, shape (n,)."""
        if dt_s != self._dt_s:
            if not (np.isfinite(dt_s) and dt_s > 0.0):
                raise GridModelError(f"dt_s is {dt_s}", where="house step", expected="a time > 0 s")
            self.theta = np.exp(-dt_s / 3600.0 / self._rc_h)
            self._dt_s = dt_s
        return self.theta
