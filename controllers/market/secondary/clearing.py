"""The secondary market of all operators, cleared in one batch, level after level.

1. Reliability: least ``sum [(P - P0)^2 + (Q - Q0)^2] / RS`` with the sums that were awarded.
2. Cost: least ``sum pay`` with ``0.25 cap P <= pay <= cap P``. Signs of P are fixed before, from
   the bid or else from level 1, so the least payment is linear: 0.25 cap for generation, cap for
   load. The budget, ``sum pay <= price_p P + price_q Q``, is dropped where no schedule keeps it.
3. Flexibility: least ``-sum t``, t the distance to the nearer end of the bid's range.
4. Disutility: least ``sum beta (x - x0)^2``.

Each later level keeps ``F <= F* + epsilon |F*| + 1e-6`` of the ones before. With the sum of an
operator given, payments fall with its generation alone, so levels 1 and 2 bound a sum of squares
and the generation in all; levels 2 to 4 are then searches over one or two multipliers
(`controllers.market.secondary.levels`). Source: thesis, slides of the secondary market.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.errors import NoDispatchError
from controllers.market.secondary.fallback import clear_by_cone
from controllers.market.secondary.first_level import (
    FLOOR_SHARE,
    SLACK,
    Prepared,
    by_operator,
    evaluate,
    prepare,
    start_prices,
)
from controllers.market.secondary.levels import Bounds, least_disutility, minimise_within_bound
from controllers.market.secondary.pools import Agents, Cells, Point, respond
from controllers.market.secondary.problem import SecondaryProblem, check_secondary

_NEAR = 1e-9
_Solve = Callable[[Cells, NDArray[np.int64]], "_Solved"]


@dataclass(frozen=True)
class SecondaryClearing:
    """Schedules of m agents (m,) and what is to be known of n operators (n,).

    Attributes
    ----------
    p, q : kW, kvar (m,). Scheduled injection of each agent.
    delta_p, delta_q : kW, kvar (m,). Flexibility that is left, in both directions.
    pay : money/h (m,)
        Payment of level 2: received where positive. Loads pay the cap, see `retail`.
    objectives : (n, 4). The optimum of each level.
    violation : (n,)
        The largest violation of a limit, a sum (kW, kvar), the budget (money/h) or the bound of a
        level, that one over its size where it is above 1.
    fallback : bool (n,)
        Solved by clarabel, because the batch failed; level 1 alone where clarabel failed, too.
    uplift : money/h (n,)
        Payments less the operator's revenue, where no schedule keeps the budget.
    short_p, short_q : kW, kvar (n,)
        The part of the target that is beyond the agents' ranges, with its sign.
    """

    p: FloatArray
    q: FloatArray
    delta_p: FloatArray
    delta_q: FloatArray
    pay: FloatArray
    objectives: FloatArray
    violation: FloatArray
    fallback: NDArray[np.bool_]
    uplift: FloatArray
    short_p: FloatArray
    short_q: FloatArray


@dataclass(frozen=True)
class _Solved:
    x: FloatArray  # (w, 3, n)
    nu: FloatArray  # (3, n)
    value: FloatArray  # (n,)
    ok: NDArray[np.bool_]

    def put(self, other: _Solved, rows: NDArray[np.int64]) -> None:
        for name in self.__dataclass_fields__:
            getattr(self, name)[..., rows] = getattr(other, name)


def clear_secondary(problem: SecondaryProblem) -> SecondaryClearing:
    """Return the schedules of all operators.

    The result of an operator does not depend on the others of the batch, to the last bit, nor on
    what was cleared before.

    Raises
    ------
    BidError, MarketError: A number cannot be cleared (`check_secondary`).
    """
    check_secondary(problem)
    x, objectives, ready, ok = _clear_batch(problem)
    result = _clearing(problem, ready, x, objectives)
    again = np.flatnonzero(~(ok & (result.violation <= SLACK)))
    if not again.size:
        return result
    m = len(problem.bids.owner)
    level_1, alone, *_ = _clear_batch(replace(problem, epsilon=0.0))
    for i in again:
        mine = np.flatnonzero(problem.bids.owner == i)
        both = np.concatenate((mine, m + mine))
        try:
            x[both], objectives[i] = clear_by_cone(problem, ready, int(i))
        except NoDispatchError:  # the schedule of level 1 there always is
            x[both], objectives[i] = level_1[both], alone[i]
    result = _clearing(problem, ready, x, objectives)
    result.fallback[again] = True
    return result


@np.errstate(divide="ignore", invalid="ignore")
def _clear_batch(
    problem: SecondaryProblem,
) -> tuple[FloatArray, FloatArray, Prepared, NDArray[np.bool_]]:
    """Return powers (2m,), objectives (n, 4), and which operators are solved (n,)."""
    ready, cells, first = prepare(problem)
    agents, epsilon = ready.agents, problem.epsilon
    one_pool = agents.pools(np.zeros(len(ready.generates), bool))
    if epsilon == 0:
        x = first.x[agents.slot, one_pool, agents.owner]
        return x, evaluate(problem, ready, x), ready, first.ok
    f1 = cells.deviation_cost(first.x)
    bound = f1 + epsilon * f1 + SLACK
    least, before, f2, ok2 = _level_2(problem, ready, cells, first, bound)

    def third(cells: Cells, rows: NDArray[np.int64]) -> _Solved:
        point, ok = minimise_within_bound(cells, bound[rows], start_prices(cells))
        return _Solved(point.x, point.nu, cells.inflexibility(point.x), ok)

    separate = least > before  # before: what level 1 generates; it is then kept at the least
    level3, separate = _with_least_generation(ready, least, separate, third)
    f3 = level3.value + _offset(agents)
    room = epsilon * np.abs(f3) + SLACK

    def fourth(cells: Cells, rows: NDArray[np.int64]) -> _Solved:
        base = respond(cells, cells.inverse_score, start_prices(cells))
        lowest = level3.value[rows]
        bounds = Bounds(bound[rows], lowest + room[rows], cells.deviation_cost(base.x), lowest)
        x, nu, ok = least_disutility(cells, bounds, base.nu)
        return _Solved(x, nu, lowest, ok)

    level4, separate = _with_least_generation(ready, least, separate, fourth)
    pools = agents.pools(~ready.generates & separate[agents.owner[: len(ready.generates)]])
    x = level4.x[agents.slot, pools, agents.owner]
    objectives = evaluate(problem, ready, x)
    objectives[:, 0], objectives[:, 1], objectives[:, 2] = f1, f2, f3
    return x, objectives, ready, first.ok & ok2 & level3.ok & level4.ok


def _level_2(
    problem: SecondaryProblem, ready: Prepared, cells: Cells, first: Point, bound: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Clear level 2.

    Returns what each operator must generate at least (-inf where that follows from the limits) and
    what it generates in level 1, F2, and which are solved; all (n,).
    """
    agents, m = ready.agents, len(ready.generates)
    owner = agents.owner[:m]
    both = np.zeros((2, problem.size), bool)
    both[ready.generates.astype(np.int64), owner] = True
    matters = both.all(axis=0) & (problem.price_cap > 0)
    gains = np.zeros_like(cells.x0)
    gains[agents.slot[:m], 0, owner] = ready.generates & matters[owner]
    point, ok = minimise_within_bound(cells, bound, first.nu, gains)

    def generated(x: FloatArray) -> FloatArray:
        return np.asarray((gains * x).sum(axis=0)[0])

    most = generated(point.x)
    flat = point.x[agents.slot[:m], 0, owner]
    f2 = by_operator(owner, ready.cost * flat, problem.size)
    slack = problem.epsilon * np.abs(f2)
    left = ready.revenue - f2
    slack = np.where(left < -SLACK, slack, np.clip(left, 0, slack)) + SLACK
    least = most - slack / ((1 - FLOOR_SHARE) * problem.price_cap)
    low = generated(cells.low)
    reach = ready.total[0] - (cells.high.sum(axis=0)[0] - generated(cells.high))
    binds = matters & (least > np.maximum(low, reach))
    return np.where(binds, least, -np.inf), generated(first.x), f2, ok


