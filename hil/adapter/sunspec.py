"""Finding a device's SunSpec map: where it starts, which models it has, where each point lies."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hil.devices.errors import (
    DeviceError,
    ExchangeError,
    RefusedError,
    ScanError,
    WrongReplyError,
    is_transient,
)
from hil.devices.spec import ConnectionSpec, TlsSpec
from hil.devices.sunspec_models import END_MODEL, ModelPoint, lay_out, model_ids, text_of
from hil.modbus.client import ModbusClient
from hil.modbus.pdu import unpack

BASES = (40000, 50000, 0)
_MARK = 0x53756E53  # "SunS"
_MAX_MODELS = 256


def label_of(point: str) -> tuple[str, int]:
    """Return the label and the number of the model that a SunSpec point belongs to.

    Of a name without a model number: that name and 0.
    """
    label = point.partition(".")[0]
    number = label.partition("#")[0]
    return label, int(number) if number.isdigit() else 0


@dataclass(frozen=True)
class ModelBlock:
    """One model in a device.

    Parameters
    ----------
    label : Number, and ``#2`` from the second of its kind on.
    address : Address of its ID register.
    length : Registers behind ID and L.
    """

    label: str
    model: int
    address: int
    length: int


@dataclass
class SunSpecMap:
    """What a scan found.

    Parameters
    ----------
    base : Address of the mark "SunS".
    points : Of the models that were read.
    factors : Scale factor points and their raw values at the scan.
    identity : Texts of the common model: manufacturer, model, version, serial number.
    """

    base: int
    models: list[ModelBlock]
    points: dict[str, ModelPoint] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)


async def read_registers(
    link: ModbusClient, unit: int, address: int, count: int, *, max_registers: int = 125
) -> list[int]:
    """Read holding registers, in as many requests as the device needs."""
    registers: list[int] = []
    while len(registers) < count:
        part = min(max_registers, count - len(registers))
        data = await link.read(unit, "holding", address + len(registers), part)
        registers += unpack("holding", part, data)
    return registers


async def scan(
    link: ModbusClient,
    unit: int,
    *,
    wanted: Collection[int] | None = None,
    also: Collection[int] = (),
    max_registers: int = 125,
    base: int | None = None,
) -> SunSpecMap:
    """Scan a device for its SunSpec map; lay out the models `wanted`, by default all defined ones.

    Parameters
    ----------
    also : Models that are laid out where the device has them.
    base : Address of the mark "SunS"; by default looked for at 40000, 50000 and 0.

    Raises ScanError: No map there; a model that is wanted is not there; the chain is broken.
    Raises ExchangeError: The device did not answer.
    """
    base = await _find_base(link, unit, BASES if base is None else (base,))
    found = SunSpecMap(base, await _chain(link, unit, base))
    ids = {b.model for b in found.models}
    for model in sorted(set(wanted or ())):
        if model not in ids:
            has = ", ".join(map(str, sorted(ids)))
            raise ScanError(f"the device has no SunSpec model {model}", expected=f"one of {has}")
    known = set(model_ids())
    for block in found.models:
        if block.model in known and (wanted is None or block.model in {1, *wanted, *also}):
            await _lay_out(found, link, unit, block, max_registers)
    return found


async def _find_base(link: ModbusClient, unit: int, bases: Sequence[int]) -> int:
    last: ExchangeError | None = None
    for base in bases:
        try:
            first, second = await read_registers(link, unit, base, 2)
        except (RefusedError, WrongReplyError) as error:
            if is_transient(error):
                raise
            last = error
            continue
        if first << 16 | second == _MARK:
            return base
    if isinstance(last, WrongReplyError):
        raise last
    raise ScanError("no SunSpec map found", expected=f"'SunS' at {', '.join(map(str, bases))}")


async def _chain(link: ModbusClient, unit: int, base: int) -> list[ModelBlock]:
    """Follow ID and L from model to model up to the end mark."""
    models: list[ModelBlock] = []
    seen: dict[int, int] = {}
    at = base + 2
    while len(models) < _MAX_MODELS and at + 2 <= 65536:
        try:
            model, length = await read_registers(link, unit, at, 2)
        except RefusedError as error:
            if is_transient(error):
                raise
            # Some devices have an end mark of one register.
            model, length = (await read_registers(link, unit, at, 1))[0], 0
        if model == END_MODEL:
            return models
        if at + 2 + length > 65536:
            break
        seen[model] = seen.get(model, 0) + 1
        label = str(model) if seen[model] == 1 else f"{model}#{seen[model]}"
        models.append(ModelBlock(label, model, at, length))
        at += 2 + length
    raise ScanError("the chain of SunSpec models has no end", where=f"address {at}")


async def _lay_out(
    found: SunSpecMap, link: ModbusClient, unit: int, block: ModelBlock, max_registers: int
) -> None:
    registers = await read_registers(
        link, unit, block.address, block.length + 2, max_registers=max_registers
    )
    factors = set()
    points = lay_out(block.model, block.address, registers, label=block.label)
    for point in points:
        found.points[point.name] = point
        if isinstance(point.place.sf, str):
            factors.add(point.place.sf)
    for point in points:
        start = point.place.address - block.address
        words = registers[start : start + point.place.words]
        last = point.name.rpartition(".")[2]
        if point.name in factors:
            found.factors[point.name] = float(struct.unpack(">h", struct.pack(">H", *words))[0])
        elif last in ("NPt", "NCrv", "NCrvSet", "NCtl"):
            found.counts[point.name] = words[0]
        elif point.place.kind == "string" and block.model == 1:
            found.identity[last] = text_of(words)


def parse_url(url: str, *, tls: TlsSpec | None = None) -> ConnectionSpec:
    """Return the connection of ``[modbus://]HOST[:PORT][/UNIT]``; port 502 (TLS 802), unit 1.

    Raises DeviceError.
    """
    expected = "[modbus://]HOST:PORT/UNIT with a port of 1 to 65535 and a unit of 0 to 255"
    parts = urlsplit(url if "://" in url else f"modbus://{url}")
    try:
        port = parts.port or (802 if tls else 502)
        unit = int(parts.path.strip("/") or 1)
        if parts.scheme not in ("modbus", "tcp", "modbus+tcp") or not parts.hostname:
            raise ValueError
        return ConnectionSpec(host=parts.hostname, port=port, unit=unit, tls=tls)
    except ValueError:
        raise DeviceError(f"'{url}' is not an address", expected=expected) from None


def scan_device(connection: ConnectionSpec) -> SunSpecMap:
    """Scan a device for its SunSpec map and read all its models; only reads.

    Raises ScanError, ExchangeError.
    """

    async def work() -> SunSpecMap:
        link = ModbusClient(connection)
        try:
            limit = connection.max_registers
            base = connection.sunspec_base
            return await scan(link, connection.unit, max_registers=limit, base=base)
        finally:
            link.close()
            await asyncio.sleep(0)

    return asyncio.run(work())
