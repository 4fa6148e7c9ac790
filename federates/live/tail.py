"""Files that grow while they are read: recorded signals and events."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from controllers.core.mail import FloatArray
from federates.core.signals import STREAM, TABLE, signal_batches, signal_labels
from federates.runs.data import Spread, live_voltages, row_spread

POINTS = 600
"""Most points of a curve on the page."""
KEPT_EVENTS = 80
_READ_BYTES = 1 << 24
"""Most of one signal that one look reads: a look at a long run must not take long."""


class SignalTail:
    """A recorded signal up to its last flush.

    Parameters
    ----------
    folder, name : ``signals/`` of a run, and ``federate.port``.

    Attributes
    ----------
    labels : Empty until the signal can be read.
    time_s, latest : Last row that was read; empty before the first.
    last_good_s : When each element was last 0, NaN for never: the quality of a device is 0 if good.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._schema: Any = None
        self._offset = 0
        self._curves: dict[str | None, _Curve] = {}
        self.labels: tuple[str, ...] = ()
        self.time_s = np.nan
        self.latest: FloatArray = np.empty(0)
        self.last_good_s: FloatArray = np.empty(0)

    def curve(self, label: str | None) -> Spread:
        """Return the curve of a label; None: lowest, median and highest element.

        The first time a curve is asked for, the signal is read again from its begin.
        """
        if label not in self._curves:
            self._curves[label] = _Curve(label)
            self._rewind()
        return self._curves[label].spread()

    def _rewind(self) -> None:
        self._offset, self._schema, self.time_s = 0, None, np.nan
        for label in self._curves:
            self._curves[label] = _Curve(label)
        self.look()

    def look(self) -> None:
        """Read what has come since the last look."""
        for time_s, values in self._rows():
            if not len(time_s):
                continue
            if self._name.endswith(".v_pu"):
                values = live_voltages(values)
            self.time_s, self.latest = float(time_s[-1]), values[-1]
            self._note_good(time_s, values)
            for curve in self._curves.values():
                curve.add(time_s, values, self.labels)

    def _note_good(self, time_s: FloatArray, values: FloatArray) -> None:
        if len(self.last_good_s) != values.shape[1]:
            self.last_good_s = np.full(values.shape[1], np.nan)
        if self._name.endswith(".quality"):
            good = values == 0.0
            row = len(good) - 1 - good[::-1].argmax(axis=0)
            self.last_good_s = np.where(good.any(axis=0), time_s[row], self.last_good_s)

    def _rows(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield (time_s (n,), values (n, n_labels)) of the complete messages behind the offset."""
        stem = self._folder / self._name
        try:
            with stem.with_name(stem.name + STREAM).open("rb") as file:
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            yield from self._table_rows()
            return
        source = pa.BufferReader(data)
        begin = self._offset
        while True:
            try:
                message = pa.ipc.read_message(source)
                if self._schema is None:
                    self._schema = pa.ipc.read_schema(message)
                    self.labels = tuple(self._schema.names[1:])
                    batch = None
                else:
                    batch = pa.ipc.read_record_batch(message, self._schema)
            except (EOFError, pa.ArrowInvalid, OSError):
                return  # the rest is not there yet
            self._offset = begin + source.tell()
            if batch is not None:
                columns = [np.frombuffer(c.buffers()[1], dtype=np.float64) for c in batch.columns]
                yield columns[0], np.column_stack(columns[1:])

    def _table_rows(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield what is new in the table that a federate's end made of the stream, if it did."""
        if self._folder.joinpath(self._name + TABLE).exists():
            self.labels = signal_labels(self._folder, self._name)
            seen_s = self.time_s
            for time_s, values in signal_batches(self._folder, self._name):
                new = ~(time_s <= seen_s)
                yield time_s[new], values[new]


class _Curve:
    """A curve of `POINTS` to twice as many points, each of equally many samples.

    Each column of `_rows` is a point: its first time, its lowest value, the sum and the number of
    its values that are finite, its highest value.
    """

    def __init__(self, label: str | None) -> None:
        self._label = label
        self._every, self._n = 1, 0
        self._rows = np.empty((5, 0))
        self._cells = np.empty(0, dtype=np.int64)

    def add(self, time_s: FloatArray, values: FloatArray, labels: tuple[str, ...]) -> None:
        """Take in samples, `values` (n, n_labels)."""
        if self._label is not None:
            at = labels.index(self._label) if self._label in labels else None
            values = values[:, [at]] if at is not None else np.full((len(values), 1), np.nan)
        low, mid, high = row_spread(values)
        good = np.isfinite(mid)
        new = np.stack([time_s, low, np.where(good, mid, 0.0), good, high])
        rows = np.concatenate([self._rows, new], axis=1)
        at_cell = (self._n + np.arange(len(time_s))) // self._every
        cells = np.concatenate([self._cells, at_cell])
        self._n += len(time_s)
        while True:
            starts = np.flatnonzero(np.diff(cells, prepend=-1))
            rows, cells = _merged(rows, starts), cells[starts]
            if len(cells) <= 2 * POINTS:
                break
            cells //= 2
            self._every *= 2
        self._rows, self._cells = rows, cells

    def spread(self) -> Spread:
        """Return the points: lowest, mean of the middle, highest value."""
        time_s, low, total, count, high = self._rows
        mid = np.where(count > 0, total / np.maximum(count, 1.0), np.nan)
        return Spread(time_s, low, mid, high)


def _merged(rows: FloatArray, starts: Any) -> FloatArray:
    if not len(starts):
        return rows
    return np.stack(
        [
            rows[0][starts],
            np.fmin.reduceat(rows[1], starts),
            np.add.reduceat(rows[2], starts),
            np.add.reduceat(rows[3], starts),
            np.fmax.reduceat(rows[4], starts),
        ]
    )


class EventTail:
    """The last events of a run, its attack's windows, and how many events there were."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.jsonl"
        self._offset = 0
        self.last: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        self.count = 0
        self.windows: list[list[Any]] = []
        self.said = ""
        """What the run said to its user last."""

    def look(self) -> None:
        """Read the complete lines that have come since the last look."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self.last.append(event)
                self.count += 1
                self._note_window(event)
                if event.get("event") == "said":
                    self.said = str(event.get("text", ""))

    def _note_window(self, event: dict[str, Any]) -> None:
        kind, step, time_s = event.get("event"), event.get("step"), event.get("time_s")
        if kind == "attack_began" and [step, None] not in [[w[0], w[2]] for w in self.windows]:
            self.windows.append([step, time_s, None])
        elif kind == "attack_ended":
            for window in self.windows:
                if window[0] == step and window[2] is None:
                    window[2] = time_s
