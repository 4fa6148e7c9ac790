"""SunSpec model definitions, as pysunspec2 ships them, and where a model's points lie.

Only the JSON files of pysunspec2 are used. Names are ``MODEL.POINT`` with groups between and
indices from 1: ``701.W``, ``704.PFWInj.PF``, ``705.Crv[2].Pt[1].V``. A model that a device has
twice is ``701#2.W`` the second time.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid_models.base.errors import nearest_name
from hil.devices.errors import DeviceError, ScanError
from hil.devices.places import Place, as_in_file

if TYPE_CHECKING:
    from hil.devices.points import PointSpec

# SunSpec Information Model Specification: raw type and the value that means "not implemented".
# An accumulator of 0 may be a true count, so it has no such value.
_TYPES: dict[str, tuple[str, int | None]] = {
    "int16": ("int16", -0x8000), "sunssf": ("int16", -0x8000),
    "uint16": ("uint16", 0xFFFF), "count": ("uint16", 0xFFFF), "acc16": ("uint16", None),
    "enum16": ("uint16", 0xFFFF), "bitfield16": ("uint16", 0xFFFF),
    "int32": ("int32", -0x80000000),
    "uint32": ("uint32", 0xFFFFFFFF), "acc32": ("uint32", None), "ipaddr": ("uint32", 0),
    "enum32": ("uint32", 0xFFFFFFFF), "bitfield32": ("uint32", 0xFFFFFFFF),
    "int64": ("int64", -0x8000000000000000),
    "uint64": ("uint64", 0xFFFFFFFFFFFFFFFF), "acc64": ("uint64", None),
    "float32": ("float32", None), "float64": ("float64", None),
}  # fmt: skip
END_MODEL = 0xFFFF


class UnknownPointError(DeviceError):
    """There is no such SunSpec model or point."""


@dataclass(frozen=True)
class ModelPoint:
    """One point of a model in a device.

    Parameters
    ----------
    name : ``MODEL.GROUP[i].POINT``.
    access : 'R' or 'RW'.
    static : Does not change while the device runs.
    symbols : Name -> raw value, for enumerations.
    """

    name: str
    place: Place
    access: str
    static: bool
    unit: str = ""
    symbols: dict[str, int] = field(default_factory=dict)


@functools.cache
def _folder() -> Path:
    found = importlib.util.find_spec("sunspec2")
    if found is None or not found.submodule_search_locations:
        raise DeviceError("the SunSpec models are not installed", expected="package pysunspec2")
    return Path(found.submodule_search_locations[0]) / "models" / "json"


@functools.cache
def model_ids() -> tuple[int, ...]:
    """Return the numbers of all models that are defined."""
    names = (p.stem.removeprefix("model_") for p in _folder().glob("model_*.json"))
    return tuple(sorted(int(n) for n in names if n.isdigit()))


@functools.cache
def model_definition(model: int) -> dict[str, Any]:
    """Return the top group of a model's definition."""
    path = _folder() / f"model_{model}.json"
    if not path.is_file():
        near = nearest_name(str(model), map(str, model_ids()))
        raise UnknownPointError(f"there is no SunSpec model {model}", nearest=near)
    group: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["group"]
    return group


def find_point(name: str) -> dict[str, Any]:
    """Return the definition of a point by its name; how many of a group there are is not known.

    Raises UnknownPointError: With the nearest valid name.
    """
    head, _, rest = name.partition(".")
    number, mark, instance = head.partition("#")
    if (
        not number.isdigit()
        or not rest
        or (mark and not re.fullmatch("[2-9]|[1-9][0-9]+", instance))
    ):
        raise UnknownPointError(f"found '{name}'", expected="MODEL.POINT, as 701.W or 701#2.W")
    known = dict(_all_points(model_definition(int(number)), ""))
    found = known.get(re.sub(r"\[[1-9][0-9]*\]", "[]", rest))
    if found is not None:
        return found
    plain = re.sub(r"\[[0-9]*\]", "", rest)
    names = {key.replace("[]", ""): key.replace("[]", "[1]") for key in known}
    if plain in names:
        raise UnknownPointError(
            f"found '{name}'", expected=f"{head}.{names[plain]}, counted from 1"
        )
    near = nearest_name(plain, names)
    raise UnknownPointError(
        f"SunSpec model {number} has no point '{plain}'",
        nearest=f"{head}.{names[near]}" if near else None,
    )


def place_in_model(name: str, point: PointSpec | None = None) -> Place:
    """Return the place of a point by its definition alone, as if its model began at 0.

    Raises UnknownPointError.
    """
    definition = find_point(name)
    kind, sentinel = _TYPES.get(definition["type"], ("string", None))
    words = int(definition["size"])
    place = Place("holding", 0, kind, words, sentinel=sentinel, sf=definition.get("sf"))
    return place if point is None else as_in_file(place, point)


