"""Positions of regulators and capacitors of an OpenDSS circuit: read, and commanded."""

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
    lowest, highest : (n,). Range of each, in steps.
    """

    def __init__(self, circuit: Circuit) -> None:
        self._engine = circuit.engine
        dss = circuit.engine.dss
        controls: dict[str, tuple[str, int]] = {}
        for _ in each(dss.RegControls):
            control = dss.RegControls
            winding = int(control.TapWinding() or control.Winding())
            controls.setdefault(
                str(control.Transformer()).lower(), (str(control.Name()).lower(), winding)
            )
        self.names = tuple(controls)
        self._controls = tuple(controls.values())
        self._batch = ElementBatch(self._engine, [f"regcontrol.{c}" for c, _ in self._controls])
        self._neutral_pu, self._step_pu = np.ones(len(self.names)), np.ones(len(self.names))
        lowest, highest = np.zeros(len(self.names)), np.zeros(len(self.names))
        for i, (name, (_, winding)) in enumerate(controls.items()):
            dss.Transformers.Name(name)
            dss.Transformers.Wdg(winding)
            low, high = float(dss.Transformers.MinTap()), float(dss.Transformers.MaxTap())
            self._neutral_pu[i] = (low + high) / 2.0
            self._step_pu[i] = (high - low) / max(1, int(dss.Transformers.NumTaps()))
            lowest[i] = round((low - self._neutral_pu[i]) / self._step_pu[i])
            highest[i] = round((high - self._neutral_pu[i]) / self._step_pu[i])
        self.lowest, self.highest = lowest, highest
        self._held: dict[int, int] = {}

    def steps(self) -> NDArray[np.float64]:
        """Return the present taps, shape (n,), in steps of the transformer (0.00625 pu if 32)."""
        return self._batch.integers("TapNum").astype(np.float64)

    def command(self, i: int, step: int) -> None:
        """Move tap `i` from the next solution on, and keep its control from moving it."""
        control, winding = self._controls[i]
        if i not in self._held:
            self._held[i] = int(self._engine.value(f"regcontrol.{control}", "maxtapchange"))
        self._engine.command(f'edit "regcontrol.{control}" maxtapchange=0')
        tap = float(self._neutral_pu[i] + step * self._step_pu[i])
        self._engine.command(f'edit "transformer.{self.names[i]}" wdg={winding} tap={tap!r}')

    def release(self, i: int) -> None:
        """Leave tap `i` to its control again."""
        if i in self._held:
            control, most = self._controls[i][0], self._held.pop(i)
            self._engine.command(f'edit "regcontrol.{control}" maxtapchange={most}')


class CapacitorStates:
    """Steps of shunt capacitors that are in service: 1 or 0 for a bank of one step.

    Attributes
    ----------
    names : Capacitors, in the order of `steps`.
    highest : (n,). Steps that each has.
    """

    def __init__(self, circuit: Circuit) -> None:
        engine = self._engine = circuit.engine
        dss, self._lib = engine.dss, engine.lib
        names, most, index = [], [], 0
        for _ in each(dss.Capacitors):
            if dss.PDElements.IsShunt():
                names.append(str(dss.Capacitors.Name()).lower())
                most.append(float(dss.Capacitors.NumSteps()))
                index = [str(n) for n in dss.Element.AllPropertyNames()].index("States") + 1
        self.names, self.highest, self._index = tuple(names), np.array(most), index
        self._controls: dict[str, list[str]] = {}
        for _ in each(dss.CapControls):
            control = str(dss.CapControls.Name()).lower()
            self._controls.setdefault(str(dss.CapControls.Capacitor()).lower(), []).append(control)
        self._held: set[int] = set()
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

    def command(self, i: int, steps: int) -> None:
        """Put steps of bank `i` in service, and keep its control from switching it."""
        name = self.names[i]
        if i not in self._held:
            self._held.add(i)
            self._set_controls(i, "no")
        states = " ".join("1" if k < steps else "0" for k in range(int(self.highest[i])))
        self._engine.command(f'close "capacitor.{name}" 1')
        self._engine.command(f'edit "capacitor.{name}" states=[{states}]')

    def release(self, i: int) -> None:
        """Leave bank `i` to its control again."""
        if i in self._held:
            self._held.remove(i)
            self._set_controls(i, "yes")

    def _set_controls(self, i: int, enabled: str) -> None:
        for control in self._controls.get(self.names[i], ()):
            self._engine.command(f'edit "capcontrol.{control}" enabled={enabled}')
