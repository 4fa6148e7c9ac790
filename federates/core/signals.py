"""Recorded signals: written as an Arrow stream while the run goes, one Parquet file at the end.

A Parquet file is unreadable until it is closed; an Arrow stream is readable up to its last flush.
So a run that is killed leaves ``NAME.arrows``, which `read_signal` and `finalise` understand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from grid_models.base.errors import reason_of

STREAM, TABLE = ".arrows", ".parquet"
_ROW_GROUP = 4096


class SignalWriter:
    """Records one port: ``time_s`` and one column per label.

    Parameters
    ----------
    stem : File path without suffix, ``signals/feeder.v_pu``.
    labels : Labels to record.
    columns : Positions of `labels` in the port's vector; None records all of it.
    """

    def __init__(self, stem: Path, labels: Sequence[str], columns: IntArray | None = None) -> None:
        self._stem = stem
        self._columns = columns
        self._schema = pa.schema([(name, pa.float64()) for name in ("time_s", *labels)])
        self._file = open(_with(stem, STREAM), "wb")  # noqa: SIM115 - closed in close()
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self._file.flush()

    def write(self, time_s: FloatArray, values: FloatArray) -> None:
        """Hand steps to the operating system: `time_s` (m,), `values` (m, n) of the whole port."""
        chosen = values if self._columns is None else values[:, self._columns]
        # Arrow wants each column contiguous, and this copy is all that it keeps.
        columns = [arrow_column(row) for row in (time_s.copy(), *chosen.T.copy())]
        self._stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._file.flush()

    def close(self) -> None:
        """Turn the stream into a Parquet file. What cannot be written stays a stream."""
        if self._file.closed:
            return
        try:
            self._stream.close()
        finally:
            self._file.close()
        finalise(self._stem)


def arrow_column(values: NDArray[Any]) -> Any:
    """Wrap a contiguous array without a copy; `pa.array` would import pandas to look at it."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def arrow_words(words: Sequence[str]) -> Any:
    """Return an Arrow array of texts; `pa.array` would import pandas to look at it."""
    encoded = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def numpy_column(array: Any) -> Any:
    """View an Arrow array of numbers without nulls; `to_numpy` would import pandas."""
    if not len(array):
        return np.empty(0, array.type.to_pandas_dtype())
    buffer = np.frombuffer(array.buffers()[1], dtype=array.type.to_pandas_dtype())
    return buffer[array.offset : array.offset + len(array)]


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def read_batches(path: Path) -> Iterator[Any]:
    """Yield the readable batches of a stream; a torn tail (killed writer) is the end."""
    with pa.OSFile(str(path)) as file:
        try:
            reader = pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, EOFError):
            return
        while True:
            try:
                yield reader.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError, EOFError):
                return


def _stream_schema(path: Path) -> Any | None:
    with pa.OSFile(str(path)) as file:
        try:
            return pa.ipc.open_stream(file).schema
        except (pa.ArrowInvalid, EOFError):
            return None


def finalise(stem: Path) -> None:
    """Turn ``stem.arrows`` into ``stem.parquet``; the stream goes only when the table is whole.

    Row groups have a fixed length, so the bytes do not depend on when the stream was flushed.
    """
    stream = _with(stem, STREAM)
    schema = _stream_schema(stream)
    if schema is None:
        return
    partial = _with(stem, TABLE + ".partial")
    try:
        with pq.ParquetWriter(
            partial,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            use_byte_stream_split=True,
            write_statistics=False,
        ) as writer:
            held: list[Any] = []
            rows = 0
            for batch in read_batches(stream):
                held.append(batch)
                rows += batch.num_rows
                while rows >= _ROW_GROUP:
                    table = pa.Table.from_batches(held, schema)
                    writer.write_table(table.slice(0, _ROW_GROUP), row_group_size=_ROW_GROUP)
                    rest = table.slice(_ROW_GROUP)
                    held, rows = rest.to_batches(), rest.num_rows
            writer.write_table(pa.Table.from_batches(held, schema), row_group_size=_ROW_GROUP)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, _with(stem, TABLE))
    stream.unlink()


def finalise_folder(folder: Path) -> list[str]:
    """Finalise every stream that a killed writer left in `folder`; return what could not be."""
    failed = []
    for stream in sorted(folder.glob(f"*{STREAM}")):
        try:
            finalise(stream.with_name(stream.name.removesuffix(STREAM)))
        except (OSError, pa.ArrowException) as error:
            failed.append(f"{stream.name}: {reason_of(error)}")
    return failed


def signal_names(folder: Path) -> list[str]:
    """Return the recorded signals of a ``signals/`` folder, ``federate.port``."""
    names = {p.name.removesuffix(s) for s in (STREAM, TABLE) for p in folder.glob(f"*{s}")}
    return sorted(names)


def signal_labels(folder: Path, name: str) -> tuple[str, ...]:
    """Return the labels of a recorded signal."""
    stem = folder / name
    if _with(stem, TABLE).exists():
        schema = pq.read_schema(_with(stem, TABLE))
    elif _with(stem, STREAM).exists():
        schema = _stream_schema(_with(stem, STREAM)) or pa.schema([("time_s", pa.float64())])
    else:
        raise FileNotFoundError(f"{stem}: no such signal; have {signal_names(folder)}")
    return tuple(schema.names[1:])


def signal_batches(
    folder: Path, name: str, rows: int = 1024
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield (time_s (n,), values (n, n_labels)) piece by piece, so that a long run fits in memory.

    Reads a finished run's table, or the stream that a killed run left.
    """
    stem = folder / name
    signal_labels(folder, name)
    if _with(stem, TABLE).exists():
        # Without read-ahead: it would hold the whole file in memory.
        file = pq.ParquetFile(_with(stem, TABLE), pre_buffer=False)
        batches = file.iter_batches(rows, use_threads=False)
    else:
        batches = read_batches(_with(stem, STREAM))
    for batch in batches:
        columns = [numpy_column(column) for column in batch.columns]
        values = np.column_stack(columns[1:]) if columns[1:] else np.empty((batch.num_rows, 0))
        yield columns[0], values


def read_signal(folder: Path, name: str) -> tuple[FloatArray, tuple[str, ...], FloatArray]:
    """Read a recorded signal, of a finished or of a killed run.

    Returns
    -------
    time_s : float64 (n_steps,)
    labels : tuple of str
    values : float64 (n_steps, n_labels)
    """
    labels = signal_labels(folder, name)
    batches = list(signal_batches(folder, name))
    if not batches:
        return np.empty(0), labels, np.empty((0, len(labels)))
    return (
        np.concatenate([time_s for time_s, _ in batches]),
        labels,
        np.concatenate([values for _, values in batches]),
    )
