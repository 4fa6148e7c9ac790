"""What a secondary market clears: bids of agents, and what each operator was awarded for them.

Powers are in kW and kvar, injections positive; prices and payments are in money per kWh and money
per hour. Agents are flat arrays in ascending order of their operator. Source: thesis, slides of the
secondary market; docs/market-secondary.md says how each formula was read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.errors import BidError, MarketError

SCORE_FLOOR = 1e-3
"""The least resilience score that counts: an agent without any still takes a share."""
RANGES = (("p_min", "p_max"), ("q_min", "q_max"))


@dataclass(frozen=True)
class SecondaryBids:
    """The bids of m agents, arrays of shape (m,).

    Attributes
    ----------
    owner : int. Operator of each agent, 0 to n - 1, ascending.
    p0, p_min, p_max : kW. What the agent plans, and the range that it offers.
    q0, q_min, q_max : kvar. The same of reactive power.
    beta_p, beta_q : money/(kW² h), 0 or more. Disutility ``beta (P - P0)^2``.
    score : Resilience score RS in [0, 1]; below `SCORE_FLOOR` it counts as that.
    """

    owner: NDArray[np.int64]
    p0: FloatArray
    p_min: FloatArray
    p_max: FloatArray
    q0: FloatArray
    q_min: FloatArray
    q_max: FloatArray
    beta_p: FloatArray
    beta_q: FloatArray
    score: FloatArray


@dataclass(frozen=True)
class SecondaryProblem:
    """One interval of n operators, arrays of shape (n,).

    Attributes
    ----------
    p_target, q_target : kW, kvar. What the agents of an operator shall inject together.
    price_p, price_q : money/kWh, money/kvarh. What the operator is paid for them; of any sign.
    price_cap : money/kWh, 0 or more. The highest retail price; the lowest is a quarter of it.
    epsilon : float, 0 or more
        How far each level may fall short of its optimum for the sake of the next ones.
    """

    bids: SecondaryBids
    p_target: FloatArray
    q_target: FloatArray
    price_p: FloatArray
    price_q: FloatArray
    price_cap: FloatArray
    epsilon: float = 0.05

    @property
    def size(self) -> int:
        """Number of operators, n."""
        return len(self.p_target)


def check_secondary(problem: SecondaryProblem) -> None:
    """Raise for the first number that cannot be cleared.

    Raises
    ------
    BidError: An agent's number is not finite, its minimum is above its maximum, its cost is
        negative or its score outside [0, 1]; or a field has the wrong shape.
    MarketError: The same for an operator's number or `epsilon`.
    """
    bids, n = problem.bids, problem.size
    m = len(bids.owner)
    for field in fields(bids):
        values = getattr(bids, field.name)
        if np.shape(values) != (m,):
            raise BidError(
                f"shape {np.shape(values)}",
                bus=None,
                field=field.name,
                expected=f"({m},), one number per agent",
            )
    owner = np.asarray(bids.owner)
    if m and (owner.dtype.kind not in "iu" or owner[0] < 0 or owner[-1] >= n):
        raise BidError(
            f"operators of type {owner.dtype} up to {owner[-1]}",
            bus=None,
            field="owner",
            expected=f"whole numbers from 0 to {n - 1}",
        )
    _refuse(bids, "owner", np.diff(owner, prepend=owner[:1]) < 0, "ascending operators")
    for field in fields(bids)[1:]:
        _refuse(bids, field.name, ~np.isfinite(getattr(bids, field.name)), "a finite number")
    for low, high in RANGES:
        _refuse(bids, low, getattr(bids, low) > getattr(bids, high), f"{low} <= {high}")
    for name in ("beta_p", "beta_q"):
        _refuse(bids, name, getattr(bids, name) < 0, "0 or more")
    _refuse(bids, "score", (bids.score < 0) | (bids.score > 1), "0 to 1")
    _check_operators(problem)


def _refuse(bids: SecondaryBids, name: str, wrong: NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        j = int(np.argmax(wrong))
        agent = f"{j} (operator {bids.owner[j]})"
        value = getattr(bids, name)[j]
        raise BidError(f"is {value:g}", bus=None, agent=agent, field=name, expected=expected)


def _check_operators(problem: SecondaryProblem) -> None:
    for name in ("p_target", "q_target", "price_p", "price_q", "price_cap"):
        values = np.asarray(getattr(problem, name))
        where = f"secondary market, {name}"
        if values.shape != (problem.size,):
            shape = f"({problem.size},), one number per operator"
            raise MarketError(f"shape {values.shape}", where=where, expected=shape)
        wrong = ~np.isfinite(values)
        if name == "price_cap":
            wrong |= values < 0
        if wrong.any():
            i = int(np.argmax(wrong))
            expected = "0 or more" if name == "price_cap" else "a finite number"
            raise MarketError(f"of operator {i} is {values[i]:g}", where=where, expected=expected)
    if not 0 <= problem.epsilon < np.inf:
        raise MarketError(
            f"is {problem.epsilon}", where="secondary market, epsilon", expected="0 or more"
        )
