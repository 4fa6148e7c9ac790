"""Node voltages of an OpenDSS circuit: their angles and their unbalance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.opendss.circuit import Circuit

FloatArray = NDArray[np.float64]

_A = np.exp(2j * np.pi / 3.0)
_POSITIVE = np.array([1.0, _A, _A * _A]) / 3.0
_NEGATIVE = np.array([1.0, _A * _A, _A]) / 3.0
_DEAD_PU = 1e-3


class NodeVoltages:
    """Voltages of a circuit's last solution, in the order of its `node_labels`.

    Attributes
    ----------
    three_phase : Buses with three phases or more, in the order of `unbalance_pct`, which takes
        the first three.
    """

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        at = {label: i for i, label in enumerate(circuit.node_labels)}
        buses = circuit.feeder.buses.values()
        three = [bus for bus in buses if len(bus.phases) >= 3]
        self.three_phase = tuple(bus.name for bus in three)
        rows = [[at[label] for label in bus.labels[:3]] for bus in three]
        self._three = np.array(rows, dtype=np.intp).reshape(-1, 3)

    def v_deg(self) -> FloatArray:
        """Return the angle of each node's voltage to ground in degrees, 0 where there is none."""
        return np.angle(self._circuit.v_complex_pu(), deg=True)

    def unbalance_pct(self) -> FloatArray:
        """Return the voltage unbalance of each three-phase bus in percent, 0 without a voltage.

        Negative over positive sequence voltage, V2/V1: the definition of IEC 61000-4-30 (also
        IEEE 1159), which is what heats motors. It does not depend on the neutral's potential. A
        bus whose numbers run against the rotation has the two exchanged: the larger one counts as
        positive.
        """
        v = self._circuit.v_complex_pu()[self._three]
        one, other = np.abs(v @ _POSITIVE), np.abs(v @ _NEGATIVE)
        positive, negative = np.maximum(one, other), np.minimum(one, other)
        live = positive > _DEAD_PU
        ratio = np.divide(negative, positive, out=np.zeros_like(positive), where=live)
        return np.asarray(100.0 * ratio)
