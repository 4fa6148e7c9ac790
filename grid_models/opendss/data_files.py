"""Files that an OpenDSS file names: found in any case, handed to the engine as it can read them.

The engine opens load shapes and the like itself. It knows neither Parquet nor UTF-16 and expects
the name in the case of the disk; so every name is replaced by a path that it can open.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

from grid_models.base.errors import FeederError, nearest_name
from grid_models.opendss.rows import Param, decoded, params

_CURVES = {"loadshape", "tshape", "priceshape", "xycurve", "growthshape", "spectrum"}
_TRACED = {"regcontrol", "pvsystem", "storage", "generator", "indmach012"}
_FILE_PROPERTIES = ("csvfile", "sngfile", "dblfile", "pqcsvfile")
_QUOTES = {'"': '"', "'": "'", "(": ")", "[": "]", "{": "}"}


class DataFiles:
    """Replaces what a command says about files.

    Parameters
    ----------
    scratch : An empty folder for files that the engine cannot read where or as they are.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._n = 0

    def rewritten(self, text: str, kind: str, folder: Path, where: str) -> str:
        """Return a command with the paths of the files it names, and without trace files.

        `kind`: The class of the element that the command makes or edits, '' for options.

        Raises FeederError: A file does not exist or cannot be used.
        """
        if kind not in _CURVES | _TRACED and "file" not in text.lower():
            return text
        parts, done = [], 0
        for param in params(text):
            value = self._value(text, param, kind, folder, where)
            if value is not None:
                parts += [text[done : param.start], value]
                done = param.end
        return "".join((*parts, text[done:]))

    def _value(self, text: str, param: Param, kind: str, folder: Path, where: str) -> str | None:
        name = param.name.rpartition(".")[2].lower()
        # An abbreviation means the first property that fits: d, s and p are others.
        shortest = 3 if kind == "regcontrol" else 2
        if kind == "loadshape" and len(name) > 2 and "memorymapping".startswith(name):
            return "no"  # the engine does not tell the values of a mapped file
        if kind in _TRACED and len(name) >= shortest and "debugtrace".startswith(name):
            return "no"
        if kind in _CURVES and name not in ("", "s", "p"):
            for full in _FILE_PROPERTIES:
                if full.startswith(name):
                    path = self.usable(find(folder, param.value, where), where, how=full)
                    return f'"{path}"'
        quote = text[param.start]
        inner = next(params(param.value), None) if quote in _QUOTES else None
        if inner is None or not _is_array_file(inner):
            return None
        path = find(folder, inner.value, where)
        rest = param.value[inner.end :]
        if rest.lstrip().startswith(","):
            rest = rest.lstrip()  # after a quote the engine takes a blank and a comma for two
        column = _column(rest) if _is_parquet(path) else None
        usable = self.usable(path, where, how=inner.name, column=column)
        mark = "'" if quote == '"' else '"'
        rest = "" if column is not None else rest
        return f"{quote}{inner.name}={mark}{usable}{mark}{rest}{_QUOTES[quote]}"

    def usable(self, path: Path, where: str, how: str = "file", column: int | None = None) -> Path:
        """Return a path that the engine can open.

        `how`: The property that reads it, in full or not; sngfile and dblfile are binary.
        `column`: The only column of a Parquet file that is read.

        Raises FeederError: A Parquet file cannot be used.
        """
        binary = how[0].lower() in "sd"
        if _is_parquet(path):
            if binary:
                raise FeederError(
                    f"'{path.name}' is a Parquet file", where=where, expected="csvfile= or file="
                )
            _write_csv(path, target := self._new(".csv"), column, where)
            return target
        if not binary:
            with path.open("rb") as file:
                head = file.read(4096)
            if head.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
                target = self._new(".csv")
                target.write_text(decoded(path.read_bytes()).replace("\0", ""), encoding="utf-8")
                return target
        if set(str(path)) & set("\"'()[]{}"):
            # The engine's quotes do not nest.
            return Path(shutil.copyfile(path, self._new(path.suffix)))
        return path

    def _new(self, suffix: str) -> Path:
        self._n += 1
        return self._scratch / f"{self._n}{suffix}"


def _is_array_file(inner: Param) -> bool:
    """Whether an array begins with the name of a file; ``%result%`` is the engine's own."""
    name = inner.name.lower()
    known = name == "file" or (name and any(w.startswith(name) for w in ("dblfile", "sngfile")))
    return bool(known) and inner.value.lower() != "%result%"


def _column(options: str) -> int:
    """Return the number of the column that an array takes from a file, 1 by default."""
    for option in params(options.lstrip(" ,\t")):
        if option.name and "column".startswith(option.name.lower()) and option.value.isdigit():
            return int(option.value)
    return 1


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _write_csv(path: Path, target: Path, column: int | None, where: str) -> None:
    """Write a Parquet file as CSV without a header: one of its columns, or all of them."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException):
        raise FeederError(
            f"the Parquet file '{path}' cannot be read: it is missing or not complete", where=where
        ) from None
    if column is not None:
        if not 1 <= column <= table.num_columns:
            raise FeederError(
                f"'{path.name}' has no column {column}",
                where=where,
                expected=f"a column from 1 to {table.num_columns}",
            )
        table = table.select([column - 1])
    for name, values in zip(table.column_names, table.columns, strict=True):
        numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        if not numeric or values.null_count:
            raise FeederError(
                f"column '{name}' of '{path.name}' "
                + ("has empty values" if numeric else f"is not numeric ({values.type})"),
                where=where,
                expected="numbers; 'mult=(file=NAME, column=N)' takes one column",
            )
    csv.write_csv(table, target, csv.WriteOptions(include_header=False))


def find(folder: Path, wanted: str, where: str, suffix: str = "") -> Path:
    """Return an existing file as Windows would find it: either slash, any case.

    `suffix`: What the name may lack.

    Raises FeederError: It does not exist; the message names the nearest file.
    """
    here = locate(folder, wanted, where, suffix)
    if not here.is_file():
        raise FeederError(f"'{wanted}' is not a file", where=where, expected="a file")
    return here


def locate(folder: Path, wanted: str, where: str, suffix: str = "") -> Path:
    """Return an existing file or folder, as `find` does."""
    direct = folder / wanted.replace("\\", "/")
    if direct.exists():
        return Path(os.path.abspath(direct))
    parts = wanted.replace("\\", "/").split("/")
    here = folder
    if wanted.startswith("/"):
        here, parts = Path("/"), parts[1:]
    for part in parts:
        if part in ("", "."):
            continue
        if part == "..":
            here = here.parent
            continue
        names = sorted(p.name for p in here.iterdir()) if here.is_dir() else []
        same = [n for end in ("", suffix) for n in names if _same(n) == _same(part + end)]
        if not same:
            beside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
            raise FeederError(
                f"the file '{wanted}' does not exist",
                where=where,
                expected=f"a file under {folder}",
                nearest=nearest_name(part, names) or nearest_name(parts[-1], beside),
            )
        here = here / (part if part in same else same[0])
    return Path(os.path.abspath(here))


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
