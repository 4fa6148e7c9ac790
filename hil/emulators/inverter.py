"""Inverters after IEEE 1547-2018, vectorised; no sockets, no clock.

Inputs of a step hold over it. Filters and timers are solved exactly, so that with unchanged inputs
one step of 10 s and a hundred of 0.1 s end in the same state (ramps and clearing times included;
energies, and a battery that runs empty inside the step, are the exceptions).

Simplifications, all of them: fundamental frequency only; no momentary cessation and no ride-through
beyond the trip limits; constant power factor and constant var respond at once (the standard allows
10 s); reactive power at night.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.ders.batteries import BatteryFleet, BatteryParameters
from grid_models.feeder.model import Der
from hil.emulators.inverter_settings import (
    TRIP_LIMITS,
    Array,
    Codes,
    Flags,
    InverterSettings,
    Priority,
    VarRef,
)

_LN10 = float(np.log(10.0))
#: What the reference voltage may drift to by itself (IEEE 1547-2018, 5.3.3).
_V_REF_RANGE = (0.95, 1.05)


@dataclass
class PvSource:
    """A PV array: all available power unless it is limited.

    `dc_kw`, shape (n,), is the power at an irradiance of 1.0 pu (1000 W/m2), after losses.
    """

    dc_kw: Array

    def limits(self, dt_s: float, irradiance_pu: Array) -> tuple[Array, Array]:
        """Return the least (0) and largest injection for the coming step, kW, shape (n,)."""
        return np.zeros_like(self.dc_kw), self.dc_kw * irradiance_pu

    def idle_kw(self, highest_kw: Array) -> Array:
        """Return the injection without any set-point, kW: all available power."""
        return highest_kw

    def advance(self, dt_s: float, p_kw: Array) -> None:
        """Let the step pass with the injection that came of it: PV has no stored energy."""


class BatterySource:
    """Batteries of `grid_models.ders.batteries`: idle unless they are told to charge or discharge.

    `rated_kw` and `energy_kwh` have shape (n,).
    """

    def __init__(
        self, rated_kw: Array, energy_kwh: Array, parameters: BatteryParameters | None = None
    ) -> None:
        pairs = zip(rated_kw.tolist(), energy_kwh.tolist(), strict=True)
        ders = [
            Der(f"battery_{i}", "battery", bus="", phases=(1,), kva=kw, p_max_kw=kw, p_min_kw=-kw,
                energy_kwh=kwh)
            for i, (kw, kwh) in enumerate(pairs)
        ]  # fmt: skip
        self.energy_kwh: Array = energy_kwh
        self.parameters = parameters or BatteryParameters()
        self.fleet = BatteryFleet(ders, self.parameters)

    @property
    def soc_kwh(self) -> Array:
        """Stored energy, shape (n,)."""
        return self.fleet.soc_kwh

    def limits(self, dt_s: float, irradiance_pu: Array) -> tuple[Array, Array]:
        """Return the least and largest injection that the stored energy allows, kW, shape (n,)."""
        return self.fleet.limits(dt_s)

    def idle_kw(self, highest_kw: Array) -> Array:
        """Return the injection without any set-point, kW: zero."""
        return np.zeros_like(highest_kw)

    def advance(self, dt_s: float, p_kw: Array) -> None:
        """Integrate the stored energy."""
        self.fleet.advance(dt_s, p_kw)


#: The direct-current side of an inverter.
DcSource = PvSource | BatterySource


def _alpha(dt_s: float, response_s: Array) -> Array:
    """Return the share of the way a filter with an open-loop response time goes in `dt_s`."""
    tau = np.maximum(response_s, 1e-9) / _LN10
    return -np.expm1(-dt_s / tau)


class TripRelay:
    """Clearing times of table 12 and 18: how long each limit has been exceeded.

    Attributes
    ----------
    limit, clear_s : (limits, n); May be changed between steps.
    """

    def __init__(self, n: int) -> None:
        self.names = [(kind, i) for kind, rows in TRIP_LIMITS.items() for i in range(len(rows))]
        kinds = [kind for kind, _ in self.names]
        rows = np.array([row for table in TRIP_LIMITS.values() for row in table])
        self.limit: Array = np.repeat(rows[:, :1], n, axis=1)
        self.clear_s: Array = np.repeat(rows[:, 1:], n, axis=1)
        self._sign = np.array([[1.0 if k.startswith("over") else -1.0] for k in kinds])
        self._of_voltage = np.array([[k.endswith("voltage")] for k in kinds])
        self.beyond_s: Array = np.zeros((len(kinds), n))

    def step(self, dt_s: float, v_pu: Array, hz: Array) -> NDArray[np.bool_]:
        """Return which limits have cleared, shape (limits, n)."""
        value = np.where(self._of_voltage, v_pu, hz)
        beyond = self._sign * (value - self.limit) > 0.0
        self.beyond_s = np.where(beyond, self.beyond_s + dt_s, 0.0)
        return np.asarray(beyond & (self.beyond_s >= self.clear_s - 1e-9))


class FrequencyDroop:
    """Frequency-droop (clause 6.5.2.7, table 23): the power before the disturbance, plus a share.

    It counts from the output at the moment in which the frequency left the deadband, comes before
    the limit of active power (clause 4.7), and ends when the share is gone. The response time is
    that of the way to what the source can do.
    """

    def __init__(self, settings: InverterSettings) -> None:
        n = settings.n
        self._settings = settings
        self._share: Array = np.zeros(n)
        self._before_kw: Array = np.zeros(n)
        self.active: Flags = np.zeros(n, dtype=bool)

    def step(
        self, dt_s: float, hz: Array, p_kw: Array, limit_kw: Array, asked_kw: Array,
        low_kw: Array, high_kw: Array,
    ) -> Array:  # fmt: skip
        """Return the wanted active power, kW; `asked_kw` where no droop acts."""
        s = self._settings
        over = np.maximum(hz - 60.0 - s.droop_over_hz, 0.0) / (60.0 * s.droop_over_slope)
        under = np.maximum(60.0 - s.droop_under_hz - hz, 0.0) / (60.0 * s.droop_under_slope)
        aim = np.where(s.droop_on, under - over, 0.0)
        begins = (aim != 0.0) & ~self.active
        self._before_kw = np.where(begins, p_kw, self._before_kw)
        self.active = s.droop_on & ((aim != 0.0) | (self.active & (np.abs(self._share) > 1e-3)))
        before = np.minimum(self._before_kw, limit_kw)
        aim_kw = np.clip(before + aim * s.w_max_kw, low_kw, high_kw) - before
        gain = _alpha(dt_s, s.droop_response_s)
        share = self._share + gain * (aim_kw / np.maximum(s.w_max_kw, 1e-9) - self._share)
        self._share = np.where(self.active, share, 0.0)
        return np.where(self.active, before + self._share * s.w_max_kw, asked_kw)


class InverterFleet:
    """n inverters at their terminals.

    Parameters
    ----------
    rated_kw : (n,); Active power rating.
    rated_kva : Apparent power rating; by default that of `rated_kw`.
    source : PV of `rated_kw` by default.
    running : True: in service from the start; False: waits as after an outage.

    Attributes
    ----------
    p_kw, q_kvar : (n,); Injection after the last step.
    settings : May be changed between steps.
    tripped : (limits, n); Latched trips; `reset_alarms` clears them.
    """

    def __init__(
        self,
        rated_kw: ArrayLike,
        rated_kva: ArrayLike | None = None,
        source: DcSource | None = None,
        *,
        running: bool = True,
    ) -> None:
        rated: Array = np.atleast_1d(np.asarray(rated_kw, dtype=np.float64))
        kva = rated if rated_kva is None else np.asarray(rated_kva, dtype=np.float64)
        n = len(rated)
        self.n = n
        self.settings = InverterSettings(n, rated, np.broadcast_to(kva, (n,)).copy())
        self.source: DcSource = source or PvSource(rated.copy())
        self.relay = TripRelay(n)
        self.in_service: Flags = np.full(n, running)
        self._ok_s: Array = np.zeros(n)
        self._ramp_s: Array = np.full(n, np.inf if running else 0.0)
        self._limit_pct: Array = np.full(n, 100.0)
        self._volt_watt_pct: Array = np.full(n, 100.0)
        self._volt_var_pct: Array = np.zeros(n)
        self._v_ref: Array = np.ones(n)
        self._settled = not running
        self.droop = FrequencyDroop(self.settings)
        self.tripped: Flags = np.zeros((len(self.relay.names), n), dtype=bool)
        self.p_kw: Array = np.zeros(n)
        self.q_kvar: Array = np.zeros(n)
        self.available_kw: Array = np.zeros(n)
        self.v_pu: Array = np.ones(n)
        self.hz: Array = np.full(n, 60.0)
        self.injected_kwh: Array = np.zeros(n)
        self.absorbed_kwh: Array = np.zeros(n)
        self.injected_kvarh: Array = np.zeros(n)
        self.absorbed_kvarh: Array = np.zeros(n)

    @property
    def delay_left_s(self) -> Array:
        """Time until service is entered, if all stays well; 0 in service."""
        left = np.maximum(self.settings.service_delay_s - self._ok_s, 0.0)
        return np.where(self.in_service, 0.0, left)

    @property
    def ramping(self) -> Flags:
        """Whether the ramp after entering service still limits."""
        return np.asarray(self.in_service & (self._ramp_s < self.settings.service_ramp_s))

    def reset_alarms(self, row: int) -> None:
        """Clear the latched trips of one inverter."""
        self.tripped[:, row] = False

    def step(
        self,
        dt_s: float,
        v_pu: ArrayLike = 1.0,
        irradiance_pu: ArrayLike = 1.0,
        hz: ArrayLike = 60.0,
    ) -> tuple[Array, Array]:
        """Advance by `dt_s` > 0; return the injections p_kw and q_kvar at its end, shape (n,) each.

        Terminal voltage, irradiance and frequency hold over the step; scalars or of shape (n,).
        """
        self.v_pu, self.hz = _row(v_pu, self.n), _row(hz, self.n)
        self._serve(dt_s)
        lowest, self.available_kw = self.source.limits(dt_s, _row(irradiance_pu, self.n))
        p = self._active(dt_s, lowest, self.available_kw)
        p, q = self._fit(p, *self._reactive(dt_s, p))
        self.p_kw, self.q_kvar = p * self.in_service, q * self.in_service
        self.source.advance(dt_s, self.p_kw)
        hours = dt_s / 3600.0
        self.injected_kwh += hours * np.maximum(self.p_kw, 0.0)
        self.absorbed_kwh += hours * np.maximum(-self.p_kw, 0.0)
        self.injected_kvarh += hours * np.maximum(self.q_kvar, 0.0)
        self.absorbed_kvarh += hours * np.maximum(-self.q_kvar, 0.0)
        return self.p_kw, self.q_kvar

    def _serve(self, dt_s: float) -> None:
        """Trip, wait, enter service (clauses 4.10, 6.4, 6.5)."""
        s = self.settings
        trips = self.relay.step(dt_s, self.v_pu, self.hz)
        self.tripped |= trips & self.in_service
        may_run = s.started & s.service_on & ~trips.any(axis=0)
        self.in_service &= may_run
        volts_ok = (self.v_pu >= s.service_v_low) & (self.v_pu <= s.service_v_high)
        hertz_ok = (self.hz >= s.service_hz_low) & (self.hz <= s.service_hz_high)
        waiting = ~self.in_service & may_run & volts_ok & hertz_ok
        self._ok_s = np.where(waiting, self._ok_s + dt_s, 0.0)
        enters = waiting & (self._ok_s >= s.service_delay_s - 1e-9)
        # The part of the step behind the delay already belongs to the ramp.
        self._ramp_s = np.where(
            enters, self._ok_s - s.service_delay_s, self._ramp_s + dt_s * self.in_service
        )
        self._ramp_s = np.where(self.in_service | enters, self._ramp_s, 0.0)
        # A ramp that is over stays so when its setting is made longer.
        self._ramp_s = np.where(self._ramp_s >= s.service_ramp_s, np.inf, self._ramp_s)
        self.in_service |= enters

    def _active(self, dt_s: float, lowest: Array, highest: Array) -> Array:
        """Return the active power after all limits, kW."""
        s = self.settings
        target = np.where(s.limit_on, s.limit_pct, 100.0)
        room = s.ramp_pct_per_s * dt_s
        self._limit_pct = np.clip(target, self._limit_pct - room, self._limit_pct + room)
        curve = np.where(s.volt_watt_on, s.volt_watt.at(self.v_pu), 100.0)
        gain = np.where(s.volt_watt_on, _alpha(dt_s, s.volt_watt_response_s), 1.0)
        if not self._settled:
            gain = np.ones(self.n)
        self._volt_watt_pct = self._volt_watt_pct + gain * (curve - self._volt_watt_pct)
        base = np.where(s.volt_watt_available, highest, s.w_max_kw)
        limit_kw = s.w_max_kw * self._limit_pct / 100.0
        share = np.minimum(self._ramp_s / np.maximum(s.service_ramp_s, 1e-9), 1.0)
        top = np.minimum(base * self._volt_watt_pct / 100.0, share * s.w_max_kw)
        asked = np.where(s.wset_on, s.wset_kw, self.source.idle_kw(highest))
        low = np.maximum(lowest, -share * s.w_max_kw)
        wanted = self.droop.step(dt_s, self.hz, self.p_kw, limit_kw, asked, low, highest)
        top = np.minimum(top, np.where(self.droop.active, np.inf, limit_kw))
        return np.minimum(np.minimum(np.maximum(wanted, low), highest), top)

    def _reactive(self, dt_s: float, p: Array) -> tuple[Array, Codes, Flags]:
        """Return wanted reactive power, kvar; priority; and where the power factor rules."""
        s = self.settings
        auto = np.where(s.v_ref_auto, -np.expm1(-dt_s / np.maximum(s.v_ref_auto_s, 1e-9)), 1.0)
        aim = np.where(s.v_ref_auto, np.clip(self.v_pu, *_V_REF_RANGE), s.v_ref)
        self._v_ref = self._v_ref + auto * (aim - self._v_ref)
        curve = np.where(s.volt_var_on, s.volt_var.at(self.v_pu / self._v_ref), 0.0)
        gain = np.where(s.volt_var_on, _alpha(dt_s, s.volt_var_response_s), 1.0)
        if not self._settled:
            # In service since long before the emulation began: no transient from zero.
            gain, self._settled = np.ones(self.n), True
        self._volt_var_pct = self._volt_var_pct + gain * (curve - self._volt_var_pct)
        tangent = np.sqrt(1.0 - s.pf**2) / s.pf
        watt_pct = 100.0 * p / np.maximum(s.w_max_kw, 1e-9)
        choices = [s.var_on, s.pf_on, s.volt_var_on, s.watt_var_on]
        wanted = np.select(
            choices,
            [
                self._kvar(s.var_pct, s.var_ref, p),
                s.pf_sign * np.abs(p) * tangent,
                self._kvar(self._volt_var_pct, s.volt_var_ref, p),
                self._kvar(s.watt_var.at(watt_pct), s.watt_var_ref, p),
            ],
            0.0,
        )
        priority = np.select(
            choices,
            [s.var_priority, s.var_priority, s.volt_var_priority, s.watt_var_priority],
            int(Priority.reactive),
        )
        return wanted, priority, s.pf_on & ~s.var_on

    def _kvar(self, pct: Array, ref: Codes, p: Array) -> Array:
        """Return the kvar that a percentage stands for."""
        s = self.settings
        most = np.where(pct >= 0.0, s.var_inject_kvar, s.var_absorb_kvar)
        left = np.sqrt(np.maximum(s.va_max_kva**2 - p**2, 0.0))
        base: Array = np.select(
            [ref == VarRef.w_max, ref == VarRef.var_max, ref == VarRef.var_available],
            [s.w_max_kw, most, np.minimum(left, most)],
            s.va_max_kva,
        )
        kvar: Array = pct / 100.0 * base
        return kvar

    def _fit(self, p: Array, q: Array, priority: Codes, by_pf: Flags) -> tuple[Array, Array]:
        """Fit both powers into the ratings (clause 5.2)."""
        s = self.settings
        q = np.clip(q, -s.var_absorb_kvar, s.var_inject_kvar)
        q = np.clip(q, -s.va_max_kva, s.va_max_kva)
        size = np.hypot(p, q)
        shrink = np.minimum(s.va_max_kva / np.maximum(size, 1e-12), 1.0)
        left_p = np.sqrt(np.maximum(s.va_max_kva**2 - q**2, 0.0))
        left_q = np.sqrt(np.maximum(s.va_max_kva**2 - p**2, 0.0))
        reactive = priority == Priority.reactive
        p_fit = np.where(reactive, np.clip(p, -left_p, left_p), p)
        p_fit = np.clip(p_fit, -s.va_max_kva, s.va_max_kva)
        q_fit = np.where(reactive, q, np.clip(q, -left_q, left_q))
        return np.where(by_pf, p * shrink, p_fit), np.where(by_pf, q * shrink, q_fit)


def _row(values: ArrayLike, n: int) -> Array:
    row: Array = np.broadcast_to(np.asarray(values, dtype=np.float64), (n,))
    return row
