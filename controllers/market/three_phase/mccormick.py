"""The thesis' three-phase market: currents, voltages, and McCormick envelopes for their products.

A relaxation: it clears at voltages and currents that need not belong to the powers it awards. So
each clearing is replayed: the dispatch has the voltages, the import and the cost that an AC power
flow gives its set-points, and the clearing says how far its own were from them
(`replay.ReplayGap`).
Nothing says that the dispatch is optimal or keeps the voltage band; for use take the exact form
(`controllers.market.three_phase.exact`).

Bounds of voltages and currents follow from those of the powers (`boxes`), the program is
`mccormick_form`. Source: thesis, "Admittance-based current injection model" and (5a)-(5d).
Loads that depend on the voltage (`PortProblem.fixed`) are held at what they draw at the power flow
of the wished loads; the replay has them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.model.errors import MarketError, NoDispatchError
from controllers.market.model.prices import Prices
from controllers.market.model.problem import PortProblem
from controllers.market.three_phase.boxes import Box, Sectors, power_box, tightened
from controllers.market.three_phase.dispatch import ComplexArray
from controllers.market.three_phase.limits import Limits
from controllers.market.three_phase.mccormick_form import Boxed, McCormickForm
from controllers.market.three_phase.objective import (
    PortObjective,
    check_problem,
)
from controllers.market.three_phase.prices import port_prices, terminal_prices
from controllers.market.three_phase.replay import (
    McCormickClearing,
    relaxed_flow,
    replay_gap,
)
from controllers.market.three_phase.result import dispatch_at, flow_at
from controllers.market.three_phase.sensitivity import Sensitivity
from grid_models.base.errors import PowerFlowError
from grid_models.current_injection.model import PortNetwork
from grid_models.current_injection.power_flow import PortFlow

TOLERANCE = 1e-8
_SOLVED = {"Solved": "solved", "AlmostSolved": "almost solved"}
# Voltages turn by at most this from those of the power flow of the wished loads: where the
# preprocessing starts, and the boxes without any.
_TURN = np.deg2rad(10.0)
# Magnitudes of the difference of two phases 120 degrees apart, each turned by up to `_TURN`.
_DELTA = (2.0 * np.sin(np.deg2rad(60.0) - _TURN), 2.0 * np.sin(np.deg2rad(60.0) + _TURN))
_SPARE = 1e-9


class McCormickMarket:
    """Clears problems on one network, one after the other.

    Parameters
    ----------
    weights, voltage_price, v_set_pu : See `objective.PortObjective`.
    rounds : Most rounds in which bounds are tightened; they end where they stall. 0: none.

    Raises MarketError: An option is none.
    """

    three_phase = True

    def __init__(
        self,
        network: PortNetwork,
        *,
        weights: Mapping[str, Any] | None = None,
        voltage_price: float = 0.0,
        v_set_pu: float = 1.0,
        rounds: int = 4,
    ) -> None:
        if rounds < 0:
            raise MarketError(f"is {rounds}", where="option 'rounds'", expected="0 or more")
        self.network = network
        self.objective = PortObjective(network, weights, voltage_price, v_set_pu)
        self.limits = Limits(network)
        self._rounds = rounds
        self._form: McCormickForm | None = None
        self._solver: Any = None
        form = network.i_source.conj().T @ network.z[network.source_nodes]
        values, vectors = np.linalg.eigh(0.5 * (form + form.conj().T))
        bent = np.abs(values) > 1e-12
        self._bend, self._bent = values[bent], vectors[:, bent].conj().T
        self._held = network.w != 0.0
        self._held[network.source_nodes] = False
        labels = {network.nodes[k] for k in network.source_nodes}
        ends = [(bus, phase) for bus, _, phase in (p.rpartition(".") for p in network.ports)]
        self._delta = np.array(["-" in phase for _, phase in ends], dtype=bool)
        self._at_source = np.array([f"{b}.{p.partition('-')[0]}" in labels for b, p in ends])

    def clear(self, problem: PortProblem) -> McCormickClearing:
        """Return the relaxation's dispatch, replayed, and its prices.

        Raises
        ------
        BidError, MarketError: The problem is none (`checks.check_bids`), or of another network.
        NoDispatchError
            No dispatch satisfies the relaxed limits, or the one found has no power flow.
        """
        check_problem(problem, self.network)
        at, rounds = self._boxed(problem)
        form = self._prepared(at)
        solution = self._solver.solve()
        if str(solution.status) not in _SOLVED:
            self._form = None
            raise _no_dispatch(str(solution.status))
        return self._clearing(problem, at, form, solution, rounds)

    # --- the program -----------------------------------------------------------------------------

    def _boxed(self, problem: PortProblem) -> tuple[Boxed, int]:
        """Return the numbers of the program, and how often its bounds were tightened."""
        net, objective = self.network, self.objective
        devices = objective.devices(problem)
        u, v, held = net.w_port, net.w, np.zeros(len(net.ports), dtype=np.complex128)
        try:
            base = flow_at(problem, devices.injection(devices.nominal()))
            u, v = base.u, base.v
            if problem.fixed is not None:
                held = problem.fixed.nominal - base.s_drawn
        except PowerFlowError:
            pass  # the wished loads may be more than the feeder carries
        turn = _direction(u)
        back = np.conj(turn)
        s = power_box(devices).affine(held, net.share.astype(np.complex128))
        z = net.z_port * turn * back[:, None]
        sectors = self._sectors(problem, np.abs(u))
        u_box, i_box, rounds = tightened(net.w_port * back, z, s, sectors, self._rounds)
        if u_box.is_empty:
            worst = int(np.argmin(np.minimum(u_box.half.real, u_box.half.imag)))
            raise NoDispatchError(
                f"no dispatch has a voltage within the band at port '{net.ports[worst]}'",
                status="infeasible",
                where="three-phase market",
                expected="a wider voltage band, more generation or more flexible load",
            )
        g_2 = objective.weights.generation
        price = g_2 * problem.import_price
        return Boxed(
            devices=devices,
            turn=turn,
            node_turn=_direction(v),
            u=u_box,
            i=i_box,
            held=held,
            import_at=self._import_bound(i_box, turn, price),
            objective=self._current_costs(problem),
            import_price=price,
            import_slope=g_2 * problem.import_slope,
            import_min=problem.import_min,
            import_max=problem.import_max,
            v_min=problem.v_min_pu,
            v_max=problem.v_max_pu,
        ), rounds

    def _sectors(self, problem: PortProblem, size: FloatArray) -> Sectors:
        """Return what is known of port voltages without a power flow, rotated."""
        low, high = np.full((2, len(size)), [[problem.v_min_pu], [problem.v_max_pu]])
        # The source's bus has no band: its voltage is given, behind a small impedance.
        nominal = size / np.where(self._delta, np.sqrt(3.0), 1.0)
        low = np.where(self._at_source, np.minimum(low, 0.95 * nominal), low)
        high = np.where(self._at_source, np.maximum(high, 1.05 * nominal), high)
        low, high = (v * np.where(self._delta, f, 1.0) for v, f in zip((low, high), _DELTA,
                                                                       strict=True))  # fmt: skip
        turn = np.where(self._delta, 2.0, 1.0) * _TURN
        dead = size == 0.0
        return Sectors(np.where(dead, 1.0, low), np.where(dead, 1.0, high), -turn, turn)

    def _import_bound(self, i: Box, turn: ComplexArray, price: float) -> tuple[float, ComplexArray]:
        """Return constant and gradient of an affine bound of the import over the boxes.

        From below, or from above where import earns money.
        """
        none = np.zeros(len(turn), dtype=np.complex128)
        y = i.affine(np.zeros(len(self._bend), dtype=np.complex128), self._bent * turn)
        wide = y.half.real**2 + y.half.imag**2
        constant = self.network.source_power(none).real - float(self._bend @ np.abs(y.mid) ** 2)
        constant += float((np.minimum if price >= 0.0 else np.maximum)(self._bend, 0.0) @ wide)
        gradient = self.objective.import_gradient(none)
        return constant, gradient + 2.0 * (self._bent.conj().T @ (self._bend * y.mid))

    def _current_costs(self, problem: PortProblem) -> tuple[ComplexArray, ComplexArray]:
        """Return gradient at no current and form of losses and voltages in the objective."""
        objective, net = self.objective, self.network
        none = np.zeros(len(net.ports), dtype=np.complex128)
        price = objective.loss_price(problem)
        gradient = price * (objective.import_gradient(none) + net.w_port)
        gradient = gradient + objective.voltage_gradient(net.w)
        return gradient, objective.form(0.0, price)

    def _prepared(self, at: Boxed) -> McCormickForm:
        """Load the numbers into the solver, which is set up where a limit comes within reach."""
        net = self.network
        back = np.conj(at.node_turn)
        v = at.i.affine(net.w * back, net.z * at.turn * back[:, None])
        held = self._held & ((v.high.real > at.v_max) | (v.low.real < at.v_min))
        far = at.i.affine(net.line_w, net.line_z * at.turn).farthest
        loaded = far > net.line_limit
        form = self._form
        if form is not None and form.holds(held, loaded):
            program = form.program(at)
            self._solver.update(P=program.p, q=program.q, A=program.a, b=program.b)
            return form
        if form is not None:
            held[form.nodes] = loaded[form.lines] = True
        self._form = form = McCormickForm(net, np.flatnonzero(held), np.flatnonzero(loaded))
        self._solver = _new_solver(form, form.program(at))
        return form

    # --- results ---------------------------------------------------------------------------------

    def _clearing(
        self, problem: PortProblem, at: Boxed, form: McCormickForm, solution: Any, rounds: int
    ) -> McCormickClearing:
        net, objective, devices = self.network, self.objective, at.devices
        x, z = np.asarray(solution.x), np.asarray(solution.z)
        device, p_import = form.devices_at(at, x), float(x[form.p])
        injected = devices.injection(device)
        try:
            flow = flow_at(problem, injected)
        except PowerFlowError as error:
            raise _no_dispatch(f"its dispatch has no power flow: {error}") from None
        high, low, line, import_limit = form.limit_worth(z)
        ports = self._prices(problem, flow, form.port_prices(z), (high, low, line, import_limit))
        prices = terminal_prices(net, ports)
        true_cost = objective.cost(problem, devices, device, flow)
        dispatch = dispatch_at(devices, device, flow, prices, true_cost)
        relaxed = relaxed_flow(net, form.currents(at, x))
        cost = self._relaxed_cost(problem, at, device, relaxed, p_import)
        replay = replay_gap(problem, flow, relaxed, p_import, (dispatch.cost, cost))
        return McCormickClearing(
            dispatch=dispatch,
            prices=prices,
            port_prices=ports,
            status=_SOLVED[str(solution.status)],
            exactness=replay.exactness(dispatch.p_import, net.base_kva),
            v_high=high,
            v_low=low,
            line_limit=line,
            import_limit=import_limit,
            iterations=int(solution.iterations),
            replay=replay,
            rounds=rounds,
            u_half=float(np.abs(at.u.half).mean()),
            i_half=float(np.abs(at.i.half).mean()),
        )

    def _relaxed_cost(
        self, problem: PortProblem, at: Boxed, x: FloatArray, relaxed: PortFlow, p_import: float
    ) -> float:
        """Return the program's objective: that of the market but for the import's."""
        own = self.objective.cost(problem, at.devices, x, relaxed)
        p = relaxed.s_import.real
        bent = 0.5 * at.import_slope
        return own + at.import_price * (p_import - p) + bent * (p_import**2 - p**2)

    def _prices(
        self,
        problem: PortProblem,
        flow: PortFlow,
        duals: ComplexArray,
        worth: tuple[FloatArray, FloatArray, FloatArray, float],
    ) -> Prices:
        """Return the duals of the balances in their parts.

        What limits and the voltage objective are worth is carried to the ports by the replayed
        power flow; losses are the rest.
        """
        high, low, line, import_limit = worth
        at = self.limits.values(problem, flow)
        # Multipliers are of squared limits there.
        twice = 2.0 * np.maximum(np.concatenate([np.abs(flow.v)] * 2 + [self.network.line_limit]),
                                 _SPARE)  # fmt: skip
        ends = max(import_limit, 0.0), max(-import_limit, 0.0)
        mu = np.append(np.concatenate([high, low, line]) / twice, ends)
        found = port_prices(
            self.objective,
            self.limits,
            problem,
            flow,
            at,
            Sensitivity(self.network, flow, problem.fixed),
            mu,
        )
        parts = []
        for price, part in ((duals.real, found.p), (duals.imag, found.q)):
            parts.append(replace(part, losses=part.losses + price - part.total))
        return Prices(*parts)


def _direction(x: ComplexArray) -> ComplexArray:
    """Return x at length 1; 1 where it is 0."""
    size = np.abs(x)
    return np.asarray(np.where(size > 0.0, x, 1.0) / np.where(size > 0.0, size, 1.0))


def _new_solver(form: McCormickForm, program: Any) -> Any:
    import clarabel

    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False  # else the solver takes no new data
    settings.input_sparse_dropzeros = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
    return clarabel.DefaultSolver(
        program.p, program.q, program.a, program.b, form.cones(), settings
    )


def _no_dispatch(status: str) -> NoDispatchError:
    infeasible = "PrimalInfeasible" in status
    return NoDispatchError(
        "no dispatch satisfies the relaxed limits"
        if infeasible
        else f"the solver stopped without a dispatch ({status})",
        status=status,
        where="three-phase market (McCormick)",
        expected="wider voltage, current or import limits, more generation or more flexible load"
        if infeasible
        else "bids and limits of ordinary size, per unit",
    )
