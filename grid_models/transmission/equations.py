"""The differential-algebraic equations of machines, their controls, loads and network.

P. Kundur, Power System Stability and Control (1994), chapters 3, 5, 8 and 12; frequency of buses by
the frequency divider of F. Milano and A. Ortega (IEEE Trans. Power Systems 32, 2017).

Each machine has an internal node, its air gap, behind ra + j xl. There the magnetising and rotor
inductances are one constant reactance, the rotor's flux linkages a current, and saturation a
current that depends on the node's voltage. So the admittance matrix of buses and internal nodes is
constant, and loads and saturation are currents into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.transmission.machine_circuit import MachineCircuit
from grid_models.transmission.machine_options import Avr, Controls, Governor, LoadModel, Stabiliser
from grid_models.transmission.model import ComplexArray, FloatArray
from grid_models.transmission.system import IntArray, TransmissionSystem

N_STATES = 12
"""Rotor angle and speed, four flux linkages, measured voltage, three of the stabiliser, two of the
governor and turbine."""


@dataclass
class Demands:
    """What acts at the buses and machines during one step, besides the states; (n_buses,) pu.

    `table`: complex, demand by the load model at `v0`. `constant`: complex, at constant power.
    `slope`: complex, power by voltage. All are 0 at dead buses.
    `reference`: (n_machines,) pu of the turbine, the governor's set-point.
    """

    table: ComplexArray
    constant: ComplexArray
    slope: ComplexArray
    reference: FloatArray


def _limited(value: FloatArray, low: float | FloatArray, high: float | FloatArray) -> FloatArray:
    """Return `value` within its limits; `numpy.clip` takes five times as long on short arrays."""
    return np.minimum(np.maximum(value, low), high)


class Equations:
    """f(x, V) = dx/dt and g(x, V) = Y V - I(x, V) = 0, with their derivatives.

    x is (12, n_machines); V is complex (n_buses + n_machines,): buses, then air gaps. Dead nodes
    have V = 1 here.

    Attributes
    ----------
    y : complex, admittance of all nodes. `alive`: bool, nodes in service.
    divider : (n_buses, n_machines). Speed deviation of buses by that of machines.
    inertia : (n_machines,). Of machines in service, their sum is 1.
    frame : (n_machines, n_machines). Speed of the frame of each machine's angle, the centre of
        inertia of its island, by the speeds of machines.
    leader : int (n_nodes,). A machine of each node's island.
    """

    def __init__(
        self,
        system: TransmissionSystem,
        circuit: MachineCircuit,
        controls: Controls,
        load_model: LoadModel,
        v0: FloatArray,
    ) -> None:
        self.system, self.circuit, self.load_model, self.v0 = system, circuit, load_model, v0
        m = system.machine
        self.n_buses, self.n_machines = len(system.buses), len(system.machines)
        self.bus, self.ratio = m.bus, m.base_mva / system.base_mva
        self.w0 = 2.0 * np.pi * system.nominal_hz
        self.stator = 1.0 / (circuit.ra + 1j * circuit.xl)
        self.turbine = m.p_max_mw / m.base_mva
        # None of the controls: their equations with gains of 0.
        self.avr = controls.avr or Avr(gain=0.0)
        pss = controls.stabiliser if controls.avr else None
        self.pss = pss or Stabiliser(gain=0.0)
        self.governor = controls.governor or Governor()
        self.droop_gain = 1.0 / self.governor.droop_pu if controls.governor else 0.0
        self._linear = self._controls(np.eye(N_STATES))
        self.damping, self.twice_h_s = m.damping_pu, 2.0 * m.h_s
        self.field_limit = self.avr.limit_pu if controls.avr else np.inf
        self.tangent: tuple[ComplexArray, ComplexArray, ComplexArray] | None = None
        self.field0 = self.v_set = self.most = np.zeros(self.n_machines)
        every = np.ones(len(system.branches), bool)
        self.connect(every, np.ones(self.n_machines, bool), np.zeros(self.n_buses, np.int64))

    def connect(
        self,
        branch_in: NDArray[np.bool_],
        machine_in: NDArray[np.bool_],
        island: IntArray,
    ) -> None:
        """Take branches and machines in service.

        island : (n_buses,). Number of each bus' island; without a machine in service it is dead.
        """
        system, n, m = self.system, self.n_buses, self.n_machines
        machine = machine_in
        alive = np.isin(island, island[self.bus[machine]])
        self.machine_in, self.alive = machine, np.concatenate((alive, machine))
        self._all_in = bool(self.alive.all())
        y = np.zeros((n + m, n + m), complex)
        y[:n, :n] = system.admittance(branch_in)
        air = np.arange(n, n + m)
        stator = np.where(machine, self.ratio * self.stator, 0.0)
        np.add.at(y, (self.bus, self.bus), stator)
        y[self.bus, air] -= stator
        y[air, self.bus] -= stator
        y[air, air] += stator + self.ratio / (1j * self.circuit.x_air)
        y[~self.alive] = 0.0
        y[:, ~self.alive] = 0.0
        y[~self.alive, ~self.alive] = 1.0
        self.y = y
        weight = np.where(machine, system.machine.h_s * system.machine.base_mva, 0.0)
        self.inertia = weight / weight.sum() if machine.any() else weight
        together = (island[self.bus][:, None] == island[self.bus]) * weight
        total = together.sum(axis=1, keepdims=True)
        self.frame = np.divide(together, total, out=np.zeros((m, m)), where=total > 0.0)
        led = (island[:, None] == island[self.bus]) & machine
        self.leader = np.concatenate((led.argmax(axis=1), np.arange(m)))
        self.divider = self._divider(branch_in, alive, machine)

    def _divider(
        self, branch_in: NDArray[np.bool_], alive: NDArray[np.bool_], machine: NDArray[np.bool_]
    ) -> FloatArray:
        """Return how the buses' speed deviations follow those of the machines."""
        system, c = self.system, self.circuit
        near = np.where(machine, self.ratio / (c.xl + c.x_air), 0.0)
        b = np.zeros((self.n_buses, self.n_buses))
        i, j = system.branch_from[branch_in], system.branch_to[branch_in]
        # Series susceptances alone: at equal speed of all machines the buses have it too.
        series = 1.0 / np.hypot(system.r_pu, system.x_pu)[branch_in]
        for row, column, sign in ((i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)):
            np.add.at(b, (row, column), sign * series)
        np.add.at(b, (self.bus, self.bus), near)
        b[~alive] = b[:, ~alive] = 0.0
        b[~alive, ~alive] = 1.0
        feed = np.zeros((self.n_buses, self.n_machines))
        feed[self.bus, np.arange(self.n_machines)] = near
        return np.asarray(np.linalg.solve(b, feed))

    def start(
        self, v_bus: ComplexArray, s_machine: ComplexArray
    ) -> tuple[FloatArray, ComplexArray]:
        """Return x and V of the steady state with these bus voltages and machine powers, pu.

        Set-points of exciters and governors follow from it (Kundur, section 3.6.5).
        """
        c = self.circuit
        v = v_bus[self.bus]
        i = (s_machine / self.ratio / v).conj()
        air = v + i / self.stator
        psi = np.abs(air)
        extra = c.saturation(psi)
        unsaturated = 1.0 / (1.0 + extra)
        delta = np.angle(v + (c.ra + 1j * (c.xl + unsaturated * c.laq)) * i)
        turn = np.exp(-1j * delta)
        flux, i_dq = air * turn, 1j * i * turn
        i_field = flux.real * (1.0 + extra) / c.lad + i_dq.real
        self.field0 = c.lad * i_field
        self.v_set = np.abs(v)
        torque = (air * i.conj()).real / self.turbine
        self.most = np.maximum(torque, 1.0)
        x = np.zeros((N_STATES, self.n_machines))
        x[0] = delta
        x[2] = flux.real + i_field / c.conductance[0]
        x[3], x[4], x[5] = flux.real, flux.imag, flux.imag
        x[6] = np.abs(v)
        x[10] = x[11] = torque
        self.reference0 = torque
        return x, np.concatenate((v_bus, air))

    def _controls(self, x: FloatArray) -> FloatArray:
        """Return what is linear in the controls, (9, n) of the states (12, n).

        Rates of the six states of the controls, without bus voltage and valve set-point; then the
        stabiliser's signal, the valve's set-point by speed, and the turbine's power.
        """
        p, g, speed = self.pss, self.governor, x[1]
        washed = p.gain * (speed - x[7])
        first = x[8] + p.lead_1_s / p.lag_1_s * (washed - x[8])
        return np.stack(
            (
                -x[6] / self.avr.measuring_s,
                (speed - x[7]) / p.washout_s,
                (washed - x[8]) / p.lag_1_s,
                (first - x[9]) / p.lag_2_s,
                -x[10] / g.valve_s,
                (x[10] - x[11]) / g.lag_s,
                x[9] + p.lead_2_s / p.lag_2_s * (first - x[9]),
                -self.droop_gain * speed,
                x[11] + g.lead_s / g.lag_s * (x[10] - x[11]),
            )
        )

    def mechanical(self, x: FloatArray) -> FloatArray:
        """Return the turbines' power, (n_machines,), pu of each turbine."""
        return np.asarray(self._linear[8] @ x)

    def rates(
        self,
        x: FloatArray,
        v: ComplexArray,
        reference: FloatArray,
        w_frame: FloatArray | None = None,
    ) -> FloatArray:
        """Return dx/dt, (12, n_machines); `w_frame`, (n_machines,), in place of the frame's."""
        c, speed = self.circuit, x[1]
        frame = self.frame @ speed if w_frame is None else w_frame
        bus, air = v[self.bus], v[self.n_buses :]
        flux = air * np.exp(-1j * x[0])
        torque_e = (air * ((air - bus) * self.stator).conj()).real
        linear = self._linear @ x
        torque_m = linear[8] * self.turbine
        if self.droop_gain:
            torque_m = torque_m / (1.0 + speed)  # TGOV1 gives power
        signal = _limited(linear[6], -self.pss.limit_pu, self.pss.limit_pu)
        field = self.field0 + self.avr.gain * (self.v_set + signal - x[6])
        field = _limited(field, -self.field_limit, self.field_limit)
        rate = np.empty_like(x)
        rate[0] = self.w0 * (speed - frame)
        rate[1] = (torque_m - torque_e - self.damping * speed) / self.twice_h_s
        rate[2:4] = c.decay[:2] * (flux.real - x[2:4])
        rate[4:6] = c.decay[2:] * (flux.imag - x[4:6])
        rate[2] += c.rate[0] / c.lad * field
        rate[6:] = linear[:6]
        rate[6] += np.abs(bus) / self.avr.measuring_s
        rate[10] += _limited(reference + linear[7], 0.0, self.most) / self.governor.valve_s
        if not self._all_in:
            rate[:, ~self.machine_in] = 0.0
        return rate

    def power(self, v_pu: FloatArray, w_bus: FloatArray, demand: Demands) -> ComplexArray:
        """Return the demand at the buses, complex (n_buses,), pu."""
        m, rel = self.load_model, v_pu / self.v0
        table = demand.table
        p = table.real * rel**m.p_exponent * (1.0 + m.p_by_frequency * w_bus)
        q = table.imag * rel**m.q_exponent * (1.0 + m.q_by_frequency * w_bus)
        return p + 1j * q + demand.constant + demand.slope * v_pu

    def currents(
        self, x: FloatArray, v: ComplexArray, demand: Demands, w_bus: FloatArray | None = None
    ) -> ComplexArray:
        """Return I(x, V) into all nodes, pu of the system."""
        n, c = self.n_buses, self.circuit
        speed = self.divider @ x[1] if w_bus is None else w_bus
        bus, air = v[:n], v[n:]
        turn = np.exp(1j * x[0])
        linked = x[2:6] * c.conductance
        source = linked[0] + linked[1] + 1j * (linked[2] + linked[3])
        flux = air * turn.conj()
        if self.tangent is None:
            extra = c.saturation(np.abs(air))
            source -= extra * (flux.real / c.lad + 1j * flux.imag / c.laq)
        else:
            current, base, slope = self.tangent
            change = flux - base
            source -= current + slope.real * change.real + 1j * slope.imag * change.imag
        out = np.empty_like(v)
        out[:n] = -(self.power(np.abs(bus), speed, demand) / bus).conj()
        out[n:] = -1j * self.ratio * source * turn
        if not self._all_in:
            out[~self.alive] = 1.0
        return out

    def linear_voltages(self, x: FloatArray, v: ComplexArray, demand: Demands) -> ComplexArray:
        """Return voltages with loads as impedances: a start where the network has changed."""
        n = self.n_buses
        load = demand.table / self.v0**2 + demand.constant + demand.slope
        zero = np.zeros(n, complex)
        nothing = Demands(zero, zero, zero, demand.reference)
        y = self.y.copy()
        y[np.arange(n), np.arange(n)] += load.conj()
        return np.asarray(np.linalg.solve(y, self.currents(x, v, nothing)))

    def linearise_saturation(self, x: FloatArray, v: ComplexArray) -> None:
        """From now on use incremental saturation in both axes (Kundur, section 3.8.2).

        This is what the published modes of the two-area system are computed with.
        """
        c = self.circuit
        flux = v[self.n_buses :] * np.exp(-1j * x[0])
        extra = c.saturation(np.abs(flux))
        current = extra * (flux.real / c.lad + 1j * flux.imag / c.laq)
        grown = c.sat_b * np.abs(flux) * extra
        self.tangent = (current, flux, grown / c.lad + 1j * grown / c.laq)
