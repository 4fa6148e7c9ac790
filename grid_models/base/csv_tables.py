"""Strict reading of CSV tables: every complaint names file, row, column and what was expected."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grid_models.base.errors import FeederateError, FeederError, nearest_name

PHASE_OF_LETTER = {"A": 1, "B": 2, "C": 3}
_NAME = re.compile(r"[A-Za-z0-9_\-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `number` counts as an editor does: the header is row 1."""

    file: Path
    number: int
    cells: dict[str, str]
    kind: type[FeederateError] = FeederError

    def error(
        self, column: str, what: str, *, expected: str | None = None, nearest: str | None = None
    ) -> FeederateError:
        """Return the error, of class `kind`, that points at one cell of this row."""
        where = f"{self.file}, row {self.number}, column '{column}'"
        return self.kind(what, where=where, expected=expected, nearest=nearest)

    def text(self, column: str) -> str:
        """Return a cell that must not be empty."""
        value = self.cells[column]
        if not value:
            raise self.error(column, "the cell is empty", expected="a value")
        return value

    def name(self, column: str) -> str:
        """Return the name of a bus or element, lower-case."""
        value = self.text(column)
        if not _NAME.fullmatch(value):
            raise self.error(
                column, f"'{value}' is not a usable name", expected="letters, digits, '_' or '-'"
            )
        return value.lower()

    def number_of(self, column: str, *, least: float = -math.inf, over: float = -math.inf) -> float:
        """Return a finite number that is at least `least` and more than `over`."""
        value = self.text(column)
        if over > -math.inf:
            expected = f"a number over {over:g}"
        elif least > -math.inf:
            expected = f"a number of at least {least:g}"
        else:
            expected = "a finite number"
        try:
            number = float(value)
        except ValueError:
            raise self.error(column, f"'{value}' is not a number", expected=expected) from None
        if not math.isfinite(number) or number < least or number <= over:
            raise self.error(column, f"'{value}' cannot be used", expected=expected)
        return number

    def whole_number(self, column: str) -> int:
        """Return a whole number."""
        number = self.number_of(column)
        if number != round(number):
            raise self.error(column, f"'{self.cells[column]}' is not whole", expected="an integer")
        return round(number)

    def choice(self, column: str, options: Iterable[str]) -> str:
        """Return a cell that must be one of `options`, in the spelling of `options`."""
        value = self.text(column)
        known = tuple(options)
        for option in known:
            if option.lower() == value.lower():
                return option
        raise self.error(
            column,
            f"'{value}' is unknown",
            expected="one of " + ", ".join(known) if len(known) <= 12 else None,
            nearest=nearest_name(value, known),
        )

    def phases(self, column: str) -> tuple[int, ...]:
        """Return phase letters as ordered phase numbers, ``'AC'`` as ``(1, 3)``."""
        value = self.text(column)
        numbers = [PHASE_OF_LETTER.get(letter, 0) for letter in value.upper()]
        if 0 in numbers or len(set(numbers)) != len(numbers):
            raise self.error(
                column, f"'{value}' does not name phases", expected="letters of ABC, each once"
            )
        return tuple(sorted(numbers))


def read_table(
    path: Path, columns: Sequence[str], kind: type[FeederateError] = FeederError
) -> list[Row]:
    """Return the rows of a CSV table in file order; blanks are stripped, empty lines skipped.

    Parameters
    ----------
    path : UTF-8 CSV file with one header row.
    columns : Columns that must be there. Others are kept and not looked at.
    kind : Class of the errors.

    Raises FeederError, or: `kind` The file is missing, empty, not text, lacks a column, or a row
    has the wrong cell count.
    """
    lines = list(csv.reader(io.StringIO(_read_text(path, kind), newline="")))
    header = [cell.strip() for cell in lines[0]] if lines else []
    if not any(header):
        raise kind("the file is empty", where=str(path), expected=",".join(columns))
    for column in columns:
        if column not in header:
            raise kind(
                f"column '{column}' is missing",
                where=f"{path}, row 1",
                expected=",".join(columns),
                nearest=nearest_name(column, [h for h in header if h not in columns]),
            )
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise kind(
                f"{len(cells)} cells", where=f"{path}, row {number}", expected=f"{len(header)}"
            )
        rows.append(
            Row(path, number, dict(zip(header, (c.strip() for c in cells), strict=True)), kind)
        )
    return rows


def _read_text(path: Path, kind: type[FeederateError]) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        others = (p.name for p in path.parent.glob("*.csv")) if path.parent.is_dir() else ()
        raise kind(
            "the file does not exist",
            where=str(path),
            expected="a CSV table",
            nearest=nearest_name(path.name, others),
        ) from None
    except OSError as error:
        raise kind(
            f"the file cannot be read ({error.strerror})", where=str(path), expected="a CSV table"
        ) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise kind("the file is not text", where=str(path), expected="CSV in UTF-8")
    return text
