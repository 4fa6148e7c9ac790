"""What a clearing of the three-phase market returns, whatever the solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.exactness import Exactness
from controllers.market.model.prices import Prices
from grid_models.current_injection.model import BASE_KVA

ComplexArray = NDArray[np.complex128]


@dataclass(frozen=True)
class PortDispatch:
    """A solution on a network of t terminals, m ports and n nodes, per unit.

    Attributes
    ----------
    p_gen, q_gen, p_load, q_load : ndarray of float, (t,)
        Of each terminal; load as it is served, `shed` not included.
    shed : ndarray of float, (t,). Active load below the least that was bid.
    current : ndarray of complex, (m,). Injected at the ports.
    voltage : ndarray of complex, (n,). Of the nodes.
    p_import, q_import : float. At the source bus.
    losses : float. Active.
    lmp_p, lmp_q : ndarray of float, (t,). Prices of one more pu of load.
    cost : float. The objective, money per hour.
    """

    p_gen: FloatArray
    q_gen: FloatArray
    p_load: FloatArray
    q_load: FloatArray
    shed: FloatArray
    current: ComplexArray
    voltage: ComplexArray
    p_import: float
    q_import: float
    losses: float
    lmp_p: FloatArray
    lmp_q: FloatArray
    cost: float


@dataclass(frozen=True)
class PortClearing:
    """A cleared interval and how far it can be trusted.

    Attributes
    ----------
    dispatch : PortDispatch
    prices : Prices. Of the terminals: share-weighted means of those of their ports.
    port_prices : Prices. Of the ports, (m,).
    status : str. 'solved', or how the solver ended otherwise.
    exactness : Exactness
        Of the dispatch against the AC power flow of its powers. `gap_pu`: largest difference of a
        node's voltage, at the node `bus`; `relative`: of the import; `fictitious_loss_pu`: import
        of the power flow less that of the solver. Zero where the solver replays itself.
    v_high, v_low : ndarray of float, (n,). What one pu of a node's limit is worth per hour, >= 0.
    line_limit : ndarray of float, (r,). What one pu of a line's current limit is worth per hour.
    import_limit : float
        What one pu of the import's limit is worth per hour; below 0 where its lower end binds.
    iterations : int
    """

    dispatch: PortDispatch
    prices: Prices
    port_prices: Prices
    status: str
    exactness: Exactness
    v_high: FloatArray
    v_low: FloatArray
    line_limit: FloatArray
    import_limit: float
    iterations: int

    @property
    def cone_gap_pu(self) -> float:
        """Largest voltage error of the solver's model, in the place of a cone's gap."""
        return self.exactness.gap_pu

    @property
    def replay_gap_kw(self) -> float:
        """Import of the power flow of the dispatch less that of the solver's model, kW."""
        return self.exactness.fictitious_loss_pu * BASE_KVA
