"""The market of one area: own costs, and a penalty on what it shares with its neighbours.

Unknown are the powers x of the area's devices and what it is given, see `PortArea`: voltages of
nodes that it does not own, currents at those that it does. The port currents follow from the area's
own power flow, exactly. `AreaProblem.step` takes one step of

    min  own part of the market's objective + 1/2 |y - c|^2
    s.t. ranges of devices, the voltages and currents of the area's nodes and lines, the import's

where y are the shared voltages and currents, scaled (`Scale`), by Newton's method reduced to x and
what is given: a quadratic program with the curvature of power flow and limits, weighed by their
multipliers, in its Hessian. Where the steps end the conditions of the problem hold exactly,
whatever the Hessian was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.objective import PortObjective
from controllers.market.three_phase.qp import Qp, solve_qp
from grid_models.current_injection.model import PortArea
from grid_models.current_injection.power_flow import PortFlow

_SWEEPS = 30
_FLOW_PU = 1e-12
_KEPT = 1e-10
"""Excess of a limit that counts as none, in squared per unit."""
_MOST_ROUNDS = 60
_ELASTIC = 1e3
"""Price of a limit's excess over the largest price, where no step keeps all limits."""


@dataclass(frozen=True)
class Scale:
    """Units of what is shared.

    ``y = (voltage (v + z j), current j)``, with z the impedance behind a shared node: then what
    its owner does to y and what the other does to y are nearly at right angles, and one hardly
    disturbs the other.

    Attributes
    ----------
    voltage, current : Square roots of penalties, (money per hour)^(1/2) per pu.
    """

    voltage: float
    current: float


class AreaProblem:
    """State and local problem of one area.

    Attributes
    ----------
    x : (4, t). Devices of all terminals as in `objective.Devices`; only the area's own count.
    zeta : complex (m + b,). Port currents and what the area is given; see `PortArea`.
    y : complex (2 b,). What is shared, scaled: voltages, then currents.
    """

    def __init__(self, area: PortArea, objective: PortObjective, scale: Scale) -> None:
        self.area, self.objective, self.scale = area, objective, scale
        self.limits = Limits(area.network)
        net = area.network
        self._m, self._b = len(net.ports), len(area.shared)
        self.y0 = np.concatenate([
            scale.voltage * (area.v0 + area.z @ area.j0), scale.current * area.j0,
        ])  # fmt: skip
        self._y = np.vstack([scale.voltage * (area.v + area.z @ area.j), scale.current * area.j])
        self._penalty_form = 0.5 * self._y.conj().T @ self._y
        # M of Re(zeta^H M zeta): import, the voltage objective, power given to neighbours.
        self._import_form = net.i_source.conj().T @ net.z[net.source_nodes]
        self._voltage_form = net.z.conj().T @ net.z if objective.voltage_price else 0.0
        self._sign = np.where(area.owns, 1.0, -1.0)
        self._left_form = (self._sign[:, None] * area.j).conj().T @ area.v
        self.zeta = np.zeros(self._m + self._b, dtype=np.complex128)
        self.x: FloatArray = np.zeros((0, 0))

    def load(self, problem: PortProblem) -> None:
        """Take the problem of a clearing, of which the area reads its own terminals' bids."""
        self._problem, self.devices = problem, self.objective.devices(problem)
        self._fixed = problem.fixed and problem.fixed.at(self.area.ports)
        d, at = self.devices, self.area.terminals
        own = np.zeros(d.low.shape, dtype=bool)
        own[:, at] = d.high[:, at] > d.low[:, at]
        self._free = np.flatnonzero(own.ravel())
        self.x = np.clip(self.x if self.x.size else d.nominal(), d.low, d.high)
        ones = np.ones(len(d.low[0]), dtype=np.complex128)
        by_p, by_q = (d.pulled_back(unit * ones).ravel()[self._free] for unit in (1.0, 1j))
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
        self.y = self.y0 + self._y @ self.zeta
        self._v = self.area.v0 + self.area.v @ self.zeta
        self._j = self._sign * (self.area.j0 + self.area.j @ self.zeta)
        s_import = net.source_power(self.zeta)
        left = float((self._v @ self._j.conj()).real)
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

    @property
    def prices(self) -> tuple[FloatArray, FloatArray]:
        """Prices of P and Q drawn at the area's terminals, as of the last step; (t,) each."""
        worth = self.area.network.share.T @ -self.worth
        return worth.real, worth.imag

    # --- a step ----------------------------------------------------------------------------------

    def step(self, centre: ComplexArray) -> float:
        """Take a Newton step; return the largest change of x and of what is given, pu.

        `centre`: complex (2 b,). Of the penalty.
        """
        o, p, m, d = self.objective, self._problem, self._m, self.devices
        net, area = self.area.network, self.area
        bought = o.import_gradient(self.zeta)
        price, loss_price = o.import_price(p, self.flow.s_import.real), o.loss_price(p)
        own = (price + loss_price) * bought
        if o.voltage_price:
            own += o.voltage_gradient(self.flow.v)
        left = area.v.conj().T @ self._j + area.j.conj().T @ (self._sign * self._v)
        own += loss_price * (net.z_port.conj().T @ self.zeta[:m] - left)
        own[:m] += loss_price * self.flow.u
        own += self._y.conj().T @ (self.y - centre)
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
        form += self._penalty_form - loss_price * self._left_form
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
        """Return the change of zeta with x and what is given, and the power flow's Jacobian."""
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
        return np.vstack([change[:m] + 1j * change[m:], below]), matrix

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
