"""Stages II and III of the consumer market: what homes do at two prices, and which prices to set.

V. J. Nair's slides, "Consumer market": a consumer market operator (CMO, the leader) sets a price of
energy `mu` and one of flexibility `mu_flex`; the aggregator of each home (CMA, a follower) takes
them as given and chooses its injection. With s = mu + mu_flex - plan_price::

    stage II   max  mu P + mu_flex (P - P0) - plan_price (P - P0) - gamma (P - P0)^2
               P(s) = clip(P0 + s / (2 gamma), p_min, p_max)
    stage III  sum P(s) = target                                                    tracking
               mu_flex (sum P - sum P0) + mu sum P = price sum P                    budget

`plan_price` is the price at which the plan P0 was made; the slides have none (0).

Where the printed formulas are not used as they stand:

* Stage II is printed as two cases, for P >= P0 and a positive sum of prices. The clip holds for any
  sign: a target below sum P0 gives s < 0 and homes go down to `p_min`.
* The printed prices hold while no bound binds. Then sum P - sum P0 = s sum 1 / (2 gamma). Here s is
  found by water-filling over the homes' bounds, which includes that case.
* mu follows from s by the budget, ``mu = (price P - (s + plan_price) (P - P0)) / P0``, which for
  plan_price = 0 is the printed one without a bound. P = P0 is no singular case of this form.
* P0 = 0 is one: the budget then depends on s only. mu is the price of the grid, and what the
  budget lacks is reported as `uplift`.

Powers are kW, injections positive; prices are money per kWh; `gamma` is in money/(kW^2 h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.errors import BidError, MarketError
from controllers.market.model.whole_units import UNIT, check_exact, divided

Policy = Literal["allow", "floor"]
POLICIES: tuple[Policy, ...] = ("allow", "floor")

# Below this part of the powers of its homes, the sum of the plans is a difference of equals: prices
# over it would be a million times those of the grid, and their products inexact.
_NO_PLAN = 1e-6


@dataclass(frozen=True)
class ConsumerClearing:
    """Prices of n operators and what their h homes do at them.

    Attributes
    ----------
    p : (h,). Injection of each home, kW.
    mu, mu_flex : (n,). Prices of energy and of flexibility, money per kWh.
    s : (n,). What a home gains by one kWh more than planned, money per kWh.
    short : (n,). Target less what the homes can give, kW; 0 where it can be reached.
    uplift : (n,). What the operator adds to the payments of its homes, money per h; negative where
        it keeps money. 0 where the budget balances.
    """

    p: FloatArray
    mu: FloatArray
    mu_flex: FloatArray
    s: FloatArray
    short: FloatArray
    uplift: FloatArray


def respond(
    p0: FloatArray,
    p_min: FloatArray,
    p_max: FloatArray,
    gamma: FloatArray,
    s: FloatArray | float,
) -> FloatArray:
    """Return what price takers inject, kW, (h,); stage II.

    Parameters
    ----------
    p0, p_min, p_max : (h,). Plan and limits, kW, p_min <= p0 <= p_max.
    gamma : (h,). Disutility of a deviation from the plan, money/(kW^2 h), > 0.
    s : (h,) or number. Sum of the two prices, less the price of the plan, money per kWh.
    """
    return np.minimum(np.maximum(p0 + s / (2.0 * gamma), p_min), p_max)


def clear_consumer(
    owner: IntArray,
    p0: FloatArray,
    p_min: FloatArray,
    p_max: FloatArray,
    gamma: FloatArray,
    p_target: FloatArray,
    price: FloatArray,
    policy: Policy = "allow",
    *,
    plan_price: FloatArray | float = 0.0,
    least_plan: float = _NO_PLAN,
) -> ConsumerClearing:
    """Return the prices of n operators that move their homes to the targets; stage III.

    An operator's result does not depend on who else is in the batch, to the last bit.

    Parameters
    ----------
    owner : (h,). The operator of each home, ascending, 0 to n - 1; one may have no home.
    p0, p_min, p_max, gamma : (h,). Bids; see `respond`.
    p_target : (n,). Net injection asked of each operator's homes, kW.
    price : (n,). What the operator is paid for injections and pays for load, money per kWh.
    policy : ``allow``: prices may be negative, tracking and budget hold. ``floor``: the price of
        energy is not negative, and nobody pays for flexibility that was asked for (mu_flex >= 0
        where the target is above the plan, <= 0 where below); tracking holds, the budget may not.
    plan_price : (n,) or number. The price that the plans answer to, money per kWh.
    least_plan : Where the plans add up to less than this part of the powers of an operator's homes,
        its prices are those of a sum of zero: `mu` is `price`, and what the budget lacks is
        `uplift`. Prices grow as the sum vanishes.

    Raises BidError: A bid is not finite, its limits do not enclose the plan or gamma <= 0.
    Raises MarketError: Targets, prices, owners or the policy are not usable.
    """
    _check(owner, (p0, p_min, p_max, gamma), p_target, price)
    n = len(p_target)
    planned = _sums(owner, p0, n)
    need = p_target - planned
    s, short = _fill(owner, p0, p_min, p_max, gamma, need)
    p = respond(p0, p_min, p_max, gamma, s[owner])
    total = _sums(owner, p, n)
    moved = total - planned
    gain = s + plan_price
    none = np.abs(planned) <= least_plan * np.maximum(_sums(owner, np.abs(p0), n), np.abs(total))
    mu = np.where(none, price, (price * total - gain * moved) / np.where(none, 1.0, planned))
    balanced = ~none
    if policy == "floor":
        kept = np.maximum(mu, np.where(s < 0.0, np.maximum(gain, 0.0), 0.0))
        kept = np.where(s < 0.0, kept, np.minimum(kept, np.maximum(gain, 0.0)))
        balanced &= kept == mu
        mu = kept
    elif policy != "allow":
        raise MarketError(
            f"no policy is called '{policy}'", where="policy", expected=" or ".join(POLICIES)
        )
    mu_flex = gain - mu
    uplift = np.where(balanced, 0.0, mu_flex * moved + mu * total - price * total)
    return ConsumerClearing(p, mu, mu_flex, s, short, uplift)


def _fill(
    owner: IntArray,
    p0: FloatArray,
    p_min: FloatArray,
    p_max: FloatArray,
    gamma: FloatArray,
    need: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return s at which the homes of each operator move by `need`, and what they cannot, (n,).

    Water-filling: along |s| each home moves at 1 / (2 gamma) until its room is used up. The sum is
    piecewise linear with one breakpoint per home; the piece that holds `need` gives s exactly.
    """
    up = need >= 0.0
    room = np.where(up[owner], p_max - p0, p0 - p_min)
    place = _places(owner, len(need))
    ends, rooms, paces = (
        _rows(owner, place, values, len(need))
        for values in (2.0 * gamma * room, room, 1.0 / (2.0 * gamma))
    )
    order = np.argsort(ends, axis=1, kind="stable")
    ends, rooms, paces = (np.take_along_axis(x, order, axis=1) for x in (ends, rooms, paces))
    # A row's sums run from its own ends, where empty places add zeros only.
    used = np.cumsum(rooms, axis=1)
    pace = np.cumsum(paces[:, ::-1], axis=1)[:, ::-1]
    reached = used + ends * (pace - paces)
    size = np.abs(need)
    k = np.minimum(np.count_nonzero(reached < size[:, None], axis=1), ends.shape[1] - 1)
    at = np.arange(len(need)), k
    left = size - (used[at] - rooms[at])
    lacking = np.maximum(size - used[:, -1], 0.0)
    moving = (lacking == 0.0) & (pace[at] > 0.0)
    s = np.where(moving, left / np.where(moving, pace[at], 1.0), ends[:, -1])
    sign = np.where(up, 1.0, -1.0)
    return sign * s, sign * lacking


