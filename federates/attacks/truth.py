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
from federates.core.signals import STREAM, TABLE, arrow_column, arrow_words, read_batches

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
    folder : The run's folder.
    writer : Name of the federate that writes.
    channels : (federate, port, labels). What may be attacked.
    steps : Ids of the attack's steps.
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
        names = {
            "federate": [f for f, _, _ in channels],
            "port": [p for _, p, _ in channels],
            "label": [x for _, _, labels in channels for x in labels],
        }
        self._first = np.cumsum([0, *(len(labels) for _, _, labels in channels)])
        self._channel = np.repeat(np.arange(len(channels)), np.diff(self._first))
        self._codes = {key: _codes(words) for key, words in names.items()}
        words = {key: list(dict.fromkeys(each)) for key, each in names.items()}
        self._dictionaries = {
            key: arrow_words(each) for key, each in (words | {"step": steps}).items()
        }
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
        time_s : (m,). Time of the true value.
        channel : Position in `channels`.
        element : int64 (m,)
            Positions in the channel's labels, counted on through the channels that follow.
        true, seen : (m,). Kept as they are: the caller does not write to them again.
        step : (m,). Position of the step that acted.
        """
        if not element.size:
            return
        self._kept.append((time_s, element + self._first[channel], true, seen, step))
        self._n_kept += element.size
        self.count += element.size
        if self._n_kept >= _ROWS or time.monotonic() > self._next_flush:
            self.flush()

    def flush(self) -> None:
        """Hand what is kept to the operating system."""
        self._next_flush = time.monotonic() + _FLUSH_S
        if not self._kept:
            return
        size = np.array([row[1].size for row in self._kept])
        element = np.concatenate([row[1] for row in self._kept])
        channel = self._channel[element]
        columns = {
            "time_s": self._spread(0, size),
            "federate": self._codes["federate"][channel],
            "port": self._codes["port"][channel],
            "label": self._codes["label"][element],
            "true_value": np.concatenate([row[2] for row in self._kept]),
            "seen_value": np.concatenate([row[3] for row in self._kept]),
            "step": self._spread(4, size),
        }
        self._kept, self._n_kept = [], 0
        arrays = [self._arrow(name, column) for name, column in columns.items()]
        self._stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        self._file.flush()

    def _spread(self, k: int, size: IntArray) -> NDArray[Any]:
        """Return a column whose rows are one number, or one for each value."""
        rows = [row[k] for row in self._kept]
        if all(np.ndim(row) == 0 for row in rows):
            return np.repeat(np.array(rows), size)
        return np.concatenate(
            [np.broadcast_to(row, n) for row, n in zip(rows, size.tolist(), strict=True)]
        )

    def _arrow(self, name: str, column: NDArray[Any]) -> Any:
        words = self._dictionaries.get(name)
        data = np.ascontiguousarray(column, np.float64 if words is None else np.int32)
        array = arrow_column(data)
        return array if words is None else pa.DictionaryArray.from_arrays(array, words)

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


def _codes(words: Sequence[str]) -> NDArray[np.int32]:
    """Return the position of each word among the distinct ones."""
    number = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return np.array([number[word] for word in words], dtype=np.int32)


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
    """Return the table with one dictionary per column of words: bytes independent of flushes."""
    return table.unify_dictionaries().combine_chunks()


def read_truth(run: Path) -> Any:
    """Return the ground truth of a run, finished or not, as a `pyarrow.Table` ordered by time."""
    folder = run / FOLDER
    parts = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.suffix == TABLE:
            with pq.ParquetFile(path) as file:  # `read_table` would import pandas
                parts.append(file.read())
        elif path.suffix == STREAM:
            parts.append(pa.Table.from_batches(list(read_batches(path)), _SCHEMA))
    if not parts:
        return _SCHEMA.empty_table()
    table = _plain(pa.concat_tables(parts, promote_options="permissive"))
    return table.sort_by([("time_s", "ascending")]) if table.num_rows else table
