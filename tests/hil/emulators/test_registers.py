"""Emulated devices of a configuration: what they refuse, forget, and do."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymodbus.client import ModbusTcpClient

from hil.devices.errors import DeviceFileError, ServerError
from hil.emulators.background import Background, background
from hil.emulators.options import EmulatorOptions, EmulatorRole
from hil.emulators.register_config import EmulatorConfig, load_emulator_config, shipped_configs
from hil.emulators.register_plant import RegisterPlant
from hil.modbus.pdu import Table
from hil.servers.pdu import Refused

CONFIG = """
name: odd
device: sunspec-battery
unit: 7
absent: 128
habits: {max_registers: 4, borders: [110]}
blocks: [{table: holding, address: 120, count: 2}]
registers:
  low: {table: holding, address: 100, type: uint16, mask: 0x00FF, access: rw, max: 10}
  high: {table: holding, address: 100, type: uint16, mask: 0xFF00, access: rw, value: 3}
  six: {table: holding, address: 101, type: uint16, access: rw, functions: [6]}
  sixteen:
    {table: holding, address: 102, type: int32, word_order: little, access: rw, functions: [16]}
  secret: {table: holding, address: 104, type: uint16, access: rw, write_only: true}
  apart: {table: holding, word_addresses: [108, 106], type: uint32, value: 65538}
  mode: {table: holding, address: 105, type: uint16, access: rw}
  set_w:
    {table: holding, address: 109, type: int16, access: rw, min: -500, max: 500, outside: clamp,
     needs: {mode: 2}, refused_with: 5, reverts: {after_s: wait_s, set: {set_w: fallback, mode: 0}}}
  wait_s: {table: holding, address: 110, type: uint16, access: rw, value: 5}
  fallback: {table: holding, address: 111, type: int16, value: -7}
  text: {table: holding, address: 112, type: string, length: 3, value: odd}
  power: {table: input, address: 0, type: int16}
  soc: {table: input, address: 1, type: uint16, scale: 0.1}
physics:
  kind: battery
  rated_w: 400
  energy_wh: 10
  soc_pct: 60
  time_constant_s: 0.5
  commands: [{what: p_w, point: set_w, when: {mode: 2}}]
  shows: {power: p_w, soc: soc_pct}
