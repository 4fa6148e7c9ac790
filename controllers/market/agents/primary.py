"""The primary market as a controller: one operator and one SMO per node with load or resources.

Bids go up and awards come down as mail, every market step, as absolute state, so that lost, late
and repeated messages do little harm. Within an interval of ``interval_s / period_s`` steps::

    step 0       SMOs bid for the interval            (and again at every step)
    step gate    the operator clears what it has
    gate + 1     SMOs read their awards and begin to steer; the feeder follows at its next step

So an award is in force ``(gate + 1) * period_s`` after the beginning of its interval, plus the
response time of the devices. Re-clearings for the resilience manager happen at any step.

With a central `clearing` the operator has the bids and clears at once. With a distributed one each
bus has an agent, too (`controllers.market.agents.bus_agents`): bids go to the bus, awards come from
it, and the buses exchange mail in `mail_rounds` steps of the controller per market step. The award
is in force once they agree. Nothing else differs. With `clearing: three-phase-admm` areas take the
place of buses (`controllers.market.agents.area_agents`).
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
from controllers.market.agents.area_agents import AreaAgents
from controllers.market.agents.area_rules import (
    AreaMail,
    AreaOperator,
    PortReportedSchedule,
)
from controllers.market.agents.bus_agents import BusAgents
from controllers.market.agents.bus_rules import bus_links, bus_names
from controllers.market.agents.distributed_operator import DistributedOperator
from controllers.market.agents.interval_accounts import (
    ACCOUNT,
    PORT_ACCOUNT,
    IntervalAccounts,
)
from controllers.market.agents.mail_tables import Sorter, joined, messages
from controllers.market.agents.operator import (
    OPERATOR,
    CentralOperator,
    Operator,
    manager_links,
    report_links,
)
from controllers.market.agents.options import MarketOptions, whole_steps
from controllers.market.agents.port_outputs import port_outputs, port_values
from controllers.market.agents.schedule import (
    CentralScheduler,
    MarketTerms,
    PortTerms,
    ReportedSchedule,
    Schedule,
)
from controllers.market.agents.site import (
    agent_names,
    area_market,
    distributed_algorithm,
    is_distributed,
    site_participants,
    site_terms,
)
from controllers.market.agents.smo import AWARD_FIELDS, SmoGroup
from controllers.market.model.participants import BID_FIELDS
from grid_models.base.errors import nearest_name

_PARTS = ("losses", "voltage", "congestion")
_KINDS = (
    "bid", "award", "weights", "report", "answer", "up", "down", "shared", "order", "result",
)  # fmt: skip
# After so many intervals a distributed clearing without a result is given up.
_PATIENCE_INTERVALS = 2


class PrimaryMarket:
    """Controller ``market``; `controllers.market.agents.options.MarketOptions` are its options.

    Inputs: ``p_kw`` per DER as metered; with the option `follow_demand` also ``demand_pu`` per
    flexible load, its demand as a multiple of nominal. Outputs: ``p_set_kw`` per DER,
    ``q_set_kvar`` per generator, ``price_per_mwh`` per SMO; with the operator
    ``scheduled_import_kw``, ``cone_gap_pu``, the price's parts of each SMO besides the energy's
    (``price_losses_per_mwh``, ``price_voltage_per_mwh``, ``price_congestion_per_mwh``), and the
    accounts of the interval that ended last: ``net_pays_money`` of each SMO, the operator's
    ``account_money`` and, to tell one interval from the next, ``settled_intervals``. A three-phase
    market also has those of `port_outputs`.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._options = o = parse_options(MarketOptions, options, "market")
        self._algorithm = distributed_algorithm(o)
        self._mail_rounds = self.steps_per_period(**options)
        period = site.period_s * self._mail_rounds
        self._table, network = site_participants(site, o)
        self._terms = site_terms(site, o, self._table, network)
        areas = area_market(o, network)
        self._areas = None if areas is None else AreaMail(areas, self._table)
        names = agent_names(self._table, network, self._algorithm, areas)
        for name in hosted:
            if name not in names:
                raise ControllerError(
                    f"no agent is called '{name}'",
                    where="market",
                    nearest=nearest_name(name, names),
                )
        self._per_interval = whole_steps("interval_s", o.interval_s, period, 4)
        if o.gate > self._per_interval - 2:
            raise ControllerError(
                f"is {o.gate}",
                where="option gate",
                expected=f"at most {self._per_interval - 2}: two steps before the interval's end",
            )
        self._step = 0
        self._outputs: Mapping[str, FloatArray] = {}
        self._silent_steps = max(2, round(o.silent_after_s / period))
        self._operator = self._make_operator() if OPERATOR in hosted else None
        self._accounts = IntervalAccounts(self._table.names, o.import_price, period / 3600.0)
        mine = [i for i, name in enumerate(self._table.names) if name in hosted]
        self._smos = SmoGroup(self._table, mine, o, period, site.seed)
        self._buses = self._make_buses(hosted, site.seed)
        self._account = PORT_ACCOUNT if isinstance(self._terms, PortTerms) else ACCOUNT
        self._declare_links(mine)
        self._declare_ports(mine)

    @classmethod
    def smo_buses(
        cls, site: ControlSite, fixed_load_pu: float, clearing: str = "central"
    ) -> tuple[str, ...]:
        """Return the buses of the SMOs, in their order; see `manager.smo_buses`."""
        options = MarketOptions(fixed_load_pu=fixed_load_pu, clearing=clearing)
        return site_participants(site, options)[0].buses

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the operator, the SMOs, and in a distributed clearing an agent per bus or area."""
        asked = parse_options(MarketOptions, options, "market")
        table, network = site_participants(site, asked)
        by_bus, by_area = distributed_algorithm(asked), area_market(asked, network)
        return agent_names(table, network, by_bus, by_area)

    @classmethod
    def steps_per_period(cls, **options: Any) -> int:
        """Return how often the controller steps within the scenario's ``period_s``."""
        asked = parse_options(MarketOptions, options, "market")
        return asked.mail_rounds if is_distributed(asked) else 1

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return one interval: until then the first clearing has been delivered."""
        return parse_options(MarketOptions, options, "market").interval_s

    def _make_operator(self) -> Operator:
        table, terms, o = self._table, self._terms, self._options
        patience = round(_PATIENCE_INTERVALS * self._per_interval * self._mail_rounds)
        if self._areas is not None:
            assert isinstance(terms, PortTerms)
            made = PortReportedSchedule(table.rows, terms, self._areas.market.objective)
            return AreaOperator(table, made, self._areas, terms.mw, patience)
        if self._algorithm is None:
            return CentralOperator(
                table,
                CentralScheduler(table.rows, terms, o.clearing, o.clearing_options),
                self._silent_steps,
                o.trust_silent,
            )
        assert isinstance(terms, MarketTerms)
        reported = ReportedSchedule(table.rows, terms)
        return DistributedOperator(table, reported, terms.network.size, terms.mw, patience)

    def _make_buses(self, hosted: Sequence[str], seed: int) -> BusAgents | AreaAgents | None:
        o, terms, silent = self._options, self._terms, self._silent_steps
        agreed = o.agreed_kw, o.agreed_price
        if self._areas is not None:
            assert isinstance(terms, PortTerms)
            areas = [a for a, name in enumerate(self._areas.names) if name in hosted]
            if not areas:
                return None
            return AreaAgents(
                self._table, terms, self._areas, areas, agreed=agreed, silent_steps=silent
            )
        names = bus_names(terms.network.buses)
        mine = [i for i, name in enumerate(names) if name in hosted]
        if self._algorithm is None or not mine:
            return None
        assert isinstance(terms, MarketTerms)
        return BusAgents(
            self._table, terms, mine, self._algorithm, o.clearing_options, agreed=agreed,
            start_rounds=o.start_rounds, silent_steps=silent, seed=seed,
        )  # fmt: skip

    def _declare_links(self, mine: Sequence[int]) -> None:
        names, manager = self._table.names, self._options.manager
        links = self._market_links()
        if manager is not None:
            answer, weights = manager_links(len(names), OPERATOR, manager)
            links |= {"weights": [weights], "report": report_links(names, manager)}
            links["answer"] = [answer]
        here = {self._table.names[i] for i in mine}
        here |= {OPERATOR} if self._operator is not None else set()
        here |= set(self._buses.names) if self._buses is not None else set()
        every = [link for kind in _KINDS for link in links.get(kind, ())]
        self.links_in = tuple(link for link in every if link.target in here)
        self.links_out = tuple(link for link in every if link.source in here)
        at = {link.key: i for i, link in enumerate(self.links_out)}
        self._out = {
            kind: [at[link.key] for link in of_kind if link.source in here]
            for kind, of_kind in links.items()
        }
        self._mail = {kind: Sorter(self.links_in, kind) for kind in _KINDS}
        if self._buses is not None:
            self._buses.declare(links, self.links_in, at)

    def _market_links(self) -> dict[str, list[Link]]:
        """Return all links but the manager's, by kind."""
        if self._areas is not None:
            return self._areas.links(OPERATOR)
        if self._algorithm is not None:
            assert isinstance(self._terms, MarketTerms)
            return bus_links(self._table, self._terms, OPERATOR)
        bid, award = 1 + len(BID_FIELDS), len(AWARD_FIELDS)
        return {
            "bid": [Link(name, OPERATOR, "bid", bid) for name in self._table.names],
            "award": [Link(OPERATOR, name, "award", award) for name in self._table.names],
        }

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
                Port("account_money", "money", self._account),
                Port("settled_intervals", "", (OPERATOR,)),
            )
        if self._operator is not None and isinstance(self._terms, PortTerms):
            self.outputs += port_outputs(self._terms.network, table.names)

    # --- a step ----------------------------------------------------------------------------------

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Bid, clear when it is time, award, steer; between market steps, mail only."""
        k = self._step
        self._step += 1
        market_step, between = divmod(k, self._mail_rounds)
        interval, phase = divmod(market_step, self._per_interval)
        self._smos.take_awards(*self._mail["award"].rows(mail), market_step)
        sent: list[Mail] = []
        if not between and self._smos.hosted.size:
            sent += self._step_smos(interval, phase, k, inputs)
        if self._buses is not None:
            sent += self._step_buses(self._buses, k, market_step, interval, mail)
        if self._operator is not None:
            sent += self._step_operator(self._operator, k, interval, phase, mail)
        if between:
            return ControllerStep(self._outputs, joined(sent), mail_only=True)
        outputs = {
            "p_set_kw": self._smos.p_set_kw,
            "q_set_kvar": self._smos.q_set_kvar,
            "price_per_mwh": self._smos.price_per_mwh,
        }
        if self._operator is not None:
            outputs |= self._told(self._operator.schedule, phase)
        self._outputs = outputs
        return ControllerStep(outputs, joined(sent))

    def _step_smos(
        self, interval: int, phase: int, k: int, inputs: Mapping[str, FloatArray]
    ) -> list[Mail]:
        smos = self._smos
        if phase == 0:
            pu = np.ones(smos.ders.size)
            if self._options.follow_demand:
                pu[self._load_at] = inputs["demand_pu"]
            smos.new_interval(pu)
        smos.steer(interval)
        bids = smos.bids()
        head = np.full((len(bids), 1), float(interval))
        out = [messages(self._out["bid"], k, np.hstack([head, bids]))]
        if self._options.manager is not None:
            report = np.hstack([head, smos.metered_mw(inputs["p_kw"])[:, None]])
            out.append(messages(self._out["report"], k, report))
        return out

    def _step_buses(
        self, buses: BusAgents | AreaAgents, k: int, market_step: int, interval: int, mail: Mail
    ) -> list[Mail]:
        sender, _, rows = self._mail["bid"].rows(mail)
        buses.receiver.take_bids(sender, rows, interval, market_step)
        buses.take_mail(mail, k)
        on_market_step = k % self._mail_rounds == 0
        if on_market_step:
            buses.receiver.note_silence(market_step)
        sent = buses.step(interval, market_step)
        return [*sent, buses.award_mail(k)] if on_market_step else sent

    def _step_operator(
        self, operator: Operator, k: int, interval: int, phase: int, mail: Mail
    ) -> list[Mail]:
        market_step, between = divmod(k, self._mail_rounds)
        at_once = False
        if isinstance(operator, DistributedOperator):
            operator.hear(*self._mail["result"].rows(mail), k)
        elif isinstance(operator, CentralOperator):
            sender, _, rows = self._mail["bid"].rows(mail)
            operator.take_bids(sender, rows, interval, market_step)
            before = operator.receiver.silent
            changed = (operator.note_silence(market_step) != before).any()
            # Generation that no longer counts is not awaited until the interval's end.
            at_once = bool(changed) and not self._options.trust_silent
        if (phase == self._options.gate or at_once) and not between:
            operator.clear_interval(interval)
        for message in self._mail["weights"].rows(mail)[2]:
            operator.take_weights(message)
        out = []
        if isinstance(operator, DistributedOperator):
            if operator.is_open or not between:
                out.append(messages(self._out["order"], k, operator.orders()))
        elif isinstance(operator, CentralOperator) and operator.schedule is not None:
            out.append(messages(self._out["award"], k, operator.awards))
        if self._options.manager is not None and not between:
            out.append(messages(self._out["answer"], k, operator.answer()))
        return out

    def _told(self, made: Schedule | None, phase: int) -> dict[str, FloatArray]:
        """Return the operator's outputs under the schedule in force."""
        self._accounts.note(made)
        if phase == self._per_interval - 1:
            self._accounts.close()
        none, terms = np.zeros(len(self._table.names)), self._terms
        return {
            "scheduled_import_kw": np.array([made.p_import * 1000.0 if made else 0.0]),
            "cone_gap_pu": np.array([made.cone_gap_pu if made else 0.0]),
            **{
                f"price_{part}_per_mwh": getattr(made.prices.p, part) if made else none
                for part in _PARTS
            },
            "net_pays_money": self._accounts.net_pays,
            "account_money": self._accounts.account[: len(self._account)],
            "settled_intervals": np.array([float(self._accounts.settled)]),
        } | (
            port_values(made, self._accounts, terms.network) if isinstance(terms, PortTerms) else {}
        )

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, for the run's list of events."""
        told = [] if self._operator is None else self._operator.take_events()
        return told if self._buses is None else told + self._buses.take_events()

    def summary(self) -> dict[str, float]:
        """Return counts of the operator and of the bus agents, where they are hosted."""
        counts = {} if self._operator is None else dict(self._operator.counts)
        if self._buses is not None:
            counts["messages"] = self._buses.messages
            counts["events"] = counts.get("events", 0) + self._buses.event_count
            counts["mail_refused"] = self._buses.refused
        return {f"market_{name}_count": float(v) for name, v in counts.items()}
