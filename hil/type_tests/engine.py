"""Runs the steps of a procedure on a device and judges each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hil.type_tests import tables as t
from hil.type_tests.bench import Bench, Measured
from hil.type_tests.functions import (
    F_NOMINAL_HZ,
    MRA_FACTOR,
    MRA_P_PU,
    MRA_Q_PU,
    MRA_TIME,
    Ratings,
    State,
    band_of_response,
    band_p,
    band_q,
)
from hil.type_tests.grid import GridSimulator
from hil.type_tests.procedures import Step

#: Reactive power that a device that ceased to energise may still exchange, pu (4.5).
_PASSIVE_Q_PU = 0.1
#: Readings during a disturbance, and while a trip is waited for where time is ours.
_SAMPLES, _TRIP_SAMPLES = 16, 25
#: Share of a response time by which a reading may be late and still tell it.
_LATE_SHARE = 0.1
#: A device is settled where its output moves less than so much in this time.
_STILL_PU, _STILL_S = 0.002, 1.0
#: Rounding of a setting in its register.
_SETTING = 1e-6
#: How long a device that tripped is watched for coming back by itself, s.
_OFF_S = 0.8
_SERVICE_TRIES = 20


@dataclass(frozen=True)
class Check:
    """One judgement: a value and what is accepted.

    Parameters
    ----------
    what : Quantity and unit, e.g. ``q_pu``.
    """

    what: str
    value: float
    low: float = -math.inf
    target: float = math.nan
    high: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether the value is accepted; nan never is."""
        return self.low - 1e-9 <= self.value <= self.high + 1e-9

    @property
    def used(self) -> float:
        """Share of the accepted deviation from the target that the value takes; nan without one."""
        side = self.high if self.value >= self.target else self.low
        room = abs(side - self.target)
        return abs(self.value - self.target) / room if 0.0 < room < math.inf else math.nan


