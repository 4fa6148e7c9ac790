"""Linear programmes that change a little from solution to solution: HiGHS, kept warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_WEIGHTS, _DANTZIG, _STEEPEST_EDGE = "simplex_dual_edge_weight_strategy", 0, 2
_PERTURBED = "dual_simplex_cost_perturbation_multiplier"
_LIMIT, _MOST_ITERATIONS = "simplex_iteration_limit", 10_000


@dataclass(frozen=True)
class LpSolution:
    """A vertex that is optimal.

    Attributes
    ----------
    x : (n,). objective : cost @ x.
    reduced_cost : (n,). Change of the objective per unit of a column's active limit.
    row_dual : (r,). The same of the rows.
    """

    x: FloatArray
    objective: float
    reduced_cost: FloatArray
    row_dual: FloatArray


class WarmLp:
    """Minimise ``cost @ x``, ``low <= x <= high``, ``least <= matrix x <= most``, and further rows.

    Every solution starts from the last basis, by the dual simplex method: what was optimal stays
    dual feasible when limits move and rows are added. Duals are those of a vertex.

    Attributes
    ----------
    n_rows : Rows of `matrix`.
    """

    def __init__(
        self,
        cost: FloatArray,
        column_limits: tuple[FloatArray, FloatArray],
        matrix: csr_array,
        row_limits: tuple[FloatArray, FloatArray],
    ) -> None:
        import highspy

        self._api: Any = highspy
        lp: Any = self._api.HighsLp()
        lp.num_row_, lp.num_col_ = matrix.shape
        lp.col_cost_ = cost
        lp.col_lower_, lp.col_upper_ = column_limits
        lp.row_lower_, lp.row_upper_ = row_limits
        lp.a_matrix_.format_ = self._api.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr, matrix.indices
        lp.a_matrix_.value_ = matrix.data
        self._highs: Any = self._api.Highs()
        for name, value in (("output_flag", False), ("solver", "simplex"), ("threads", 1)):
            self._highs.setOptionValue(name, value)
        self._highs.passModel(lp)
        self.n_rows, self._n_columns = matrix.shape

    def limit_columns(self, at: NDArray[np.intp], low: FloatArray, high: FloatArray) -> None:
        """Replace the limits of some columns."""
        self._highs.changeColsBounds(len(at), at.astype(np.int32), low, high)

    def limit_rows(self, least: FloatArray, most: FloatArray) -> None:
        """Replace the limits of all rows of `matrix`."""
        at = np.arange(self.n_rows, dtype=np.int32)
        self._highs.changeRowsBounds(self.n_rows, at, least, most)

    def set_cost(self, at: NDArray[np.intp], cost: FloatArray) -> None:
        """Replace the cost of some columns."""
        self._highs.changeColsCost(len(at), at.astype(np.int32), cost)

    def replace_rows(self, matrix: csr_array, most: FloatArray) -> None:
        """Replace the further rows by ``matrix x <= most``; earlier ones keep their positions.

        `matrix`: At least as many rows as before; a row that was active stays active.
        """
        highs, first = self._highs, self.n_rows
        basis = highs.getBasis()
        before = highs.getNumRow() - first
        new = len(most) - before
        if before:
            highs.deleteRows(before, np.arange(first, first + before, dtype=np.int32))
        starts, columns = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        lowest = np.full(len(most), -np.inf)
        highs.addRows(len(most), lowest, most, matrix.nnz, starts, columns, matrix.data)
        if basis.valid:
            kept = self._api.HighsBasis()
            kept.valid, kept.alien = True, False
            kept.col_status = basis.col_status
            basic = [self._api.HighsBasisStatus.kBasic] * new
            kept.row_status = [*basis.row_status, *basic]
            highs.setBasis(kept)

    def solve(self) -> LpSolution | None:
        """Return an optimal vertex, or None where there is none."""
        highs = self._highs
        # Weights of steepest edge would be computed anew for each basis that is handed over, and
        # perturbed costs move what was optimal before.
        highs.setOptionValue(_WEIGHTS, _DANTZIG)
        highs.setOptionValue(_PERTURBED, 0.0)
        highs.setOptionValue(_LIMIT, _MOST_ITERATIONS)
        highs.run()
        optimal = self._api.HighsModelStatus.kOptimal
        if highs.getModelStatus() != optimal:
            # A bad basis, or nothing to find: from the start, with the weights that do not cycle.
            highs.clearSolver()
            highs.setOptionValue(_WEIGHTS, _STEEPEST_EDGE)
            highs.setOptionValue(_PERTURBED, 1.0)
            highs.setOptionValue(_LIMIT, 100 * _MOST_ITERATIONS)
            highs.run()
        if highs.getModelStatus() != optimal:
            return None
        found = highs.getSolution()
        return LpSolution(
            x=np.array(found.col_value),
            objective=float(highs.getInfo().objective_function_value),
            reduced_cost=np.array(found.col_dual),
            row_dual=np.array(found.row_dual),
        )
