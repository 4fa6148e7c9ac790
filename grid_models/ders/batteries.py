"""Batteries: stored energy, losses and limits; power is an injection (positive = discharging)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.base.options import checked_number
from grid_models.ders.rules import DerError
from grid_models.feeder.model import Der

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BatteryParameters:
    """What a `Der` does not say of its battery; shares are of `Der.energy_kwh`.

    Efficiencies are one-way: 0.95 * 0.95 = 0.90 there and back.
    """

    charge_efficiency: float = 0.95
    discharge_efficiency: float = 0.95
    soc_min: float = 0.1
    soc_max: float = 1.0
    soc_start: float = 0.5

    def __post_init__(self) -> None:
        for name in ("charge_efficiency", "discharge_efficiency"):
            value = getattr(self, name)
            checked_number(name, value, low=0.0, high=1.0, open_low=True, error=DerError)
        if not 0.0 <= self.soc_min <= self.soc_start <= self.soc_max <= 1.0:
            raise DerError(
                f"state of charge {self.soc_min}, {self.soc_start}, {self.soc_max}",
                where="battery parameters",
                expected="0 <= soc_min <= soc_start <= soc_max <= 1",
            )


class BatteryFleet:
    """Batteries with losses and hard limits of charge, vectorised.

    ``E(t+dt) = E(t) + dt (eta_c * charge - discharge / eta_d)`` with the power at the terminals
    held inside `limits`. The thesis prints eta for both directions; dividing by it when
    discharging is the reading that creates no energy. Self-discharge is left out.

    `soc_kwh`: (n,). Stored energy.
    """

    def __init__(self, ders: Sequence[Der], parameters: BatteryParameters) -> None:
        p = parameters
        energy = np.array([d.energy_kwh for d in ders], dtype=np.float64)
        self._eta_c, self._eta_d = p.charge_efficiency, p.discharge_efficiency
        self._low, self._high = p.soc_min * energy, p.soc_max * energy
        self._p_min = np.array([d.p_min_kw for d in ders], dtype=np.float64)
        self._p_max = np.array([d.p_max_kw for d in ders], dtype=np.float64)
        self.soc_kwh: Array = p.soc_start * energy

    def limits(self, dt_s: float) -> tuple[Array, Array]:
        """Return the least and largest injection that holds for `dt_s`, kW."""
        hours = dt_s / 3600.0
        low = np.maximum(self._p_min, (self.soc_kwh - self._high) / (self._eta_c * hours))
        high = np.minimum(self._p_max, (self.soc_kwh - self._low) * (self._eta_d / hours))
        return low, high

    def advance(self, dt_s: float, p_kw: Array) -> None:
        """Integrate injections inside `limits` over the step."""
        # Rounding only: the limits already keep the power small enough.
        self.soc_kwh = np.minimum(np.maximum(self.stored(dt_s, p_kw), self._low), self._high)

    def stored(self, dt_s: float, p_kw: Array) -> Array:
        """Return the energy after a step with these injections, kWh, shape (n,)."""
        hours = dt_s / 3600.0
        # One of the two terms is the larger for charging, the other for discharging.
        change = np.minimum(-p_kw * self._eta_c, -p_kw / self._eta_d)
        soc: Array = self.soc_kwh + hours * change
        return soc
