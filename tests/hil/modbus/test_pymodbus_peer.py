"""pymodbus as an independent peer of our messages, our server and our client."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.pdu import DecodePDU
from pymodbus.server import ModbusTcpServer as PymodbusServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hil.devices.errors import RefusedError
from hil.devices.spec import ConnectionSpec
from hil.modbus.client import ModbusClient
from hil.modbus.pdu import Table, pack, read_reply, read_request, reply_problem, write_request
from hil.servers.pdu import answer
from hil.servers.tcp import ModbusTcpServer

SIZE = 300


class Memory:
    """Registers and bits that keep what is written."""

    def __init__(self) -> None:
        self.data = {table: [0] * SIZE for table in Table}

    def read(self, table: Table, start: int, count: int) -> Sequence[int]:
        return self.data[table][start : start + count]

    def write(self, table: Table, start: int, values: Sequence[int]) -> None:
        self.data[table][start : start + len(values)] = list(values)


words = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=123)
bits = st.lists(st.integers(0, 1), min_size=1, max_size=250)


@given(st.sampled_from(list(Table)), st.integers(0, 0xFFFF), st.integers(1, 125))
def test_reads_are_those_of_pymodbus(table: Table, address: int, count: int) -> None:
    decoded = DecodePDU(True).decode(read_request(table, address, count))
    assert decoded is not None
    assert (decoded.address, decoded.count) == (address, count)
    assert "".join(type(decoded).__name__.split("Request")).lower().startswith("read")


@given(st.sampled_from([5, 6, 15, 16]), st.integers(0, 0xFF00), words, bits)
def test_writes_are_those_of_pymodbus(
    function: int, address: int, registers: list[int], coils: list[int]
) -> None:
    values = coils if function in (5, 15) else registers
    values = values[:1] if function in (5, 6) else values
    request = write_request(function, address, values)
    decoded = DecodePDU(True).decode(request)
    assert decoded is not None
    assert (decoded.function_code, decoded.address) == (function, address)
    found = decoded.bits if function in (5, 15) else decoded.registers
    assert [int(v) for v in found[: len(values)]] == values
    memory = Memory()
    memory.data = {table: [0] * 0x10000 for table in (Table.coil, Table.holding)}
    assert reply_problem(request, answer(request, memory)) == ""


@given(words)
def test_replies_are_decoded_by_pymodbus(registers: list[int]) -> None:
    decoded = DecodePDU(False).decode(read_reply(3, pack(Table.holding, registers)))
    assert decoded is not None
    assert decoded.registers == registers


def at_our_server(work: Callable[[Any, Memory], Awaitable[None]]) -> None:
    async def run() -> None:
        memory = Memory()
        server = ModbusTcpServer({1: memory})
        await server.start()
        client = AsyncModbusTcpClient("127.0.0.1", port=server.port, retries=0, timeout=30)
        try:
            assert await client.connect()
            await work(client, memory)
        finally:
            client.close()
            await server.close()

    asyncio.run(run())


def test_pymodbus_client_reads_and_writes_at_our_server() -> None:
    async def work(client: Any, memory: Memory) -> None:
        memory.data[Table.input][:3] = [1, 2, 3]
        memory.data[Table.discrete][:9] = [1, 0, 0, 1, 0, 0, 0, 0, 1]
        assert (await client.read_input_registers(0, count=3)).registers == [1, 2, 3]
        found = (await client.read_discrete_inputs(0, count=9)).bits[:9]
        assert [int(b) for b in found] == [1, 0, 0, 1, 0, 0, 0, 0, 1]
        for write in (
            client.write_register(10, 0x12), client.write_registers(11, [8, 9]),
            client.write_coil(3, True), client.write_coils(4, [True, False, True]),
            client.mask_write_register(address=10, and_mask=0xF2, or_mask=0x25),
        ):  # fmt: skip
            assert not (await write).isError()
        assert memory.data[Table.holding][10:13] == [0x17, 8, 9]
        assert memory.data[Table.coil][3:7] == [1, 1, 0, 1]
        both = await client.readwrite_registers(
            read_address=12, read_count=2, write_address=13, values=[5]
        )
        assert both.registers == [9, 5]
        refused = await client.read_holding_registers(0xFFFF, count=2)
        assert refused.isError()
        assert refused.exception_code == 2

    at_our_server(work)


def test_our_client_reads_and_writes_at_pymodbus_server(unused_port: int) -> None:
    async def run() -> None:
        registers = SimData(0, values=list(range(100)), datatype=DataType.REGISTERS)
        server = PymodbusServer(SimDevice(1, [registers]), address=("127.0.0.1", unused_port))
        await server.serve_forever(background=True)
        client = ModbusClient(ConnectionSpec(port=unused_port, timeout_s=30, connect_timeout_s=30))
        try:
            assert await client.read(1, "holding", 5, 3) == struct.pack(">3H", 5, 6, 7)
            await client.write(1, 6, 5, [77])
            await client.write(1, 16, 6, [78, 79])
            assert await client.read(1, "holding", 5, 3) == struct.pack(">3H", 77, 78, 79)
            with pytest.raises(RefusedError, match="illegal data address"):
                await client.read(1, "holding", 99, 2)
            assert client.stats.connects == 1
        finally:
            client.close()
            await server.shutdown()

    asyncio.run(run())
