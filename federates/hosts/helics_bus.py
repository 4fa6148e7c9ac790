"""One HELICS federate, and the buses of the federates that it carries.

The per-step calls go to the C library with buffers that are allocated once: the convenience layer
of pyhelics copies every vector element by element through Python lists.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import helics as h
import numpy as np
from helics.capi import ffi, lib

from controllers.core.mail import FloatArray
from federates.clock import common_grid, to_s
from federates.core.federate import Federate
from federates.core.links import Bundle
from federates.core.oedisi import Codec, Topic
from federates.core.shell import Shell, SignalBus
from federates.core.wiring import FederateWiring
from federates.errors import MessageError, PartnerError
from federates.hosts.helics_broker import ERROR_CODE, TCP_MESSAGE_BYTES, Core
from federates.hosts.loop import Memory, MemoryBus
from federates.hosts.outcome import BusLostError

_ANY_LENGTH = ("inproc", "zmq", "zmq_ss")
# Above the rounding of seconds within decades, below the shortest period, 1e-6 s.
_SAME_TIME_S = 4e-7
_EARLY_NS = 400
_SILENT = int(h.HELICS_LOG_LEVEL_NO_PRINT)


class HelicsMember:
    """One HELICS federate: it carries the federates that a process steps in one loop.

    It is called as the first of them. Publications are ``federate/port`` and endpoints
    ``federate/mail`` by the names of the federates that it carries; what these exchange with each
    other stays in memory.

    Parameters
    ----------
    core : Core
    shells : The federates, the one that leads first.
    topics : mapping of (federate, port) to Topic
        Only for ports of programs that are not ours; ours are ``federate/port``.
    alone : Whether no other HELICS federate can exist. Time is then asked for once per step of the
        first federate: nobody could see what happens in between.
    """

    def __init__(
        self,
        core: Core,
        shells: Mapping[str, Shell],
        topics: Mapping[tuple[str, str], Topic],
        *,
        alone: bool = False,
    ) -> None:
        self.limited = core.core_type not in _ANY_LENGTH
        self.topics = topics
        self.names = tuple(shells)
        self.now_ns = 0
        self._alone = alone
        info = h.helicsCreateFederateInfo()
        h.helicsFederateInfoSetCoreTypeFromString(info, core.core_type)
        h.helicsFederateInfoSetCoreName(info, core.name)
        # A grant earlier than asked for would reorder the step; values wait for the next grant.
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
        # Its own messages would land on standard output; failures are reported by us.
        h.helicsFederateInfoSetIntegerProperty(info, h.HELICS_PROPERTY_INT_LOG_LEVEL, _SILENT)
        grid = common_grid([s.federate.timing for s in shells.values()])
        self._early_ns = _EARLY_NS if grid.period_ns > 2 * _EARLY_NS else 0
        if self._early_ns:
            period, offset = h.HELICS_PROPERTY_TIME_PERIOD, h.HELICS_PROPERTY_TIME_OFFSET
            h.helicsFederateInfoSetTimeProperty(info, period, to_s(grid.period_ns))
            h.helicsFederateInfoSetTimeProperty(info, offset, to_s(grid.offset_ns))
        mailing = any(s.federate.links_in or s.federate.links_out for s in shells.values())
        create = h.helicsCreateCombinationFederate if mailing else h.helicsCreateValueFederate
        self.fed = create(self.names[0], info)
        self.err = h.helicsErrorInitialize()
        memory = Memory(self.names)
        self.inputs: dict[tuple[str, str], _Subscription] = {}
        self._core = core
        self.buses: dict[str, SignalBus] = {
            name: HelicsBus(self, shell.federate, shell.wiring, memory, self.inputs)
            for name, shell in shells.items()
        }

    def ask(self, target: str, question: str) -> Any:
        """Return the answer to a HELICS query; None where there is none."""
        return self._core.ask(target, question)

    def published_as(self, source: str, port: str) -> tuple[str, str]:
        """Return unit and type of a topic; of one that nobody publishes '' and 'any'."""
        handle = self.inputs[source, port].handle
        unit, kind = lib.helicsInputGetInjectionUnits, lib.helicsInputGetPublicationType
        return ffi.string(unit(handle)).decode(), ffi.string(kind(handle)).decode()

    def initialise(self) -> None:
        """Wait until every federate has registered what it publishes and reads."""
        try:
            h.helicsFederateEnterInitializingMode(self.fed)
        except h.HelicsException as error:
            raise BusLostError(f"the federation did not start: {error}") from None

    def enter(self) -> None:
        """Wait until every federate is initialised, then start at time 0."""
        try:
            h.helicsFederateEnterExecutingMode(self.fed)
        except h.HelicsException as error:
            raise BusLostError(f"the federation did not start: {error}") from None
        for bus in self.buses.values():
            assert isinstance(bus, HelicsBus)
            bus.publish_topology()

    def advance(self, now_ns: int, leads: bool = True) -> None:
        """Return when HELICS grants `now_ns`; `leads`: whether the first federate is due.

        Raises BusLostError: The federation ended, or another time came back (which is how HELICS
        releases a federate whose peers are gone).
        """
        self.now_ns = now_ns
        if now_ns == 0 or (self._alone and not leads):
            return  # entering execution grants time zero
        asked = to_s(now_ns)
        # A little early: seconds that round up by one tick would be granted a period later.
        early = to_s(now_ns - self._early_ns)
        granted = lib.helicsFederateRequestTime(self.fed.handle, early, self.err)
        # HELICS makes seconds by multiplying its ticks, so 0.3 s comes back as 0.30000000000000004.
        if self.err.error_code != 0 or abs(granted - asked) > _SAME_TIME_S:
            raise BusLostError(self.message() or f"HELICS granted {granted:g} s, not {asked:g} s")

    def fail(self, message: str) -> None:
        """End the federation for everybody, naming the reason."""
        with contextlib.suppress(h.HelicsException):
            h.helicsFederateGlobalError(self.fed, ERROR_CODE, message)

    def leave(self) -> None:
        """Disconnect."""
        with contextlib.suppress(h.HelicsException):
            h.helicsFederateDisconnect(self.fed)

    def check(self) -> None:
        """Raise BusLostError if the last call of the library failed."""
        if self.err.error_code != 0:
            raise BusLostError(self.message())

    def message(self) -> str:
        """Return what the library says of the last call, and forget it."""
        text = ffi.string(self.err.message).decode() if self.err.error_code else ""
        lib.helicsErrorClear(self.err)
        return self._core.named(text)


class HelicsBus(MemoryBus):
    """The end of one federate: memory within its process, HELICS beyond."""

    def __init__(
        self,
        member: HelicsMember,
        federate: Federate,
        wiring: FederateWiring,
        memory: Memory,
        inputs: dict[tuple[str, str], _Subscription],
    ) -> None:
        super().__init__(federate.name, memory)
        self._member = member
        self._publications = self._register_publications(federate, wiring)
        self._messages: dict[str, list[tuple[object, Codec]]] = {}
        for message in wiring.messages:
            text = self._register_text(message.topic)
            self._messages.setdefault(message.port, []).append((text, message.codec))
        self._topology: tuple[object, Callable[[], str]] | None = None
        if wiring.topology:
            self._topology = self._register_text(f"{federate.name}/topology"), federate.topology
        self._inputs = inputs
        self._register_inputs(wiring)
        self._endpoint = None
        if federate.links_in or federate.links_out:
            self._endpoint = h.helicsFederateRegisterGlobalEndpoint(
                member.fed, f"{federate.name}/mail", "feederate"
            )

    def _register_publications(
        self, federate: Federate, wiring: FederateWiring
    ) -> dict[str, tuple[object, int]]:
        out = {}
        for port in federate.outputs:
            if port.name in wiring.published:
                topic = f"{federate.name}/{port.name}"
                labels = json.dumps(list(port.labels))
                self._refuse_too_long(topic, 8 * len(port.labels))
                publication = h.helicsFederateRegisterGlobalPublication(
                    self._member.fed, topic, h.HELICS_DATA_TYPE_VECTOR, port.unit
                )
                h.helicsPublicationSetInfo(publication, labels)
                out[port.name] = (publication.handle, len(port.labels))
        return out

    def _register_text(self, topic: str) -> object:
        fed, string = self._member.fed, h.HELICS_DATA_TYPE_STRING
        return h.helicsFederateRegisterGlobalPublication(fed, topic, string, "").handle

    def _register_inputs(self, wiring: FederateWiring) -> None:
        read = [feed for feeds in wiring.feeds.values() for feed in feeds]
        for feed in (*read, *(wiring.inbox.reads if wiring.inbox is not None else ())):
            key = (feed.source, feed.port)
            if feed.source not in self._member.names:
                topic = self._member.topics.get(key, Topic(f"{feed.source}/{feed.port}"))
                self._subscribe(key, topic, feed.source_size)
        for partner in wiring.watched:
            for port, topic in partner.outputs:
                self._subscribe((partner.name, port.name), topic, len(port.labels))

    def _subscribe(self, key: tuple[str, str], topic: Topic, n: int) -> None:
        if key not in self._inputs:
            member = self._member
            handle = h.helicsFederateRegisterSubscription(member.fed, topic.name, "").handle
            self._inputs[key] = _Subscription(member, key[0], topic, handle, n)

    def updates(self, source: str, port: str) -> int:
        """Return how many updates of a topic `latest` has returned."""
        return self._inputs[source, port].updates

    def has_left(self, federate: str) -> bool:
        """Whether a federate has left the federation."""
        return self._member.ask(federate, "state") in ("disconnected", "finalized")

    def publish_topology(self) -> None:
        """Publish the topology of the federate's grid, if somebody reads it."""
        if self._topology is not None:
            publication, text = self._topology
            self._publish_text(publication, text())

    def latest(self, source: str, port: str) -> FloatArray | None:
        """Return what `source` published last, or None before its first step."""
        subscription = self._inputs.get((source, port))
        return super().latest(source, port) if subscription is None else subscription.latest()

    def publish(self, port: str, values: FloatArray) -> None:
        """Publish one output port."""
        super().publish(port, values)
        handle, n = self._publications[port]
        data = ffi.from_buffer("double[]", np.ascontiguousarray(values, dtype=np.float64))
        lib.helicsPublicationPublishVector(handle, data, n, self._member.err)
        self._member.check()
        for publication, codec in self._messages.get(port, ()):
            self._publish_text(publication, codec.encode(values, self._member.now_ns))

    def _publish_text(self, publication: object, text: str) -> None:
        lib.helicsPublicationPublishString(publication, text.encode(), self._member.err)
        self._member.check()

    def send(self, peer: str, bundle: Bundle) -> None:
        """Send mail to a peer as one message."""
        if peer in self._member.names:
            super().send(peer, bundle)
            return
        data = bundle.to_bytes()
        self._refuse_too_long(f"the mail to '{peer}'", len(data))
        h.helicsEndpointSendBytesTo(self._endpoint, data, f"{peer}/mail")

    def _refuse_too_long(self, what: str, n_bytes: int) -> None:
        if self._member.limited and n_bytes > TCP_MESSAGE_BYTES:
            raise ValueError(
                f"{what} has {n_bytes} bytes a step; over TCP processes can exchange "
                f"{TCP_MESSAGE_BYTES} in one message (threads any number)"
            )

    def receive(self) -> list[Bundle]:
        """Return the mail that came in."""
        mail, endpoint = super().receive(), self._endpoint
        if endpoint is None:
            return mail
        count = lib.helicsEndpointPendingMessageCount(endpoint.handle)
        return mail + [
            Bundle.from_bytes(h.helicsMessageGetBytes(h.helicsEndpointGetMessage(endpoint)))
            for _ in range(count)
        ]


