"""Who of an operator's agents pays what of its bill: a revenue-neutral retail tariff.

Level 2 of the clearing is no retail price. It asks for the least sum of payments within a quarter
of the cap and the cap, so taken literally every load pays the cap and every generator receives the
lowest price, whatever the energy costs.

The rule here: everybody is charged the operator's own price for the energy, and what is left of the
bill (losses, reactive power, uplift, deviations) falls on agents by the energy that they move::

    agent j pays  -price p_j hours + |p_j| / sum|p| (bill + price sum(p) hours)

- It pays the bill exactly, of either sign, for loads, generation and both.
- The tariff ``bill / net load`` would do so, too, but is without limit where generation nearly
  balances the loads, and pays the wrong side where the remainder outweighs the energy.
- It implies one price of load and one of generation in each operator (`retail_tariffs`); they
  differ from the operator's price by the same surcharge.

Amounts are whole units of money: shares are rounded down, and what that leaves goes, a unit each,
to those that lost most (largest remainder; of equals to the first).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.errors import MarketError
from controllers.market.model.whole_units import LARGEST, UNIT, divided

IntArray = NDArray[np.int64]


def retail_units(
    bill_units: IntArray,
    p_kw: FloatArray,
    owner: IntArray,
    *,
    price_per_kwh: FloatArray,
    hours: float,
    unit: float = UNIT,
) -> IntArray:
    """Return what each agent pays, (m,), in whole units of money; negative where it receives.

    The sum of an operator's agents is its bill, exactly. Where none moves energy all share equally.

    Parameters
    ----------
    bill_units : int (n,). What each operator pays for its agents; negative where it receives.
    p_kw : ndarray (m,). Mean injection of each agent, as metered or as scheduled.
    owner : int (m,). Operator of each agent, ascending.
    price_per_kwh : ndarray (n,). What the operator pays for a kWh.
    hours : float. Length of the interval.
    unit : float. The smallest unit of money.

    Raises MarketError: A number is not finite or has too many units to be exact, hours or unit are
        not positive, or an operator with a bill has no agent to pay it.
    """
    n = len(bill_units)
    _check(bill_units, p_kw, price_per_kwh, hours, unit)
    agents = np.bincount(owner, minlength=n)
    if (bill_units[agents == 0] != 0).any():
        i = int(np.argmax((agents == 0) & (bill_units != 0)))
        raise MarketError(
            f"operator {i} has a bill of {bill_units[i]} units and no agents",
            where="retail",
            expected="agents that pay it",
        )
    moved = np.bincount(owner, weights=np.abs(p_kw), minlength=n)
    # Who moves nothing pays nothing, unless nobody moves anything.
    weight = np.where(moved[owner] > 0, np.abs(p_kw), 1.0)
    scale = np.where(moved > 0, moved, np.maximum(agents, 1))
    charge = -p_kw * (price_per_kwh * hours / unit)[owner]
    rest = bill_units - np.bincount(owner, weights=charge, minlength=n)
    share = charge + weight / scale[owner] * rest[owner]
    # By operator: what one is billed does not depend on the others of the batch.
    sums = [np.bincount(owner, weights=np.abs(x), minlength=n) for x in (share, charge)]
    if (np.maximum(*sums) > LARGEST).any():
        raise _refused("an amount has too many units to be exact", "a larger unit of money")
    return divided(share, owner, np.asarray(bill_units, np.int64), weight > 0)


def retail_tariffs(
    pays_units: IntArray,
    p_kw: FloatArray,
    owner: IntArray,
    n: int,
    *,
    hours: float,
    unit: float = UNIT,
) -> tuple[FloatArray, FloatArray]:
    """Return the mean price of load and of generation of `n` operators, each (n,), per kWh.

    NaN where there is none. `pays_units` is of `retail_units`.
    """
    prices = []
    for side in (p_kw < 0, p_kw > 0):
        money = np.bincount(owner, weights=np.where(side, pays_units * unit, 0), minlength=n)
        energy = np.bincount(owner, weights=np.where(side, -p_kw * hours, 0), minlength=n)
        prices.append(np.divide(money, energy, where=energy != 0, out=np.full(n, np.nan)))
    return prices[0], prices[1]


def _check(bill: IntArray, p_kw: FloatArray, price: FloatArray, hours: float, unit: float) -> None:
    for name, value in (("hours", hours), ("unit", unit)):
        if not 0 < value < np.inf:
            raise _refused(f"{name} is {value}", "above 0")
    if np.asarray(bill).dtype.kind not in "iu":
        raise _refused(f"bill_units of type {np.asarray(bill).dtype}", "whole units of money")
    for name, values in (("p_kw", p_kw), ("price_per_kwh", price)):
        bad = ~np.isfinite(values)
        if bad.any():
            i = int(np.argmax(bad))
            raise _refused(f"{name}[{i}] is {values[i]}", "a finite number")


def _refused(what: str, expected: str) -> MarketError:
    return MarketError(what, where="retail", expected=expected)
