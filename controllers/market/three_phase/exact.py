"""Exact central clearing of an unbalanced feeder: a Newton SQP over the devices' powers.

The network is eliminated: at given powers of the devices the AC power flow gives all voltages and
currents, and its Jacobian their derivatives. What is left has a variable per device. Each iteration
solves the power flow, then a quadratic program with the exact Hessian of the Lagrangian (without
the limits' part it zigzags) and with those limits only that its own solution would break.

Every iterate satisfies the power flow, so the solution is its own replay. It is a local optimum: a
certificate for the global one is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.market.model.errors import MarketError, NoDispatchError
from controllers.market.model.problem import PortProblem
from controllers.market.solvers.iteration import checked_positive
from controllers.market.three_phase.dispatch import ComplexArray, PortClearing
from controllers.market.three_phase.limits import Limits, LimitValues
from controllers.market.three_phase.objective import P_LOAD, SHED, PortObjective, check_problem
from controllers.market.three_phase.qp import Qp, QpSolution, solve_qp
from controllers.market.three_phase.result import clearing_at, flow_at
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.base.errors import PowerFlowError
from grid_models.current_injection.model import PortLoads, PortNetwork
from grid_models.current_injection.power_flow import PortFlow

TOLERANCE = 1e-8
ACCEPTED = 1e-5
"""Residual at which a solution that gets no better is 'almost solved'."""
_KEPT = 1e-9
"""Excess of a limit that counts as none, in squared per unit."""
_MOST_ITERATIONS = 60
_MOST_ROUNDS = 60
_HALVINGS = 12
_FLAT_LOW, _FLAT, _FLAT_HIGH = 1e-11, 1e-7, 1e-3
"""Least curvature of a step's model, relative to the largest: its range, and what it is at first.

More where steps along flat directions have to be cut short, less where they are taken in full.
"""


@dataclass(frozen=True)
class _Point:
    """Devices at x (4, t) and what follows from it."""

    x: FloatArray
    flow: PortFlow
    cost: float
    limits: LimitValues

    @property
    def excess(self) -> float:
        return float(np.maximum(self.limits.excess, 0.0).sum())


@dataclass(frozen=True)
class _Slopes:
    """First derivatives at a point; `gradient` (4, t) is the objective's by x."""

    sensitivity: Sensitivity
    p_import: ComplexArray
    gradient: FloatArray


@dataclass(frozen=True)
class _End:
    """Where a clearing ended and the next one starts: `side` is which ends of ranges bind."""

    at: _Point
    slopes: _Slopes
    mu: FloatArray
    side: NDArray[np.int_]
    status: str
    iterations: int


