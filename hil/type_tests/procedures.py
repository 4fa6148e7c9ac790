"""The procedures of IEEE Std 1547.1-2020 as tables of steps; `hil.type_tests.engine` runs them.

A short run takes the first characteristic, full power and the shortest response times; a full run
takes every characteristic and power level, the repetitions and the response times of the standard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hil.type_tests import tables as t
from hil.type_tests.functions import (
    MRA_FACTOR,
    MRA_HZ,
    MRA_TIME,
    MRA_V_PU,
    Curve,
    Droop,
    Functions,
    Ratings,
)

_AV = MRA_FACTOR * MRA_V_PU
_AF = MRA_FACTOR * MRA_HZ
_NOMINAL = 60.0
#: Small step of the frequency-droop test, pu of power.
_SMALL_PU = 0.05
Trips = Mapping[int, Sequence[tuple[float, float]]]
Judge = Literal["p", "q", "p q", "p most", "trip", "stay", "ride", "cease", "back"]


@dataclass(frozen=True)
class Step:
    """One step: what is set, and what is then expected.

    Parameters
    ----------
    clause : Of IEEE Std 1547.1-2020.
    power_pu : Available active power.
    judge : p, q: the steady state; p most: at most so much active power; trip: it trips within
        `seconds`; stay: it does not trip in `seconds`; ride: no trip, and the current of before is
        there (`share` of it); cease: no output, from `t.CESSATION_S` to `seconds`; back: after a
        disturbance the current is back.
    seconds : How long the step lasts; the longest clearing time for a trip.
    response_s : Open-loop response time that is judged; 0: none.
    share : Least share of the current before the disturbance.
    trip, trip_range : Limit (pu or Hz) and clearing time (s) of a trip, and what may be set.
    """

    clause: str
    name: str
    functions: Functions
    judge: Judge
    v_pu: float = 1.0
    hz: float = _NOMINAL
    power_pu: float = 1.0
    seconds: float = 0.0
    response_s: float = 0.0
    share: float = 0.0
    trip: tuple[float, float] | None = None
    trip_range: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Parameters
    ----------
    full : Every characteristic, power level and repetition, and response times of the standard.
    response_s : Response time instead of the shortest; None for that.
    trips : Trip settings of the device: (limit in pu or Hz, clearing time in s) by SunSpec model.
    """

    ratings: Ratings
    full: bool = False
    response_s: float | None = None
    trips: Trips | None = None

    def response(self, curve: Curve | Droop, shortest: float) -> float:
        """Return the response time to set."""
        return self.response_s or (curve.response_s if self.full else shortest)

    def settle(self, response_s: float) -> float:
        """Return how long to wait for the steady state: 4 response times, in a short run 2."""
        return (4.0 if self.full else 2.0) * response_s

    @property
    def powers(self) -> tuple[float, ...]:
        """Available power of the repetitions, pu."""
        return (1.0, 0.2, 0.66) if self.full else (1.0,)


def volt_var(w: Wishes) -> Iterator[Step]:
    """5.14.4: along the curve in both directions, just beside each of its points."""
    curves = t.VOLT_VAR[w.ratings.normal]
    for number, curve in enumerate(curves if w.full else curves[:1], start=1):
        response_s = w.response(curve, t.SHORTEST_VAR_S)
        on = Functions(volt_var=replace(curve, response_s=response_s))
        for power in w.powers:
            for k, v in enumerate(_along(curve.x)):
                yield Step(
                    "5.14.4", f"characteristic {number}, {power:.0%}, step {k + 1}", on, "q",
                    v_pu=v, power_pu=power, seconds=w.settle(response_s), response_s=response_s,
                )  # fmt: skip


def _along(x: Sequence[float]) -> list[float]:
    """Return the voltages of a volt-var test: up, back, down, back."""
    v1, v2, v3, v4 = x[0], x[1], x[-2], x[-1]
    low, high = t.V_LOW + _AV, t.V_HIGH - _AV
    up = [v3 - _AV, v3 + _AV, (v3 + v4) / 2, v4 - _AV, v4 + _AV, high]
    down = [v2 + _AV, v2 - _AV, (v2 + v1) / 2, v1 + _AV, v1 - _AV, low]
    legs = [*up, *up[-2::-1], 1.0, *down, *down[-2::-1], 1.0]
    return [v for v in legs if low - 1e-9 <= v <= high + 1e-9]


