"""Sending requests to a device's points, and reading single points back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress

from hil.adapter.reader import DeviceReader
from hil.adapter.sequence import Frame, Write, frames_of
from hil.devices.codec import decode_one, sf_factor
from hil.devices.errors import NotNowError
from hil.modbus.pdu import unpack

ECHO_ONLY = "verified by the echo only"


def difference(sent: float, found: float, tolerance: float) -> str:
    """Return in words that a point does not hold what was sent; '' where it does."""
    if abs(found - sent) <= tolerance + 1e-9 * max(1.0, abs(sent)):
        return ""
    return f"read back {found:g}, sent was {sent:g}"


class PointAccess:
    """Encodes, sends and reads back; it has no limits of its own."""

    def __init__(self, reader: DeviceReader) -> None:
        self.reader = reader
        self.seen: dict[str, tuple[float, float]] = {}
        """Monotonic time and value of the last verification of a point."""
        self._changing = asyncio.Lock()

    async def write(self, request: Sequence[Write]) -> dict[str, float]:
        """Send one request; return the values that its registers stand for, by point.

        Raises NotNowError: A SunSpec model has moved, or a scale factor is not available.
        """
        for write in request:
            await self.reader.verify_model(write.point)
        frames, sent = frames_of(self.reader, request)
        for frame in frames:
            await self._send(frame)
        return sent

    async def _send(self, frame: Frame) -> None:
        link, unit = self.reader.link, self.reader.unit
        if frame.mask is None:
            await link.write(unit, frame.function, frame.address, frame.registers)
            return
        async with self._changing:  # two points may be bits of one register
            now = int.from_bytes(await link.read(unit, "holding", frame.address, 1))
            word = (now & ~frame.mask) | (frame.registers[0] & frame.mask)
            await link.write(unit, frame.function, frame.address, [word])

    async def read(self, point: str) -> float:
        """Read one point now; nan where it is not implemented.

        Raises NotNowError: Its scale factor is not available.
        """
        place, sf = self.reader.place(point)
        if not math.isfinite(sf_factor(sf) * place.scale):
            raise NotNowError("the scale factor is not available", where=point)
        data = await self.reader.link.read(
            self.reader.unit, place.table, place.address, place.words
        )
        self.reader.heard()
        return decode_one(place, unpack(place.table, place.words, data), sf=sf)

    async def verify(
        self, point: str, sent: float, urgent: asyncio.Event | None = None
    ) -> tuple[float, str]:
        """Return what the device holds (nan: only the echo tells) and what is wrong with it.

        The read waits as long as the device file says, but not once `urgent` is set.
        """
        spec = self.reader.spec.points[point].read_back
        if spec is None:
            self.seen[point] = time.monotonic(), sent
            return math.nan, ""
        if spec.delay_s:
            with suppress(TimeoutError):
                await asyncio.wait_for((urgent or asyncio.Event()).wait(), spec.delay_s)
        found = await self.read(spec.point or point)
        self.seen[point] = time.monotonic(), found
        return found, difference(sent, found, spec.tolerance)

    def how_verified(self, point: str) -> str:
        """Return a remark for the audit log where a write is not read back."""
        return "" if self.reader.spec.points[point].read_back else ECHO_ONLY
