"""Captures: read back by a parser of our own, and by tshark where it is installed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyModbusTCP.client import ModbusClient

from hil.devices.errors import DeviceError
from hil.devices.places import Place
from hil.emulators.background import background
from hil.emulators.inverter_plant import inverters
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import RewriteRule, WirePoint, WriteRule
from hil.modbus.pcapng import Capture, checksum

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, at + size - 4)[0] == size
        yield kind, data[at + 8 : at + size - 4]
        at += size


def packets(path: Path) -> list[tuple[int, bytes]]:
    """Return (interface, IPv4 packet)."""
    found = []
    for kind, body in blocks(path.read_bytes()):
        if kind == 6:
            interface, _, _, kept, size = struct.unpack_from("<IIIII", body)
            assert kept == size
            assert body[20 + 12 : 20 + 14] == b"\x08\x00"
            found.append((interface, body[20 + 14 : 20 + size]))
    return found


def test_checksum_is_that_of_the_standard() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF  # RFC 1071, section 3


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=4000)), max_size=6))
def test_a_conversation_can_be_put_together_again(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[bool, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("capture") / "a.pcapng"
    with Capture(path, ("one", "two")) as capture:
        stream = capture.stream(1, ("127.0.0.1", 41000), ("192.0.2.7", 1502))
        for from_client, data in said:
            stream.data(from_client, data)
        stream.close()
        stream.close()
    got = {True: b"", False: b""}
    expected: dict[bool, int] = {}
    for interface, ip in packets(path):
        assert interface == 1
        assert checksum(ip[:20]) == 0
        assert struct.unpack(">H", ip[2:4])[0] == len(ip)
        tcp = ip[20:]
        assert checksum(ip[12:20] + struct.pack(">BBH", 0, 6, len(tcp)) + tcp) == 0
        source, target, sequence, _, _, flags = struct.unpack_from(">HHIIBB", tcp)
        from_client = target == 502
        assert {source, target} == {41000, 502}
        assert sequence == expected.get(from_client, sequence)
        got[from_client] += tcp[20:]
        expected[from_client] = sequence + len(tcp) - 20 + bool(flags & 3)
    for who in (True, False):
        assert got[who] == b"".join(data for from_client, data in said if from_client is who)


def test_a_capture_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        Capture(tmp_path / "file" / "a.pcapng", ("one",))


@needs_tshark
def test_tshark_reads_what_the_proxy_did(tmp_path: Path) -> None:
    with background(inverters(1, 10.0)) as devices:
        rules = [
            RewriteRule(0, name="lie", point="id", value=7.0),
            WriteRule(0, name="lie", point="limit", value=3000.0),
        ]
        target = MitmTarget("inverter", "127.0.0.1", devices.ports[0], 1, rules)
        with MitmProxy(
            [target], n_steps=1, captures={"inverter": tmp_path / "inverter.pcapng"}
        ) as proxy:
            points = {
                "id": WirePoint(Place("holding", 40002, "uint16")),
                "limit": WirePoint(Place("holding", 40311, "uint16")),
            }
            proxy.learn("inverter", points)
            client = ModbusClient(*proxy.places["inverter"], auto_close=True)
            assert client.read_holding_registers(40000, 3) == [0x5375, 0x6E53, 1]
            proxy.set_active(np.zeros(1))
            assert client.read_holding_registers(40000, 3) == [0x5375, 0x6E53, 7]
            assert client.read_holding_registers(40311, 1) == [3000]
            client.read_holding_registers(65000, 1)  # an exception

    def read(wanted: str, *fields: str) -> list[str]:
        arguments = [part for field in fields for part in ("-e", field)]
        done = subprocess.run(
            ["tshark", "-r", str(tmp_path / "inverter.pcapng"), "-Y", wanted]
            + ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
            + (["-T", "fields", *arguments] if fields else []),
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.stdout.splitlines()

    wrong = "_ws.malformed || _ws.expert.severity >= warning || tcp.checksum.status == bad"
    assert read(f"({wrong}) && !modbus.exception_code") == []
    # Each request and reply on either side; and the two of the attack's own.
    assert len(read('mbtcp && frame.interface_name == "client side"')) == 8
    assert len(read('mbtcp && frame.interface_name == "device side"')) == 8 + 2 * 3
    assert len(read("modbus.exception_code")) == 2
    values = read("modbus.regval_uint16 && frame.comment", "modbus.regval_uint16", "frame.comment")
    assert "21365,28243,7\tstep lie: id 1 -> 7" in [v.replace("\\,", ",") for v in values]
    assert any("writes limit = 3000" in v for v in read("frame.comment", "frame.comment"))
