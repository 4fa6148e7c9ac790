"""The market operator's memory of bids: the last good one of each SMO, and why one was refused.

Nothing that arrives is trusted: a bid with a number that is not finite, with a range turned round
or with a cost that is not positive is refused, and the last good one of that SMO stays. A bid that
arrives in a later interval than the one it was made for is used from then on and counted as late;
one that claims an interval that has not come yet is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.checks import RANGES, turned_round
from controllers.market.model.participants import BID_FIELDS, bid_column


def bid_faults(bids: FloatArray) -> list[str | None]:
    """Return for each bid, shape (m, len(BID_FIELDS)), what is wrong with it, or None.

    Returns
    -------
    list of str or None
        ``bid_not_finite``, ``bid_contradictory`` (a minimum above its maximum, a demand outside its
        own range) or ``bid_without_cost`` (a coefficient that is not positive).
    """
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(bids).all(axis=1))
    safe = np.where(finite[:, None], bids, 0.0)

    def of(name: str) -> FloatArray:
        return bid_column(safe, name)

    ranges = (*RANGES, ("p_load0", "p_load_max"), ("p_load_min", "p_load0"))
    crossed = np.any([turned_round(of(low), of(high)) for low, high in ranges], axis=0)
    free = (of("alpha_p") <= 0.0) | (of("alpha_q") < 0.0) | (of("beta") <= 0.0)
    return [
        "bid_not_finite" if not ok else "bid_contradictory" if bad else "bid_without_cost" if no
        else None
        for ok, bad, no in zip(finite.tolist(), crossed.tolist(), free.tolist(), strict=True)
    ]  # fmt: skip


class BidBook:
    """The last good bid of every SMO.

    Parameters
    ----------
    names : sequence of str. The SMOs, each once.

    Attributes
    ----------
    bids : ndarray (n, len(BID_FIELDS)). Zero where none came yet.
    interval : int64 (n,). Interval each good bid was made for; -1 where none came yet.

    Raises ControllerError: Two SMOs have one name: their bids could not be told apart.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise ControllerError(
                    f"two market operators are called '{name}'",
                    where="market",
                    expected="a name of its own for each, so that bids can be told apart",
                )
            seen.add(name)
        self.bids: FloatArray = np.zeros((len(self.names), len(BID_FIELDS)))
        self.interval: IntArray = np.full(len(self.names), -1, dtype=np.int64)
        self._refused: dict[tuple[int, str], int] = {}

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which SMOs ever sent a good bid, (n,)."""
        return self.interval >= 0

    def take(
        self, smo: IntArray, interval: IntArray, bids: FloatArray, now: int
    ) -> list[tuple[str, str]]:
        """Take bids in; return what was refused or late as (event, name of the SMO).

        Parameters
        ----------
        smo : (m,)
        interval : int64 (m,). The interval each bid was made for.
        bids : (m, len(BID_FIELDS))
        now : int. The present interval. A fault is told once per SMO and interval.
        """
        events = []
        for i, (k, when, fault) in enumerate(
            zip(smo.tolist(), interval.tolist(), bid_faults(bids), strict=True)
        ):
            if fault is None and not 0 <= when <= now:
                fault = "bid_misdated"
            if fault is None:
                if when <= self.interval[k]:
                    continue  # a repetition, or overtaken by a newer one
                late = self.interval[k] >= 0 and when < now
                self.bids[k], self.interval[k] = bids[i], when
                fault = "bid_late" if late else None
            if fault is not None and self._refused.get((k, fault)) != now:
                self._refused[k, fault] = now
                events.append((fault, self.names[k]))
        return events
