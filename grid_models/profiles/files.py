"""Reading and writing profile tables (CSV, Parquet) with checks that name file, row and column."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import ProfileError, nearest_name

Array = NDArray[np.float64]

#: Known columns: lowest and highest plausible value, and the value of a column that is left out.
KNOWN_COLUMNS: dict[str, tuple[float, float, float]] = {
    "irradiance_pu": (0.0, 1.8, 0.0),
    "temp_c": (-60.0, 60.0, 20.0),
    "load_pu": (0.0, 20.0, 1.0),
    "price_per_kwh": (-100.0, 100.0, 0.15),
}
#: Columns of one load or node begin so; `grid_models.profiles.load_columns` reads them.
LOAD_PREFIXES = ("load_pu.", "load_kw.", "load_kvar.")
_MEANING = {
    "time_s": "seconds since the start of the profile's first day",
    "irradiance_pu": "irradiance in units of 1000 W/m2",
    "temp_c": "outdoor temperature in degrees C",
    "load_pu": "multiple of the nominal load",
    "price_per_kwh": "currency per kWh",
}


def read_table(path: str | Path) -> tuple[dict[str, Array], str]:
    """Read and check a profile table.

    `path`: A CSV file (UTF-8, commas, one header row) or a Parquet file. `time_s` is required and
    grows strictly; other known columns may be left out; further columns are the user's own.

    Returns
    -------
    dict of ndarray, shape (rows,)
        The columns found, `time_s` first; columns of `KNOWN_COLUMNS` left out are filled with
        their default.
    str
        The file's name, for messages.

    Raises ProfileError: The file is missing, empty, binary or ragged, a column is missing, misspelt
    or in another unit, or a value is not a finite plausible number; with file, row (as an editor
    counts the lines of a CSV; data rows from 1 in Parquet) and column.
    """
    file = Path(path)
    where = str(path)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ProfileError(
            f"cannot be read: {error.strerror or error}",
            where=where,
            expected="a CSV or Parquet file",
            nearest=_nearest_file(file),
        ) from None
    if not raw:
        raise ProfileError("the file is empty", where=where, expected="a header row and data rows")
    if raw[:4] == b"PAR1" or file.suffix.lower() in {".parquet", ".pq"}:
        columns, first_row = _parse_parquet(raw, where), 1
    else:
        columns, first_row = _parse_csv(raw, where), 2
    check_columns(columns, where, first_row)
    n = len(columns["time_s"])
    ordered = {"time_s": columns.pop("time_s")}
    for name, (_, _, default) in KNOWN_COLUMNS.items():
        ordered[name] = columns.pop(name) if name in columns else np.full(n, default)
    return ordered | columns, where


def _nearest_file(file: Path) -> str | None:
    try:
        return nearest_name(file.name, [p.name for p in file.parent.iterdir() if p.is_file()])
    except OSError:
        return None


def _parse_csv(raw: bytes, where: str) -> dict[str, Array]:
    if b"\x00" in raw:
        raise ProfileError("the file is binary", where=where, expected="CSV text in UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProfileError(
            f"byte {error.start} is not UTF-8 text", where=where, expected="CSV text in UTF-8"
        ) from None
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ProfileError(f"is not a CSV table: {error}", where=where) from None
    if not numbered:
        raise ProfileError("the file is empty", where=where, expected="a header row and data rows")
    header = [name.strip() for name in numbered[0][1]]
    _check_header(header, where)
    body = numbered[1:]
    if not body:
        raise ProfileError("no data rows", where=where, expected="rows below the header")
    for line, row in body:
        if len(row) != len(header):
            raise ProfileError(
                f"{len(row)} fields", where=f"{where}, row {line}", expected=f"{len(header)}"
            )
    try:
        table = np.array([row for _, row in body], dtype=np.float64)
    except ValueError:
        raise _first_non_number(header, body, where) from None
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(header)}


def _check_header(header: Sequence[str], where: str) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise ProfileError(
            "columns are not separated by commas", where=f"{where}, row 1", expected="a comma"
        )
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise ProfileError(f"column '{doubled[0]}' appears twice", where=f"{where}, row 1")
    if "" in header:
        raise ProfileError(
            f"column {header.index('') + 1} has no name", where=f"{where}, row 1", expected="a name"
        )


def _first_non_number(
    header: Sequence[str], body: Sequence[tuple[int, Sequence[str]]], where: str
) -> ProfileError:
    for line, row in body:
        for name, field in zip(header, row, strict=True):
            try:
                float(field)
            except ValueError:
                return ProfileError(
                    f"'{field}' is not a number",
                    where=f"{where}, row {line}, column {name}",
                    expected=_MEANING.get(name, "a number"),
                )
    return ProfileError("a field is not a number", where=where)


def _parse_parquet(raw: bytes, where: str) -> dict[str, Array]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError):
        raise ProfileError(
            "is not a Parquet file", where=where, expected="a complete Parquet file"
        ) from None
    _check_header(table.column_names, where)
    if table.num_rows == 0:
        raise ProfileError("no data rows", where=where, expected="at least one row")
    columns: dict[str, Array] = {}
    for name in table.column_names:
        column = table[name]
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise ProfileError(f"holds {kind}", where=f"{where}, column {name}", expected="numbers")
        # An Arrow null becomes NaN, which the value check then reports with its row.
        columns[name] = np.array(column.to_numpy(), dtype=np.float64)
    return columns


def check_columns(columns: Mapping[str, Array], where: str, first_row: int = 1) -> None:
    """Check names and values of a profile's columns.

    Parameters
    ----------
    columns : (rows,). The table; `time_s` must be there.
    where : File or source named in messages.
    first_row : Number of the first data row in messages.

    Raises ProfileError: As in `read_table`.
    """
    _check_names(columns, where)
    for name, values in columns.items():
        at = f"{where}, row {{}}, column {name}"
        wrong = ~np.isfinite(values)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ProfileError(
                f"{values[i]} is not a finite number",
                where=at.format(i + first_row),
                expected=_MEANING.get(name, "a finite number"),
            )
        low, high, _ = KNOWN_COLUMNS.get(name, (-np.inf, np.inf, 0.0))
        wrong = (values < low) | (values > high)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ProfileError(
                f"{values[i]:g} is out of range (another unit?)",
                where=at.format(i + first_row),
                expected=f"{_MEANING[name]}, from {low:g} to {high:g}",
            )
    back = np.flatnonzero(np.diff(columns["time_s"]) <= 0.0)
    if len(back):
        i = int(back[0]) + 1
        time = columns["time_s"]
        raise ProfileError(
            f"time goes from {time[i - 1]:g} to {time[i]:g}",
            where=f"{where}, row {i + first_row}, column time_s",
            expected="strictly growing times",
        )


def _check_names(columns: Mapping[str, Array], where: str) -> None:
    """Refuse a column that looks like a known one in another unit or spelling."""
    known = ("time_s", *KNOWN_COLUMNS)
    for name in columns:
        if name in known or name.startswith(LOAD_PREFIXES):
            continue
        close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
        stem = name.lower().split("_")[0]
        same = [k for k in known if k.split("_")[0] == stem] or close
        if same and same[0] not in columns:
            raise ProfileError(
                f"unknown column '{name}'",
                where=where,
                expected=f"'{same[0]}': {_MEANING[same[0]]}",
                nearest=same[0],
            )
    if "time_s" not in columns:
        raise ProfileError(
            "column 'time_s' is missing",
            where=where,
            expected=_MEANING["time_s"],
            nearest=nearest_name("time_s", columns),
        )


def write_table(path: str | Path, columns: Mapping[str, Array]) -> None:
    """Write columns as Parquet (suffix .parquet or .pq) or CSV; every value survives a round trip.

    Raises ProfileError: The file cannot be written.
    """
    file = Path(path)
    try:
        if file.suffix.lower() in {".parquet", ".pq"}:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table(dict(columns)), file)
            return
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))
    except OSError as error:
        raise ProfileError(
            f"cannot be written: {error.strerror or error}", where=str(path)
        ) from None
