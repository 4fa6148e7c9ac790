"""The primary market as a controller: one operator and one SMO per node with load or resources.

Bids go up and awards come down as mail, every step, as absolute state, so that lost, late and
repeated messages do little harm. Within an interval of ``interval_s / period_s`` steps::

    step 0       SMOs bid for the interval            (and again at every step)
    step gate    the operator clears what it has
    gate + 1     SMOs read their awards and begin to steer; the feeder follows at its next step

So an award is in force ``(gate + 1) * period_s`` after the beginning of its interval, plus the
response time of the devices. Re-clearings for the resilience manager happen at any step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.market.agents.books import ACCOUNT, Books
from controllers.market.agents.desk import ClearingDesk, Schedule
from controllers.market.agents.operator import ANSWER_HEAD, WEIGHTS_HEAD, Operator
from controllers.market.agents.options import MarketOptions, whole_steps
from controllers.market.agents.post import Sorter, letters, together
from controllers.market.agents.smo import AWARD_FIELDS, REPORT_FIELDS, SmoGroup
from controllers.market.model.parties import BID_FIELDS, Costs, PartyTable, party_table
from grid_models.base.errors import nearest_name
from grid_models.branch_flow.model import BranchNetwork, branch_network

OPERATOR = "operator"
_PARTS = ("losses", "voltage", "congestion")


def market_parties(site: ControlSite, options: MarketOptions) -> tuple[PartyTable, BranchNetwork]:
    """Return who takes part in the market of a site, and its network."""
    network = branch_network(site.feeder)
    costs = Costs(options.generator_cost, (options.load_cost[0], options.load_cost[1]))
    # All DERs of the feeder, whatever the federate commands: an SMO owns what is at its bus.
    table = party_table(
        site.feeder,
        site.feeder.ders,
        costs,
        site.seed,
        network.row_of,
        fixed_load_pu=options.fixed_load_pu,
    )
    return table, network


def report_links(names: Sequence[str], manager: str) -> list[Link]:
    """Return the links over which SMOs report to the resilience manager."""
    return [Link(name, manager, "report", len(REPORT_FIELDS)) for name in names]


def manager_links(n: int, operator: str, manager: str) -> tuple[Link, Link]:
    """Return the links operator to manager and manager to operator in a market of `n` SMOs."""
    answer = Link(operator, manager, "answer", len(ANSWER_HEAD) + 2 * n)
    return answer, Link(manager, operator, "weights", len(WEIGHTS_HEAD) + 2 * n)


class PrimaryMarket:
    """Controller ``market``; `controllers.market.agents.options.MarketOptions` are its options.

    Inputs: ``p_kw`` per DER as metered; with the option `follow_demand` also ``demand_pu`` per
    flexible load, its demand as a multiple of nominal. Outputs: ``p_set_kw`` per DER,
    ``q_set_kvar`` per generator, ``price_per_mwh`` per SMO; with the operator
    ``scheduled_import_kw``, ``cone_gap_pu``, the price's parts of each SMO besides the energy's
    (``price_losses_per_mwh``, ``price_voltage_per_mwh``, ``price_congestion_per_mwh``), and the
    books of the interval that ended last: ``net_pays_money`` of each SMO, the operator's
    ``account_money`` and, to tell one interval from the next, ``settled_intervals``.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._options = parse_options(MarketOptions, options, "market")
        self._table, network = market_parties(site, self._options)
        names = (OPERATOR, *self._table.names)
        for name in hosted:
            if name not in names:
                raise ControllerError(
                    f"no agent is called '{name}'",
                    where="market",
                    nearest=nearest_name(name, names),
                )
        period = site.period_s
        self._per_interval = whole_steps("interval_s", self._options.interval_s, period, 4)
        if self._options.gate > self._per_interval - 2:
            raise ControllerError(
                f"is {self._options.gate}",
                where="option gate",
                expected=f"at most {self._per_interval - 2}: two steps before the interval's end",
            )
        self._step = 0
        self._host_operator(site, network, OPERATOR in hosted)
        mine = [i for i, name in enumerate(self._table.names) if name in hosted]
        self._smos = SmoGroup(self._table, mine, self._options, period, site.seed)
        self._declare_links(mine)
        self._declare_ports(mine)

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the operator and the SMOs, one per node with load or resources."""
        table, _ = market_parties(site, parse_options(MarketOptions, options, "market"))
        return (OPERATOR, *table.names)

    def _host_operator(self, site: ControlSite, network: BranchNetwork, here: bool) -> None:
        self._operator: Operator | None = None
        if not here:
            return
        o = self._options
        desk = ClearingDesk(
            self._table,
            network,
            xi=o.loss_price,
            import_price=o.import_price,
            v_min_pu=site.v_min_pu,
            v_max_pu=site.v_max_pu,
        )
        silent = max(2, round(o.silent_after_s / site.period_s))
        self._operator = Operator(self._table, desk, o, silent)
        self._books = Books(self._table.names, o.import_price, site.period_s / 3600.0)

    def _declare_links(self, mine: Sequence[int]) -> None:
        names, manager = self._table.names, self._options.manager
        here = self._operator is not None
        up = [Link(name, OPERATOR, "bid", 1 + len(BID_FIELDS)) for name in names]
        down = [Link(OPERATOR, name, "award", len(AWARD_FIELDS)) for name in names]
        links_in = (up if here else []) + [down[i] for i in mine]
        links_out = [up[i] for i in mine] + (down if here else [])
        if manager is not None:
            answer, weights = manager_links(len(names), OPERATOR, manager)
            reports = report_links(names, manager)
            links_in += [weights] if here else []
            links_out += [reports[i] for i in mine] + ([answer] if here else [])
        self.links_in, self.links_out = tuple(links_in), tuple(links_out)
        at = {link.key: i for i, link in enumerate(self.links_out)}
        self._bid_links = [at[up[i].key] for i in mine]
        self._award_links = [at[link.key] for link in down] if here else []
        self._report_links = [at[reports[i].key] for i in mine] if manager is not None else []
        self._answer_links = [at[answer.key]] if manager is not None and here else []
        self._bid_mail = Sorter(self.links_in, "bid")
        self._award_mail = Sorter(self.links_in, "award")
        self._weights_mail = Sorter(self.links_in, "weights")

    def _declare_ports(self, mine: Sequence[int]) -> None:
        smos, table = self._smos, self._table
        loads = tuple(n for n, i in zip(smos.names, smos.ders, strict=True) if table.is_load[i])
        generators = tuple(smos.names[i] for i in smos.generators)
        self._load_at = np.flatnonzero(table.is_load[smos.ders])
        self.inputs: tuple[Port, ...] = (Port("p_kw", "kW", smos.names),)
        if self._options.follow_demand:
            self.inputs += (Port("demand_pu", "pu", loads, initial=1.0),)
        self.outputs: tuple[Port, ...] = (
            Port("p_set_kw", "kW", smos.names),
            Port("q_set_kvar", "kvar", generators),
            Port("price_per_mwh", "per_mwh", tuple(table.names[i] for i in mine)),
        )
        if self._operator is not None:
            self.outputs += (
                Port("scheduled_import_kw", "kW", (OPERATOR,)),
                Port("cone_gap_pu", "pu", (OPERATOR,)),
                *(Port(f"price_{part}_per_mwh", "per_mwh", table.names) for part in _PARTS),
                Port("net_pays_money", "money", table.names),
                Port("account_money", "money", ACCOUNT),
                Port("settled_intervals", "", (OPERATOR,)),
            )

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Bid, clear when it is time, award, steer."""
        k = self._step
        self._step += 1
        interval, phase = divmod(k, self._per_interval)
        parts = []
        if self._smos.hosted.size:
            parts += self._step_smos(interval, phase, k, inputs, mail)
        outputs = {
            "p_set_kw": self._smos.p_set_kw,
            "q_set_kvar": self._smos.q_set_kvar,
            "price_per_mwh": self._smos.price_per_mwh,
        }
        if self._operator is not None:
            parts += self._step_operator(self._operator, interval, phase, k, mail)
            outputs |= self._told(self._operator.schedule, phase)
        return ControllerStep(outputs, together(parts))

    def _told(self, made: Schedule | None, phase: int) -> dict[str, FloatArray]:
        """Return the operator's outputs under the schedule in force."""
        self._books.note(made)
        if phase == self._per_interval - 1:
            self._books.close()
        none = np.zeros(len(self._table.names))
        return {
            "scheduled_import_kw": np.array([made.p_import * 1000.0 if made else 0.0]),
            "cone_gap_pu": np.array([made.cone_gap_pu if made else 0.0]),
            **{
                f"price_{part}_per_mwh": getattr(made.prices.p, part) if made else none
                for part in _PARTS
            },
            "net_pays_money": self._books.net_pays,
            "account_money": self._books.account,
            "settled_intervals": np.array([float(self._books.settled)]),
        }

    def _step_smos(
        self, interval: int, phase: int, k: int, inputs: Mapping[str, FloatArray], mail: Mail
    ) -> list[Mail]:
        smos = self._smos
        if phase == 0:
            pu = np.ones(smos.ders.size)
            if self._options.follow_demand:
                pu[self._load_at] = inputs["demand_pu"]
            smos.new_interval(pu)
        smos.take_awards(*self._award_mail.rows(mail), k)
        smos.steer(interval)
        bids = smos.bids()
        head = np.full((len(bids), 1), float(interval))
        out = [letters(self._bid_links, k, np.hstack([head, bids]))]
        if self._report_links:
            report = np.hstack([head, smos.metered_mw(inputs["p_kw"])[:, None]])
            out.append(letters(self._report_links, k, report))
        return out

    def _step_operator(
        self, operator: Operator, interval: int, phase: int, k: int, mail: Mail
    ) -> list[Mail]:
        sender, _, rows = self._bid_mail.rows(mail)
        operator.take_bids(sender, rows, interval, k)
        operator.note_silence(k)
        if phase == self._options.gate:
            operator.clear_interval(interval)
        for message in self._weights_mail.rows(mail)[2]:
            operator.take_weights(message)
        out = []
        if operator.schedule is not None:
            out.append(letters(self._award_links, k, operator.awards))
        if self._answer_links:
            out.append(letters(self._answer_links, k, operator.answer()))
        return out

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, for the run's list of events."""
        return [] if self._operator is None else self._operator.take_events()

    def summary(self) -> dict[str, float]:
        """Return counts of the operator, where it is hosted."""
        if self._operator is None:
            return {}
        return {f"market_{name}_count": float(v) for name, v in self._operator.counts.items()}
