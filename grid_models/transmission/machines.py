"""A transmission system with synchronous machines, advanced in time."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import astuple
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import nearest_name
from grid_models.transmission.equations import Demands, Equations
from grid_models.transmission.machine_circuit import classical, sixth_order
from grid_models.transmission.machine_options import Controls, LoadModel
from grid_models.transmission.model import (
    BusDemand,
    Disturbance,
    FloatArray,
    TransmissionError,
    TransmissionEvent,
    TransmissionState,
)
from grid_models.transmission.power_flow import power_flow
from grid_models.transmission.protection import (
    GenerationControl,
    LoadShedding,
    MachineProtection,
    Relays,
    SecondaryControl,
    Shedding,
)
from grid_models.transmission.solver import NoSolutionError, Trapezoid
from grid_models.transmission.system import TransmissionSystem, as_complex, connected

CIRCUITS = {"sixth": sixth_order, "classical": classical}
_FINER = 8  # shorter steps in one: after a jump, and where a step does not converge
_JUMP_PU = 1e-3  # of a voltage; beyond it exciters that hit their limits need shorter steps ...
_FINE_STEPS = 10  # ... so many times
_SPEED_LIMIT_PU = 0.2  # beyond this no machine is in service any more


class MachineDynamics:
    """Machines, their controls, loads and network as a `TransmissionModel`.

    It starts in the steady state of the power flow. Integration is by the implicit trapezoidal rule
    at `step_s`. An island where Newton's method finds no voltages, or whose frequency leaves the
    nominal one by a fifth, has collapsed: its buses are dead from then on.

    Parameters
    ----------
    model : ``sixth`` (Kundur, chapter 3, with saturation) or ``classical`` (constant flux linkage
        behind xd', without exciter).
    step_s : Step of integration. Times given to `advance` are multiples of it.
    controls, load_model : By default as their classes say.
    agc, load_shedding, machine_protection : None: there is none.

    Raises TransmissionError: No such model, a step that is not positive, or no steady state.
    """

    def __init__(
        self,
        system: TransmissionSystem,
        model: Literal["sixth", "classical"] = "sixth",
        step_s: float = 0.02,
        *,
        controls: Controls | None = None,
        load_model: LoadModel | None = None,
        agc: GenerationControl | None = None,
        load_shedding: LoadShedding | None = None,
        machine_protection: MachineProtection | None = None,
    ) -> None:
        if model not in CIRCUITS:
            raise TransmissionError(
                f"there is no machine model '{model}'",
                expected=f"one of {', '.join(CIRCUITS)}",
                nearest=nearest_name(model, CIRCUITS),
            )
        if not step_s > 0.0:
            raise TransmissionError(f"a step of {step_s} s", expected="a positive number")
        self.system, self.step_s = system, step_s
        self.buses, self.branches, self.machines = system.buses, system.branches, system.machines
        self.tie, self.nominal_hz = system.tie, system.nominal_hz
        self._branch_y = system.branch_admittance()
        flow = power_flow(system)
        self.equations = Equations(
            system,
            CIRCUITS[model](system.machine),
            controls or Controls(),
            load_model or LoadModel(),
            np.abs(flow.v),
        )
        self._solver = Trapezoid(self.equations, step_s)
        self._finer = Trapezoid(self.equations, step_s / _FINER)
        made = as_complex(flow.p_mw, flow.q_mvar) / system.base_mva
        self.x, self.v = self.equations.start(flow.v, made)
        self._table = as_complex(system.load_mw, system.load_mvar) / system.base_mva
        every = np.ones(len(system.machines), bool)
        n = len(system.buses)
        self._done = Disturbance(
            np.zeros(n), np.ones(n), np.full(n, np.nan), np.ones(len(system.branches), bool), every
        )
        self._fed = BusDemand.none(n)
        self._tripped = ~every
        self._islands: set[tuple[int, ...]] = {tuple(range(n))}
        self._turn = np.zeros(len(system.machines))  # of each machine's frame, rad
        self._collapsed, self._fine_left = False, 0
        self._act_with(agc, load_shedding, machine_protection)
        self._steps = 0
        self._events: list[TransmissionEvent] = []
        self._update_demand()
        self._state = self._measured()

    def _act_with(
        self,
        agc: GenerationControl | None,
        load_shedding: LoadShedding | None,
        protection: MachineProtection | None,
    ) -> None:
        """Set up what acts by itself."""
        e, n, m = self.equations, len(self.buses), len(self.machines)
        if agc and not e.droop_gain:
            raise TransmissionError(
                "generation control of machines without governor",
                where="option 'agc'",
                expected="controls with a governor",
            )
        if load_shedding:
            load_shedding.check_nominal(self.nominal_hz)
        if protection:
            protection.check_nominal(self.nominal_hz)
        self._agc = agc and SecondaryControl(
            agc, self.system, e.governor.droop_pu, self.step_s, self._flows_mw()
        )
        self._shedding = load_shedding and Shedding(load_shedding, n)
        self._protection = protection
        self._trips = Relays((m,), protection.delay_s if protection else 0.0)
        self._kept, self._reference = np.ones(n), e.reference0

    @property
    def time_s(self) -> float:
        """Time up to which the system has been advanced."""
        return round(self._steps * self.step_s, 9)

    @property
    def state(self) -> TransmissionState:
        """The system as it is."""
        return self._state

    def take_events(self) -> list[TransmissionEvent]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def separate(self, p_mw: FloatArray, q_mvar: FloatArray) -> None:
        """Take demand out of the tables' loads that `advance` gets as its `demand` instead.

        p_mw, q_mvar : (n_buses,). What the feeders at each bus take at time 0.
        """
        self._table = self._table - as_complex(p_mw, q_mvar) / self.system.base_mva

    def advance(self, until_s: float, demand: BusDemand, done: Disturbance) -> TransmissionState:
        """Go on to `until_s`; after a collapse the system stays dead.

        Raises TransmissionError: A time that is not a multiple of the step, or before the present
        one; a machine that was tripped and is in service again.
        """
        steps = round(until_s / self.step_s)
        if abs(steps * self.step_s - until_s) > 1e-6 * self.step_s or steps < self._steps:
            raise TransmissionError(
                f"cannot go on from {self.time_s:g} s to {until_s:g} s",
                expected=f"a multiple of the step of {self.step_s:g} s, not before it",
            )
        # An iteration that diverges may overflow before it is given up.
        with np.errstate(over="ignore", invalid="ignore"):
            self._take_over(demand, done)
            while self._steps < steps:
                self._steps += 1
                if not self._collapsed:
                    self._step()
                if not self._collapsed:
                    self._act()
        self._state = self._measured()
        return self._state

    def _take_over(self, demand: BusDemand, done: Disturbance) -> None:
        """Apply demand and disturbance; the voltages follow at once."""
        old = self._done
        back = np.flatnonzero(done.machine_in & ~old.machine_in)
        if back.size:
            raise TransmissionError(
                f"machine '{self.machines[int(back[0])]}' was tripped and is in service again",
                where=f"time {self.time_s:g} s",
                expected="a machine that stays out: starting one is not modelled",
            )
        self._fed = demand
        # Copies: the plant changes its own arrays.
        self._done = deepcopy(done)
        if self._collapsed:
            return
        same = (done.branch_in == old.branch_in).all() and (done.machine_in == old.machine_in).all()
        if same:
            before = self.demand
            self._update_demand()
            # Without a change every bit is that of a longer exchange step.
            if not all(map(np.array_equal, astuple(before), astuple(self.demand))):
                self._settle()
        else:
            self._reconnect()

    def _update_demand(self) -> None:
        """Set what acts at the buses; nothing where a bus is dead."""
        base, fed, n = self.system.base_mva, self._fed, len(self.buses)
        keep = self._kept * self.equations.alive[:n] / base
        slope = as_complex(fed.p_slope_mw, fed.q_slope_mvar)
        constant = as_complex(fed.p_mw + self._done.load_mw, fed.q_mvar) - slope * fed.v_pu
        table = self._table * self._done.load_factor * base
        self.demand = Demands(table * keep, constant * keep, slope * keep, self._reference)

    def _reconnect(self) -> None:
        """Find the islands of the branches and machines in service, and their voltages."""
        e, system, done = self.equations, self.system, self._done
        machine_in = done.machine_in & ~self._tripped
        island = connected(len(self.buses), system.branch_from, system.branch_to, done.branch_in)
        self._turn_to_common_frame()
        before = e.alive[: len(self.buses)]
        e.connect(done.branch_in, machine_in, island)
        alive = e.alive[: len(self.buses)]
        dead_now = before & ~alive
        self._solver.forget()
        self._finer.forget()
        self._update_demand()
        if not alive.any():
            self._collapsed = True
            self._note(
                "collapsed", before_mw=self._state.load_mw.sum(), before_hz=self._state.coi_hz
            )
            return
        groups = {tuple(np.flatnonzero(island == i).tolist()) for i in set(island[alive].tolist())}
        largest = max(groups, key=len)
        for group in sorted(groups - self._islands - {largest}):
            self._note("islanded", buses=self._named(group), energised="yes")
        if dead_now.any():
            self._note("islanded", buses=self._named(np.flatnonzero(dead_now)), energised="no")
        self._islands = groups
        self._settle()

    def _frame_turn(self) -> FloatArray:
        """Return the angle of each node's frame from that of the first bus alive, rad."""
        e = self.equations
        turn = self._turn[e.leader]
        return np.where(e.alive, turn - turn[int(np.argmax(e.alive))], 0.0)

    def _turn_to_common_frame(self) -> None:
        turn = self._frame_turn()
        self.x[0] += turn[len(self.buses) :]
        self.v = self.v * np.exp(1j * turn)
        self._turn[:] = 0.0

    def _named(self, at: NDArray[np.int64] | tuple[int, ...]) -> str:
        return ", ".join(self.buses[int(i)] for i in at)

    def _note(self, kind: str, **details: float | str) -> None:
        plain = {k: v if isinstance(v, str) else float(v) for k, v in details.items()}
        self._events.append(TransmissionEvent(self.time_s, kind, plain))

    def _settle(self) -> None:
        """Find the voltages at the present states, or let the islands without any collapse."""
        for afresh in (False, True):
            guess = self.v
            try:
                if afresh:
                    guess = self.equations.linear_voltages(self.x, self.v, self.demand)
                settled = self._solver.settle(self.x, guess, self.demand)
            except NoSolutionError:
                continue
            if np.abs(settled - self.v).max() > _JUMP_PU:
                self._solver.forget_growth()
                self._finer.forget_growth()
                self._fine_left = _FINE_STEPS
            self.v = settled
            return
        self._collapse()

    def _step(self) -> None:
        """Go on by one step, in finer ones where it does not converge."""
        e, x, v = self.equations, self.x, self.v
        coarse = self._fine_left == 0
        self._fine_left = max(0, self._fine_left - 1)
        try:
            if coarse:
                x, v = self._solver.step(x, v, self.demand)
        except NoSolutionError:
            coarse = False
        try:
            for _ in range(0 if coarse else _FINER):
                x, v = self._finer.step(x, v, self.demand)
        except NoSolutionError:
            self._collapse()
            return
        # Frames of islands turn against each other; a trapezoidal sum, as the angles themselves.
        self._turn += 0.5 * self.step_s * e.w0 * (e.frame @ (self.x[1] + x[1]))
        self.x, self.v = x, v

    def _act(self) -> None:
        """Let relays and generation control act on the state that a step has led to."""
        e, hz, step_s = self.equations, self.nominal_hz, self.step_s
        speed_hz = hz * (1.0 + self.x[1])
        trip = np.abs(self.x[1]) > _SPEED_LIMIT_PU
        if self._protection:
            low, high = self._protection.under_hz, self._protection.over_hz
            trip |= self._trips.look((speed_hz < low) | (speed_hz > high), step_s)
        if (trip & e.machine_in).any():
            self._trip(trip & e.machine_in)
        if self._shedding and not self._collapsed:
            self._shed(self._shedding)
        if self._agc and self._steps % self._agc.every == 0 and not self._collapsed:
            self._reference = self._agc.look(
                self._flows_mw(), e.frame @ self.x[1], e.reference0, e.most, e.machine_in
            )
            self._update_demand()

    def _shed(self, shedding: Shedding) -> None:
        e, n = self.equations, len(self.buses)
        w_bus = e.divider @ self.x[1]
        load = e.power(np.abs(self.v[:n]), w_bus, self.demand).real * self.system.base_mva
        hz = self.nominal_hz * (1.0 + w_bus)
        now = shedding.look(hz, e.alive[:n] & (load != 0.0), self.step_s)
        if not now.any():
            return
        for stage in np.flatnonzero(now.any(axis=1)):
            shed_mw = (load / self._kept * now[stage]).sum() * shedding.part[stage]
            buses = self._named(np.flatnonzero(now[stage]))
            self._note("load_shed", stage_hz=shedding.hz[stage], load_mw=shed_mw, buses=buses)
        self._kept = shedding.kept
        self._update_demand()
        self._settle()

    def _trip(self, which: NDArray[np.bool_]) -> None:
        """Take machines out of service for good."""
        for i in np.flatnonzero(which):
            hz = self.nominal_hz * (1.0 + self.x[1, i])
            self._note("machine_tripped", machine=self.machines[i], speed_hz=hz)
        self._tripped |= which
        self._reconnect()

    def _collapse(self) -> None:
        """Let the islands die that have no voltages."""
        e, bus = self.equations, self.system.machine.bus
        failed = np.zeros(len(self.machines), bool)
        machine_in, islands = e.machine_in.copy(), sorted(self._islands)
        for group in islands if len(islands) > 1 else ():
            alone = np.isin(np.arange(len(self.buses)), group)
            e.connect(self._done.branch_in, machine_in & alone[bus], (~alone).astype(np.int64))
            self._solver.forget()
            self._update_demand()
            guess = e.linear_voltages(self.x, self.v, self.demand)
            try:
                self._solver.settle(self.x, guess, self.demand)
            except NoSolutionError:
                failed |= machine_in & alone[bus]
                self._note("island_collapsed", buses=self._named(group))
        self._tripped |= failed if failed.any() else machine_in
        self._reconnect()

    def _measured(self) -> TransmissionState:
        e, system, n = self.equations, self.system, len(self.buses)
        base, alive, machine_in = system.base_mva, e.alive[:n], e.machine_in
        v = np.where(alive, self.v[:n] * np.exp(1j * self._frame_turn()[:n]), 0.0)
        w_bus = e.divider @ self.x[1]
        load = e.power(np.abs(v), w_bus, self.demand) * base
        stator = e.ratio * e.stator * (self.v[n:] - self.v[e.bus])
        made = np.where(machine_in, self.v[e.bus] * stator.conj() * base, 0.0)
        hz = self.nominal_hz
        out = np.where(machine_in, e.mechanical(self.x) * system.machine.p_max_mw, 0.0)
        return TransmissionState(
            v=v,
            frequency_hz=np.where(alive, hz * (1.0 + w_bus), np.nan),
            coi_hz=hz * (1.0 + float(e.inertia @ self.x[1])) if machine_in.any() else np.nan,
            speed_hz=np.where(machine_in, hz * (1.0 + self.x[1]), np.nan),
            p_mech_mw=out,
            p_mw=made.real,
            q_mvar=made.imag,
            load_mw=load.real,
            load_mvar=load.imag,
            flow_mw=self._flows_mw()[0],
        )

    def _flows_mw(self) -> tuple[FloatArray, FloatArray]:
        """Return the power into both ends of the branches, each (n_branches,)."""
        system, n = self.system, len(self.buses)
        v = np.where(self.equations.alive[:n], self.v[:n], 0.0)
        start, end = v[system.branch_from], v[system.branch_to]
        y_ff, y_ft, y_tf, y_tt = self._branch_y
        on = self._done.branch_in * system.base_mva
        first = start * (y_ff * start + y_ft * end).conj()
        second = end * (y_tf * start + y_tt * end).conj()
        return first.real * on, second.real * on
