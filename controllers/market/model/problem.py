"""What is cleared: the network of a feeder and one aggregated bid per bus, or per terminal.

Everything is per unit on the network's base; prices and costs are in money per hour. Injections are
split: generation is positive where it injects, load is positive where it draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from grid_models.branch_flow.model import BranchNetwork
from grid_models.current_injection.model import PortLoads, PortNetwork


@dataclass(frozen=True)
class Bids:
    """One aggregated bid per bus; every array has shape (n,), the network's order of buses.

    A bus without a market operator bids zeros. The cost of bus i is
    ``alpha_p/2 P_G^2 + alpha_q/2 Q_G^2 + beta (P_L - P_L0)^2`` (thesis, primary market); a load's
    reactive power follows its active power at the tangent `q_load0 / p_load0`.
    """

    p_load0: FloatArray
    q_load0: FloatArray
    p_load_min: FloatArray
    p_load_max: FloatArray
    p_gen_min: FloatArray
    p_gen_max: FloatArray
    q_gen_min: FloatArray
    q_gen_max: FloatArray
    alpha_p: FloatArray
    alpha_q: FloatArray
    beta: FloatArray


@dataclass(frozen=True)
class ClearingProblem:
    """One interval to clear.

    Attributes
    ----------
    bids : Bids
    xi : float. Price of losses, money per pu of loss.
    import_price : float
        Price of the import at the point of common coupling (the root bus), money per pu.
    import_slope : float
        What the price of the import rises by per pu of import, money per pu^2: the supply's price
        is ``import_price + import_slope P_import``. Only a central clearing takes one.
    v_min_pu, v_max_pu : float. Voltage band of every bus but the root, whose voltage is fixed.
    """

    network: BranchNetwork
    bids: Bids
    xi: float
    import_price: float
    v_min_pu: float = 0.95
    v_max_pu: float = 1.05
    import_slope: float = 0.0

    def marginal_import_price(self, p_import: float) -> float:
        """Return what one more pu of import costs at an import of `p_import`."""
        return self.import_price + self.import_slope * p_import

    @property
    def v_sq_min(self) -> FloatArray:
        """Smallest squared voltage of each bus on the network's own scale, (n,); not the root's."""
        return (self.v_min_pu / self._v_scale) ** 2

    @property
    def v_sq_max(self) -> FloatArray:
        """Largest squared voltage of each bus on the network's own scale, (n,); not the root's."""
        return (self.v_max_pu / self._v_scale) ** 2

    @property
    def _v_scale(self) -> FloatArray:
        """Feeder's voltage per unit for 1 pu of the network; see `BranchNetwork.v_scale`."""
        scale = self.network.v_scale
        return np.ones(self.network.size) if scale is None else scale


@dataclass(frozen=True)
class PortProblem:
    """One interval to clear on a three-phase network; bids are per terminal, (t,).

    Attributes as those of `ClearingProblem`, and

    fixed : What is drawn at the ports besides the bids' loads and depends on the voltage. The bids
        contain its nominal power: at port voltages u the ports draw
        ``share @ p_load + fixed.drawn(u) - fixed.nominal``. None: all loads are constant power.
    import_min, import_max : float. Range of the import, pu: that of a grid-forming unit.
    shed_price : float. Money per pu of load below `p_load_min`.
    p_load_floor : (t,) or None. Least load when load is shed; None: none is.
    """

    network: PortNetwork
    bids: Bids
    xi: float
    import_price: float
    v_min_pu: float = 0.95
    v_max_pu: float = 1.05
    import_slope: float = 0.0
    fixed: PortLoads | None = None
    import_min: float = -math.inf
    import_max: float = math.inf
    shed_price: float = math.inf
    p_load_floor: FloatArray | None = None

    def marginal_import_price(self, p_import: float) -> float:
        """Return what one more pu of import costs at an import of `p_import`."""
        return self.import_price + self.import_slope * p_import


AnyProblem = ClearingProblem | PortProblem


@dataclass(frozen=True)
class Dispatch:
    """A solution; arrays of shape (n,) in the network's order of buses, per unit.

    Row i of `p_line`, `q_line`, `l_line` is the line from bus i's parent to bus i, seen at the
    parent's end; zero at the root. `v_sq` and `l_line` are squared magnitudes. `lmp_p`, `lmp_q` are
    the prices of one more pu of load at each bus. `p_import`, `q_import` enter at the root.
    """

    p_gen: FloatArray
    q_gen: FloatArray
    p_load: FloatArray
    q_load: FloatArray
    p_line: FloatArray
    q_line: FloatArray
    l_line: FloatArray
    v_sq: FloatArray
    p_import: float
    q_import: float
    lmp_p: FloatArray
    lmp_q: FloatArray
    cost: float
