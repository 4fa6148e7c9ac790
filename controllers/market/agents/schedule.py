"""From bids of SMOs to a schedule per SMO: units, weights and rows of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.reweighing import Weights, weighted
from controllers.market.clearing import clearing_class
from controllers.market.model.participants import BID_FIELDS
from controllers.market.model.prices import Flows, PriceModel, PriceParts, Prices
from controllers.market.model.problem import AnyProblem, Bids, ClearingProblem, PortProblem
from controllers.market.solvers.warm_start import power_flow
from controllers.market.three_phase.dispatch import PortDispatch
from controllers.market.three_phase.support import voltage_support
from grid_models.branch_flow.model import BranchNetwork
from grid_models.current_injection.model import PortLoads, PortNetwork

_COSTS = ("alpha_p", "alpha_q", "beta")


@dataclass(frozen=True)
class Schedule:
    """What was cleared; arrays (n,) per SMO, MW, Mvar, money per MWh.

    `p_load` and `p_gen` are positive, `prices` are the marginal prices at the bus in their parts;
    `p_import` is what the operator expects to draw from above, `cone_gap_pu` how far the
    relaxation is from exact, and whether that is exact enough to be a dispatch. A three-phase
    market also gives the prices at its ports, (m,), the load that is shed, (n,), and the worth of
    voltage support at each node, money per hour and pu (`three_phase.support`).
    """

    p_load: FloatArray
    q_load: FloatArray
    p_gen: FloatArray
    q_gen: FloatArray
    prices: Prices
    p_import: float
    cone_gap_pu: float
    exact: bool
    port_prices: Prices | None = None
    shed: FloatArray | None = None
    support: FloatArray | None = None
    replay_gap_kw: float = 0.0
    """Import by the power flow of a dispatch less that of the relaxation it was made with."""

    @property
    def price_p(self) -> FloatArray:
        """Price of active power."""
        return self.prices.p.total

    @property
    def price_q(self) -> FloatArray:
        """Price of reactive power."""
        return self.prices.q.total

    @property
    def p_net(self) -> FloatArray:
        """Net injection promised by each SMO, MW."""
        return self.p_gen - self.p_load

    @property
    def awards(self) -> FloatArray:
        """Load, generation, reactive generation and prices, (n, 5)."""
        parts = (self.p_load, self.p_gen, self.q_gen, self.price_p, self.price_q)
        return np.stack(parts, axis=1)


@dataclass(frozen=True)
class MarketTerms:
    """What a market's bids are cleared with: its network, prices in money per MWh, and the band."""

    network: BranchNetwork
    xi: float
    import_price: float
    v_min_pu: float = 0.95
    v_max_pu: float = 1.05
    import_slope: float = 0.0
    """Money per MWh that the import's price rises by per MW of import."""

    @property
    def mw(self) -> float:
        """Base power, MW."""
        return self.network.base_kva / 1000.0

    def problem(self, rows: IntArray, bids: FloatArray) -> ClearingProblem:
        """Return the problem with the bids (n, len(BID_FIELDS)) of SMOs on rows of the network."""
        return ClearingProblem(
            self.network,
            per_unit(on_rows(self.network.size, rows, bids), self.mw),
            xi=self.xi * self.mw,
            import_price=self.import_price * self.mw,
            v_min_pu=self.v_min_pu,
            v_max_pu=self.v_max_pu,
            import_slope=self.import_slope * self.mw**2,
        )


@dataclass(frozen=True)
class PortTerms:
    """What bids on a three-phase network are cleared with, as `MarketTerms`.

    Attributes
    ----------
    fixed : The feeder's own loads.
    import_min_mw, import_max_mw : Range of the import.
    shed_price : Money per MWh of load below the least that was bid.
    floor_mw : Least load of each SMO when load is shed, (n,); None: none is.
    """

    network: PortNetwork
    xi: float
    import_price: float
    v_min_pu: float = 0.95
    v_max_pu: float = 1.05
    import_slope: float = 0.0
    fixed: PortLoads | None = None
    import_min_mw: float = -math.inf
    import_max_mw: float = math.inf
    shed_price: float = math.inf
    floor_mw: FloatArray | None = None

    @property
    def mw(self) -> float:
        """Base power, MW."""
        return self.network.base_kva / 1000.0

    def problem(self, rows: IntArray, bids: FloatArray) -> PortProblem:
        """Return the problem with the bids (n, len(BID_FIELDS)) of SMOs at terminals."""
        mw, size = self.mw, self.network.size
        floor = self.floor_mw
        if floor is not None:
            floor = on_rows(size, rows, floor[:, None] / mw)[:, 0]
        return PortProblem(
            self.network,
            per_unit(on_rows(size, rows, bids), mw),
            xi=self.xi * mw,
            import_price=self.import_price * mw,
            v_min_pu=self.v_min_pu,
            v_max_pu=self.v_max_pu,
            import_slope=self.import_slope * mw**2,
            fixed=self.fixed,
            import_min=self.import_min_mw / mw,
            import_max=self.import_max_mw / mw,
            shed_price=self.shed_price * mw,
            p_load_floor=floor,
        )


AnyTerms = MarketTerms | PortTerms


