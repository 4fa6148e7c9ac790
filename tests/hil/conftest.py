"""A Modbus/TCP device made of a raw asyncio socket, which can be told to misbehave."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hil.modbus.tls import ROLE_OID, peer_role

Action = bytes | float | str
Behaviour = Callable[[int, int, bytes, bytes], list[Action]]
"""(tid, unit, request pdu, honest reply pdu) -> bytes to send, seconds to wait, or 'reset',
'close'."""


def frame(tid: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", tid, 0, len(pdu) + 1, unit) + pdu


class RawDevice:
    """Holds registers, answers honestly unless `behaviour` says otherwise."""

    def __init__(self, ssl_context: Any = None) -> None:
        self.holding = [0] * 65536
        self.input = [0] * 65536
        self.coils = [0] * 65536
        self.behaviour: Behaviour | None = None
        self.refuse = False
        """Whether further connections are ended at once."""
        self.writes: list[tuple[float, int, int, list[int]]] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.peers: list[str | None] = []
        self.errors: list[str] = []
        self.valid = 1 << 16
        self._ssl = ssl_context
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, c: self.errors.append(str(c.get("message"))))
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, ssl=self._ssl)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready.set()
        await self._stop.wait()
        for sock in server.sockets:  # a watchdog may just be connecting: take no more, then close
            self._loop.remove_reader(sock.fileno())
        await asyncio.sleep(0.01)
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuse:
            writer.transport.abort()
            return
        if self._ssl is not None:
            self.peers.append(peer_role(writer.get_extra_info("ssl_object")))
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readexactly(7)
                tid, _, length, unit = struct.unpack(">HHHB", head)
                pdu = await reader.readexactly(length - 1)
                self.requests.append(pdu)
                honest = self.answer(pdu)
                actions: list[Action] = [frame(tid, unit, honest)]
                if self.behaviour is not None:
                    actions = self.behaviour(tid, unit, pdu, honest)
                for action in actions:
                    if isinstance(action, float):
                        await asyncio.sleep(action)
                    elif isinstance(action, bytes):
                        writer.write(action)
                        await writer.drain()
                    elif action == "reset":
                        writer.transport.abort()
                        return
                    else:
                        writer.close()
                        return
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def answer(self, pdu: bytes) -> bytes:
        function, address, count = struct.unpack_from(">BHH", pdu)
        bank = {3: self.holding, 4: self.input}.get(function)
        if bank is not None:
            if address + count > self.valid:
                return bytes([function | 0x80, 2])
            return struct.pack(
                f">BB{count}H", function, 2 * count, *bank[address : address + count]
            )
        if function in (1, 2):
            bits = self.coils[address : address + count]
            packed = sum(b << i for i, b in enumerate(bits)).to_bytes((count + 7) // 8, "little")
            return bytes([function, len(packed)]) + packed
        if function == 5:
            self.coils[address] = int(count == 0xFF00)
            self._note(function, address, [self.coils[address]])
        elif function == 6:
            self.holding[address] = count
            self._note(function, address, [count])
        elif function == 15:
            bits = int.from_bytes(pdu[6:], "little")
            values = [bits >> i & 1 for i in range(count)]
            self.coils[address : address + count] = values
            self._note(function, address, values)
        elif function == 16:
            values = list(struct.unpack_from(f">{count}H", pdu, 6))
            self.holding[address : address + count] = values
            self._note(function, address, values)
        else:
            return bytes([function | 0x80, 1])
        return pdu[:5]

    def _note(self, function: int, address: int, values: list[int]) -> None:
        self.writes.append((time.monotonic(), function, address, values))

    def written(self, address: int) -> list[int]:
        return [values[0] for _, _, a, values in self.writes if a == address]

    def drop_connections(self) -> None:
        def drop() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(drop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def raw_device() -> Iterator[RawDevice]:
    device = RawDevice()
    yield device
    device.close()


@pytest.fixture
def make_raw_device() -> Iterator[Callable[..., RawDevice]]:
    made: list[RawDevice] = []

    def make(**options: Any) -> RawDevice:
        made.append(RawDevice(**options))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture(scope="session")
def raw_device_class() -> type[RawDevice]:
    return RawDevice


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def make_certificates() -> Callable[..., None]:
    """Write ``ca.pem``, ``server.pem``, ``server.key``, and NAME.pem, NAME.key of each client.

    Called with a folder and a role by client name; None for a certificate without a role.
    """
    return write_certificates


def write_certificates(folder: Path, roles: dict[str, str | None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Feederate test authority")])
    usages = dict.fromkeys(USAGES, False) | {"key_cert_sign": True, "crl_sign": True}

    def write(
        stem: str, extensions: list[tuple[x509.ExtensionType, bool]], key: Any = None
    ) -> None:
        own = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, stem)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            name, name if key else subject, own.public_key(), x509.random_serial_number(),
            now - timedelta(minutes=5), now + timedelta(days=365),
        )  # fmt: skip
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        signed = builder.sign(authority, hashes.SHA256())
        (folder / f"{stem}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        if key is None:
            text = own.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            (folder / f"{stem}.key").write_bytes(text)

    constraints = x509.BasicConstraints(ca=True, path_length=0)
    write("ca", [(constraints, True), (x509.KeyUsage(**usages), True)], authority)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([address, x509.DNSName("localhost")])
    write("server", [(names, False)])
    for client, role in roles.items():
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if role is not None:
            value = b"\x0c" + bytes([len(role)]) + role.encode()  # DER: UTF8String, under 128 bytes
            oid = x509.ObjectIdentifier(ROLE_OID)
            extensions = [(x509.UnrecognizedExtension(oid, value), False)]
        write(client, extensions)


USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
