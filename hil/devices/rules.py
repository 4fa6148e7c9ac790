"""What a device file must hold beyond its schema: rules between keys, and SunSpec names."""

from __future__ import annotations

from collections.abc import Iterable

from grid_models.base.errors import nearest_name
from grid_models.base.yaml_lines import KeyPath
from hil.devices import sunspec_models
from hil.devices.errors import DeviceError
from hil.devices.places import TYPE_WORDS, Place, place_of, raw_range, sentinel_of
from hil.devices.points import GuardWrite, PointSpec
from hil.devices.spec import DeviceSpec

Found = tuple[KeyPath, str, str, str]


def rule_problems(spec: DeviceSpec) -> list[Found]:
    """Return (key path, what, expected, nearest) for everything that breaks a rule."""
    found: list[Found] = []
    if not spec.points and not spec.sunspec:
        found.append((("points",), "nothing to read", "points or sunspec models", ""))
    for i, model in enumerate(spec.sunspec):
        found += _model_problem(("sunspec", i), model)
    for model in spec.curves:
        if model not in (705, 706, 712):
            found.append((("curves", str(model)), "not a curve model", "705, 706 or 712", ""))
    for name, point in spec.points.items():
        at: KeyPath = ("points", name)
        of_point = (*_place_problems(point), *_limit_problems(point), *_references(spec, point))
        found += [((*at, *key), what, expected, near) for key, what, expected, near in of_point]
    found += _overlaps(spec)
    found += _guard_problems(spec)
    return found


def _overlaps(spec: DeviceSpec) -> Iterable[Found]:
    """Two points may be the same registers, but not parts of each other."""
    ends: dict[str, list[tuple[int, int, str]]] = {}
    for name, point in spec.points.items():
        if point.type == "string" or (place := _place(point)) is None:
            continue
        for start, stop, other in ends.get(place.table, []):
            same = (start, stop) == (place.address, place.end)
            if place.address < stop and start < place.end and not same:
                key: KeyPath = ("points", name, "address")
                yield key, f"overlaps '{other}'", "registers of its own", ""
        ends.setdefault(place.table, []).append((place.address, place.end, name))


def _place(point: PointSpec) -> Place | None:
    """Return where a point is, as far as it can be told."""
    try:
        return place_of(point)
    except DeviceError:
        return None


def _model_problem(key: KeyPath, model: int) -> list[Found]:
    known = sunspec_models.model_ids()
    if model in known:
        return []
    near = nearest_name(str(model), map(str, known)) or ""
    return [(key, f"there is no SunSpec model {model}", "a model of pysunspec2", near)]


def _place_problems(point: PointSpec) -> Iterable[Found]:
    """Where the point is: a SunSpec name, or table, address and type."""
    keys = ("table", "word_addresses" if point.word_addresses else "address", "type")
    given = [k for k in keys if getattr(point, k) is not None]
    if point.sunspec is not None:
        if given:
            yield (given[0],), "given besides 'sunspec'", "one of the two", ""
        yield from _sunspec_problems(point)
        return
    for key in keys:
        if key not in given:
            yield (key,), "required key is missing", "table, address and type, or sunspec", ""
    if point.table is None or point.type is None or len(given) < len(keys):
        return
    yield from _type_problems(point, point.type)
    bits = point.table in ("coil", "discrete")
    if bits != (point.type == "bool"):
        yield (
            ("type",),
            f"found {point.type} in table {point.table}",
            ("bool" if bits else "a type of registers"),
            "",
        )
    if point.plausible is not None and point.plausible[0] >= point.plausible[1]:
        yield ("plausible",), f"found {list(point.plausible)}", "[lowest, highest]", ""
    words = point.length if point.type == "string" else TYPE_WORDS[point.type]
    if point.address is not None and point.address + words > 65536:
        yield ("address",), "the point ends behind the last register", "at most 65535", ""
    if point.access != "r" and point.table in ("discrete", "input"):
        yield ("access",), f"table {point.table} cannot be written", "access r", ""
    if point.access != "r" and point.type == "string":
        yield ("access",), "text cannot be written", "access r", ""
    if point.scale == 0:
        yield ("scale",), "found 0", "a number other than 0", ""


def _type_problems(point: PointSpec, kind: str) -> Iterable[Found]:
    """Keys of the type: bits of an integer, addresses of words, what means "not there"."""
    mask, size = point.mask, 16 * TYPE_WORDS[kind]
    if mask is not None:
        run = mask // (mask & -mask) + 1
        if "int" not in kind:
            yield ("mask",), f"found with type {kind}", "an integer type", ""
            return
        if mask >= 2**size or run & (run - 1):
            yield ("mask",), f"found {mask:#x}", f"adjacent bits of {size}", ""
            return
    if point.word_addresses is not None:
        if point.address is not None:
            yield ("address",), "given besides 'word_addresses'", "one of the two", ""
        found, wanted = len(set(point.word_addresses)), TYPE_WORDS[kind]
        if found != wanted or len(point.word_addresses) != wanted or kind in ("bool", "string"):
            yield ("word_addresses",), f"found {found} for type {kind}", f"{wanted} addresses", ""
    if point.not_implemented is not None:
        try:
            sentinel_of(kind, point.not_implemented, mask)
        except DeviceError as error:
            yield ("not_implemented",), error.what, error.expected or "", ""


