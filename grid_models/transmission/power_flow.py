"""Newton power flow of a transmission system: the steady state that its dynamics start in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid_models.transmission.model import ComplexArray, FloatArray, TransmissionError
from grid_models.transmission.system import TransmissionSystem, as_complex

_MOST_ITERATIONS = 30


@dataclass(frozen=True)
class TransmissionFlow:
    """A solved power flow.

    Attributes
    ----------
    v : complex (n_buses,), per unit.
    p_mw, q_mvar : (n_machines,). What the machines produce.
    iterations : Newton steps.
    """

    v: ComplexArray
    p_mw: FloatArray
    q_mvar: FloatArray
    iterations: int


def power_flow(system: TransmissionSystem, tolerance_pu: float = 1e-11) -> TransmissionFlow:
    """Solve the power flow of the tables from a flat start, in polar coordinates.

    Machines hold the voltage of their bus, without limits of reactive power; that of the slack bus
    takes the rest of the power. Loads are at constant power.

    Raises TransmissionError: No convergence.
    """
    machine, base = system.machine, system.base_mva
    y = system.admittance()
    load = as_complex(system.load_mw, system.load_mvar)
    s = -load / base
    s[machine.bus] += machine.p_mw / base
    v_pu = np.ones(len(system.buses))
    v_pu[machine.bus] = machine.v_setpoint_pu
    turn = np.full(len(v_pu), np.radians(system.slack_deg))
    by_angle = np.flatnonzero(np.arange(len(v_pu)) != system.slack)
    by_magnitude = np.setdiff1d(by_angle, machine.bus)
    n = len(by_angle)
    for iterations in range(_MOST_ITERATIONS):
        v = as_complex(v_pu * np.cos(turn), v_pu * np.sin(turn))
        i = y @ v
        miss = v * i.conj() - s
        miss = np.concatenate((miss.real[by_angle], miss.imag[by_magnitude]))
        if np.abs(miss).max() < tolerance_pu:
            made = (v * i.conj() * base + load)[machine.bus]
            return TransmissionFlow(v, made.real, made.imag, iterations)
        ds_dturn = 1j * v[:, None] * (np.diag(i) - y * v).conj()
        unit = v / v_pu
        ds_dv = v[:, None] * (y * unit).conj() + np.diag(i.conj() * unit)
        jacobian = np.block(
            [
                [
                    ds_dturn.real[np.ix_(by_angle, by_angle)],
                    ds_dv.real[np.ix_(by_angle, by_magnitude)],
                ],
                [
                    ds_dturn.imag[np.ix_(by_magnitude, by_angle)],
                    ds_dv.imag[np.ix_(by_magnitude, by_magnitude)],
                ],
            ]
        )
        step: FloatArray = np.linalg.solve(jacobian, miss).astype(float)
        if not np.isfinite(step).all():
            break
        turn[by_angle] -= step[:n]
        v_pu[by_magnitude] -= step[n:]
    raise TransmissionError(
        "the power flow of the tables does not converge",
        where=f"transmission system '{system.name}'",
        expected="loads and branches of a system that can carry them",
    )
