"""What the rules of device files ask of two points, of the use of a point, and of the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from grid_models.base.yaml_lines import KeyPath, dotted
from hil.devices.codec import plan_requests
from hil.devices.points import GuardWrite
from hil.devices.rule_facts import PointFacts
from hil.devices.spec import CurveSpec, DeviceSpec

Role = Literal["readback", "timer", "write", "heartbeat", "scale", "sign"]


@dataclass(frozen=True)
class Pair:
    """Two points that share registers; `second` is the later one in the file."""

    first: PointFacts
    second: PointFacts

    @property
    def is_same(self) -> bool:
        """Return True where both are exactly the same registers."""
        return self.first.span == self.second.span

    @property
    def is_written(self) -> bool:
        """Return True where both are written, at least one by command, in bits that they share."""
        accesses = {self.first.point.access, self.second.point.access}
        apart = self.first.place.pattern_mask & self.second.place.pattern_mask == 0
        return "rw" in accesses and "r" not in accesses and not apart


@dataclass(frozen=True)
class Use:
    """A point that another part of the file names.

    Parameters
    ----------
    by : The point that names it; None for the guard.
    key : Where.
    value : What is written to it; nan where nothing is, or it varies.
    """

    role: Role
    spec: DeviceSpec
    by: PointFacts | None
    key: KeyPath
    target: str
    value: float = math.nan

    @cached_property
    def other(self) -> PointFacts | None:
        """The point that is named."""
        point = self.spec.points.get(self.target)
        return None if point is None else PointFacts(self.spec, self.target, point)

    @property
    def is_raw(self) -> bool:
        """Return True where the raw value counts: a sign, or an exponent."""
        scale = self.by.point.scale_from if self.by else None
        exponent = self.role == "scale" and scale is not None and scale.kind == "exponent"
        return self.role == "sign" or exponent

    @cached_property
    def rounding(self) -> float:
        """Largest difference with which the point named shows a value of the one that names it."""
        by, other = self.by, self.other
        if by is None or other is None or not (by.scale_is_known and other.scale_is_known):
            return 0.0
        if other.place.is_float:
            exact = by.kind == other.kind or other.kind == "float64"
            whole = by.step >= 1 and by.step % 1 == by.point.offset % 1 == 0
            return 0.0 if exact or whole else 2.0**-24 * max(abs(by.low), abs(by.high))
        apart = by.point.offset - other.point.offset
        ratios = [value / other.step for value in (by.step, apart)]
        whole = all(abs(r - round(r)) <= 1e-9 * max(1.0, abs(r)) for r in ratios)
        return 0.0 if by.step > 0 and whole else other.step / 2

    @cached_property
    def is_in_request(self) -> bool:
        """Return True where the registers of one request follow each other.

        Where SunSpec points lie is not known before the scan.
        """
        by = self.by
        if by is None:
            return False
        names = [w.point for w in (*by.point.before, *by.point.enable)]
        points = [
            by,
            *(PointFacts(self.spec, n, p) for n in names if (p := self.spec.points.get(n))),
        ]
        if any(not p.is_plain for p in points):
            return not any(p.is_plain for p in points)
        spans = sorted(p.span for p in points)
        follow = all(a[0] == b[0] and a[2] == b[1] for a, b in pairwise(spans))
        return follow and not any(p.place.is_masked or p.place.word_addresses for p in points)

    @cached_property
    def counts(self) -> tuple[float, float]:
        """Lowest and highest count of a heartbeat."""
        if self.spec.guard.heartbeat_range is not None:
            return self.spec.guard.heartbeat_range
        if self.other is None or self.other.limits is not None:
            return self.other.limits if self.other and self.other.limits else (0, 1)
        return 0, min(self.other.ends[1], 59_999)

    @cached_property
    def bad_count(self) -> float | None:
        """A count that the heartbeat point cannot hold, or that means "not implemented"."""
        if self.other is None:
            return None
        (low, high), limits = self.counts, self.other.limits or (-math.inf, math.inf)
        for count in (low, low + 1, high):
            if not (self.other.holds(count) and limits[0] <= count <= limits[1]):
                return count
        return self.other.sentinel if low <= self.other.sentinel <= high else None

    @cached_property
    def other_use(self) -> str:
        """Where else the point is written; '' for nowhere."""
        uses = [u for u in uses_of(self.spec) if u.target == self.target and u.key != self.key]
        return next((f"in {dotted(u.key)}" for u in uses if u.role in ("timer", "write")), "")

    @cached_property
    def other_seconds(self) -> float | None:
        """Another time that an earlier point sets the same timer to."""
        for use in uses_of(self.spec):
            if use.key == self.key:
                return None
            if (use.role, use.target) == ("timer", self.target) and use.value != self.value:
                return use.value
        return None

    @property
    def value_key(self) -> KeyPath:
        """Where the value is."""
        names = {"timer": "seconds", "heartbeat": "heartbeat_range"}
        if self.role == "heartbeat" and self.spec.guard.heartbeat_range is None:
            return self.key
        return (*self.key[:-1], names.get(self.role, "value"))


def uses_of(spec: DeviceSpec) -> Iterator[Use]:
    """Return every use of a point by another one or by the guard."""
    for name, point in spec.points.items():
        by, at = PointFacts(spec, name, point), ("points", name)
        if point.readback and point.readback.point:
            yield Use("readback", spec, by, (*at, "readback", "point"), point.readback.point)
        if point.reversion:
            timer, there = point.reversion, (*at, "reversion")
            yield Use("timer", spec, by, (*there, "point"), timer.point, timer.seconds)
            yield from _writes(spec, by, (*there, "before"), timer.before)
        for key, writes in (
            ("before", point.before),
            ("enable", point.enable),
            ("release", point.release),
        ):
            yield from _writes(spec, by, (*at, key), writes)
        if point.scale_from:
            yield Use("scale", spec, by, (*at, "scale_from", "point"), point.scale_from.point)
        if point.sign_from:
            yield Use("sign", spec, by, (*at, "sign_from", "point"), point.sign_from.point)
    if spec.guard.heartbeat_point is not None:
        yield Use("heartbeat", spec, None, ("guard", "heartbeat_point"), spec.guard.heartbeat_point)


def _writes(
    spec: DeviceSpec, by: PointFacts, key: KeyPath, writes: Sequence[GuardWrite]
) -> Iterator[Use]:
    for i, write in enumerate(writes):
        yield Use("write", spec, by, (*key, i, "point"), write.point, write.value)


def unused_points(spec: DeviceSpec) -> set[str]:
    """Return the points of access guard that nothing in the file writes."""
    used = {u.target for u in uses_of(spec) if u.role in ("timer", "write", "heartbeat")}
    return {n for n, p in spec.points.items() if p.access == "guard"} - used


@dataclass(frozen=True)
class DeviceFacts:
    """What is asked of the device as a whole; `points` are those whose place is in order."""

    spec: DeviceSpec
    points: Sequence[PointFacts]

    @cached_property
    def is_written(self) -> bool:
        """Return True where a set-point may be written."""
        return any(p.writable for p in self.spec.points.values())

    @cached_property
    def longest_poll_s(self) -> float:
        """Longest poll period."""
        return max([self.spec.poll_s, *(p.poll_s for p in self.points)])

    @cached_property
    def requests(self) -> int:
        """Requests of one poll of the plain points with the device's own period."""
        plain = [p for p in self.points if p.point.sunspec is None and p.point.poll_s is None]
        connection = self.spec.connection
        return len(
            plan_requests(
                [p.place for p in plain if p.kind != "string"],
                max_registers=connection.max_registers,
                max_gap=connection.max_gap,
            )
        )


@dataclass(frozen=True)
class CurveFacts:
    """Limits of one curve model, and the curve of the safe state."""

    model: int
    curve: CurveSpec

    @property
    def outside(self) -> str:
        """The first point of the safe curve that the limits do not allow."""
        (x0, x1), (y0, y1) = self.curve.x, self.curve.y
        found = [p for p in self.curve.safe or [] if not (x0 <= p[0] <= x1 and y0 <= p[1] <= y1)]
        return f"({found[0][0]:g}, {found[0][1]:g})" if found else ""

    @property
    def falling(self) -> dict[str, tuple[float, float]]:
        """Axes whose limits are in the wrong order."""
        axes = {"x": self.curve.x, "y": self.curve.y}
        return {axis: ends for axis, ends in axes.items() if ends[0] > ends[1]}

    @property
    def falls(self) -> bool:
        """Return True where first coordinates of the safe curve fall."""
        xs = [p[0] for p in self.curve.safe or []]
        return any(b < a for a, b in pairwise(xs))
