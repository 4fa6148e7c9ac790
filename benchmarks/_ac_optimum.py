"""The AC optimum of an unbalanced feeder at one instant, for comparison with real-time control.

Variables are P and Q of the DERs. The network is eliminated: at given powers the three-phase power
flow gives all voltages, with loads that depend on them, and its Jacobian their derivatives; the
Hessian is exact. The programs are not convex, so the solution is a local optimum. Solver: the
primal-dual interior point method with slacks of Wang, Murillo-Sanchez, Zimmerman and Thomas (IEEE
Trans. Power Systems 22(3), 2007, doi:10.1109/TPWRS.2007.901301), inequalities only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.three_phase.dispatch import ComplexArray
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.base.errors import PowerFlowError
from grid_models.current_injection.model import BASE_KVA, PortLoads, PortNetwork
from grid_models.current_injection.power_flow import PortFlow, power_flow
from grid_models.feeder.model import Der

_MOST_ITERATIONS = 100
_TOLERANCE, _ACCEPTED = 1e-8, 1e-6
_BARRIER, _TO_BOUNDARY = 0.1, 0.9995
_TRIALS = ((0.1, 0.95), (0.3, 0.5), (0.3, 0.95))
"""Centring, and P at the start as a share of what is available: the next where one fails."""
_LEAST_RANGE = 1e-9
_LARGEST_PRICE = 1e9
"""Of a constraint, relative to the weights: without bound where the band cannot be held."""


@dataclass(frozen=True)
class Objective:
    """Weights of what is minimised, per MW: the feeder's own load, losses, curtailed power.

    `tracking` weighs the square of the import's distance from `import_kw`, per MW^2; `q_cost` the
    sum of squares of reactive powers, per Mvar^2: a small one makes the solution unique.
    `curtailment_sq` weighs the squares of the curtailed powers, per MW^2.
    """

    load: float = 0.0
    losses: float = 0.0
    curtailment: float = 0.0
    tracking: float = 0.0
    import_kw: float = 0.0
    q_cost: float = 1e-6
    curtailment_sq: float = 0.0


@dataclass(frozen=True)
class AcOptimum:
    """A solution: P and Q of the DERs, (n,), and what the power flow makes of them.

    `voltage` is complex, pu, (nodes,) in the network's order. `residual` is that of the optimality
    conditions.
    """

    p_kw: FloatArray
    q_kvar: FloatArray
    voltage: ComplexArray
    load_kw: float
    losses_kw: float
    curtailed_kw: float
    import_kw: float
    iterations: int
    residual: float


class NoOptimumError(ArithmeticError):
    """The band cannot be held, or the method did not converge."""


class AcProgram:
    """Programs on one network, one instant after the other.

    Parameters
    ----------
    network : Of the feeder at its held taps.
    ders : Inverters; each injects equally on its phases, within ``p^2 + q^2 <= kva^2``.
    v_min_pu, v_max_pu : Band of all nodes but the source's.
    fixed_p : Active powers are those available: only Q is chosen.
    """

    def __init__(
        self,
        network: PortNetwork,
        ders: Sequence[Der],
        v_min_pu: float = 0.95,
        v_max_pu: float = 1.05,
        *,
        fixed_p: bool = False,
    ) -> None:
        self.network, self.n, self._fixed_p = network, len(ders), fixed_p
        terminals = [network.terminal_of_der(der.name) for der in ders]
        self._terminals = np.array(terminals, dtype=np.intp)
        self._share = network.share[:, self._terminals]
        self._kva = np.array([der.kva for der in ders]) / BASE_KVA
        held = network.w != 0.0
        held[network.source_nodes] = False
        self._w, self._z = network.w[held], network.z[held]
        self._low, self._high = v_min_pu**2, v_max_pu**2
        at = network.source_nodes
        self._import_form = network.i_source.conj().T @ network.z[at]

    def solve(
        self, loads: PortLoads, p_available_kw: FloatArray, objective: Objective
    ) -> AcOptimum:
        """Return the optimum with these loads, and available powers (n,).

        Raises NoOptimumError: No powers hold the band, or none were found.
        """
        return _Run(self, loads, p_available_kw / BASE_KVA, objective).solve()


@dataclass(frozen=True)
class _Point:
    """Powers x = (p, q), their power flow, the constraints g(x) <= 0 and first derivatives.

    `by_i` is the gradient of the objective by the currents, `by_x` the currents' by x, `per_import`
    the objective's by the import.
    """

    x: FloatArray
    flow: PortFlow
    sensitivity: Sensitivity
    by_x: ComplexArray
    per_import: float
    by_i: ComplexArray
    gradient: FloatArray
    g: FloatArray
    rows: FloatArray


class _Run:
    """One program."""

    def __init__(
        self, program: AcProgram, loads: PortLoads, available: FloatArray, objective: Objective
    ) -> None:
        self._of, self._loads, self._available, self._objective = (
            program, loads, available, objective,
        )  # fmt: skip
        n, kva = program.n, program._kva
        self._p_high = np.minimum(available, kva)
        movable = np.full(n, not program._fixed_p) & (self._p_high > _LEAST_RANGE)
        self._free = np.flatnonzero(np.concatenate([movable, kva > _LEAST_RANGE]))
        # load = sum(p) - p_port and losses = p_import + p_port, so all is quadratic in currents.
        o = objective
        self._per_import, self._per_port = o.losses, o.losses - o.load
        self._per_p = o.load - o.curtailment

    # --- the program -----------------------------------------------------------------------------

    def _point(self, x: FloatArray, near: PortFlow | None) -> _Point:
        """Raises PowerFlowError: There is no power flow at x."""
        of, n, net = self._of, self._of.n, self._of.network
        s = of._share @ (x[:n] + 1j * x[n:])
        flow = power_flow(net, s, self._loads, None if near is None else near.i)
        sensitivity = Sensitivity(net, flow, self._loads)
        columns = np.concatenate([of._terminals, of._terminals + net.size])
        by_x = sensitivity.currents()[:, columns]
        o = self._objective
        off = float(flow.s_import.real) - o.import_kw / BASE_KVA
        per_import = self._per_import + 2.0 * o.tracking * off
        by_i = per_import * np.conj(net.source_gradient(flow.i)[0])
        by_i = by_i + self._per_port * (flow.u + net.z_port.conj().T @ flow.i)
        gradient = (by_i.conj() @ by_x).real
        gradient[:n] += self._per_p - 2.0 * o.curtailment_sq * (self._available - x[:n])
        gradient[n:] += 2.0 * o.q_cost * x[n:]
        limits = self._constraints(x, flow, by_x)
        return _Point(x, flow, sensitivity, by_x, per_import, by_i, gradient, *limits)

    def _constraints(
        self, x: FloatArray, flow: PortFlow, by_x: ComplexArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return g and its derivatives: upper and lower voltages, ratings, ranges of P."""
        of, n = self._of, self._of.n
        v = of._w + of._z @ flow.i
        size, slope = np.abs(v) ** 2, 2.0 * (v.conj()[:, None] * (of._z @ by_x)).real
        p, q, per_kva = x[:n], x[n:], 1.0 / of._kva
        circle = (p**2 + q**2) * per_kva**2 - 1.0
        room = [circle, (p - self._p_high) * per_kva, -p * per_kva]
        g = np.concatenate([size - of._high, of._low - size, *room])
        by_q = np.zeros((3 * n, n))
        by_q[:n] = np.diag(2.0 * q * per_kva**2)
        by_p = np.vstack([np.diag(each) for each in (2.0 * p * per_kva**2, per_kva, -per_kva)])
        return g, np.vstack([slope, -slope, np.hstack([by_p, by_q])])

    def _hessian(self, at: _Point, z: FloatArray) -> FloatArray:
        """Return the Hessian of the Lagrangian by x at multipliers z of g.

        With F(i) = u conj(i) + drawn(|u|) the injections and worth = dL/dF, it is
        ``Re(by_x^H (L_ii - Re(conj(worth) F_ii)) by_x)`` and what is in x itself.
        """
        of, n, net, flow = self._of, self._of.n, self._of.network, at.flow
        k, o = len(of._w), self._objective
        weight = z[:k] - z[k : 2 * k]
        v = of._w + of._z @ flow.i
        by_i = at.by_i + 2.0 * (of._z.conj().T @ (weight * v))
        worth = at.sensitivity.adjoint(by_i)
        form = at.per_import * of._import_form
        form = form + (self._per_port - worth.conj())[:, None] * net.z_port
        form = form + (of._z.conj().T * weight) @ of._z
        form = form - (net.z_port.conj().T * self._drawn_z(worth)) @ net.z_port
        pulled = (form + form.conj().T) @ at.by_x
        out = at.by_x.real.T @ pulled.real + at.by_x.imag.T @ pulled.imag
        out -= self._bend(at, worth)
        if o.tracking:
            by_import = (net.source_gradient(flow.i)[0] @ at.by_x).real
            out += 2.0 * o.tracking * np.outer(by_import, by_import)
        circle = 2.0 * z[2 * k : 2 * k + n] / of._kva**2
        out[np.diag_indices(2 * n)] += np.concatenate(
            [circle + 2.0 * o.curtailment_sq, circle + 2.0 * o.q_cost]
        )
        return np.asarray(0.5 * (out + out.T))

    def _drawn_z(self, worth: ComplexArray) -> FloatArray:
        return np.asarray((worth.conj() * self._loads.s_z).real / self._loads.u_nominal**2)

    def _bend(self, at: _Point, worth: ComplexArray) -> FloatArray:
        """Return the Hessian of what constant currents draw, at its worth: |u| bends across u."""
        weight = (worth.conj() * self._loads.s_i).real / self._loads.u_nominal
        used = np.flatnonzero((weight != 0.0) & (at.flow.u != 0.0))
        u = at.flow.u[used]
        across = (u.conj()[:, None] * (self._of.network.z_port[used] @ at.by_x)).imag
        return np.asarray((across.T * (weight[used] / np.abs(u) ** 3)) @ across)

    # --- the method ------------------------------------------------------------------------------

    def solve(self) -> AcOptimum:
        """Return the solution from the first start from which there is one."""
        for centring, share in _TRIALS:
            try:
                return self._from(centring, share)
            except NoOptimumError as error:
                reason = error
        raise reason

    def _from(self, centring: float, share: float) -> AcOptimum:
        """Return the solution. Slacks s and multipliers z stay positive: g(x) + s = 0."""
        free, n = self._free, self._of.n
        p = np.where(np.isin(np.arange(n), free), share * self._p_high, self._p_high)
        at = self._point(np.concatenate([p, np.zeros(n)]), None)
        rows = self._used_rows()
        s = np.maximum(-at.g[rows], 0.1)
        gamma = _BARRIER
        z = gamma / s
        for iteration in range(_MOST_ITERATIONS):
            g, slope = at.g[rows], at.rows[np.ix_(rows, free)]
            pull = at.gradient[free] + slope.T @ z
            residual = max(
                float(np.abs(pull).max(initial=0.0)) / (1.0 + float(z.max())),
                float(np.maximum(g, 0.0).max()),
                float(s @ z) / len(rows),
            )
            if residual < _TOLERANCE:
                return self._found(at, iteration, residual)
            if z.max() > _LARGEST_PRICE:
                raise NoOptimumError("no powers of the DERs hold the band")
            every = np.zeros(len(at.g))
            every[rows] = z
            matrix = self._hessian(at, every)[np.ix_(free, free)] + (slope.T * (z / s)) @ slope
            right = pull + slope.T @ ((gamma + z * g) / s)
            dx = -_solved(matrix, right)
            ds = -g - s - slope @ dx
            dz = -z + (gamma - z * ds) / s
            at, part = self._moved(at, dx, _longest(s, ds))
            s = s + part * ds
            z = z + _longest(z, dz) * dz
            gamma = centring * float(s @ z) / len(rows)
        if residual < _ACCEPTED:
            return self._found(at, iteration, residual)
        raise NoOptimumError(f"no optimum of the feeder was found: residual {residual:.1e}")

    def _used_rows(self) -> IntArray:
        """Return which constraints count: a P that cannot move has no range."""
        n, k = self._of.n, len(self._of._w)
        free = np.isin(np.arange(2 * n), self._free)
        return np.flatnonzero(np.concatenate([np.ones(2 * k, bool), free[n:], free[:n], free[:n]]))

    def _moved(self, at: _Point, dx: FloatArray, part: float) -> tuple[_Point, float]:
        """Return the point at the longest step with a power flow, at most `part` of dx."""
        for _ in range(20):
            x = at.x.copy()
            x[self._free] += part * dx
            try:
                return self._point(x, at.flow), part
            except (PowerFlowError, ArithmeticError):
                part *= 0.5
        raise NoOptimumError("the feeder has no power flow near the last point")

    def _found(self, at: _Point, iterations: int, residual: float) -> AcOptimum:
        n, flow = self._of.n, at.flow
        return AcOptimum(
            p_kw=BASE_KVA * at.x[:n],
            q_kvar=BASE_KVA * at.x[n:],
            voltage=flow.v,
            load_kw=BASE_KVA * float(flow.s_drawn.real.sum()),
            losses_kw=BASE_KVA * flow.loss,
            curtailed_kw=BASE_KVA * float((self._available - at.x[:n]).sum()),
            import_kw=BASE_KVA * flow.s_import.real,
            iterations=iterations,
            residual=residual,
        )


def _longest(values: FloatArray, change: FloatArray) -> float:
    """Return the longest step, at most 1, that leaves positive values positive."""
    falls = change < 0.0
    if not falls.any():
        return 1.0
    return min(1.0, _TO_BOUNDARY * float((values[falls] / -change[falls]).min()))


def _solved(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve, with as much added to the diagonal as makes the matrix positive definite."""
    from scipy.linalg import cho_factor, cho_solve

    scale, more = float(np.abs(matrix.diagonal()).max()), 0.0
    while True:
        try:
            factor = cho_factor(matrix + more * np.eye(len(matrix)), check_finite=False)
        except np.linalg.LinAlgError:
            more = max(10.0 * more, 1e-10 * scale)
            continue
        return np.asarray(cho_solve(factor, right, check_finite=False))
