"""The linear swing equations: a transmission network for studies of frequency alone.

Voltages are 1 pu, lines have no losses, and a branch carries b (theta_i - theta_j). With omega the
deviation from nominal frequency in rad/s, P the net injection and d further demand (Zhao, Topcu,
Li, Low, IEEE Trans. Autom. Control 59, 2014; equation (4) of the paper on DPPD)::

    d theta_i / dt = omega_i
    M_i d omega_i / dt = P_i - d_i - D_i omega_i - sum of flows out of i     at machines
    0                  = P_i - d_i - D_i omega_i - sum of flows out of i     elsewhere

Between two exchanges the input is constant, so the step is exact: a matrix exponential.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.transmission.model import (
    BusDemand,
    Disturbance,
    FloatArray,
    TransmissionError,
    TransmissionEvent,
    TransmissionState,
)
from grid_models.transmission.system import TransmissionSystem, connected

_STEPS_KEPT = 8


class SwingNetwork:
    """A transmission system by its linear swing equations; a `TransmissionModel`.

    The machine at the slack bus starts with what makes generation equal to load, since there are no
    losses. An island without a machine is dead.

    Parameters
    ----------
    system : Its branch resistances and charging, taps and voltages are not used.
    inertia_pu : Power of `base_mva` per rad/s2, of each machine or of all.
    damping_pu : Power of `base_mva` per rad/s, of each bus or of all.

    Raises TransmissionError: Inertia or damping is not positive, or a branch has no reactance.
    """

    def __init__(
        self,
        system: TransmissionSystem,
        inertia_pu: FloatArray | float = 8.0,
        damping_pu: FloatArray | float = 1.0,
    ) -> None:
        self.buses, self.branches = system.buses, system.branches
        self.machines, self.tie = system.machines, system.tie
        self.nominal_hz = system.nominal_hz
        self._system = system
        self._inertia = _positive("inertia_pu", inertia_pu, len(self.machines))
        self._damping = _positive("damping_pu", damping_pu, len(self.buses))
        self.susceptance_pu = branch_susceptance(system)
        self._p_mech_mw, self._table_mw = lossless_generation_mw(system), system.load_mw
        n, g = len(self.buses), len(self.machines)
        self._now_s = 0.0
        self._machine_speed: FloatArray = np.zeros(g)
        self._omega: FloatArray = np.zeros(n)
        self._steps: dict[tuple[int, bytes, bytes], _Step] = {}
        self._events: list[TransmissionEvent] = []
        self._branch_in, self._machine_in = np.ones(len(self.branches), bool), np.ones(g, bool)
        self._dead = np.zeros(n, bool)
        self._theta = self._steady_angles()
        self._islands = 1
        calm = Disturbance(
            np.zeros(n), np.ones(n), np.full(n, np.nan), self._branch_in, self._machine_in
        )
        self._state = self._state_now(*self._powers_mw(BusDemand.none(n), calm))

    @property
    def state(self) -> TransmissionState:
        """The system as it is."""
        return self._state

    def separate(self, p_mw: FloatArray, q_mvar: FloatArray) -> None:
        """Take demand out of the tables' loads that `advance` gets as its `demand` instead.

        p_mw, q_mvar : (n_buses,). What the feeders at each bus take at time 0.
        """
        self._table_mw = self._table_mw - p_mw

    def take_events(self) -> list[TransmissionEvent]:
        """Return what happened since the last call."""
        taken, self._events = self._events, []
        return taken

    def advance(self, until_s: float, demand: BusDemand, done: Disturbance) -> TransmissionState:
        """Go on to a time; the demand and the disturbance hold from the last time to it.

        Frequencies away from machines are those at its end, under this demand.
        """
        self._switch(done)
        p_mech_mw, load_mw = self._powers_mw(demand, done)
        net = -load_mw
        net[self._system.machine.bus] += p_mech_mw
        net_pu = np.where(self._dead, 0.0, net / self._system.base_mva)
        step = self._step(until_s - self._now_s)
        x = np.concatenate([self._theta, self._machine_speed, net_pu])
        after = step.transition @ x
        n = len(self.buses)
        self._theta, self._machine_speed = after[:n], after[n:]
        self._omega = step.frequency @ np.concatenate([after, net_pu])
        self._now_s = until_s
        self._state = self._state_now(p_mech_mw, load_mw)
        return self._state

    def _powers_mw(self, demand: BusDemand, done: Disturbance) -> tuple[FloatArray, FloatArray]:
        """Return mechanical power by machine and demand by bus without damping.

        Where `injection_mw` is given, the machine covers the table's load and the injection; at a
        bus without a machine in service the load is its negative.
        """
        at = self._system.machine.bus
        load = self._table_mw * done.load_factor
        p_mech = np.where(done.machine_in, self._p_mech_mw, 0.0)
        given = np.isfinite(done.injection_mw)
        covered = given[at] & done.machine_in
        p_mech = np.where(covered, done.injection_mw[at] + load[at], p_mech)
        plain = given.copy()
        plain[at[covered]] = False
        load = np.where(plain, -done.injection_mw, load)
        further = demand.p_mw + demand.p_slope_mw * (1.0 - demand.v_pu) + done.load_mw
        return p_mech, np.where(self._dead, 0.0, load + further)

    def _state_now(self, p_mech_mw: FloatArray, load_mw: FloatArray) -> TransmissionState:
        system, at, base = self._system, self._system.machine.bus, self._system.base_mva
        angle = np.where(self._dead, 0.0, self._theta)
        drop = angle[system.branch_from] - angle[system.branch_to]
        flow = np.where(self._branch_in, base * self.susceptance_pu * drop, 0.0)
        n = len(self.buses)
        out = np.bincount(system.branch_from, flow, n) - np.bincount(system.branch_to, flow, n)
        omega = np.where(self._dead, np.nan, self._omega)
        hz = self.nominal_hz + omega / (2.0 * math.pi)
        turning = self._inertia * self._machine_in
        coi_hz = float(np.nansum(turning * hz[at]) / turning.sum()) if turning.any() else math.nan
        p_mw = (out + load_mw + base * self._damping * self._omega)[at]
        return TransmissionState(
            v=np.where(self._dead, 0.0, np.exp(1j * angle)),
            frequency_hz=hz,
            coi_hz=coi_hz,
            speed_hz=hz[at],
            p_mech_mw=p_mech_mw,
            p_mw=np.where(self._machine_in, p_mw, 0.0),
            q_mvar=np.zeros(len(at)),
            load_mw=load_mw,
            load_mvar=np.zeros(n),
            flow_mw=flow,
        )

    def _steady_angles(self) -> FloatArray:
        """Return the angles of the power flow without losses, (n_buses,), rad."""
        system, n = self._system, len(self.buses)
        net = -system.load_mw / system.base_mva
        net[system.machine.bus] += self._p_mech_mw / system.base_mva
        free = np.arange(n) != system.slack
        angle = np.zeros(n)
        laplacian = self._laplacian()
        angle[free] = np.linalg.solve(laplacian[np.ix_(free, free)], net[free])
        return angle + math.radians(system.slack_deg)

    def _laplacian(self) -> FloatArray:
        system, n = self._system, len(self.buses)
        b = np.where(self._branch_in, self.susceptance_pu, 0.0)
        i, j = system.branch_from, system.branch_to
        matrix = np.zeros((n, n))
        for row, column, sign in ((i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)):
            np.add.at(matrix, (row, column), sign * b)
        return matrix

    def _switch(self, done: Disturbance) -> None:
        """Take in which branches and machines are in service from now on."""
        same = np.array_equal(done.branch_in, self._branch_in)
        if same and np.array_equal(done.machine_in, self._machine_in):
            return
        at = self._system.machine.bus
        back = done.machine_in & ~self._machine_in
        # A machine that comes back is synchronised with its bus.
        self._machine_speed[back] = self._omega[at[back]]
        self._branch_in, self._machine_in = done.branch_in.copy(), done.machine_in.copy()
        system = self._system
        island = connected(len(self.buses), system.branch_from, system.branch_to, self._branch_in)
        fed = np.unique(island[at[self._machine_in]])
        self._dead = ~np.isin(island, fed)
        self._theta[self._dead] = 0.0
        self._omega[self._dead] = 0.0
        self._report(island)

    def _report(self, island: NDArray[np.int64]) -> None:
        count = int(island.max()) + 1
        if self._dead.all():
            self._events.append(TransmissionEvent(self._now_s, "collapsed"))
        elif count > self._islands:
            main = np.bincount(island).argmax()
            apart = [b for b, k in zip(self.buses, island, strict=True) if k != main]
            dead = [b for b, off in zip(self.buses, self._dead, strict=True) if off]
            details: dict[str, float | str] = {
                "islands": float(count),
                "buses": ", ".join(apart),
                "dead_buses": ", ".join(dead),
            }
            self._events.append(TransmissionEvent(self._now_s, "islanded", details))
        self._islands = count

    def _step(self, duration_s: float) -> _Step:
        key = (round(duration_s * 1e9), self._branch_in.tobytes(), self._machine_in.tobytes())
        if key not in self._steps:
            if len(self._steps) >= _STEPS_KEPT:
                self._steps.clear()
            self._steps[key] = self._build_step(key[0] * 1e-9)
        return self._steps[key]

    def _build_step(self, duration_s: float) -> _Step:
        from scipy.linalg import expm

        n, g = len(self.buses), len(self.machines)
        theta, net = slice(0, n), slice(n + g, 2 * n + g)
        machine = np.flatnonzero(self._machine_in)
        at = self._system.machine.bus[machine]
        # Of each bus: surplus power over damping, or where a machine turns, its speed.
        frequency = np.zeros((n, 2 * n + g))
        frequency[:, theta] = -self._laplacian() / self._damping[:, None]
        frequency[:, net] = np.diag(1.0 / self._damping)
        frequency[self._dead] = 0.0
        surplus = frequency[at] * self._damping[at, None]
        frequency[at] = 0.0
        frequency[at, n + machine] = 1.0
        rate = np.zeros((2 * n + g, 2 * n + g))
        rate[theta] = frequency
        rate[n + machine] = surplus - self._damping[at, None] * frequency[at]
        rate[n + machine] /= self._inertia[machine, None]
        transition = expm(rate * duration_s)
        return _Step(transition[: n + g], frequency)


@dataclass(frozen=True)
class _Step:
    """Matrices of a step, from (theta, machine speeds, net injection).

    `transition`: To angles and speeds at its end, (n + g, 2 n + g). `frequency`: To the frequency
    deviations of all buses, (n, 2 n + g), rad/s.
    """

    transition: FloatArray
    frequency: FloatArray


def branch_susceptance(system: TransmissionSystem) -> FloatArray:
    """Return 1 / x of each branch, (n_branches,), per unit.

    Raises TransmissionError: A branch has no reactance.
    """
    bad = np.flatnonzero(system.x_pu <= 0.0)
    if bad.size:
        raise TransmissionError(
            f"branch '{system.branches[bad[0]]}' has a reactance of {system.x_pu[bad[0]]:g} pu",
            where=f"system {system.name}",
            expected="above 0 for the swing model",
        )
    return np.asarray(1.0 / system.x_pu)


def lossless_generation_mw(system: TransmissionSystem) -> FloatArray:
    """Return each machine's power, (n_machines,); that at the slack bus makes up for the load."""
    p_mw = system.machine.p_mw.copy()
    p_mw[system.machine.bus == system.slack] += system.load_mw.sum() - p_mw.sum()
    return p_mw


def _positive(name: str, value: FloatArray | float, count: int) -> FloatArray:
    given = np.asarray(value, dtype=np.float64)
    if given.shape not in ((), (count,)) or not (np.isfinite(given) & (given > 0.0)).all():
        raise TransmissionError(
            f"{name} is {value}", expected=f"a number above 0, or {count} of them"
        )
    return np.broadcast_to(given, count).copy()
