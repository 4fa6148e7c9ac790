"""Equations of the devices of a home over the horizon, as terms of a `BatchQp` (stage I).

Paper 003, "Stage I: Multiperiod optimization to coordinate DERs". Arrays here are (H, n): steps
first, homes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.market.consumer.batch_qp import Array, BatchQp, Index, Term
from controllers.market.consumer.homes import Storages
from controllers.market.model.errors import MarketError
from grid_models.base.options import Options, option

LEAST_PV_KW = 1e-3  # less sun than that is none


@dataclass(frozen=True)
class PlanOptions(Options):
    """Weights of stage I; docs/home-plans.md says how they were chosen."""

    error = MarketError
    flex_per_kwh: float = option(0.01, "Worth of flexibility", low=0.0)
    delta_low: float = option(0.05, "Least flexibility, share of |P| (eps1)", low=0.0, high=0.9)
    delta_high: float = option(0.3, "Most flexibility, share of |P| (eps2)", low=0.0, high=1.0)
    throughput_factor: float = option(
        1.05, "Throughput cost over that from which the plan is exact", low=0.0
    )
    ramp_per_kw2: float = option(5e-4, "Cycling: cost of (P(t+1) - P(t))^2", low=0.0)
    own_pv_per_kwh: float = option(0.01, "Use of own PV: weight of (sum of P)^2 / rating", low=0.0)
    curtail_per_kwh: float = option(0.03, "Cost of PV that is not used", low=0.0)
    limit_per_kwh: float = option(10.0, "State of charge outside its limits, per step", low=0.0)
    target_per_kwh: float = option(1.0, "Energy missing at the target or at the end", low=0.0)
    discomfort_per_k_h: float = option(2.0, "Temperature outside the comfort band", low=0.0)
    tracking_per_k2_h: float = option(0.01, "Temperature off its set-point, squared", low=0.0)
    price_rise_per_kw: float = option(
        0.0, "Rise of the price per kW of the home's net load, as all homes do alike", low=0.0
    )

    def check(self) -> None:
        """Check what concerns several options."""
        if not self.delta_low < self.delta_high:
            raise MarketError(
                f"{self.delta_low} is not accepted",
                where="option 'delta_low'",
                expected=f"less than delta_high, {self.delta_high}",
            )


class Device(NamedTuple):
    """A device's places in the problem.

    Attributes
    ----------
    power, delta : Terms whose sum is the injection, and the flexibility, (H, n).
    charge : (H,). Charging power of a storage.
    """

    power: Sequence[tuple[Index, float]]
    delta: Sequence[tuple[Index, float]]
    charge: Index | None = None


class StorageCase(NamedTuple):
    """What a storage meets: (n,) or (H, n).

    Attributes
    ----------
    start_kwh : (n,).
    trip_kwh, wanted_kwh : (H, n). Used outside the home in each step; what would be used if the
        vehicle could store it.
    away : (H, n).
    low_kwh, high_kwh : (H, n). Limits at the end of each step.
    low_price : (H, n). Cost of energy below `low_kwh`.
    reserve_low, reserve_high : (H, n). 1 where the flexibility must have its energy, else 0.
    due : (H, n). Where a target is due at the end of the step.
    throughput : (n,). Cost of |P|, per kWh.
    """

    start_kwh: Array
    trip_kwh: Array
    wanted_kwh: Array
    away: NDArray[np.bool_]
    low_kwh: Array
    high_kwh: Array
    low_price: Array
    reserve_low: Array
    reserve_high: Array
    due: NDArray[np.bool_]
    throughput: Array


def add_storage(
    qp: BatchQp,
    units: Storages,
    case: StorageCase,
    price: Array,
    hours: float,
    options: PlanOptions,
) -> Device:
    """Add a battery or vehicle: P = discharging - charging, |P| = P + 2 charging.

    e(t+1) = e(t) - dt (P + charging)/eta_d + dt eta_c charging - trip: the paper prints eta for
    both directions; 1/eta when discharging is the reading that creates no energy.
    """
    steps = len(price)
    power, charge, delta, energy = (qp.variables(steps) for _ in range(4))
    below, above = qp.variables(steps), qp.variables(steps)
    out = hours / units.discharge_efficiency
    loss = out - hours * units.charge_efficiency
    _add_states(qp, energy, 1.0, case.start_kwh, -case.trip_kwh, (power, -out), (charge, -loss))
    low, high = options.delta_low, options.delta_high
    qp.at_most(0.0, (charge, -1.0))
    qp.at_most(0.0, (power, -1.0), (charge, -1.0))
    qp.at_most(0.0, (delta, 1.0), (power, -high), (charge, -2.0 * high))
    qp.at_most(0.0, (delta, -1.0), (power, low), (charge, 2.0 * low))
    qp.at_most(-units.p_min_kw, (power, -1.0), (delta, 1.0))
    qp.at_most(units.p_max_kw, (power, 1.0), (delta, 1.0))
    qp.at_most(-case.low_kwh, (energy, -1.0), (below, -1.0), (delta, case.reserve_low * out))
    gain = hours * units.charge_efficiency
    qp.at_most(case.high_kwh, (energy, 1.0), (above, -1.0), (delta, case.reserve_high * gain))
    qp.at_most(0.0, (below, -1.0))
    qp.at_most(0.0, (above, -1.0))
    qp.cost(power, hours * (case.throughput - price))
    qp.cost(charge, 2.0 * hours * case.throughput)
    qp.cost(delta, -hours * options.flex_per_kwh)
    qp.cost(below, case.low_price)
    qp.cost(above, options.limit_per_kwh)
    qp.square(options.ramp_per_kw2, 0.0, (power[1:], 1.0), (power[:-1], -1.0))
    for columns in (power, charge, delta):
        qp.fix(columns, case.away)
    return Device([(power, 1.0)], [(delta, 1.0)], charge)


def add_pv(
    qp: BatchQp, available_kw: Array, price: Array, hours: float, options: PlanOptions
) -> Device:
    """Add PV with curtailment: 0 <= P - delta, P + delta <= available.

    eps1 P <= delta would keep the PV from full power and is left out. A linear cost of curtailment
    above the worth of flexibility, not the paper's square, keeps PV from being curtailed for it:
    the square has no slope at full power.
    """
    power, delta = qp.variables(len(price)), qp.variables(len(price))
    qp.at_most(0.0, (delta, -1.0))
    qp.at_most(0.0, (delta, 1.0), (power, -options.delta_high))
    qp.at_most(available_kw, (power, 1.0), (delta, 1.0))
    qp.cost(power, -hours * (price + options.curtail_per_kwh))
    qp.cost(delta, -hours * options.flex_per_kwh)
    dark = available_kw < LEAST_PV_KW
    qp.fix(power, dark)
    qp.fix(delta, dark)
    return Device([(power, 1.0)], [(delta, 1.0)])


class HeatCase(NamedTuple):
    """A house: (n,) or (H, n).

    Attributes
    ----------
    start_c : (n,). theta : (n,). Share of the temperature difference left after a step.
    gain_k_per_kw : (H, n). Change of the temperature; negative where the pump cools.
    outdoor_c, set_c : (H, n).
    low_c, high_c : (n,). Comfort band.
    rated_kw : (n,).
    """

    start_c: Array
    theta: Array
    gain_k_per_kw: Array
    outdoor_c: Array
    set_c: Array
    low_c: Array
    high_c: Array
    rated_kw: Array


def add_heat_pump(
    qp: BatchQp, case: HeatCase, price: Array, hours: float, options: PlanOptions
) -> Device:
    """Add a heat pump: `HouseFleet`'s equations over the horizon; the comfort band is soft."""
    steps = len(price)
    # P = (u + v) / (eps2 - eps1) and delta = eps1 P + u: the shares' limits are u >= 0, v >= 0.
    u, v, temp, below, above = (qp.variables(steps) for _ in range(5))
    low, high = options.delta_low, options.delta_high
    one = 1.0 / (high - low)
    warm = one * case.gain_k_per_kw
    drift = (1.0 - case.theta) * case.outdoor_c
    _add_states(qp, temp, case.theta, case.start_c, drift, (u, warm), (v, warm))
    qp.at_most(0.0, (u, -1.0))
    qp.at_most(0.0, (v, -1.0))
    qp.at_most(case.rated_kw, (u, one * (1.0 + high)), (v, one * (1.0 + low)))
    qp.at_most(-case.low_c, (temp, -1.0), (below, -1.0))
    qp.at_most(case.high_c, (temp, 1.0), (above, -1.0))
    qp.at_most(0.0, (below, -1.0))
    qp.at_most(0.0, (above, -1.0))
    qp.cost(u, hours * one * (price - high * options.flex_per_kwh))
    qp.cost(v, hours * one * (price - low * options.flex_per_kwh))
    qp.cost(below, hours * options.discomfort_per_k_h)
    qp.cost(above, hours * options.discomfort_per_k_h)
    qp.square(hours * options.tracking_per_k2_h, case.set_c, (temp, 1.0))
    return Device([(u, -one), (v, -one)], [(u, one * high), (v, one * low)])


def _add_states(
    qp: BatchQp, state: Index, kept: float | Array, start: Array, drift: Array, *inputs: Term
) -> None:
    """Add ``state(t+1) = kept state(t) + drift(t) + inputs(t)`` from the state at the start."""
    wide = [(columns, np.broadcast_to(gain, drift.shape)) for columns, gain in inputs]
    first = [(columns[:1], -gain[:1]) for columns, gain in wide]
    later = [(columns[1:], -gain[1:]) for columns, gain in wide]
    qp.equal(drift[:1] + kept * start, (state[:1], 1.0), *first)
    qp.equal(drift[1:], (state[1:], 1.0), (state[:-1], -kept), *later)
