"""RTU frames on a serial line and over TCP, with pymodbus at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import resource
import struct
import threading
import time
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus import FramerType
from pymodbus.framer.rtu import FramerRTU
from pymodbus.server import ModbusSerialServer
from pymodbus.server import ModbusTcpServer as PymodbusServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hil.adapter import watchdog_rescue
from hil.adapter.adapter import Adapter
from hil.adapter.watchdog_rescue import Rescue
from hil.adapter.watchdog_wire import SafeWrites
from hil.devices.errors import (
    DeviceError,
    ExchangeError,
    LinkError,
    NoReplyError,
    RefusedError,
    WrongReplyError,
)
from hil.devices.points import Quality
from hil.devices.spec import ConnectionSpec, DeviceSpec, SerialSpec
from hil.modbus.client import ModbusClient
from hil.modbus.connection import ClientStats, Connection
from hil.modbus.pdu import read_request
from hil.modbus.rtu import checksum, reply_size, rtu_frame

REGISTERS = [100 + i for i in range(20)]


def device(unit: int) -> SimDevice:
    return SimDevice(unit, simdata=[SimData(0, values=REGISTERS, datatype=DataType.REGISTERS)])


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_pymodbus(data: bytes) -> None:
    assert int.from_bytes(checksum(data), "big") == FramerRTU.compute_CRC(data)


@given(st.binary(min_size=1, max_size=260), st.integers(0, 259))
def test_a_size_once_known_does_not_change(data: bytes, cut: int) -> None:
    early, late = reply_size(data[:cut]), reply_size(data)
    assert early in (0, late)


class Line:
    """Two ends of a serial line."""

    def __init__(self) -> None:
        self._masters, self.ports = [], []
        for _ in range(2):
            master, slave = pty.openpty()
            tty.setraw(master)
            tty.setraw(slave)
            self._masters.append(master)
            self.ports.append(os.ttyname(slave))
        for source, sink in (self._masters, self._masters[::-1]):
            threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: int, sink: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source, 1024):
                os.write(sink, data)


@pytest.fixture(scope="module")
def line() -> Line:
    return Line()


@contextlib.asynccontextmanager
async def at_pymodbus(where: str, line: Line) -> AsyncIterator[dict[str, Any]]:
    """Run pymodbus' server; give the keys of a connection to it."""
    units = [device(1), device(7)]
    if where == "serial":
        server: Any = ModbusSerialServer(units, framer=FramerType.RTU, port=line.ports[0])
        keys = {"framing": "serial", "serial": {"port": line.ports[1], "baud": 115200}}
    else:
        address = ("127.0.0.1", 0)
        server = PymodbusServer(units, framer=FramerType.RTU, address=address)
        keys = {"framing": "rtu-over-tcp"}
    await server.serve_forever(background=True)
    if where != "serial":
        keys["port"] = server.transport.sockets[0].getsockname()[1]
    try:
        yield keys
    finally:
        await server.shutdown()


@pytest.mark.parametrize("where", ["serial", "rtu-over-tcp"])
def test_reads_writes_and_refusals(where: str, line: Line) -> None:
    async def work() -> None:
        async with at_pymodbus(where, line) as keys:
            first = ConnectionSpec(timeout_s=10, connect_timeout_s=10, **keys)
            link = ModbusClient(first)
            link.share(first.model_copy(update={"unit": 7}))
            for _ in range(3):
                assert await link.read(1, "holding", 2, 3) == struct.pack(">3H", 102, 103, 104)
            await link.write(7, 16, 2, [1, 2])
            await link.write(7, 6, 4, [3])
            assert await link.read(7, "holding", 2, 3) == struct.pack(">3H", 1, 2, 3)
            assert await link.read(1, "holding", 2, 1) == struct.pack(">H", 102)
            with pytest.raises(RefusedError):
                await link.read(1, "holding", 500, 1)
            assert link.stats.connects == 1
            link.close()

    asyncio.run(work())


def test_an_adapter_on_a_serial_line(line: Line, tmp_path: Any) -> None:
    """Two units on one line share it, each with its own deadline."""
    point = {"table": "holding", "address": 1, "type": "uint16"}

    async def work() -> None:
        async with at_pymodbus("serial", line) as keys:
            specs = [
                DeviceSpec.model_validate(
                    {"name": f"d{unit}", "points": {"p": point},
                     "connection": {"unit": unit, "timeout_s": 10 - unit, **keys}}
                )
                for unit in (1, 7)
            ]  # fmt: skip
            adapter = Adapter(specs, audit=tmp_path / "a.jsonl", read_only=True, watchdog=False)
            with adapter:
                seen = await asyncio.to_thread(adapter.poll, timeout_s=20)
                assert adapter.stats["links"] == 1
            for name in ("d1", "d7"):
                assert seen[name]["p"][:2] == (101.0, Quality.GOOD)

    asyncio.run(work())


Reply = Callable[[bytes], list[bytes | float]]


