"""`feederate device import`: a VOLTTRON registry becomes a device file that says no more."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from federates.cli import call
from hil.devices.codec import decode_one
from hil.devices.errors import DeviceFileError
from hil.devices.file import check_device_file, load_device_file
from hil.devices.places import place_of
from hil.devices.volttron import import_registry

HEADER = (
    "Reference Point Name,Volttron Point Name,Units,Units Details,Modbus Register,Writable,"
    "Point Address,Default Value,Notes\n"
)
ROOFTOP = HEADER + (
    "RmTmp,room_temp,degC,0.0 to 50.0,>f,FALSE,1001,,\"return air, at the unit\"\n"
    "CoolSp,cool_set,degC,,>h,TRUE,40,22,\n"
    "\n"
    "Fan,fan_on,On / Off,,BOOL,TRUE,7,,\n"
    "Alarm,alarm,,,BOOL,FALSE,3,,\n"
    "Meter,energy,kWh,,<L,FALSE,20,,\n"
)  # fmt: skip


def write(tmp_path: Path, text: str, name: str = "roof top.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_registry_becomes_a_file_that_is_in_order(tmp_path: Path) -> None:
    made = import_registry(write(tmp_path, ROOFTOP))
    file = write(tmp_path, made.text, "rooftop.yaml")
    assert check_device_file(file) == []
    points = load_device_file(file).points
    where = {n: (p.table, p.address, p.type, p.unit, p.access) for n, p in points.items()}
    assert where == {
        "room_temp": ("input", 1001, "float32", "degC", "r"),
        "cool_set": ("holding", 40, "int16", "degC", "r"),
        "fan_on": ("coil", 7, "bool", "On / Off", "r"),
        "alarm": ("discrete", 3, "bool", "", "r"),
        "energy": ("input", 20, "uint32", "kWh", "r"),
    }
    assert "return air, at the unit" in points["room_temp"].description
    assert made.text.count("# may be written, says the CSV") == 2


def test_what_is_not_carried_over_is_said_with_its_line(tmp_path: Path) -> None:
    notes = "\n".join(import_registry(write(tmp_path, ROOFTOP)).notes)
    assert "roof top.csv:3: 'cool_set' may be written, but the CSV has no limits" in notes
    assert "roof top.csv:3: 'cool_set': the default 22 is not carried over" in notes
    assert "roof top.csv:5: 'fan_on' may be written" in notes
    assert "safe_value" not in import_registry(write(tmp_path, ROOFTOP)).text.split("points:")[1]


@pytest.mark.parametrize("code", [">h", "<h", ">I", "<I", ">q", "<q", ">f", "<f", ">d", "<d"])
@pytest.mark.parametrize("mixed", ["FALSE", "TRUE"])
def test_struct_codes_read_as_struct_reads_them(tmp_path: Path, code: str, mixed: str) -> None:
    header = "Volttron Point Name,Modbus Register,Writable,Point Address,Mixed Endian\n"
    row = f"x,{code},FALSE,5,{mixed}\n"
    text = import_registry(write(tmp_path, header + row)).text
    point = load_device_file(write(tmp_path, text, "x.yaml")).points["x"]
    value: Any = 1.5 if code[1] in "fd" else -3 if code[1] in "hq" else 70_000
    data = struct.pack(code, value)
    words = struct.unpack(f">{len(data) // 2}H", data)
    if mixed == "TRUE":  # VOLTTRON turns the order of the registers before it unpacks them
        words = words[::-1]
    place = place_of(point)
    assert place is not None
    assert decode_one(place, words) == value


def test_registry_of_the_tk_driver(tmp_path: Path) -> None:
    text = (
        "Register Name,Address,Type,Units,Writable,Transform,Table\n"
        "watts,10,uint16,W,FALSE,scale(0.1),analog_output_holding_registers\n"
        "serial,30,string[9],,FALSE,,analog_input_registers\n"
    )
    file = write(tmp_path, import_registry(write(tmp_path, text)).text, "tk.yaml")
    points = load_device_file(file).points
    assert (points["watts"].table, points["watts"].scale) == ("holding", 0.1)
    assert (points["serial"].type, points["serial"].length) == ("string", 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEADER, "the file has no points"),
        ("", "a column is missing; expected 'volttron point name' or 'register name'"),
        ("Volttron Point,Modbus Register,Writable,Point Address\n", ":1: a column is missing"),
        (HEADER + "a,a,,,>e,FALSE,1,,\n", ":2: 'Modbus Register': found '>e'; expected BOOL, or >"),
        (HEADER + "a,a,,,f,FALSE,1,,\n", ":2: 'Modbus Register': found 'f'"),
        (HEADER + "a,a,,,>h,FALSE,1.5,,\n", ":2: 'Point Address': found '1.5'"),
        (HEADER + "a,a,,,>h,FALSE,70000,,\n", ":2: 'Point Address': found '70000'"),
        (HEADER + "a,a,,,>h,perhaps,1,,\n", ":2: 'Writable': found 'perhaps'; expected TRUE or"),
        (HEADER + "a,,,,>h,FALSE,1,,\n", ":2: 'Volttron Point Name': is empty"),
        (HEADER + "a,a,,,>h,FALSE,1,,\nb,a,,,>h,FALSE,2,,\n", ":3: 'Volttron Point Name': 'a' is"),
        (HEADER + "a,a,,,>d,FALSE,65534,,\n", ":2: a.address: the point ends behind the last"),
        (HEADER + "a,a\n", ":2: 'Modbus Register': found ''"),
    ],
)
def test_wrong_rows_are_named_with_row_and_column(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DeviceFileError) as caught:
        import_registry(write(tmp_path, text))
    assert expected in str(caught.value)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry, out = str(write(tmp_path, ROOFTOP)), str(tmp_path / "made.yaml")
    assert call(["device", "import", registry, "-o", out]) == 0
    said = capsys.readouterr()
    assert "wrote" in said.out
    assert said.err.count("note: ") == 4
    assert call(["device", "check", out]) == 0
    assert "may be written once armed: nothing" in capsys.readouterr().out
    assert call(["device", "import", registry, "-o", out]) == 2
    assert "is there already" in capsys.readouterr().err
    assert call(["device", "import", "nowhere.csv"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err
