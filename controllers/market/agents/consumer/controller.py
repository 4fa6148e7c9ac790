"""The consumer market as a controller: one operator (CMO) and the aggregators of its homes (CMAs).

Bids and meter readings go up, prices come down, as mail, every step, as absolute state, so that
lost, late and repeated messages do little harm. Set-points act at the plant's next step. So with
N = ``interval_s / period_s`` steps in an interval, for interval k + 1, in the steps of interval k::

    N - 2 - gate        homes plan and bid (and again until the clearing)
    N - 2               the operator clears what it has, and sends prices (and again)
    N - 1               homes take the prices; their set-points act from the begin of interval k + 1
    0 of interval k + 2 the operator bills what was metered

A home without prices follows its plan; an operator without a home's bid clears without it. In
interval 0 there is no market, homes follow their plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite, hosted_positions
from controllers.market.agents.consumer.aggregators import (
    BID_FIELDS,
    METER_FIELDS,
    PRICE_FIELDS,
    CmaGroup,
)
from controllers.market.agents.consumer.operator import ConsumerOperator
from controllers.market.agents.consumer.options import ConsumerMarketOptions
from controllers.market.agents.consumer.outlook import Outlook
from controllers.market.agents.mail_tables import Sorter, joined, messages
from controllers.market.agents.options import whole_steps
from controllers.market.consumer.site_homes import site_homes
from grid_models.ders.homes import homes_of

CMO = "cmo"
_WHERE = "consumer-market"
_OPERATOR_PORTS = (
    ("baseline_kw", "kW"),
    ("request_kw", "kW"),
    ("offered_min_kw", "kW"),
    ("offered_max_kw", "kW"),
    ("short_kw", "kW"),
    ("mu_per_kwh", "per_kwh"),
    ("mu_flex_per_kwh", "per_kwh"),
    ("grid_price_per_kwh", "per_kwh"),
    ("uplift_money", "money"),
    ("cmo_pays_money", "money"),
)
_HOME_PORTS = (
    ("home_plan_kw", "kW"),
    ("home_bid_min_kw", "kW"),
    ("home_bid_max_kw", "kW"),
    ("home_set_kw", "kW"),
    ("home_metered_kw", "kW"),
    ("home_price_per_kwh", "per_kwh"),
    ("home_flex_price_per_kwh", "per_kwh"),
)


class ConsumerMarket:
    """Controller ``consumer-market``; see `ConsumerMarketOptions` for its options.

    Agents: ``cmo`` and, for the homes of `grid_models.ders.homes.homes_of` in their order,
    ``cma_1``, ``cma_2``, ... Inputs: ``p_kw`` per DER, ``soc_kwh`` per battery and vehicle,
    ``temp_c`` per house. Outputs, of whoever hosts the agent: ``p_set_kw`` and ``device_plan_kw``
    per DER, ``soc_plan_kwh`` and ``temp_plan_c`` at the end of the interval, ``home_*`` per CMA;
    the operator's ``baseline_kw``, ``request_kw``, ``offered_*_kw``, ``short_kw``, its prices, and
    money since the start (``cmo_pays_money`` to the grid = ``home_pays_money`` + ``uplift_money``).

    Raises ControllerError: An option, a hosted name or a DER is not accepted.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._options = o = parse_options(ConsumerMarketOptions, options, _WHERE)
        names = self.agents(site, **options)
        hosted_positions(hosted, names, _WHERE)
        self._n = whole_steps("interval_s", o.interval_s, site.period_s, o.gate + 3)
        homes = site_homes(site.ders, site.seed, _WHERE)
        self._homes = names[1:]
        mine = [i for i, name in enumerate(self._homes) if name in hosted]
        outlook = Outlook(site, o)
        self._cmas = CmaGroup(homes, mine, site.ders, o, site, outlook)
        self._cmo = (
            ConsumerOperator(
                self._homes, o, outlook, self._n, site.period_s / 3600.0, homes.rating_kw
            )
            if CMO in hosted
            else None
        )
        self._step = 0
        self._declare_links(hosted)
        self._declare_ports([self._homes[i] for i in mine])

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the operator and one aggregator per home."""
        parse_options(ConsumerMarketOptions, options, _WHERE)
        count = len(homes_of(site.ders).names)
        if not count:
            raise ControllerError(
                "there is no home",
                where=_WHERE,
                expected="DERs of kind house, pv, battery or vehicle, named by the key ders",
            )
        return (CMO, *(f"cma_{i + 1}" for i in range(count)))

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return one interval: then the first clearing is in force."""
        return parse_options(ConsumerMarketOptions, options, _WHERE).interval_s

    @classmethod
    def level_of(cls, agent: str) -> str:
        """Return the level of an agent: the operator, or the homes."""
        return agent.partition("_")[0]

    def _declare_links(self, hosted: Sequence[str]) -> None:
        up = [Link(name, CMO, "bid", len(BID_FIELDS)) for name in self._homes]
        up += [Link(name, CMO, "meter", len(METER_FIELDS)) for name in self._homes]
        down = [Link(CMO, name, "prices", len(PRICE_FIELDS)) for name in self._homes]
        every = [*up, *down]
        self.links_in = tuple(link for link in every if link.target in hosted)
        self.links_out = tuple(link for link in every if link.source in hosted)
        self._out = {
            kind: [i for i, link in enumerate(self.links_out) if link.kind == kind]
            for kind in ("bid", "meter", "prices")
        }
        self._mail = {kind: Sorter(self.links_in, kind) for kind in self._out}

    def _declare_ports(self, mine: Sequence[str]) -> None:
        cmas, homes = self._cmas, tuple(mine)
        self.inputs: tuple[Port, ...] = (
            Port("p_kw", "kW", cmas.names),
            Port("soc_kwh", "kWh", cmas.stores),
            Port("temp_c", "degC", cmas.houses, initial=22.0),
        )
        self.outputs: tuple[Port, ...] = (
            Port("p_set_kw", "kW", cmas.names),
            Port("device_plan_kw", "kW", cmas.names),
            Port("soc_plan_kwh", "kWh", cmas.stores),
            Port("temp_plan_c", "degC", cmas.houses),
            *(Port(name, unit, homes) for name, unit in _HOME_PORTS),
        )
        if self._cmo is not None:
            self.outputs += (
                *(Port(name, unit, (CMO,)) for name, unit in _OPERATOR_PORTS),
                Port("home_pays_money", "money", self._homes),
            )
        self.inputs = tuple(port for port in self.inputs if port.labels)
        self.outputs = tuple(port for port in self.outputs if port.labels)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Meter, plan and bid or clear when it is time, steer, bill."""
        k, n = self._step, self._n
        self._step += 1
        interval, phase = divmod(k, n)
        ahead = (k + 1) // n
        sent = self._step_cmas(k, interval, phase, inputs, mail)
        self._cmas.steer(ahead)
        known: dict[str, Any] = dict(self._cmas.outputs(ahead))
        if self._cmo is not None:
            sent += self._step_cmo(self._cmo, k, interval, phase, mail)
            known |= self._cmo.outputs(ahead)
        return ControllerStep({port.name: known[port.name] for port in self.outputs}, joined(sent))

    def _step_cmas(
        self, k: int, interval: int, phase: int, inputs: Mapping[str, FloatArray], mail: Mail
    ) -> list[Mail]:
        cmas = self._cmas
        if not cmas.hosted.size:
            return []
        cmas.take_prices(*self._mail["prices"].rows(mail), k)
        cmas.measure(inputs)
        first = self._n - 2 - self._options.gate
        if k == 0:
            cmas.plan(0, 0)
            cmas.steer(0)
        if phase == first:
            cmas.plan(interval + 1, self._n - 1 - phase)
        sent = [messages(self._out["meter"], k, cmas.meters)]
        if first <= phase <= self._n - 2:
            sent.append(messages(self._out["bid"], k, cmas.bids))
        return sent

    def _step_cmo(
        self, cmo: ConsumerOperator, k: int, interval: int, phase: int, mail: Mail
    ) -> list[Mail]:
        cmo.take_bids(*self._mail["bid"].rows(mail), k)
        cmo.take_meters(*self._mail["meter"].rows(mail), k)
        if phase == 0 and interval > 0:
            cmo.settle(interval - 1)
        if phase == self._n - 2:
            cmo.clear(interval + 1)
        if not np.isfinite(cmo.prices).all():
            return []
        return [messages(self._out["prices"], k, cmo.prices)]

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, for the run's list of events."""
        return [*self._cmas.take_events(), *([] if self._cmo is None else self._cmo.take_events())]

    def summary(self) -> dict[str, float]:
        """Return counts of the operator, and how often a home had no prices."""
        counts = {"prices_missing": self._cmas.missed} if self._cmas.hosted.size else {}
        counts |= {} if self._cmo is None else self._cmo.counts
        return {f"consumer_{name}_count": float(v) for name, v in counts.items()}