def _all_points(group: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for point in group.get("points", []):
        yield prefix + point["name"], point
    for inner in group.get("groups", []):
        many = "[]" if "count" in inner else ""
        yield from _all_points(inner, f"{prefix}{inner['name']}{many}.")


def lay_out(
    model: int, address: int, registers: Sequence[int], *, label: str | None = None
) -> list[ModelPoint]:
    """Return every point of a model with its registers.

    Parameters
    ----------
    address : Address of the model's ID register.
    registers : The whole model, ID and L included; repeating groups take their counts from it.
    label : Name of the model in point names, default its number.

    Raises ScanError: The counts in the data do not fit the model's length.
    """
    walk = _Walk(label or str(model), address, list(registers), {})
    walk.group(model_definition(model), "", [])
    return walk.points


@functools.cache
def layout(
    model: int, address: int, counts: tuple[tuple[str, int], ...]
) -> tuple[tuple[ModelPoint, ...], int]:
    """Return the points of a model without data, and its registers, ID and L included.

    `counts` says how often the repeating groups are there, by the name of their count.
    """
    walk = _Walk(str(model), address, None, dict(counts))
    walk.group(model_definition(model), "", [])
    return tuple(walk.points), walk.at


class _Walk:
    """Walks a definition, beside the data where there are any."""

    def __init__(
        self, label: str, address: int, registers: list[int] | None, counts: dict[str, int]
    ) -> None:
        self.label, self.base = label, address
        self.registers, self.counts = registers, counts
        self.at = 0
        self.points: list[ModelPoint] = []

    def group(self, group: dict[str, Any], prefix: str, above: list[dict[str, str]]) -> None:
        """Take the group's points, then its inner groups, as often as they are there."""
        here: dict[str, str] = {p["name"]: prefix + p["name"] for p in group.get("points", [])}
        scopes = [*above, here]
        for point in group.get("points", []):
            self._point(point, prefix, scopes)
        for inner in group.get("groups", []):
            for i in range(self._count(inner, scopes)):
                index = f"[{i + 1}]" if "count" in inner else ""
                self.group(inner, f"{prefix}{inner['name']}{index}.", scopes)

    def _point(self, point: dict[str, Any], prefix: str, scopes: list[dict[str, str]]) -> None:
        size = int(point["size"])
        if self.registers is not None and self.at + size > len(self.registers):
            # Devices of an older edition of the model end earlier; missing points are not listed.
            self.at += size
            return
        kind = point["type"]
        address, self.at = self.base + self.at, self.at + size
        if kind == "pad":
            return
        raw, sentinel = _TYPES.get(kind, ("string", None))
        factor = point.get("sf")
        if isinstance(factor, str):
            factor = self._full_name(factor, scopes)
        place = Place("holding", address, raw, size, sentinel=sentinel, sf=factor)
        self.points.append(
            ModelPoint(
                f"{self.label}.{prefix}{point['name']}",
                place,
                point.get("access", "R"),
                point.get("static") == "S",
                point.get("units", ""),
                {s["name"]: s["value"] for s in point.get("symbols", [])} if "enum" in kind else {},
            )
        )

    def _full_name(self, name: str, scopes: list[dict[str, str]]) -> str:
        found = next((scope[name] for scope in reversed(scopes) if name in scope), name)
        return f"{self.label}.{found}"

    def _count(self, group: dict[str, Any], scopes: list[dict[str, str]]) -> int:
        count = group.get("count", 1)
        if self.registers is None:
            return self.counts[count] if isinstance(count, str) else int(count)
        left = max(len(self.registers) - self.at, 0)
        size = _fixed_size(group)
        if isinstance(count, str):
            name = self._full_name(count, scopes)
            point = next((p for p in self.points if p.name == name), None)
            count = self.registers[point.place.address - self.base] if point else 0
            if count == 0xFFFF:
                count = 0
            if count * size > left:
                raise ScanError(
                    f"{name} is {count}, which does not fit the model's length",
                    where=f"SunSpec model {self.label} at {self.base}",
                )
        elif count == 0:
            count = left // size if size else 0
        return int(count)


def _fixed_size(group: dict[str, Any]) -> int:
    size = sum(int(p["size"]) for p in group.get("points", []))
    inner = [g for g in group.get("groups", []) if "count" not in g]
    return size + sum(_fixed_size(g) for g in inner)


def text_of(registers: Sequence[int]) -> str:
    """Return the text in registers, up to the first NUL; what is not UTF-8 is replaced."""
    data = struct.pack(f">{len(registers)}H", *registers)
    return data.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
