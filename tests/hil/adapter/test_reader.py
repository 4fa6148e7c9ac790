"""One device read over a real socket: what is asked, what is good, and why something is not."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from hil.adapter.access import PointAccess
from hil.adapter.quality_events import QualityEvents
from hil.adapter.reader import DeviceReader
from hil.adapter.sequence import Write
from hil.devices.errors import NotNowError
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec
from hil.emulators.sunspec_image import SunSpecImage
from hil.modbus.client import ModbusClient

TEN = {f"r{i}": {"table": "holding", "address": i, "type": "uint16"} for i in range(10, 20)}
VENDOR = 64_001  # a model that is in no list of the standard


class Bench:
    """A reader with an event loop that runs only while it is asked something."""

    def __init__(self, device: Any, points: dict[str, Any], **changes: Any) -> None:
        self.device = device
        connection = {"port": device.port, "timeout_s": 0.1} | changes.pop("connection", {})
        data = {"name": "d", "poll_s": 100.0, "points": points, "connection": connection}
        self.spec = DeviceSpec.model_validate(data | changes)
        self.reader = DeviceReader(self.spec, ModbusClient(self.spec.connection))
        self._loop = asyncio.new_event_loop()

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def poll(self, period_s: float | None = None) -> list[tuple[int, int]]:
        """Poll once; return address and count of each read that this took."""
        before = len(self.device.requests)
        self.run(self.reader.poll(period_s))
        asked = (struct.unpack(">BHH", r[:5]) for r in self.device.requests[before:])
        return [(address, count) for _, address, count in asked]

    def good(self) -> dict[str, float]:
        return {n: v for n in self.reader.names if (v := self.reader.current(n)) == v}

    def close(self) -> None:
        self.reader.link.close()
        self.run(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture
def bench(raw_device: Any) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(points: dict[str, Any], **changes: Any) -> Bench:
        made.append(Bench(raw_device, points, **changes))
        return made[-1]

    raw_device.holding[10:20] = range(10, 20)
    yield make
    for one in made:
        one.close()


def refuse(code: int, when: Callable[[int, int], bool]) -> Any:
    """Answer a request with an exception where `when(address, count)`."""

    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        if when(*struct.unpack(">HH", asked[1:5])):
            honest = bytes((asked[0] | 0x80, code))
        return [struct.pack(">HHHB", tid, 0, len(honest) + 1, unit) + honest]

    return behave


def silent(when: Callable[[int, int], bool]) -> Any:
    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        if when(*struct.unpack(">HH", asked[1:5])):
            return []
        return [struct.pack(">HHHB", tid, 0, len(honest) + 1, unit) + honest]

    return behave


# -- refused blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [2, 3, 4, 128])
def test_only_the_absent_register_of_a_block_is_bad(bench: Any, raw_device: Any, code: int) -> None:
    raw_device.behaviour = refuse(code, lambda address, n: address <= 15 < address + n)
    one = bench(TEN)
    assert len(one.poll()) <= 9  # 1 whole, 2 for each of 4 splits
    assert one.good() == {f"r{i}": float(i) for i in range(10, 20) if i != 15}
    assert f"exception {code} (" in one.reader.reasons()["r15"]
    assert len(one.reader.reasons()) == 1
    asked = one.poll()
    assert asked[-1] == (15, 1)  # alone, in case it comes back
    assert len(asked) <= 5
    assert one.reader.link.stats.connects == 1

    raw_device.behaviour = None
    one.poll()
    assert one.poll() == [(10, 10)]  # whole again
    assert one.reader.reasons() == {}


def test_a_split_block_is_tried_whole_after_a_reconnect(bench: Any, raw_device: Any) -> None:
    raw_device.behaviour = refuse(3, lambda _, n: n > 5)
    one = bench(TEN)
    assert one.poll() == [(10, 10), (10, 5), (15, 5)]
    assert len(one.good()) == 10
    assert one.poll() == [(10, 5), (15, 5)]
    raw_device.behaviour = None
    one.reader.link.close()
    one.poll()  # connects; from then on whole
    assert one.poll() == [(10, 10)]


def test_the_requests_of_one_poll_are_bounded_however_much_is_absent(
    bench: Any, raw_device: Any
) -> None:
    points = {f"r{i}": {"table": "holding", "address": i, "type": "uint16"} for i in range(100)}
    raw_device.behaviour = refuse(2, lambda *_: True)
    one = bench(points)
    assert max(len(one.poll()) for _ in range(8)) <= 20
    for _ in range(10):
        one.poll()
    assert len(one.poll()) == 1
    assert len(one.reader.reasons()) == 100


# -- not now --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [5, 6, 10, 11])
def test_not_now_keeps_the_value_and_asks_less_often(
    bench: Any, raw_device: Any, code: int
) -> None:
    one = bench(TEN)
    one.poll()
    raw_device.behaviour = refuse(code, lambda *_: True)
    asked = [len(one.poll(100.0)) for _ in range(12)]
    assert asked == [1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1]  # it pauses for 0, 1, 2, 4 polls
    assert len(one.good()) == 10
    told = one.reader._told[one.reader.slot["r10"]]
    assert f"exception {code} (" in told
    raw_device.behaviour = None
    raw_device.holding[10] = 77
    one.poll()
    assert one.good()["r10"] == 77
    assert len(one.poll(100.0)) == 1


# -- lost replies ---------------------------------------------------------------------------------

FOUR = {n: {"table": "holding", "address": a, "type": "uint16"}
        for n, a in (("a", 10), ("b", 30), ("c", 50), ("d", 70))}  # fmt: skip


def test_a_lost_reply_does_not_starve_the_other_blocks(bench: Any, raw_device: Any) -> None:
    raw_device.behaviour = silent(lambda address, _: address == 30)
    one = bench(FOUR)
    for _ in range(3):
        assert [a for a, _ in one.poll()] == [10, 30, 50, 70]
        assert set(one.good()) == {"a", "c", "d"}
    assert one.reader.reasons() == {"b": "no reply within 0.1 s"}
    assert one.reader.link.stats.connects == 1


def test_a_poll_ends_after_two_lost_replies_and_the_next_goes_on_there(
    bench: Any, raw_device: Any
) -> None:
    raw_device.behaviour = silent(lambda address, _: address < 50)
    one = bench(FOUR)
    assert [a for a, _ in one.poll()] == [10, 30]
    assert [a for a, _ in one.poll()] == [50, 70, 10, 30]
    assert set(one.good()) == {"c", "d"}


# -- plain registers beside a SunSpec map, keys of the file ----------------------------------------


def sunspec(device: Any, *, vendor: int = 4, pct_sf: int = 0xFFFE) -> dict[tuple[int, str], int]:
    """Write a map with 103, a vendor's model of a length, and 713; return addresses of points."""
    image = SunSpecImage([(1, {}), (103, {}), (713, {})])
    words, at = list(image.words), {}
    start = image.points[713, "ID"].place.address - image.base
    for name, value in {"W": 4200, "W_SF": 0, "VAr": 300, "VAr_SF": 0}.items():
        words[image.points[103, name].place.address - image.base] = value
    for name, value in {"SoC": 5500, "SoH": 9000, "Pct_SF": pct_sf}.items():
        words[image.points[713, name].place.address - image.base] = value
    words[start:start] = [VENDOR, vendor, *range(vendor)]
    device.holding[40000 : 40000 + len(words) + 50] = words + [7] * 50
    for (model, name), point in image.points.items():
        at[model, name] = point.place.address + (vendor + 2) * (model == 713)
    return at


