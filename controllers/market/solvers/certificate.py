"""Two bounds of a clearing's optimum from an iterate: what is certain of the dispatch at hand.

An iterate satisfies its equations only nearly, so its own cost bounds nothing: where a voltage
limit is dear, voltages a thousandth wrong make it cheaper than the optimum. Both bounds are
therefore taken from points that satisfy their equations.

- **Above**: the iterate's set-points with the flows that physics gives them. Where these leave the
  voltage band or a rating they are mixed with a power flow that keeps them with room to spare. The
  relaxed problem is convex, so a share theta of the second is a point within all limits that costs
  at most theta of the difference more (the argument of Slater's condition: S. Boyd and L.
  Vandenberghe, "Convex Optimization", 2004, sec. 5.2.3).
- **Below**: the dual value at the marginal prices of those flows under the iterate's multipliers
  of the limits. Such prices (`controllers.market.solvers.tree_prices`) are feasible for the dual.

Both are sweeps of the tree, as the starts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from controllers.market.model.costs import cost, reactive_load
from controllers.market.model.problem import ClearingProblem
from controllers.market.solvers.atoms import (
    P_GEN,
    P_LOAD,
    Q_GEN,
    Atoms,
    L,
    P,
    Q,
    V,
    W,
)
from controllers.market.solvers.cone import project_line
from controllers.market.solvers.tree_prices import TreePrices, marginal_prices
from controllers.market.solvers.warm_start import Flow, Tree, best_response, power_flow

# Shares of the multipliers' worth at which buses are asked again for a dispatch with room to spare.
_DEARER = (2.0, 1.2)
# A power flow that still moves by this has not been found; below this voltage the sweep stops.
_FLOW_ERROR, _FLOW_V_SQ = 1e-9, 0.05
# Of a limit on squared voltage or current: rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is certain of a clearing.

    Attributes
    ----------
    lower, upper : The optimum lies between them, money per hour; infinite where nothing is known.
    excess_pu : By how much the set-points, carried by physics, leave the limits at most: the
        voltage band in pu, a line's rating as a part of it. Infinite where they have no power flow.
    """

    lower: float
    upper: float
    excess_pu: float

    def gap(self, cost: float) -> float:
        """Return a bound on ``|cost - optimum|`` over the cost."""
        if not np.isfinite(cost):
            return float("inf")
        return (max(self.upper, cost) - min(self.lower, cost)) / max(abs(cost), 1e-9)


