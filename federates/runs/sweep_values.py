"""Values of a sweep as the user writes them: ``a,b,c``, ``range(...)``, tables, seeds.

A value is plain data, as YAML reads it: ``0.5``, ``droop``, ``[feeder.v_pu]``.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federates.errors import ScenarioError
from grid_models.base.yaml_lines import YamlError, parse_yaml

if TYPE_CHECKING:
    import pandas as pd

_MOST_VALUES = 100_000


def parse_sets(sets: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each key of ``key=a,b,c`` and ``key=range(start, stop, step)``.

    Raises ScenarioError: A key is given twice, or has no values.
    """
    grid: dict[str, list[Any]] = {}
    for words in sets:
        key, equals, text = words.partition("=")
        key, where = key.strip(), f"--set {words}"
        if not equals or not key:
            raise ScenarioError(
                "not of the form key=values", where=where, expected="grid.load_scale=0.8,1,1.2"
            )
        if key in grid:
            raise ScenarioError(
                f"the key '{key}' is given twice", where=where, expected=f"{key}=a,b,c once"
            )
        grid[key] = parse_values(text, where)
    return grid


def parse_values(text: str, where: str) -> list[Any]:
    """Return the values of ``a,b,c`` or of ``range(start, stop, step)``, the stop left out.

    Commas inside brackets, braces and quotes belong to a value.
    """
    text = text.strip()
    if text.startswith("range(") and text.endswith(")"):
        return _range(text[len("range(") : -1], where)
    values = []
    for part in _parts(text):
        if not part:
            raise ScenarioError("a value is missing", where=where, expected="values as in a,b,c")
        try:
            values.append(plain(parse_yaml(part)[0], where))
        except YamlError as error:
            raise ScenarioError(
                f"'{part}' is not a YAML value: {error.what}", where=where
            ) from None
    return values


def _parts(text: str) -> list[str]:
    """Split at the commas that are not inside brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _range(text: str, where: str) -> list[Any]:
    """Return the numbers of a range; decimal arithmetic, so that 3 x 0.1 is 0.3."""
    expected = "range(start, stop) or range(start, stop, step), the stop left out"
    try:
        numbers = [Decimal(part.strip()) for part in text.split(",")]
    except InvalidOperation:
        raise ScenarioError(
            f"'range({text})' holds no numbers", where=where, expected=expected
        ) from None
    if len(numbers) not in (2, 3) or not all(n.is_finite() for n in numbers):
        raise ScenarioError(f"'range({text})' is no range", where=where, expected=expected)
    start, stop, step = (*numbers, Decimal(1))[:3]
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ScenarioError(f"'range({text})' is empty", where=where, expected=expected)
    if count > _MOST_VALUES:
        raise ScenarioError(
            f"'range({text})' has {count} values", where=where, expected=f"at most {_MOST_VALUES}"
        )
    values = [start + i * step for i in range(count)]
    whole = all(n == n.to_integral_value() for n in (start, step))
    return [int(v) if whole else float(v) for v in values]


def plain(value: Any, where: str) -> Any:
    """Return a value as plain data: numbers of NumPy and pandas as Python's.

    Raises ScenarioError: It is no text, number, truth value, list or mapping.
    """
    value = value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value
    value = str(value) if isinstance(value, Path) else value
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise ScenarioError(
            f"{value!r:.60} cannot be a value",
            where=where,
            expected="text, a finite number, true or false, or a list or mapping of them",
        ) from None


def parse_seeds(text: str) -> int | list[int]:
    """Return ``20`` as a count, and ``3,5`` or ``range(0,9)`` as seeds.

    Raises ScenarioError: It is neither.
    """
    where = f"--seeds {text}"
    values = parse_values(text, where)
    if any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise ScenarioError(
            "not a number of seeds", where=where, expected="a count, as 20, or seeds, as 3,5,8"
        )
    return values[0] if len(values) == 1 and "(" not in text and "," not in text else values


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read a CSV table of overrides: a key of the scenario per column, a point per row.

    Values are read as YAML; an empty cell leaves the scenario's own value.

    Raises ScenarioError: The file cannot be read, or a row does not fit its header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or f"not a text table ({error})"
        raise ScenarioError(
            f"cannot be read: {why}", where=str(path), expected="a CSV table"
        ) from None
    if len(rows) < 2:
        raise ScenarioError("has no rows", where=str(path), expected="a header of keys, then rows")
    head = [cell.strip() for cell in rows[0]]
    for i, key in enumerate(head):
        if not key or key in head[:i]:
            what = f"column {i + 1} has no name" if not key else f"two columns are called '{key}'"
            raise ScenarioError(what, where=str(path), expected="a key of the scenario per column")
    points = []
    for n, row in enumerate(rows[1:], start=2):
        where = f"{path}: row {n}"
        if len(row) != len(head):
            raise ScenarioError(
                f"{len(row)} cells", where=where, expected=f"{len(head)}, as in the header"
            )
        point = {}
        for key, cell in zip(head, row, strict=True):
            if cell.strip():
                try:
                    point[key] = plain(parse_yaml(cell)[0], f"{where}, column '{key}'")
                except YamlError as error:
                    raise ScenarioError(
                        f"'{cell}' is not a YAML value: {error.what}",
                        where=f"{where}, column '{key}'",
                    ) from None
        points.append(point)
    return points


def as_seeds(seeds: Any) -> int | list[int]:
    """Return a count of seeds, or the seeds, as Python's numbers.

    Raises ScenarioError: It is no whole number, or not different whole numbers from 0.
    """
    if not isinstance(seeds, Iterable) or (hasattr(seeds, "ndim") and seeds.ndim == 0):
        count = plain(seeds, "seeds")
        if isinstance(count, bool) or not isinstance(count, int):
            raise ScenarioError(
                f"found {count!r}", where="seeds", expected="how many, or a list of seeds"
            )
        return count
    found = [plain(seed, "seeds") for seed in seeds]
    wrong = [s for s in found if isinstance(s, bool) or not isinstance(s, int) or s < 0]
    if wrong or not found or len(set(found)) < len(found):
        what = f"{wrong[0]!r} is no seed" if wrong else "no seeds" if not found else "a seed twice"
        raise ScenarioError(what, where="seeds", expected="different whole numbers from 0")
    return found


def table_of(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a pandas DataFrame or of a list of mappings; NaN is no value.

    Raises ScenarioError: It is no table, a column is there twice, or a cell is no plain value.
    """
    rows = _records(table) if hasattr(table, "columns") else table
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise ScenarioError(
            f"is a {type(table).__name__}",
            where="table",
            expected="a CSV file, a DataFrame or a list of dicts",
        )
    return [
        {
            str(key): plain(value, f"table: row {n}, column '{key}'")
            for key, value in row.items()
            if value is not None and not (isinstance(value, float) and math.isnan(value))
        }
        for n, row in enumerate(rows, start=1)
    ]


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a DataFrame without missing values."""
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ScenarioError(
            f"two columns are called '{twice[0]}'",
            where="table",
            expected="a key of the scenario per column",
        )
    there = frame.notna()
    for name in frame.select_dtypes("float"):
        values = frame[name].dropna()
        if len(values) < len(frame) and (values % 1 == 0).all():  # pandas has made them floats
            frame = frame.assign(**{str(name): frame[name].astype("Int64")})
    rows = zip(frame.to_dict("records"), there.to_dict("records"), strict=True)
    return [{key: value for key, value in row.items() if has[key]} for row, has in rows]
