"""Emulated thermostats, each in a house of `grid_models.ders.houses`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from grid_models.ders.houses import HouseFleet, HouseParameters
from hil.emulators.plant import Array, checked_inputs
from hil.servers.habits import Habits
from hil.servers.pdu import Bank
from hil.servers.thermostat import Thermostat

INPUTS = {"temp_out_c": (-50.0, 60.0), "load_pu": (0.0, 10.0)}


class ThermostatPlant:
    """n thermostats with their houses; a `hil.emulators.plant.Plant`.

    A register that is written takes effect in the next step; the width of the
    band round a set-point is a parameter of the house.

    Parameters
    ----------
    temp_out_c : Outdoor temperature until the grid says another.
    """

    kind = "thermostat"

    def __init__(self, houses: HouseFleet, temp_out_c: float = 32.0) -> None:
        self.houses = houses
        self.time_s = 0.0
        self.habits = Habits()
        self._factors: Array = np.ones(houses.n)
        self._total_kw: Array = np.zeros(houses.n)
        self._energy_kwh: Array = np.zeros(houses.n)
        self._inputs: dict[str, Array] = {
            "temp_out_c": np.full(houses.n, temp_out_c),
            "load_pu": np.ones(houses.n),
        }
        p = houses.parameters
        self.thermostats = [Thermostat(float(band)) for band in p.band_k]
        homes = zip(self.thermostats, p.cool_set_c, p.heat_set_c, strict=True)
        for thermostat, cool, heat in homes:
            thermostat.set_home(float(cool), float(heat))
        self._show()

    @property
    def banks(self) -> Sequence[Bank]:
        """Registers, one bank per device."""
        return [thermostat.bank for thermostat in self.thermostats]

    def set_inputs(self, inputs: Mapping[str, object]) -> None:
        """Take ``temp_out_c`` and ``load_pu``; see `Plant`."""
        self._inputs |= checked_inputs(inputs, INPUTS, self.houses.n)

    def advance(self, dt_s: float) -> None:
        """Let time pass in one step."""
        targets = [thermostat.targets for thermostat in self.thermostats]
        self.houses.retarget(
            np.array([t.heat_c for t in targets]), np.array([t.cool_c for t in targets])
        )
        limit = np.array([np.inf if t.may_run else 0.0 for t in targets])
        self._total_kw = self.houses.step(
            dt_s, self._inputs["temp_out_c"], self._inputs["load_pu"], limit_kw=limit
        )
        self._energy_kwh += self.houses.hvac_kw * (dt_s / 3600.0)
        self.time_s += dt_s
        for thermostat in self.thermostats:
            thermostat.advance(dt_s)
        self._show()

    def _show(self) -> None:
        h = self.houses
        rows = zip(
            self.thermostats,
            (h.temp_in_c * self._factors).tolist(),
            (1e3 * h.hvac_kw).tolist(),
            h.heating.tolist(),
            (1e3 * self._total_kw).tolist(),
            self._inputs["temp_out_c"].tolist(),
            (1e3 * self._energy_kwh).tolist(),
            strict=True,
        )
        for thermostat, temp, watts, heating, total, outside, energy in rows:
            on = watts > 0.0
            thermostat.measured(temp, cooling=on and not heating, heating=on and heating,
                                power_w=watts)  # fmt: skip
            thermostat.bank.values |= {
                "total_w": total, "temp_out_c": outside, "energy_wh": energy,
            }  # fmt: skip

    def outputs(self) -> dict[str, Array]:
        """Return ``p_kw`` and ``q_kvar`` (injections, so negative), ``hvac_kw``, ``temp_in_c``."""
        return {
            "p_kw": -self._total_kw,
            "q_kvar": -self._total_kw * self.houses.tan_phi,
            "hvac_kw": self.houses.hvac_kw.copy(),
            "temp_in_c": self.houses.temp_in_c.copy(),
        }

    def set_reading_factors(self, factors: Sequence[float]) -> None:
        """Make the temperature sensors read too much, one factor per device."""
        self._factors = np.array(factors)


def thermostats(
    names: Sequence[str], rated_kw: ArrayLike = 7.0, *, seed: int = 1, temp_out_c: float = 32.0
) -> ThermostatPlant:
    """Return one thermostat per name; each house depends on the seed and this name only.

    `rated_kw` is one rating of all houses, or one of each.
    """
    houses = HouseFleet(HouseParameters.draw(names, seed, rated_kw))
    return ThermostatPlant(houses, temp_out_c)
