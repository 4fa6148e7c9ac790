"""Area agents: their names and links, the layout of their mail, and what becomes of their results.

A message of an area to the operator has a row of `AREA_FIELDS` for each of its terminals, then what
its limits are worth. The operator sees them as one table of results: the terminals of the network,
then its limits in the order of `controllers.market.three_phase.limits.Limits`.
"""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link
from controllers.market.agents.distributed_operator import ORDER_FIELDS, DistributedOperator
from controllers.market.agents.schedule import RESULT_FIELDS, PortTerms, Schedule
from controllers.market.agents.smo import AWARD_FIELDS
from controllers.market.model.errors import MarketError
from controllers.market.model.participants import BID_FIELDS, Participants
from controllers.market.model.prices import PriceParts, Prices
from controllers.market.three_phase.areas import AreaMarket
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.objective import PortObjective
from controllers.market.three_phase.prices import port_prices, terminal_prices
from controllers.market.three_phase.result import flow_at
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.base.errors import PowerFlowError

AREA_FIELDS = (*RESULT_FIELDS[:-2], "shed", "worth")
"""Of a terminal, per unit and money per pu; a limit has `worth` only."""
_HEAD = 4


def area_names(k: int) -> tuple[str, ...]:
    """Return the names of area agents; the first holds the source."""
    return tuple(f"area_{a + 1}" for a in range(k))


class AreaMail:
    """The layout of the mail of area agents, the same for all instances.

    Attributes
    ----------
    market : AreaMarket. The areas, of which an instance uses those it hosts.
    home : (n,). Area of each SMO.
    places : int. Rows of the operator's table of results.
    """

    def __init__(self, market: AreaMarket, table: Participants) -> None:
        self.market, network = market, market.network
        areas = [state.area for state in market.states]
        self.areas, self.names, self._table = areas, area_names(len(areas)), table
        n, r, t = len(network.nodes), len(network.lines), network.size
        self.places = t + 2 * n + r + 2
        of_terminal = np.full(t, -1, dtype=np.int64)
        line = {label: i for i, label in enumerate(network.lines)}
        self._rows: list[IntArray] = []
        for a, area in enumerate(areas):
            of_terminal[area.terminals] = a
            lines = np.array([line[x] for x in area.network.lines], dtype=np.int64)
            whole = np.arange(2 * n + r, 2 * n + r + 2)[: 2 * area.network.source_nodes.size]
            limits = np.concatenate([area.nodes, n + area.nodes, 2 * n + lines, whole])
            self._rows.append(np.concatenate([area.terminals, t + limits]).astype(np.int64))
        self.home = of_terminal[table.rows]
        self._smos = [np.flatnonzero(self.home == a) for a in range(len(areas))]
        widths = [
            len(AREA_FIELDS) * x.terminals.size + rows.size - x.terminals.size
            for x, rows in zip(areas, self._rows, strict=True)
        ]
        self._result_width = max(widths)
        self._order_width = _HEAD + 2 * max(own.size for own in self._smos)
        self.shared_width = 1 + 4 * max(
            (int(np.bincount(x.neighbour).max()) for x in areas if x.neighbour.size), default=0
        )

    def pairs(self) -> list[tuple[int, int]]:
        """Return all (area, neighbour)."""
        return [(a, q) for a, x in enumerate(self.areas) for q in sorted(set(x.neighbour.tolist()))]

    def links(self, operator: str) -> dict[str, list[Link]]:
        """Return all links by what they carry, as `bus_rules.bus_links` does."""
        names, smos = self.names, self._table.names
        bid, award = 1 + len(BID_FIELDS), len(AWARD_FIELDS)
        at = [(smo, names[a]) for smo, a in zip(smos, self.home.tolist(), strict=True)]
        return {
            "shared": [
                Link(names[a], names[q], "shared", self.shared_width) for a, q in self.pairs()
            ],
            "order": [Link(operator, name, "order", self._order_width) for name in names],
            "result": [Link(name, operator, "result", self._result_width) for name in names],
            "bid": [Link(smo, area, "bid", bid) for smo, area in at],
            "award": [Link(area, smo, "award", award) for smo, area in at],
        }

    def result(self, a: int, terminals: FloatArray, worth: FloatArray) -> FloatArray:
        """Return an area's message: rows (t, len(AREA_FIELDS)) and the worth of its limits."""
        out = np.zeros(self._result_width)
        numbers = np.concatenate([terminals.ravel(), worth])
        out[: numbers.size] = numbers
        return out

    def results(
        self, area: IntArray, clearing: IntArray, messages: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray]:
        """Return messages as (row of the table, clearing, values) of `DistributedOperator.hear`."""
        rows, numbers, values = [], [], []
        for a, number, message in zip(area.tolist(), clearing.tolist(), messages, strict=True):
            t, wide = self.areas[a].terminals.size, len(AREA_FIELDS)
            table = np.zeros((self._rows[a].size, wide))
            table[:t] = message[: t * wide].reshape(t, wide)
            table[t:, -1] = message[t * wide : t * wide + self._rows[a].size - t]
            rows.append(self._rows[a])
            numbers.append(np.full(self._rows[a].size, number))
            values.append(table)
        if not rows:
            none = np.empty(0, dtype=np.int64)
            return none, none, np.empty((0, len(AREA_FIELDS)))
        return np.concatenate(rows), np.concatenate(numbers), np.concatenate(values)

    def orders(self, table: FloatArray) -> FloatArray:
        """Return the operator's orders, (places, len(ORDER_FIELDS)), as a message to each area."""
        out = np.zeros((len(self.areas), self._order_width))
        out[:, :_HEAD] = table[0, :_HEAD]
        at = ORDER_FIELDS.index("log_alpha")
        for a, own in enumerate(self._smos):
            factors = table[self._table.rows[own], at : at + 2]
            out[a, _HEAD : _HEAD + factors.size] = factors.ravel()
        return out

    def factors(self, a: int, order: FloatArray) -> FloatArray:
        """Return the factors on alpha and beta of an area's SMOs from an order, (n, 2)."""
        own = order[_HEAD : _HEAD + 2 * self._smos[a].size]
        return np.asarray(10.0 ** own.reshape(-1, 2))


