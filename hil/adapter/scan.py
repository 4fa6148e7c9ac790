"""One-off work at the bench: addresses as text, and a SunSpec scan without a device file."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from hil.adapter.sunspec import SunSpecMap, scan
from hil.devices.errors import DeviceError
from hil.devices.file import ConnectionSpec, TlsSpec
from hil.modbus.client import ModbusClient


def parse_url(url: str, *, tls: TlsSpec | None = None) -> ConnectionSpec:
    """Return the connection of ``[modbus://]HOST[:PORT][/UNIT]``; port 502 (TLS 802), unit 1.

    Raises
    ------
    DeviceError
    """
    expected = "modbus://HOST:PORT/UNIT"
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

    Raises
    ------
    ScanError, ExchangeError
    """

    async def work() -> SunSpecMap:
        link = ModbusClient(connection)
        try:
            limit = connection.max_registers
            return await scan(link, connection.unit, max_registers=limit)
        finally:
            link.close()
            await asyncio.sleep(0)

    return asyncio.run(work())
