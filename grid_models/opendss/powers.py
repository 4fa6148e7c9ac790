"""Loads of an OpenDSS circuit whose powers are written in one call each for kW and kvar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike

from grid_models.base.errors import GridModelError
from grid_models.opendss.engine import Engine

# Setting a load's power leaves the admittance matrix alone: it only preconditions the iteration.
_AVOID_FULL_RECALC = 2


class PowerBank:
    """Loads whose kW and kvar are written together, through pointers into two arrays."""

    def __init__(self, engine: Engine, elements: Sequence[str]) -> None:
        self.n = len(elements)
        self.kw = np.zeros(self.n)
        self.kvar = np.zeros(self.n)
        self._written = b""
        self._set = engine.lib.Batch_SetFloat64Array
        if self.n:
            self._handles = engine.handles("Load", elements)
            self._columns = [
                (
                    engine.property_index("Load", name),
                    engine.ffi.cast("double*", array.ctypes.data),
                )
                for name, array in (("kw", self.kw), ("kvar", self.kvar))
            ]

    def write(self) -> None:
        """Give the arrays to the engine, but where both are as they were: writing takes longer.

        kW alone would make the engine compute kvar anew, from a power factor.
        """
        now = self.kw.tobytes() + self.kvar.tobytes()
        if now != self._written:
            for index, pointer in self._columns:
                self._set(self._handles, self.n, index, pointer, _AVOID_FULL_RECALC)
            self._written = now

    @contextmanager
    def at_zero(self) -> Iterator[None]:
        """Let the engine have no power here meanwhile."""
        before = self.kw.copy(), self.kvar.copy()
        self.kw[:] = self.kvar[:] = 0.0
        self.write()
        try:
            yield
        finally:
            self.kw[:], self.kvar[:] = before
            self.write()

    def fill(self, p: ArrayLike, q: ArrayLike, where: str) -> None:
        """Copy powers of shape (n,) into the arrays; refuse another shape or a value not finite."""
        for values, target, unit in ((p, self.kw, "kW"), (q, self.kvar, "kvar")):
            array = np.asarray(values, dtype=np.float64)
            if array.shape != target.shape:
                raise GridModelError(
                    f"{unit} has shape {array.shape}", where=where, expected=f"{target.shape}"
                )
            if not np.isfinite(array).all():
                raise GridModelError(f"a {unit} is not finite", where=where, expected="numbers")
            target[:] = array
