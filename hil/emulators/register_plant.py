"""Emulated devices of a configuration: registers, timers and a simple physical relation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hil.emulators.plant import Array, checked_inputs
from hil.emulators.register_bank import RegisterBank
from hil.emulators.register_config import EmulatorConfig
from hil.servers.habits import COMMON_FUNCTIONS, Habits
from hil.servers.pdu import Bank

INPUTS = {
    "v_pu": (0.0, 2.0),
    "irradiance_pu": (0.0, 1.5),
    "hz": (40.0, 70.0),
    "temp_out_c": (-50.0, 60.0),
    "load_pu": (0.0, 10.0),
}
_START = {"v_pu": 1.0, "irradiance_pu": 1.0, "hz": 50.0, "temp_out_c": 32.0, "load_pu": 1.0}
_NOMINAL_V = 230.0
#: Of a room without cooling: time constant of its temperature; and how fast cooling lowers it.
_ROOM_S, _COOLING_K_PER_S, _BAND_K = 8.0 * 3600.0, 10.0 / 3600.0, 0.5


class RegisterUnit:
    """One device: its registers and what happens behind them."""

    def __init__(self, config: EmulatorConfig, rated_w: float) -> None:
        self._physics = config.physics
        self._config, self.rated_w = config, rated_w
        self.time_s = self.p_w = self.q_var = 0.0
        self.soc_pct, self.temp_c = config.physics.soc_pct, config.physics.temp_c
        self.reading_factor = 1.0
        self._due_s: dict[str, float] = {}
        self.bank = RegisterBank(config, self._written)
        self.step(0.0, _START)

    def _written(self, names: Sequence[str]) -> None:
        """Start the timers of what was written."""
        for name in names:
            reverts = self._config.registers[name].reverts
            if reverts is not None:
                after = reverts.after_s
                after_s = self.bank.get(after) if isinstance(after, str) else after
                self._due_s[name] = self.time_s + after_s if after_s > 0 else math.inf

    def _revert(self) -> None:
        for name in [n for n, due_s in self._due_s.items() if self.time_s >= due_s]:
            del self._due_s[name]
            reverts = self._config.registers[name].reverts
            assert reverts is not None
            for target, value in reverts.set.items():
                self.bank.put(target, self.bank.get(value) if isinstance(value, str) else value)

    def _told(self) -> dict[str, float]:
        """Return the commands that count now; of several for one quantity the first."""
        told: dict[str, float] = {}
        for c in self._physics.commands:
            if c.what not in told and all(self.bank.get(r) == v for r, v in c.when.items()):
                told[c.what] = c.factor * self.bank.get(c.point)
        return told

    def step(self, dt_s: float, inputs: Mapping[str, float]) -> None:
        """Let time pass, then show what is measured."""
        self.time_s += dt_s
        self._revert()
        told, rated = self._told(), self.rated_w
        lag = 1.0 - math.exp(-dt_s / self._physics.time_constant_s)
        q = told.get("q_var", told.get("q_pct", 0.0) / 100.0 * rated)
        self.q_var += lag * (min(max(q, -rated), rated) - self.q_var)
        if self._physics.kind == "thermostat":
            self._cool(dt_s, told, inputs["temp_out_c"])
        else:
            self.p_w += lag * (self._target_w(told, inputs["irradiance_pu"]) - self.p_w)
        if self._physics.kind == "battery":
            self.soc_pct -= self.p_w * dt_s / 36.0 / self._physics.energy_wh
            self.soc_pct = min(max(self.soc_pct, 0.0), 100.0)
        self._show(inputs)

    def _target_w(self, told: Mapping[str, float], sun_pu: float) -> float:
        rated = self.rated_w
        if self._physics.kind == "battery":
            p = told.get("p_w", told.get("p_pct", 0.0) / 100.0 * rated)
            lowest = -rated if self.soc_pct < 100.0 else 0.0
            return min(max(p, lowest), rated if self.soc_pct > 0.0 else 0.0)
        limit = min(told.get("limit_w", rated), told.get("limit_pct", 100.0) / 100.0 * rated)
        return max(min(rated * sun_pu, limit), 0.0) if told.get("on", 1.0) else 0.0

    def _cool(self, dt_s: float, told: Mapping[str, float], outside_c: float) -> None:
        was_on, target = self.p_w < 0.0, told.get("cool_set_c", 24.0)
        wanted = self.temp_c > target + (-_BAND_K if was_on else _BAND_K)
        self.p_w = -self.rated_w if wanted and told.get("on", 1.0) else 0.0
        drift = (outside_c - self.temp_c) / _ROOM_S - (_COOLING_K_PER_S if self.p_w else 0.0)
        self.temp_c += drift * dt_s

    def _show(self, inputs: Mapping[str, float]) -> None:
        values = {
            "p_w": self.p_w, "p_abs_w": abs(self.p_w), "q_var": self.q_var,
            "v_v": _NOMINAL_V * inputs["v_pu"], "f_hz": inputs["hz"], "soc_pct": self.soc_pct,
            "temp_c": self.temp_c, "rated_w": self.rated_w, "charging": float(self.p_w < -0.5),
            "running": float(abs(self.p_w) > 0.5),
        }  # fmt: skip
        for name, what in self._physics.shows.items():
            factor = self.reading_factor if what not in ("rated_w", "charging", "running") else 1.0
            self.bank.put(name, factor * values[what])


class RegisterPlant:
    """n equal devices of a configuration; a `hil.emulators.plant.Plant`.

    Parameters
    ----------
    rated_kw : Active power rating; default that of the configuration.

    Raises ServerError: A register cannot hold its value.
    """

    kind = "device"

    def __init__(self, config: EmulatorConfig, n: int = 1, rated_kw: float | None = None) -> None:
        rated_w = config.physics.rated_w if rated_kw is None else 1e3 * rated_kw
        self.units = [RegisterUnit(config, rated_w) for _ in range(n)]
        self.time_s = 0.0
        self._inputs: dict[str, Array] = {k: np.full(n, v) for k, v in _START.items()}
        h = config.habits
        functions = self.units[0].bank.write_functions()
        self.habits = Habits(
            h.pause_s, h.connect_delay_s, h.connections, h.refuse_more, COMMON_FUNCTIONS,
            h.max_registers, h.borders, functions,
        )  # fmt: skip

    @property
    def banks(self) -> Sequence[Bank]:
        """Registers, one bank per device."""
        return [unit.bank for unit in self.units]

    def set_inputs(self, inputs: Mapping[str, object]) -> None:
        """Take voltage, sun and weather; see `Plant`."""
        self._inputs |= checked_inputs(inputs, INPUTS, len(self.units))

    def advance(self, dt_s: float) -> None:
        """Let time pass in one step."""
        self.time_s += dt_s
        for i, unit in enumerate(self.units):
            unit.step(dt_s, {name: float(array[i]) for name, array in self._inputs.items()})

    def outputs(self) -> dict[str, Array]:
        """Return ``p_kw``, ``q_kvar`` (injections), ``soc_pu`` and ``temp_in_c``, shape (n,)."""
        return {
            "p_kw": np.array([1e-3 * unit.p_w for unit in self.units]),
            "q_kvar": np.array([1e-3 * unit.q_var for unit in self.units]),
            "soc_pu": np.array([0.01 * unit.soc_pct for unit in self.units]),
            "temp_in_c": np.array([unit.temp_c for unit in self.units]),
        }

    def set_reading_factors(self, factors: Sequence[float]) -> None:
        """Make the sensors read too much, one factor per device."""
        for unit, factor in zip(self.units, factors, strict=True):
            unit.reading_factor = factor
