"""The logic of a thermostat: targets, demand response, heartbeat. No hardware.

Both hosts use it: the emulator hands the targets to a house, the Raspberry Pi agent to a relay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hil.modbus.pdu import ExceptionCode
from hil.servers.pdu import Refused
from hil.servers.point_map import MapBank
from hil.servers.thermostat_map import SET_MAX_C, SET_MIN_C, THERMOSTAT_MAP, Mode, Status, Verb

SENSOR_FAULT_C = -99.9
#: Least distance of the two set-points, K.
GAP_K = 0.5
#: By how much a verb raises the cooling and lowers the heating set-point, K; positive saves energy.
#: CTA-2045 leaves the figures to the device; these are the usual ones of programmes in the field.
SHIFT_K = {Verb.shed: 2.0, Verb.critical_peak: 4.0, Verb.load_up: -2.0}


@dataclass(frozen=True)
class Targets:
    """What holds now; a set-point that does not hold is infinitely far away.

    Without `may_run` nothing runs, whatever the temperature.
    """

    cool_c: float
    heat_c: float
    may_run: bool


class Thermostat:
    """Registers and timers of one thermostat.

    Parameters
    ----------
    gap_k : Least distance of the two set-points, the width of the comfort band.

    Attributes
    ----------
    bank : Serves `THERMOSTAT_MAP`.
    time_s : Time of this device.
    """

    def __init__(self, gap_k: float = GAP_K) -> None:
        self.gap_k = gap_k
        self.bank = MapBank(THERMOSTAT_MAP, check=self._check, written=self._written)
        self.time_s = 0.0
        self._verb_end_s = math.inf
        self._beat = 0.0
        self._beat_s: float | None = None
        self._reverted = False
        self._publish()

    def set_home(self, cool_c: float, heat_c: float) -> None:
        """Set both the set-points and the safe set-points, as an installer does."""
        values = self.bank.values
        values["cool_set_c"] = values["safe_cool_c"] = cool_c
        values["heat_set_c"] = values["safe_heat_c"] = heat_c
        self._publish()

    @property
    def verb(self) -> Verb:
        """The demand response that holds."""
        return Verb(int(self.bank.values["verb_now"]))

    @property
    def targets(self) -> Targets:
        """What holds now."""
        values = self.bank.values
        mode = Mode(int(values["mode"]))
        may_run = bool(values["enabled"]) and self.verb is not Verb.grid_emergency
        cools, heats = mode in (Mode.cool, Mode.auto), mode in (Mode.heat, Mode.auto)
        return Targets(
            cool_c=values["cool_target_c"] if cools else math.inf,
            heat_c=values["heat_target_c"] if heats else -math.inf,
            may_run=may_run and mode is not Mode.off,
        )

    def advance(self, dt_s: float) -> None:
        """Let `dt_s` pass: ends demand response, notices a lost heartbeat."""
        self.time_s += dt_s
        values = self.bank.values
        if self.time_s >= self._verb_end_s:
            self._end_verb()
        limit_s = values["heartbeat_s"]
        if self._beat_s is not None and 0 < limit_s <= self.time_s - self._beat_s:
            self._beat_s = None
            self._reverted = True
            values["cool_set_c"] = values["safe_cool_c"]
            values["heat_set_c"] = values["safe_heat_c"]
            self._end_verb()
        self._publish()

    def measured(
        self, temp_in_c: float | None, *, cooling: bool, heating: bool, power_w: float
    ) -> None:
        """Put measurements into the registers; a temperature of None is a failed sensor."""
        values = self.bank.values
        values["temp_in_c"] = SENSOR_FAULT_C if temp_in_c is None else temp_in_c
        values["sensor_ok"] = float(temp_in_c is not None)
        values["cooling"], values["heating"] = float(cooling), float(heating)
        values["relay"] = float(cooling or heating)
        values["power_w"] = power_w
        self._set_status(Status.sensor_fault, temp_in_c is None)

    def waiting(self, waits: bool) -> None:
        """Show that a least time on or off delays a switch."""
        self._set_status(Status.waiting, waits)

    def _set_status(self, bit: Status, on: bool) -> None:
        status = int(self.bank.values["status"])
        self.bank.values["status"] = float(status | bit if on else status & ~bit)

    def _end_verb(self) -> None:
        self.bank.values["verb"] = self.bank.values["verb_now"] = float(Verb.end_shed)
        self._verb_end_s = math.inf

    def _check(self, values: Mapping[str, float]) -> None:
        for cool, heat in (("cool_set_c", "heat_set_c"), ("safe_cool_c", "safe_heat_c")):
            if values[cool] - values[heat] < self.gap_k - 1e-6:
                raise Refused(ExceptionCode.illegal_value)

    def _written(self, names: Sequence[str]) -> None:
        values = self.bank.values
        # A controller that hangs may repeat a value; only a new value counts as a heartbeat.
        if "heartbeat" in names and (self._beat_s is None or values["heartbeat"] != self._beat):
            self._beat, self._beat_s = values["heartbeat"], self.time_s
            self._reverted = False
        if "verb" in names:
            values["verb_now"] = values["verb"]
            limited = values["verb"] != Verb.end_shed and values["duration_s"] > 0
            self._verb_end_s = self.time_s + values["duration_s"] if limited else math.inf
        self._publish()

    def _publish(self) -> None:
        """Bring the registers that follow from others up to date."""
        values = self.bank.values
        shift = SHIFT_K.get(self.verb, 0.0)
        cool = min(max(values["cool_set_c"] + shift, SET_MIN_C), SET_MAX_C)
        heat = min(max(values["heat_set_c"] - shift, SET_MIN_C), SET_MAX_C)
        if cool - heat < self.gap_k:
            # Load-up may bring the two too close; they then keep the gap around their mean.
            middle = 0.5 * (cool + heat)
            cool, heat = middle + 0.5 * self.gap_k, middle - 0.5 * self.gap_k
        values["cool_target_c"], values["heat_target_c"] = cool, heat
        left = self._verb_end_s - self.time_s
        values["remaining_s"] = float(math.ceil(left - 1e-9)) if math.isfinite(left) else 0.0
        values["uptime_s"] = self.time_s
        self._set_status(Status.reverted, self._reverted)