def on_rows(size: int, rows: IntArray, bids: FloatArray) -> FloatArray:
    """Return the bids of SMOs (n, k) on their rows of a network, (size, k)."""
    table = np.zeros((size, bids.shape[1]))
    table[rows] = bids
    return table


def per_unit(bids: FloatArray, mw: float) -> Bids:
    """Return bids (n, len(BID_FIELDS)) in MW, Mvar and money per hour, on a base of `mw`."""
    columns = {}
    for i, f in enumerate(fields(Bids)):
        # Coefficients are money per (base power)^2, powers per unit of it.
        scale = mw**2 if f.name in _COSTS else 1.0 / mw
        columns[f.name] = bids[:, i] * scale
    return Bids(**columns)


class CentralScheduler:
    """Clears all bids at one place, one interval after the other.

    Parameters
    ----------
    rows : ndarray of int (n,). Of the SMOs in the network.
    clearing : str. See `controllers.market.clearing`; a class with ``clear(problem)``.
    options : mapping, optional. Of that class.

    Attributes
    ----------
    terms : MarketTerms or PortTerms
        Prices may change from one clearing to the next, the network may not.
    """

    def __init__(
        self,
        rows: IntArray,
        terms: AnyTerms,
        clearing: str = "central",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._rows, self.terms = rows, terms
        self._market = clearing_class(clearing)(terms.network, **(options or {}))

    def clear(self, bids: FloatArray, weights: Weights) -> Schedule:
        """Return the schedule of an interval.

        Parameters
        ----------
        bids : (n, len(BID_FIELDS))
        weights : Weights. Factors on the coefficients, one per SMO.

        Raises MarketError: There is no dispatch, or the bids are none.
        """
        rows, mw, n = self._rows, self.terms.mw, self.terms.network.size
        factors = Weights(np.ones(n), np.ones(n), weights.xi)
        factors.alpha[rows] = weights.alpha
        factors.beta[rows] = weights.beta
        bid: AnyProblem = self.terms.problem(rows, bids)
        problem = weighted(bid, factors)
        clearing = self._market.clear(problem)
        d = clearing.dispatch
        three_phase: dict[str, Any] = {}
        if isinstance(d, PortDispatch) and isinstance(problem, PortProblem):
            ports = clearing.port_prices
            every = np.arange(len(ports.p.energy))
            three_phase = {
                "port_prices": ports.at(every, per=mw),
                "shed": d.shed[rows] * mw,
                "support": voltage_support(self._market.objective, problem, clearing).worth,
                "replay_gap_kw": clearing.replay_gap_kw,
            }
        return Schedule(
            p_load=d.p_load[rows] * mw,
            q_load=d.q_load[rows] * mw,
            p_gen=d.p_gen[rows] * mw,
            q_gen=d.q_gen[rows] * mw,
            prices=clearing.prices.at(rows, per=mw),
            p_import=d.p_import * mw,
            cone_gap_pu=clearing.cone_gap_pu,
            exact=clearing.exactness.exact,
            **three_phase,
        )


RESULT_FIELDS = (
    "iterations", "p_load0", "p_load", "q_load", "p_gen", "q_gen", "price_p", "price_q", "v_worth",
    "l_worth",
)  # fmt: skip
"""What a bus tells the operator at the end of a clearing, per unit and money per pu."""


class ReportedSchedule:
    """Makes schedules from what the buses report, with the flows that physics gives them.

    Prices are the buses' own; their parts are the energy's, what the reported worth of limits makes
    of it (`PriceModel`), and losses, which are the rest.
    """

    def __init__(self, rows: IntArray, terms: MarketTerms) -> None:
        self._rows, self._terms = rows, terms
        self._prices = PriceModel(terms.network)

    def of(self, results: FloatArray) -> Schedule:
        """Return the schedule of reports (n buses, len(RESULT_FIELDS)).

        Raises MarketError: The set-points have no power flow with prices.
        """
        table = dict(zip(RESULT_FIELDS, results.T, strict=True))
        rows, mw, net = self._rows, self._terms.mw, self._terms.network
        flow = power_flow(net, table["p_load"] - table["p_gen"], table["q_load"] - table["q_gen"])
        # Only the parts of limits are used, which depend on no bid.
        problem = self._terms.problem(rows, np.zeros((rows.size, len(BID_FIELDS))))
        flows = Flows(flow.p_line, flow.q_line, flow.l_line, flow.v_sq)
        found = self._prices.prices(problem, flows, -table["v_worth"], table["l_worth"])
        parts = []
        for name, part in (("price_p", found.p), ("price_q", found.q)):
            rest = table[name] - part.energy - part.voltage - part.congestion
            parts.append(PriceParts(part.energy, rest, part.voltage, part.congestion))
        v_above = flow.v_sq[np.maximum(net.parent, 0)]
        gap = v_above * flow.l_line - flow.p_line**2 - flow.q_line**2
        return Schedule(
            p_load=table["p_load"][rows] * mw,
            q_load=table["q_load"][rows] * mw,
            p_gen=table["p_gen"][rows] * mw,
            q_gen=table["q_gen"][rows] * mw,
            prices=Prices(*parts).at(rows, per=mw),
            p_import=float(flow.p_line[0]) * mw,
            cone_gap_pu=float(np.abs(gap[1:]).max(initial=0.0)),
            exact=True,
        )
