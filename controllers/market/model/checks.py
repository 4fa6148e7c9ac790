"""What a clearing problem must be before any solver sees it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.errors import BidError, MarketError
from controllers.market.model.problem import AnyProblem, Bids

RANGES = (
    ("p_load_min", "p_load_max"),
    ("p_gen_min", "p_gen_max"),
    ("q_gen_min", "q_gen_max"),
)
"""The ranges of a bid, by the names of their ends."""
_COSTS = ("alpha_p", "alpha_q", "beta")


def turned_round(low: FloatArray, high: FloatArray) -> NDArray[np.bool_]:
    """Return where a range has its minimum above its maximum.

    The one rule for whoever judges a bid: what `bid_book` lets in must be clear of `check_bids`, or
    one operator's bid stops every clearing. There is no slack in it; no solver has any.
    """
    return np.asarray(low > high)


def check_bids(problem: AnyProblem) -> None:
    """Raise for the first bid that is not one.

    Raises
    ------
    BidError: A field is no array of the right shape, is not finite, has its minimum above its
        maximum, or is a negative (concave) cost. The message names bus and field.
    MarketError
        A price is not finite, the price of losses is negative, or the voltage band is empty.
    """
    bids, buses = problem.bids, problem.network.buses
    for field in fields(Bids):
        _check_array(field.name, getattr(bids, field.name), buses)
    for low, high in RANGES:
        a, b = getattr(bids, low), getattr(bids, high)
        wrong = turned_round(a, b)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise BidError(
                f"{a[i]:g} is above {high} {b[i]:g}",
                bus=buses[i],
                field=low,
                expected="min <= max",
            )
    for name in _COSTS:
        cost: FloatArray = getattr(bids, name)
        if (cost < 0).any():
            i = int(np.argmax(cost < 0))
            raise BidError(
                f"negative cost {cost[i]:g}", bus=buses[i], field=name, expected="0 or more"
            )
    _check_prices(problem)


def _check_array(name: str, values: object, buses: tuple[str, ...]) -> None:
    array = np.asarray(values)
    is_array = isinstance(values, np.ndarray)
    if not is_array or array.shape != (len(buses),) or array.dtype.kind not in "fiu":
        raise BidError(
            f"{type(values).__name__} of shape {array.shape} and type {array.dtype}",
            bus=None,
            field=name,
            expected=f"an array of {len(buses)} numbers, one per bus",
        )
    bad = ~np.isfinite(array)
    if bad.any():
        i = int(np.argmax(bad))
        raise BidError(f"is {array[i]}", bus=buses[i], field=name, expected="a finite number")


def _check_prices(problem: AnyProblem) -> None:
    def refuse(name: str, value: float, expected: str) -> MarketError:
        return MarketError(f"{name} is {value}", where="clearing problem", expected=expected)

    if not np.isfinite(problem.import_price):
        raise refuse("import_price", problem.import_price, "a finite price")
    for name in ("xi", "import_slope"):
        value = getattr(problem, name)
        if not (np.isfinite(value) and value >= 0):
            raise refuse(name, value, "a finite price, 0 or more")
    if not 0 < problem.v_min_pu < problem.v_max_pu < np.inf:
        raise refuse(
            "v_min_pu", problem.v_min_pu, f"above 0 and below v_max_pu ({problem.v_max_pu})"
        )