def at_gateway(reply: Reply, work: Callable[[ModbusClient], Awaitable[None]]) -> ModbusClient:
    """Serve one answer after another; a number is a wait in seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await reader.readexactly(8)
                for piece in reply(asked):
                    if isinstance(piece, float):
                        await asyncio.sleep(piece)
                    else:
                        writer.write(piece)
        writer.close()

    async def run() -> ModbusClient:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = ModbusClient(ConnectionSpec(port=port, framing="rtu-over-tcp", timeout_s=0.2))
        try:
            await work(link)
        finally:
            link.close()
            server.close()
            await asyncio.sleep(0.01)
        return link

    return asyncio.run(run())


def honest(asked: bytes) -> list[bytes | float]:
    """Each register holds its address; register 0 is 42."""
    address, count = struct.unpack_from(">HH", asked, 2)
    registers = [address + i or 0x2A for i in range(count)]
    return [rtu_frame(asked[0], struct.pack(f">BB{count}H", asked[1], 2 * count, *registers))]


GOOD = rtu_frame(1, b"\x03\x02\x00\x2a")
WRONG: dict[str, list[bytes | float]] = {
    "checksum": [GOOD[:-1] + bytes((GOOD[-1] ^ 1,))],
    "unit": [rtu_frame(2, b"\x03\x02\x00\x2a")],
    "function": [rtu_frame(1, b"\x04\x02\x00\x2a")],
    "count": [rtu_frame(1, b"\x03\x04\x00\x2a\x00\x2b")],
    "behind": [GOOD + b"\x00"],
    "before": [b"\x00" + GOOD],
    "two": [GOOD + GOOD],
    "unknown": [rtu_frame(1, b"\x55\x02\x00\x2a")],
    "part": [GOOD[:5]],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_the_reply_is_never_used(name: str) -> None:
    wrong = iter([WRONG[name]])

    async def work(link: ModbusClient) -> None:
        with pytest.raises(ExchangeError) as caught:
            await link.read(1, "holding", 0, 1)
        assert isinstance(caught.value, NoReplyError if name == "part" else WrongReplyError)
        assert await link.read(1, "holding", 0, 1) == b"\x00\x2a"

    at_gateway(lambda asked: next(wrong, honest(asked)), work)


class Silent(asyncio.Transport):
    """Takes what is sent."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


@given(st.lists(st.binary(max_size=9) | st.sampled_from([GOOD, GOOD[:3], GOOD[3:]]), max_size=4))
def test_only_the_very_frame_that_was_asked_for_is_a_reply(pieces: list[bytes]) -> None:
    async def work() -> bytes | ExchangeError:
        connection = Connection(ClientStats(), lambda: 0.0, rtu=True, pause_s=0.0)
        connection.connection_made(Silent())
        asked = read_request("holding", 0, 1)
        task = asyncio.create_task(connection.exchange(1, asked, ConnectionSpec(timeout_s=60)))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        connection.drop("the test ends")
        try:
            return await task
        except ExchangeError as error:
            return error

    # A piece that comes when the frame is whole is late, or wrong when it comes with it.
    got, sent = asyncio.run(work()), b""
    for piece in pieces:
        sent += piece
        if len(sent) >= reply_size(sent) != 0:
            break
    assert (got == GOOD[1:-2]) == (sent == GOOD)


@pytest.mark.parametrize("late_s", [0.3, 0.5])
def test_a_late_reply_is_never_taken_for_that_to_another_address(late_s: float) -> None:
    """There is no transaction id; a read of another size tells whether it still comes."""
    waits: Iterator[list[bytes | float]] = iter([[late_s]])

    async def work(link: ModbusClient) -> None:
        with pytest.raises(NoReplyError):
            await link.read(1, "holding", 0x63, 1)
        got = b""
        while not got:
            with contextlib.suppress(ExchangeError):
                got = await link.read(1, "holding", 0x2A, 1)
        assert got == b"\x00\x2a"

    at_gateway(lambda asked: [*next(waits, []), *honest(asked)], work)


def test_a_port_that_is_not_there_or_in_use_is_said(line: Line) -> None:
    async def work() -> None:
        gone = ConnectionSpec(framing="serial", serial=SerialSpec(port="/dev/no-such-port"))
        with pytest.raises(LinkError, match=r"cannot connect to /dev/no-such-port: .*No such file"):
            await ModbusClient(gone).read(1, "holding", 0, 1)
        spec = ConnectionSpec(
            framing="serial", serial=SerialSpec(port=line.ports[1]), timeout_s=0.05
        )
        holder = ModbusClient(spec)
        with pytest.raises(NoReplyError):
            await holder.read(1, "holding", 0, 1)
        with pytest.raises(LinkError, match="cannot connect"):
            await ModbusClient(spec).read(1, "holding", 0, 1)
        holder.close()

    asyncio.run(work())


