"""The primary operator of the local market: bids of the SMOs, clearing, bills.

The price of supply is the day's, times `price_scale`, and rises with the import by `price_slope`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.market.agents.interval_accounts import ACCOUNT, IntervalAccounts
from controllers.market.agents.local.bills import money
from controllers.market.agents.local.options import LocalMarketOptions
from controllers.market.agents.local.table import OPERATOR, LocalTable
from controllers.market.agents.operator import CentralOperator
from controllers.market.agents.schedule import (
    AnyTerms,
    CentralScheduler,
    MarketTerms,
    PortTerms,
)
from controllers.market.model.whole_units import UNIT
from grid_models.current_injection.model import PortNetwork

_CLEARING_ROUND = 3


def _terms(table: LocalTable, options: LocalMarketOptions, site: ControlSite) -> AnyTerms:
    """Return what bids are cleared with, at an import price of 0."""
    common = (options.loss_price_per_kwh * 1000.0, 0.0, site.v_min_pu, site.v_max_pu)
    slope, network = options.price_slope * 1000.0, table.network
    if isinstance(network, PortNetwork):
        fixed = network.loads.scaled(options.fixed_load_pu)
        return PortTerms(network, *common, slope, fixed)
    return MarketTerms(network, *common, slope)


class LocalOperator:
    """Clears the primary market every `per_primary` intervals of `rounds` rounds.

    Attributes
    ----------
    sends_awards : Whether awards are to be sent in this round.
    """

    def __init__(
        self,
        table: LocalTable,
        options: LocalMarketOptions,
        site: ControlSite,
        rounds: int,
        per_primary: int,
    ) -> None:
        self._table, self._options, self._site = table, options, site
        self._rounds, self._per_primary = rounds, per_primary
        self._terms = _terms(table, options, site)
        self._scheduler = CentralScheduler(table.rows, self._terms, options.clearing)
        self._central = CentralOperator(table, self._scheduler, options.silent_after * rounds)
        self._accounts = IntervalAccounts(table.names, None, site.period_s / 3600.0)
        n = len(table.buses)
        self._billed = np.zeros(n, dtype=np.int64)
        self._account = np.zeros(len(ACCOUNT))
        self._told: Any = None
        self._lmp, self._energy_mwh, self._samples = 0.0, 0.0, 0
        self.sends_awards = False
        names = table.names
        self.outputs = (
            Port("scheduled_import_kw", "kW", (OPERATOR,)),
            Port("import_price_per_kwh", "per_kwh", (OPERATOR,)),
            Port("cone_gap_pu", "pu", (OPERATOR,)),
            Port("lmp_per_kwh", "per_kwh", names),
            Port("smo_pays_money", "money", names),
            Port("account_money", "money", ACCOUNT),
        )

    def step(
        self,
        j: int,
        interval: int,
        phase: int,
        time_s: float,
        bids: tuple[IntArray, FloatArray],
        weights: FloatArray,
    ) -> None:
        """Take bids and orders; clear at the end of a primary interval; bill at the end of each."""
        central = self._central
        central.take_bids(*bids, interval, j)
        central.note_silence(j)
        due = (interval + 1) % self._per_primary == 0 or central.schedule is None
        if phase == _CLEARING_ROUND and due:
            ahead_s = (self._rounds - phase) * self._site.period_s
            ahead = self._site.forecast(np.array([time_s + ahead_s]))["price_per_kwh"]
            price = self._options.price_scale * float(ahead[0])
            self._scheduler.terms = replace(self._terms, import_price=price * 1000.0)
            central.clear_interval(interval)
        for message in weights:
            central.take_weights(message)
        made = central.schedule
        self.sends_awards = made is not None and (
            phase == _CLEARING_ROUND or made is not self._told
        )
        self._told = made
        self._accounts.note(made)
        if phase == self._rounds - 1:
            self._bill()

    def _bill(self) -> None:
        """Bill the interval that ends."""
        self._accounts.close()
        self._billed += np.rint(self._accounts.net_pays / UNIT).astype(np.int64)
        self._account += self._accounts.account[: len(ACCOUNT)]
        made = self._central.schedule
        if made is not None:
            hours = self._rounds * self._site.period_s / 3600.0
            self._lmp += float(made.price_p.mean())
            self._energy_mwh -= float(made.p_net.sum()) * hours
            self._samples += 1

    @property
    def awards(self) -> FloatArray:
        """Awards to the SMOs, (n, len(SMO_AWARD_FIELDS))."""
        return np.hstack([self._central.awards, self._billed[:, None].astype(np.float64)])

    def answer(self) -> FloatArray:
        """Return what the resilience manager is told."""
        return self._central.answer()

    def values(self) -> dict[str, FloatArray]:
        """Return the outputs."""
        made, n = self._central.schedule, len(self._table.buses)
        return {
            "scheduled_import_kw": np.array([made.p_import * 1000.0 if made else 0.0]),
            "import_price_per_kwh": np.array([made.prices.p.energy[0] / 1000.0 if made else 0.0]),
            "cone_gap_pu": np.array([made.cone_gap_pu if made else 0.0]),
            "lmp_per_kwh": made.price_p / 1000.0 if made else np.zeros(n),
            "smo_pays_money": money(self._billed),
            "account_money": self._account.copy(),
        }

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call."""
        return self._central.take_events()

    def summary(self) -> dict[str, float]:
        """Return counts and mean prices: of all SMOs and intervals, and per kWh that was billed."""
        counts = {f"market_{k}_count": float(v) for k, v in self._central.counts.items()}
        if self._samples:
            counts["lmp_mean_per_kwh"] = self._lmp / self._samples / 1000.0
        if self._energy_mwh > 0.0:
            counts["tariff_mean_per_kwh"] = (
                float(self._billed.sum()) * UNIT / self._energy_mwh / 1000.0
            )
        return counts
