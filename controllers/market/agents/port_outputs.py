"""Outputs that only the operator of a three-phase market has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from controllers.market.agents.interval_accounts import SERVICES, IntervalAccounts
from controllers.market.agents.schedule import Schedule
from grid_models.current_injection.model import PortNetwork


def port_outputs(network: PortNetwork, names: Sequence[str]) -> tuple[Port, ...]:
    """Return the outputs.

    ``dlmp_per_mwh`` and ``dlmp_q_per_mwh`` (per Mvarh) are the prices at the network's ports,
    ``v_support_per_pu`` what one more pu of voltage at a node saves per hour; of each SMO (`names`)
    the price's part ``price_voltage_objective_per_mwh``, ``shed_kw``, and what it pays for every
    part of its price, ``pays_energy_money`` and so on, which add up to ``net_pays_money``.
    """
    names = tuple(names)
    return (
        Port("dlmp_per_mwh", "per_mwh", network.ports),
        Port("dlmp_q_per_mwh", "per_mwh", network.ports),
        Port("v_support_per_pu", "per_pu", network.nodes),
        Port("price_voltage_objective_per_mwh", "per_mwh", names),
        Port("shed_kw", "kW", names),
        *(Port(f"pays_{name}_money", "money", names) for name in SERVICES),
    )


def port_values(
    made: Schedule | None, accounts: IntervalAccounts, network: PortNetwork
) -> dict[str, FloatArray]:
    """Return their values under the schedule in force; zeros before the first."""
    paid = {f"pays_{name}_money": money for name, money in accounts.services.items()}
    none, at_ports = np.zeros(len(accounts.net_pays)), np.zeros(len(network.ports))
    ports = None if made is None else made.port_prices
    support = None if made is None else made.support
    shed = None if made is None else made.shed
    return paid | {
        "dlmp_per_mwh": at_ports if ports is None else ports.p.total,
        "dlmp_q_per_mwh": at_ports if ports is None else ports.q.total,
        "v_support_per_pu": np.zeros(len(network.nodes)) if support is None else support,
        "price_voltage_objective_per_mwh": (
            none if made is None else made.prices.p.voltage_objective
        ),
        "shed_kw": none if shed is None else 1000.0 * shed,
    }