MAPPED: dict[str, Any] = {
    "p_w": {"sunspec": "103.W", "unit": "W"},
    "soc_pct": {"sunspec": "713.SoC", "access": "rw", "min": 0, "max": 100, "safe_value": 50},
}


def test_plain_points_keep_gaps_and_borders_beside_a_sunspec_map(
    bench: Any, raw_device: Any
) -> None:
    at = sunspec(raw_device)
    places = {"a": 99, "b": 102, "c": 106, "d": 107, "e": 108}
    plain = {n: {"table": "holding", "address": a, "type": "uint16"} for n, a in places.items()}
    raw_device.holding[100:110] = range(100, 110)
    connection = {"max_gap": 2, "borders": [109], "base_address": 1, "sunspec_base": 40000}
    one = bench(MAPPED | plain, connection=connection)
    one.poll()
    asked = one.poll()
    assert asked[:3] == [(100, 4), (107, 2), (109, 1)]  # gaps of 2 and 3, a border at 109
    last = at[713, "SoC"] + 1
    first = at[103, "ID"]
    assert sorted(asked[3:]) == [(first, last - first)]  # one read, with the headers in it
    wanted = {"a": 100, "b": 103, "c": 107, "d": 108, "e": 109, "p_w": 4200, "soc_pct": 55.0}
    assert wanted.items() <= one.good().items()


