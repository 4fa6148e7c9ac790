"""The server's application layer against the specification and pymodbus' decoder."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.pdu import DecodePDU

from hil.devices.errors import ServerError
from hil.servers.faults import FaultMode, Faults, FaultyBank, distort
from hil.servers.pdu import ExceptionCode, Refused, Table, answer
from hil.servers.point_map import MapBank, MapPoint


class Memory:
    """100 registers and bits in each table."""

    def __init__(self) -> None:
        self.data = {table: [0] * 100 for table in Table}

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        if start + count > 100:
            raise Refused(ExceptionCode.illegal_address)
        return self.data[table][start : start + count]

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        if start + len(values) > 100:
            raise Refused(ExceptionCode.illegal_address)
        self.data[table][start : start + len(values)] = list(values)


class Broken:
    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        raise ZeroDivisionError

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        raise ZeroDivisionError


@given(st.binary(min_size=1, max_size=253))
def test_any_request_gets_one_well_formed_answer(request_pdu: bytes) -> None:
    response = answer(request_pdu, Memory())
    assert 2 <= len(response) <= 253
    if response[0] != request_pdu[0]:
        assert response[0] == request_pdu[0] | 0x80
        assert response[1:] in (b"\x01", b"\x02", b"\x03")


@given(st.integers(1, 4), st.integers(0, 99), st.integers(1, 100))
def test_reads_are_decoded_by_pymodbus(function: int, start: int, count: int) -> None:
    count = min(count, 100 - start)
    memory = Memory()
    for table in Table:
        memory.data[table] = [
            i % 2 if table in (Table.coil, Table.discrete) else i for i in range(100)
        ]
    response = answer(struct.pack(">BHH", function, start, count), memory)
    decoded = DecodePDU(False).decode(response)
    assert decoded is not None
    assert decoded.function_code == function
    if function <= 2:
        assert [int(b) for b in decoded.bits[:count]] == [
            i % 2 for i in range(start, start + count)
        ]
    else:
        assert decoded.registers == list(range(start, start + count))


# Expected codes: Modbus Application Protocol V1.1b3, the state diagrams of section 6.
@pytest.mark.parametrize(
    ("request_hex", "response_hex"),
    [
        ("63", "e301"),  # no such function
        ("07", "8701"),
        ("0300000000", "8303"),  # count 0
        ("030000007e", "8303"),  # count 126
        ("0300630002", "8302"),  # beyond the end
        ("03ffff0002", "8302"),  # beyond 65535
        ("0300", "8303"),  # short
        ("030000000100", "8303"),  # long
        ("0500000001", "8503"),  # neither on nor off
        ("050000ff00", "050000ff00"),
        ("0600010007", "0600010007"),
        ("10000000020400010002", "1000000002"),
        ("10000000020300010002", "9003"),  # byte count
        ("100000007cf8" + "00" * 248, "9003"),  # 124 registers
        ("0f000000030105", "0f00000003"),
        ("16000100f20025", "16000100f20025"),
        ("17000000020005000102000a", "170400000000"),
    ],
)
def test_answers(request_hex: str, response_hex: str) -> None:
    assert answer(bytes.fromhex(request_hex), Memory()).hex() == response_hex


def test_mask_write_is_the_specifications_example() -> None:
    memory = Memory()  # section 6.16: 0x12 with masks 0xF2 and 0x25 gives 0x17
    memory.data[Table.holding][4] = 0x12
    answer(bytes.fromhex("16000400f20025"), memory)
    assert memory.data[Table.holding][4] == 0x17


def test_a_defect_of_a_device_is_exception_4(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(bytes.fromhex("0300000001"), Broken()).hex() == "8304"
    assert "unit failed" in caplog.text


def test_roles_are_refused_with_exception_1() -> None:
    read, write = bytes.fromhex("0300000001"), bytes.fromhex("0600010007")
    memory = Memory()
    assert answer(write, memory, may_write=False).hex() == "8601"
    assert answer(read, memory, may_read=False).hex() == "8301"
    assert answer(read, memory, may_write=False)[0] == 3
    assert memory.data[Table.holding][1] == 0


POINTS = (
    MapPoint("temp_c", Table.holding, 0, "int16", "", 0.1, low=-20, high=40),
    MapPoint("energy", Table.holding, 1, "uint32", ""),
    MapPoint("mode", Table.holding, 3, "uint16", "", choices={"off": 0, "on": 2}),
)


@given(st.floats(-20, 40))
def test_map_keeps_values_within_half_a_register(value: float) -> None:
    (point, *_) = POINTS
    assert abs(point.decode(point.encode(value)) - value) <= 0.05 + 1e-9


def test_map_refuses_half_values_wrong_choices_and_ranges() -> None:
    bank = MapBank(POINTS)
    for start, values, code in (
        (1, [7], ExceptionCode.illegal_address),  # half of a 32-bit value
        (2, [7], ExceptionCode.illegal_address),
        (3, [1], ExceptionCode.illegal_value),
        (0, [401], ExceptionCode.illegal_value),
        (0, [0x10000 - 201], ExceptionCode.illegal_value),
        (4, [1], ExceptionCode.illegal_address),
        (0, [10, 0, 5, 1], ExceptionCode.illegal_value),  # the last one spoils all
    ):
        with pytest.raises(Refused) as caught:
            bank.write(Table.holding, start, values)
        assert caught.value.code is code
    assert bank.values == {"temp_c": 0, "energy": 0, "mode": 0}
    bank.write(Table.holding, 0, [0x10000 - 200, 1, 2, 2])
    assert bank.values == pytest.approx({"temp_c": -20, "energy": 65538, "mode": 2})
    assert list(bank.read(Table.holding, 0, 4)) == [0x10000 - 200, 1, 2, 2]


def test_faults_have_windows() -> None:
    now = [0.0]
    faults = Faults(now=lambda: now[0])
    faults.set("late:0.8@60+30")
    seen = []
    for now[0] in (0.0, 59.9, 60.0, 89.9, 90.0):
        seen.append(faults.active is FaultMode.late)
    assert seen == [False, False, True, True, False]
    assert faults.value == 0.8
    now[0] = 0.0
    faults.set("drift:0.1")
    now[0] = 2.0
    assert faults.reading_factor == pytest.approx(1.2)


@pytest.mark.parametrize("text", ["lat", "late:x", "late@-1", "silent@1+nan", ""])
def test_wrong_faults_are_explained(text: str) -> None:
    with pytest.raises(ServerError, match="expected"):
        Faults.parse(text)


def test_distorted_answers() -> None:
    read = bytes.fromhex("030400010002")
    assert distort(FaultMode.wrong_count, read).hex() == "03020001"
    echo = bytes.fromhex("0600010007")
    assert distort(FaultMode.wrong_echo, echo).hex() == "0600010006"
    assert distort(FaultMode.wrong_echo, read) == read
    assert distort(FaultMode.wrong_count, echo) == echo


def test_a_stuck_device_repeats_itself_and_loses_writes() -> None:
    memory, faults = Memory(), Faults()
    bank = FaultyBank(memory, faults)
    faults.set("stuck")
    assert list(bank.read(Table.holding, 0, 2)) == [0, 0]
    memory.data[Table.holding][0] = 9
    bank.write(Table.holding, 1, [8])
    assert list(bank.read(Table.holding, 0, 2)) == [0, 0]
    faults.set("none")
    assert list(bank.read(Table.holding, 0, 2)) == [9, 0]
