"""The market of one area: own costs, and penalties on what it shares with its neighbours.

Unknown are the powers x of the area's devices and the voltages v_b of its boundary nodes. The port
currents i follow from the area's own power flow, exactly. `AreaProblem.step` takes one step of

    min  own part of the market's objective + sum rho_v/2 |v_b - c_v|^2 + rho_i/2 |i_b - c_i|^2
    s.t. ranges of devices, the voltages and currents of the area's nodes and lines, the import's

by Newton's method reduced to (x, v_b): a quadratic program with the curvature of power flow and
limits, weighed by their multipliers, in its Hessian. Where the steps end the conditions of the
problem hold exactly, whatever the Hessian was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.objective import Devices, PortObjective
from controllers.market.three_phase.qp import Qp, solve_qp
from grid_models.current_injection.areas import PortArea
from grid_models.current_injection.power_flow import PortFlow

_SWEEPS = 30
_FLOW_PU = 1e-12
_KEPT = 1e-10
"""Excess of a limit that counts as none, in squared per unit."""
_MOST_ROUNDS = 60
_ELASTIC = 1e3
"""Price of a limit's excess over the largest price, where no step keeps all limits."""


class AreaProblem:
    """State and local problem of one area.

    Attributes
    ----------
    x : (4, t). Devices of all terminals as in `objective.Devices`; only the area's own count.
    zeta : complex (m + b,). Port currents, then changes of the boundary's voltages; see `PortArea`.
    i_b : complex (b,). Currents fed into the boundary nodes.
    """

    def __init__(self, area: PortArea, objective: PortObjective) -> None:
        self.area, self.objective = area, objective
        self.limits = Limits(area.network)
        net = area.network
        self._m, self._b = len(net.ports), len(area.boundary)
        # M of Re(zeta^H M zeta): import and the voltage objective.
        self._import_form = net.i_source.conj().T @ net.z[net.source_nodes]
        self._voltage_form = net.z.conj().T @ net.z if objective.voltage_price else 0.0
        self.zeta = np.zeros(self._m + self._b, dtype=np.complex128)
        self.x: FloatArray | None = None

    @property
    def v_b(self) -> ComplexArray:
        """Voltages of the boundary nodes."""
        return np.asarray(self.area.v_b0 + self.zeta[self._m :])

    def load(self, problem: PortProblem) -> None:
        """Take the problem of a clearing, of which the area reads its own terminals' bids."""
        self._problem, self.devices = problem, self.objective.devices(problem)
        self._fixed = problem.fixed and problem.fixed.at(self.area.ports)
        d, at = self.devices, self.area.terminals
        own = np.zeros(d.low.shape, dtype=bool)
        own[:, at] = d.high[:, at] > d.low[:, at]
        self._free = np.flatnonzero(own.ravel())
        self.x = np.clip(d.nominal() if self.x is None else self.x, d.low, d.high)
        ones = np.ones(len(d.low[0]))
        by_p, by_q = (d.pulled_back(unit * ones).ravel()[self._free] for unit in (1.0 + 0j, 1j))
        column = self._free % len(ones)
        self._by_x = self.area.network.share[:, column] * (by_p + 1j * by_q)
        self._side = np.zeros(self._free.size, dtype=int)
        self._evaluate()
        self.mu = np.zeros_like(self.at.excess)

    # --- state -----------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        """Solve the area's power flow at x and v_b, from the currents at hand."""
        net, m = self.area.network, self._m
        s = net.share @ self.devices.injection(self.x)
        base = net.w_port + net.z_port[:, m:] @ self.zeta[m:]
        inner = net.z_port[:, :m]
        i = self.zeta[:m]
        u = base + inner @ i
        live, fixed = net.w_port != 0.0, self._fixed
        s = s if fixed is None else s + fixed.nominal
        for _ in range(_SWEEPS):
            own = s if fixed is None else s - fixed.drawn(u)
            i = np.where(live, np.conj(own / np.where(live, u, 1.0)), 0.0)
            before, u = u, base + inner @ i
            if float(np.abs(u - before).max(initial=0.0)) < _FLOW_PU:
                break
        self.zeta = np.concatenate([i, self.zeta[m:]])
        self.i_b = self.area.i_b0 + self.area.i_b @ self.zeta
        s_import = net.source_power(self.zeta)
        left = float((self.v_b @ self.i_b.conj()).real)
        loss = s_import.real + float((u @ i.conj()).real) - left
        v = net.w + net.z @ self.zeta
        self.flow = PortFlow(self.zeta, u, v, np.zeros_like(i), s_import, loss)
        self.at = self.limits.values(self._problem, self.flow)

    @property
    def cost(self) -> float:
        """The area's part of the objective, money per hour; the devices of others cost nothing."""
        at, d = self.area.terminals, self.devices
        x = np.clip(np.zeros_like(self.x), d.low, d.high)
        x[2] = d.bids.p_load0
        rest = d.cost(x)
        x[:, at] = self.x[:, at]
        whole = self.objective.cost(self._problem, d, x, self.flow)
        return whole - rest

    # --- a step ----------------------------------------------------------------------------------

    def step(self, c_v: ComplexArray, c_i: ComplexArray, rho: FloatArray) -> float:
        """Take a Newton step; return the largest change of x and v_b, pu.

        Parameters
        ----------
        c_v, c_i : complex (b,). Centres of the penalties.
        rho : (2, b). Penalties on voltages and currents, money per hour and pu^2.
        """
        o, p, m, d = self.objective, self._problem, self._m, self.devices
        net, i_b = self.area.network, self.area.i_b
        bought = o.import_gradient(self.zeta)
        price, loss_price = o.import_price(p, self.flow.s_import.real), o.loss_price(p)
        own = (price + loss_price) * bought + o.voltage_gradient(self.flow.v)
        own += loss_price * (net.z_port.conj().T @ self.zeta[:m] - i_b.conj().T @ self.v_b)
        own[:m] += loss_price * self.flow.u
        own[m:] += rho[0] * (self.v_b - c_v) - loss_price * self.i_b
        own += i_b.conj().T @ (rho[1] * (self.i_b - c_i))
        along, jacobian = self._tangent()
        volts, lines = self.limits.pull(self.at, self.mu)
        limit = self.mu[-2] - self.mu[-1]
        # What injections at the ports are worth: the multipliers of the power flow.
        whole = own + volts + lines + limit * bought
        both = np.linalg.solve(jacobian.T, np.concatenate([whole[:m].real, whole[:m].imag]))
        self.worth = both[:m] + 1j * both[m:]
        form = (price + loss_price + limit) * self._import_form + self.limits.form(self.mu)
        form += o.voltage_price * self._voltage_form
        form[:m] += (loss_price - self.worth.conj())[:, None] * net.z_port
        form[m:] -= loss_price * i_b
        form[m:, m:] += np.diag(0.5 * rho[0])
        form += i_b.conj().T @ (0.5 * rho[1][:, None] * i_b)
        hessian = (along.conj().T @ ((form + form.conj().T) @ along)).real
        by_import = (bought.conj() @ along).real
        hessian += o.weights.generation * p.import_slope * np.outer(by_import, by_import)
        slope, nx = (along.conj().T @ own).real, self._free.size
        hessian[np.arange(nx), np.arange(nx)] += d.curvature.ravel()[self._free]
        slope[:nx] += d.gradient(self.x).ravel()[self._free]
        moved = self._quadratic(positive(hessian), slope, along, bought)
        x = self.x.ravel().copy()
        x[self._free] += moved[:nx]
        self.x = np.clip(x.reshape(d.low.shape), d.low, d.high)
        self.zeta[m:] += moved[nx : nx + self._b] + 1j * moved[nx + self._b :]
        self._evaluate()
        return float(np.abs(moved).max(initial=0.0))

    def _tangent(self) -> tuple[ComplexArray, FloatArray]:
        """Return the change of zeta with (x, v_b real, v_b imaginary), and the Jacobian's transpose."""
        net, m, b, nx = self.area.network, self._m, self._b, self._free.size
        i, u = self.zeta[:m], self.flow.u
        by_re = i.conj()[:, None] * net.z_port
        by_im = 1j * by_re
        if self._fixed is not None:
            size = np.where(u != 0.0, np.abs(u), 1.0)
            rises = (u.conj() / size)[:, None] * net.z_port
            slope = self._fixed.slope(u)[:, None]
            by_re, by_im = by_re + slope * rises.real, by_im - slope * rises.imag
        right = np.hstack([self._by_x, -by_re[:, m:], -by_im[:, m:]])
        by_re, by_im = by_re[:, :m] + np.diag(u), by_im[:, :m] - 1j * np.diag(u)
        dead = np.flatnonzero(u == 0.0)
        by_re[dead, dead], by_im[dead, dead] = 1.0, 1j
        matrix = np.block([[by_re.real, by_im.real], [by_re.imag, by_im.imag]])
        right[dead] = 0.0
        change = np.linalg.solve(matrix, np.vstack([right.real, right.imag]))
        below = np.hstack([np.zeros((b, nx)), np.eye(b), 1j * np.eye(b)])
        return np.vstack([change[:m] + 1j * change[m:], below]), matrix.T

    def _quadratic(
        self, hessian: FloatArray, slope: FloatArray, along: ComplexArray, bought: ComplexArray
    ) -> FloatArray:
        """Return the step of the quadratic program, and keep what binds."""
        d, free, b = self.devices, self._free, self._b
        wide = np.full(2 * b, np.inf)
        x = self.x.ravel()[free]
        low = np.concatenate([d.low.ravel()[free] - x, -wide])
        high = np.concatenate([d.high.ravel()[free] - x, wide])
        side = np.concatenate([self._side, np.zeros(2 * b, dtype=int)])
        rows = np.flatnonzero(self.mu > 0.0)
        binding = np.ones(rows.size, dtype=bool)
        penalty = _ELASTIC * (1.0 + float(np.abs(slope).max(initial=0.0)))
        by_import = (bought.conj() @ along).real
        for _ in range(_MOST_ROUNDS):
            matrix = (self.limits.gradients(self.at, rows, bought).conj() @ along).real
            qp = Qp(hessian, slope, low, high, matrix, -self.at.excess[rows])
            found = solve_qp(qp, side, binding, penalty)
            left = self.limits.predicted(self.at, along @ found.d, float(by_import @ found.d))
            left[rows] = -np.inf
            more = self.limits.worst_of_kinds(left, _KEPT)
            if not more.size:
                break
            side = found.side
            binding = np.append(found.mu > 0.0, np.ones(more.size, dtype=bool))
            rows = np.append(rows, more)
        self._side = found.side[: free.size]
        self.mu = np.zeros_like(self.mu)
        self.mu[rows] = found.mu
        return found.d


def positive(hessian: FloatArray) -> FloatArray:
    """Return the matrix, its curvatures turned upward where one points down."""
    hessian = 0.5 * (hessian + hessian.T)
    try:
        np.linalg.cholesky(hessian)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(hessian)
        floor = 1e-7 * float(np.abs(values).max(initial=1.0))
        hessian = (vectors * np.maximum(np.abs(values), floor)) @ vectors.T
    return np.asarray(hessian)
