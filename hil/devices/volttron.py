"""VOLTTRON's Modbus registry configurations (CSV) as device files.

Source: VOLTTRON documentation, "Modbus Driver" and "Modbus-TK Driver". A point that VOLTTRON may
write is in a coil or holding register, any other in a discrete input or input register, unless a
column `Table` says so. Nothing that the CSV does not have is made up: without limits and a safe
value a point is read only.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid_models.base.errors import nearest_name, reason_of
from hil.devices.errors import DeviceFileError, Problem
from hil.devices.rules import rule_problems
from hil.devices.spec import DeviceSpec

_STRUCT = {
    "h": "int16", "H": "uint16", "i": "int32", "I": "uint32", "l": "int32", "L": "uint32",
    "q": "int64", "Q": "uint64", "f": "float32", "d": "float64",
}  # fmt: skip
_TYPES = {"float": "float32", "double": "float64"} | {
    kind: kind for kind in ("bool", "int16", "uint16", "int32", "uint32", "int64", "uint64")
}
_TABLES = {
    "discrete_output_coils": "coil",
    "discrete_input_contacts": "discrete",
    "analog_input_registers": "input",
    "analog_output_holding_registers": "holding",
}
#: Columns by what they mean here; the first name is that of the Modbus driver.
_COLUMNS = {
    "name": ("volttron point name", "register name"),
    "type": ("modbus register", "type"),
    "address": ("point address", "address"),
    "writable": ("writable",),
    "unit": ("units",),
    "details": ("units details",),
    "default": ("default value",),
    "notes": ("notes", "description"),
    "reference": ("reference point name",),
    "mixed": ("mixed endian",),
    "table": ("table",),
    "transform": ("transform",),
}
_REQUIRED = ("name", "type", "address", "writable")
_BOOLS = {"true": True, "false": False, "": False}


@dataclass
class Imported:
    """A device file made from a registry.

    Attributes
    ----------
    text : The file.
    notes : What could not be carried over, one line each with the line of the CSV.
    """

    text: str
    notes: list[str]


@dataclass
class _Registry:
    """The CSV while it is read: its rows, and what was found."""

    path: Path
    columns: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    writable: set[str] = field(default_factory=set)

    def wrong(self, line: int, meaning: str, what: str, expected: str = "", near: str = "") -> None:
        column = self.columns.get(meaning, meaning)
        self.problems.append(Problem(str(self.path), line, f"'{column}'", what, expected, near))

    def note(self, line: int, text: str) -> None:
        self.notes.append(f"{self.path}:{line}: {text}")


def import_registry(path: Path) -> Imported:
    """Return the device file of a registry.

    Raises DeviceFileError: The CSV cannot be read, or rows are wrong; a line for each.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if any(c.strip() for c in row)]
    except UnicodeError:
        raise DeviceFileError(
            [Problem(str(path), 0, "", "not a text file in UTF-8; expected a CSV")]
        ) from None
    except (OSError, csv.Error) as error:
        why = getattr(error, "strerror", None) or reason_of(error)
        raise DeviceFileError([Problem(str(path), 0, "", f"{why}; expected a CSV")]) from None
    registry = _Registry(path, _columns(path, header))
    points: dict[str, dict[str, Any]] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        cells = {m: _cell(header, row, c) for m, c in registry.columns.items()}
        name = cells["name"]
        if not name:
            registry.wrong(line, "name", "is empty", "a name")
        elif name in points:
            registry.wrong(line, "name", f"'{name}' is in line {lines[name]} as well")
        else:
            points[name], lines[name] = _point(registry, line, cells), line
    if not rows:
        registry.wrong(0, "name", "the file has no points")
    if registry.problems:
        raise DeviceFileError(registry.problems)
    return Imported(_text(registry, points, lines), registry.notes)


def _columns(path: Path, header: list[str]) -> dict[str, str]:
    """Return the column of each meaning."""
    by_name = {column.strip().lower(): column for column in header}
    found = {
        meaning: by_name[name]
        for meaning, names in _COLUMNS.items()
        for name in reversed(names)
        if name in by_name
    }
    problems = []
    for meaning in _REQUIRED:
        if meaning not in found:
            wanted = _COLUMNS[meaning]
            near = nearest_name(wanted[0], by_name) or ""
            expected = " or ".join(f"'{name}'" for name in wanted)
            problems.append(Problem(str(path), 1, "", "a column is missing", expected, near))
    if problems:
        raise DeviceFileError(problems)
    return found


def _cell(header: list[str], row: list[str], column: str) -> str:
    at = header.index(column)
    return row[at].strip() if at < len(row) else ""


