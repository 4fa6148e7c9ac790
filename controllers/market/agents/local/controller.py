"""The local market as a controller: homes, secondary agents, market operators, primary operator.

An interval of ``interval_s`` has four or more rounds of mail. Offers, bids and awards are for the
next interval::

    round 0       homes apply their awards and send offers
    round 1       secondary agents (SMAs) bid the sum of their homes' offers
    round 2       operators (SMOs) clear the secondary market, send schedules down and bids up
    round 3       SMAs clear the consumer market and send awards; at the end of a primary interval
                  the operator clears the primary market and sends awards

Awards and schedules are passed on in the round in which they arrive: an award that the primary
operator changes within an interval reaches the homes three rounds later. Messages carry absolute
values and their interval, so the effect of a lost message ends with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.market.agents.local.bills import money
from controllers.market.agents.local.home import HomeGroup
from controllers.market.agents.local.offers import OFFER_FIELDS
from controllers.market.agents.local.operator import LocalOperator
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.sma import AWARD_FIELDS, SCHEDULE_FIELDS, SmaGroup
from controllers.market.agents.local.smo import SMO_AWARD_FIELDS, OperatorGroup
from controllers.market.agents.local.table import KINDS, OPERATOR, LocalTable, local_table
from controllers.market.agents.mail_tables import Sorter, joined, messages
from controllers.market.agents.operator import manager_links, report_links
from controllers.market.agents.options import MarketOptions, whole_steps
from controllers.market.agents.site import distributed_algorithm, site_network
from controllers.market.model.participants import BID_FIELDS
from grid_models.current_injection.model import PortNetwork

ROUNDS_MIN = 4
_COUNTED = ("offer", "award", "bid", "schedule", "smo_bid", "smo_award")
"""Kinds of messages, from the homes up; the resilience manager's are not counted."""


def site_table(site: ControlSite, options: LocalMarketOptions) -> LocalTable:
    """Return who takes part in the local market of a site."""
    market = MarketOptions(clearing=options.clearing)
    if distributed_algorithm(market) is not None:
        raise ControllerError(
            f"'{options.clearing}' exchanges mail between buses",
            where="option clearing",
            expected="a way to clear at one place, such as 'central' or 'three-phase'",
        )
    network = site_network(site, market)
    ports = network if isinstance(network, PortNetwork) else None
    return local_table(site.feeder, options.homes_per_agent, options.fixed_load_pu, ports)


