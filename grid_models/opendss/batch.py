"""Elements of an OpenDSS circuit that are read together: one call of the engine for all of them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.opendss.engine import Engine


class EngineArray:
    """An array that the engine allocates, fills and grows, seen as numpy without a copy.

    Parameters
    ----------
    ctype : {'double', 'int32_t'}
    """

    def __init__(self, engine: Engine, ctype: str = "double") -> None:
        self._ffi = engine.ffi
        self.pointer: Any = engine.ffi.new(f"{ctype}**")
        self.dims: Any = engine.ffi.new("int32_t[4]")
        self._dtype = np.dtype(np.float64 if ctype == "double" else np.int32)
        dispose = "PDouble" if ctype == "double" else "PInteger"
        free = getattr(engine.lib, f"DSS_Dispose_{dispose}")
        weakref.finalize(self, free, self.pointer).atexit = False

    def view(self) -> NDArray[Any]:
        """Return what the engine wrote last; it is overwritten by the next call."""
        n = int(self.dims[0])
        if n == 0:
            return np.empty(0, dtype=self._dtype)
        buffer = self._ffi.buffer(self.pointer[0], n * self._dtype.itemsize)
        return np.frombuffer(buffer, dtype=self._dtype)


class ElementBatch:
    """Circuit elements, of any classes, in a fixed order.

    Parameters
    ----------
    names : Full names, ``line.l1``, lower-case. They must exist.

    Attributes
    ----------
    names : tuple of str
    handles : C array of the engine's objects
    """

    def __init__(self, engine: Engine, names: Sequence[str]) -> None:
        self._engine = engine
        self.names = tuple(names)
        found = []
        for kind, group in _by_class(self.names):
            found += list(engine.handles(kind, group))
        self.handles: Any = engine.ffi.new("void*[]", found)
        self._doubles = EngineArray(engine)
        self._integers = EngineArray(engine, "int32_t")

    def __len__(self) -> int:
        return len(self.names)

    def currents(self) -> NDArray[np.complex128]:
        """Return the currents into all conductors, in ampere, shape (n_conductors,).

        Element by element, in each terminal by terminal. Overwritten by the next call.
        """
        out = self._doubles
        self._engine.lib.Alt_CEBatch_Get_Currents(out.pointer, out.dims, self.handles, len(self))
        return out.view().view(np.complex128)

    def integers(self, name: str) -> NDArray[np.int32]:
        """Return a whole number of each element, (n,); all are of one class.

        `name`: The engine's name of the property.
        """
        if not self.names:
            return np.empty(0, dtype=np.int32)
        out, lib = self._integers, self._engine.lib
        lib.Batch_GetInt32S(out.pointer, out.dims, self.handles, len(self), name.encode())
        return np.array(out.view(), dtype=np.int32)

    def nodes(self, i: int) -> NDArray[np.intp]:
        """Return where the conductors of element `i` are in the node vector, 0 for ground.

        Shape (n_terminals, n_conductors). An element that never was in service is nowhere: 0.
        """
        handle, lib = self.handles[i], self._engine.lib
        lib.Alt_CE_Get_NodeRef(self._integers.pointer, self._integers.dims, handle)
        shape = (lib.Alt_CE_Get_NumTerminals(handle), lib.Alt_CE_Get_NumConductors(handle))
        if self._engine.take_error() is not None:
            return np.zeros(shape, dtype=np.intp)
        return np.array(self._integers.view(), dtype=np.intp).reshape(shape)

    def phases(self, i: int) -> int:
        """Return the number of phases of element `i`."""
        return int(self._engine.lib.Alt_CE_Get_NumPhases(self.handles[i]))


def _by_class(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return runs of names of one class, in order."""
    runs: list[tuple[str, list[str]]] = []
    for full in names:
        kind, _, name = full.partition(".")
        if not runs or runs[-1][0] != kind:
            runs.append((kind, []))
        runs[-1][1].append(name)
    return runs
