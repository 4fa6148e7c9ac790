"""Functions of an inverter as IEEE Std 1547-2018 defines them: what it has to inject.

The equations stand here a second time, apart from the emulator's, so that a test of the emulator
compares two programs. Powers are per unit of the rated active and apparent power, voltages of the
nominal voltage.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

F_NOMINAL_HZ = 60.0


@dataclass(frozen=True)
class Curve:
    """A piecewise linear characteristic, flat beyond its ends.

    Parameters
    ----------
    x, y : Same length, x ascending.
    response_s : Open-loop response time (to 90 % of a step).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    response_s: float = 0.0

    def at(self, x: float) -> float:
        """Return y at x."""
        return float(np.interp(x, self.x, self.y))


@dataclass(frozen=True)
class Droop:
    """Frequency-droop, table 23: deadbands in Hz, slopes in pu of frequency per pu of power."""

    over_hz: float
    under_hz: float
    over_slope: float
    under_slope: float
    response_s: float

    def share(self, hz: float) -> float:
        """Return the change of active power, pu."""
        over = max(hz - F_NOMINAL_HZ - self.over_hz, 0.0) / (F_NOMINAL_HZ * self.over_slope)
        under = max(F_NOMINAL_HZ - self.under_hz - hz, 0.0) / (F_NOMINAL_HZ * self.under_slope)
        return under - over


@dataclass(frozen=True)
class Functions:
    """Which functions are on; None is off. The names are those of `hil.type_tests.bench`.

    Parameters
    ----------
    volt_var, watt_var : y in pu of the rated apparent power.
    volt_watt : y in pu of the rated active power.
    q_share : Constant reactive power, of the largest that can be injected or absorbed.
    power_factor : Below 0 it absorbs reactive power.
    limit : Limit of active power, pu.
    """

    volt_var: Curve | None = None
    volt_watt: Curve | None = None
    watt_var: Curve | None = None
    q_share: float | None = None
    power_factor: float | None = None
    limit: float | None = None
    droop: Droop | None = None

    def names(self) -> list[str]:
        """Return the names of the functions that are on."""
        return [name for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Ratings:
    """Ratings of a device: W, VA, var; nominal voltage as the device measures it, V.

    `normal` is A or B, `abnormal` I, II or III: the performance categories.
    """

    w: float
    va: float
    var_inject: float
    var_absorb: float
    v_nominal: float
    normal: str
    abnormal: str


@dataclass(frozen=True)
class State:
    """What acts on a device.

    `available` is the power that its source has, `before` its power before a disturbance of the
    frequency; both in pu.
    """

    v_pu: float
    hz: float
    available: float
    before: float


def expected_p(functions: Functions, state: State, ratings: Ratings, q: float) -> float:
    """Return the active power, pu; reactive power `q` (pu of VA) has priority (clause 5.2)."""
    f = functions
    p = min(state.available, 1.0 if f.limit is None else f.limit)
    share = f.droop.share(state.hz) if f.droop else 0.0
    if share:
        p = min(max(state.before + share, 0.0), state.available)
    if f.volt_watt:
        p = min(p, f.volt_watt.at(state.v_pu))
    room = ratings.va / ratings.w
    if f.power_factor is not None:
        return min(p, abs(f.power_factor) * room)
    return min(p, math.sqrt(max(1.0 - q**2, 0.0)) * room)


def expected_q(functions: Functions, v_pu: float, p: float, ratings: Ratings) -> float:
    """Return the reactive power, pu of VA, at the active power `p` (pu of W)."""
    f = functions
    if f.q_share is not None:
        most = ratings.var_inject if f.q_share > 0.0 else ratings.var_absorb
        return f.q_share * most / ratings.va
    if f.power_factor is not None:
        tangent = math.sqrt(1.0 / f.power_factor**2 - 1.0)
        return math.copysign(p * tangent * ratings.w / ratings.va, f.power_factor)
    if f.volt_var:
        return f.volt_var.at(v_pu)
    return f.watt_var.at(p) if f.watt_var else 0.0


#: Below this active power a device need not provide all of its reactive power, but a share that
#: falls to nothing with the active power (IEEE Std 1547-2018, 5.2).
LOW_POWER_PU = 0.2
#: Largest measurement error that table 3 of IEEE Std 1547-2018 allows in steady state, and the
#: factor that clause 4.2 of IEEE Std 1547.1-2020 puts to it. Time: share of what is measured.
MRA_V_PU, MRA_HZ, MRA_P_PU, MRA_Q_PU, MRA_TIME = 0.01, 0.01, 0.05, 0.05, 0.01
MRA_FACTOR = 1.5


@dataclass(frozen=True)
class Band:
    """What is expected, and what is accepted around it."""

    low: float
    target: float
    high: float

    def error(self, value: float) -> float:
        """Return how far a value is from the target."""
        return abs(value - self.target)

    def holds(self, value: float) -> bool:
        """Return True where a value is accepted; nan never is."""
        return self.low <= value <= self.high


def band_p(functions: Functions, state: State, ratings: Ratings, q: float) -> Band:
    """Return the accepted active power, pu of W (clause 4.2): voltage and frequency within MRA."""
    spread = [
        expected_p(
            functions,
            State(state.v_pu + dv, state.hz + df, state.available, state.before),
            ratings, q,
        )
        for dv, df in itertools.product(_around(MRA_V_PU), _around(MRA_HZ))
    ]  # fmt: skip
    margin = MRA_FACTOR * MRA_P_PU * ratings.va / ratings.w  # of the apparent power (table 3)
    target = expected_p(functions, state, ratings, q)
    return Band(min(spread) - margin, target, max(spread) + margin)


def band_q(functions: Functions, state: State, ratings: Ratings, p: float) -> Band:
    """Return the accepted reactive power, pu of VA, at the measured active power."""
    by_power = functions.watt_var is not None and functions.volt_var is None
    powers = [p + dp for dp in _around(MRA_P_PU)] if by_power else [p]
    spread = [
        expected_q(functions, state.v_pu + dv, power, ratings)
        for dv, power in itertools.product(_around(MRA_V_PU), powers)
    ]
    margin = MRA_FACTOR * MRA_Q_PU
    target = expected_q(functions, state.v_pu, p, ratings)
    if functions.power_factor is None and p < LOW_POWER_PU:
        spread.append(target * max(p, 0.0) / LOW_POWER_PU)
    return Band(min(spread) - margin, target, max(spread) + margin)


def band_of_response(initial: float, final: float, margin: float) -> Band:
    """Return what is accepted one response time after a step: 90 % of the way, time within MRA."""
    spread = [final + (initial - final) * 0.1 ** (1.0 + dt) for dt in _around(MRA_TIME)]
    return Band(min(spread) - margin, final + 0.1 * (initial - final), max(spread) + margin)


def _around(error: float) -> Sequence[float]:
    return -MRA_FACTOR * error, 0.0, MRA_FACTOR * error