def volt_watt(w: Wishes) -> Iterator[Step]:
    """5.14.9: from the lowest voltage to the highest and back."""
    low, high = t.V_LOW + _AV, t.V_HIGH - _AV
    for number, curve in enumerate(t.VOLT_WATT if w.full else t.VOLT_WATT[:1], start=1):
        response_s = w.response(curve, t.SHORTEST_WATT_S)
        on = Functions(volt_watt=replace(curve, response_s=response_s))
        v1, v2 = curve.x
        up = [low, v1 - _AV, v1 + _AV, (v1 + v2) / 2, v2 - _AV, v2 + _AV, high]
        inside = [v for v in up if low - 1e-9 <= v <= high + 1e-9]
        for power in w.powers:
            for k, v in enumerate([*inside, *inside[-2::-1]]):
                yield Step(
                    "5.14.9", f"characteristic {number}, {power:.0%}, step {k + 1}", on, "p",
                    v_pu=v, power_pu=power, seconds=w.settle(response_s), response_s=response_s,
                )  # fmt: skip


def constant_pf(w: Wishes) -> Iterator[Step]:
    """5.14.3: power and voltage change, the power factor stays."""
    factors = t.POWER_FACTORS[w.ratings.normal]
    for factor in factors:
        yield from _constant(w, "5.14.3", f"power factor {factor:+g}",
                             Functions(power_factor=factor), (1.0, 0.2, 1.0))  # fmt: skip


def constant_q(w: Wishes) -> Iterator[Step]:
    """5.14.8: power and voltage change, the reactive power stays."""
    for share in t.Q_SHARES:
        yield from _constant(w, "5.14.8", f"{share:+.0%} of Qmax", Functions(q_share=share),
                             (1.0, 0.2, 0.05, 1.0))  # fmt: skip


def _constant(
    w: Wishes, clause: str, name: str, on: Functions, powers: Sequence[float]
) -> Iterator[Step]:
    low, high = t.V_LOW + _AV, t.V_HIGH - _AV
    seconds = w.response_s or t.CONSTANT_S
    points = [(1.0, power) for power in powers] + [(v, 1.0) for v in (low, high, low)]
    for v, power in points:
        label = f"{name}, {power:.0%}, {v:g} pu"
        yield Step(clause, label, on, "q", v_pu=v, power_pu=power, seconds=seconds)
    yield Step(clause, f"{name}, switched off", Functions(), "q", seconds=seconds)


def limit_active_power(w: Wishes) -> Iterator[Step]:
    """5.13: the limit, then frequency and voltage that change the power below or above it."""
    category = w.ratings.abnormal
    fast = replace(t.DROOP[category][0], response_s=w.response(
        t.DROOP[category][0], t.SHORTEST_DROOP_S[category]))  # fmt: skip
    curve = replace(t.VOLT_WATT[0], response_s=w.response(
        t.VOLT_WATT[0], t.SHORTEST_WATT_S))  # fmt: skip
    base = Functions(volt_watt=curve, droop=fast)
    settle = w.settle(max(fast.response_s, curve.response_s))
    for repetition in range(3 if w.full else 1):
        for limit in t.LIMITS:
            on = replace(base, limit=limit)
            name = f"{limit:.0%}" + (f", repetition {repetition + 1}" if w.full else "")
            yield Step("5.13", f"{name}, no limit", base, "p", seconds=t.LIMIT_S)
            yield Step("5.13", f"{name}, limit", on, "p most", seconds=t.LIMIT_S)
            for what, v, hz in (
                ("59 Hz", 1.0, 59.0), ("nominal", 1.0, 60.0), ("61 Hz", 1.0, 61.0),
                ("nominal", 1.0, 60.0), ("1.08 pu", 1.08, 60.0), ("nominal", 1.0, 60.0),
            ):  # fmt: skip
                yield Step("5.13", f"{name}, {what}", on, "p", v_pu=v, hz=hz, seconds=settle)


