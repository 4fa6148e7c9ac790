"""HELICS: brokers, cores and one federate's connection. The only file that imports helics.

The per-step calls go to the C library with buffers that are allocated once: the convenience layer
of pyhelics copies every vector element by element through Python lists.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import helics as h
import numpy as np
from helics.capi import ffi, lib

from controllers.core.mail import FloatArray
from federates.clock import to_s
from federates.core.links import Bundle
from federates.core.oedisi import Codec, Topic
from federates.hosts.outcome import BusLostError

if TYPE_CHECKING:  # the broker's process needs neither
    from federates.core.federate import Federate
    from federates.core.wiring import FederateWiring

# A short tick makes a lost peer known in seconds; a long timeout lets a loaded machine register.
_COMMON = "--tick=1s --timeout=60s --loglevel=no_print"
# HELICS' TCP cores hang, without a word, on a message that is longer than the receiver's buffer;
# theirs is 4096 bytes, which the voltages of 500 nodes fill.
MAX_MESSAGE_BYTES = 1 << 20
NETWORK_OPTIONS = f"--maxsize={MAX_MESSAGE_BYTES}"
_ANY_LENGTH = ("inproc", "zmq")
_ERROR_CODE = 3
# Above the rounding of seconds within decades, below the shortest period, 1e-6 s.
_SAME_TIME_S = 4e-7
_EARLY_NS = 400
_FIRST_PORT, _END_PORT = 10240, 32768
_SILENT = int(h.HELICS_LOG_LEVEL_NO_PRINT)


@dataclass(frozen=True)
class Endpoint:
    """How to reach a broker: core type, and its address (its name for ``inproc``)."""

    core_type: str
    address: str
    key: str = ""

    @property
    def core_init(self) -> str:
        """Options for a core that connects to this broker."""
        if self.core_type == "inproc":
            return f"{_COMMON} --broker={self.address}"
        key = f" --brokerkey={self.key}" if self.key else ""
        return f"{_COMMON} {NETWORK_OPTIONS} --broker_address={self.address}{key}"


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_block(n: int) -> int:
    """Return the first of `n` TCP ports in a row on loopback that nobody uses.

    They lie below those that systems give to outgoing connections, which come and go.
    """
    for _ in range(100):
        first = _FIRST_PORT + secrets.randbelow(_END_PORT - _FIRST_PORT - n)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + n):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise OSError(None, f"no {n} free TCP ports in a row on loopback")


class Broker:
    """A HELICS broker in this process.

    Parameters
    ----------
    n_federates : Number of federates that must join before time starts.
    core_type : ``inproc`` for federates of this process; ``tcp_ss`` and the like for several.
    host : Interface to listen on.
    port : 0 picks a free one.
    key : Federates must show this key, so that two runs on one machine never meet.
    """

    def __init__(
        self,
        n_federates: int,
        core_type: str = "inproc",
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = "",
    ) -> None:
        name = f"broker-{uuid.uuid4().hex}"
        init = f"-f {n_federates} {_COMMON}"
        if core_type == "inproc":
            self.endpoint = Endpoint(core_type, name)
        else:
            if not port:
                # With zmq the broker has two ports, and gives each core one from the sixth on.
                port = free_block(6 + 2 * n_federates) if core_type == "zmq" else free_port()
            scheme = "udp" if core_type == "udp" else "tcp"
            self.endpoint = Endpoint(core_type, f"{scheme}://{host}:{port}", key)
            init += f" {NETWORK_OPTIONS} --local_interface={host} --localport={port}"
            init += f" --brokerkey={key}" if key else ""
        self._broker = h.helicsCreateBroker(core_type, name, init)
        if not h.helicsBrokerIsConnected(self._broker):
            raise OSError(None, f"the HELICS broker cannot listen on {self.endpoint.address}")

    def global_error(self, message: str) -> None:
        """End the federation: every federate's next or pending request fails."""
        # pyhelics passes the text on without encoding it, which the C library refuses.
        err = h.helicsErrorInitialize()
        lib.helicsBrokerGlobalError(self._broker.handle, _ERROR_CODE, message.encode(), err)

    def connected(self) -> bool:
        """Whether the broker still serves a federation."""
        return bool(h.helicsBrokerIsConnected(self._broker))

    def close(self, wait_ms: int = 500) -> None:
        """Wait briefly for the federates to leave, then disconnect."""
        with contextlib.suppress(h.HelicsException):
            h.helicsBrokerWaitForDisconnect(self._broker, wait_ms)
            h.helicsBrokerDisconnect(self._broker)
            h.helicsBrokerFree(self._broker)