def _places(owner: IntArray, n: int) -> IntArray:
    """Return the position of each home among those of its operator."""
    count = np.bincount(owner, minlength=n)
    return np.arange(len(owner)) - (np.cumsum(count) - count)[owner]


def _rows(owner: IntArray, place: IntArray, values: FloatArray, n: int) -> FloatArray:
    """Return the homes of each operator as a row, zeros behind them."""
    table = np.zeros((n, int(place.max(initial=0)) + 1))
    table[owner, place] = values
    return table


def _sums(owner: IntArray, values: FloatArray, n: int) -> FloatArray:
    # One after the other, so that a sum does not depend on who else is in the batch.
    return np.bincount(owner, values, n).astype(np.float64, copy=False)


def _check(
    owner: IntArray, bids: tuple[FloatArray, ...], p_target: FloatArray, price: FloatArray
) -> None:
    n = len(p_target)
    if len(owner) and (owner[0] < 0 or owner[-1] >= n or (np.diff(owner) < 0).any()):
        raise MarketError(
            "the owners are not in order", where="owner", expected=f"ascending, 0 to {n - 1}"
        )
    for name, values in (("p_target", p_target), ("price", price)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise MarketError(
                f"{name} of operator {bad[0]} is {values[bad[0]]}",
                where="consumer market",
                expected="a finite number",
            )
    p0, p_min, p_max, gamma = bids
    for field, good, expected in (
        ("p0", np.isfinite(p0), "a finite number"),
        ("p_min", np.isfinite(p_min) & (p_min <= p0), "finite, at most p0"),
        ("p_max", np.isfinite(p_max) & (p_max >= p0), "finite, at least p0"),
        ("gamma", np.isfinite(gamma) & (gamma > 0.0), "finite, above 0"),
    ):
        bad = np.flatnonzero(~good)
        if bad.size:
            value = dict(zip(("p0", "p_min", "p_max", "gamma"), bids, strict=True))[field][bad[0]]
            raise BidError(f"is {value}", bus=f"home {bad[0]}", field=field, expected=expected)


def consumer_units(
    bill_units: IntArray,
    owner: IntArray,
    p: FloatArray,
    p0: FloatArray,
    mu: FloatArray,
    mu_flex: FloatArray,
    *,
    hours: float,
    unit: float = UNIT,
) -> IntArray:
    """Return what each home pays, (h,), in whole units that sum to each operator's bill exactly.

    A home pays ``-(mu p + mu_flex (p - p0)) hours``. What the bill has beyond the sum of these
    (uplift, deviations from what was cleared) is shared by the homes in proportion to abs(p),
    equally where nobody has power. Rounding goes by largest remainder.

    Parameters
    ----------
    bill_units : int64 (n,). What each operator has to collect; negative where it pays its homes.
    owner, p, p0 : (h,). As in `clear_consumer`; `p` may be metered.
    mu, mu_flex : (n,). Prices of the interval.
    hours : Length of the interval.
    unit : Smallest unit of money.

    Raises MarketError: An operator without homes has a bill, or an amount has too many units.
    """
    n = len(bill_units)
    pays = -(mu[owner] * p + mu_flex[owner] * (p - p0)) * (hours / unit)
    check_exact(pays)
    size = np.abs(p)
    count = np.bincount(owner, minlength=n)
    idle = _sums(owner, size, n) <= 0.0
    size = np.where(idle[owner], 1.0, size)
    rest = (bill_units - _sums(owner, pays, n)) / np.where(count > 0, _sums(owner, size, n), 1.0)
    return divided(pays + rest[owner] * size, owner, bill_units)