def _sunspec_problems(point: PointSpec) -> Iterable[Found]:
    try:
        definition = sunspec_models.find_point(str(point.sunspec))
    except sunspec_models.UnknownPointError as error:
        yield ("sunspec",), error.what, error.expected or "", error.nearest or ""
        return
    if point.access != "r" and definition.get("access") != "RW":
        yield ("access",), f"{point.sunspec} is read-only in SunSpec", "access r", ""


def _limit_problems(point: PointSpec) -> Iterable[Found]:
    """What a command may do: limits that are there, in order, and fit the registers."""
    if point.access != "rw":
        for key in ("max_step", "max_rate", "safe_value", "reversion"):
            if getattr(point, key) is not None:
                yield (key,), "only for a point of access rw", "", ""
        return
    if point.enum and point.min is None and point.max is None:
        low, high = min(point.enum.values()), max(point.enum.values())
    else:
        for key in ("min", "max"):
            if getattr(point, key) is None:
                yield (key,), "required for a point of access rw", "a number", ""
        if point.min is None or point.max is None:
            return
        low, high = point.min, point.max  # type: ignore[assignment]
    if low > high:
        yield ("min",), f"{low:g} is above max {high:g}", "min <= max", ""
    if point.safe_value is None:
        yield ("safe_value",), "required for a point of access rw", "the value in safe state", ""
    elif not low <= point.safe_value <= high:
        yield ("safe_value",), f"found {point.safe_value:g}", f"{low:g} to {high:g}", ""
    elif point.enum and point.safe_value not in point.enum.values():
        yield ("safe_value",), f"found {point.safe_value:g}", "a value of enum", ""
    if point.type is not None and point.type not in ("string", "bool"):
        raw_low, raw_high = raw_range(point.type, point.mask)
        for key, value in (("min", low), ("max", high)):
            if not raw_low <= round((value - point.offset) / (point.scale or 1.0)) <= raw_high:
                text = f"{value:g} does not fit {point.type} at scale {point.scale:g}"
                yield (key,), text, "a value that the register can hold", ""


def _references(spec: DeviceSpec, point: PointSpec) -> Iterable[Found]:
    """Points that this point names: they exist and have the right access."""
    wanted: list[tuple[KeyPath, str, bool]] = []
    if point.readback and point.readback.point:
        wanted.append((("readback", "point"), point.readback.point, False))
    if point.reversion:
        wanted.append((("reversion", "point"), point.reversion.point, True))
        for i, write in enumerate(point.reversion.before):
            wanted.append((("reversion", "before", i, "point"), write.point, True))
    for i, write in enumerate(point.enable):
        wanted.append((("enable", i, "point"), write.point, True))
    for key, target, guarded in wanted:
        yield from _named(spec, key, target, guarded)
    fixed: list[tuple[KeyPath, GuardWrite]] = []
    fixed += [(("enable", i, "value"), write) for i, write in enumerate(point.enable)]
    before = point.reversion.before if point.reversion else ()
    fixed += [(("reversion", "before", i, "value"), write) for i, write in enumerate(before)]
    for key, write in fixed:
        yield from _within(spec, key, write)


def _within(spec: DeviceSpec, key: KeyPath, write: GuardWrite) -> Iterable[Found]:
    """Return that a fixed value is outside the limits of its point; it is written as it stands."""
    other = spec.points.get(write.point)
    if other is None or other.min is None or other.max is None:
        return
    if not other.min <= write.value <= other.max:
        limits = f"{other.min:g} to {other.max:g}, the limits of '{write.point}'"
        yield key, f"found {write.value:g}", limits, ""


def _named(spec: DeviceSpec, key: KeyPath, target: str, guarded: bool) -> Iterable[Found]:
    other = spec.points.get(target)
    if other is None:
        near = nearest_name(target, spec.points) or ""
        yield key, f"there is no point '{target}'", "a name under points", near
    elif guarded and other.access != "guard":
        yield key, f"'{target}' has access {other.access}", "a point of access guard", ""


def _guard_problems(spec: DeviceSpec) -> Iterable[Found]:
    target = spec.guard.heartbeat_point
    if target is not None:
        yield from _named(spec, ("guard", "heartbeat_point"), target, True)
    for model, curve in spec.curves.items():
        for axis in ("x", "y"):
            low, high = getattr(curve, axis)
            if low > high:
                yield ("curves", str(model), axis), f"{low:g} > {high:g}", "low, high", ""
        for x, y in curve.safe or []:
            if not (curve.x[0] <= x <= curve.x[1] and curve.y[0] <= y <= curve.y[1]):
                yield ("curves", str(model), "safe"), f"({x:g}, {y:g})", "inside x and y", ""
    if spec.connection.tls is not None:
        for key in ("ca", "cert", "key"):
            path = getattr(spec.connection.tls, key)
            if not path.is_file():
                yield ("connection", "tls", key), f"no such file: {path}", "", ""
