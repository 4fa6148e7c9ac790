"""One connection to a Modbus device, and what makes a reply the answer to its request."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from grid_models.base.errors import reason_of
from hil.devices.errors import (
    ExchangeError,
    LinkError,
    NoReplyError,
    RefusedError,
    WrongReplyError,
)
from hil.devices.spec import ConnectionSpec
from hil.modbus.frames import Splitter, frame, parts
from hil.modbus.missing import Asked, MissingReplies
from hil.modbus.pdu import WRITE_FUNCTIONS, is_exception, reply_problem
from hil.modbus.rtu import CHECKSUM_BYTES, checksum, reply_size, rtu_frame
from hil.modbus.turns import Turns

_SILENT_LIMIT = 2
"""Requests without a reply after which the connection is taken for half open and made anew."""


@dataclass
class ClientStats:
    """Counters of one client."""

    requests: int = 0
    replies: int = 0
    timeouts: int = 0
    wrong_replies: int = 0
    refused: int = 0
    late_replies: int = 0
    connects: int = 0
    failed_connects: int = 0
    lost: int = 0
    last_error: str = ""


@dataclass
class _Waiting:
    """The request that waits for its reply."""

    tid: int
    asked: Asked
    future: asyncio.Future[bytes]


class Connection(asyncio.Protocol):
    """One connection; one request at a time.

    Parameters
    ----------
    rtu : Whether frames are those of a serial line, without transaction ids.
    pause_s : From a reply to the next request, s.
    after : The connection before this one, whose replies may still come.
    """

    transport: asyncio.Transport | None = None

    def __init__(
        self,
        stats: ClientStats,
        now: Callable[[], float],
        *,
        rtu: bool,
        pause_s: float,
        after: Connection | None = None,
    ) -> None:
        self.stats, self._now = stats, now
        self._rtu, self._pause_s = rtu, pause_s
        self.missing: MissingReplies = after.missing if after else MissingReplies()
        self._tid: int = after._tid if after else 0
        self._splitter = Splitter()
        self._reply = bytearray()
        self._turns = Turns()
        self._waiting: _Waiting | None = None
        self._heard: set[int] = set()
        self._silent = 0
        self._free_s = -math.inf  # when the next request may be sent

    @property
    def usable(self) -> bool:
        """Return True until the connection is lost or dropped."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def idle(self) -> bool:
        """Return True where no request waits."""
        return not self._turns.busy

    async def exchange(self, unit: int, request: bytes, spec: ConnectionSpec) -> bytes:
        """Send a request and return the reply to it; deadlines are those of `spec`.

        Writes go before reads that wait.
        """
        asked = Asked(unit, request, spec.reply_unit)
        await self._turns.take(first=request[0] in WRITE_FUNCTIONS)
        try:
            if self.missing:
                await self._rule_out_late_replies(asked, spec.timeout_s)
            return await self._exchange(asked, spec.timeout_s)
        finally:
            self._turns.give()

    async def _rule_out_late_replies(self, asked: Asked, timeout_s: float) -> None:
        self.missing.forget(self._now())
        probe = self.missing.probe(asked)
        if probe is None:
            return
        self.stats.requests += 1
        with contextlib.suppress(RefusedError):
            await self._exchange(probe, timeout_s)
        if self.missing.probe(asked) is not None:
            raise NoReplyError("a reply to an earlier request could be taken for the one to this")

    async def _exchange(self, asked: Asked, timeout_s: float) -> bytes:
        while (left_s := self._free_s - self._now()) > 0.0:
            await asyncio.sleep(left_s)
        if self.transport is None or self.transport.is_closing():
            raise LinkError("not connected")
        loop = asyncio.get_running_loop()
        self._tid = self._tid % 0xFFFF + 1
        self._waiting = waiting = _Waiting(self._tid, asked, loop.create_future())
        timer = loop.call_later(timeout_s, self._expire, waiting, timeout_s)
        answered = False
        try:
            self.transport.write(self._frame(asked))
            reply = await waiting.future
            answered = True
            return reply
        except RefusedError:
            answered = True
            raise
        finally:
            timer.cancel()
            self._waiting = None
            self._free_s = self._now() + self._pause_s
            if self._rtu and not answered:
                self.missing.add(asked, self._now())
                # Quiet, so that a late reply does not meet the next request on the line.
                self._free_s = self._now() + max(self._pause_s, timeout_s)

    def _frame(self, asked: Asked) -> bytes:
        if self._rtu:
            return rtu_frame(asked.unit, asked.request)
        return frame(self._tid, asked.unit, asked.request)

    def _expire(self, waiting: _Waiting, timeout_s: float) -> None:
        self.stats.timeouts += 1
        # A unit that never answered does not show that the connection is half open.
        self._silent += waiting.asked.unit in self._heard or not self._heard
        part = self._splitter.pending + len(self._reply)
        if not waiting.future.done():
            text = f"no reply within {timeout_s:g} s"
            error = NoReplyError(f"{text} ({part} bytes of one)" if part else text)
            waiting.future.set_exception(error)
        if part or self._silent >= _SILENT_LIMIT:
            self.drop("no whole reply")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came, in pieces of any size."""
        if self._rtu:
            self._take_rtu(data)
            return
        for piece in self._splitter.feed(data):
            if self.transport is None:  # dropped, because of an earlier piece
                return
            if self._splitter.opaque:
                self._wrong(f"not a Modbus/TCP header: {piece[:7].hex(' ')}")
            else:
                self._take(*parts(piece))

    def _take_rtu(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.future.done():
            self.stats.late_replies += 1
            self._free_s = max(self._free_s, self._now() + self._pause_s)
            return
        self._reply += data
        while (size := reply_size(self._reply)) and len(self._reply) >= size:
            whole = bytes(self._reply[: max(size, 0)])
            if not whole or checksum(whole[:-CHECKSUM_BYTES]) != whole[-CHECKSUM_BYTES:]:
                self._wrong(f"not an RTU frame: {self._reply[:8].hex(' ')}")
                return
            del self._reply[:size]
            unit, reply = whole[0], whole[1:-CHECKSUM_BYTES]
            if not waiting.asked.fits(unit, reply) and self.missing.fits(unit, reply):
                self.stats.late_replies += 1
            elif self._reply:
                self._wrong(f"{len(self._reply)} bytes behind the reply")
                return
            else:
                self._take(waiting.tid, unit, reply)
                return

    def _take(self, tid: int, unit: int, reply: bytes) -> None:
        waiting = self._waiting
        if waiting is None or waiting.future.done() or tid != waiting.tid:
            if 0 < tid <= self._tid and not (waiting and tid == waiting.tid):
                self.stats.late_replies += 1  # to a request given up, or a second reply
            else:
                self._wrong(f"transaction {tid} was never asked (last was {self._tid})")
            return
        asked = waiting.asked
        problem = reply_problem(asked.request, reply)
        if not asked.is_from(unit):
            problem = f"unit {unit} answered, asked was {asked.unit}"
        if problem:
            self._wrong(problem)
            return
        self._silent = 0
        self._heard.add(asked.unit)
        if self._rtu:
            self.missing.answered(asked, unit, reply, self._now())
        if is_exception(reply):
            self.stats.refused += 1
            waiting.future.set_exception(RefusedError(reply[1]))
        else:
            self.stats.replies += 1
            waiting.future.set_result(reply)

    def _wrong(self, what: str) -> None:
        self.stats.wrong_replies += 1
        self._fail(WrongReplyError(what))
        self.drop(what)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits."""
        if self.transport is None:  # by `drop`
            return
        self.transport = None
        self.stats.lost += 1
        self.stats.last_error = reason = reason_of(exc) if exc else "closed by the device"
        self._fail(LinkError(f"connection lost: {reason}"))

    def drop(self, why: str) -> None:
        """Abort the connection from this side."""
        self.stats.last_error = why
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
        self._fail(LinkError(f"connection dropped: {why}"))

    def _fail(self, error: ExchangeError) -> None:
        if self._waiting and not self._waiting.future.done():
            self._waiting.future.set_exception(error)