class AreaOperator(DistributedOperator):
    """The operator of a clearing by areas: a `DistributedOperator` with the mail of areas.

    Parameters
    ----------
    patience : int. Steps of the controller after which a clearing without a result is given up.
    """

    def __init__(
        self,
        table: Participants,
        reported: PortReportedSchedule,
        layout: AreaMail,
        base_mw: float,
        patience: int,
    ) -> None:
        super().__init__(table, reported, layout.places, base_mw, patience)
        self._layout = layout

    def hear(self, bus: IntArray, clearing: IntArray, rows: FloatArray, step: int) -> None:
        """Take results of areas (positions `bus`) in."""
        super().hear(*self._layout.results(bus, clearing, rows), step)

    def orders(self) -> FloatArray:
        """Return what every area is told."""
        return self._layout.orders(super().orders())


class PortReportedSchedule:
    """Makes schedules from what the areas report, with the power flow of their set-points.

    Prices at terminals are the areas' own; their parts are those of the power flow and the reported
    worth of limits (`port_prices`), losses are the rest. Prices at ports are all of the power flow.
    """

    def __init__(self, rows: IntArray, terms: PortTerms, objective: PortObjective) -> None:
        self._rows, self._terms = rows, terms
        self._objective, self._limits = objective, Limits(terms.network)

    def of(self, results: FloatArray) -> Schedule:
        """Return the schedule of results, (places, len(AREA_FIELDS)).

        Raises MarketError: The set-points have no power flow.
        """
        rows, mw, net = self._rows, self._terms.mw, self._terms.network
        table = dict(zip(AREA_FIELDS, results[: net.size].T, strict=True))
        mu = results[net.size :, -1]
        problem = self._terms.problem(rows, np.zeros((rows.size, len(BID_FIELDS))))
        s = table["p_gen"] - table["p_load"] + 1j * (table["q_gen"] - table["q_load"])
        try:
            flow = flow_at(problem, s)
        except PowerFlowError as error:
            raise MarketError(str(error), where="results of areas") from None
        ports = port_prices(
            self._objective, self._limits, problem, flow, self._limits.values(problem, flow),
            Sensitivity(net, flow, problem.fixed), mu,
        )  # fmt: skip
        found = terminal_prices(net, ports)
        parts = []
        for name, part in (("price_p", found.p), ("price_q", found.q)):
            rest = part.losses + table[name] - part.total
            parts.append(
                PriceParts(part.energy, rest, part.voltage, part.congestion, part.voltage_objective)
            )
        return Schedule(
            p_load=table["p_load"][rows] * mw,
            q_load=table["q_load"][rows] * mw,
            p_gen=table["p_gen"][rows] * mw,
            q_gen=table["q_gen"][rows] * mw,
            prices=Prices(*parts).at(rows, per=mw),
            p_import=flow.s_import.real * mw,
            cone_gap_pu=0.0,
            exact=True,
            port_prices=ports.at(np.arange(len(net.ports)), per=mw),
            shed=table["shed"][rows] * mw,
        )
