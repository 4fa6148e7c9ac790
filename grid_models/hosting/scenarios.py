"""Days that may come: load, sun, temperature and price with noise, and few days for many.

Paper 003, "Incorporating uncertainty" (Gaussian noise on the inputs) and "Scenario k-means
clustering". Days are reduced to medoids, which are days that were drawn: means of days have no
extremes, and a design for them curtails more than it was allowed to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from grid_models.base.counter_rng import normal, stream_ids
from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.current_injection.model import FloatArray
from grid_models.hosting.model import HostingModel

_LOAD, _SUN, _TEMP, _PRICE = 10, 20, 30, 40
_STEP = 100
"""Added to the channel of a quantity's noise by day for its noise by step."""


@dataclass(frozen=True, slots=True)
class DayNoise(Options):
    """Gaussian noise of days; each standard deviation is that of one draw a day, or one a step.

    Demand, sun and price are multiplied with ``1 + day z + step z(t)``, 0 at least; the temperature
    is moved by it. The four are independent; all loads share a draw, and so do all PV units.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    day_noise: float = option(0.05, "Of demand, sun and price, by day.", low=0.0, high=1.0)
    step_noise: float = option(0.0, "Of demand, sun and price, by step.", low=0.0, high=1.0)
    day_noise_k: float = option(2.0, "Of the temperature, by day, K.", low=0.0, high=20.0)
    step_noise_k: float = option(0.0, "Of the temperature, by step, K.", low=0.0, high=20.0)


@dataclass(frozen=True)
class Days:
    """N days of T steps.

    Attributes
    ----------
    load_pu : (N, T). Demand over that of the model.
    pv_pu : (N, T). Output of PV over its rating.
    temp_c : (N, T). Outdoor temperature.
    price : (N, T). Of energy, in currency per kWh.
    weight : (N,). Probabilities.
    """

    load_pu: FloatArray
    pv_pu: FloatArray
    temp_c: FloatArray
    price: FloatArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: NDArray[np.intp], weight: FloatArray) -> Days:
        """Return some of the days, with new probabilities."""
        load_pu, pv_pu, temp_c, price = (x[rows] for x in self._quantities)
        return Days(load_pu, pv_pu, temp_c, price, weight)

    def joined(self, other: Days) -> Days:
        """Return the days of both, all equally likely."""
        pairs = zip(self._quantities, other._quantities, strict=True)
        load_pu, pv_pu, temp_c, price = (np.concatenate(pair) for pair in pairs)
        n = len(load_pu)
        return Days(load_pu, pv_pu, temp_c, price, np.full(n, 1.0 / n))

    def distance(self, other: Days) -> FloatArray:
        """Return how far N days are from M others, (N, M).

        Euclidean, over all steps and the four quantities, in standard deviations of these days.
        """
        total = np.zeros((len(self), len(other)))
        for own, its in zip(self._quantities, other._quantities, strict=True):
            scale = max(float((own - own.mean(axis=0)).std()), 1e-9)
            total += (((own[:, None] - its) / scale) ** 2).sum(axis=2)
        return np.asarray(np.sqrt(total))

    @property
    def _quantities(self) -> tuple[FloatArray, ...]:
        return self.load_pu, self.pv_pu, self.temp_c, self.price


def drawn_days(
    model: HostingModel, price: FloatArray, noise: DayNoise, n: int, seed: int, name: str = "day"
) -> Days:
    """Return `n` equally likely days about the model's own.

    Day k of a seed and a name is the same however many there are.

    `price`: (T,). Of energy on the model's day.
    """
    streams = stream_ids(f"{name} {k}" for k in range(n))[:, None]
    steps = np.arange(len(model.hours), dtype=np.uint64)

    def draw(channel: int, day: float, step: float) -> FloatArray:
        by_day = normal(seed, streams, steps[:1], channel)
        by_step = normal(seed, streams, steps, channel + _STEP)
        return np.asarray(day * by_day + step * by_step)

    def factor(channel: int) -> FloatArray:
        return np.maximum(0.0, 1.0 + draw(channel, noise.day_noise, noise.step_noise))

    return Days(
        load_pu=factor(_LOAD),
        pv_pu=model.pv_pu * factor(_SUN),
        temp_c=model.temp_c + draw(_TEMP, noise.day_noise_k, noise.step_noise_k),
        price=price * factor(_PRICE),
        weight=np.full(n, 1.0 / max(n, 1)),
    )


def own_day(model: HostingModel, price: FloatArray) -> Days:
    """Return the model's own day."""
    pv_pu, temp_c = model.pv_pu[None], model.temp_c[None]
    return Days(np.ones_like(pv_pu), pv_pu, temp_c, price[None], np.ones(1))


def reduced_days(days: Days, k: int) -> tuple[Days, NDArray[np.intp]]:
    """Return the `k` medoids of days with the probabilities of those next to them, and whose.

    The second array (N,) is the medoid of each day.
    """
    medoids, member = k_medoids(days.distance(days), k, days.weight)
    return days.take(medoids, np.bincount(member, days.weight, k).astype(np.float64)), member


def k_medoids(
    distance: FloatArray, k: int, weight: FloatArray
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return `k` medoids, in ascending order, and the medoid of each point, as its position.

    Partitioning around medoids (Kaufman and Rousseeuw 1990): medoids are added one by one, then
    exchanged for other points while this lowers the weighted sum of distances; deterministic.

    `distance`: (N, N). `weight`: (N,).
    """
    if not 1 <= k <= len(distance):
        raise FeederError(
            f"cannot find {k} medoids",
            where="scenario reduction",
            expected=f"1 to {len(distance)}, the number of days",
        )
    cost = distance * weight  # of point j when i serves it
    nearest, medoids = np.full(len(cost), np.inf), np.zeros(0, dtype=np.intp)
    for _ in range(k):
        total = np.minimum(cost, nearest).sum(axis=1)
        total[medoids] = np.inf
        medoids = np.append(medoids, total.argmin())
        nearest = np.minimum(nearest, cost[medoids[-1]])
    best = nearest.sum()
    while True:
        by_medoid = cost[medoids]
        order = by_medoid.argsort(axis=0)
        first = np.take_along_axis(by_medoid, order[:1], axis=0)[0]
        second = np.take_along_axis(by_medoid, order[1:2], axis=0)[0] if k > 1 else np.inf + first
        # What serves the points when one medoid is taken away, (k, N).
        without = np.where(order[0] == np.arange(k)[:, None], second, first)
        total = np.minimum(without[:, None], cost).sum(axis=2)
        out, into = np.unravel_index(total.argmin(), total.shape)
        if not total[out, into] < best * (1.0 - 1e-12):
            break
        best, medoids[out] = total[out, into], into
    medoids = np.sort(medoids)
    return medoids, np.asarray(distance[medoids].argmin(axis=0))
