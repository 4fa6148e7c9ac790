"""From a solution, set-points and multipliers, to a clearing with its power flow and prices."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.exactness import Exactness
from controllers.market.model.prices import Prices
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import PortClearing, PortDispatch
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.objective import (
    P_GEN,
    P_LOAD,
    Q_GEN,
    SHED,
    Devices,
    PortObjective,
)
from controllers.market.three_phase.prices import port_prices, terminal_prices
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.current_injection.model import ComplexArray
from grid_models.current_injection.power_flow import PortFlow, power_flow


def flow_at(problem: PortProblem, s: ComplexArray, start: ComplexArray | None = None) -> PortFlow:
    """Return the power flow of the terminals' injections, (t,), from currents (m,) nearby.

    Raises PowerFlowError: There is none.
    """
    net, fixed = problem.network, problem.fixed
    nominal = 0.0 if fixed is None else fixed.nominal
    return power_flow(net, net.share @ s + nominal, fixed, start)


def dispatch_at(
    devices: Devices, x: FloatArray, flow: PortFlow, prices: Prices, cost: float
) -> PortDispatch:
    """Return the dispatch of devices at x, (4, t), with their power flow."""
    p_load = x[P_LOAD] - x[SHED]
    return PortDispatch(
        p_gen=x[P_GEN],
        q_gen=x[Q_GEN],
        p_load=p_load,
        q_load=devices.reactive(p_load),
        shed=x[SHED],
        current=flow.i,
        voltage=flow.v,
        p_import=flow.s_import.real,
        q_import=flow.s_import.imag,
        losses=flow.loss,
        lmp_p=prices.p.total,
        lmp_q=prices.q.total,
        cost=cost,
    )


def clearing_at(
    objective: PortObjective,
    limits: Limits,
    problem: PortProblem,
    x: FloatArray,
    mu: FloatArray,
    state: tuple[PortFlow, Sensitivity] | None = None,
    *,
    status: str = "solved",
    iterations: int = 0,
) -> PortClearing:
    """Return the clearing of devices at x, (4, t), under the multipliers `mu` of `Limits`, (k,).

    `state`: Their power flow and its derivatives, where they are known.

    Raises PowerFlowError: There is no power flow.
    """
    net, devices, n = problem.network, objective.devices(problem), len(problem.network.nodes)
    if state is None:
        flow = flow_at(problem, devices.injection(x))
        state = flow, Sensitivity(net, flow, problem.fixed)
    flow, sensitivity = state
    at = limits.values(problem, flow)
    ports = port_prices(objective, limits, problem, flow, at, sensitivity, mu)
    prices = terminal_prices(net, ports)
    per_volt = 2.0 * np.abs(flow.v)
    return PortClearing(
        dispatch=dispatch_at(devices, x, flow, prices, objective.cost(problem, devices, x, flow)),
        prices=prices,
        port_prices=ports,
        status=status,
        exactness=Exactness(0.0, 0.0, net.nodes[0], 0.0),
        v_high=mu[:n] * per_volt,
        v_low=mu[n : 2 * n] * per_volt,
        line_limit=mu[2 * n : -2] * 2.0 * np.asarray(net.line_limit),
        import_limit=float(mu[-2] - mu[-1]),
        iterations=iterations,
    )