def test_a_line_that_takes_no_more_bytes_is_a_lost_link() -> None:
    """As with an adapter that hangs; the event loop must not wait for it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    full = 0
    while full < 10:  # the system moves what is written to another buffer meanwhile
        try:
            os.write(slave, bytes(8))
            full = 0
        except BlockingIOError:
            full += 1
            time.sleep(0.005)

    async def work() -> None:
        line = SerialSpec(port=os.ttyname(slave))
        link = ModbusClient(ConnectionSpec(framing="serial", serial=line, timeout_s=10))
        with pytest.raises(LinkError, match="the serial line takes no more bytes"):
            await link.read(1, "holding", 0, 1)
        link.close()

    asyncio.run(work())
    os.close(master)
    os.close(slave)


def test_a_line_that_was_pulled_out_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    port = tmp_path / "usb-adapter"

    async def work() -> None:
        spec, loop = SerialSpec(port=str(port)), asyncio.get_running_loop()
        link = ModbusClient(
            ConnectionSpec(framing="serial", serial=spec, timeout_s=5, reconnect_max_s=0.01)
        )
        for _ in range(2):
            master, slave = pty.openpty()
            tty.setraw(slave)
            port.symlink_to(os.ttyname(slave))
            loop.add_reader(master, lambda at=master: os.write(at, honest(os.read(at, 8))[0]))
            assert await link.read(1, "holding", 7, 1) == b"\0\7"
            loop.remove_reader(master)
            os.close(slave)
            os.close(master)
            port.unlink()
            while link.connected:
                await asyncio.sleep(0.001)
            with pytest.raises(LinkError, match="No such file"):
                await link.read(1, "holding", 7, 1)
            await asyncio.sleep(0.02)
        assert link.stats.connects == 2

    asyncio.run(work())


def test_a_line_in_a_program_with_many_open_files() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1200:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1200), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024 - len(os.listdir("/dev/fd")))]

    async def read() -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        loop = asyncio.get_running_loop()
        loop.add_reader(master, lambda: os.write(master, honest(os.read(master, 8))[0]))
        spec = SerialSpec(port=os.ttyname(slave))
        link = ModbusClient(ConnectionSpec(framing="serial", serial=spec, timeout_s=10))
        assert await link.read(1, "holding", 7, 1) == b"\0\7"
        link.close()
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)

    try:
        asyncio.run(read())
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_two_names_of_one_port_are_one_line(line: Line, tmp_path: Path) -> None:
    other = tmp_path / "usb-adapter"
    other.symlink_to(line.ports[1])
    names = [
        ConnectionSpec(framing="serial", serial=SerialSpec(port=str(port))).endpoint
        for port in (other, line.ports[1])
    ]
    assert names[0] == names[1] == line.ports[1]


def test_units_of_one_address_agree_on_the_line() -> None:
    link = ModbusClient(ConnectionSpec(port=1502))
    link.share(ConnectionSpec(port=1502, unit=2, timeout_s=3, pause_s=0.5))
    assert link.spec.pause_s == 0.5
    with pytest.raises(DeviceError, match=r"disagree on 'framing' of 127\.0\.0\.1:1502"):
        link.share(ConnectionSpec(port=1502, unit=3, framing="rtu-over-tcp"))


@pytest.mark.parametrize("where", ["serial", "rtu-over-tcp"])
def test_the_watchdogs_own_code_speaks_it_too(where: str, line: Line) -> None:
    """It writes a register, bits of a register and two registers, and reads them back."""
    base = {"function": 6, "address": 3, "registers": [7], "mask": None, "point": "a",
            "value": 7.0, "of": "a", "check": None}  # fmt: skip
    check = {"function": 3, "address": 3, "count": 1, "format": ">h", "low": 7, "high": 7,
             "delay_s": 0.0, "reversion_s": 0.0}  # fmt: skip
    both = {"function": 16, "address": 8, "registers": [1, 2], "point": "c", "of": "c"}
    two = check | {"address": 8, "count": 2, "format": ">i", "low": 65538, "high": 65538}
    writes = [base | {"check": check}, base | both | {"check": two},
              base | {"address": 5, "registers": [0xF0], "mask": 0xF0, "point": "b", "of": "b"},
              base | {"address": 90, "point": "none", "of": "none"}]  # fmt: skip
    records: list[dict[str, Any]] = []

    def record(device: str, point: str, **fields: Any) -> None:
        records.append({"point": point, **fields})

    async def work() -> list[Any]:
        async with at_pymodbus(where, line) as keys:
            plan = {"host": "127.0.0.1", "port": 1, "unit": 7, "timeout_s": 10, "heartbeat_s": 1}
            rescue = Rescue("test", record, lambda: False, lambda name: None)
            rescue.add([SafeWrites("d", writes=writes, **plan | keys)])
            failed = await rescue.run()
            link = ModbusClient(ConnectionSpec(timeout_s=10, connect_timeout_s=10, **keys))
            now = await link.read(7, "holding", 5, 1)
            link.close()
            assert now == bytes([0, 105 & 0x0F | 0xF0])
            return failed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog_rescue, "GIVE_UP_S", 0.2)
        assert asyncio.run(work()) == [("d", "none", 7.0)]
    assert [r["point"] for r in records if r["verdict"] == "safe"] == ["a", "c", "b"]
    assert "refused with exception 2" in str([r["why"] for r in records])
