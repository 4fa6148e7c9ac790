"""The equivalent circuit of synchronous machines, from their reactances and time constants.

P. Kundur, Power System Stability and Control (1994), sections 3.4 to 3.8 and 4.2. Per unit on each
machine's base, with the reciprocal per-unit system. The two axes have two rotor circuits each:
field and damper in d, two dampers in q.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grid_models.transmission.model import FloatArray
from grid_models.transmission.system import MachineData


@dataclass(frozen=True)
class MachineCircuit:
    """Inductances and resistances of the machines.

    Attributes
    ----------
    ra, xl : (n_machines,). Armature resistance and leakage.
    lad, laq : (n_machines,). Magnetising inductances without saturation.
    x_air : (n_machines,). Subtransient reactance behind the air gap, the same in both axes.
    conductance : (4, n_machines). 1 / L of the rotor circuits fd, 1d, 1q, 2q; 0: there is none.
    rate : (4, n_machines). w0 R of them, 1/s; 0: constant flux linkage.
    sat_a, sat_b, sat_psi_t1 : (n_machines,). Saturation.
    """

    ra: FloatArray
    xl: FloatArray
    lad: FloatArray
    laq: FloatArray
    x_air: FloatArray
    conductance: FloatArray
    rate: FloatArray
    sat_a: FloatArray
    sat_b: FloatArray
    sat_psi_t1: FloatArray

    @cached_property
    def decay(self) -> FloatArray:
        """Rate at which the linkages of the rotor circuits follow the air gap, (4, n_machines)."""
        return self.rate * self.conductance

    def saturation(self, psi: FloatArray) -> FloatArray:
        """Return psi_I / psi at the air-gap flux `psi`, (n_machines,): extra current by current."""
        # The bound is far beyond any flux; it keeps a diverging iteration from overflow.
        power = np.minimum(self.sat_b * (psi - self.sat_psi_t1), 50.0)
        return np.asarray(self.sat_a * np.exp(power) / psi)


def _axis(
    x: FloatArray, x1: FloatArray, x2: FloatArray, xl: FloatArray, t1: FloatArray, t2: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return 1 / L and w0 R of the two rotor circuits of an axis (Kundur, table 4.1, classical)."""
    la = x - xl
    first = 1.0 / (x1 - xl) - 1.0 / la
    second = 1.0 / (x2 - xl) - 1.0 / (x1 - xl)
    return (
        np.stack((first, second)),
        np.stack(((la + 1.0 / first) / t1, (1.0 / second + x1 - xl) / t2)),
    )


def sixth_order(m: MachineData) -> MachineCircuit:
    """Return the circuit with all rotor circuits: a sixth-order machine."""
    d = _axis(
        m.xd_pu,
        m.xd_transient_pu,
        m.xd_subtransient_pu,
        m.xl_pu,
        m.td0_transient_s,
        m.td0_subtransient_s,
    )
    q = _axis(
        m.xq_pu,
        m.xq_transient_pu,
        m.xq_subtransient_pu,
        m.xl_pu,
        m.tq0_transient_s,
        m.tq0_subtransient_s,
    )
    return MachineCircuit(
        ra=m.ra_pu,
        xl=m.xl_pu,
        lad=m.xd_pu - m.xl_pu,
        laq=m.xq_pu - m.xl_pu,
        x_air=m.xd_subtransient_pu - m.xl_pu,
        conductance=np.concatenate((d[0], q[0])),
        rate=np.concatenate((d[1], q[1])),
        sat_a=m.sat_a,
        sat_b=m.sat_b,
        sat_psi_t1=m.sat_psi_t1_pu,
    )


def classical(m: MachineData) -> MachineCircuit:
    """Return the circuit of a constant flux linkage behind xd': a classical machine.

    Field and one damper have no resistance, and the damper is such that xq' = xd'. Saturation is
    left out.
    """
    lad, laq = m.xd_pu - m.xl_pu, m.xq_pu - m.xl_pu
    x_air = m.xd_transient_pu - m.xl_pu
    none = np.zeros(len(lad))
    return MachineCircuit(
        ra=m.ra_pu,
        xl=m.xl_pu,
        lad=lad,
        laq=laq,
        x_air=x_air,
        conductance=np.stack((1.0 / x_air - 1.0 / lad, none, 1.0 / x_air - 1.0 / laq, none)),
        rate=np.zeros((4, len(lad))),
        sat_a=none,
        sat_b=none,
        sat_psi_t1=np.ones(len(lad)),
    )