"""


def config(tmp_path: Path, text: str = CONFIG) -> EmulatorConfig:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    return load_emulator_config(path)


@contextmanager
def served(tmp_path: Path, **habits: object) -> Iterator[tuple[Background, ModbusTcpClient]]:
    odd = config(tmp_path)
    odd = odd.model_copy(update={"habits": odd.habits.model_copy(update=habits)})
    options = EmulatorOptions(EmulatorRole.device, str(tmp_path / "odd.yaml"))
    with background(RegisterPlant(odd), options) as devices:
        client = ModbusTcpClient("127.0.0.1", port=devices.ports[0], timeout=0.3, retries=0)
        assert client.connect()
        yield devices, client
        client.close()


def test_requests_that_the_device_refuses(tmp_path: Path) -> None:
    with served(tmp_path) as (_, client):

        def read(address: int, count: int = 1) -> object:
            answer = client.read_holding_registers(address, count=count, device_id=7)
            return answer.exception_code if answer.isError() else answer.registers

        def write(address: int, *values: int, one: bool = False) -> int:
            if one:
                answer = client.write_register(address, values[0], device_id=7)
            else:
                answer = client.write_registers(address, list(values), device_id=7)
            return answer.exception_code if answer.isError() else 0

        assert read(100) == [0x0300]
        assert read(99) == 128  # absent
        assert read(104) == 2  # write-only
        assert read(103, 2) == 2
        assert read(100, 5) == 3  # too long
        assert read(108, 2) == [0x0001, 0]
        assert read(109, 2) == 2  # across the border
        assert read(112, 3) == [0x6F64, 0x6400, 0]
        assert write(101, 5) == 1
        assert write(101, 5, one=True) == 0
        assert write(102, 5, one=True) == 1
        assert write(102, 2, 1) == 0
        assert write(103, 1) == 2  # half of a value
        assert write(111, 1) == write(120, 1) == 2  # read-only
        assert write(109, 20) == 5  # not in this mode
        assert write(104, 9) == 0
        assert write(100, 0x030A) == 0
        assert write(100, 0x030B) == 3  # the low byte goes to 10
        assert read(100) == [0x030A]
        assert client.mask_write_register(address=105, device_id=7).exception_code == 1


def test_set_point_needs_its_mode_is_clamped_acts_and_is_forgotten(tmp_path: Path) -> None:
    plant = RegisterPlant(config(tmp_path))
    unit = plant.units[0]
    with pytest.raises(Refused):
        unit.bank.write(Table.holding, 109, [300])
    unit.bank.write(Table.holding, 105, [2])
    unit.bank.write(Table.holding, 109, [900])
    assert unit.bank.get("set_w") == 500
    plant.advance(4.0)
    assert unit.bank.get("power") == pytest.approx(400, abs=1)  # the rating
    assert unit.bank.get("soc") == pytest.approx(60 - 100 * 400 * 4 / 3600 / 10, abs=1.0)
    plant.advance(0.9)
    assert unit.bank.get("set_w") == 500
    plant.advance(0.2)
    assert (unit.bank.get("set_w"), unit.bank.get("mode")) == (-7, 0)
    plant.advance(60.0)
    assert unit.bank.get("power") == 0
    unit.bank.write(Table.holding, 110, [0])
    unit.bank.write(Table.holding, 105, [2])
    unit.bank.write(Table.holding, 109, [100])
    plant.advance(1000.0)
    assert unit.bank.get("set_w") == 100  # a time of 0 is no time-out
    assert plant.outputs()["soc_pu"][0] == 0.0


READ = struct.pack(">HHHBBHH", 1, 0, 6, 7, 3, 105, 1)


def answers(sock: socket.socket) -> bool:
    sock.settimeout(0.3)
    sock.sendall(READ)
    try:
        return bool(sock.recv(64))
    except TimeoutError:
        return False
    except ConnectionError:
        return False


def test_silence_after_a_connection_and_after_a_reply(tmp_path: Path) -> None:
    with (
        served(tmp_path, connect_delay_s=0.6, pause_s=0.5) as (devices, _),
        socket.create_connection(("127.0.0.1", devices.ports[0])) as sock,
    ):
        assert not answers(sock)
        time.sleep(0.6)
        assert answers(sock)
        assert not answers(sock)
        time.sleep(0.6)
        assert answers(sock)


@pytest.mark.parametrize("refuse_more", [True, False])
def test_one_connection(tmp_path: Path, refuse_more: bool) -> None:
    with served(tmp_path, connections=1, refuse_more=refuse_more) as (devices, client):
        assert not client.read_holding_registers(105, count=1, device_id=7).isError()
        with socket.create_connection(("127.0.0.1", devices.ports[0])) as second:
            assert answers(second) is not refuse_more
        assert len(devices.host.servers[0].clients) <= 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("needs: {mode: 2}", "needs: {mood: 2}", "there is no register 'mood'; expected a name"),
        ("shows: {power", "shows: {powers", "did you mean 'power'"),
        ("what: p_w", "what: p_kw", "physics.commands[0].what"),
        ("absent: 128", "absence: 128", "unknown key"),
        ("type: string", "type: strings", "registers.text.type"),
        ("length: 3, value: odd", "length: 3, value: 1", "registers.text.value: found 1"),
        ("type: int16, value: -7", "type: int16, value: low", "fallback.value: found 'low'"),
        ("name: odd", "name: odd\nname: even", "twice"),
        ("mask: 0xFF00", "mask: 0xFF00, sign_from: {point: low, negative: [1]}", "not for an emul"),
    ],
)
def test_wrong_configurations_are_explained(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    with pytest.raises(DeviceFileError, match=r"odd\.yaml:\d+") as caught:
        config(tmp_path, CONFIG.replace(old, new, 1))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("address: 0, type: int16", "address: 0, type: int16, value: 40000", "does not fit int16"),
        ("{table: input, address: 0, type", "{type", "neither an address nor a SunSpec point"),
    ],
)
def test_registers_that_cannot_be_are_explained(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    with pytest.raises(ServerError, match=expected):
        RegisterPlant(config(tmp_path, CONFIG.replace(old, new, 1)))


def test_shipped_configurations_name_shipped_device_files() -> None:
    from hil.devices.file import shipped_devices

    for name in shipped_configs():
        assert load_emulator_config(name).device in shipped_devices()
        assert load_emulator_config(name).name == name
