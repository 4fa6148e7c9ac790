"""The sockets of a man in the middle: one session per client, with its connection to the device."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hil.mitm.attack import Conversation, Delivery, DeviceAttack
from hil.mitm.rules import DelayRule, DropRule
from hil.modbus.frames import Splitter
from hil.modbus.pcapng import Address, Capture, TcpStream

CONNECT_S = 5.0
LINGER_S = 5.0
CLIENT_SIDE, DEVICE_SIDE = 0, 1
INTERFACES = ("client side", "device side")
_MAX_WAITING = 256 * 1024


class _Side(asyncio.Protocol):
    """One of the two connections of a session; what goes out waits in order until it is due."""

    transport: asyncio.Transport | None = None

    def __init__(self, session: Session, is_client: bool) -> None:
        self.session, self.is_client = session, is_client
        self.splitter = Splitter()
        self.stream: TcpStream | None = None
        self.ended = False
        self._lane: deque[tuple[float, bytes, str]] = deque()
        self._waiting = 0
        self._finish = False
        self._loop = asyncio.get_running_loop()

    @property
    def other(self) -> _Side:
        return self.session.device if self.is_client else self.session.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.session.met(self)

    def data_received(self, data: bytes) -> None:
        self.session.receive(self, data)

    def eof_received(self) -> bool:
        self.session.receive_end(self)
        return True  # the other direction may go on

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if self.stream is not None:
            self.stream.close(reset=exc is not None)
        self._lane.clear()
        self.session.lost(self)

    def pause_writing(self) -> None:
        self.other.pause(True)

    def resume_writing(self) -> None:
        self.other.pause(False)

    def pause(self, yes: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.pause_reading if yes else self.transport.resume_reading)()

    # -- what goes out ----------------------------------------------------------------------------

    def send(self, data: bytes, delay_s: float = 0.0, note: str = "") -> None:
        """Send, now or later, but never before what was sent earlier."""
        if not self._lane and not delay_s:
            self._write(data, note)
            return
        due_s = self._loop.time() + delay_s
        if self._lane:
            due_s = max(due_s, self._lane[-1][0])
        self._lane.append((due_s, data, note))
        self._waiting += len(data)
        if self._waiting > _MAX_WAITING:
            self.other.pause(True)
        self._loop.call_at(due_s, self._release)

    def _release(self) -> None:
        now = self._loop.time() + 1e-4
        while self._lane and self._lane[0][0] <= now:
            _, data, note = self._lane.popleft()
            if self._waiting > _MAX_WAITING >= self._waiting - len(data):
                self.other.pause(False)
            self._waiting -= len(data)
            self._write(data, note)
        if self._lane:
            self._loop.call_at(self._lane[0][0], self._release)
        elif self._finish:
            self.finish()

    def _write(self, data: bytes, note: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)
            if self.stream is not None:
                # The client's side shows what it got, the device's side what that got.
                self.stream.data(not self.is_client, data, note)

    def finish(self) -> None:
        """Say that nothing more will come, once all that waits has gone out."""
        self._finish = True
        if self._lane or self.transport is None or self.transport.is_closing():
            return
        if self.session.all_ended or (self.is_client and self.other.ended):
            self.transport.close()
            return
        self.transport.write_eof()
        if self.other.ended:
            # Closing now would reset the connection under a device that has not read all yet.
            self._loop.call_later(LINGER_S, self.transport.close)


class Session:
    """A client's connection, the one to the device that belongs to it, and what lies between.

    `forget` is called with the session when it is over.
    """

    def __init__(
        self,
        attack: DeviceAttack,
        target: Address,
        capture: Capture | None,
        forget: Callable[[Session], None],
    ) -> None:
        self._attack, self._target, self._capture = attack, target, capture
        self._forget = forget
        self._conversation = Conversation(attack)
        self._ends: set[bool] = set()
        self._connecting: asyncio.Task[None] | None = None
        self.client = _Side(self, True)
        self.device = _Side(self, False)

    @property
    def opaque(self) -> bool:
        """Return True where it carries something that is not Modbus, such as TLS."""
        return self.client.splitter.opaque or self.device.splitter.opaque

    @property
    def all_ended(self) -> bool:
        """Return True where both ends have closed."""
        return len(self._ends) == 2

    def met(self, side: _Side) -> None:
        """Connect to the device as soon as a client is there."""
        assert side.transport is not None
        peer, own = (side.transport.get_extra_info(k) for k in ("peername", "sockname"))
        if side.is_client:
            if self._capture is not None:
                side.stream = self._capture.stream(CLIENT_SIDE, peer[:2], own[:2])
            side.pause(True)
            self._connecting = asyncio.get_running_loop().create_task(self._reach())
        elif self._capture is not None:
            side.stream = self._capture.stream(DEVICE_SIDE, own[:2], peer[:2])

    async def _reach(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(
                loop.create_connection(lambda: self.device, *self._target), CONNECT_S
            )
        except (OSError, TimeoutError):
            self.cut()  # the client sees a closed connection, as without the proxy
            return
        if self.client.ended:
            self.cut()
        self.client.pause(False)

    # -- what comes in ----------------------------------------------------------------------------

    def receive(self, side: _Side, data: bytes) -> None:
        """Take bytes of one side, apply the attack, send on the result."""
        if side.stream is not None:
            side.stream.data(side.is_client, data)
        for piece in side.splitter.feed(data):
            if side.splitter.opaque:
                self._pass_opaque(side, piece)
            elif side.is_client:
                self._deliver(self._conversation.from_client(piece))
            else:
                self._deliver(self._conversation.from_device(piece))

    def _pass_opaque(self, side: _Side, data: bytes) -> None:
        """Treat bytes that are not Modbus: they pass, are late, or the connection is closed."""
        attack = self._attack
        for i, _ in attack.rules_of(DropRule):
            if attack.acts(i):
                self.cut()
                return
        late = [
            r.delay_s for i, r in attack.rules_of(DelayRule) if side.is_client and attack.acts(i)
        ]
        side.other.send(data, sum(late))

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.data:
                side = self.device if delivery.to_device else self.client
                side.send(delivery.data, delivery.delay_s, delivery.note)

    def receive_end(self, side: _Side) -> None:
        """Pass on that one side has closed."""
        self._ends.add(side.is_client)
        rest = side.splitter.rest()
        if rest:
            side.other.send(rest)
        side.other.finish()
        if self.all_ended:
            side.finish()

    # -- the end ----------------------------------------------------------------------------------

    def lost(self, side: _Side) -> None:
        """End the other side as well, after what still waits for it."""
        self._ends.add(side.is_client)
        if side.other.transport is None or side.other.ended:
            self._forget(self)
        else:
            side.other.finish()

    def cut(self) -> None:
        """End both sides at once."""
        for side in (self.client, self.device):
            if side.transport is not None and not side.ended:
                side.transport.abort()
        self._forget(self)

    def close(self) -> None:
        """End the session because the proxy does."""
        if self._connecting is not None:
            self._connecting.cancel()
        self.cut()
