"""One device behind a man in the middle: its port, its sessions, own requests, what is restored."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hil.devices.errors import DeviceError, cannot_listen
from hil.mitm.attack import DeviceAttack, undo
from hil.mitm.rules import FloodRule, FrameRule, WirePoint, WriteRule, read_payload
from hil.mitm.session import DEVICE_SIDE, Session
from hil.modbus.frames import frame
from hil.modbus.pcapng import Address, Capture, TcpStream
from hil.modbus.pdu import Span, Table, is_exception, read_request

_RETRY_S, _SLOW_RETRY_S, _LAST_TRIES_S = 0.2, 5.0, 3.0
_OWN_REPLY_S = 1.0
_TICK_S = 0.01


@dataclass(frozen=True)
class MitmTarget:
    """One device to stand in front of.

    Parameters
    ----------
    host, port, unit : Where it really is. Frames of other unit ids pass untouched.
    listen : (str, int); Where clients reach it; port 0 takes a free one.
    """

    name: str
    host: str
    port: int
    unit: int
    rules: Sequence[FrameRule] = ()
    listen: Address = ("127.0.0.1", 0)


class OwnClient:
    """A connection of the attacker's own, made for each request and closed again."""

    def __init__(self, target: Address, unit: int, capture: Capture | None) -> None:
        self._target, self._unit, self._capture = target, unit, capture
        self._tid = 0

    async def exchange(self, pdu: bytes, note: str) -> bytes:
        """Return the reply to a request; b'' where there is none."""
        stream: TcpStream | None = None
        writer: asyncio.StreamWriter | None = None
        self._tid = self._tid % 0xFFFF + 1
        try:
            async with asyncio.timeout(_OWN_REPLY_S):
                reader, writer = await asyncio.open_connection(*self._target)
                if self._capture is not None:
                    own, peer = (writer.get_extra_info(k) for k in ("sockname", "peername"))
                    stream = self._capture.stream(DEVICE_SIDE, own[:2], peer[:2])
                request = frame(self._tid, self._unit, pdu)
                writer.write(request)
                if stream is not None:
                    stream.data(True, request, note)
                head = await reader.readexactly(7)
                length = struct.unpack_from(">H", head, 4)[0]
                reply = await reader.readexactly(max(length - 1, 0))
                if stream is not None:
                    stream.data(False, head + reply)
                return reply
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return b""
        finally:
            if stream is not None:
                stream.close()
            if writer is not None:
                writer.transport.abort()


async def flood(target: Address, unit: int, attack: DeviceAttack, rule: FloodRule) -> None:
    """Send reads of one register at a steady rate until cancelled; replies are discarded."""
    place = next((p.place for p in attack.points.values() if p.place.table == "holding"), None)
    address = place.address if place is not None else 0
    request = frame(1, unit, read_request(Table.holding, address, 1))
    loop = asyncio.get_running_loop()
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(*target)
            drain = loop.create_task(_throw_away(reader))
            due, sent, begun_s = 0.0, 0, loop.time()
            while not drain.done():
                due = (loop.time() - begun_s) * rule.requests_per_s
                n = min(int(due) - sent, int(rule.requests_per_s * 10 * _TICK_S) + 1)
                if n > 0 and writer.transport.get_write_buffer_size() < 1 << 16:
                    writer.write(request * n)
                    attack.count(rule.step, n)
                sent = int(due)
                await asyncio.sleep(_TICK_S)
        except OSError:
            pass
        finally:
            if writer is not None:
                drain.cancel()
                writer.transport.abort()
        await asyncio.sleep(_RETRY_S)


async def _throw_away(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1 << 16):
            pass


