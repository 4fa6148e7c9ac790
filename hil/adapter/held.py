"""What a device was brought to, and what follows when a poll finds something else.

A device loses a set-point when it reboots, when its own timer ends, when somebody at its display or
a second master writes another one. Pure logic: no sockets, no clock of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hil.adapter.access import difference
from hil.devices.spec import DeviceSpec

_MOST_CHANGES = 3
_WINDOW_POLLS = 10
Reaction = Literal["rewrite", "hand_over", "fault"]


@dataclass(frozen=True)
class Change:
    """A poll found another value than was sent.

    Parameters
    ----------
    point : The set-point that is concerned.
    read : The point that was read: itself, its read-back, or a point of `before` or `enable`.
    safe : Whether the device was to stand at the safe value of the point.
    """

    point: str
    read: str
    sent: float
    found: float
    safe: bool

    def __str__(self) -> str:
        of = "" if self.read == self.point else f" (of {self.point})"
        return f"{self.read}{of} reads {self.found:g}, sent was {self.sent:g}"


@dataclass
class _Held:
    point: str
    sent: float
    tolerance: float
    since_s: float
    safe: bool


@dataclass
class HeldValues:
    """The values of one device that must not change by themselves."""

    spec: DeviceSpec
    _held: dict[str, _Held] = field(default_factory=dict)
    _changes: dict[str, deque[float]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)  # points around a set-point that keep their value

    @property
    def points(self) -> list[str]:
        """Points that are compared at a poll."""
        return list(self._held)

    def hold(
        self, point: str, sent: Mapping[str, float], now_s: float, *, safe: bool = False
    ) -> None:
        """Note that a set-point was verified at `now_s`.

        Parameters
        ----------
        sent : Of the set-point and of the points around it. Those are compared once a poll has
            ever shown them: a register that triggers something may fall back by itself at once.
        """
        self.forget(point)
        for name, value in sent.items():
            spec = self.spec.points[name]
            read_back = spec.read_back
            if read_back is None:
                continue
            key, tolerance = read_back.point or name, read_back.tolerance
            self._held[key] = _Held(point, value, tolerance, now_s, safe)
            if name == point:
                self._seen.add(key)

    def forget(self, point: str) -> None:
        """Forget a set-point and what is around it."""
        self._held = {k: h for k, h in self._held.items() if h.point != point}

    def forget_read(self, names: set[str]) -> None:
        """Forget points whose registers were written in another way."""
        self._held = {k: h for k, h in self._held.items() if k not in names}

    def clear(self) -> None:
        """Forget every value."""
        self._held.clear()

    def changes(
        self,
        reading: Callable[[str], float],
        asked_s: float,
        resolution: Callable[[str], float] = lambda _: 0.0,
    ) -> list[Change]:
        """Return what a poll that began at `asked_s` found changed, one change per set-point.

        Parameters
        ----------
        reading : The value of a point, read since; nan where there is none.
        resolution : How far a value may move because its scale factor did.
        """
        found: dict[str, Change] = {}
        for name, held in self._held.items():
            value = reading(name)
            if value != value or asked_s < held.since_s:
                continue
            if not difference(held.sent, value, held.tolerance + resolution(name)):
                self._seen.add(name)
            elif name in self._seen:
                change = Change(held.point, name, held.sent, value, held.safe)
                found.setdefault(held.point, change)
        return list(found.values())

    def react(self, change: Change, now_s: float, *, latched: bool = False) -> tuple[Reaction, str]:
        """Return what follows from a change, and why in words.

        `latched`: The device has a fault already, and only its safe values are kept up.
        """
        spec = self.spec.points[change.point]
        times = self._changes.setdefault(change.point, deque(maxlen=_MOST_CHANGES + 1))
        times.append(now_s)
        if spec.on_change == "hand_over":
            return "hand_over", "handed over, not commanded any more until the fault is reset"
        again = "made safe again" if change.safe else "written again"
        if latched:
            return "rewrite", again
        if spec.on_change == "fault":
            return "fault", "on_change: fault"
        period_s = self.spec.points[change.read].poll_s or self.spec.poll_s
        span_s = times[-1] - times[0]
        if len(times) > _MOST_CHANGES and span_s <= _WINDOW_POLLS * period_s:
            text = f"changed {len(times)} times in {span_s:.1f} s: a second master commands it, "
            return "fault", text + "or the device ends set-points sooner than rewrite_s"
        return "rewrite", again
