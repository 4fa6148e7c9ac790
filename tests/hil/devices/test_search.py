"""Files that the rules accept are files that the adapter can read, write, verify and make safe.

Random device files are checked. Each that is accepted drives the real reader, guard and writer
against registers in memory. To look for more, raise `FILES`: 100,000 were tried.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any, cast, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from grid_models.base.schema_errors import schema_problems
from hil.adapter.audit import AuditLog
from hil.adapter.guard import Guard
from hil.adapter.reader import DeviceReader
from hil.adapter.writer import DeviceWriter
from hil.devices.codec import decode_one, encode, merged
from hil.devices.errors import DeviceError
from hil.devices.places import TYPE_WORDS, Place
from hil.devices.points import PointSpec, RawType
from hil.devices.rules import rule_hints, rule_problems
from hil.devices.spec import DeviceSpec
from hil.modbus.client import ClientStats, ModbusClient

FILES = 1000
BITS = ("coil", "discrete")
NUMBERS = [0, 1, -1, 5, 10, 50, 99.5, 100, -100, 1000, 65535, -32768, 0.1, 0.7, 2.5, 255, 1e6]
MAYBE: dict[str, tuple[float, list[Any]]] = {
    "word_order": (0.2, ["big", "little"]),
    "byte_order": (0.2, ["big", "little"]),
    "scale": (0.4, [0.1, 0.01, 10, -1, -0.1, 3, 1e-3, 0.7, 1000]),
    "offset": (0.2, [-40, 0.05, 100, 1e6]),
    "mask": (0.2, [0xFF, 0xFF00, 0x1, 0x8000, 0x0FF0, 0xFFFF0000, 0x5]),
    "not_implemented": (0.2, [0, -1, 0x8000, 0xFFFF, 0x80000000, 2**64 - 1, 9999, 65536]),
    "max_step": (0.1, [0.1, 1, 50]),
    "max_rate": (0.1, [0.1, 1, 50]),
    "write_function": (0.15, [5, 6, 15, 16]),
}


def some_point(draw: random.Random, names: list[str]) -> dict[str, Any]:
    """Return a point that is mostly consistent."""
    table = draw.choice(["holding"] * 6 + ["input", "coil", "discrete"])
    kind = "bool" if table in BITS and draw.random() < 0.95 else draw.choice(get_args(RawType))
    point: dict[str, Any] = {"table": table, "address": draw.randrange(60), "type": kind}
    point["access"] = (
        draw.choice(["r", "guard"] + ["rw"] * 3) if table in ("holding", "coil") else "r"
    )
    written = ("max_step", "max_rate", "write_function")
    for key, (share, values) in MAYBE.items():
        fits = point["access"] == "rw" if key in written else table not in BITS
        if fits and draw.random() < share and (key != "mask" or "int" in kind):
            point[key] = draw.choice(values)
    if draw.random() < 0.05 and table not in BITS:
        del point["address"]
        point["word_addresses"] = [draw.randrange(60) for _ in range(TYPE_WORDS[kind])]
    if draw.random() < 0.1:
        point["plausible"] = sorted(draw.sample(NUMBERS, 2))
    if draw.random() < 0.1:
        point["scale_from"] = {
            "point": draw.choice(names),
            "kind": draw.choice(["exponent", "factor"]),
        }
    if point["access"] == "rw":
        low, high = (0, 1) if table in BITS else sorted(draw.choices(NUMBERS, k=2))
        point |= {"min": low, "max": high, "safe_value": draw.choice([low, high])}
        if draw.random() < 0.2:
            readback = {"tolerance": draw.choice([0, 0.05, 0.5, 5]), "point": draw.choice(names)}
            point["readback"] = readback
        if draw.random() < 0.2:
            point["enable"] = [{"point": draw.choice(names), "value": draw.choice([0, 1, 0.5, -1])}]
        if draw.random() < 0.2:
            point["reversion"] = {
                "point": draw.choice(names),
                "seconds": draw.choice([30, 3, 70000]),
            }
    return point


def some_file(draw: random.Random) -> dict[str, Any]:
    names = [f"p{i}" for i in range(draw.randrange(1, 6))]
    connection = {"max_gap": draw.choice([0, 8, 60]), "max_registers": draw.choice([125, 16, 4])}
    return {
        "name": "t",
        "connection": connection,
        "points": {n: some_point(draw, names) for n in names},
    }


class Registers:
    """Registers in memory in place of a connection; some show what another one was set to."""

    def __init__(self, draw: random.Random) -> None:
        self.stats = ClientStats()
        self.cells = {
            table: [
                draw.choice([0, 1] if table in BITS else [0, 0xFFFF, 0x8000, 77])
                for _ in range(400)
            ]
            for table in (*BITS, "input", "holding")
        }
        self.shown: list[tuple[Place, Place]] = []
        self.stats = ClientStats()

    async def read(self, unit: int, table: str, address: int, count: int) -> bytes:
        cells = self.cells[table][address : address + count]
        if table in BITS:
            return np.packbits(np.array(cells, dtype=np.uint8), bitorder="little").tobytes()
        return b"".join(cell.to_bytes(2, "big") for cell in cells)

    async def write(self, unit: int, function: int, address: int, words: list[int]) -> None:
        table = "coil" if function in (5, 15) else "holding"
        assert len(words) == 1 or function in (15, 16)
        assert all(0 <= word < (2 if table == "coil" else 65536) for word in words)
        self.cells[table][address : address + len(words)] = words
        for source, place in self.shown:
            value = self.value(source)
            if math.isfinite(value):
                self.put(place, encode(place, value)[0])

    def put(self, place: Place, words: list[int]) -> None:
        cells = self.cells[place.table]
        cells[place.address : place.end] = merged(place, cells[place.address : place.end], words)

    def value(self, place: Place) -> float:
        return decode_one(place, self.cells[place.table][place.address : place.end])


class Silent(AuditLog):
    def __init__(self) -> None:
        self.by, self._fd = "test", -1


async def drive(spec: DeviceSpec, draw: random.Random) -> None:
    """Read, command limits and safe value of each set-point, make safe; nothing may fail."""
    memory, told = Registers(draw), []
    reader = DeviceReader(spec, cast(ModbusClient, memory))
    await reader.poll()
    value, _, bad, *_ = reader.state()
    assert np.isfinite(value[~bad]).all()
    guard = Guard(spec, armed=True)
    writer = DeviceWriter(reader, guard, Silent(), lambda *a: told.append(a), lambda: "")
    places = {name: reader.place(name)[0] for name in reader.slot}
    elsewhere = {n for n, p in places.items() if p.sf or p.factor_from or p.sign_from}
    shown = {n: p.readback.point for n, p in spec.points.items() if p.readback and p.readback.point}
    if elsewhere & {*shown.values(), *(n for n, p in spec.points.items() if p.access != "r")}:
        return  # what a scale elsewhere does to a command is not the file's matter
    memory.shown = [(places[n], places[other]) for n, other in shown.items() if n != other]
    for name in guard.safe_points():  # the device stands inside its limits
        memory.put(places[name], encode(places[name], cast(float, spec.points[name].safe_value))[0])
    await reader.poll()
    working = asyncio.create_task(writer.run())
    for name, point in spec.points.items():
        if not point.writable:
            continue
        low, high = guard.limits(name)
        others = {
            n: memory.value(p) for n, p in places.items() if spec.points[n].writable and n != name
        }
        for wanted in (low, high, point.safe_value, low + draw.random() * (high - low)):
            guard.forget()
            writer.put(name, cast(float, wanted))
            await writer.idle.wait()
            slack = 1e-9 * max(1.0, abs(wanted or 0), abs(point.offset))
            assert low - slack <= memory.value(places[name]) <= high + slack
        assert [t for t in told if t[1] in ("failed", "fault", "refused")] == []
        np.testing.assert_equal({n: memory.value(places[n]) for n in others}, others)
    writer.go_safe("test")
    await writer.idle.wait()
    working.cancel()
    await reader.poll()
    for name in guard.safe_points():
        safe = pytest.approx(spec.points[name].safe_value, rel=1e-6, abs=1e-6)  # float32 + offset
        assert memory.value(places[name]) == safe
        assert math.isfinite(reader.current(name))


def test_what_is_accepted_works() -> None:
    accepted = 0
    for seed in range(FILES):
        draw = random.Random(seed)
        data = some_file(draw)
        spec = DeviceSpec.model_validate(data)
        if rule_problems(spec):
            continue
        accepted += any(p.writable for p in spec.points.values())
        try:
            asyncio.run(drive(spec, draw))
        except (AssertionError, DeviceError, ValueError) as error:
            raise AssertionError(f"seed {seed}: {data}") from error
    assert accepted > 40


WORDS = ["", "a", "sp", "701.W", "holding", "uint16", "rw", "guard", "705.Crv[1].Pt[1].V"]
KEYS = st.sampled_from(sorted(PointSpec.model_fields))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["point", "value", "a"]), inner)
    ),
    max_leaves=4,
)


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["sp", "a", "b"]), st.dictionaries(KEYS, ANYTHING)),
    st.integers(0, 10**6),
)
def test_the_check_itself_never_fails(wild: dict[str, dict[str, Any]], seed: int) -> None:
    data = some_file(random.Random(seed))
    for name, keys in wild.items():
        data["points"][name] = {**data["points"]["p0"], **keys}
    found: list[Any] = []
    spec = None
    try:
        spec = DeviceSpec.model_validate(data)
    except ValidationError as error:
        found += schema_problems(DeviceSpec, error)
    if spec is not None:
        found += rule_problems(spec) or rule_hints(spec)
    assert found or spec is not None
