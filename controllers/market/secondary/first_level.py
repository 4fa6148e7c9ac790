"""Level 1 of the secondary market, and what it fixes: sums, signs and least payments.

The deviation from the plan is ``nu RS``, up to the limits. Source: thesis, slides of the secondary
market; f1 as printed would be largest where it shall be least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.secondary.pools import POOLS, Agents, Cells, Point, respond
from controllers.market.secondary.problem import SecondaryProblem

SLACK = 1e-6
"""What every level may fall short of its optimum beside `epsilon`, in the unit of its objective."""
FLOOR_SHARE = 0.25
"""The lowest retail price over the cap (the reading of markets of the project)."""


@dataclass(frozen=True)
class Prepared:
    """What level 1 fixes for the next ones.

    Attributes
    ----------
    agents : Agents. With signs fixed.
    generates : bool (m,). The sign of each agent's active power.
    cost : money/kWh (m,). The least payment of one kW.
    total : ndarray (3, n). Sums to meet: active power, 0, reactive power.
    revenue : money/h (n,). What the operator has for the payments.
    """

    agents: Agents
    generates: NDArray[np.bool_]
    cost: FloatArray
    total: FloatArray
    revenue: FloatArray


@np.errstate(divide="ignore", invalid="ignore")
def prepare(problem: SecondaryProblem) -> tuple[Prepared, Cells, Point]:
    """Clear level 1 and fix the signs."""
    bids, n = problem.bids, problem.size
    m = len(bids.owner)
    agents = Agents.of(bids, n)
    pools = agents.pools(np.zeros(m, bool))
    total = np.zeros((POOLS, n))
    total[0], total[2] = problem.p_target, problem.q_target
    total = np.clip(total, agents.sums(agents.low, pools), agents.sums(agents.high, pools))
    cells = agents.cells(pools, total)
    first = respond(cells, cells.inverse_score, start_prices(cells))
    p = first.x[agents.slot[:m], 0, agents.owner[:m]]
    generates = np.where(bids.p_max <= 0, False, np.where(bids.p_min >= 0, True, p > 0))
    agents = agents.with_signs(generates)
    share = np.where(generates, FLOOR_SHARE, 1.0)
    ready = Prepared(
        agents=agents,
        generates=generates,
        cost=share * problem.price_cap[bids.owner],
        total=total,
        revenue=problem.price_p * total[0] + problem.price_q * total[2],
    )
    return ready, agents.cells(pools, total), first


def start_prices(cells: Cells) -> FloatArray:
    """Return the prices (3, n) at which the sums would be met if no limit bound."""
    soft = np.where(cells.high > cells.low, 0.5 / cells.inverse_score, 0).sum(axis=0)
    shortfall = cells.total - cells.x0.sum(axis=0)
    return np.asarray(np.divide(shortfall, soft, where=soft > 0, out=np.zeros_like(shortfall)))


def evaluate(problem: SecondaryProblem, ready: Prepared, x: FloatArray) -> FloatArray:
    """Return f1 to f4 of powers `x` (2m,) as they are defined, (n, 4)."""
    agents, bids = ready.agents, problem.bids
    away = (x - agents.x0) ** 2
    beta = np.concatenate((bids.beta_p, bids.beta_q))
    pay = np.concatenate((ready.cost, np.zeros(len(ready.cost)))) * x
    flexible = agents.reach - np.abs(x - agents.middle)
    terms = (agents.inverse_score * away, pay, -flexible, beta * away)
    return np.stack([by_operator(agents.owner, t, problem.size) for t in terms], axis=1)


def by_operator(owner: NDArray[np.int64], values: FloatArray, n: int) -> FloatArray:
    """Sum flat values by operator, (n,), in the order of the agents."""
    return np.bincount(owner, weights=values, minlength=n).astype(np.float64)
