"""One inverter's registers: SunSpec models 1, 701-713 and 715 on its physics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hil.emulators.inverter import BatterySource, InverterFleet
from hil.emulators.inverter_nameplate import MODELS, TRIP_MODELS, Nameplate, fill
from hil.emulators.inverter_settings import VarRef
from hil.emulators.reversion import CurveModel, ReversionTimer, controls_704, curve_models
from hil.emulators.sunspec_image import SunSpecImage

_ALARM_BITS = {"over_voltage": 10, "under_voltage": 11, "over_frequency": 8, "under_frequency": 9}
_MANUAL_SHUTDOWN = 6
_OFF, _STARTING, _RUNNING, _THROTTLED, _FAULT, _STANDBY = 0, 2, 3, 4, 6, 7
_STOP, _START, _ENTER_STANDBY = range(3)  # 715 OpCtl; 3 ends the standby
#: ThrotSrc bits of model 701.
_THROTTLE_MAX_W, _THROTTLE_FIXED_W, _THROTTLE_VOLT_WATT = 1 << 0, 1 << 1, 1 << 10


class InverterUnit:
    """Registers of one inverter of a fleet.

    Parameters
    ----------
    heartbeat_s : Longest time without a change of 715 ControllerHb, once it was written, before
        every command of 704 and every curve with a reversion timer falls back; 0: never.

    Attributes
    ----------
    reading_factor : What the sensors read too much.
    """

    def __init__(
        self, fleet: InverterFleet, row: int, nameplate: Nameplate, heartbeat_s: float = 0.0
    ) -> None:
        self.fleet, self.row, self.nameplate = fleet, row, nameplate
        self.heartbeat_s = heartbeat_s
        self.reading_factor = 1.0
        self.time_s = 0.0
        self._shown_s = -1.0
        self._beat = 0.0
        self._beat_s: float | None = None
        self._standby = False
        self.bank = SunSpecImage(MODELS, refresh=self._refresh, written=self._written)
        self.reversions, self.curves = controls_704(), curve_models()
        self.timers: list[ReversionTimer | CurveModel] = [*self.reversions, *self.curves]
        fill(self.bank, nameplate, fleet, row, self.curves)
        self._adopt_settings()

    @property
    def next_event_s(self) -> float:
        """Device time at which a timer ends next; inf if none runs."""
        ends = [timer.end_s for timer in self.timers]
        if self.heartbeat_s > 0 and self._beat_s is not None:
            ends.append(self._beat_s + self.heartbeat_s)
        return min(ends)

    def at(self, time_s: float) -> None:
        """Set the device's time; timers that end by then take effect."""
        self.time_s = time_s
        if self.next_event_s > time_s + 1e-9:
            return
        lost = (
            self.heartbeat_s > 0
            and self._beat_s is not None
            and time_s - self._beat_s >= self.heartbeat_s - 1e-9
        )
        if lost:
            self._beat_s = None
        for reversion in self.reversions:
            if lost or reversion.end_s <= time_s + 1e-9:
                reversion.revert(self.bank, time_s)
        for curve in self.curves:
            if curve.end_s <= time_s + 1e-9 or (lost and math.isfinite(curve.end_s)):
                curve.revert(self.bank, time_s)
        self._adopt_settings()

    def _written(self, names: Sequence[tuple[int, str]]) -> None:
        touched = set(names)
        for reversion in self.reversions:
            if reversion.triggers & touched:
                reversion.start(self.bank, self.time_s)
        for curve in self.curves:
            m = curve.model
            if (m, curve.request) in touched:
                curve.adopt(self.bank, int(self.bank.get(m, curve.request)), self.time_s)
            elif {(m, "Ena"), (m, "RvrtTms")} & touched:
                curve.start(self.bank, self.time_s)
        beat = self.bank.get(715, "ControllerHb")
        # A controller that hangs may repeat a value; only a new value counts as a heartbeat.
        if (715, "ControllerHb") in touched and (self._beat_s is None or beat != self._beat):
            self._beat, self._beat_s = beat, self.time_s
        if (715, "AlarmReset") in touched:
            self.fleet.reset_alarms(self.row)
            self.bank.put(715, "AlarmReset", 0)
        if (715, "OpCtl") in touched:
            order = int(self.bank.get(715, "OpCtl"))
            if order not in (_STOP, _START):
                self._standby = order == _ENTER_STANDBY
            self.fleet.settings.started[self.row] = order not in (_STOP, _ENTER_STANDBY)
        self._adopt_settings()
        self._shown_s = -1.0

    def _adopt_settings(self) -> None:
        """Bring the fleet's settings in line with the registers."""
        s, i, get = self.fleet.settings, self.row, self.bank.get
        kilo = 1e-3
        s.w_max_kw[i] = get(702, "WMax") * kilo
        s.va_max_kva[i] = get(702, "VAMax") * kilo
        s.var_inject_kvar[i] = get(702, "VarMaxInj") * kilo
        s.var_absorb_kvar[i] = get(702, "VarMaxAbs") * kilo
        s.service_on[i] = get(703, "ES") == 1
        s.service_v_high[i], s.service_v_low[i] = get(703, "ESVHi") / 100, get(703, "ESVLo") / 100
        s.service_hz_high[i], s.service_hz_low[i] = get(703, "ESHzHi"), get(703, "ESHzLo")
        s.service_delay_s[i], s.service_ramp_s[i] = get(703, "ESDlyTms"), get(703, "ESRmpTms")
        s.limit_on[i] = get(704, "WMaxLimPctEna") == 1
        s.limit_pct[i] = get(704, "WMaxLimPct")
        s.ramp_pct_per_s[i] = get(704, "WRmp") or np.inf
        s.wset_on[i] = get(704, "WSetEna") == 1
        by_pct = get(704, "WSetMod") == 0
        s.wset_kw[i] = (
            get(704, "WSetPct") / 100 * s.w_max_kw[i] if by_pct else get(704, "WSet") * kilo
        )
        s.pf_on[i] = get(704, "PFWInjEna") == 1
        s.pf[i] = max(get(704, "PFWInj.PF"), 1e-3)
        s.pf_sign[i] = 1.0 if get(704, "PFWInj.Ext") == 0 else -1.0
        self._adopt_var()
        self._adopt_curves()

    def _adopt_var(self) -> None:
        s, i, get = self.fleet.settings, self.row, self.bank.get
        s.var_on[i] = get(704, "VarSetEna") == 1
        s.var_priority[i] = int(get(704, "VarSetPri"))
        mode = int(get(704, "VarSetMod"))
        in_vars = mode == len(VarRef)
        s.var_ref[i] = VarRef.va_max if in_vars else mode
        kvar = get(704, "VarSet") * 1e-3
        pct = 100.0 * kvar / max(s.va_max_kva[i], 1e-9)
        s.var_pct[i] = pct if in_vars else get(704, "VarSetPct")

    def _adopt_curves(self) -> None:
        s, i, get = self.fleet.settings, self.row, self.bank.get
        shapes = (s.volt_var, s.volt_watt, s.watt_var)
        for model, curve in zip(self.curves[:3], shapes, strict=True):
            x, y = model.points(self.bank, 1)
            of_volts = model.x == "V"
            curve.set_row(i, [v / 100 for v in x] if of_volts else x, y)
        s.volt_var_on[i] = get(705, "Ena") == 1
        s.volt_var_ref[i] = int(get(705, "Crv[1].DeptRef"))
        s.volt_var_priority[i] = int(get(705, "Crv[1].Pri"))
        s.volt_var_response_s[i] = get(705, "Crv[1].RspTms")
        s.v_ref[i] = max(get(705, "Crv[1].VRef") / 100, 1e-3)
        s.v_ref_auto[i] = get(705, "Crv[1].VRefAutoEna") == 1
        s.v_ref_auto_s[i] = get(705, "Crv[1].VRefAutoTms")
        s.volt_watt_on[i] = get(706, "Ena") == 1
        s.volt_watt_available[i] = get(706, "Crv[1].DeptRef") == 1
        s.volt_watt_response_s[i] = get(706, "Crv[1].RspTms")
        s.watt_var_on[i] = get(712, "Ena") == 1
        s.watt_var_ref[i] = int(get(712, "Crv[1].DeptRef"))
        s.watt_var_priority[i] = int(get(712, "Crv[1].Pri"))
        self._adopt_trips()
        s.droop_on[i] = get(711, "Ena") == 1
        s.droop_over_hz[i], s.droop_under_hz[i] = get(711, "Ctl[1].DbOf"), get(711, "Ctl[1].DbUf")
        s.droop_over_slope[i] = max(get(711, "Ctl[1].KOf"), 1e-3)
        s.droop_under_slope[i] = max(get(711, "Ctl[1].KUf"), 1e-3)
        s.droop_response_s[i] = get(711, "Ctl[1].RspTms")

    def _adopt_trips(self) -> None:
        """Take the trip limits of 707 to 710; a function that is off never trips."""
        relay, i = self.fleet.relay, self.row
        for model, kind in zip(self.curves[3:7], TRIP_MODELS.values(), strict=True):
            rows = [k for k, (name, _) in enumerate(relay.names) if name == kind]
            scale = 100.0 if model.x == "V" else 1.0
            x, seconds = model.points(self.bank, 1)
            limits = sorted(zip(x, seconds, strict=True), reverse=kind.startswith("over"))
            on = self.bank.get(model.model, "Ena") == 1
            never = [(math.nan, math.inf)] * len(rows)
            for row, (limit, clear_s) in zip(rows, (limits if on else []) + never, strict=False):
                relay.limit[row, i], relay.clear_s[row, i] = limit / scale, clear_s

    def _refresh(self) -> None:
        """Bring measurements up to date, once per change of the device's time."""
        if self._shown_s == self.time_s:
            return
        self._shown_s = self.time_s
        self._show_measurements()
        self._show_state()
        put = self.bank.put
        put(703, "ESDlyRemTms", math.ceil(self.fleet.delay_left_s[self.row] - 1e-9))
        for timer in self.timers:
            timer.show(self.bank, self.time_s)
        put(715, "DERHb", int(self.time_s) & 0x7FFFFFFF)
        source = self.fleet.source
        if isinstance(source, BatterySource):
            stored, full = source.soc_kwh[self.row], source.energy_kwh[self.row]
            put(713, "WHAvail", stored * 1e3)
            put(713, "SoC", 100.0 * stored / full)

    def _show_measurements(self) -> None:
        f, i, put, plate = self.fleet, self.row, self.bank.put, self.nameplate
        k, phases = self.reading_factor, plate.phases
        w, var = 1e3 * f.p_kw[i] * k, 1e3 * f.q_kvar[i] * k
        va, volts = math.hypot(w, var), plate.v_ln * f.v_pu[i] * k
        amps = va / (phases * volts) if volts > 0 else 0.0
        pf = math.copysign(w / va, w) if va > 0 else 1.0
        root3 = math.sqrt(3.0)
        values = {
            "W": w, "VA": va, "Var": var, "PF": pf, "A": amps * phases, "LNV": volts,
            "Hz": f.hz[i] * k,
            "TotWhInj": 1e3 * f.injected_kwh[i], "TotWhAbs": 1e3 * f.absorbed_kwh[i],
            "TotVarhInj": 1e3 * f.injected_kvarh[i], "TotVarhAbs": 1e3 * f.absorbed_kvarh[i],
        }  # fmt: skip
        if phases == 3:
            values["LLV"] = root3 * volts
        for n in range(1, phases + 1):
            values |= {
                f"WL{n}": w / phases, f"VAL{n}": va / phases, f"VarL{n}": var / phases,
                f"PFL{n}": pf, f"AL{n}": amps, f"VL{n}": volts,
            }  # fmt: skip
            if phases == 3:
                values[f"VL{n}L{n % 3 + 1}"] = root3 * volts
        for name, value in values.items():
            put(701, name, value)

    def _show_state(self) -> None:
        f, i, put = self.fleet, self.row, self.bank.put
        alarms = 0
        for (kind, _), tripped in zip(f.relay.names, f.tripped[:, i], strict=True):
            alarms |= int(tripped) << _ALARM_BITS[kind]
        s = f.settings
        sources, lost_kw = self._throttle()
        if f.in_service[i]:
            state = _STARTING if f.ramping[i] else _THROTTLED if sources else _RUNNING
        elif self._standby:
            state = _STANDBY
        elif not s.started[i] or not s.service_on[i]:
            state, alarms = _OFF, alarms | (0 if s.started[i] else 1 << _MANUAL_SHUTDOWN)
        else:
            state = _FAULT if alarms else _STARTING
        put(701, "InvSt", state)
        put(701, "St", int(f.in_service[i]))
        put(701, "ConnSt", int(f.in_service[i]))
        put(701, "Alrm", alarms)
        put(701, "ThrotSrc", sources)
        available = f.available_kw[i]
        put(701, "ThrotPct", 100.0 * lost_kw / available if sources and available > 0 else 0)

    def _throttle(self) -> tuple[int, float]:
        """Return what holds active power below what is there, and by how much, kW."""
        f, s, i = self.fleet, self.fleet.settings, self.row
        lost = max(float(f.available_kw[i] - f.p_kw[i]), 0.0)
        if isinstance(f.source, BatterySource) or lost < 1e-6 or not f.in_service[i]:
            return 0, 0.0
        sources = _THROTTLE_MAX_W if s.limit_on[i] and s.limit_pct[i] < 100 else 0
        sources |= _THROTTLE_FIXED_W if s.wset_on[i] else 0
        sources |= _THROTTLE_VOLT_WATT if s.volt_watt_on[i] else 0
        return sources, lost