def frequency_watt(w: Wishes) -> Iterator[Step]:
    """5.15: above and below the nominal frequency, just beside the deadband."""
    category = w.ratings.abnormal
    droops = t.DROOP[category]
    for number, setting in enumerate(droops if w.full else droops[:1], start=1):
        response_s = w.response(setting, t.SHORTEST_DROOP_S[category])
        droop = replace(setting, response_s=response_s)
        seconds = w.settle(response_s)
        small = _SMALL_PU * _NOMINAL * droop.over_slope
        edge = _NOMINAL + droop.over_hz
        over = [edge - _AF, edge + _AF, edge + small, t.F_HIGH, t.F_HIGH - small, edge + _AF,
                edge - _AF, _NOMINAL]  # fmt: skip
        edge = _NOMINAL - droop.under_hz
        under = [edge + _AF, edge - _AF, edge - small, t.F_LOW, t.F_LOW + small, edge - _AF,
                 edge + _AF, _NOMINAL]  # fmt: skip
        legs = [(f"over, {power:.0%}", Functions(droop=droop), power, over) for power in w.powers]
        # Half of the power that is there, so that it can rise.
        legs.append(("under, 50%", Functions(droop=droop, limit=0.5), 1.0, under))
        for name, on, power, frequencies in legs:
            for k, hz in enumerate([_NOMINAL, *frequencies]):
                timed = response_s if k else 0.0
                yield Step(
                    "5.15", f"characteristic {number}, {name}, step {k}", on, "p", hz=hz,
                    power_pu=power, seconds=seconds, response_s=timed,
                )  # fmt: skip


def priority(w: Wishes) -> Iterator[Step]:
    """5.16: frequency-droop, volt-watt and a limit at once, with each mode of reactive power."""
    normal, abnormal = w.ratings.normal, w.ratings.abnormal
    droop = t.DROOP[abnormal][0]
    droop = replace(droop, response_s=w.response(droop, t.SHORTEST_DROOP_S[abnormal]))
    watt = t.VOLT_WATT_PRIORITY
    watt = replace(watt, response_s=w.response(watt, t.SHORTEST_WATT_S))
    var = t.VOLT_VAR[normal][0]
    var = replace(var, response_s=w.response(var, t.SHORTEST_VAR_S))
    base = Functions(volt_watt=watt, droop=droop, limit=0.5)
    slowest = max(droop.response_s, watt.response_s, var.response_s)
    modes = {
        "volt-var": replace(base, volt_var=var), "constant var": replace(base, q_share=1.0),
        "power factor": replace(base, power_factor=0.9),
        "watt-var": replace(base, watt_var=t.WATT_VAR[normal]),
    }  # fmt: skip
    for name, on in modes.items():
        for k, (v, hz) in enumerate(t.PRIORITY, start=1):
            yield Step("5.16", f"{name}, step {k}", on, "p q", v_pu=v, hz=hz,
                       seconds=2.0 * w.settle(slowest))  # fmt: skip


_TRIP_CLAUSES = {707: "5.4.3", 708: "5.4.2", 709: "5.5", 710: "5.5"}
_TRIP_NAMES = {707: "under-voltage", 708: "over-voltage", 709: "under-frequency",
               710: "over-frequency"}  # fmt: skip


def ride_through(w: Wishes) -> Iterator[Step]:
    """5.4 and 5.5: the trips as they are set, and the disturbances that may not trip it."""
    trips = w.trips or {}
    for model in _TRIP_CLAUSES:
        ranges = t.TRIP_RANGES[w.ratings.abnormal][model]
        for number, setting in enumerate(trips.get(model, ()), start=1):
            allowed = ranges[number - 1] if number <= len(ranges) else None
            yield from _trip(model, number, setting, allowed)
    for ride, model in _rides(w):
        if not _trips_before(trips, model, ride):
            clause = {707: "5.4.4", 708: "5.4.7"}.get(model, "5.5")
            yield from _ride(ride, clause, of_voltage=model in (707, 708))


def _rides(w: Wishes) -> Iterator[tuple[t.Ride, int]]:
    """Yield the disturbances of a category, with the model of the trips on their side."""
    for ride in t.VOLTAGE_RIDES[w.ratings.abnormal]:
        yield ride, 707 if ride.value < 1.0 else 708
    for ride in t.FREQUENCY_RIDES:
        yield ride, 709 if ride.value < _NOMINAL else 710


