"""Market operators at load nodes (SMOs): they bid for their resources and steer them.

Each step an SMO sends its bid for the present interval, reads its award, and moves the set-points
of its resources towards it: a first-order lag (their response time) and an error drawn once per
device and interval (their imperfection). An SMO that hears nothing goes on as it was told last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.market.agents.mail_tables import Latest
from controllers.market.agents.options import MarketOptions
from controllers.market.model.participants import Participants, aggregate
from grid_models.base import counter_rng
from grid_models.base.errors import nearest_name

AWARD_FIELDS = ("interval", "p_load", "p_gen", "q_gen", "price_p", "price_q")
REPORT_FIELDS = ("interval", "p_net")


class SmoGroup:
    """The hosted SMOs as arrays.

    Parameters
    ----------
    table : Participants
    hosted : sequence of int. Positions of the hosted SMOs in the table.

    Attributes
    ----------
    ders : ndarray of int. Positions of their DERs in the table.
    """

    def __init__(
        self,
        table: Participants,
        hosted: Sequence[int],
        options: MarketOptions,
        period_s: float,
        seed: int,
    ) -> None:
        self._table = table
        self.hosted: IntArray = np.array(hosted, dtype=np.int64)
        self.ders: IntArray = np.flatnonzero(np.isin(table.owner, self.hosted)).astype(np.int64)
        self.names = tuple(table.ders[i].name for i in self.ders)
        self.generators = np.flatnonzero(~table.is_load[self.ders])
        faith = by_bus(table.buses, options.unfaithful, "unfaithful", 1.0)
        self._overstated = by_bus(table.buses, options.overstated, "overstated", 1.0)
        self._owner = table.owner[self.ders]
        self._faith = faith[self._owner]
        self._error = options.response_error
        self._seed = seed
        self._streams = counter_rng.stream_ids(f"response:{name}" for name in self.names)
        lag = options.response_s
        self._pace = 1.0 - math.exp(-period_s / lag) if lag > 0.0 else 1.0
        self._is_load = table.is_load[self.ders]
        self._demand_mw = table.demand_mw[self.ders].copy()
        self._least_mw = table.least_mw[self.ders].copy()
        self._floor_mw = table.floor_mw[self.ders].copy()
        self._flat_mw = self._demand_mw.copy()
        self._q_room = table.q_room_mvar[self.ders]
        q_bid = table.per_smo(table.q_room_mvar)[self._owner]
        self._q_share = self._q_room / np.maximum(q_bid, 1e-12)
        self._p_mw = -self._demand_mw
        self._q_mvar = np.zeros(self.ders.size)
        self._inbox = Latest(len(hosted), len(AWARD_FIELDS))
        self._award = np.full((len(table.buses), len(AWARD_FIELDS)), np.nan)
        self._bids = aggregate(table, 1.0, self._overstated)

    def new_interval(self, demand_pu: FloatArray) -> None:
        """Take the demand of the coming interval, (hosted DERs,), multiple of nominal."""
        table = self._table
        pu = np.ones(len(table.ders))
        pu[self.ders] = np.where(np.isfinite(demand_pu), np.maximum(demand_pu, 0.0), 1.0)
        self._flat_mw = self._demand_mw * pu[self.ders]
        self._least_mw = table.least_mw[self.ders] * pu[self.ders]
        self._floor_mw = table.floor_mw[self.ders] * pu[self.ders]
        self._bids = aggregate(table, pu, self._overstated)

    def bids(self) -> FloatArray:
        """Return the bids of the hosted SMOs, (hosted, len(BID_FIELDS))."""
        return self._bids[self.hosted]

    def take_awards(self, sender: IntArray, rounds: IntArray, awards: FloatArray, k: int) -> None:
        """Take awards, (m, len(AWARD_FIELDS)), for the hosted SMOs `sender`; the newest counts."""
        self._inbox.absorb(sender, rounds, awards, k)
        told = self._inbox.round >= 0
        self._award[self.hosted[told]] = self._inbox.values[told]

    def steer(self, interval: int) -> None:
        """Move the resources one step towards what the SMO was awarded."""
        target_p, target_q, least = self._targets()
        base = -self._flat_mw
        uniform = counter_rng.uniform(self._seed, self._streams, interval, 0)
        wrong = self._error * math.sqrt(3.0) * (2.0 * uniform - 1.0)
        done = base + (target_p - base) * self._faith * (1.0 + wrong)
        high = np.where(self._is_load, -least, self._table.capacity_mw[self.ders])
        low = np.where(self._is_load, base, 0.0)
        done = np.minimum(np.maximum(done, low), high)
        self._p_mw = self._p_mw + self._pace * (done - self._p_mw)
        self._p_mw = np.minimum(np.maximum(self._p_mw, low), high)
        self._q_mvar = self._q_mvar + self._pace * (target_q - self._q_mvar)

    def _targets(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Split each SMO's award over its resources, each by the room it was bid with.

        Of loads that is what can be curtailed, of generators their capacity, and for reactive power
        what their rating leaves at full output; nobody is asked for more than that. An award below
        the least that was bid sheds critical load, which is split by how much of it there is; no
        error of what a device does sheds any.

        Returns
        -------
        p, q : Set-points, MW and Mvar.
        least : Least load that may come of it.
        """
        table, owner = self._table, self._owner
        award, bids = self._award[owner], self._bids[owner]
        base = -self._flat_mw
        told = np.isfinite(award[:, 0])
        curtailed = np.where(told, bids[:, 0] - award[:, 1], 0.0)
        room_of_smo = np.maximum(bids[:, 0] - bids[:, 2], 1e-12)
        # Of what it has, not of what it claimed: the promise is kept as far as it can be.
        own_room = (self._flat_mw - self._least_mw) * self._overstated[owner]
        critical = self._least_mw - self._floor_mw
        of_smo = np.bincount(owner, critical, len(table.buses))[owner]
        beyond = np.where(of_smo > 0.0, np.maximum(curtailed - room_of_smo, 0.0), 0.0)
        shed = np.minimum(beyond / np.maximum(of_smo, 1e-12), 1.0)
        capacity = np.maximum(bids[:, 5], 1e-12)
        share = table.capacity_mw[self.ders] / capacity
        p = np.where(
            self._is_load,
            base + (curtailed - beyond) * own_room / room_of_smo + shed * critical,
            np.where(told, award[:, 2], 0.0) * share,
        )
        q = np.where(told, award[:, 3], 0.0) * self._q_share
        q = np.minimum(np.maximum(q, -self._q_room), self._q_room)
        return p, q, self._least_mw - shed * critical

    @property
    def p_set_kw(self) -> FloatArray:
        """Set-points of the hosted SMOs' DERs, injections positive."""
        return self._p_mw * 1000.0

    @property
    def q_set_kvar(self) -> FloatArray:
        """Reactive set-points of the hosted SMOs' generators."""
        return self._q_mvar[self.generators] * 1000.0

    @property
    def price_per_mwh(self) -> FloatArray:
        """Marginal price at each hosted SMO's bus; 0 before the first award."""
        price: FloatArray = np.nan_to_num(self._award[self.hosted, 4])
        return price

    def metered_mw(self, p_kw: FloatArray) -> FloatArray:
        """Return each hosted SMO's net injection from its own meters, `p_kw` (hosted DERs,).

        NaN where a meter shows no number: what was asked for is no evidence of what was done.
        """
        measured = np.where(np.isfinite(p_kw), p_kw, np.nan) / 1000.0
        total = np.bincount(self._owner, measured, len(self._table.buses))
        net: FloatArray = (total - self._table.fixed_p_mw)[self.hosted]
        return net


def by_bus(
    buses: Sequence[str], table: Mapping[str, float], option: str, default: float
) -> FloatArray:
    """Return one number per SMO from a mapping of bus to number.

    Raises ControllerError: A bus has no SMO.
    """
    values = np.full(len(buses), default)
    for bus, value in table.items():
        if bus not in buses:
            raise ControllerError(
                f"no market operator at bus '{bus}'",
                where=f"option {option}",
                expected="a bus with load or resources",
                nearest=nearest_name(str(bus), buses),
            )
        values[buses.index(bus)] = value
    return values
