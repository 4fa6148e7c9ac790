"""Central clearing of the primary market, with a solver that keeps its workspace.

An operator that sees every bid solves the branch-flow cone program of `central_form` with clarabel.
Between clearings of the same network only numbers change, so the solver is updated, not rebuilt;
presolve is off because it would remove the very entries that change. An interior-point solver
cannot start from the last solution: what is saved is the set-up, not the iterations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.checks import check_bids
from controllers.market.model.costs import cost, reactive_load
from controllers.market.model.errors import MarketError, NoDispatchError
from controllers.market.model.exactness import Exactness, exactness
from controllers.market.model.prices import Flows, PriceModel, Prices
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.central_form import ConeData, ConeForm, Freedom, typical_flow
from grid_models.branch_flow.model import BranchNetwork

TOLERANCE = 1e-8
REDUCED_TOLERANCE = 1e-6
_SOLVED = {"Solved": "solved", "AlmostSolved": "almost solved"}
_ENDED = {*_SOLVED, "PrimalInfeasible"}


@dataclass(frozen=True)
class Clearing:
    """A cleared interval and how far it can be trusted.

    Attributes
    ----------
    dispatch : Dispatch
    prices : Prices. Their totals are `Dispatch.lmp_p` and `Dispatch.lmp_q`.
    status : str. 'solved' to the tolerance, or 'almost solved': only to `REDUCED_TOLERANCE`.
    exactness : Exactness. Of the relaxation at this solution.
    price_mismatch : Largest difference between the prices and the solver's own duals, relative to
        the largest price.
    v_high, v_low, current : ndarray of float, (n,)
        Multipliers, 0 or more: what one unit of the squared limit is worth per hour.
    solve_s : float. The solver's own figure; it counts the set-up of its workspace every time.
    rebuilt : Whether the solver had to be set up: the first time, and when a device has room
        between its limits that had none in any clearing before.
    """

    dispatch: Dispatch
    prices: Prices
    status: str
    exactness: Exactness
    price_mismatch: float
    v_high: FloatArray
    v_low: FloatArray
    current: FloatArray
    iterations: int
    solve_s: float
    rebuilt: bool

    @property
    def cone_gap_pu(self) -> float:
        """Largest cone gap ``v_i l - (P^2 + Q^2)`` over the lines."""
        return self.exactness.gap_pu


class CentralMarket:
    """Clears problems on one network, one after the other.

    Parameters
    ----------
    tolerance : Of the solver: duality gap and feasibility, absolute and relative. Where it stalls
        before, a solution to `REDUCED_TOLERANCE` is accepted, and says so in its status.
    """

    def __init__(self, network: BranchNetwork, *, tolerance: float = TOLERANCE) -> None:
        self.network = network
        self._tolerance = tolerance
        self._price_model = PriceModel(network)
        self._form: ConeForm | None = None
        self._solver: Any = None

    def clear(self, problem: ClearingProblem) -> Clearing:
        """Return the least-cost dispatch of `problem` and its prices.

        Raises
        ------
        BidError, MarketError: The problem is none (`checks.check_bids`), or of another network.
        NoDispatchError
            No dispatch satisfies the limits; the message names the limit that stands out.
        """
        if problem.network is not self.network and not _alike(problem.network, self.network):
            raise MarketError(
                "the problem is of another network",
                where="clearing problem",
                expected="the network that this market was made for",
            )
        check_bids(problem)
        form, rebuilt = self._prepared(problem)
        solution = self._solver.solve()
        if str(solution.status) not in _ENDED and not rebuilt:
            # Scaled for other numbers, perhaps too different ones: once more from nothing.
            self._form = None
            form, rebuilt = self._prepared(problem)
            solution = self._solver.solve()
        z = np.asarray(solution.z)
        if str(solution.status) not in _SOLVED:
            self._form = None
            raise _no_dispatch(form, str(solution.status), z)
        return self._clearing(problem, form, solution, z, rebuilt=rebuilt)

    def _prepared(self, problem: ClearingProblem) -> tuple[ConeForm, bool]:
        """Load the numbers of `problem` into the solver, which is set up if need be."""
        needed = Freedom.of(problem.bids)
        sloped = problem.import_slope > 0.0
        form = self._form
        if form is None or form.sloped != sloped or not form.free.covers(needed):
            free = needed if form is None else form.free.union(needed)
            flow = typical_flow(self.network, problem.bids)
            self._form, self._solver = ConeForm(self.network, free, flow, sloped=sloped), None
        assert self._form is not None
        data = self._form.data(problem)
        if self._solver is None:
            self._solver = new_solver(self._form, data, self._tolerance)
            return self._form, True
        self._solver.update(P=data.p, q=data.q, A=data.a, b=data.b)
        return self._form, False

    def _clearing(
        self,
        problem: ClearingProblem,
        form: ConeForm,
        solution: Any,
        z: FloatArray,
        *,
        rebuilt: bool,
    ) -> Clearing:
        found, dual = form.primal(problem, np.asarray(solution.x)), form.duals(z)
        flows = Flows(found["p_line"], found["q_line"], found["l_line"], found["v_sq"])
        sigma = dual["v_high"] - dual["v_low"]
        first = self.network.parent == 0
        p_import = float(found["p_line"][first].sum() + found["p_load"][0] - found["p_gen"][0])
        prices = self._price_model.prices(problem, flows, sigma, dual["current"], p_import)
        dispatch = _dispatch(problem, found, prices, p_import)
        return Clearing(
            dispatch=dispatch,
            prices=prices,
            status=_SOLVED[str(solution.status)],
            exactness=exactness(self.network, dispatch),
            price_mismatch=_mismatch(dispatch, dual),
            v_high=dual["v_high"],
            v_low=dual["v_low"],
            current=dual["current"],
            iterations=int(solution.iterations),
            solve_s=float(solution.solve_time),
            rebuilt=rebuilt,
        )


def new_solver(form: ConeForm, data: ConeData, tolerance: float) -> Any:
    """Return a clarabel solver of `data` that takes new numbers of the same pattern."""
    import clarabel

    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False  # else the solver takes no new data
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    settings.reduced_tol_gap_abs = settings.reduced_tol_gap_rel = REDUCED_TOLERANCE
    settings.reduced_tol_feas = REDUCED_TOLERANCE
    cones = [clarabel.ZeroConeT(form.n_equal), clarabel.NonnegativeConeT(form.n_inequal)]
    cones += [clarabel.SecondOrderConeT(4) for _ in range(form.lines)]
    p, a = form.matrices(data)
    return clarabel.DefaultSolver(p, data.q, a, data.b, cones, settings)


def _dispatch(
    problem: ClearingProblem, found: dict[str, FloatArray], prices: Prices, p_import: float
) -> Dispatch:
    net, bids = problem.network, problem.bids
    q_load = reactive_load(bids, found["p_load"])
    first = net.parent == 0
    shunt = net.b_pu[0] * found["v_sq"][0]
    q_import = found["q_line"][first].sum() + q_load[0] - found["q_gen"][0] - shunt
    total = cost(
        problem,
        p_gen=found["p_gen"],
        q_gen=found["q_gen"],
        p_load=found["p_load"],
        l_line=found["l_line"],
        p_import=p_import,
    )
    return Dispatch(
        **found,
        q_load=q_load,
        p_import=p_import,
        q_import=float(q_import),
        lmp_p=prices.p.total,
        lmp_q=prices.q.total,
        cost=total,
    )


def _mismatch(dispatch: Dispatch, dual: dict[str, FloatArray]) -> float:
    apart = max(
        float(np.abs(dispatch.lmp_p - dual["price_p"])[1:].max(initial=0.0)),
        float(np.abs(dispatch.lmp_q - dual["price_q"])[1:].max(initial=0.0)),
    )
    return apart / max(float(np.abs(dispatch.lmp_p).max()), 1.0)


def _no_dispatch(form: ConeForm, status: str, z: FloatArray) -> NoDispatchError:
    if "PrimalInfeasible" in status:
        bus, kind = form.worst_bus(z)
        return NoDispatchError(
            f"no dispatch satisfies the limits; {kind} at bus '{bus}' stands out",
            status=status,
            where="primary market",
            expected="wider voltage or current limits, more generation or more flexible load",
        )
    return NoDispatchError(
        f"the solver stopped without a dispatch ({status})",
        status=status,
        where="primary market",
        expected="bids and limits of ordinary size, per unit",
    )


def _alike(a: BranchNetwork, b: BranchNetwork) -> bool:
    scales = [np.ones(n.size) if n.v_scale is None else n.v_scale for n in (a, b)]
    return (
        a.buses == b.buses
        and (a.v_root_pu, a.base_kva) == (b.v_root_pu, b.base_kva)
        and np.array_equal(scales[0], scales[1])
        and all(
            np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("parent", "r_pu", "x_pu", "l_max_pu", "b_pu")
        )
    )