def _with_least_generation(
    ready: Prepared, least: FloatArray, separate: NDArray[np.bool_], solve: _Solve
) -> tuple[_Solved, NDArray[np.bool_]]:
    """Solve a level with generation at its least where `separate` (n,), else without that bound.

    Generation at its least is a pool of its own, separate from the loads. By convexity one of the
    two is the solution: the one without the bound where it generates enough. Operators for which
    the guess `separate` was wrong are solved the other way.

    Returns the solution, and where generation is separate.
    """
    agents, m = ready.agents, len(ready.generates)
    owner = agents.owner[:m]

    def arranged(separate: NDArray[np.bool_]) -> Cells:
        pools = agents.pools(~ready.generates & separate[owner])
        total = ready.total.copy()
        total[0] = np.where(separate, least, total[0])
        total[1] = np.where(separate, ready.total[0] - least, 0.0)
        return agents.cells(pools, total)

    def enough(solved: _Solved, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        x = np.zeros((len(solved.x), len(separate)))
        x[:, rows] = solved.x[:, 0]
        got = by_operator(owner, x[agents.slot[:m], owner] * ready.generates, len(separate))
        return np.asarray(got[rows] >= least[rows] - _NEAR)

    every = np.arange(len(separate))
    solved = solve(arranged(separate), every)
    holds = np.where(separate, solved.nu[0] >= solved.nu[1], enough(solved, every))
    wrong = np.flatnonzero(~holds)
    if wrong.size:
        other = solve(arranged(~separate).take(wrong), wrong)
        # The bound may be dropped only where the solution without it generates enough.
        better = ~separate[wrong] | enough(other, wrong)
        taken = wrong[better]
        kept = np.flatnonzero(better)
        solved.put(
            _Solved(other.x[..., kept], other.nu[:, kept], other.value[kept], other.ok[kept]), taken
        )
        separate = separate.copy()
        separate[taken] = ~separate[taken]
    return solved, separate


def _offset(agents: Agents) -> FloatArray:
    """Return F3 less `Cells.inflexibility`, (n,)."""
    inside = np.clip(agents.middle, agents.low, agents.high)
    lost = np.abs(inside - agents.middle) - agents.reach
    return by_operator(agents.owner, lost, agents.size)


def _clearing(
    problem: SecondaryProblem, ready: Prepared, x: FloatArray, objectives: FloatArray
) -> SecondaryClearing:
    """Return the result with what `x` (2m,) violates."""
    agents, m = ready.agents, len(ready.cost)
    value = evaluate(problem, ready, x)
    pools = agents.pools(np.zeros(m, bool))
    allowed = objectives[:, :3] + problem.epsilon * np.abs(objectives[:, :3]) + SLACK
    paid = value[:, 1] - ready.revenue
    dropped = objectives[:, 1] > ready.revenue + SLACK
    wrong = np.zeros((5, problem.size))
    wrong[:3] = (np.maximum(value[:, :3] - allowed, 0) / np.maximum(1, np.abs(allowed))).T
    wrong[3] = np.abs(agents.sums(x, pools) - ready.total).max(axis=0)
    np.maximum.at(wrong[4], agents.owner, np.maximum(agents.low - x, x - agents.high))
    least_paid = np.maximum(objectives[:, 1] - ready.revenue, 0)
    budget = np.where(dropped, 0, np.maximum(paid - least_paid - SLACK, 0))
    flexible = agents.reach - np.abs(x - agents.middle)
    return SecondaryClearing(
        p=x[:m],
        q=x[m:],
        delta_p=flexible[:m],
        delta_q=flexible[m:],
        pay=ready.cost * x[:m],
        objectives=objectives,
        violation=np.maximum(wrong.max(axis=0), budget),
        fallback=np.zeros(problem.size, bool),
        uplift=np.where(dropped, np.maximum(paid, 0), 0.0),
        short_p=problem.p_target - ready.total[0],
        short_q=problem.q_target - ready.total[2],
    )
