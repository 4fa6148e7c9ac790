"""Ground truth: every value an attack affected, as it was and as it was seen, in long form.

While a run goes each federate that carries out a part of the attack writes a stream of its own
(``attack/FEDERATE.arrows``, readable up to its last flush); at the end it becomes a Parquet table.
Columns: time_s, federate, port, label (what was attacked), true_value, seen_value (NaN: nothing was
seen), step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from federates.core.signals import STREAM, TABLE, read_batches

FOLDER = "attack"
_FLUSH_S = 1.0
_ROWS = 1 << 15
_WORD = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("time_s", pa.float64()),
        ("federate", _WORD),
        ("port", _WORD),
        ("label", _WORD),
        ("true_value", pa.float64()),
        ("seen_value", pa.float64()),
        ("step", _WORD),
    ]
)


class TruthWriter:
    """Writes what one federate knows of the truth.

    Parameters
    ----------
    folder : Path
        The run's folder.
    writer : str
        Name of the federate that writes.
    channels : sequence of (federate, port, labels)
        What may be attacked.
    steps : sequence of str
        Ids of the attack's steps.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        channels: Sequence[tuple[str, str, Sequence[str]]],
        steps: Sequence[str],
    ) -> None:
        self._stem = folder / FOLDER / writer
        self._stem.parent.mkdir(exist_ok=True)
        self._words = {
            "federate": list(dict.fromkeys(f for f, _, _ in channels)),
            "port": list(dict.fromkeys(p for _, p, _ in channels)),
            "label": list(dict.fromkeys(x for _, _, labels in channels for x in labels)),
            "step": list(steps),
        }
        at = {key: {w: i for i, w in enumerate(words)} for key, words in self._words.items()}
        self._federate = np.array([at["federate"][f] for f, _, _ in channels], dtype=np.int32)
        self._port = np.array([at["port"][p] for _, p, _ in channels], dtype=np.int32)
        self._label = np.array(
            [at["label"][x] for _, _, labels in channels for x in labels], dtype=np.int32
        )
        self._dictionaries = {
            key: pa.array(words, pa.string()) for key, words in self._words.items()
        }
        self._first = np.cumsum([0, *(len(labels) for _, _, labels in channels)])
        self._channel = np.repeat(np.arange(len(channels)), np.diff(self._first))
        self._kept: list[tuple[FloatArray | float, IntArray, FloatArray, FloatArray, Any]] = []
        self._n_kept = 0
        self._next_flush = time.monotonic() + _FLUSH_S
        self._file = open(self._stem.with_name(writer + STREAM), "wb")  # noqa: SIM115
        self._stream = pa.ipc.new_stream(self._file, _SCHEMA)
        self._file.flush()
        self.count = 0

    def add(
        self,
        time_s: float | FloatArray,
        channel: int,
        element: IntArray,
        true: FloatArray,
        seen: FloatArray,
        step: int | IntArray,
    ) -> None:
        """Keep affected values.

        Parameters
        ----------
        time_s : float or float64 (m,)
            Time of the true value.
        channel : int
            Position in `channels`.
        element : int64 (m,)
            Positions in the channel's labels.
        true, seen : float64 (m,)
        step : int or int64 (m,)
            Position of the step that acted.
        """
        self.add_flat(time_s, element + self._first[channel], true, seen, step)

    def add_flat(
        self,
        time_s: float | FloatArray,
        element: IntArray,
        true: FloatArray,
        seen: FloatArray,
        step: int | IntArray,
    ) -> None:
        """Keep affected values of any channels; see `add`.

        `element` counts over the labels of all channels, one channel after the other. The arrays
        are kept as they are: the caller does not write to them again.
        """
        if not element.size:
            return
        self._kept.append((time_s, element, true, seen, step))
        self._n_kept += element.size
        self.count += element.size
        if self._n_kept >= _ROWS or time.monotonic() > self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Hand what is kept to the operating system."""
        self._next_flush = time.monotonic() + _FLUSH_S
        if not self._kept:
            return
        columns = self._columns()
        self._kept, self._n_kept = [], 0
        arrays = []
        for field, column in zip(_SCHEMA, columns, strict=True):
            array = pa.Array.from_buffers(
                pa.float64() if field.type == pa.float64() else pa.int32(),
                len(column),
                [None, pa.py_buffer(np.ascontiguousarray(column))],
            )
            if field.type != pa.float64():
                array = pa.DictionaryArray.from_arrays(array, self._dictionaries[field.name])
            arrays.append(array)
        self._stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._file.flush()

    def _columns(self) -> list[NDArray[Any]]:
        """Return what is kept, column by column in the schema's order."""
        size = np.array([row[1].size for row in self._kept])
        element = np.concatenate([row[1] for row in self._kept])
        channel = self._channel[element]

        def spread(k: int, dtype: Any) -> NDArray[Any]:
            if all(np.ndim(row[k]) == 0 for row in self._kept):
                return np.repeat(np.array([row[k] for row in self._kept], dtype=dtype), size)
            parts = [np.broadcast_to(row[k], n) for row, n in zip(self._kept, size, strict=True)]
            return np.concatenate(parts).astype(dtype)

        return [
            spread(0, np.float64),
            self._federate[channel],
            self._port[channel],
            self._label[element],
            np.concatenate([row[2] for row in self._kept]).astype(np.float64),
            np.concatenate([row[3] for row in self._kept]).astype(np.float64),
            spread(4, np.int32),
        ]

    def close(self) -> None:
        """Turn the stream into a table; what cannot be written stays a stream."""
        if self._file.closed:
            return
        try:
            self.flush()
            self._stream.close()
        finally:
            self._file.close()
        _finalise(self._stem.with_name(self._stem.name + STREAM))


def finalise_truth(run: Path) -> None:
    """Turn what writers that died have left into tables."""
    for stream in sorted((run / FOLDER).glob(f"*{STREAM}")):
        _finalise(stream)


def _finalise(stream: Path) -> None:
    table, partial = stream.with_suffix(TABLE), stream.with_suffix(TABLE + ".partial")
    pq.write_table(
        _plain(pa.Table.from_batches(list(read_batches(stream)), _SCHEMA)),
        partial,
        compression="zstd",
        row_group_size=1 << 16,
    )
    partial.replace(table)
    stream.unlink()


def _plain(table: Any) -> Any:
    """Return the table with one dictionary per word column, so its bytes do not tell of flushes."""
    return table.unify_dictionaries().combine_chunks()


def read_truth(run: Path) -> Any:
    """Return the ground truth of a run, finished or not, as a `pyarrow.Table` ordered by time."""
    folder = run / FOLDER
    parts = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.suffix == TABLE:
            parts.append(pq.read_table(path))
        elif path.suffix == STREAM:
            parts.append(pa.Table.from_batches(list(read_batches(path)), _SCHEMA))
    if not parts:
        return _SCHEMA.empty_table()
    table = _plain(pa.concat_tables(parts, promote_options="permissive"))
    return table.sort_by([("time_s", "ascending")]) if table.num_rows else table