class TargetProxy:
    """A target at work, inside the loop of its proxy.

    What its rules write is restored when they end, again and again beside everything else, until
    the device has acknowledged it.
    """

    def __init__(self, spec: MitmTarget, seed: int, capture: Capture | None) -> None:
        self.spec = spec
        self.attack = DeviceAttack(spec.name, spec.unit, spec.rules, seed)
        self.capture = capture
        self.sessions: set[Session] = set()
        self.opaque_count = 0
        self.own = OwnClient((spec.host, spec.port), spec.unit, capture)
        self.attack.on_unrestored = self._restore_later
        self._device = asyncio.Lock()  # held by whoever asks the device for something
        self._restoring: asyncio.Task[None] | None = None
        self._floods: dict[int, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def listen(self) -> Address:
        """Accept clients from now on; return the address.

        Raises DeviceError: The address cannot be used.
        """
        loop = asyncio.get_running_loop()
        at = self.spec.listen
        try:
            self._server = await loop.create_server(self._admit, *at)
        except (OSError, OverflowError) as error:
            raise cannot_listen(DeviceError, error, f"{at[0]}:{at[1]}") from None
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    def _admit(self) -> asyncio.Protocol:
        target = self.spec.host, self.spec.port
        session = Session(self.attack, target, self.capture, self._forget)
        self.sessions.add(session)
        return session.client

    def _forget(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.discard(session)
            self.opaque_count += session.opaque

    async def activate(self, active: frozenset[int]) -> None:
        """Let the active rules begin and the others end, and undo what those did."""
        begin = sorted(active - self.attack.active)
        for i in self.attack.active - active:
            if i in self._floods:
                self._floods.pop(i).cancel()
        self.attack.switch(active)
        async with self._device:
            await self._restore()
            for i in begin:
                await self._begin(i, self.attack.rules[i])
        if self.attack.unrestored:
            self._restore_later()

    async def _begin(self, i: int, rule: FrameRule) -> None:
        if i not in self.attack.active:
            return  # over already: waiting for a device takes time
        if isinstance(rule, FloodRule):
            work = flood((self.spec.host, self.spec.port), self.spec.unit, self.attack, rule)
            self._floods[i] = asyncio.get_running_loop().create_task(work)
        elif isinstance(rule, WriteRule):
            await self._write_self(i, rule)

    async def _write_self(self, i: int, rule: WriteRule) -> None:
        """Read the registers, to restore them at the end; then write."""
        attack = self.attack
        point = attack.points.get(rule.point)
        if point is None or not attack.acts(i):
            return
        there = await self._read(point, f"{rule.label}: reads {rule.point}")
        found = point.words(rule.value, point.sf, there)
        if there is None or found is None or i not in attack.active:
            return
        words, seen = found
        # Where an earlier step is not restored yet, its original registers count.
        pending = {j: k for j, k in attack.unrestored.items() if k[0].place == point.place}
        known = [*pending.values(), *([attack.written[i]] if i in attack.written else [])]
        attack.written[i] = kept = point, known[-1][1] if known else there
        note = f"{rule.label}: writes {rule.point} = {seen:g}"
        reply = await self.own.exchange(undo(point, words), note)
        if is_exception(reply):
            if not known:
                attack.forget(i, kept)
            return
        for j, left in pending.items():
            attack.forget(j, left)
        if reply or await self._read(point, f"{rule.label}: looks at {rule.point}") == words:
            attack.record(rule.point, point.value(there, point.sf), seen, rule.step)

    async def _read(self, point: WirePoint, note: str) -> list[int] | None:
        """Return the registers of a point; None without a usable reply."""
        place = point.place
        span = Span(Table(place.table), place.address, place.words)
        reply = await self.own.exchange(read_request(span.table, span.address, span.count), note)
        if not reply or is_exception(reply):
            return None
        payload = read_payload(span, reply)
        return None if payload is None else payload.get(place)

    async def _restore(self) -> None:
        """Restore what rules that have ended have written."""
        unrestored = self.attack.unrestored
        for i, kept in list(unrestored.items()):
            rule = self.attack.rules[i]
            note = f"{rule.label} ends: {getattr(rule, 'point', '')} restored"
            reply = await self.own.exchange(undo(*kept), note)
            if not reply:
                return  # the next request would not be answered, either
            if not is_exception(reply) and unrestored.get(i) is kept:
                del unrestored[i]

    def _restore_later(self) -> None:
        """Try again in the background."""
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.get_running_loop().create_task(self._restore_until_done())

    async def _restore_until_done(self) -> None:
        wait_s = _RETRY_S
        while self.attack.unrestored:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _SLOW_RETRY_S)
            async with self._device:
                await self._restore()

    async def close(self) -> None:
        """Close all connections, stop listening, restore."""
        if self._server is not None:
            self._server.close()
        for session in list(self.sessions):
            session.close()
        await self.activate(frozenset())
        if self._restoring is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._restore_at_once(self._restoring), _LAST_TRIES_S)
        if self._server is not None:
            await self._server.wait_closed()

    async def _restore_at_once(self, patient: asyncio.Task[None]) -> None:
        patient.cancel()
        while self.attack.unrestored:
            await asyncio.sleep(_RETRY_S)
            async with self._device:
                await self._restore()