def _point(registry: _Registry, line: int, cells: Mapping[str, str]) -> dict[str, Any]:
    """Return the keys of one point; what is wrong with its row goes to the registry."""
    writable = _BOOLS.get(cells["writable"].lower())
    if writable is None:
        registry.wrong(line, "writable", f"found '{cells['writable']}'", "TRUE or FALSE")
    kind = _kind(registry, line, cells["type"])
    bits = kind.get("type") == "bool"
    table = {True: "coil", False: "discrete"} if bits else {True: "holding", False: "input"}
    point: dict[str, Any] = {"table": table[bool(writable)]}
    if cells.get("table"):
        point["table"] = _TABLES.get(cells["table"].lower(), "")
        if not point["table"]:
            registry.wrong(line, "table", f"found '{cells['table']}'", ", ".join(_TABLES))
    address = cells["address"]
    if address.isdecimal() and int(address) <= 65535:
        point["address"] = int(address)
    else:
        registry.wrong(line, "address", f"found '{address}'", "a whole number from 0 to 65535")
    point |= kind
    if _BOOLS.get(cells.get("mixed", "").lower(), False):
        point["word_order"] = "little" if point.get("word_order") != "little" else "big"
    point |= _transform(registry, line, cells.get("transform", ""))
    if cells.get("unit"):
        point["unit"] = cells["unit"]
    about = " ".join(
        filter(None, (cells.get("reference"), cells.get("details"), cells.get("notes")))
    )
    if about:
        point["description"] = about
    if writable:
        registry.writable.add(cells["name"])
        text = "may be written, but the CSV has no limits and no safe value: access is r"
        registry.note(line, f"'{cells['name']}' {text}")
    if cells.get("default"):
        registry.note(
            line, f"'{cells['name']}': the default {cells['default']} is not carried over"
        )
    return point


def _kind(registry: _Registry, line: int, text: str) -> dict[str, Any]:
    """Return type, length and orders of a struct code, or of a type of the Modbus-TK driver."""
    lower = text.lower()
    if lower in _TYPES:
        return {"type": _TYPES[lower]}
    letters = re.fullmatch(r"string\[(\d+)\]|[<>](\d+)s", lower)
    if letters and 1 <= int(letters[1] or letters[2]) <= 250:
        return {"type": "string", "length": (int(letters[1] or letters[2]) + 1) // 2}
    kind = _STRUCT.get(text[1:])
    if kind is None or text[0] not in "<>":
        expected = "BOOL, or > or < and one of " + ", ".join(_STRUCT)
        registry.wrong(line, "type", f"found '{text}'", expected)
        return {}
    # "<f" unpacks the registers' bytes from the last to the first
    little = {"byte_order": "little", "word_order": "little"}
    return {"type": kind} | (little if text[0] == "<" else {})


def _transform(registry: _Registry, line: int, text: str) -> dict[str, Any]:
    """Return the scale of a transform of the Modbus-TK driver."""
    if not text:
        return {}
    found = re.fullmatch(r"scale(?:_int|_float)?\((-?[\d.]+(?:[eE]-?\d+)?)\)", text)
    try:
        scale = float(found[1]) if found else 0.0
    except ValueError:
        scale = 0.0
    if not scale:
        registry.wrong(line, "transform", f"found '{text}'", "scale(NUMBER), or nothing")
    return {"scale": scale}


def _text(registry: _Registry, points: dict[str, dict[str, Any]], lines: dict[str, int]) -> str:
    """Return the device file; its points passed the rules."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", registry.path.stem)
    name = stem if stem[:1].isalpha() else f"device-{stem}"
    spec = DeviceSpec.model_validate({"name": name, "points": points})
    found = [
        Problem(str(registry.path), lines.get(str(key[1]), 0), ".".join(map(str, key[1:])), *rest)
        for key, *rest in rule_problems(spec)
    ]
    if found:
        raise DeviceFileError(found)
    registry.note(
        1, "address, unit id and poll period are in the driver's configuration, not in the CSV"
    )
    out = [
        f"# From {registry.path.name}, a Modbus registry of VOLTTRON. Not tried on the device.",
        "# Set address, unit and poll period. A point may be written with access: rw, min, max and",
        "# safe_value; the CSV has none of them.",
        f"name: {name}",
        f"source: {json.dumps(registry.path.name)}",
        "connection: {host: 127.0.0.1, port: 502, unit: 1}",
        "poll_s: 1.0",
        "points:",
    ]
    for label, point in points.items():
        keys = ", ".join(f"{key}: {json.dumps(value)}" for key, value in point.items())
        comment = " # may be written, says the CSV" if label in registry.writable else ""
        out.append(f"  {json.dumps(label)}: {{{keys}}}{comment}")
    return "\n".join(out) + "\n"
