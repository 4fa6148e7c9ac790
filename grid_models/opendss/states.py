"""Positions of regulators and capacitors of an OpenDSS circuit, read in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.opendss.batch import ElementBatch, EngineArray
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.elements import each


class TapPositions:
    """Taps of the transformers that have a regulator control, in steps from neutral.

    Attributes
    ----------
    names : Transformers, in the order of `steps`.
    controls : The control of each.
    """

    def __init__(self, circuit: Circuit) -> None:
        engine = circuit.engine
        controls: dict[str, str] = {}
        for _ in each(engine.dss.RegControls):
            name = str(engine.dss.RegControls.Transformer()).lower()
            controls.setdefault(name, str(engine.dss.RegControls.Name()).lower())
        self.names = tuple(controls)
        self.controls = tuple(controls.values())
        self._batch = ElementBatch(engine, [f"regcontrol.{name}" for name in self.controls])

    def steps(self) -> NDArray[np.float64]:
        """Return the present taps, shape (n,), in steps of the transformer (0.00625 pu if 32)."""
        return self._batch.integers("TapNum").astype(np.float64)


class CapacitorStates:
    """Steps of shunt capacitors that are in service: 1 or 0 for a bank of one step.

    Attributes
    ----------
    names : Capacitors, in the order of `steps`.
    """

    def __init__(self, circuit: Circuit) -> None:
        engine = circuit.engine
        self._lib = engine.lib
        self.names: tuple[str, ...] = ()
        index = 0
        for _ in each(engine.dss.Capacitors):
            if engine.dss.PDElements.IsShunt():
                self.names += (str(engine.dss.Capacitors.Name()).lower(),)
                index = [str(n) for n in engine.dss.Element.AllPropertyNames()].index("States") + 1
        self._index = index
        self._batch = ElementBatch(engine, [f"capacitor.{name}" for name in self.names])
        self._out = EngineArray(engine, "int32_t")

    def steps(self) -> NDArray[np.float64]:
        """Return how many steps of each bank are in service, shape (n,)."""
        lib, out = self._lib, self._out
        counts = np.zeros(len(self.names))
        for i, handle in enumerate(self._batch.handles):  # a feeder has a handful of banks
            lib.Obj_GetInt32Array(out.pointer, out.dims, handle, self._index)
            counts[i] = 0 if lib.Alt_CE_IsOpen(handle, 1, 0) else int(out.view().sum())
        return counts