class _Subscription:
    """An input of a HELICS federate and the buffer HELICS writes its vector into."""

    def __init__(
        self, member: HelicsMember, source: str, topic: Topic, handle: object, n: int
    ) -> None:
        self._member = member
        self._source = source
        self._topic = topic
        self.handle = handle
        # HELICS truncates silently, so leave room for one more to notice a vector that is too long.
        room: FloatArray = np.zeros(n + 1)
        self._pointer = ffi.from_buffer("double[]", room)
        self._buffer = room[:n]
        self._size = ffi.new("int *")
        self.updates = 0

    def latest(self) -> FloatArray | None:
        """Return the last value that is visible at the granted time, None if there is none."""
        if lib.helicsInputIsUpdated(self.handle):
            if self._topic.codec is not None:
                self._read_message(self._topic.codec)
            else:
                self._read_vector()
            self.updates += 1
        return self._buffer if self.updates else None

    def _read_message(self, codec: Codec) -> None:
        try:
            self._buffer[:] = codec.decode(self._text(), self._topic.name)
        except MessageError as error:
            raise PartnerError(str(error), federate=self._source) from None

    def _read_vector(self) -> None:
        size, n, err = self._size, self._buffer.size, self._member.err
        lib.helicsInputGetVector(self.handle, self._pointer, n + 1, size, err)
        self._member.check()
        if size[0] != n:
            raise PartnerError(
                f"topic '{self._topic.name}' gave {size[0]} numbers",
                federate=self._source,
                expected=f"{n}, one per label",
            )

    def _text(self) -> str:
        room = lib.helicsInputGetStringSize(self.handle)
        buffer = ffi.new("char[]", room + 1)
        lib.helicsInputGetString(self.handle, buffer, room + 1, self._size, self._member.err)
        self._member.check()
        return bytes(ffi.string(buffer)).decode(errors="replace")
