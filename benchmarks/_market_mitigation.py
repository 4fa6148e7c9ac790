"""Mitigation on the market alone: clear, look at the import, bend the prices, clear again.

What the resilience manager does over mail, as a plain loop on one clearing problem: for studies of
the optimiser and for tests. `reweighing` has the law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controllers.core.mail import FloatArray
from controllers.market.agents.reweighing import (
    Search,
    Weights,
    floor_weights,
    stalled,
    weighted,
)
from controllers.market.model.problem import Bids, ClearingProblem, Dispatch

TOLERANCE = 0.0025
"""Of the import before the attack: restored is within a quarter of a per cent."""
MU_START = 0.01
"""First mu in units of the network's base power; it adapts from there."""
MAX_CLEARINGS = 12


class ClearsProblems(Protocol):
    """A market solver: anything with `clear`, such as `central.CentralMarket`."""

    def clear(self, problem: ClearingProblem) -> object:
        """Return a clearing; its attribute `dispatch` is the `Dispatch`."""
        ...


@dataclass(frozen=True)
class Mitigation:
    """What came of it.

    Attributes
    ----------
    restored : bool
        The import is within the tolerance of its target.
    dispatch : Dispatch
        Of the last clearing.
    weights : Weights
        Factors behind it, one per bus of the network.
    clearings : int
        How many clearings it took after the attack's own; a search for the floor is not counted.
    imports : tuple of float
        Import before mitigation and after each clearing, per unit.
    floor : float or None
        The least import that the bids allow, per unit; known only where the target was missed.
    """

    restored: bool
    dispatch: Dispatch
    weights: Weights
    clearings: int
    imports: tuple[float, ...]
    floor: float | None = None


def cleared(market: ClearsProblems, problem: ClearingProblem) -> Dispatch:
    """Return the dispatch of one clearing."""
    dispatch: Dispatch = market.clear(problem).dispatch  # type: ignore[attr-defined]
    return dispatch


def mitigate(
    market: ClearsProblems,
    problem: ClearingProblem,
    import_pre: float,
    scores: FloatArray,
    *,
    mu: float = MU_START,
    tolerance: float = TOLERANCE,
    max_clearings: int = MAX_CLEARINGS,
) -> Mitigation:
    """Bring the import of an attacked market back to what it was before.

    Parameters
    ----------
    market : ClearsProblems
    problem : ClearingProblem
        After the attack, with the original coefficients.
    import_pre : float
        Import before the attack, per unit.
    scores : ndarray (n,)
        Resilience scores of the operators that still answer, by row of the network; 0 elsewhere.
    mu : float
        First value, in units of the base power.
    tolerance : float
        Relative to `import_pre`.
    max_clearings : int

    Returns
    -------
    Mitigation
        Where the target is out of reach, or the steps ran out, with the floor.
    """
    n, limit = problem.network.size, tolerance * abs(import_pre)

    def floor_of() -> float:
        return cleared(market, weighted(problem, floor_weights(n))).p_import

    dispatch = cleared(market, problem)
    imports, used, floor = [dispatch.p_import], Weights.neutral(n), None
    search = Search(used, mu)
    while abs(imports[-1] - import_pre) > limit and len(imports) <= max_clearings:
        delta, answering = imports[-1] - import_pre, scores > 0.0
        first = len(imports) == 1
        search = (search.begin if first else search.answer)(delta, scores, answering)
        used = search.weights
        dispatch = cleared(market, weighted(problem, used))
        imports.append(dispatch.p_import)
        if floor is None and stalled(imports[-2], imports[-1], import_pre, limit):
            floor = floor_of()
        if floor is not None and imports[-1] - floor <= limit < imports[-1] - import_pre:
            break
    restored = abs(imports[-1] - import_pre) <= limit
    if not restored and floor is None:
        floor = floor_of()
    return Mitigation(restored, dispatch, used, len(imports) - 1, tuple(imports), floor)


def original_cost(
    bids: Bids, p_gen: FloatArray, p_load: FloatArray, losses: float, p_import: float,
    *, xi: float, import_price: float,
) -> float:  # fmt: skip
    """Return the thesis' cost (eq. 1) of a dispatch under the coefficients as they were bid.

    Parameters
    ----------
    bids : Bids
        Original bids; buses without an SMO (zero bids) cost nothing.
    p_gen, p_load : ndarray (n,)
        Dispatched or metered, per unit.
    losses, p_import : float
        Per unit.
    xi, import_price : float

    Returns
    -------
    float
        Money per hour.
    """
    generation = 0.5 * float(bids.alpha_p @ p_gen**2)
    curtailment = float(bids.beta @ (p_load - bids.p_load0) ** 2)
    return generation + curtailment + xi * losses + import_price * p_import
