"""Prices of active and reactive power at every port of an unbalanced feeder, in their parts.

The objective and the binding limits are functions of the port currents i. What they answer to one
more pu drawn at a port is their gradient by i through the transposed Jacobian of the power flow,
so the price is a sum of as many answers as the gradient has terms:

energy
    the price of import, at every port;
losses
    the answer to the import's price and that of losses, less the energy;
voltage_objective
    the answer to the distance of voltages from their set-points;
voltage, congestion
    the answers to the multipliers of the voltage band, and of line currents and the import's limit.
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.prices import PriceParts, Prices
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray
from controllers.market.three_phase.limits import Limits, LimitValues
from controllers.market.three_phase.objective import PortObjective
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.current_injection.model import PortNetwork
from grid_models.current_injection.power_flow import PortFlow


def port_prices(
    objective: PortObjective,
    limits: Limits,
    problem: PortProblem,
    flow: PortFlow,
    at: LimitValues,
    sensitivity: Sensitivity,
    mu: FloatArray,
) -> Prices:
    """Return the prices of load at each port, (m,), money per pu and hour."""
    energy = objective.import_price(problem, flow.s_import.real)
    loss_price = objective.loss_price(problem)
    p_import = objective.import_gradient(flow.i)
    volts, lines = limits.pull(at, mu)
    terms: ComplexArray = np.stack(
        [
            energy * p_import + loss_price * objective.loss_gradient(flow),
            volts,
            lines + (mu[-2] - mu[-1]) * p_import,
            objective.voltage_gradient(flow.v),
        ],
        axis=1,
    )
    # Load takes out what injection puts in.
    found = -sensitivity.adjoint(terms)
    flat = np.full(len(found), energy)
    p, q = found.real, found.imag
    return Prices(
        PriceParts(flat, p[:, 0] - flat, p[:, 1], p[:, 2], p[:, 3]),
        PriceParts(np.zeros_like(flat), q[:, 0], q[:, 1], q[:, 2], q[:, 3]),
    )


def terminal_prices(network: PortNetwork, ports: Prices) -> Prices:
    """Return the prices of load at each terminal, (t,): those of its ports by their shares."""
    return Prices(ports.p.mixed(network.share.T), ports.q.mixed(network.share.T))