class ThreePhaseMarket:
    """Clears problems on one network, one after the other, each from the last one's solution.

    Parameters
    ----------
    weights, voltage_price, v_set_pu : See `objective.PortObjective`.
    tolerance : Of the optimality conditions, relative to the largest price; at most `ACCEPTED`.

    Raises MarketError: An option is none.
    """

    three_phase = True  # takes a `PortProblem`

    def __init__(
        self,
        network: PortNetwork,
        *,
        weights: Mapping[str, float] | None = None,
        voltage_price: float = 0.0,
        v_set_pu: float = 1.0,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.network = network
        self.objective = PortObjective(network, weights, voltage_price, v_set_pu)
        self.limits = Limits(network)
        self._tolerance = checked_positive("tolerance", tolerance, "clearing 'three-phase'")
        if tolerance > ACCEPTED:
            raise MarketError(
                f"tolerance is {tolerance:g}",
                where="clearing 'three-phase'",
                expected=f"at most {ACCEPTED:g}, of the largest price",
            )
        self._last: _End | None = None

    def clear(self, problem: PortProblem) -> PortClearing:
        """Return the least-cost dispatch of `problem` and its prices.

        Raises
        ------
        BidError, MarketError: The problem is none (`checks.check_bids`), or of another network.
        NoDispatchError
            No dispatch satisfies the limits; the message names the limit that stands out.
        """
        check_problem(problem, self.network)
        run = _Run(self.objective, self.limits, problem, self._tolerance)
        try:
            self._last = run.solve(self._last)
        except NoDispatchError:
            self._last = None
            raise
        end = self._last
        return clearing_at(
            self.objective,
            self.limits,
            problem,
            end.at.x,
            end.mu,
            (end.at.flow, end.slopes.sensitivity),
            status=end.status,
            iterations=end.iterations,
        )


class _Run:
    """One clearing."""

    def __init__(
        self, objective: PortObjective, limits: Limits, problem: PortProblem, tolerance: float
    ) -> None:
        self._objective, self._limits, self._problem = objective, limits, problem
        self._network: PortNetwork = objective.network
        self._tolerance = tolerance
        self._devices = d = objective.devices(problem)
        self._free = np.flatnonzero((d.high > d.low).ravel())
        self._mix = d.mix()[:, self._free]
        self._flat = _FLAT

    # --- points ----------------------------------------------------------------------------------

    def _point(self, x: FloatArray, near: PortFlow | None = None) -> _Point:
        """Raises PowerFlowError: There is no power flow at x."""
        start = None if near is None else near.i
        flow = flow_at(self._problem, self._devices.injection(x), start)
        cost = self._objective.cost(self._problem, self._devices, x, flow)
        return _Point(x, flow, cost, self._limits.values(self._problem, flow))

    def _start(self, last: _End | None) -> _Point:
        d = self._devices
        lightest = d.nominal()
        lightest[P_LOAD], lightest[SHED] = d.low[P_LOAD], d.high[SHED]
        guesses = [] if last is None else [np.clip(last.at.x, d.low, d.high)]
        for x in [*guesses, d.nominal(), lightest]:
            try:
                return self._point(x)
            except PowerFlowError:
                continue
        raise self._none("no power flow, even with the least load", "no power flow")

    def _slopes(self, at: _Point) -> _Slopes:
        objective, problem = self._objective, self._problem
        try:
            sensitivity = Sensitivity(self._network, at.flow, problem.fixed)
        except ArithmeticError:
            raise self._none("the power flow is at its voltage collapse", "collapse") from None
        worth = sensitivity.adjoint(objective.gradient(problem, at.flow))
        gradient = self._devices.gradient(at.x) + self._pulled(sensitivity, worth)
        return _Slopes(sensitivity, objective.import_gradient(at.flow.i), gradient)

    def _pulled(self, sensitivity: Sensitivity, worth: ComplexArray) -> FloatArray:
        return self._devices.pulled_back(sensitivity.of_terminals(worth))

    # --- iterations ------------------------------------------------------------------------------

    def solve(self, last: _End | None) -> _End:
        """Return the solution; `last` is another problem's on the same network."""
        at = self._start(last)
        mu = np.zeros_like(at.limits.excess) if last is None else last.mu
        side = np.zeros_like(at.x, dtype=int) if last is None else last.side
        stalled = 0
        for k in range(_MOST_ITERATIONS):
            slopes = self._slopes(at)
            residual = self._residual(at, slopes, mu)
            if residual <= self._tolerance:
                return _End(at, slopes, mu, side, "solved", k)
            step, rows, qp = self._step(at, slopes, mu, side)
            found = self._searched(at, step, rows, qp)
            mu = np.zeros_like(mu)
            mu[rows] = step.mu
            side = np.zeros(at.x.size, dtype=int)
            side[self._free] = step.side
            side = side.reshape(at.x.shape)
            if found is None:
                if self._flat > _FLAT_HIGH:
                    break
                continue
            stalled += int(step.elastic and found.excess > 0.9 * at.excess)
            at = found
            if stalled >= 2:
                break
        if at.excess > 1e-6 and residual > ACCEPTED:
            raise self._infeasible(at)
        if residual > ACCEPTED:
            raise self._none("the solver stopped without a dispatch", "stalled")
        return _End(at, self._slopes(at), mu, side, "almost solved", k)

    def _lagrangian(self, at: _Point, slopes: _Slopes, mu: FloatArray) -> ComplexArray:
        """Return the gradient by the currents of the limits times `mu`, (m,)."""
        volts, lines = self._limits.pull(at.limits, mu)
        return np.asarray(volts + lines + (mu[-2] - mu[-1]) * slopes.p_import)

    def _residual(self, at: _Point, slopes: _Slopes, mu: FloatArray) -> float:
        """Return how far the optimality conditions are from satisfied, relative to prices."""
        d = self._devices
        pull = slopes.sensitivity.adjoint(self._lagrangian(at, slopes, mu))
        worth = slopes.gradient + self._pulled(slopes.sensitivity, pull)
        worth = np.where(at.x - d.low < 1e-10, np.minimum(worth, 0.0), worth)
        worth = np.where(d.high - at.x < 1e-10, np.maximum(worth, 0.0), worth)
        worth = np.where(d.high > d.low, worth, 0.0)
        scale = 1.0 + float(np.abs(slopes.gradient).max(initial=0.0))
        bind = mu > 0.0
        slack = mu[bind] * at.limits.excess[bind]
        return max(
            float(np.abs(worth).max(initial=0.0)) / scale,
            float(np.abs(slack).max(initial=0.0)) / scale,
            float(np.maximum(at.limits.excess, 0.0).max(initial=0.0)) * (self._tolerance / _KEPT),
        )

    def _step(
        self, at: _Point, slopes: _Slopes, mu: FloatArray, side: NDArray[np.int_]
    ) -> tuple[QpSolution, IntArray, Qp]:
        """Return the quadratic program's solution, the limits that are its rows, and itself."""
        d, free = self._devices, self._free
        by_power = slopes.sensitivity.currents()
        hessian = self._hessian(at, slopes, mu, by_power)
        by_import = (np.conj(slopes.p_import) @ by_power).real
        low, high = (end.ravel()[free] - at.x.ravel()[free] for end in (d.low, d.high))
        gradient = slopes.gradient.ravel()[free]
        rows = np.flatnonzero(mu > 0.0)
        penalty = 1e3 * (1.0 + float(np.abs(gradient).max(initial=0.0)))
        guess, binding = side.ravel()[free], np.ones(len(rows), dtype=bool)
        for _ in range(_MOST_ROUNDS):
            slope = self._limits.gradients(at.limits, rows, slopes.p_import)
            matrix = np.asarray((np.conj(slope) @ by_power).real @ self._mix)
            qp = Qp(hessian, gradient, low, high, matrix, -at.limits.excess[rows])
            try:
                found = solve_qp(qp, guess, binding, penalty)
            except ArithmeticError:
                raise self._none("the solver stopped without a dispatch", "stalled") from None
            power = self._mix @ found.d
            change = by_power @ power
            left = self._limits.predicted(at.limits, change, float(by_import @ power))
            left[rows] = -np.inf
            more = self._limits.worst_of_kinds(left, _KEPT / 10.0)
            if found.elastic:
                more = np.flatnonzero(left > _KEPT / 10.0)
            if not more.size:
                return found, rows, qp
            guess = found.side
            binding = np.append(found.mu > 0.0, np.ones(more.size, dtype=bool))
            rows = np.append(rows, more)
        raise self._none("the solver stopped without a dispatch", "stalled")

    def _hessian(
        self, at: _Point, slopes: _Slopes, mu: FloatArray, by_power: ComplexArray
    ) -> FloatArray:
        """Return the Hessian of the Lagrangian by the free variables, made positive definite."""
        objective, problem = self._objective, self._problem
        gradient = objective.gradient(problem, at.flow) + self._lagrangian(at, slopes, mu)
        worth = slopes.sensitivity.adjoint(gradient)
        price = objective.import_price(problem, at.flow.s_import.real) + mu[-2] - mu[-1]
        form = objective.form(price, objective.loss_price(problem)) + self._limits.form(mu)
        form = form - np.conj(worth)[:, None] * self._network.z_port
        if problem.fixed is not None:
            form = form - self._load_form(problem.fixed, worth)
        form = form + form.conj().T
        pulled = form @ by_power
        bent = by_power.real.T @ pulled.real + by_power.imag.T @ pulled.imag
        if problem.fixed is not None:
            bent -= self._load_bend(problem.fixed, worth, at.flow, by_power)
        if problem.import_slope:
            by_import = (np.conj(slopes.p_import) @ by_power).real
            bent += objective.import_slope(problem) * np.outer(by_import, by_import)
        hessian = np.asarray(self._mix.T @ (bent @ self._mix))
        hessian[np.diag_indices_from(hessian)] += self._devices.curvature.ravel()[self._free]
        hessian = 0.5 * (hessian + hessian.T)
        try:
            np.linalg.cholesky(hessian)
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(hessian)
            floor = self._flat * float(np.abs(values).max(initial=1.0))
            hessian = (vectors * np.maximum(np.abs(values), floor)) @ vectors.T
        return np.asarray(hessian)

    def _load_form(self, fixed: PortLoads, worth: ComplexArray) -> ComplexArray:
        """Return M of ``Re(i^H M i)`` of what constant impedances draw, at its worth, (m, m)."""
        weight = (np.conj(worth) * fixed.s_z).real / fixed.u_nominal**2
        z = self._network.z_port
        return np.asarray((z.conj().T * weight) @ z)

    def _load_bend(
        self, fixed: PortLoads, worth: ComplexArray, flow: PortFlow, by_power: ComplexArray
    ) -> FloatArray:
        """Return the Hessian of what constant currents draw, at its worth, by power.

        It is ``|u|`` times a constant, and ``|u|`` bends across the direction of u only.
        """
        weight = (np.conj(worth) * fixed.s_i).real / fixed.u_nominal
        used = np.flatnonzero((weight != 0.0) & (flow.u != 0.0))
        u = flow.u[used]
        across = (np.conj(u)[:, None] * (self._network.z_port[used] @ by_power)).imag
        return np.asarray((across.T * (weight[used] / np.abs(u) ** 3)) @ across)

    def _searched(self, at: _Point, step: QpSolution, rows: IntArray, qp: Qp) -> _Point | None:
        """Return the first point on the step that is better by the merit function, or None."""
        weight = 2.0 * float(step.mu.max(initial=0.0)) + 1.0
        merit = at.cost + weight * at.excess
        allowed = merit + 1e-10 * (1.0 + abs(merit))
        best: _Point | None = None
        for k in range(_HALVINGS):
            new = self._moved(at, 0.5**k * step.d)
            if new is None:
                continue
            if k == 0 and new.cost + weight * new.excess > allowed:
                # A long step along a limit leaves it by the limit's curvature, and the merit
                # function would cut all such steps short: go back to the limit first.
                new = self._corrected(at, new, step, rows, qp) or new
            if new.cost + weight * new.excess <= allowed:
                self._flat *= 0.1 if k < 2 else 1.0 if k < 4 else 100.0
                self._flat = max(self._flat, _FLAT_LOW)
                return new
            best = best or new
        self._flat *= 100.0
        return best if best is not None and best.excess < _KEPT else None

    def _moved(self, at: _Point, d: FloatArray) -> _Point | None:
        """Return the point at a step of the free variables; None where there is no power flow."""
        x = at.x.ravel().copy()
        x[self._free] += d
        try:
            return self._point(
                np.clip(x.reshape(at.x.shape), self._devices.low, self._devices.high), at.flow
            )
        except PowerFlowError:
            return None

    def _corrected(
        self, at: _Point, new: _Point, step: QpSolution, rows: IntArray, qp: Qp
    ) -> _Point | None:
        """Return the point of the same program with limits as they are found to be at `new`."""
        limits = qp.rows @ step.d - new.limits.excess[rows]
        try:
            found = solve_qp(replace(qp, limits=limits), step.side, step.mu > 0.0, 1.0)
        except ArithmeticError:
            return None
        return None if found.elastic else self._moved(at, found.d)

    # --- errors ----------------------------------------------------------------------------------

    def _infeasible(self, at: _Point) -> NoDispatchError:
        worst = int(np.argmax(at.limits.excess))
        return self._none(
            f"no dispatch satisfies the limits; {self._limits.name(worst)} stands out",
            "infeasible",
        )

    def _none(self, what: str, status: str) -> NoDispatchError:
        return NoDispatchError(
            what,
            status=status,
            where="three-phase market",
            expected="wider voltage, current or import limits, more generation or more flexible "
            "load, and bids of ordinary size, per unit",
        )
