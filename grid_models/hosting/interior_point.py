"""Large sparse linear programmes, solved by interior points: PIQP, else clarabel.

R. Schwan, Y. Jiang, D. Kuhn, C. N. Jones: PIQP: A Proximal Interior-Point Quadratic Programming
Solver, CDC 2023. `warm_lp` is for small programmes that change a little; its vertices jump where a
plan is free, and for many days they jump without end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from grid_models.current_injection.model import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csc_array


@dataclass(frozen=True)
class Program:
    """``minimise cost @ v, equal v = right, less v <= most, low <= v <= high``."""

    cost: FloatArray
    equal: csc_array
    right: FloatArray
    less: csc_array
    most: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes
    ----------
    v : Variables. less_dual : Of `Program.less`, 0 at least. equal_dual : Of `Program.equal`.
    solver : Its name.
    """

    v: FloatArray
    less_dual: FloatArray
    equal_dual: FloatArray
    solver: str


def solve_program(program: Program, accuracy: float = 1e-5) -> Solution | None:
    """Return a solution by PIQP, else by clarabel; None where neither finds one.

    PIQP is several times as fast (`benchmarks/hosting_stochastic.py`), and now and then ends
    without a solution. Neither ends at a vertex, so what is free does not jump between solutions.
    """
    return by_piqp(program, accuracy) or by_clarabel(program, accuracy)


def by_piqp(p: Program, accuracy: float) -> Solution | None:
    """Return the solution by PIQP, or None."""
    import piqp
    from scipy.sparse import csc_matrix

    solver: Any = piqp.SparseSolver()
    settings = solver.settings
    settings.eps_abs = settings.eps_rel = accuracy
    settings.eps_duality_gap_abs = settings.eps_duality_gap_rel = accuracy
    settings.reg_lower_limit = 1e-9
    settings.max_iter = 250
    n = len(p.cost)
    lowest = np.full(len(p.most), -np.inf)
    solver.setup(
        csc_matrix((n, n)), p.cost, csc_matrix(p.equal), p.right,
        csc_matrix(p.less), lowest, p.most, p.low, p.high,
    )  # fmt: skip
    if solver.solve() != piqp.PIQP_SOLVED:
        return None
    found = solver.result
    return Solution(np.array(found.x), np.array(found.z_u), np.array(found.y), "PIQP")


def by_clarabel(p: Program, accuracy: float) -> Solution | None:
    """Return the solution by clarabel, or None."""
    import clarabel
    from scipy.sparse import csc_matrix, eye_array, vstack

    one = eye_array(len(p.cost), format="csr")
    below, above = np.isfinite(p.low), np.isfinite(p.high)
    matrix = vstack([p.equal, p.less, one[above], -one[below]], format="csc")
    right = np.concatenate([p.right, p.most, p.high[above], -p.low[below]])
    n_equal = len(p.right)
    cones = [clarabel.ZeroConeT(n_equal), clarabel.NonnegativeConeT(len(right) - n_equal)]
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = accuracy
    none = csc_matrix((len(p.cost), len(p.cost)))
    found = clarabel.DefaultSolver(none, p.cost, matrix, right, cones, settings).solve()
    if found.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        return None
    dual = np.array(found.z)
    less_dual = dual[n_equal : n_equal + len(p.most)]
    return Solution(np.array(found.x), less_dual, dual[:n_equal], "clarabel")
