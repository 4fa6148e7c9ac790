"""The clearing desk: bids of SMOs in, a schedule per SMO out, through the branch-flow market."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.agents.resilience import weighted
from controllers.market.agents.reweighing import Weights
from controllers.market.model.parties import BID_FIELDS, IDLE_COST, PartyTable
from controllers.market.model.prices import Prices
from controllers.market.model.problem import Bids, ClearingProblem
from controllers.market.solvers.central import CentralMarket
from grid_models.branch_flow.model import BranchNetwork

_COSTS = ("alpha_p", "alpha_q", "beta")


@dataclass(frozen=True)
class Schedule:
    """What was cleared; arrays (n,) per SMO, MW, Mvar, money per MWh.

    `p_load` and `p_gen` are positive, `prices` are the marginal prices at the bus in their parts;
    `p_import` is what the operator expects to draw from above, `cone_gap_pu` how far the
    relaxation is from exact, and whether that is exact enough to be a dispatch.
    """

    p_load: FloatArray
    q_load: FloatArray
    p_gen: FloatArray
    q_gen: FloatArray
    prices: Prices
    p_import: float
    cone_gap_pu: float
    exact: bool

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


class ClearingDesk:
    """Clears the bids of SMOs on the network of a feeder, one interval after the other.

    Parameters
    ----------
    table : PartyTable
    network : BranchNetwork
        Of the feeder; `table.rows` are its rows.
    xi, import_price : float
        Money per MWh.
    v_min_pu, v_max_pu : float
    """

    def __init__(
        self,
        table: PartyTable,
        network: BranchNetwork,
        *,
        xi: float,
        import_price: float,
        v_min_pu: float = 0.95,
        v_max_pu: float = 1.05,
    ) -> None:
        self._rows = table.rows
        self._network = network
        self._mw = network.base_kva / 1000.0
        self._xi, self._price = xi, import_price
        self._band = v_min_pu, v_max_pu
        self._market = CentralMarket(network)

    def clear(
        self,
        bids: FloatArray,
        weights: Weights,
        frozen: NDArray[np.bool_],
        held: tuple[FloatArray, FloatArray, FloatArray],
    ) -> Schedule:
        """Return the schedule of an interval.

        Parameters
        ----------
        bids : ndarray (n, len(BID_FIELDS))
        weights : Weights
            Factors on the coefficients, one per SMO.
        frozen : ndarray of bool (n,)
            SMOs that do not answer: they are taken to go on as they were told last.
        held : (p_load, p_gen, q_gen), each (n,)
            What they were told last.

        Raises
        ------
        MarketError
            There is no dispatch, or the bids are none.
        """
        problem = self._problem(_with_frozen(bids, frozen, held))
        n = self._network.size
        factors = Weights(np.ones(n), np.ones(n), weights.xi)
        factors.alpha[self._rows] = weights.alpha
        factors.beta[self._rows] = weights.beta
        clearing = self._market.clear(weighted(problem, factors))
        d, rows, mw = clearing.dispatch, self._rows, self._mw
        return Schedule(
            p_load=d.p_load[rows] * mw,
            q_load=d.q_load[rows] * mw,
            p_gen=d.p_gen[rows] * mw,
            q_gen=d.q_gen[rows] * mw,
            prices=clearing.prices.at(rows, per=mw),
            p_import=d.p_import * mw,
            cone_gap_pu=clearing.cone_gap_pu,
            exact=clearing.exactness.exact,
        )

    def _problem(self, bids: FloatArray) -> ClearingProblem:
        """Put the bids on their rows of the network, per unit."""
        table = np.zeros((self._network.size, len(BID_FIELDS)))
        table[self._rows] = bids
        columns = {}
        for i, f in enumerate(fields(Bids)):
            # Coefficients are money per (base power)^2, powers per unit of it.
            scale = self._mw**2 if f.name in _COSTS else 1.0 / self._mw
            columns[f.name] = table[:, i] * scale
        return ClearingProblem(
            self._network,
            Bids(**columns),
            xi=self._xi * self._mw,
            import_price=self._price * self._mw,
            v_min_pu=self._band[0],
            v_max_pu=self._band[1],
        )


def _with_frozen(
    bids: FloatArray,
    frozen: NDArray[np.bool_],
    held: tuple[FloatArray, FloatArray, FloatArray],
) -> FloatArray:
    """Return the bids with those of silent SMOs pinned to what they were told last."""
    if not frozen.any():
        return bids
    p_load, p_gen, q_gen = held
    tangent = np.divide(bids[:, 1], bids[:, 0], out=np.zeros_like(p_load), where=bids[:, 0] != 0.0)
    idle = np.full_like(p_load, IDLE_COST)
    pinned = np.stack(
        [p_load, tangent * p_load, p_load, p_load, p_gen, p_gen, q_gen, q_gen, idle, idle, idle],
        axis=1,
    )
    return np.where(frozen[:, None], pinned, bids)
