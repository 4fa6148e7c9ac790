"""Amounts of money as whole numbers of the smallest unit, so that books balance exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.errors import MarketError

UNIT = 1e-6
"""Smallest unit of money."""
LARGEST = 2.0**53
"""Units from which a float64 is no longer exact."""


def check_exact(amounts: FloatArray | IntArray) -> None:
    """Refuse amounts, in units, that are not finite or too large for a float64 to be exact."""
    if not (np.abs(amounts) <= LARGEST).all():
        raise MarketError(
            "an amount is not finite, or has too many units to be exact",
            where="division of bills",
            expected="finite powers and prices, and a larger unit of money",
        )


def divided(
    amounts: FloatArray,
    owner: IntArray,
    totals: IntArray,
    takes: NDArray[np.bool_] | None = None,
) -> IntArray:
    """Return amounts rounded to whole units, int64 (m,); those of each owner sum to its total.

    By largest remainder; of equal remainders the first counts.

    Parameters
    ----------
    amounts : (m,). In units; those of an owner sum to about its total.
    owner : (m,). Ascending, 0 to n - 1.
    totals : int64 (n,).
    takes : (m,). Who takes what rounding leaves; by default all.

    Raises MarketError: An owner has a total but no amount, or an amount has too many units.
    """
    n = len(totals)
    takes = np.ones(len(owner), dtype=bool) if takes is None else takes
    count = np.bincount(owner[takes], minlength=n)
    lost = np.flatnonzero((count == 0) & (totals != 0))
    if lost.size:
        raise MarketError(
            f"nobody pays the bill of operator {lost[0]}",
            where="division of bills",
            expected="an operator without members has no bill",
        )
    check_exact(amounts)
    check_exact(totals)
    low = np.floor(amounts)
    whole = low.astype(np.int64)
    each = np.zeros(n, dtype=np.int64)
    np.add.at(each, owner, whole)
    # Floating point may leave a unit below 0 or above the count: divmod gives whole rounds first.
    all_get, some_get = np.divmod(totals - each, np.maximum(count, 1))
    order = np.lexsort((low - amounts, ~takes, owner))
    rank = np.empty(len(owner), dtype=np.int64)
    rank[order] = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return whole + np.where(takes, all_get[owner] + (rank < some_get[owner]), 0)
