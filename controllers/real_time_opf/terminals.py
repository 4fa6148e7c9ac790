"""What areas measure and command: node voltages, the import, and their DERs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from controllers.real_time_opf.network import IMPORT
from controllers.real_time_opf.objectives import S_BASE_KW
from grid_models.feeder.model import Der
from grid_models.linear.edges import Complex


@dataclass(frozen=True, slots=True)
class AreaMeasurements:
    """One step's measurements, per unit.

    Attributes
    ----------
    y : (m,). Import or squared voltage of each measured quantity.
    target : What the import should be; NaN where nothing is asked of it.
    p_high : (n,). Largest injection of each DER.
    phasors : Complex (k,). Voltages; their angles are 0 until they are measured.
    """

    y: FloatArray
    target: float
    p_high: FloatArray
    phasors: Complex


class AreaTerminals:
    """Ports and measurements of the areas hosted together.

    A measurement that is not finite is replaced by the last good one (1.0 pu, and a DER's largest
    power, before the first) and counted in `held_values`. An import that was never measured, or for
    which no value is asked, has no target.

    Parameters
    ----------
    rows : (m,). What is measured; see `AreaNetwork.rows`.
    ders : (n,). What is commanded.
    phasors : (k,). Nodes whose voltages are measured by magnitude and angle.
    """

    def __init__(
        self, rows: tuple[str, ...], ders: Sequence[Der], phasors: tuple[str, ...] = ()
    ) -> None:
        names = tuple(der.name for der in ders)
        self._import = np.flatnonzero([row == IMPORT for row in rows])
        self._node = np.flatnonzero([row != IMPORT for row in rows])
        source = (IMPORT,) if self._import.size else ()
        nodes = tuple(dict.fromkeys([*(rows[i] for i in self._node.tolist()), *phasors]))
        self._phasor = np.array([nodes.index(label) for label in phasors], dtype=np.int64)
        ports = (
            Port("v_pu", "pu", nodes, initial=1.0),
            Port("v_deg", "deg", phasors),
            Port("p_avail_kw", "kW", names, initial=np.nan, required=False),
            Port("import_kw", "kW", source, initial=np.nan, required=False),
            Port("import_set_kw", "kW", source, initial=np.nan, required=False),
        )
        self.inputs = tuple(port for port in ports if port.labels)
        commands = (Port("p_set_kw", "kW", names), Port("q_set_kvar", "kvar", names))
        self.outputs = commands if names else ()
        self._last = {port.name: np.full(len(port.labels), port.initial) for port in ports}
        self._last["p_avail_kw"] = np.array([der.p_max_kw for der in ders], dtype=np.float64)
        self.held_values = 0

    def read(self, inputs: Mapping[str, FloatArray]) -> AreaMeasurements:
        """Return this step's measurements."""
        for port in self.inputs:
            if port.name in inputs and port.name != "import_set_kw":
                self._last[port.name] = self._hold(inputs[port.name], self._last[port.name])
        last = self._last
        y = np.empty(self._node.size + self._import.size)
        y[self._node] = last["v_pu"][: self._node.size] ** 2
        y[self._import] = np.nan_to_num(last["import_kw"]) / S_BASE_KW
        target = np.nan
        if self._import.size and np.isfinite(last["import_kw"][0]):
            target = float(inputs.get("import_set_kw", [np.nan])[0]) / S_BASE_KW
        turned = np.exp(1j * np.deg2rad(last["v_deg"]))
        phasors = last["v_pu"][self._phasor] * turned
        return AreaMeasurements(y, target, last["p_avail_kw"] / S_BASE_KW, phasors)

    def _hold(self, values: FloatArray, last: FloatArray) -> FloatArray:
        good = np.isfinite(values)
        if good.all():
            return np.array(values, dtype=np.float64)
        self.held_values += int(good.size - np.count_nonzero(good))
        return np.where(good, values, last)
