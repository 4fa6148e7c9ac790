"""SunSpec maps: where points lie (pysunspec2 is the oracle), scans, factors, curves."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sunspec2.modbus.client as oracle

from hil.adapter.adapter import Adapter
from hil.adapter.sunspec import parse_url, scan, scan_device
from hil.devices.errors import DeviceError, GuardError, ScanError
from hil.devices.points import Quality
from hil.devices.spec import ConnectionSpec, DeviceSpec
from hil.devices.sunspec_models import UnknownPointError, find_point, lay_out, model_ids, text_of
from hil.modbus.client import ModbusClient

FIXED = [1, 101, 103, 120, 121, 122, 123, 124, 701, 702, 703, 704, 713, 715]
CURVES = {705: (5, 6), 706: (5, 6), 712: (5, 6)}  # positions of NPt and NCrv


def oracle_points(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, point in group.points.items():
        yield prefix + name, point
    for name, inner in group.groups.items():
        if isinstance(inner, list):
            for i, one in enumerate(inner, start=1):
                yield from oracle_points(one, f"{prefix}{name}[{i}].")
        else:
            yield from oracle_points(inner, f"{prefix}{name}.")


def raw_of(kind: str, words: list[int]) -> Any:
    codes = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q"}
    code = codes.get(kind, "f" if kind == "float32" else "d")
    return struct.unpack(">" + code, struct.pack(f">{len(words)}H", *words))[0]


@pytest.mark.parametrize("model", [*FIXED, *CURVES])
def test_points_lie_where_pysunspec2_has_them(model: int) -> None:
    draw = random.Random(model)
    registers = [model, 0, *(draw.randrange(1, 0x7FFF) for _ in range(300))]
    if model in CURVES:
        for position, count in zip(CURVES[model], (4, 3), strict=True):
            registers[position] = count
    points = lay_out(model, 0, registers)
    length = points[-1].place.end  # a pad at the end is not a point
    registers[1] = length - 2
    data = struct.pack(f">{length + 1}H", *registers[: length + 1])
    theirs = dict(
        oracle_points(
            oracle.SunSpecModbusClientModel(
                model_id=model, model_addr=0, model_len=length - 1, data=data
            )
        )
    )
    numbers = [p for p in points if p.place.kind != "string"]
    pads = sum(p.pdef["type"] == "pad" for p in theirs.values())
    for point in numbers:
        found = theirs[point.name.partition(".")[2]]
        ours = raw_of(point.place.kind, registers[point.place.address : point.place.end])
        assert found.value is not None, point.name
        if point.name == f"{model}.L":
            assert found.value - ours in (0, pads)  # a pad at the end is counted, but is no point
            continue
        assert ours == found.value, point.name
    assert len(numbers) >= len([p for p in theirs.values() if p.pdef["type"] not in TEXT])


TEXT = ("string", "pad", "ipv6addr", "eui48")


def test_all_definitions_can_be_laid_out() -> None:
    for model in model_ids():
        assert lay_out(model, 40000, [model, 4, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("701.Wx", "701.W"), ("7001.W", "701"), ("W", None), ("704.PFWInj.PFx", "704.PFWInj.PF")],
)
def test_unknown_names_say_the_nearest(name: str, nearest: str | None) -> None:
    with pytest.raises(UnknownPointError) as error:
        find_point(name)
    assert error.value.nearest == nearest


def test_counts_that_do_not_fit_are_refused() -> None:
    registers = [705, 20, *([0] * 20)]
    registers[5:7] = [60000, 60000]
    with pytest.raises(ScanError, match="does not fit"):
        lay_out(705, 40002, registers)


# -- a device with models 1, 103 (moving factors) and 705 ----------------------------------------


def curve_model() -> list[int]:
    """705 with 4 points and 3 curves; V_SF -1, DeptRef_SF -1, RspTms_SF 0."""
    top = [705, 0, 0, 0, 1, 4, 3, 0, 0, 0, 0, 0, 0xFFFF, 0xFFFF, 0]
    for i in range(3):
        top += [4, 1, 1, 1000, 1000, 0, 0, 0, 5, int(i == 0), *([0] * 8)]
    top[1] = len(top) - 2
    return top


def fill(device: Any, base: int, models: list[list[int]]) -> dict[int, int]:
    """Write a map; return model -> address."""
    at, places = base + 2, {}
    device.holding[base : base + 2] = [0x5375, 0x6E53]
    for registers in models:
        places[registers[0]] = at
        device.holding[at : at + len(registers)] = registers
        at += len(registers)
    device.holding[at : at + 2] = [0xFFFF, 0]
    return places


def common() -> list[int]:
    text = b"Maker".ljust(32, b"\0") + b"Modell".ljust(32, b"\0") + bytes(16 + 16 + 32)
    return [1, 66, *struct.unpack(">64H", text), 1, 0]


def old_inverter() -> list[int]:
    model = [103, 50, *([0xFFFF] * 50)]
    points = {p.name: p.place.address for p in lay_out(103, 0, model)}
    model[points["103.W"]], model[points["103.W_SF"]] = 1234, 1
    model[points["103.Hz"]], model[points["103.Hz_SF"]] = 6001, 0xFFFE
    model[points["103.PhVphA"]], model[points["103.V_SF"]] = 2770, 0x8000  # factor missing
    model[points["103.VAr"]], model[points["103.VAr_SF"]] = 0x8000, 0  # value missing
    return model


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_scan_finds_the_map_at_every_base(raw_device: Any, base: int) -> None:
    places = fill(raw_device, base, [common(), old_inverter(), curve_model()])
    found = scan_device(parse_url(f"127.0.0.1:{raw_device.port}/1"))
    assert found.base == base
    assert {b.model: b.address for b in found.models} == places
    assert found.identity["Mn"] == "Maker"
    assert found.counts == {"705.NPt": 4, "705.NCrv": 3}


def test_scan_says_what_is_missing(raw_device: Any) -> None:
    with pytest.raises(ScanError, match="no SunSpec map"):
        scan_device(ConnectionSpec(port=raw_device.port))
    fill(raw_device, 40000, [common()])

    async def wanted() -> None:
        link = ModbusClient(ConnectionSpec(port=raw_device.port))
        try:
            await scan(link, 1, wanted={701})
        finally:
            link.close()

    with pytest.raises(ScanError, match="no SunSpec model 701"):
        asyncio.run(wanted())


def test_scan_ends_where_the_chain_has_no_end(raw_device: Any) -> None:
    raw_device.holding[40000:40002] = [0x5375, 0x6E53]
    raw_device.holding[40002:] = [64001, 100] * ((65536 - 40002) // 2)
    with pytest.raises(ScanError, match="no end"):
        scan_device(ConnectionSpec(port=raw_device.port))


@pytest.mark.parametrize("url", ["", "http://x", "host:99999", "host:1/400", "host:1/a"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(DeviceError, match="not an address"):
        parse_url(url)


@pytest.fixture
def inverter(raw_device: Any, tmp_path: Path) -> Iterator[tuple[Any, Adapter, dict[int, int]]]:
    places = fill(raw_device, 40000, [common(), old_inverter(), curve_model()])
    spec = DeviceSpec.model_validate(
        {
            "name": "inv",
            "connection": {"port": raw_device.port},
            "poll_s": 0.1,
            "sunspec": [103, 705],
            "points": {"p_kw": {"sunspec": "103.W", "scale": 0.001, "unit": "kW"}},
            "curves": {705: {"x": [80, 120], "y": [-60, 60], "timeout_s": 0.5}},
        }
    )
    adapter = Adapter([spec], armed={"inv"}, audit=tmp_path / "audit.jsonl", watchdog=False)
    with adapter:
        adapter.poll()
        yield raw_device, adapter, places


def test_factors_missing_values_and_repeats(inverter: Any) -> None:
    device, adapter, places = inverter
    now = adapter.poll()["inv"]
    assert now["p_kw"].value == pytest.approx(12.34)
    assert now["103.Hz"].value == 60.01
    for name in ("103.PhVphA", "103.VAr"):
        assert now[name].quality is Quality.BAD, name
    assert now["705.Crv[3].Pt[4].Var"].quality is Quality.GOOD
    # a factor of model 103 is not static: it is read with every value
    w_sf = next(p for p in lay_out(103, places[103], old_inverter()) if p.name == "103.W_SF")
    device.holding[w_sf.place.address] = 0
    assert adapter.poll()["inv"]["p_kw"].value == pytest.approx(1.234)


def adopting(device: Any, places: dict[int, int], *, result: int = 1, keep: bool = False) -> None:
    """Give the raw device the habit of adopting curve 2 when it is asked to."""
    top, size = places[705], 18

    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        if asked[0] == 16 and struct.unpack(">H", asked[1:3])[0] == top + 3:
            device.holding[top + 4] = result
            first = top + 15
            if result == 1 and not keep:
                device.holding[first : first + size] = device.holding[
                    first + size : first + 2 * size
                ]
        return [struct.pack(">HHHB", tid, 0, len(honest) + 1, unit) + honest]

    device.behaviour = behave


XY = [(92.0, 44.0), (98.0, 0.0), (102.0, 0.0), (108.0, -44.0)]


def test_a_curve_goes_to_place_2_is_adopted_checked_and_enabled(inverter: Any) -> None:
    device, adapter, places = inverter
    adopting(device, places)
    before = len(device.writes)
    adapter.adopt_curve("inv", 705, XY, RspTms=5)
    assert adapter.flush()
    assert [e.text for e in adapter.events() if e.kind == "failed"] == []
    now = adapter.poll()["inv"]
    assert [now[f"705.Crv[1].Pt[{i}].Var"].value for i in (1, 2, 3, 4)] == [44, 0, 0, -44]
    first, second = places[705] + 15, places[705] + 33
    addresses = [a for _, _, a, _ in device.writes[before:]]
    assert all(not first <= a < second for a in addresses)  # curve 1 is read-only
    assert addresses.index(places[705] + 3) > addresses.index(second)  # adopt after the curve
    assert addresses[-1] == places[705] + 2  # enabled last


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        ({"result": 2}, "refused to adopt"),
        ({"result": 0}, "not adopted within"),
        ({"keep": True}, "reads 0, sent was"),
    ],
)
def test_an_adoption_that_is_not_one_is_told(
    inverter: Any, habit: dict[str, Any], message: str, until: Callable[..., bool]
) -> None:
    device, adapter, places = inverter
    adopting(device, places, **habit)
    adapter.adopt_curve("inv", 705, XY)
    adapter.flush()
    assert message in " ".join(e.text for e in adapter.events())
    assert device.holding[places[705] + 2] == 0  # not enabled


@pytest.mark.parametrize(
    ("model", "xy", "fields"),
    [
        (706, XY, {}), (705, [(70.0, 0.0)], {}), (705, [(92.0, 99.0)], {}), (705, [], {}),
        (705, [(98.0, 0.0), (92.0, 0.0)], {}), (705, [(92.0, float("nan"))], {}),
        (705, XY, {"RspTmsx": 5}), (705, XY, {"RspTms": float("nan")}),
    ],
)  # fmt: skip
def test_a_curve_outside_the_device_file_is_refused(
    inverter: Any, model: int, xy: Any, fields: dict[str, Any]
) -> None:
    device, adapter, _ = inverter
    before = len(device.writes)
    with pytest.raises(GuardError):
        adapter.adopt_curve("inv", model, xy, **fields)
    adapter.flush()
    assert len(device.writes) == before


def test_a_curve_with_more_points_than_the_device_has_room_for(inverter: Any) -> None:
    _, adapter, _ = inverter
    adapter.adopt_curve("inv", 705, [(90.0 + i, 0.0) for i in range(5)])
    adapter.flush()
    assert "does not fit" in " ".join(e.text for e in adapter.events())


def test_text_ends_at_the_first_nul() -> None:
    assert text_of([0x4162, 0x6300, 0x5858]) == "Abc"