def test_a_device_without_its_map_still_gives_its_plain_points(bench: Any, raw_device: Any) -> None:
    one = bench(MAPPED | {"r10": TEN["r10"]})
    one.poll()
    assert one.good() == {"r10": 10.0}
    assert "no SunSpec map found" in one.reader.reasons()["p_w"]
    sunspec(raw_device)
    one.reader._next_scan_s = 0.0
    one.poll()
    assert one.reader.reasons() == {}


def test_a_sunspec_point_that_the_device_lacks_is_bad_alone(bench: Any, raw_device: Any) -> None:
    sunspec(raw_device)
    one = bench(MAPPED | {"limit": {"sunspec": "123.WMaxLimPct"}})
    one.poll()
    assert one.reader.reasons() == {"limit": "the device has no 123.WMaxLimPct"}
    assert one.good()["p_w"] == 4200


def test_sign_factor_and_write_only(bench: Any, raw_device: Any) -> None:
    points = {
        "rated_w": {"table": "holding", "address": 10, "type": "uint16", "scale": 100},
        "down": {"table": "holding", "address": 11, "type": "uint16"},
        "p_w": {
            "table": "holding", "address": 12, "type": "uint16", "scale": 0.01,
            "scale_from": {"point": "rated_w", "kind": "factor"},
            "sign_from": {"point": "down", "negative": [1, 2]},
        },
        "mode": {"table": "holding", "address": 13, "type": "uint16", "access": "guard",
                 "write_only": True},
    }  # fmt: skip
    raw_device.holding[10:14] = [50, 1, 40, 9]
    one = bench(points)
    assert one.poll() == [(10, 3)]
    assert one.good() == {"rated_w": 5000, "down": 1, "p_w": -2000}
    assert one.reader.reasons() == {"mode": "write-only, never read"}
    place, _ = one.reader.place("p_w")
    assert place.scale == -50.0  # watts of one step, as a write needs them
    raw_device.holding[11] = 0
    one.poll()
    assert one.good()["p_w"] == 2000


def test_text_that_is_refused_takes_nothing_else_away(bench: Any, raw_device: Any) -> None:
    raw_device.behaviour = refuse(2, lambda address, _: address == 60)
    raw_device.holding[51:53] = struct.unpack(">2H", b"ab12")
    text = {"table": "holding", "type": "string", "length": 2}
    points = {"r10": TEN["r10"], "serial": text | {"address": 51}, "other": text | {"address": 60}}
    one = bench(points)
    one.poll()
    assert one.reader.texts == {"serial": "ab12"}
    assert "exception 2" in one.reader.text_reasons["other"]
    assert one.good() == {"r10": 10}


# -- a map that moves, factors that come and go ----------------------------------------------------


def test_a_map_that_has_moved_is_never_read_as_good_and_scanned_again(
    bench: Any, raw_device: Any
) -> None:
    sunspec(raw_device)
    one = bench(MAPPED)
    one.poll()
    assert one.good()["soc_pct"] == 55.0
    moved = sunspec(raw_device, vendor=6)
    raw_device.holding[moved[713, "SoC"]] = 6000
    one.poll()
    assert one.good() == {}
    assert "the SunSpec map has changed: at 4" in one.reader.reasons()["soc_pct"]
    one.poll()
    assert (one.good()["soc_pct"], one.good()["p_w"]) == (60.0, 4200)


