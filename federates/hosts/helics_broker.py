"""HELICS brokers and cores, and how to reach them."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import secrets
import socket
import uuid
from dataclasses import dataclass
from typing import Any

import helics as h
from helics.capi import lib

# A forked child, as pools of processes have them, must not collect what its parent left in HELICS:
# to free it there crashes, since the threads behind it are the parent's.
os.register_at_fork(after_in_child=gc.freeze)

# pyhelics frees every object when Python collects it. To free one before that, as its own functions
# offer, frees it twice, and the second time perhaps another one that has come to lie in its place.

# A short tick makes a lost peer known in seconds; a long timeout lets a loaded machine register.
_COMMON = "--tick=1s --timeout=60s --loglevel=no_print"
# HELICS' TCP cores hang, without a word, on a message that is longer than the receiver's buffer.
# The broker's is 4096 bytes, which the voltages of 500 nodes fill, but for this option. That of a
# core is 10192 bytes whatever is asked for, HELICS' own header included.
MAX_MESSAGE_BYTES = 1 << 20
NETWORK_OPTIONS = f"--maxsize={MAX_MESSAGE_BYTES}"
TCP_MESSAGE_BYTES = 9000
ERROR_CODE = 3
_FIRST_PORT, _END_PORT = 10240, 32768


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
    n_federates : Number of federates that must join before time starts; `Gate` waits for the rest.
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
        # Dynamic: somebody who comes late, as a recorder, does not end the federation.
        init = f"-f {n_federates} --dynamic {_COMMON}"
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
        lib.helicsBrokerGlobalError(self._broker.handle, ERROR_CODE, message.encode(), err)

    def connected(self) -> bool:
        """Whether the broker still serves a federation."""
        return bool(h.helicsBrokerIsConnected(self._broker))

    def close(self, wait_ms: int = 500) -> None:
        """Wait briefly for the federates to leave, then disconnect."""
        with contextlib.suppress(h.HelicsException):
            h.helicsBrokerWaitForDisconnect(self._broker, wait_ms)
            h.helicsBrokerDisconnect(self._broker)


class Core:
    """A HELICS core shared by the federates of one process; messages between them stay in it."""

    def __init__(self, endpoint: Endpoint, n_federates: int, wait_s: float = 60.0) -> None:
        self.endpoint = endpoint
        self.core_type = endpoint.core_type
        self._names: dict[str, str] = {}
        self.name = f"core-{uuid.uuid4().hex}"
        init = f"{endpoint.core_init} --federates={n_federates} --networktimeout={wait_s:g}s"
        self._core = h.helicsCreateCore(endpoint.core_type, self.name, init)
        if not h.helicsCoreConnect(self._core):
            raise OSError(None, f"no HELICS broker answers at {endpoint.address}")

    def ask(self, target: str, question: str) -> Any:
        """Return the answer to a HELICS query; None where there is none."""
        try:
            answer = h.helicsQueryCoreExecute(h.helicsCreateQuery(target, question), self._core)
        except h.HelicsException:
            return None
        return None if isinstance(answer, dict) and "error" in answer else answer

    def set_global(self, name: str, value: str) -> None:
        """Set a value that every core of the federation can ask for."""
        h.helicsCoreSetGlobal(self._core, name, value)

    def learn_names(self) -> None:
        """Keep the names behind HELICS' numbers: a core's are those of its federates."""
        for core in (self.ask("root", "federate_map") or {}).get("cores", ()):
            members = {f["attributes"]["id"]: f["attributes"]["name"] for f in core["federates"]}
            self._names |= {str(number): name for number, name in members.items()}
            self._names[str(core["attributes"]["id"])] = ", ".join(members.values())

    def named(self, text: str) -> str:
        """Return a message of HELICS with names in place of its numbers."""
        return re.sub(r"\b\d{6,}\b", lambda m: self._names.get(m[0], m[0]), text)

    def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(h.HelicsException):
            h.helicsCoreDisconnect(self._core)


def close_library() -> None:
    """Release what HELICS holds for this process."""
    h.helicsCleanupLibrary()