class Core:
    """A HELICS core shared by the federates of one process; messages between them stay in it."""

    def __init__(self, endpoint: Endpoint, n_federates: int) -> None:
        self.core_type = endpoint.core_type
        self.name = f"core-{uuid.uuid4().hex}"
        init = f"{endpoint.core_init} --federates={n_federates}"
        self._core = h.helicsCreateCore(endpoint.core_type, self.name, init)
        if not h.helicsCoreConnect(self._core):
            raise OSError(None, f"no HELICS broker answers at {endpoint.address}")

    def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(h.HelicsException):
            h.helicsCoreDisconnect(self._core)
            h.helicsCoreFree(self._core)


def close_library() -> None:
    """Release what HELICS holds for this process."""
    h.helicsCleanupLibrary()


class HelicsBus:
    """One federate's connection to the federation.

    Parameters
    ----------
    core : Core
    topics : mapping of (federate, port) to Topic
        Only for ports of programs that are not ours; ours are ``federate/port``.
    """

    def __init__(
        self,
        core: Core,
        federate: Federate,
        wiring: FederateWiring,
        topics: Mapping[tuple[str, str], Topic],
    ) -> None:
        self._name = federate.name
        self._limited = core.core_type not in _ANY_LENGTH
        self._now_ns = 0
        info = h.helicsCreateFederateInfo()
        h.helicsFederateInfoSetCoreTypeFromString(info, core.core_type)
        h.helicsFederateInfoSetCoreName(info, core.name)
        timing = federate.timing
        period, offset = h.HELICS_PROPERTY_TIME_PERIOD, h.HELICS_PROPERTY_TIME_OFFSET
        h.helicsFederateInfoSetTimeProperty(info, period, to_s(timing.period_ns))
        h.helicsFederateInfoSetTimeProperty(info, offset, to_s(timing.offset_ns))
        # A grant earlier than asked for would reorder the step; values wait for the next grant.
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
        # Its own messages would land on standard output; failures are reported by us.
        h.helicsFederateInfoSetIntegerProperty(info, h.HELICS_PROPERTY_INT_LOG_LEVEL, _SILENT)
        mailing = bool(federate.links_in or federate.links_out)
        create = h.helicsCreateCombinationFederate if mailing else h.helicsCreateValueFederate
        self._fed = create(federate.name, info)
        self._handle = self._fed.handle
        self._err = h.helicsErrorInitialize()
        self._size = ffi.new("int *")
        self._publications = self._register_publications(federate, wiring)
        self._messages: dict[str, list[tuple[object, Codec]]] = {}
        for message in wiring.messages:
            text = self._register_text(message.topic)
            self._messages.setdefault(message.port, []).append((text, message.codec))
        self._topology: tuple[object, Callable[[], str]] | None = None
        if wiring.topology:
            self._topology = self._register_text(f"{federate.name}/topology"), federate.topology
        self._inputs = self._register_inputs(wiring, topics)
        self._endpoint = None
        if mailing:
            self._endpoint = h.helicsFederateRegisterGlobalEndpoint(
                self._fed, f"{federate.name}/mail", "feederate"
            )

    def _register_publications(
        self, federate: Federate, wiring: FederateWiring
    ) -> dict[str, tuple[object, int]]:
        out = {}
        for port in federate.outputs:
            if port.name in wiring.published:
                topic = f"{federate.name}/{port.name}"
                labels = json.dumps(list(port.labels))
                self._refuse_too_long(topic, max(8 * len(port.labels), len(labels)))
                publication = h.helicsFederateRegisterGlobalPublication(
                    self._fed, topic, h.HELICS_DATA_TYPE_VECTOR, port.unit
                )
                h.helicsPublicationSetInfo(publication, labels)
                out[port.name] = (publication.handle, len(port.labels))
        return out

    def _register_text(self, topic: str) -> object:
        string = h.HELICS_DATA_TYPE_STRING
        return h.helicsFederateRegisterGlobalPublication(self._fed, topic, string, "").handle

    def _register_inputs(
        self, wiring: FederateWiring, topics: Mapping[tuple[str, str], Topic]
    ) -> dict[tuple[str, str], _Subscription]:
        out: dict[tuple[str, str], _Subscription] = {}
        read = [feed for feeds in wiring.feeds.values() for feed in feeds]
        for feed in (*read, *(wiring.inbox.reads if wiring.inbox is not None else ())):
            key = (feed.source, feed.port)
            if key not in out:
                topic = topics.get(key, Topic(f"{feed.source}/{feed.port}"))
                handle = h.helicsFederateRegisterSubscription(self._fed, topic.name, "").handle
                out[key] = _Subscription(topic, handle, feed.source_size)
        return out

    def enter(self) -> None:
        """Wait until every federate is there, then start at time 0."""
        try:
            h.helicsFederateEnterExecutingMode(self._fed)
        except h.HelicsException as error:
            raise BusLostError(f"the federation did not start: {error}") from None
        if self._topology is not None:
            publication, text = self._topology
            self._publish_text(publication, text())

    def advance(self, now_ns: int) -> None:
        """Return when HELICS grants `now_ns`.

        Raises BusLostError: The federation ended, or another time came back (which is how HELICS
        releases a federate whose peers are gone).
        """
        self._now_ns = now_ns
        if now_ns == 0:
            return  # entering execution grants time zero
        asked = to_s(now_ns)
        # A little early: seconds that round up by one tick would be granted a period later.
        early = to_s(now_ns - _EARLY_NS)
        granted = lib.helicsFederateRequestTime(self._handle, early, self._err)
        # HELICS makes seconds by multiplying its ticks, so 0.3 s comes back as 0.30000000000000004.
        if self._err.error_code != 0 or abs(granted - asked) > _SAME_TIME_S:
            raise BusLostError(self._message() or f"HELICS granted {granted:g} s, not {asked:g} s")

    def latest(self, source: str, port: str) -> FloatArray | None:
        """Return what `source` published last, or None before its first step."""
        subscription = self._inputs[source, port]
        if lib.helicsInputIsUpdated(subscription.handle):
            topic = subscription.topic
            if topic.codec is not None:
                text = self._text(subscription.handle)
                subscription.buffer[:] = topic.codec.decode(text, topic.name)
            else:
                self._read_vector(subscription)
            subscription.seen = True
        return subscription.buffer if subscription.seen else None

    def _read_vector(self, subscription: _Subscription) -> None:
        size, err = self._size, self._err
        pointer, room = subscription.pointer, subscription.room
        lib.helicsInputGetVector(subscription.handle, pointer, room, size, err)
        if err.error_code != 0:
            raise BusLostError(self._message())
        if size[0] != subscription.buffer.size:
            raise ValueError(
                f"topic '{subscription.topic.name}' gave {size[0]} numbers; "
                f"expected {subscription.buffer.size}, one per label"
            )

    def _text(self, handle: object) -> str:
        room = lib.helicsInputGetStringSize(handle)
        buffer = ffi.new("char[]", room + 1)
        lib.helicsInputGetString(handle, buffer, room + 1, self._size, self._err)
        if self._err.error_code != 0:
            raise BusLostError(self._message())
        return bytes(ffi.string(buffer)).decode(errors="replace")

    def publish(self, port: str, values: FloatArray) -> None:
        """Publish one output port."""
        handle, n = self._publications[port]
        data = ffi.from_buffer("double[]", np.ascontiguousarray(values, dtype=np.float64))
        lib.helicsPublicationPublishVector(handle, data, n, self._err)
        if self._err.error_code != 0:
            raise BusLostError(self._message())
        for publication, codec in self._messages.get(port, ()):
            self._publish_text(publication, codec.encode(values, self._now_ns))

    def _publish_text(self, publication: object, text: str) -> None:
        lib.helicsPublicationPublishString(publication, text.encode(), self._err)
        if self._err.error_code != 0:
            raise BusLostError(self._message())

    def send(self, peer: str, bundle: Bundle) -> None:
        """Send mail to a peer as one message."""
        data = bundle.to_bytes()
        self._refuse_too_long(f"the mail to '{peer}'", len(data))
        h.helicsEndpointSendBytesTo(self._endpoint, data, f"{peer}/mail")

    def _refuse_too_long(self, what: str, n_bytes: int) -> None:
        if self._limited and n_bytes > MAX_MESSAGE_BYTES - 1024:
            raise ValueError(
                f"{what} has {n_bytes} bytes a step; processes can exchange {MAX_MESSAGE_BYTES} "
                "in one message (threads any number)"
            )

    def receive(self) -> list[Bundle]:
        """Return the mail that came in."""
        endpoint = self._endpoint
        if endpoint is None:
            return []
        count = lib.helicsEndpointPendingMessageCount(endpoint.handle)
        return [
            Bundle.from_bytes(h.helicsMessageGetBytes(h.helicsEndpointGetMessage(endpoint)))
            for _ in range(count)
        ]

    def fail(self, message: str) -> None:
        """End the federation for everybody, naming the reason."""
        with contextlib.suppress(h.HelicsException):
            h.helicsFederateGlobalError(self._fed, _ERROR_CODE, message)

    def leave(self) -> None:
        """Disconnect."""
        with contextlib.suppress(h.HelicsException):
            h.helicsFederateDisconnect(self._fed)

    def _message(self) -> str:
        text = ffi.string(self._err.message).decode() if self._err.error_code else ""
        lib.helicsErrorClear(self._err)
        return text


class _Subscription:
    """An input and the buffer HELICS writes its vector into."""

    def __init__(self, topic: Topic, handle: object, n: int) -> None:
        self.topic = topic
        self.handle = handle
        # HELICS truncates silently, so leave room for one more to notice a vector that is too long.
        room: FloatArray = np.zeros(n + 1)
        self.pointer = ffi.from_buffer("double[]", room)
        self.buffer = room[:n]
        self.room = n + 1
        self.seen = False