def test_a_write_looks_at_the_header_first(bench: Any, raw_device: Any) -> None:
    sunspec(raw_device)
    one = bench(MAPPED)
    one.poll()
    access = PointAccess(one.reader)
    moved = sunspec(raw_device, vendor=6)
    write = [Write("soc_pct", 20.0)]
    with pytest.raises(NotNowError, match="map has changed"):
        one.run(access.write(write))
    assert raw_device.writes == []
    one.poll()
    one.run(access.write(write))
    assert raw_device.written(moved[713, "SoC"]) == [2000]


def test_headers_are_read_after_what_they_hold_for(bench: Any, raw_device: Any) -> None:
    """Also where the model needs several reads, and where only its header was lost."""
    at = sunspec(raw_device)
    one = bench(MAPPED | {"q_var": {"sunspec": "103.VAr"}}, connection={"max_registers": 10})
    one.poll()
    asked = [address for address, _ in one.poll()]
    assert asked == sorted(asked, reverse=True)
    assert at[103, "ID"] in asked
    raw_device.behaviour = silent(lambda address, _: address == at[103, "ID"])
    raw_device.holding[at[103, "W"]] = 4300
    one.poll()
    assert one.good()["p_w"] == 4200  # the old one; the new one is not confirmed
    raw_device.behaviour = None
    one.poll()
    assert one.good()["p_w"] == 4300


@pytest.mark.parametrize("sf", [0x8000, 100])
def test_a_scale_factor_that_is_not_there_yet_comes_by_itself(
    bench: Any, raw_device: Any, sf: int
) -> None:
    at = sunspec(raw_device, pct_sf=sf)
    one = bench(MAPPED)
    one.poll()
    assert "p_w" in one.good()
    assert one.reader.reasons()["soc_pct"] == "the scale factor or sign is not available"
    with pytest.raises(NotNowError):
        one.run(PointAccess(one.reader).write([Write("soc_pct", 20.0)]))
    raw_device.holding[at[713, "Pct_SF"]] = 0xFFFE
    one.poll()
    assert one.good()["soc_pct"] == 55.0


# -- reasons --------------------------------------------------------------------------------------


def test_reasons_of_what_is_not_good(bench: Any, raw_device: Any) -> None:
    points = {
        "temp_c": TEN["r10"] | {"plausible": [0, 60]},
        "none": TEN["r11"] | {"not_implemented": 0xFFFF},
    }
    one = bench(points)
    assert one.reader.reasons() == dict.fromkeys(points, "never read")
    raw_device.holding[10:12] = [990, 0xFFFF]
    one.poll()
    assert one.reader.reasons() == {
        "temp_c": "990 is not plausible (0 to 60)",
        "none": "not implemented",
    }


def states(one: Bench, values: Sequence[int]) -> None:
    one.device.holding[10 : 10 + len(values)] = values
    one.poll()


def test_events_name_points_and_reasons_once_and_a_flicker_is_no_flood(bench: Any) -> None:
    one = bench({n: p | {"plausible": [0, 60]} for n, p in TEN.items()})
    events = QualityEvents(one.reader)
    assert events.texts(0.0) == []  # not read yet
    one.poll()
    assert events.texts(1.0) == []
    states(one, [99, 99])
    assert events.texts(2.0) == ["bad: r10, r11: 99 is not plausible (0 to 60)"]
    told = 0
    for second in range(3, 63):
        states(one, [99 if second % 2 else 10, 99])
        told += len(events.texts(float(second)))
    assert 1 <= told <= 2
    states(one, [10, 11])
    assert events.texts(200.0) == ["good again: r11"]
    states(one, [99] * 10)
    assert events.texts(300.0) == ["bad: all 10 points: 99 is not plausible (0 to 60)"]
    assert all(one.reader.quality(0.0) == Quality.BAD)
