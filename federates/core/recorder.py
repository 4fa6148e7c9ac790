"""Checks the outputs of a federate and writes them to its signal files in blocks.

Each step is one concatenated row, whatever the number of ports; it is split into ports and columns
when the block is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import isfinite

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.federate import Port
from federates.core.run_store import RunStore
from federates.core.signals import SignalWriter
from federates.errors import OutputError

FLUSH_S = 1.0
_BLOCK_VALUES = 1 << 17


class Recorder:
    """The recorded outputs of one federate.

    Parameters
    ----------
    ports : All output ports; the store decides which of them are recorded.
    """

    def __init__(self, federate: str, ports: tuple[Port, ...], store: RunStore) -> None:
        self._names = [port.name for port in ports]
        self._shapes = [(len(port.labels),) for port in ports]
        self._labels = {port.name: port.labels for port in ports}
        # NaN is a value only where the port starts with it: "no set-point", "no reading".
        self._finite = [isfinite(port.initial) for port in ports]
        stop = np.cumsum([len(port.labels) for port in ports], dtype=np.int64)
        width = int(stop[-1]) if ports else 0
        self._writers: list[tuple[slice, SignalWriter]] = []
        for port, end in zip(ports, stop, strict=True):
            writer = store.writer(federate, port)
            if writer is not None:
                self._writers.append((slice(int(end) - len(port.labels), int(end)), writer))
        self._rows = max(16, min(4096, _BLOCK_VALUES // (width + 1)))
        self._time_s = np.empty(self._rows)
        self._block = np.empty((self._rows, width))
        self._filled = 0
        self._every = store.every
        self._calls = 0
        self._next_flush = time.monotonic() + FLUSH_S

    def take(self, time_s: float, outputs: Mapping[str, FloatArray]) -> None:
        """Check and keep one step's outputs.

        Raises OutputError: A port is missing, has another shape, or holds a number that is not
        finite.
        """
        arrays = [outputs.get(name) for name in self._names]
        for array, shape, name in zip(arrays, self._shapes, self._names, strict=True):
            if array is None or getattr(array, "shape", None) != shape:
                expected = f"a float64 array of shape {shape}"
                raise OutputError(name, _found(array), expected, time_s)
        if not arrays:
            return
        row = self._block[self._filled]
        np.concatenate(arrays, out=row)  # type: ignore[arg-type]
        if not np.isfinite(row).all():
            self._refuse_not_finite(time_s, outputs)
        self._calls += 1
        if self._every > 1 and (self._calls - 1) % self._every:
            return
        self._time_s[self._filled] = time_s
        self._filled += 1
        if self._filled == self._rows or time.monotonic() > self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Write the block to the operating system; a kill loses only later steps."""
        n, self._filled = self._filled, 0
        self._next_flush = time.monotonic() + FLUSH_S
        if n:
            for columns, writer in self._writers:
                writer.write(self._time_s[:n], self._block[:n, columns])

    def close(self) -> None:
        """Flush and close every file; the first error is raised after all have been tried."""
        first: Exception | None = None
        for action in (self.flush, *(writer.close for _, writer in self._writers)):
            try:
                action()
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def _refuse_not_finite(self, time_s: float, outputs: Mapping[str, FloatArray]) -> None:
        for name, must_be_finite in zip(self._names, self._finite, strict=True):
            values = outputs[name]
            bad = np.flatnonzero(~np.isfinite(values))
            if must_be_finite and bad.size:
                label = self._labels[name][bad[0]]
                what = f"{values[bad[0]]} for '{label}' ({bad.size} of {values.size} labels)"
                raise OutputError(name, what, "finite numbers", time_s)


def _found(values: object) -> str:
    if values is None:
        return "nothing"
    shape = getattr(values, "shape", None)
    return f"a {type(values).__name__}" if shape is None else f"shape {shape}"
