"""The value of voltage support, and the bundled tariff of the thesis.

With the voltages as variables of their own, ``v = w + z i`` is a constraint with multipliers
lambda_V, one complex number per node. At the optimum they are the slope of the cost by a voltage
added at the node alone::

    lambda_V = d f / d v - E ((lambda_s - w4 xi) i)        lambda_I = z^H lambda_V

f has the voltage objective and the binding voltage limits; lambda_s is the slope of the cost by
active (real part) and reactive injection at the ports, w4 xi the price of losses, and E says
between which nodes a port lies.

Readings of the slides ("Accurately pricing different grid services"): the printed ``lambda_V = Y^T
lambda_I`` needs the conjugate transpose, as Y is complex; the printed ``df/dV = lambda_V`` drops
the second term, though the power balances depend on the voltage; the source bus has no such value,
as its voltage is given, so Y is that of the other nodes. V* = 1 + j0 in the tariff is far from any
voltage of phases b and c: here a voltage is taken in the frame of its own angle without port
currents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.dispatch import ComplexArray, PortClearing
from controllers.market.three_phase.objective import PortObjective
from grid_models.current_injection.model import PortNetwork


@dataclass(frozen=True)
class VoltageSupport:
    """What voltages are worth at an optimum.

    Attributes
    ----------
    slope : ndarray of complex (n,)
        lambda_V: the cost rises by ``Re(conj(slope) dv)`` per hour with a voltage dv added at the
        node; 0 at the source bus.
    worth : ndarray of float (n,)
        What one more pu of magnitude at the node alone saves per hour: ``-Re(slope)`` in the frame
        of the node's own angle. Positive where support is wanted.
    current_slope : ndarray of complex (m,). lambda_I of the ports.
    """

    slope: ComplexArray
    worth: FloatArray
    current_slope: ComplexArray


def voltage_support(
    objective: PortObjective, problem: PortProblem, clearing: PortClearing
) -> VoltageSupport:
    """Return the value of voltage support of a clearing of `problem`."""
    net, d, ports = objective.network, clearing.dispatch, clearing.port_prices
    size = np.abs(d.voltage)
    away = 2.0 * objective.voltage_price * (d.voltage - objective.v_set)
    # Multipliers are per pu of magnitude, along the voltage's own direction.
    limits = (clearing.v_high - clearing.v_low) * d.voltage / np.where(size > 0.0, size, 1.0)
    by_power = -(ports.p.total + 1j * ports.q.total)
    across = (objective.loss_price(problem) - by_power) * d.current
    if problem.fixed is not None:
        u = net.w_port + net.z_port @ d.current
        along_u = u / np.where(u != 0.0, np.abs(u), 1.0)
        across = across - (np.conj(by_power) * problem.fixed.slope(u)).real * along_u
    slope = away + limits + _between(net) @ across
    slope[net.source_nodes] = 0.0
    along = np.where(np.abs(net.w) > 0.0, net.w, 1.0)
    return VoltageSupport(
        slope=slope,
        worth=-(slope * along.conj()).real / np.abs(along),
        current_slope=np.asarray(net.z.conj().T @ slope),
    )


def _between(network: PortNetwork) -> FloatArray:
    """Return which nodes each port lies between, +1 and -1, (n, m); neutrals are no nodes."""
    at = {label: k for k, label in enumerate(network.nodes)}
    between = np.zeros((len(network.nodes), len(network.ports)))
    for j, label in enumerate(network.ports):
        bus, _, phases = label.rpartition(".")
        for phase, sign in zip(phases.split("-"), (1.0, -1.0), strict=False):
            between[at[f"{bus}.{phase}"], j] += sign
    return between


def bundled_tariff(
    objective: PortObjective, problem: PortProblem, clearing: PortClearing
) -> FloatArray:
    """Return the thesis' bundled tariff of load at each terminal, (t,), money per pu and hour.

    ``(lambda_P P + lambda_Q Q + worth dV) / P`` with the load's P and Q and ``dV = |Re V - V_set| +
    |Im V|``, V in the frame of the node's own angle without port currents; of a terminal the mean
    over its ports' nodes. NaN where there is no load.

    For comparison only: lambda_P and lambda_Q contain the voltage's worth already, so who paid this
    would pay for it twice. Books are settled with the parts of the prices.
    """
    net, d = objective.network, clearing.dispatch
    worth = voltage_support(objective, problem, clearing).worth
    own = d.voltage * np.conj(net.w) / np.where(np.abs(net.w) > 0.0, np.abs(net.w), 1.0)
    away = np.abs(own.real - np.abs(objective.v_set)) + np.abs(own.imag)
    # A port's nodes count equally, a terminal's ports by their shares.
    ends = np.abs(_between(net))
    of_ports = (ends / ends.sum(axis=0)).T @ (worth * away)
    bill = d.lmp_p * d.p_load + d.lmp_q * d.q_load + net.share.T @ of_ports
    none = np.full(net.size, np.nan)
    return np.asarray(np.divide(bill, d.p_load, out=none, where=d.p_load > 0.0))