class LocalMarket:
    """Controller ``local-market``; `LocalMarketOptions` are its options.

    Inputs: ``p_kw`` per device as metered, ``temp_c`` per house, ``soc_kwh`` per battery and
    vehicle. Outputs, each with whoever hosts the agent: docs/market-day.md.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._options = o = parse_options(LocalMarketOptions, options, "local-market")
        self._table = table = site_table(site, o)
        at = hosted_positions(hosted, table.agents, "local-market")
        self._rounds = whole_steps(
            "interval_s", o.interval_s, site.period_s, ROUNDS_MIN, "period_s / mail_rounds"
        )
        # Meters are read, and devices set, once in the federate's own period.
        whole_steps("interval_s", o.interval_s, site.period_s * o.mail_rounds)
        per_primary = whole_steps(
            "primary_interval_s", o.primary_interval_s, o.interval_s, period="interval_s"
        )
        n, m = len(table.buses), len(table.agent_names)
        of_level = [[i - low for i in at if low <= i < high]
                    for low, high in ((0, 1), (1, 1 + n), (1 + n, 1 + n + m),
                                      (1 + n + m, len(table.agents)))]  # fmt: skip
        self._operator = (
            LocalOperator(table, o, site, self._rounds, per_primary) if of_level[0] else None
        )
        self._smos = OperatorGroup(table, of_level[1], o, site.seed)
        self._smas = SmaGroup(table, of_level[2], o)
        self._homes = HomeGroup(table, of_level[3], o, site, self._rounds)
        self._step = 0
        self._outputs: Mapping[str, FloatArray] = {}
        self._sent = dict.fromkeys(_COUNTED, 0)
        self._event_count = 0
        self._declare_links(of_level)
        self._declare_ports()

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the operator, the SMOs, their agents, and the homes."""
        return site_table(site, parse_options(LocalMarketOptions, options, "local-market")).agents

    @classmethod
    def smo_buses(
        cls, site: ControlSite, fixed_load_pu: float, clearing: str = "central"
    ) -> tuple[str, ...]:
        """Return the buses of the operators, in their order; see `manager.smo_buses`."""
        options = LocalMarketOptions(fixed_load_pu=fixed_load_pu, clearing=clearing)
        return site_table(site, options).buses

    @classmethod
    def steps_per_period(cls, **options: Any) -> int:
        """Return the rounds of mail within the scenario's ``period_s``."""
        return parse_options(LocalMarketOptions, options, "local-market").mail_rounds

    @classmethod
    def level_of(cls, agent: str) -> str:
        """Return the level of an agent: 'operator', 'smo', 'sma' or 'home'."""
        return agent.partition("_")[0]

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return three intervals: until then the first awards have reached the homes."""
        return 3.0 * parse_options(LocalMarketOptions, options, "local-market").interval_s

    # --- mail and ports --------------------------------------------------------------------------

    def _declare_links(self, of_level: Sequence[Sequence[int]]) -> None:
        table, o = self._table, self._options
        smo, agent, home = table.names, table.agent_names, table.home_names
        pairs = {
            # kind: sender, receiver, width, sender's level, receiver's level, sender's position
            "offer": [(home[i], agent[a], i, a) for i, a in enumerate(table.home_agent)],
            "award": [(agent[a], home[i], a, i) for i, a in enumerate(table.home_agent)],
            "bid": [(agent[i], smo[a], i, a) for i, a in enumerate(table.agent_smo)],
            "schedule": [(smo[a], agent[i], a, i) for i, a in enumerate(table.agent_smo)],
            "smo_bid": [(name, OPERATOR, i, 0) for i, name in enumerate(smo)],
            "smo_award": [(OPERATOR, name, 0, i) for i, name in enumerate(smo)],
        }
        ends = {"offer": (3, 2), "award": (2, 3), "bid": (2, 1), "schedule": (1, 2),
                "smo_bid": (1, 0), "smo_award": (0, 1)}  # fmt: skip
        widths = {"offer": len(OFFER_FIELDS), "bid": len(OFFER_FIELDS),
                  "schedule": len(SCHEDULE_FIELDS), "award": len(AWARD_FIELDS),
                  "smo_bid": 1 + len(BID_FIELDS), "smo_award": len(SMO_AWARD_FIELDS)}  # fmt: skip
        here = [set(level) for level in of_level]
        links_in: list[Link] = []
        links_out: list[Link] = []
        self._out: dict[str, list[int]] = {}
        for kind, of_kind in pairs.items():
            sends, hears = here[ends[kind][0]], here[ends[kind][1]]
            made = [(Link(a, b, kind, widths[kind]), i in sends, j in hears)
                    for a, b, i, j in of_kind]  # fmt: skip
            mine = [link for link, sent, _ in made if sent]
            self._out[kind] = list(range(len(links_out), len(links_out) + len(mine)))
            links_out += mine
            links_in += [link for link, _, heard in made if heard]
        if o.manager is not None:
            answer, weights = manager_links(len(smo), OPERATOR, o.manager)
            reports = [report_links(smo, o.manager)[i] for i in of_level[1]]
            mine = reports + [answer] * bool(of_level[0])
            self._out["report"] = list(range(len(links_out), len(links_out) + len(reports)))
            self._out["answer"] = [len(links_out) + len(reports)]
            links_out += mine
            links_in += [weights] * bool(of_level[0])
        self.links_in, self.links_out = tuple(links_in), tuple(links_out)
        self._mail = {kind: Sorter(self.links_in, kind) for kind in (*pairs, "weights")}

    def _declare_ports(self) -> None:
        table, homes, smas, smos = self._table, self._homes, self._smas, self._smos
        self.inputs: tuple[Port, ...] = homes.inputs
        own = [table.home_names[i] for i in homes.hosted]
        billed = [table.home_names[i] for i in smas.homes]
        agents = [table.agent_names[i] for i in smos.agents]
        operators = [table.names[i] for i in smos.hosted]
        ports = [*homes.outputs]
        ports += [Port(f"home_{x}_kw", "kW", tuple(own)) for x in ("plan", "bid", "set", "metered")]
        ports += [Port(f"home_{x}_per_kwh", "per_kwh", tuple(own)) for x in ("price", "flex_price")]
        ports += [Port("home_pays_money", "money", tuple(billed))]
        ports += [Port(f"sma_{x}_kw", "kW", tuple(agents))
                  for x in ("bid", "bid_min", "bid_max", "set", "metered")]  # fmt: skip
        scores = [*(f"commitment_{kind}" for kind in KINDS), "trustability", "resilience"]
        ports += [Port(name, "", tuple(agents)) for name in scores]
        ports += [Port("sma_pays_money", "money", tuple(agents))]
        ports += [Port(f"smo_{x}_kw", "kW", tuple(operators))
                  for x in ("bid", "bid_min", "bid_max", "award")]  # fmt: skip
        ports += [Port("tariff_per_kwh", "per_kwh", tuple(operators)),
                  Port("uplift_money", "money", tuple(operators)),
                  Port("fixed_pays_money", "money", tuple(operators))]  # fmt: skip
        self.outputs = tuple(ports)
        if self._operator is not None:
            self.outputs += self._operator.outputs

    # --- a step ----------------------------------------------------------------------------------

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Read the mail, do what the round of the interval asks for, return the outputs."""
        j = self._step
        self._step += 1
        interval, phase = divmod(j, self._rounds)
        between = j % self._options.mail_rounds != 0
        sent = self._step_homes(j, interval, phase, time_s, inputs, mail)
        sent += self._step_agents(j, interval, phase, mail)
        sent += self._step_operators(j, interval, phase, mail)
        if self._operator is not None:
            sent += self._step_operator(self._operator, j, interval, phase, time_s, mail)
        if between:
            return ControllerStep(self._outputs, joined(sent), mail_only=True)
        self._homes.steer(interval)
        self._outputs = self._told()
        return ControllerStep(self._outputs, joined(sent))

    def _post(
        self, kind: str, j: int, rows: FloatArray, who: NDArray[np.bool_] | None = None
    ) -> Mail:
        """Return one message over each link of a kind, or over those that `who` chooses."""
        links = self._out[kind]
        if who is not None:
            links = [links[i] for i in np.flatnonzero(who).tolist()]
        self._sent[kind] += len(links)
        return messages(links, j, rows) if links else Mail.empty()

    def _step_homes(
        self, j: int, interval: int, phase: int, time_s: float,
        inputs: Mapping[str, FloatArray], mail: Mail,
    ) -> list[Mail]:  # fmt: skip
        homes = self._homes
        if not homes.hosted.size:
            return []
        homes.take_awards(*self._mail["award"].rows(mail), j)
        if phase:
            return []
        homes.begin(interval, time_s, inputs)
        return [self._post("offer", j, homes.offers(interval + 1))]

    def _step_agents(self, j: int, interval: int, phase: int, mail: Mail) -> list[Mail]:
        smas = self._smas
        if not smas.n:
            return []
        sender, _, rows = self._mail["offer"].rows(mail)
        smas.book.take(sender, rows, interval)
        new = smas.take_schedules(*self._mail["schedule"].rows(mail), j)
        sent = []
        if phase == 1:
            sent.append(self._post("bid", j, smas.bid(interval + 1)))
        if new.any() or phase == 3:
            who = smas.clear(new, interval + 1, late=phase == 3)[smas.owner]
            sent.append(self._post("award", j, smas.awards[who], who))
        return sent

    def _step_operators(self, j: int, interval: int, phase: int, mail: Mail) -> list[Mail]:
        smos = self._smos
        if not smos.n:
            return []
        sender, _, rows = self._mail["bid"].rows(mail)
        smos.book.take(sender, rows, interval)
        changed = smos.take_awards(*self._mail["smo_award"].rows(mail), j)
        sent = []
        if phase == 2:
            smos.take_offers(interval + 1)
            changed = np.ones(smos.n, dtype=bool)
        if changed.any():
            coming = interval + (phase >= 2)
            who = smos.clear(changed, coming)
            sent.append(self._post("schedule", j, smos.schedules(who, coming), who[smos.owner]))
        if phase == 2:
            head = np.full((smos.n, 1), float(interval))
            sent.append(self._post("smo_bid", j, np.hstack([head, smos.bids()])))
        if self._options.manager is not None and j % self._options.mail_rounds == 0:
            report = np.stack([np.full(smos.n, float(interval)), smos.metered_net_mw], axis=1)
            sent.append(messages(self._out["report"], j, report))
        return sent

    def _step_operator(
        self, operator: LocalOperator, j: int, interval: int, phase: int, time_s: float, mail: Mail
    ) -> list[Mail]:
        sender, _, rows = self._mail["smo_bid"].rows(mail)
        weights = self._mail["weights"].rows(mail)[2]
        operator.step(j, interval, phase, time_s, (sender, rows), weights)
        sent = []
        if operator.sends_awards:
            sent.append(self._post("smo_award", j, operator.awards))
        if self._options.manager is not None and j % self._options.mail_rounds == 0:
            sent.append(messages(self._out["answer"], j, operator.answer()))
        return sent

    # --- outputs ---------------------------------------------------------------------------------

    def _told(self) -> dict[str, FloatArray]:
        homes, smas, smos = self._homes, self._smas, self._smos
        told: dict[str, FloatArray] = dict(homes.values())
        told["home_pays_money"] = money(smas.bills.divided)
        told |= smos.values()
        if self._operator is not None:
            told |= self._operator.values()
        return {port.name: np.array(told[port.name]) for port in self.outputs}

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, for the run's list of events."""
        told = [*self._homes.take_events(), *self._smas.take_events(),
                *self._smos.take_events()]  # fmt: skip
        self._event_count += len(told)
        return told if self._operator is None else told + self._operator.take_events()

    def summary(self) -> dict[str, float]:
        """Return counts, and with the operator the mean prices."""
        counts = {f"messages_{kind}": n for kind, n in self._sent.items()} | self._smos.counts
        counts["events"] = self._event_count
        found = {f"market_{name}_count": float(v) for name, v in counts.items()}
        return found if self._operator is None else found | self._operator.summary()
