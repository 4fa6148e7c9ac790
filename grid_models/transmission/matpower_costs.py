"""Generator costs of MATPOWER files (``gencost``): polynomials and piecewise linear functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.transmission.case_tables import CaseTable
from grid_models.transmission.model import FloatArray
from grid_models.transmission.opf_case import Costs
from grid_models.transmission.system import IntArray

COST_HEAD = {"model": "model", "startup": "", "shutdown": "", "n": "n"}
_FIRST = len(COST_HEAD)  # column of the first coefficient or point
_PIECEWISE, _POLYNOMIAL = 1, 2


def read_costs(table: CaseTable, matrix: FloatArray) -> Costs:
    """Return the costs of a matrix; columns after the last coefficient or point are not looked at.

    Parameters
    ----------
    table : Columns ``model`` and ``n`` of `matrix`, and ``bus`` of the generators.
    matrix : (n_rows, n_columns). Polynomials begin with the highest power; points are pairs of MW
        and USD/h.

    Raises TransmissionError: An unknown model, a row that is too short, a value that is not finite,
    or points that do not ascend or whose slopes fall.
    """
    model, n = table["model"], table["n"]
    piecewise = model == _PIECEWISE
    known = piecewise | (model == _POLYNOMIAL)
    table.refuse_value(~known, "model", "1 piecewise linear or 2 polynomial")
    whole = (n >= np.where(piecewise, 2, 1)) & (np.trunc(n) == n)
    table.refuse_value(~whole, "n", "a whole number, of points at least 2")
    width = n * np.where(piecewise, 2, 1)
    table.refuse(
        width > matrix.shape[1] - _FIRST,
        "n",
        "the row has fewer values than that",
        expected="as many coefficients, or pairs of MW and USD/h",
    )
    given = np.arange(matrix.shape[1] - _FIRST) < width[:, None]
    values = np.where(given, matrix[:, _FIRST:], 0.0)
    finite = np.isfinite(values).all(axis=1)
    table.refuse(~np.asarray(finite), "n", "a value after it is not finite", expected="numbers")
    values = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    count = n.astype(np.int64)
    x, y = (_points(values[:, at::2], count, piecewise) for at in (0, 1))
    _check_points(table, x, y)
    coefficients = _polynomials(values, np.where(piecewise, 0, count))
    line = piecewise & (count == 2)
    if line.any():  # two points are a polynomial of degree 1
        slope = (y[line, 1] - y[line, 0]) / (x[line, 1] - x[line, 0])
        coefficients[line, 0] = y[line, 0] - slope * x[line, 0]
        coefficients[line, 1] = slope
        x[line], y[line] = np.nan, np.nan
    last = np.isfinite(x).any(axis=0)
    return Costs(coefficients, x[:, last], y[:, last])


def _polynomials(values: FloatArray, count: IntArray) -> FloatArray:
    """Return coefficients in ascending powers, of rows that begin with the highest."""
    power = np.arange(max(2, count.max(initial=0)))
    at = count[:, None] - 1 - power
    return np.where(at >= 0, np.take_along_axis(values, np.maximum(at, 0), axis=1), 0.0)


def _points(values: FloatArray, count: IntArray, piecewise: NDArray[np.bool_]) -> FloatArray:
    given = piecewise[:, None] & (np.arange(values.shape[1]) < count[:, None])
    return np.where(given, values, np.nan)


def _check_points(table: CaseTable, x: FloatArray, y: FloatArray) -> None:
    dx, dy = np.diff(x), np.diff(y)
    descends = np.asarray((dx <= 0).any(axis=1))
    table.refuse(descends, "n", "the points do not ascend", expected="ascending MW")
    slope = dy / dx
    falls = np.asarray((np.diff(slope) < -1e-9 * np.abs(slope[:, :-1])).any(axis=1))
    table.refuse(falls, "n", "the slope of the cost falls", expected="a convex cost")
