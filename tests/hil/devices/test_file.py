"""Device files: every error is explained with its line; the shipped files are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from grid_models.base.yaml_lines import parse_yaml
from hil.devices.errors import DeviceFileError
from hil.devices.file import check_device_file, device_schema, load_device_file, shipped_devices
from hil.devices.points import PointSpec
from hil.devices.schema import SCHEMA_PATH, schema_text
from hil.devices.spec import DeviceSpec

HEAD = "name: t\npoints:\n"
SET = "  set_c: {table: holding, address: 0, type: int16, access: rw, "


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "device.yaml"
    path.write_text(text)
    return [str(p).replace(str(path), "FILE") for p in check_device_file(path)]


@pytest.mark.parametrize("name", sorted(shipped_devices()))
def test_shipped_files_load_and_fit_the_published_schema(name: str) -> None:
    spec = load_device_file(name)
    assert spec.source
    writable = [p for p in spec.points.values() if p.writable]
    assert writable
    assert all(p.safe_value is not None for p in writable)
    with shipped_devices()[name].open() as file:
        jsonschema.validate(parse_yaml(file.read(), text_keys=True)[0], device_schema())


def test_the_six_shipped_kinds_are_there() -> None:
    assert {"sunspec-inverter", "sunspec-inverter-103", "sunspec-battery", "thermostat"} <= set(
        shipped_devices()
    )
    assert len(shipped_devices()) >= 6


def test_the_published_schema_is_the_one_in_the_code() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), (
        "run python -m hil.devices.schema"
    )


def test_every_key_is_described_by_the_schema() -> None:
    schema = device_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]["PointSpec"]["properties"]) == set(PointSpec.model_fields)


def test_every_key_is_in_the_reference() -> None:
    page = (Path(__file__).parents[3] / "docs" / "device-files.md").read_text(encoding="utf-8")
    sections = device_schema()["$defs"].values()
    keys = {key for s in (device_schema(), *sections) for key in s["properties"]}
    assert {key for key in keys if not re.search(rf"`[^`]*\b{key}\b[^`]*`", page)} == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: t\npints: {}\n", "FILE:2: pints: unknown key"),
        ("name: t\npints: {}\n", "did you mean 'points'?"),
        ("name: t\nname: u\n", "FILE:2: key 'name' is given twice"),
        ("name: [\n", "FILE:2"),
        ("- 1\n", "FILE: holds a list"),
        ("name: 2020-01-01\n", "FILE:1: name: found the date 2020-01-01; expected text"),
        (
            HEAD
            + SET
            + "min: 0, max: 5, safe_value: 1, enable: [{point: go, value: 7}]}\n"
            + "  go: {table: holding, address: 1, type: int16, access: guard, min: 0, max: 1}\n",
            "points.set_c.enable[0].value: found 7; expected 0 to 1, the limits of 'go'",
        ),
        ("", "FILE: the file is empty; expected a YAML mapping"),
        ("name: 1t\npoints: {}\n", "FILE:1: name: found '1t'"),
        ("name: t\n", "points: nothing to read"),
        ("name: t\nsunspec: [999]\n", "FILE:2: sunspec[0]: there is no SunSpec model 999"),
        (HEAD + "  a: {table: holding, address: 70000, type: int16}\n", "FILE:3: points.a.address"),
        (HEAD + "  a: {table: holdin, address: 0, type: int16}\n", "did you mean 'holding'?"),
        (HEAD + "  a: {table: input, address: 0, type: bool}\n", "expected a type of registers"),
        (HEAD + "  a: {table: coil, address: 0, type: int16}\n", "expected bool"),
        (HEAD + "  a: {table: input, address: 0}\n", "points.a.type: required key is missing"),
        (HEAD + "  a: {sunspec: 701.Wx}\n", "model 701 has no point 'Wx'"),
        (HEAD + "  a: {sunspec: 701.W, access: rw, min: 0, max: 1, safe_value: 0}\n", "read-only"),
        (HEAD + "  a: {sunspec: 701.W, table: input}\n", "given besides 'sunspec'"),
        (HEAD + SET + "max: 1, safe_value: 0}\n", "points.set_c.min: required"),
        (HEAD + SET + "min: 0, max: 1}\n", "points.set_c.safe_value: required"),
        (HEAD + SET + "min: 5, max: 1, safe_value: 2}\n", "5 is above max 1"),
        (HEAD + SET + "min: 0, max: 1, safe_value: 2}\n", "found 2; expected 0 to 1"),
        (HEAD + SET + "min: 0, max: 40000, safe_value: 0}\n", "40000 does not fit int16"),
        (HEAD + SET + "min: 0, max: .inf, safe_value: 0}\n", "expected a finite number"),
        (
            HEAD + SET + "min: 0, max: 1, safe_value: 0, readback: {point: st_c}}\n",
            "there is no point 'st_c'",
        ),
        (
            HEAD + SET + "min: 0, max: 1, safe_value: 0, reversion: {point: set_c, seconds: 9}}\n",
            "'set_c' has access rw; expected a point of access guard",
        ),
        (HEAD + "  a: {table: input, address: 0, type: int16, access: rw}\n", "cannot be written"),
        (HEAD + "  a: {table: input, address: 0, type: int16, max_step: 1}\n", "access rw"),
        ("name: t\nsunspec: [1]\nguard: {heartbeat_point: hb}\n", "there is no point 'hb'"),
        ("name: t\nsunspec: [1]\ncurves: {703: {x: [0, 1], y: [0, 1]}}\n", "not a curve model"),
        (
            "name: t\nsunspec: [1]\nconnection: {tls: {ca: a, cert: b, key: c}}\n",
            "connection.tls.ca: no such file",
        ),
        (
            "name: t\nsunspec: [1]\nconnection: {framing: serial}\n",
            "FILE:3: connection: framing is serial, and section 'serial' is missing",
        ),
        (
            "name: t\nsunspec: [1]\nconnection: {serial: {port: /dev/ttyS0}}\n",
            "framing is tcp, and section 'serial' is there",
        ),
        (
            "name: t\nsunspec: [1]\n"
            "connection: {framing: rtu-over-tcp, tls: {ca: a, cert: b, key: c}}\n",
            "tls with framing rtu-over-tcp; expected framing tcp",
        ),
        (
            "name: t\nsunspec: [1]\n"
            "connection: {framing: serial, serial: {port: /dev/ttyS0}, host: 192.0.2.1}\n",
            "host 192.0.2.1 and port 502 with framing serial; expected no host and no port",
        ),
        (
            "name: t\nsunspec: [1]\nconnection: {framing: rtu-over-tcp, unit: 0}\n",
            "connection.unit: found 0, to which nothing answers on a serial line",
        ),
        (
            "name: t\nsunspec: [1]\n"
            "connection: {framing: serial, serial: {port: /dev/ttyS0, data_bits: 7}}\n",
            "connection.serial.data_bits: found 7; expected 8",
        ),
        ("name: t\nsunspec: [1]\nconnection: {reply_unit: all}\n", "connection.reply_unit"),
        (
            HEAD + "  a: {table: input, address: 0, type: uint32}\n"
            "  b: {table: input, address: 1, type: uint16}\n",
            "FILE:4: points.b.address: overlaps 'a'",
        ),
    ],
)
def test_every_error_says_where_and_what(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert any(expected in line for line in found), found


def test_all_problems_are_listed_in_the_order_of_lines(tmp_path: Path) -> None:
    text = HEAD + SET + "min: 5, max: 1, safe_value: 2}\n  b: {sunspec: 702.Nope}\n"
    found = problems(tmp_path, text)
    assert [line.split(":")[1] for line in found] == sorted(line.split(":")[1] for line in found)
    assert len(found) >= 2
    with pytest.raises(DeviceFileError) as error:
        load_device_file(tmp_path / "device.yaml")
    assert len(error.value.problems) == len(found)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    assert "no such file" in str(check_device_file(tmp_path / "none.yaml")[0])
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in str(check_device_file(tmp_path / "b.yaml")[0])


def test_enumeration_names_like_off_stay_text(tmp_path: Path) -> None:
    text = HEAD + "  m: {table: input, address: 0, type: int16, enum: {off: 0, on: 1}}\n"
    assert problems(tmp_path, text) == []
    assert load_device_file(tmp_path / "device.yaml").points["m"].enum == {"off": 0, "on": 1}


def test_at_moves_a_device_and_keeps_its_limits() -> None:
    spec = load_device_file("thermostat")
    moved = spec.at(name="t7", host="192.0.2.1", port=1502, unit=9)
    assert (moved.name, moved.connection.host, moved.connection.unit) == ("t7", "192.0.2.1", 9)
    assert not moved.connection.is_loopback
    assert moved.points == spec.points
    assert moved.guard == spec.guard


def test_certificates_are_found_beside_the_file(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("")
    text = "name: t\nsunspec: [1]\nconnection: {tls: {ca: ca, cert: cert, key: key}}\n"
    assert problems(tmp_path, text) == []
    tls = load_device_file(tmp_path / "device.yaml").connection.tls
    assert tls is not None
    assert tls.ca == tmp_path / "ca"


def test_quality_limits_default_to_the_poll_period() -> None:
    data: dict[str, Any] = {"name": "t", "sunspec": [1], "poll_s": 2.0}
    spec = DeviceSpec.model_validate(data)
    assert (spec.stale_limit_s(), spec.bad_limit_s()) == (5.0, 10.0)
    assert spec.stale_limit_s(0.5) == 1.25
    slow = DeviceSpec.model_validate(data | {"stale_after_s": 60.0})
    assert slow.bad_limit_s() == 60.0
