"""Static hosting capacity with uncertain demand and PV, by Monte Carlo sampling.

Thesis' slides, "Stochastic iterative method": Gaussian noise on the inputs, one placement a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from grid_models.base.counter_rng import UIntArray, normal, stream_ids
from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.hosting.model import HostingModel
from grid_models.hosting.result import HostingResult
from grid_models.hosting.static import StaticOptions, static_capacity

_LOAD, _PV = 10, 20


@dataclass(frozen=True, slots=True)
class NoiseOptions(Options):
    """Gaussian factors ``1 + sigma z`` on demand and on the output of PV, 0 at least.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    load_pct: float = option(3.0, "Standard deviation of demand.", low=0.0, high=100.0)
    pv_pct: float = option(3.0, "Standard deviation of the output of PV.", low=0.0, high=100.0)
    per: Literal["day", "step"] = option(
        "day", "How long a draw lasts: a whole day, or a step.", choices=("day", "step")
    )
    shared: bool = option(
        True, "One draw for all loads and one for all PV; else one for each load and each site."
    )


def monte_carlo_capacity(
    model: HostingModel, options: StaticOptions, noise: NoiseOptions
) -> HostingResult:
    """Return the hosting capacity of random placements, each on a day of its own.

    Samples that are infeasible without PV have NaN, and a note counts them. Placements are those of
    `static_capacity`; sample k is the same however many there are. Tables as there.
    """
    found = static_capacity(model, options, *sampled_days(model, options, noise))
    said = (
        f"noise: {noise.load_pct:g} % on demand and {noise.pv_pct:g} % on PV, one draw a "
        f"{noise.per} for {'all elements' if noise.shared else 'each element'}"
    )
    return replace(found, notes=(said, *found.notes))


def sampled_days(
    model: HostingModel, options: StaticOptions, noise: NoiseOptions
) -> tuple[FloatArray, ComplexArray]:
    """Return output of PV and demand of each sample, (N, T, S or 1) and complex (N, T, n_loads)."""
    streams = stream_ids(f"sample {k}" for k in range(options.placements))
    n_loads, n_sites = model.load_kva.shape[1], len(model.sites)
    load = _factors(streams, noise, noise.load_pct, n_loads, len(model.hours), options.seed, _LOAD)
    pv = _factors(streams, noise, noise.pv_pct, n_sites, len(model.hours), options.seed, _PV)
    return model.pv_pu[:, None] * pv, model.load_kva * load


def _factors(
    streams: UIntArray,
    noise: NoiseOptions,
    percent: float,
    n_elements: int,
    n_steps: int,
    seed: int,
    channel: int,
) -> FloatArray:
    """Return the factors of samples, (N, n_steps or 1, n_elements or 1)."""
    steps = n_steps if noise.per == "step" else 1
    elements = 1 if noise.shared else n_elements
    counter = np.arange(steps * elements, dtype=np.uint64)
    z = normal(seed, streams[:, None], counter, channel).reshape(-1, steps, elements)
    return np.asarray(np.maximum(0.0, 1.0 + percent / 100.0 * z))
