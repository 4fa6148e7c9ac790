"""All atoms of a clearing in one loop: what the agents do over mail, without the mail.

For studies and benchmarks: the loop is looked at every tenth iteration and stops by the rule of
`controllers.market.solvers.stopping`, which needs all atoms at once. Agents have a rule of
neighbours' messages only (`controllers.market.agents.bus_agents`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.errors import MarketError
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.atoms import COPY, Atoms, P, Q, Scales
from controllers.market.solvers.iteration import WIDTH, Iteration, Plan
from controllers.market.solvers.stopping import DistributedClearing, Rule, Watch, diverged
from controllers.market.solvers.warm_start import Start, begin


def iterate(
    algorithm: type[Iteration],
    problem: ClearingProblem,
    start: Dispatch | Start | None,
    rule: Rule,
    *,
    scales: Scales | None = None,
    seed: int = 0,
    **options: Any,
) -> DistributedClearing:
    """Clear a problem by one of the distributed algorithms.

    Parameters
    ----------
    start : Dispatch or Start, optional. Default: `warm_start`.
    rule : Rule
    scales : Scales, optional. Sizes of the variables; the algorithm's own by default.
    seed : int. Of what atoms draw for themselves.
    **options. Of the algorithm.

    Raises ControllerError: The problem is none, or an option is out of range.
    Raises MarketError: The price of the import has a slope.
    """
    if problem.import_slope:
        raise MarketError(
            f"import_slope is {problem.import_slope:g}",
            where="distributed clearing",
            expected="0: only a central clearing takes a price of the import that rises with it",
        )
    atoms = Atoms.of(problem, scales or algorithm.scales)
    plan = Plan(atoms.norm(), problem.import_price, seed)
    state = algorithm(atoms, plan, **options)
    watch = Watch(problem, atoms, rule, messages_per_line=algorithm.messages_per_line)
    x, y = begin(problem, atoms, start)
    everyone = np.ones(atoms.m, dtype=bool)
    state.begin(everyone, x, y, child_starts(atoms, x, y))
    for k in range(1, rule.max_iterations + 1):
        for stage in (0, 1):
            state.half(stage, everyone, *exchanged(state))
        if watch.due(k) and (
            watch.may_stop(k, state.found_x, state.found_y) or diverged(watch.history)
        ):
            break
    return watch.finished(state.found_x, state.found_y)


def child_starts(atoms: Atoms, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return P, Q and the copy's dual of each child in a start of all atoms, (3, e)."""
    flows = (x * atoms.scale)[P : Q + 1]
    return np.vstack([flows, (y * atoms.row_scale)[COPY]])[:, atoms.child]


def exchanged(state: Iteration) -> tuple[FloatArray, FloatArray]:
    """Return what all atoms hear, as `below` and `above`, when every message arrives at once."""
    atoms = state.atoms
    above = np.zeros((WIDTH, atoms.m))
    above[:, atoms.child] = state.down()
    return state.up()[:, atoms.child], above
