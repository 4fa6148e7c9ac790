"""A lower bound of the three-phase market's cost: its branch-flow semidefinite relaxation.

The exact clearing finds a local optimum; this bounds the cost of any dispatch from below. Offline:
it takes seconds. The feeder is radial (`branch_flow_sdp`). A port between two
phases injects ``diag(D X)`` with ``X = V i^H``, and ``diag(X D)`` at its nodes, where D
takes differences of phases and ``[W X; X^H i i^H] >= 0`` (C. Zhao, E. Dall'Anese and S. Low,
"Optimal power flow in multiphase radial networks with delta connections", 2017). The largest
possible current bounds its last block, which nothing else does.

What the relaxation has no variable for is bounded from below, and named in `Certificate.notes`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.errors import MarketError, NoDispatchError
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.boxes import power_box
from controllers.market.three_phase.branch_flow_sdp import BranchFlow, diagonal, hermitian
from controllers.market.three_phase.objective import (
    PortObjective,
    check_problem,
)
from grid_models.current_injection.tree import BranchTree

_TOLERANCE = 1e-8
# The numbers of the program are scaled already; the solver's own scaling makes it worse.
_SETTINGS = {
    "tol_gap_abs": _TOLERANCE, "tol_gap_rel": _TOLERANCE, "tol_feas": _TOLERANCE,
    "equilibrate_enable": False, "chordal_decomposition_enable": False, "max_threads": 1,
}  # fmt: skip
_GIVEN_UP = ("NumericalError", "InsufficientProgress", "MaxIterations")
# Unit of a current that is none.
_LEAST_UNIT = 1e-3
# Two phases of a bus are at least so far apart, radian: 120 degrees less 10 for each.
_APART = np.deg2rad(100.0)


@dataclass(frozen=True)
class Certificate:
    """A lower bound of the cost of any dispatch.

    Attributes
    ----------
    lower_bound : float. Money per hour: the dual objective of the relaxation.
    rank_ratio : float
        Largest ratio of the second to the first eigenvalue of the branches' blocks. Where it is
        small the relaxation's solution is a power flow, and the bound is the optimum.
    rank_at : str. Bus below that branch.
    p_import : float. Of the relaxation, pu.
    solve_s : float. The solver's own time.
    notes : What the bound leaves out.
    """

    lower_bound: float
    rank_ratio: float
    rank_at: str
    p_import: float
    solve_s: float
    notes: tuple[str, ...]

    def gap(self, cost: float) -> float:
        """Return by how much a dispatch of this cost may be above the optimum, relative."""
        return (cost - self.lower_bound) / max(abs(cost), 1e-9)


def certify(
    tree: BranchTree,
    problem: PortProblem,
    *,
    weights: Mapping[str, Any] | None = None,
    voltage_price: float = 0.0,
    v_set_pu: float = 1.0,
) -> Certificate:
    """Return the certificate of a problem.

    Parameters
    ----------
    tree : Of the circuit that `problem.network` was made from.
    weights, voltage_price, v_set_pu : See `objective.PortObjective`.

    Raises
    ------
    BidError, MarketError: The problem is none.
    NoDispatchError: The relaxation is infeasible, so there is no dispatch; or the solver stopped.
    """
    check_problem(problem, problem.network)
    objective = PortObjective(problem.network, weights, voltage_price, v_set_pu)
    return _Relaxation(tree, problem, objective).solve()


class _Relaxation:
    """Variables and constraints of one problem, in cvxpy."""

    def __init__(self, tree: BranchTree, problem: PortProblem, objective: PortObjective) -> None:
        import cvxpy as cp

        self._cp, self._tree, self._problem, self._objective = cp, tree, problem, objective
        self._devices = objective.devices(problem)
        self._at = self._places()
        self._largest = self._largest_current()
        self._flow = flow = BranchFlow(tree, self._units())
        self._rules, self.notes, self._w = flow.rules, flow.notes, flow.w
        if tree.unrated:
            lines = len(tree.unrated)
            self.notes.append(f"current limits in dead ends are left out: {lines} lines")
        self._u_sq = self._port_voltages()
        self._injections()
        self._balances()
        self._limits()

    # --- ports -----------------------------------------------------------------------------------

    def _places(self) -> list[tuple[int, FloatArray]]:
        """Return the bus of each port, and its row of differences of that bus' voltages."""
        net, tree = self._problem.network, self._tree
        index = {label: k for k, label in enumerate(net.nodes)}
        found = []
        for j, port in enumerate(net.ports):
            bus, _, phases = port.rpartition(".")
            if not net.w_port[j]:
                found.append((-1, np.zeros(0)))
                continue
            nodes = [index[f"{bus}.{phase}"] for phase in phases.split("-")]
            row = tree.node_row[nodes[0]] - (tree.node_row[nodes[1]] if nodes[1:] else 0.0)
            across = net.z[nodes[0]] - (net.z[nodes[1]] if nodes[1:] else 0.0)
            if np.abs(across - net.z_port[j]).max() > 1e-9 * np.abs(net.z_port[j]).max():
                raise MarketError(
                    f"port '{port}' is between a phase and a neutral conductor",
                    where="certificate",
                    expected="ports to ground or between phases",
                )
            found.append((int(tree.node_bus[nodes[0]]), row.real))
        return found

    def _port_voltages(self) -> Any:
        """Return squared port voltages, (m,)."""
        cp = self._cp
        rows = [
            cp.real(d[None, :] @ self._w[bus] @ d[:, None]) if bus >= 0 else np.zeros((1, 1))
            for bus, d in self._at
        ]
        return cp.vstack(rows)[:, 0]

    def _injections(self) -> None:
        """Make the powers of devices and ports."""
        cp, problem, d = self._cp, self._problem, self._devices
        net = problem.network
        # As part of the range: a range of no width leaves the solver room, too.
        self.part = cp.Variable(d.low.shape)
        self._rules += [self.part >= 0.0, self.part <= 1.0]
        self.x = d.low + cp.multiply(d.high - d.low, self.part)
        ones = np.ones(net.size, dtype=np.complex128)
        active, reactive = (d.pulled_back(ones * unit) for unit in (1, 1j))
        at_rest = d.injection(np.zeros_like(d.low))
        p = net.share @ (cp.sum(cp.multiply(active, self.x), axis=0) + at_rest.real)
        q = net.share @ (cp.sum(cp.multiply(reactive, self.x), axis=0) + at_rest.imag)
        if problem.fixed is not None:
            more = self._by_voltage()
            p, q = p + more[0], q + more[1]
        self.p, self.q = p, q

    def _by_voltage(self) -> tuple[Any, Any]:
        """Return what ports inject more than their loads' nominal power, as voltages have it."""
        cp, fixed = self._cp, self._problem.fixed
        assert fixed is not None
        square = cp.multiply(1.0 / fixed.u_nominal**2, self._u_sq)
        of_i = np.flatnonzero(fixed.s_i)
        size: Any = np.ones(len(fixed.u_nominal))
        if of_i.size:
            # |u| lies between the chord and the root of its square.
            size = cp.Variable(len(fixed.u_nominal))
            low, high = (v / fixed.u_nominal for v in self._bounds())
            chord = low + cp.multiply(1.0 / (high + low), square - low**2)
            self._rules += [size >= chord, cp.square(size) <= square]
            self.notes.append(
                f"loads of constant current draw a little less or more than they do: "
                f"{of_i.size} ports"
            )
        return tuple(
            -cp.multiply(part(fixed.s_i), size - 1.0) - cp.multiply(part(fixed.s_z), square - 1.0)
            for part in (np.real, np.imag)
        )

    def _bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return bounds of port voltages within the band."""
        p = self._problem
        delta = np.array([np.count_nonzero(d) > 1 for _, d in self._at])
        source = np.array([bus == 0 for bus, _ in self._at])
        low = np.where(delta, 2.0 * np.sin(_APART / 2.0), 1.0) * p.v_min_pu
        high = np.where(delta, 2.0 * np.sin(np.deg2rad(70.0)), 1.0) * p.v_max_pu
        size = np.abs(p.network.w_port)
        return np.where(source, 0.9 * size, low), np.where(source, 1.1 * size, high)

    def _balances(self) -> None:
        """Let power that flows into each node leave it."""
        at_bus: dict[int, list[int]] = {}
        for j, (bus, _) in enumerate(self._at):
            at_bus.setdefault(bus, []).append(j)
        for bus, flow in enumerate(self._flow.inflows()):
            here = at_bus.get(bus, [])
            straight = [j for j in here if np.count_nonzero(self._at[j][1]) == 1]
            if straight:
                places = np.array([self._at[j][1] for j in straight]).T
                flow = flow + places @ (self.p[straight] + 1j * self.q[straight])
            across = [j for j in here if j not in straight]
            if across:
                flow = flow + self._delta(bus, across)
            self._rules.append(flow == 0)

    def _delta(self, bus: int, ports: list[int]) -> Any:
        """Return what ports between phases inject at the nodes of their bus."""
        cp, k, unit = self._cp, len(ports), np.maximum(self._largest[ports], _LEAST_UNIT)
        d = np.array([self._at[j][1] for j in ports])
        x_unit, square = cp.Variable((d.shape[1], k), complex=True), hermitian(k)
        self._rules.append(cp.bmat([[self._w[bus], x_unit], [x_unit.H, square]]) >> 0)
        self._rules.append(cp.real(diagonal(square)) <= 1.0)
        x = x_unit @ np.diag(unit)
        self._rules.append(diagonal(d @ x) == self.p[ports] + 1j * self.q[ports])
        return diagonal(x @ d)

    def _units(self) -> FloatArray:
        """Return the sum of the largest port currents at and below each bus."""
        total = np.zeros(len(self._tree.buses))
        for (bus, _), largest in zip(self._at, self._largest, strict=True):
            total[bus] += largest if bus >= 0 else 0.0
        for b in reversed(self._tree.branches):
            total[b.parent] += total[b.child]
        return np.maximum(total, _LEAST_UNIT)

    def _largest_current(self) -> FloatArray:
        """Return the largest possible current of each port, (m,)."""
        p, net = self._problem, self._problem.network
        box = power_box(self._devices).affine(
            np.zeros(len(net.ports), dtype=np.complex128), net.share.astype(np.complex128)
        )
        far = np.maximum(np.abs(box.low.real), np.abs(box.high.real)) + 1j * np.maximum(
            np.abs(box.low.imag), np.abs(box.high.imag)
        )
        size = np.abs(far)
        if p.fixed is not None:
            size = size + np.abs(p.fixed.s_i) + np.abs(p.fixed.s_z)
        return np.asarray(1.05 * size / self._bounds()[0])

    # --- limits and cost -------------------------------------------------------------------------

    def _node_voltages(self) -> list[tuple[int, Any]]:
        """Return the nodes that have a band, and their squared voltages."""
        cp, tree = self._cp, self._tree
        found = []
        for node, (bus, row) in enumerate(zip(tree.node_bus, tree.node_row, strict=True)):
            if bus >= 0 and node not in self._problem.network.source_nodes:
                w = self._w[bus]
                at = np.flatnonzero(row)
                plain = at.size == 1 and row[at[0]] == 1.0
                v = w[at[0], at[0]] if plain else (row[None, :] @ w @ row.conj()[:, None])[0, 0]
                shift = self._flow.shifts[bus]
                less = 0.0 if shift is None else np.abs(row) ** 2 @ shift
                found.append((node, cp.real(v) - less))
        return found

    def _limits(self) -> None:
        cp, p, tree = self._cp, self._problem, self._tree
        v_sq = cp.hstack([v for _, v in self._node_voltages()])
        self._rules += [v_sq >= p.v_min_pu**2, v_sq <= p.v_max_pu**2]
        for one in tree.rated:
            limit = p.network.line_limit[one.line]
            self._rules.append(self._flow.current_sq(one) <= limit**2)
        if np.isfinite(p.import_max):
            self._rules.append(self._flow.p_import <= p.import_max)
        if np.isfinite(p.import_min):
            self._rules.append(self._flow.p_import >= p.import_min)
        self._v_sq = v_sq

    def _cost(self) -> Any:
        cp, p, o, d = self._cp, self._problem, self._objective, self._devices
        width = d.high - d.low
        cost = d.cost(d.low) + cp.sum(cp.multiply(d.gradient(d.low) * width, self.part))
        cost += 0.5 * cp.sum(cp.multiply(d.curvature * width**2, cp.square(self.part)))
        price = o.weights.generation
        cost += price * p.import_price * self._flow.p_import
        if p.import_slope:
            cost += 0.5 * price * p.import_slope * cp.square(self._flow.p_import)
        cost += o.loss_price(p) * (self._flow.p_import + cp.sum(self.p))
        if o.voltage_price:
            self.notes.append("the voltage objective counts magnitudes only, not angles")
            v_set = float(np.abs(o.v_set).max())
            # |v - v_set e^{j a}| is at least ||v| - v_set|; the source's voltage is left out.
            away = self._v_sq - 2.0 * v_set * cp.sqrt(self._v_sq) + v_set**2
            cost += o.voltage_price * cp.sum(away)
        return cost

    def solve(self) -> Certificate:
        """Return the certificate."""
        cp = self._cp
        problem = cp.Problem(cp.Minimize(self._cost()), self._rules)
        data, chain, inverse = problem.get_problem_data(
            cp.CLARABEL, canon_backend="SCIPY", solver_opts={}
        )
        found = chain.solve_via_data(problem, data, solver_opts=_SETTINGS)
        if str(found.status) in _GIVEN_UP:
            # Where there is no solution its own scaling helps the solver to say so.
            again = {**_SETTINGS, "equilibrate_enable": True}
            found = chain.solve_via_data(problem, data, solver_opts=again)
        if str(found.status) in _GIVEN_UP:
            raise _no_bound(str(found.status))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said in the notes
            problem.unpack_results(found, chain, inverse)
        if problem.status not in ("optimal", "optimal_inaccurate"):
            raise _no_bound(problem.status)
        if problem.status != "optimal":
            self.notes.append(
                f"the solver stopped at residuals of {max(found.r_prim, found.r_dual):.0e}"
            )
        ratios = {i: self._flow.rank_ratio(i) for i in self._flow.blocks}
        worst = max(ratios, key=lambda i: ratios[i], default=-1)
        return Certificate(
            lower_bound=float(problem.value) - found.obj_val + _dual_bound(data, found),
            rank_ratio=ratios.get(worst, 0.0),
            rank_at=self._tree.buses[worst + 1],
            p_import=float(self._flow.p_import.value),
            solve_s=float(found.solve_time),
            notes=tuple(self.notes),
        )


def _dual_bound(data: Mapping[str, Any], found: Any) -> float:
    """Return what the duals bound the program's cost by from below.

    With ``r = P x + q + A'z`` left over of the dual's equations any feasible point y costs at least
    ``-b'z - x'Px/2 + r'y``; y is taken to be the solver's x, give or take a hundredth.
    """
    x, z = np.asarray(found.x), np.asarray(found.z)
    curved = data["P"] @ x if data.get("P") is not None else np.zeros_like(x)
    rest = curved + data["c"] + data["A"].T @ z
    spread = 0.01 * np.maximum(np.abs(x), 0.01)
    bound = -data["b"] @ z - 0.5 * x @ curved + rest @ x - np.abs(rest) @ spread
    return float(bound)


def _no_bound(status: str) -> NoDispatchError:
    infeasible = "infeasible" in status
    return NoDispatchError(
        "no dispatch satisfies the limits, not even relaxed"
        if infeasible
        else f"the solver stopped without a bound ({status})",
        status=status,
        where="certificate",
        expected="limits that a dispatch can keep" if infeasible else "bids of ordinary size",
    )
