"""Who takes part in the market of a run, and what a metered state costs them.

`PrimaryParties` are those of the controller ``market``, `LocalParties` those of ``local-market``.
Both have the operators' `buses` (n,), the names of the `ders` (m,), the operator of each (`owner`),
which of them are loads (`is_load`), and per operator the feeder's own load, the largest demand and
the least that is left without shedding: `fixed_mw`, `demand_mw`, `least_mw` (n,); `interval_s` is
how often operators dispatch, `redispatches` whether they let agents make up for others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.core.options import parse_options
from controllers.core.protocol import ControlSite
from controllers.market.agents.local.controller import site_table
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.options import MarketOptions
from controllers.market.agents.site import site_participants
from controllers.market.model.participants import aggregate, bid_column
from federates.errors import ScenarioError
from federates.scenario.schema import Scenario

CONTROLLERS = ("market", "local-market")
_SUPPLIED = 0.01
_LEAST_KW = 1e-3


@dataclass(frozen=True)
class Means:
    """Means over a window; loads and generation per operator, (n,); voltages over another one."""

    import_kw: float
    losses_kw: float
    load_mw: FloatArray
    generation_mw: FloatArray
    v_pu: FloatArray


ReadMean = Callable[[str], FloatArray]
"""From an output of the market to its mean over a window."""


class PrimaryParties:
    """Those of the controller ``market`` at a site."""

    redispatches = False

    def __init__(self, site: ControlSite, options: MarketOptions) -> None:
        self._options, self.interval_s = options, options.interval_s
        table = site_participants(site, options)[0]
        self._bids = aggregate(table)
        self.buses, self.owner, self.is_load = table.buses, table.owner, table.is_load
        self.ders = tuple(der.name for der in table.ders)
        self.fixed_mw = table.fixed_p_mw
        self.demand_mw = bid_column(self._bids, "p_load0")
        self.least_mw = bid_column(self._bids, "p_load_min")

    def cost(self, mean: Means, shed_mw: FloatArray, read: ReadMean) -> float:
        """Return the market's objective under the coefficients as they were bid, money/h."""
        bids, o = self._bids, self._options
        supplied = (mean.load_mw > _SUPPLIED * self.demand_mw) & (self.demand_mw > 0.0)
        disutility = bid_column(bids, "beta") * (mean.load_mw + shed_mw - self.demand_mw) ** 2
        return (
            0.5 * float(bid_column(bids, "alpha_p") @ mean.generation_mw**2)
            + float(disutility[supplied | (shed_mw > 0.0)].sum())
            + (o.shed_price or 0.0) * float(shed_mw.sum())
            + o.loss_price * mean.losses_kw / 1000.0
            + o.import_price * mean.import_kw / 1000.0
        )


class LocalParties:
    """Those of the controller ``local-market`` at a site."""

    def __init__(self, site: ControlSite, options: LocalMarketOptions) -> None:
        self._options, self.interval_s = options, options.interval_s
        self.redispatches = options.make_up
        table = site_table(site, options)
        smo_of_home = table.agent_smo[table.home_agent]
        self.buses, self.owner = table.buses, smo_of_home[table.der_home]
        self.ders = tuple(der.name for der in table.ders)
        self.is_load: NDArray[np.bool_] = np.array(
            [der.kind in ("house", "flexible_load", "vehicle") for der in table.ders]
        )
        least_kw = np.array([-der.p_min_kw for der in table.ders]) * self.is_load
        self.fixed_mw: FloatArray = table.fixed_kw / 1000.0
        sums = np.bincount(self.owner, least_kw, len(table.buses))
        self.demand_mw: FloatArray = self.fixed_mw + sums / 1000.0
        self.least_mw: FloatArray = np.zeros(len(table.buses))
        cost = table.draw(site.seed, "home cost", table.home_names, options.home_cost)
        count = np.bincount(table.home_agent, minlength=len(table.agent_names))
        self._agent_cost = np.bincount(table.home_agent, cost) / count

    def cost(self, mean: Means, shed_mw: FloatArray, read: ReadMean) -> float:
        """Return import, losses and what the agents' changes cost them, money/h.

        An agent's disutility is ``gamma (P - P0)^2``, gamma its homes' mean cost over its range.
        """
        width = read("sma_bid_max_kw") - read("sma_bid_min_kw")
        gamma = np.where(width > _LEAST_KW, self._agent_cost / np.maximum(width, _LEAST_KW), 0.0)
        disutility = gamma * (read("sma_set_kw") - read("sma_bid_kw")) ** 2
        price = float(read("import_price_per_kwh")[0])
        return (
            float(disutility.sum())
            + self._options.loss_price_per_kwh * mean.losses_kw
            + price * mean.import_kw
        )


Parties = PrimaryParties | LocalParties


def parties_of(scenario: Scenario, market: str, site: ControlSite) -> Parties:
    """Return who takes part in a scenario's market.

    Raises ScenarioError: No market has that name.
    """
    options = market_options(scenario, market)
    if isinstance(options, LocalMarketOptions):
        return LocalParties(site, options)
    return PrimaryParties(site, options)


def market_options(scenario: Scenario, market: str) -> MarketOptions | LocalMarketOptions:
    """Return the options of a scenario's market.

    Raises ScenarioError: No market has that name.
    """
    spec = scenario.federates.get(market)
    controller = getattr(spec, "controller", None)
    given = getattr(spec, "options", {})
    if controller == "market":
        return parse_options(MarketOptions, given, "market")
    if controller == "local-market":
        return parse_options(LocalMarketOptions, given, "local-market")
    raise ScenarioError(
        f"no market is called '{market}'",
        where=scenario.where("federates"),
        expected="a federate with 'controller: market' or 'controller: local-market'",
    )