NOTHING = Certificate(-np.inf, np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class DualValue:
    """The Lagrangian's minimum at some duals.

    Attributes
    ----------
    value : float. Money per hour; what sticks out of a line's cone is counted at the iterate.
    error : Worth of what sticks out: zero where the duals are feasible, and `value` a lower bound.
    voltage : ndarray (n,). Reduced cost of each squared voltage, scaled.
    rating : (n,); Price of each line's rating, scaled; zero but for the lines at their limit.
    """

    value: float
    error: float
    voltage: FloatArray
    rating: FloatArray


def at_limit(atoms: Atoms, x: FloatArray) -> NDArray[np.bool_]:
    """Return which lines carry their rated current at scaled x, (n,)."""
    l_max = atoms.limits.l_max
    out: NDArray[np.bool_] = np.isfinite(l_max) & (x[L] >= l_max * (1.0 - 1e-6))
    out[0] = False
    return out


def dual_value(atoms: Atoms, x: FloatArray, y: FloatArray, limited: NDArray[np.bool_]) -> DualValue:
    """Return the dual value at scaled duals y.

    Over the boxes it is the minimum of the Lagrangian. Over a line's cone it is 0 when the reduced
    costs ``g`` lie in the (self-dual) cone. On a line with a rating the minimum is finite for any
    g with ``g_w > 0``: with l given, ``w = (P^2 + Q^2)/(2 l)`` and ``(P, Q) = -(g_P, g_Q) l/g_w``
    are best, which leaves ``(g_l - (g_P^2 + g_Q^2)/(2 g_w)) l``, hence ``-kappa l_max`` with
    ``kappa = max(0, (g_P^2 + g_Q^2)/(2 g_w) - g_l)``, the price of the rating.

    Parameters
    ----------
    atoms : Atoms
    x, y : ndarray, shapes (8, n) and (4, n)
    limited : (n,); Lines whose rating has a price, see `at_limit`. Others are taken as if they had
        no rating, which is a bound as well: a loose rating must not be paid for at its full size.
    """
    limits = atoms.limits
    reduced = limits.slope + atoms.all_pull(y)
    g, curve = reduced[:P], limits.curve[:P]
    flat = np.where(g > 0.0, limits.low[:P], limits.high[:P])
    least = np.clip(
        np.divide(-g, curve, out=flat, where=curve > 0.0), limits.low[:P], limits.high[:P]
    )
    boxes = float(np.sum((0.5 * curve * least + g) * least))
    line = reduced[P:].copy()
    priced = limited & (line[3] > 0.0)
    rating = np.zeros(atoms.m)
    flow_p, flow_q, current, copy = line[:, priced]
    rating[priced] = np.maximum((flow_p**2 + flow_q**2) / (2.0 * copy) - current, 0.0)
    line[2] += rating
    outside = line - np.array(project_line(line[0], line[1], line[2], line[3]))
    # With its price the rated line's costs lie on the cone: what is left there is rounding.
    outside[:, priced] = 0.0
    # At the root the line is free: all of its reduced cost is error.
    outside[:2, 0] = reduced[P : Q + 1, 0]
    outside[2:, 0] = 0.0
    worth = outside * x[P:]
    rated = float(rating[priced] @ limits.l_max[priced])
    # Without variables a row is minus its right-hand side.
    nothing = float(np.sum(y * atoms.all_rows(np.zeros_like(x)))) + atoms.cost(np.zeros_like(x))
    value = boxes + float(worth.sum()) - rated + nothing
    return DualValue(value, float(np.abs(worth).sum()), reduced[V], rating)


class Certifier:
    """Certifies iterates of one problem.

    Parameters
    ----------
    atoms : Atoms. All of them.
    """

    def __init__(self, problem: ClearingProblem, atoms: Atoms) -> None:
        self._atoms = atoms
        self._problem = problem
        self._tree = Tree(problem.network.parent)

    def certify(self, x: FloatArray, y: FloatArray) -> Certificate:
        """Return what the iterate (x, y), scaled, makes certain."""
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return NOTHING
        # Sweeps beyond what the network can carry grow without end; what they give is looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._certify(x, y)

    def _certify(self, x: FloatArray, y: FloatArray) -> Certificate:
        atoms = self._atoms
        own = x * atoms.scale
        here = _Carried.of(self._problem, self._tree, own[P_GEN], own[Q_GEN], own[P_LOAD])
        if here is None:
            return NOTHING
        limited = at_limit(atoms, x)
        duals = dual_value(atoms, x, y, limited)
        # A multiplier's sign says which limit it is of; off the limits there is none.
        low, high = x[V] <= atoms.limits.low[V], x[V] >= atoms.limits.high[V]
        v_worth = np.where(low, np.maximum(duals.voltage, 0.0), 0.0)
        v_worth = (v_worth + np.where(high, np.minimum(duals.voltage, 0.0), 0.0)) / atoms.scale[V]
        v_worth[0] = 0.0
        l_worth = duals.rating / atoms.scale[L]
        prices = self._prices(here, v_worth, l_worth)
        below = dual_value(
            atoms, here.scaled(atoms), prices.stacked(here.flow.l_line) / atoms.row_scale,
            limited,
        )  # fmt: skip
        lower = below.value - below.error
        upper = here.cost
        if (here.room < -_ROUNDING).any():
            asked = [
                self._answer(self._prices(here, dearer * v_worth, dearer * l_worth))
                for dearer in _DEARER
            ]
            upper = min(
                (_mended(here, other) for other in (*asked, *self._extremes) if other is not None),
                default=np.inf,
            )
        return Certificate(lower if np.isfinite(lower) else -np.inf, upper, here.excess_pu)

    def _prices(self, here: _Carried, v_worth: FloatArray, l_worth: FloatArray) -> TreePrices:
        # A voltage above its lower limit is worth something, so more of it costs less.
        return marginal_prices(self._problem, here.flow, -v_worth, l_worth, tree=self._tree)

    def _answer(self, prices: TreePrices) -> _Carried | None:
        answer = best_response(self._problem.bids, prices.p, prices.q)
        return _Carried.of(self._problem, self._tree, *answer)

    @cached_property
    def _extremes(self) -> tuple[_Carried | None, ...]:
        """All the support that devices can give to voltages, and the least."""
        bids = self._problem.bids
        most = bids.p_gen_max, bids.q_gen_max, bids.p_load_min
        least = bids.p_gen_min, bids.q_gen_min, bids.p_load_max
        return tuple(_Carried.of(self._problem, self._tree, *given) for given in (most, least))


@dataclass(frozen=True)
class _Carried:
    """Set-points with the flows that physics gives them.

    Attributes
    ----------
    room : (m,); What is left to each limit (squared voltages and currents), negative beyond it.
    """

    devices: FloatArray
    flow: Flow
    cost: float
    room: FloatArray
    excess_pu: float

    @staticmethod
    def of(
        problem: ClearingProblem, tree: Tree, p_gen: FloatArray, q_gen: FloatArray,
        p_load: FloatArray,
    ) -> _Carried | None:  # fmt: skip
        """Return it, or None where there is no power flow."""
        net = problem.network
        q_load = reactive_load(problem.bids, p_load)
        flow = power_flow(net, p_load - p_gen, q_load - q_gen, tree=tree)
        # Both are false for NaN.
        if not (flow.error <= _FLOW_ERROR and flow.v_sq.min() >= _FLOW_V_SQ):
            return None
        paid = cost(
            problem, p_gen=p_gen, q_gen=q_gen, p_load=p_load, l_line=flow.l_line,
            p_import=float(flow.p_line[0]),
        )  # fmt: skip
        v_sq, low, high = flow.v_sq[1:], problem.v_sq_min[1:], problem.v_sq_max[1:]
        rated = np.flatnonzero(np.isfinite(net.l_max_pu[1:])) + 1
        l_line, l_max = flow.l_line[rated], net.l_max_pu[rated]
        v = np.sqrt(v_sq)
        over = np.sqrt(l_line / np.maximum(l_max, _ROUNDING)) - 1.0
        beyond = (np.sqrt(low) - v, v - np.sqrt(high), over)
        return _Carried(
            devices=np.array([p_gen, q_gen, p_load]),
            flow=flow,
            cost=paid,
            room=np.concatenate([v_sq - low, high - v_sq, l_max - l_line]),
            excess_pu=float(np.concatenate(beyond).max(initial=0.0)),
        )

    def scaled(self, atoms: Atoms) -> FloatArray:
        """Return it as scaled variables, shape (8, n)."""
        x = np.zeros_like(atoms.scale)
        x[[P_GEN, Q_GEN, P_LOAD]] = self.devices
        x[V], x[P], x[Q], x[L] = (
            self.flow.v_sq, self.flow.p_line, self.flow.q_line, self.flow.l_line,
        )  # fmt: skip
        x[W, 1:] = self.flow.v_sq[atoms.network.parent[1:]]
        return x / atoms.scale


def _mended(here: _Carried, other: _Carried) -> float:
    """Return what `here` costs with the share of `other` that keeps all limits; inf: there is none.

    Limit i keeps ``(1 - theta) room_i + theta other_i >= 0``.
    """
    room, spare = here.room, other.room
    short = room < -_ROUNDING
    if (spare[short] <= 0.0).any():
        return float("inf")
    share = float(np.max(room[short] / (room[short] - spare[short])))
    tight = ~short & (spare < 0.0)
    most = room[tight] / (room[tight] - spare[tight])
    if share > most.min(initial=1.0):
        return float("inf")
    return (1.0 - share) * here.cost + share * other.cost
