"""Economic dispatch: agents with quadratic costs and limits, coupled by linear rows.

::

    min  sum_i  q_i x_i^2 / 2 + c_i x_i
    s.t. low_i <= x_i <= high_i,   A x = b  (rows with `equal`),   A x <= b  (the others)

One row of ones is the balance of a dispatch; rows of a network's sensitivities make it a DC or a
linear distribution OPF. With a price (multiplier) lambda of the rows the problem separates (paper:
tutorial on distributed optimisation in networked energy systems, "The invisible hand of prices"):
agent i answers with ``x_i(lambda) = clip(-(c_i + A_i' lambda) / q_i)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.core.mail import FloatArray, IntArray
from controllers.optimisation.problems.result import Measure, Reference, relative_gap


@dataclass(frozen=True, eq=False)
class Dispatch:
    """A separable quadratic program with coupling rows.

    Attributes
    ----------
    quadratic, linear : (n,). Costs q and c, q >= 0.
    low, high : (n,). Limits; infinite where there are none.
    rows : (m, n). A.
    right : (m,). b.
    equal : (m,). Which rows are equations.
    names : (n,). Of the agents.
    graph : Who are peers in algorithms without a coordinator.

    Raises ControllerError: Numbers that are not finite, a negative curvature, crossed limits, or
    rows that no point within the limits satisfies.
    """

    quadratic: FloatArray
    linear: FloatArray
    low: FloatArray
    high: FloatArray
    rows: FloatArray
    right: FloatArray
    equal: NDArray[np.bool_]
    names: tuple[str, ...]
    graph: Graph = field(repr=False)

    def __post_init__(self) -> None:
        n, m = len(self.names), len(self.right)
        shapes = {"quadratic": (n,), "linear": (n,), "low": (n,), "high": (n,), "rows": (m, n)}
        for name, shape in (shapes | {"right": (m,), "equal": (m,)}).items():
            if np.shape(getattr(self, name)) != shape:
                raise ControllerError(
                    f"'{name}' has shape {np.shape(getattr(self, name))}",
                    where="dispatch",
                    expected=f"{shape}",
                )
        limits_crossed = ~(self.low <= self.high)
        for name, bad, expected in (
            ("quadratic", ~((self.quadratic >= 0.0) & np.isfinite(self.quadratic)), "0 or more"),
            ("linear", ~np.isfinite(self.linear), "a finite number"),
            ("rows", ~np.isfinite(self.rows).all(axis=0), "finite numbers"),
            ("high", limits_crossed, "no less than 'low'"),
        ):
            if bad.any():
                i = int(np.argmax(bad))
                raise ControllerError(
                    f"'{name}' of '{self.names[i]}' is {np.asarray(getattr(self, name)).T[i]}",
                    where="dispatch",
                    expected=expected,
                )
        if not m:
            raise ControllerError(
                "it has no row, so that its agents have nothing to agree on",
                where="dispatch",
                expected="at least one coupling row",
            )
        self._refuse_out_of_reach()

    def _refuse_out_of_reach(self) -> None:
        """Refuse a row that no point within the limits satisfies."""
        up, down = np.maximum(self.rows, 0.0), np.minimum(self.rows, 0.0)
        with np.errstate(invalid="ignore"):  # 0 times infinity: no share in the row
            least = np.nan_to_num(up * self.low, nan=0.0, posinf=np.inf, neginf=-np.inf)
            least = (least + np.nan_to_num(down * self.high, nan=0.0, neginf=-np.inf)).sum(axis=1)
            most = np.nan_to_num(up * self.high, nan=0.0, posinf=np.inf, neginf=-np.inf)
            most = (most + np.nan_to_num(down * self.low, nan=0.0, posinf=np.inf)).sum(axis=1)
        slack = 1e-9 * np.maximum(1.0, np.abs(self.right))
        bad = (least > self.right + slack) | (self.equal & (most < self.right - slack))
        if bad.any():
            j = int(np.argmax(bad))
            raise ControllerError(
                f"row {j} asks for {self.right[j]:g}, the agents' limits allow {least[j]:g} to "
                f"{most[j]:g}",
                where="dispatch",
                expected="a problem with a feasible point",
            )

    @classmethod
    def balance(
        cls,
        quadratic: FloatArray,
        linear: FloatArray,
        low: FloatArray,
        high: FloatArray,
        demand: float,
        graph: Graph | None = None,
    ) -> Dispatch:
        """Return a dispatch whose only row is ``sum x = demand``."""
        n = len(quadratic)
        return cls(
            quadratic, linear, low, high, np.ones((1, n)), np.array([float(demand)]),
            np.array([True]), tuple(f"unit_{i}" for i in range(n)), graph or Graph.geometric(n, 0),
        )  # fmt: skip

    @property
    def kind(self) -> str:
        """Kind of problem, as algorithms are listed by it."""
        return "dispatch" if self.equal.all() else "inequality dispatch"

    @property
    def size(self) -> int:
        """Number of agents."""
        return len(self.names)

    @cached_property
    def row_scale(self) -> FloatArray:
        """What an error of each row is relative to, (m,).

        Its right-hand side, at least 1; less where the agents' limits allow the row only less, so
        that the cost of the error is small as well.
        """
        reach = np.maximum(np.abs(self.low), np.abs(self.high))
        with np.errstate(invalid="ignore"):  # 0 times infinity: no share in the row
            share = np.where(self.rows == 0.0, 0.0, np.abs(self.rows) * reach).sum(axis=1)
        return np.minimum(np.maximum(1.0, np.abs(self.right)), np.where(share > 0.0, share, 1.0))

    @cached_property
    def price_scale(self) -> float:
        """Size of a marginal cost: the median of |c| + q |x| at the limits where that is not 0."""
        reach = np.maximum(np.abs(self.low), np.abs(self.high))
        size = np.abs(self.linear) + self.quadratic * np.where(np.isfinite(reach), reach, 0.0)
        return float(np.median(size[size > 0.0])) if size.any() else 1.0

    @cached_property
    def curvature(self) -> FloatArray:
        """q, and for agents without any an estimate, (n,): the costs' size over the limits' width.

        It serves to choose penalties; where the limits are infinite they are taken to be the size
        of the largest right-hand side.
        """
        size = np.maximum(1.0, np.abs(self.right).max())
        width = np.where(np.isfinite(self.high - self.low), self.high - self.low, size)
        slope = np.abs(self.linear).max() or 1.0
        flat = slope / np.where(width > 0.0, width, size)
        return np.where(self.quadratic > 0.0, self.quadratic, flat)

    def refuse_flat(self, algorithm: str) -> None:
        """Refuse agents without curvature, whose answer to a price is not unique.

        Raises ControllerError: Some q is 0.
        """
        flat = np.flatnonzero(self.quadratic <= 0.0)
        if flat.size:
            raise ControllerError(
                f"the quadratic cost of '{self.names[flat[0]]}' is 0, so that its answer to a "
                "price is not unique",
                where=f"algorithm '{algorithm}'",
                expected="a positive quadratic cost, or an algorithm with a penalty, such as admm",
            )

    def part(self, at: IntArray) -> DispatchRows:
        """Return what some agents know: their own costs, limits and columns."""
        return DispatchRows(
            self.quadratic[at], self.linear[at], self.low[at], self.high[at],
            np.ascontiguousarray(self.rows[:, at].T), self.price_scale,
        )  # fmt: skip

    @cached_property
    def reference(self) -> Reference:
        """The central optimum (Clarabel).

        Raises ControllerError: There is none.
        """
        return _solve(self)

    def measure(self, answer: Mapping[str, FloatArray]) -> Measure:
        """Return the worth of an answer: `x` (n,) and, where known, `price` (m,) or (k, m)."""
        x = answer["x"]
        objective = self.objective(x)
        error = self.rows @ x - self.right
        error = np.where(self.equal, np.abs(error), np.maximum(error, 0.0))
        rows = float(np.max(error / np.maximum(1.0, np.abs(self.right)), initial=0.0))
        box = float(np.max(np.maximum(self.low - x, x - self.high), initial=0.0))
        dual, bound = np.nan, None
        if "price" in answer:
            price = np.atleast_2d(answer["price"]).mean(axis=0)
            price = np.where(self.equal, price, np.maximum(price, 0.0))
            dual, bound = self._dual(x, price)
        return Measure(
            objective=objective,
            gap=relative_gap(objective, self.reference.objective),
            infeasibility=max(rows, box),
            primal=rows,
            dual=dual,
            bound=bound,
        )

    def objective(self, x: FloatArray) -> float:
        """Return the cost of x (n,)."""
        return float((0.5 * self.quadratic * x + self.linear) @ x)

    def _dual(self, x: FloatArray, price: FloatArray) -> tuple[float, float | None]:
        """Return the largest step by which x is not its own answer, and the dual function."""
        slope = self.linear + self.rows.T @ price
        at_x = np.clip(x - (self.quadratic * x + slope), self.low, self.high)
        dual = float(np.max(np.abs(at_x - x), initial=0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            best = np.where(
                self.quadratic > 0.0,
                np.clip(-slope / self.quadratic, self.low, self.high),
                np.where(slope > 0.0, self.low, self.high),
            )
        best = np.where((self.quadratic == 0.0) & (slope == 0.0), 0.0, best)
        if not np.isfinite(best).all():
            return dual, None
        bound = float((0.5 * self.quadratic * best + slope) @ best - price @ self.right)
        return dual, bound


@dataclass(frozen=True, eq=False)
class DispatchRows:
    """Costs, limits and columns of some agents, arrays (rows,) and `column` (rows, m).

    price_scale : Of the problem.
    """

    quadratic: FloatArray
    linear: FloatArray
    low: FloatArray
    high: FloatArray
    column: FloatArray
    price_scale: float

    def answer(self, price: FloatArray, rows: IntArray | slice = slice(None)) -> FloatArray:
        """Return the cheapest x at a price (rows, m), (rows,); q > 0."""
        slope = self.linear[rows] + row_sum(self.column[rows] * price)
        x = -slope / self.quadratic[rows]
        return np.asarray(np.clip(x, self.low[rows], self.high[rows]))

    def proximal(
        self,
        price: FloatArray,
        target: FloatArray,
        rho: FloatArray | float,
        rows: IntArray | slice = slice(None),
    ) -> FloatArray:
        """Return argmin f(x) + price' A x + rho / 2 |A x - target|^2 within the limits, (rows,).

        price, target : (rows, m). rho : a number or (rows,).
        """
        column = self.column[rows]
        weight = rho * (column * column).sum(axis=1)
        slope = self.linear[rows] + (column * price).sum(axis=1)
        pull = rho * (column * target).sum(axis=1)
        x = (pull - slope) / (self.quadratic[rows] + weight)
        return np.asarray(np.clip(x, self.low[rows], self.high[rows]))

    def stationarity(
        self, x: FloatArray, value: FloatArray, rows: IntArray | slice = slice(None)
    ) -> FloatArray:
        """Return the slope of cost and price at x by which they could still fall, (rows,).

        It is relative to the largest of its terms q x, c and `value`, and of the problem's price
        scale, because all of them are 0 where a unit without cost sets the price.

        value : (rows,). A' price.
        """
        bend, linear = self.quadratic[rows] * x, self.linear[rows]
        slope = bend + linear + value
        held = np.where(slope > 0.0, x <= self.low[rows], x >= self.high[rows])
        size = np.maximum(np.maximum(np.abs(bend), np.abs(linear)), np.abs(value))
        return np.asarray(np.where(held, 0.0, np.abs(slope)) / np.maximum(size, self.price_scale))


def row_sum(values: FloatArray) -> FloatArray:
    """Return the sum of each row of (rows, m), (rows,); quick for one column."""
    return values[:, 0] if values.shape[1] == 1 else np.asarray(values.sum(axis=1))


def reachable(
    rows: FloatArray, right: FloatArray, low: FloatArray, high: FloatArray
) -> NDArray[np.bool_]:
    """Return which rows ``A x <= b`` some point within the limits violates, (m,).

    rows : (m, n). right : (m,). low, high : (n,).
    """
    ends = np.where(rows > 0.0, high, low)
    share = rows * np.where(rows == 0.0, 0.0, ends)  # infinite limits of no share do not count
    return np.asarray(share.sum(axis=1) > right)


def random_dispatch(
    n: int, *, condition: float = 1e4, coupling: int = 0, seed: int = 0
) -> Dispatch:
    """Return a dispatch of n agents whose curvatures span `condition`, at half of their capacity.

    A unit's capacity falls with its curvature, so that marginal costs at full power are alike.

    coupling : Number of further rows, inequalities with normal coefficients, of which about half
        bind at the optimum.
    """
    rng = np.random.default_rng(seed)
    quadratic = condition ** rng.random(n)
    high = rng.uniform(10.0, 30.0, n) / quadratic
    linear = rng.uniform(10.0, 20.0, n)
    demand = 0.5 * high.sum()
    plain = Dispatch.balance(quadratic, linear, np.zeros(n), high, demand, Graph.geometric(n, seed))
    if not coupling:
        return plain
    rows = rng.standard_normal((coupling, n)) / np.sqrt(n)
    right = rows @ plain.reference.x - np.where(np.arange(coupling) % 2, 0.01, -0.1)
    return Dispatch(
        quadratic, linear, np.zeros(n), high, np.vstack([plain.rows, rows]),
        np.append(plain.right, right), np.append([True], np.zeros(coupling, dtype=np.bool_)),
        plain.names, plain.graph,
    )  # fmt: skip


def _solve(problem: Dispatch) -> Reference:
    import clarabel
    from scipy import sparse

    n, m = problem.size, len(problem.right)
    bounded_low, bounded_high = np.isfinite(problem.low), np.isfinite(problem.high)
    order = np.concatenate([np.flatnonzero(problem.equal), np.flatnonzero(~problem.equal)])
    eye = sparse.eye_array(n, format="csr")
    matrix = sparse.vstack(
        [sparse.csr_array(problem.rows[order]), -eye[bounded_low], eye[bounded_high]]
    ).tocsc()
    right = np.concatenate(
        [problem.right[order], -problem.low[bounded_low], problem.high[bounded_high]]
    )
    equations = int(problem.equal.sum())
    cones = [clarabel.ZeroConeT(equations), clarabel.NonnegativeConeT(len(right) - equations)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    found = clarabel.DefaultSolver(
        sparse.diags_array(problem.quadratic).tocsc(),
        problem.linear,
        matrix,
        right,
        cones,
        settings,
    ).solve()
    if str(found.status) not in ("Solved", "AlmostSolved"):
        raise ControllerError(
            f"there is no optimum: {found.status}",
            where="dispatch",
            expected="a problem with a feasible point and a bounded cost",
        )
    price = np.empty(m)
    price[order] = np.array(found.z)[:m]
    x = np.clip(np.array(found.x), problem.low, problem.high)
    return Reference(problem.objective(x), x, price)