def _trip(
    model: int,
    number: int,
    setting: tuple[float, float],
    allowed: tuple[tuple[float, float], tuple[float, float]] | None,
) -> Iterator[Step]:
    """Yield: just inside the limit for longer than its time, nominal, then beyond the limit."""
    limit, seconds = setting
    over, of_voltage = model in (708, 710), model in (707, 708)
    margin = 2.0 * MRA_V_PU if of_voltage else 2.0 * MRA_HZ
    sign = 1.0 if over else -1.0
    name = f"{_TRIP_NAMES[model]} {number}, {limit:g} {'pu' if of_voltage else 'Hz'}"
    clause = _TRIP_CLAUSES[model]
    yield Step(clause, f"{name}, before", Functions(), "back")
    longer_s = seconds * (1.0 + 2.0 * MRA_TIME)
    stay = Step(clause, f"{name}, inside", Functions(), "stay", seconds=longer_s)
    yield _at(stay, of_voltage, limit - sign * margin)
    yield Step(clause, f"{name}, nominal again", Functions(), "back", seconds=t.RESTORE_S,
               share=t.RESTORE_SHARE)  # fmt: skip
    trip = Step(clause, f"{name}, {seconds:g} s", Functions(), "trip", seconds=seconds,
                trip=setting, trip_range=allowed)  # fmt: skip
    yield _at(trip, of_voltage, max(limit + sign * margin, 0.0))


def _at(step: Step, of_voltage: bool, value: float) -> Step:
    return replace(step, v_pu=value) if of_voltage else replace(step, hz=value)


def _trips_before(trips: Trips, model: int, ride: t.Ride) -> bool:
    """Return True where a trip setting ends a disturbance before its ride-through time."""
    sign = 1.0 if model in (708, 710) else -1.0
    return any(
        sign * (ride.value - limit) > 0.0 and seconds <= ride.seconds
        for limit, seconds in trips.get(model, ())
    )


_RIDE_JUDGES: Mapping[str, Judge] = {
    "mandatory": "ride", "permissive": "stay", "cessation": "cease",
}  # fmt: skip


def _ride(ride: t.Ride, clause: str, *, of_voltage: bool) -> Iterator[Step]:
    unit = "pu" if of_voltage else "Hz"
    name = f"{ride.mode} {ride.value:g} {unit}, {ride.seconds:.3g} s"
    judge = _RIDE_JUDGES[ride.mode]
    yield Step(clause, f"{name}, before", Functions(), "back")
    # A frequency-droop is off: the power has to stay.
    disturbed = Step(clause, name, Functions(), judge, seconds=ride.seconds,
                     share=t.RESTORE_SHARE)  # fmt: skip
    yield _at(disturbed, of_voltage, ride.value)
    yield Step(clause, f"{name}, restored", Functions(), "back", seconds=t.RESTORE_S,
               share=t.RESTORE_SHARE)  # fmt: skip


PROCEDURES: dict[str, Callable[[Wishes], Iterator[Step]]] = {
    "volt-var": volt_var, "volt-watt": volt_watt, "constant-pf": constant_pf,
    "constant-q": constant_q, "limit-active-power": limit_active_power,
    "ride-through": ride_through, "frequency-watt": frequency_watt, "priority": priority,
}  # fmt: skip


def skipped(name: str, w: Wishes) -> list[str]:
    """Return what of a procedure a run leaves out, in words."""
    left = []
    if name != "ride-through" and not w.full:
        left.append("further characteristics, power levels, repetitions and nominal response times "
                    "(--full)")  # fmt: skip
    if name == "ride-through":
        left.append("other trip settings than those that are in force; five repetitions; steps of "
                    "phase angle, rate of change of frequency")  # fmt: skip
        left += [
            f"{ride.mode} operation at {ride.value:g} {'pu' if model < 709 else 'Hz'}: a trip in "
            "force ends it"
            for ride, model in _rides(w)
            if _trips_before(w.trips or {}, model, ride)
        ]
    if name in ("volt-var", "constant-pf", "constant-q"):
        left.append("unbalanced voltages (table 24)")
    return left