@dataclass(frozen=True)
class StepResult:
    """A step, what was measured at its end, and how it was judged; `note` is for what was not."""

    step: Step
    measured: Measured
    checks: tuple[Check, ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def why(self) -> str:
        """What failed, in words; '' where it passed."""
        return "; ".join(
            f"{c.what} is {c.value:.4g}, accepted {c.low:.4g} to {c.high:.4g}"
            for c in self.checks
            if not c.passed
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a row."""
        step, m = self.step, self.measured
        return {
            "clause": step.clause, "name": step.name, "v_pu": _round(step.v_pu),
            "f_hz": _round(step.hz), "power_pu": step.power_pu, "judged": step.judge,
            "p_pu": _round(m.p), "q_pu": _round(m.q),
            "checks": [
                {"what": c.what, "value": _round(c.value), "low": _round(c.low),
                 "target": _round(c.target), "high": _round(c.high), "passed": c.passed}
                for c in self.checks
            ],
            "passed": self.passed, "why": self.why, "note": self.note,
        }  # fmt: skip


def _round(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


@dataclass
class Engine:
    """Runs steps, one after the other.

    Parameters
    ----------
    service_s : Delay and ramp of entering service after a trip.
    """

    bench: Bench
    grid: GridSimulator
    service_s: float = 600.0
    not_run: list[str] = field(default_factory=list)
    _before: float = math.nan
    _current: float = math.nan

    def run(self, steps: Iterable[Step]) -> Iterator[StepResult]:
        """Yield the result of each step; the grid is nominal again at the end.

        Raises DeviceError: A setting was refused or not verified, or the device does not answer.
        Raises GridError: The grid simulator failed.
        """
        judges: dict[str, Callable[[Step], StepResult]] = {
            "trip": self._trip, "stay": self._disturb, "ride": self._disturb,
            "cease": self._disturb, "back": self._back,
        }  # fmt: skip
        try:
            self.grid.set(1.0, F_NOMINAL_HZ, 1.0)
            for step in steps:
                possible = self._possible(step)
                if possible is not None:
                    yield judges.get(step.judge, self._steady)(possible)
        finally:
            self.grid.set(1.0, F_NOMINAL_HZ, 1.0)

    def _possible(self, step: Step) -> Step | None:
        """Return the step with a limit for the available power where the grid cannot set it."""
        if self.grid.has_power or step.power_pu == 1.0:
            return step
        if step.functions.limit is not None or step.functions.droop is not None:
            self.not_run.append(f"{step.name}: the grid simulator does not set the power")
            return None
        limited = replace(step.functions, limit=step.power_pu)
        return replace(step, functions=limited)

    def _set(self, step: Step) -> None:
        self.grid.set(step.v_pu, step.hz, step.power_pu)

    def _apply(self, step: Step) -> Measured:
        """Bring the settings in force and let them settle; return what is then measured."""
        if self.bench.apply(step.functions):
            f = step.functions
            slow = [c.response_s for c in (f.volt_var, f.volt_watt, f.droop) if c is not None]
            self._settle(2.0 * max(slow, default=0.5))
        return self.bench.measure()

    def _settle(self, least_s: float) -> None:
        """Wait until new settings are in force: `t.LIMIT_S`, less where the output stands still."""
        if self.grid.own_time:
            self.grid.wait(max(least_s, t.LIMIT_S))
            return
        end_s = self.grid.now_s() + t.LIMIT_S
        self.grid.wait(least_s)
        last = self.bench.measure()
        while self.grid.now_s() < end_s:
            self.grid.wait(_STILL_S)
            now = self.bench.measure()
            if max(abs(now.p - last.p), abs(now.q - last.q)) < _STILL_PU:
                return
            last = now

    # -- steady state -----------------------------------------------------------------------------

    def _steady(self, step: Step) -> StepResult:
        initial = self._apply(step)
        begin_s = self.grid.now_s()
        self._set(step)
        at_response, note = None, ""
        if step.response_s:
            self._until(begin_s + step.response_s)
            at_response = self.bench.measure()
            late_s = self.grid.now_s() - begin_s - step.response_s
            if late_s > _LATE_SHARE * step.response_s:
                note = f"response time not judged: read {late_s:.2f} s late"
                at_response = None
        self._until(begin_s + step.seconds)
        final = self.bench.measure()
        checks = list(self._judge_steady(step, final))
        if at_response is not None:
            checks.append(_response(step, initial, at_response, final, self.bench.ratings))
        droop = step.functions.droop
        if droop is None or droop.share(step.hz) == 0.0:
            self._before = final.p
        return StepResult(step, final, tuple(checks), note)

    def _judge_steady(self, step: Step, m: Measured) -> Iterator[Check]:
        ratings = self.bench.ratings
        before = self._before if math.isfinite(self._before) else m.p
        state = State(step.v_pu, step.hz, step.power_pu, before)
        if "p" in step.judge:
            band = band_p(step.functions, state, ratings, m.q)
            low = -math.inf if "most" in step.judge else band.low
            yield Check("p_pu", m.p, low, band.target, band.high)
        if "q" in step.judge:
            band = band_q(step.functions, state, ratings, m.p)
            yield Check("q_pu", m.q, band.low, band.target, band.high)

    def _until(self, time_s: float) -> None:
        left_s = time_s - self.grid.now_s()
        if left_s > 0.0:
            self.grid.wait(left_s)

    # -- trips and disturbances -------------------------------------------------------------------

    def _off_limits(self) -> tuple[float, float]:
        r = self.bench.ratings
        return MRA_FACTOR * MRA_P_PU * r.va / r.w, _PASSIVE_Q_PU + MRA_FACTOR * MRA_Q_PU

    def _is_off(self, m: Measured) -> bool:
        most_p, most_q = self._off_limits()
        return abs(m.p) <= most_p and abs(m.q) <= most_q

    def _trip(self, step: Step) -> StepResult:
        """Beyond a limit: how long until it is off; then nominal, where it has to stay off."""
        begin_s = self.grid.now_s()
        self._set(step)
        longest_s = step.seconds * (1.0 + MRA_FACTOR * MRA_TIME)
        last_s, cleared_s, gap_s = begin_s, math.inf, 0.0
        while math.isinf(cleared_s) and last_s - begin_s <= 1.2 * step.seconds + gap_s:
            if self.grid.own_time:
                self.grid.wait(step.seconds / _TRIP_SAMPLES)
            m = self.bench.measure()
            now_s = self.grid.now_s()
            gap_s, last_s = max(gap_s, now_s - last_s), now_s
            if self._is_off(m):
                cleared_s = now_s - begin_s
        # A device in momentary cessation is off at once; the trip has to follow by then.
        self._until(begin_s + longest_s + gap_s)
        self.grid.set(1.0, F_NOMINAL_HZ, 1.0)
        self.grid.wait(_OFF_S)
        after = self.bench.measure()
        note = f"clearing time to {gap_s:.2g} s" if gap_s > 0.2 * step.seconds else ""
        most_p, _ = self._off_limits()
        return StepResult(step, after, (
            *_in_range(step),
            Check("clearing_s", cleared_s, -math.inf, step.seconds, longest_s + gap_s),
            Check(f"p_pu {_OFF_S:g} s after", after.p, -most_p, 0.0, most_p),
        ), note)  # fmt: skip

    def _disturb(self, step: Step) -> StepResult:
        """A disturbance that it has to ride through; read several times."""
        begin_s = self.grid.now_s()
        self._set(step)
        readings: list[tuple[float, Measured]] = []
        while (left_s := begin_s + step.seconds - self.grid.now_s()) > 1e-6:
            self.grid.wait(min(left_s, step.seconds / _SAMPLES))
            m = self.bench.measure()
            readings.append((self.grid.now_s() - begin_s, m))
        last = readings[-1][1] if readings else self.bench.measure()
        checks: list[Check] = []
        if step.judge == "ride":
            least = min((m.current for _, m in readings), default=last.current)
            checks.append(Check("least current_pu", least, step.share * self._current))
        if step.judge == "cease":
            most_p, _ = self._off_limits()
            inside = [m.p for s, m in readings if s > t.CESSATION_S] or [last.p]
            checks.append(Check("p_pu", max(inside, key=abs), -most_p, 0.0, most_p))
        return StepResult(step, last, tuple(checks))

    def _back(self, step: Step) -> StepResult:
        """Nominal: in service; after a disturbance at once, else as the delay allows."""
        self._apply(step)
        self._set(step)
        self.grid.wait(step.seconds)
        m = self.bench.measure()
        if step.share:
            return StepResult(
                step, m, (Check("current_pu", m.current, step.share * self._current),)
            )
        wanted = 1.0 - 2.0 * MRA_FACTOR * MRA_P_PU
        if m.p < wanted:
            self.grid.wait(self.service_s)
            for _ in range(_SERVICE_TRIES):
                if (m := self.bench.measure()).p >= wanted:
                    break
                self.grid.wait(0.05 * self.service_s + 0.1)
        self._current = m.current
        return StepResult(step, m, (Check("p_pu", m.p, wanted),))


def _in_range(step: Step) -> Iterator[Check]:
    """Judge a trip setting against the range that the standard allows."""
    if step.trip is not None and step.trip_range is not None:
        (limit, time_s), (limits, times) = step.trip, step.trip_range
        yield Check("limit, set", limit, limits[0] - _SETTING, math.nan, limits[1] + _SETTING)
        yield Check(
            "clearing time, set", time_s, times[0] - _SETTING, math.nan, times[1] + _SETTING
        )


def _response(
    step: Step, initial: Measured, reading: Measured, final: Measured, ratings: Ratings
) -> Check:
    """Judge 90 % of the way, one response time after the step."""
    of_q = step.judge == "q"
    margin = MRA_FACTOR * (MRA_Q_PU if of_q else MRA_P_PU * ratings.va / ratings.w)
    first, value, last = (m.q if of_q else m.p for m in (initial, reading, final))
    band = band_of_response(first, last, margin)
    what = f"{'q' if of_q else 'p'}_pu after {step.response_s:g} s"
    return Check(what, value, band.low, band.target, band.high)
