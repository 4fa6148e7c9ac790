"""What may be written to a device, decided from its device file alone.

Pure logic: no sockets, no clock of its own. The adapter asks `admit` when a command comes in and
`decide` when it is about to be written, and says with `sent` and `failed` what became of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from grid_models.base.errors import nearest_name
from hil.devices.errors import ArmingError, GuardError
from hil.devices.points import PointSpec, Value
from hil.devices.spec import DeviceSpec

Verdict = Literal["written", "clamped", "limited", "unchanged", "refused", "unsafe"]


_WRONG_WEIGHT = 3
_WRONG_LIMIT = 3
_MARGIN_S = 1.0


@dataclass(frozen=True)
class Decision:
    """What the guard makes of a command.

    Parameters
    ----------
    verdict : written: as asked; clamped: moved to a limit; limited: moved by step or rate;
        unchanged: the device already has it; refused: nothing is written; unsafe: nothing is
        written and the device goes to its safe state.
    value : Value to write; nan where nothing is written.
    why : In words; '' for a plain write.
    """

    verdict: Verdict
    value: float
    why: str = ""

    @property
    def writes(self) -> bool:
        """Return True where something is to be written."""
        return self.verdict in ("written", "clamped", "limited")


@dataclass
class _State:
    """What the guard knows of one writable point."""

    asked: float = math.nan
    sent: float = math.nan
    sent_s: float = -math.inf
    commanded_s: float = -math.inf
    failures: int = 0


def check_arming(
    devices: Collection[DeviceSpec], armed: Collection[str], *, read_only: bool = False
) -> None:
    """Refuse unknown names in `armed`, and devices elsewhere that nobody armed.

    Raises ArmingError.
    """
    names = {d.name for d in devices}
    for name in armed:
        if name not in names:
            raise ArmingError(
                f"there is no device '{name}' to arm",
                expected=", ".join(sorted(names)) or "a device of the scenario",
                nearest=nearest_name(name, names),
            )
    if read_only and armed:
        raise ArmingError("armed and read-only exclude each other", where=", ".join(armed))
    for device in devices:
        if not (device.connection.is_loopback or device.name in armed or read_only):
            at = device.connection.endpoint
            raise ArmingError(
                f"the device is not on loopback ({at}) and was not armed by name",
                where=f"device '{device.name}'",
                expected=f"--arm {device.name}",
            )


def _refresh_s(spec: PointSpec) -> float:
    """Return after how long a set-point is written again; inf where it holds by itself."""
    timer = spec.reversion
    by_timer = (timer.refresh_s or timer.seconds / 2.0) if timer else math.inf
    return min(spec.rewrite_s or math.inf, by_timer)


class Guard:
    """The guard of one device.

    Parameters
    ----------
    spec : Its device file: the only source of limits.
    armed : Nothing is written to a device that is not armed.
    """

    def __init__(self, spec: DeviceSpec, *, armed: bool) -> None:
        self.spec = spec
        self.armed = armed
        self.fault = ""
        self.handed_over: dict[str, str] = {}
        self._curve_failures: dict[int, int] = {}
        self._states = {name: _State() for name, p in spec.points.items() if p.writable}
        self._refresh_s = {name: _refresh_s(spec.points[name]) for name in self._states}

    def admit(self, point: str, value: Value) -> float:
        """Return the value as a number; the refusals that are known without the device.

        Raises GuardError: Not armed, not in the allow-list, a latched fault, handed over, a name
        that is not in `enum`.
        """
        self.require_armed(point)
        if point not in self._states:
            raise GuardError(
                "not in the allow-list",
                where=f"{self.spec.name}.{point}",
                expected=", ".join(self._states) or "no point of this device may be written",
                nearest=nearest_name(point, self._states),
            )
        if why := self.handed_over.get(point):
            where = f"{self.spec.name}.{point}"
            raise GuardError(f"handed over: {why}", where=where, expected="reset_fault")
        return self._number(point, value)

    def require_armed(self, point: str) -> None:
        """Refuse where the device is not armed or has a latched fault."""
        where = f"{self.spec.name}.{point}"
        if not self.armed:
            raise GuardError(
                "the device is read-only, because it is not armed",
                where=where,
                expected=f"--arm {self.spec.name}",
            )
        if self.fault:
            raise GuardError(f"latched fault: {self.fault}", where=where, expected="reset_fault")

    def _number(self, point: str, value: Value) -> float:
        names = self.spec.points[point].enum or {}
        if isinstance(value, str):
            if value not in names:
                raise GuardError(
                    f"'{value}' is not a value of this point",
                    where=f"{self.spec.name}.{point}",
                    expected=", ".join(names) or "a number",
                    nearest=nearest_name(value, names),
                )
            return float(names[value])
        return float(value)

    def limits(self, point: str) -> tuple[float, float]:
        """Return the lowest and highest value that may be written."""
        limits = self.spec.points[point].limits
        assert limits is not None  # the device file is checked for it
        return limits

    def decide(
        self, point: str, asked: float, now_s: float, reading: float, *, again: bool = False
    ) -> Decision:
        """Return what is written instead of `asked`.

        Parameters
        ----------
        point : An admitted point.
        asked : The command.
        now_s : Monotonic time in seconds.
        reading : What the device has now; nan where it is not known.
        again : The adapter itself repeats the last command; that does not make it younger.
        """
        spec, state = self.spec.points[point], self._states[point]
        if self.fault or not self.armed:
            return Decision("refused", math.nan, self.fault or "not armed")
        if point in self.handed_over:
            return Decision("refused", math.nan, f"handed over: {self.handed_over[point]}")
        if not math.isfinite(asked):
            return Decision("unsafe", math.nan, f"{asked} is not a finite number")
        if not again:
            state.commanded_s = now_s
        if spec.enum and asked not in spec.enum.values():
            return Decision("refused", math.nan, f"{asked:g} is not a value of the enumeration")
        low, high = self.limits(point)
        value = min(max(asked, low), high)
        why = "" if value == asked else f"{asked:g} is outside {low:g} to {high:g}"
        verdict: Verdict = "clamped" if why else "written"
        moved = self._moved(spec, state, value, now_s, reading)
        if moved != value:
            limit = f"step {spec.max_step:g}" if spec.max_step is not None else ""
            rate = f"rate {spec.max_rate:g}/s" if spec.max_rate is not None else ""
            why = "; ".join(filter(None, (why, f"limited by {limit or rate}")))
            verdict, value = "limited", moved
        if why and spec.on_limit == "refuse":
            return Decision("refused", math.nan, why)
        state.asked = asked
        if value == state.sent and now_s - state.sent_s < self._refresh_s[point]:
            return Decision("unchanged", value)
        return Decision(verdict, value, why)

    def _moved(
        self, spec: PointSpec, state: _State, value: float, now_s: float, reading: float
    ) -> float:
        """Return the value as near to `value` as step and rate allow from where the device is."""
        known = (state.sent, reading, float(spec.safe_value or 0.0))
        # A device may stand outside the limits: a step from there would be a command outside, too.
        low, high = spec.limits or (value, value)
        basis = min(max(next(v for v in known if math.isfinite(v)), low), high)
        reach = spec.max_step if spec.max_step is not None else math.inf
        if spec.max_rate is not None:
            # After a long pause the rate allows at most the change of two heartbeats.
            most = 2.0 * self.spec.guard.heartbeat_s
            reach = min(reach, spec.max_rate * min(now_s - state.sent_s, most))
        return min(max(value, basis - reach), basis + reach)

    def due(self, now_s: float) -> list[tuple[str, float]]:
        """Return (point, value) of what must be written again to keep it alive."""
        return [
            (name, state.sent)
            for name, state in self._states.items()
            if now_s - state.sent_s >= self._refresh_s[name] and math.isfinite(state.sent)
        ]

    def sent(self, point: str, value: float, now_s: float) -> None:
        """Note that `value` was written and verified."""
        state = self._states[point]
        state.sent, state.sent_s, state.failures = value, now_s, 0

    def failed(self, point: str, why: str, *, lost: bool = False) -> bool:
        """Note that a write was not verified; return True where this latches a fault.

        A lost reply (`lost`) weighs a third of a wrong one: networks lose replies, but a sound
        device does not read back another value.
        """
        state = self._states[point]
        state.sent = math.nan  # nobody knows what the device has now
        state.failures += 1 if lost else _WRONG_WEIGHT
        if state.failures >= _WRONG_WEIGHT * self.spec.guard.readback_failures:
            self.latch(f"{point}: {why}")
        return bool(self.fault)

    def failed_curve(self, model: int) -> bool:
        """Note that a curve was not adopted; return True where that latches a fault."""
        self._curve_failures[model] = self._curve_failures.get(model, 0) + 1
        return self._curve_failures[model] >= self.spec.guard.readback_failures

    def lost(self, point: str) -> float:
        """Note that a point no longer holds what was sent; return its last command, or nan."""
        self._states[point].sent = math.nan
        return self._states[point].asked

    def young(self, point: str, now_s: float) -> bool:
        """Return True while the last command of a point still counts."""
        return now_s - self._states[point].commanded_s <= self.spec.guard.input_limit_s

    def heard(self, point: str, now_s: float) -> None:
        """Note a command that could not be decided yet."""
        self._states[point].commanded_s = now_s

    def hand_over(self, point: str, why: str) -> None:
        """Leave a point to whoever else commands it, until `reset`."""
        self.handed_over[point] = why
        self._states[point] = _State()

    def latch(self, why: str) -> None:
        """Latch a fault: only safe values are written until `reset`."""
        self.fault = self.fault or why

    def reset(self) -> None:
        """Forget the fault and what was sent."""
        self.fault = ""
        self.handed_over.clear()
        self._curve_failures.clear()
        self.forget()

    def forget(self) -> None:
        """Forget what was sent and commanded: the device was brought to its safe state."""
        self._states = {name: _State() for name in self._states}

    def stale_input(self, now_s: float) -> str:
        """Return the point whose command was not repeated in time; '' for none."""
        limit = self.spec.guard.input_limit_s
        for name, state in self._states.items():
            if math.isfinite(state.commanded_s) and now_s - state.commanded_s > limit:
                return name
        return ""

    @property
    def commanded(self) -> bool:
        """Return True where a command was taken since the last safe state."""
        return any(math.isfinite(s.commanded_s) for s in self._states.values())

    def safe_points(self) -> list[str]:
        """Return the points that the safe state is about, in the order of the device file."""
        return [n for n, p in self.spec.points.items() if p.writable and n not in self.handed_over]


@dataclass
class SelfReversion:
    """Which points of a device are left to its own timers, and for how long.

    A device that takes a write and then reads back something else is broken, or somebody on the
    wire changes what is written. Writing again starts the device's reversion timer anew, and so
    keeps a value that nobody asked for. Left alone, the timer ends it.
    """

    points: Mapping[str, PointSpec]
    _wrong: dict[str, int] = field(default_factory=dict)
    _until_s: dict[str, float] = field(default_factory=dict)

    def leaves_alone(self, point: str, now_s: float) -> bool:
        """Return True while a point should only be looked at."""
        return now_s < self._until_s.get(point, -math.inf)

    def note(self, point: str, *, wrong: bool, now_s: float) -> None:
        """Note whether the device read back something else than it was sent."""
        reversion = self.points[point].reversion
        if reversion is None:
            return
        self._wrong[point] = self._wrong.get(point, 0) + 1 if wrong else 0
        if self._wrong[point] >= _WRONG_LIMIT:
            self._until_s[point] = now_s + reversion.seconds + _MARGIN_S

    def clear(self) -> None:
        """Forget everything: the device is safe."""
        self._wrong.clear()
        self._until_s.clear()
