"""The three-phase market on a linearised network: what one or two quadratic programs give.

The port currents are linear in the powers around the last power flow, everything else is as in the
exact market: `controllers.market.three_phase`. What the method misses is the curvature of the
power flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.objective import PortObjective
from controllers.market.three_phase.qp import Qp, solve_qp
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.current_injection.power_flow import PortFlow, power_flow


@dataclass(frozen=True)
class LinearResult:
    """The model's own cost, and the largest error of its voltages against the AC power flow."""

    cost: float
    replay_pu: float


def linearised(problem: PortProblem, times: int) -> LinearResult:
    """Linearise at loads as wished and generators at rest, then at the power flow of the result."""
    objective = PortObjective(problem.network)
    x = objective.devices(problem).nominal()
    for _ in range(times):
        x, result = _once(objective, problem, x)
    return result


def _once(
    objective: PortObjective, problem: PortProblem, x0: FloatArray
) -> tuple[FloatArray, LinearResult]:
    net, devices, limits = problem.network, objective.devices(problem), Limits(problem.network)
    base = power_flow(net, net.share @ devices.injection(x0))
    free = np.flatnonzero((devices.high > devices.low).ravel())
    by_x = Sensitivity(net, base).currents() @ devices.mix()[:, free]
    price = objective.import_price(problem, base.s_import.real)
    form = objective.form(price, objective.loss_price(problem))
    hessian = (by_x.conj().T @ ((form + form.conj().T) @ by_x)).real
    p_import = objective.import_gradient(base.i)
    slope = (np.conj(p_import) @ by_x).real
    hessian += objective.import_slope(problem) * np.outer(slope, slope)
    hessian += np.diag(devices.curvature.ravel()[free])
    network_part = (np.conj(objective.gradient(problem, base)) @ by_x).real
    gradient = devices.gradient(x0).ravel()[free] + network_part
    low, high = (end.ravel()[free] - x0.ravel()[free] for end in (devices.low, devices.high))
    values, rows = limits.values(problem, base), np.empty(0, dtype=np.intp)
    side, binding = np.zeros(len(free), dtype=int), np.empty(0, dtype=bool)
    while True:
        matrix = (np.conj(limits.gradients(values, rows, p_import)) @ by_x).real
        qp = Qp(hessian, gradient, low, high, matrix, -values.excess[rows])
        found = solve_qp(qp, side, binding, 1e5)
        left = limits.predicted(values, by_x @ found.d, float(slope @ found.d))
        left[rows] = -np.inf
        more = limits.worst_of_kinds(left, 1e-10)
        if not more.size:
            break
        side, rows = found.side, np.append(rows, more)
        binding = np.append(found.mu > 0.0, np.ones(more.size, dtype=bool))
    x = x0.ravel().copy()
    x[free] += found.d
    x = x.reshape(x0.shape)
    i = base.i + by_x @ found.d
    u, s_import = net.w_port + net.z_port @ i, net.source_power(i)
    loss = float(s_import.real + (u * i.conj()).real.sum())
    model = PortFlow(i, u, net.w + net.z @ i, np.zeros_like(i), s_import, loss)
    cost = objective.cost(problem, devices, x, model)
    true = power_flow(net, net.share @ devices.injection(x))
    return x, LinearResult(cost, float(np.abs(true.v - model.v).max()))
