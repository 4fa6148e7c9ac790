"""The market of a site: its way to clear, who takes part, and on what network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.protocol import ControlSite
from controllers.market.agents.area_rules import area_names
from controllers.market.agents.bus_rules import bus_names
from controllers.market.agents.operator import OPERATOR
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.schedule import AnyTerms, MarketTerms, PortTerms
from controllers.market.agents.smo import by_bus
from controllers.market.clearing import (
    checked_options,
    clearing_class,
    is_by_areas,
    is_three_phase,
)
from controllers.market.model.participants import Costs, Participants, participants_of
from controllers.market.solvers.iteration import Iteration
from controllers.market.three_phase.areas import AreaMarket
from grid_models.branch_flow.model import BranchNetwork, branch_network
from grid_models.current_injection.model import PortNetwork

_THREE_PHASE_ONLY = ("import_min_kw", "import_max_kw", "critical_load_pu", "shed_price")


def site_participants(
    site: ControlSite, options: MarketOptions
) -> tuple[Participants, BranchNetwork | PortNetwork]:
    """Return who takes part in the market of a site, and its network."""
    network = site_network(site, options)
    costs = Costs(options.generator_cost, (options.load_cost[0], options.load_cost[1]))
    # All DERs of the feeder, whatever the federate commands: an SMO owns what is at its bus.
    table = participants_of(
        site.feeder,
        site.feeder.ders,
        costs,
        site.seed,
        network if isinstance(network, PortNetwork) else network.row_of,
        fixed_load_pu=options.fixed_load_pu,
        critical_load_pu=options.critical_load_pu,
    )
    known = by_bus(table.buses, options.load_costs, "load_costs", math.nan)[table.owner]
    cost = np.where(table.is_load & np.isfinite(known), known, table.cost)
    return replace(table, cost=cost), network


def site_network(site: ControlSite, options: MarketOptions) -> BranchNetwork | PortNetwork:
    """Return the network that a market of a site clears on.

    Raises ControllerError: An option is of the other kind of network, or there is no grid.
    """
    if not is_three_phase(named_clearing(options)):
        for name in _THREE_PHASE_ONLY:
            if getattr(options, name) != getattr(MarketOptions, name):
                raise ControllerError(
                    f"is not used by clearing '{options.clearing}'",
                    where=f"option {name}",
                    expected="clearing: three-phase",
                )
        return branch_network(site.feeder)
    if site.ports is None:
        raise ControllerError(
            "a three-phase market needs a grid", where="market", expected="a scenario with a grid"
        )
    return site.ports(None)


def site_terms(
    site: ControlSite,
    options: MarketOptions,
    table: Participants,
    network: BranchNetwork | PortNetwork,
) -> AnyTerms:
    """Return what the bids of a market are cleared with."""
    o = options
    common = (o.loss_price, o.import_price, site.v_min_pu, site.v_max_pu)
    if not isinstance(network, PortNetwork):
        return MarketTerms(network, *common)
    low, high = o.import_min_kw, o.import_max_kw
    return PortTerms(
        network,
        *common,
        fixed=network.loads.scaled(o.fixed_load_pu),
        import_min_mw=-math.inf if low is None else low / 1000.0,
        import_max_mw=math.inf if high is None else high / 1000.0,
        shed_price=math.inf if o.shed_price is None else o.shed_price,
        floor_mw=None if o.shed_price is None else table.per_smo(table.floor_mw) + table.fixed_p_mw,
    )


def named_clearing(options: MarketOptions) -> type[Any]:
    """Return the class of the clearing; its options are checked."""
    try:
        found = clearing_class(options.clearing)
    except ControllerError as error:
        error.where = f"option 'clearing': {error.where}"
        raise
    checked_options(found, options.clearing_options, "option 'clearing_options'")
    return found


def distributed_algorithm(options: MarketOptions) -> type[Iteration] | None:
    """Return the algorithm of a distributed clearing; None where the operator clears."""
    found = named_clearing(options)
    by_areas = is_by_areas(found)
    if not (issubclass(found, Iteration) or by_areas):
        return None
    if not options.trust_silent:
        raise ControllerError(
            f"is not used by clearing '{options.clearing}'",
            where="option trust_silent",
            expected="true, or a clearing at one place: central, three-phase",
        )
    return None if by_areas else found


def area_market(options: MarketOptions, network: BranchNetwork | PortNetwork) -> AreaMarket | None:
    """Return the areas of a clearing by areas; None of any other."""
    found = named_clearing(options)
    return found(network, **options.clearing_options) if is_by_areas(found) else None


def is_distributed(options: MarketOptions) -> bool:
    """Say whether agents of buses or areas clear by mail, and not the operator."""
    return distributed_algorithm(options) is not None or is_by_areas(named_clearing(options))


def agent_names(
    table: Participants,
    network: BranchNetwork | PortNetwork,
    algorithm: type[Iteration] | None,
    areas: AreaMarket | None,
) -> tuple[str, ...]:
    """Return the names of all agents of the controller."""
    buses = () if algorithm is None else bus_names(network.buses)
    return (OPERATOR, *table.names, *buses, *area_names(0 if areas is None else len(areas.states)))
