"""Water heaters: a tank as one thermal mass, with hysteresis; power is consumption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.ders.thermal import Array, Decay, check_arrays, label_keys, uniform_between
from grid_models.feeder.model import Der


@dataclass(frozen=True)
class TankParameters:
    """Water heaters, each array of shape (n,): a tank as one thermal mass.

    `draw_kw` is the heat taken by hot water at ``load_pu = 1``, `start_c` the first temperature.
    """

    r_k_per_kw: Array
    c_kwh_per_k: Array
    heater_kw: Array
    set_c: Array
    band_k: Array
    draw_kw: Array
    start_c: Array

    def __post_init__(self) -> None:
        check_arrays(self, ("heater_kw", "set_c", "draw_kw"))

    @classmethod
    def draw(cls, labels: Sequence[str], seed: int, rated_kw: ArrayLike = 4.5) -> TankParameters:
        """Draw tanks round 0.4 kWh/K, 120 K/kW and 48.5 degrees C (Hao and others, table I)."""
        keys = label_keys(labels, seed)
        set_c, band_k = uniform_between(keys, 13, 43.5, 53.5), uniform_between(keys, 14, 2.0, 4.0)
        return cls(
            r_k_per_kw=uniform_between(keys, 11, 100.0, 140.0),
            c_kwh_per_k=uniform_between(keys, 12, 0.2, 0.6),
            heater_kw=np.broadcast_to(np.asarray(rated_kw, dtype=np.float64), keys.shape).copy(),
            set_c=set_c,
            band_k=band_k,
            draw_kw=uniform_between(keys, 15, 0.2, 0.6),
            start_c=set_c + band_k * uniform_between(keys, 16, -0.5, 0.5),
        )


class TankFleet:
    """Water heaters with hysteresis, vectorised.

    Parameters
    ----------
    parameters : Of n tanks.
    ambient_c : Temperature round the tanks.

    `temp_c`: (n,). Water temperature.
    """

    def __init__(self, parameters: TankParameters, ambient_c: float = 20.0) -> None:
        self.parameters = parameters
        self.ambient_c = ambient_c
        p = parameters
        self.temp_c: Array = p.start_c.copy()
        self._upper = p.set_c + 0.5 * p.band_k
        self._lower = p.set_c - 0.5 * p.band_k
        self._on = np.zeros(p.set_c.shape, dtype=bool)
        self._decay = Decay(p.r_k_per_kw * p.c_kwh_per_k)
        self._free = self.temp_c
        self._gain = np.zeros_like(self.temp_c)

    def wanted_kw(self, dt_s: float, load_pu: float = 1.0) -> Array:
        """Return what each heater asks for in the coming step (mean kW), shape (n,)."""
        p = self.parameters
        theta = self._decay.at(dt_s)
        rest = self.ambient_c - p.r_k_per_kw * p.draw_kw * load_pu
        self._free = theta * self.temp_c + (1.0 - theta) * rest
        self._gain = (1.0 - theta) * p.r_k_per_kw
        self._on |= self._free < self._lower
        need = np.minimum(np.maximum((self._upper - self._free) / self._gain, 0.0), p.heater_kw)
        return np.where(self._on, need, 0.0)

    def advance(self, p_kw: Array) -> None:
        """Finish the step begun by `wanted_kw` with the power that was granted, shape (n,)."""
        self.temp_c = self._free + self._gain * p_kw
        self._on &= self.temp_c < self._upper - 1e-9


def tanks_of_ders(ders: Sequence[Der], seed: int) -> tuple[TankParameters, NDArray[np.intp]]:
    """Return the single tanks behind flexible loads with storage, and the DER of each."""
    labels = [f"{der.name}/{k}" for der in ders for k in range(der.count)]
    group = np.repeat(np.arange(len(ders), dtype=np.intp), [der.count for der in ders])
    rated = np.repeat([-der.p_min_kw / der.count for der in ders], [der.count for der in ders])
    return TankParameters.draw(labels, seed, rated), group
