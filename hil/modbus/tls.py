"""Mutual TLS with roles, as the Modbus/TCP Security specification (MODBUS/TCP Security, V36) asks.

Both sides show a certificate that the other's authority signed. The client's certificate carries
its role as UTF-8 text in the extension 1.3.6.1.4.1.50316.802.1; the server decides by the role.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hil.devices.errors import DeviceError

ROLE_OID = "1.3.6.1.4.1.50316.802.1"
#: The roles of SunSpec's Modbus security profile that may change a device's settings. Every role
#: may read; a certificate without a role may do nothing.
WRITERS = frozenset(
    ("GridServiceSunSpec", "NetworkAdministratorSunSpec", "SuperAdministratorSunSpec")
)


def client_context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    """Return a context that shows `cert` and trusts only devices signed by `ca`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _loaded(context, ca, cert, key)


def server_context(folder: str | Path) -> ssl.SSLContext:
    """Return a context that refuses clients not signed by ``ca.pem``.

    The folder holds ``ca.pem``, ``server.pem`` (which is shown) and ``server.key``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, *(Path(folder) / n for n in ("ca.pem", "server.pem", "server.key")))


def _loaded(context: ssl.SSLContext, ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for what, path in (("ca", ca), ("cert", cert), ("key", key)):
        if not Path(path).is_file():
            raise DeviceError(f"no such file: {path}", where=f"tls.{what}")
    try:
        context.load_verify_locations(cafile=str(ca))
        context.load_cert_chain(str(cert), str(key))
    except ssl.SSLError as error:
        raise DeviceError(
            f"the certificates cannot be used: {error.reason or error}",
            where=f"tls: {cert}",
            expected="PEM files, the key without a password",
        ) from None
    return context


def peer_role(ssl_object: Any) -> str | None:
    """Return the role in the peer's certificate after the handshake; None where it has none."""
    der = ssl_object.getpeercert(binary_form=True)
    return role_of(der) if der else None


def role_of(der: bytes) -> str | None:
    """Return the role in a certificate (DER); None where it has none, or not exactly one."""
    wanted = _oid_bytes(ROLE_OID)
    roles = [value for oid, value in _extensions(der) if oid == wanted]
    if len(roles) != 1:
        return None  # the specification wants one role; two would let the client choose
    try:
        tag, body, _ = _element(roles[0], 0)
        return body.decode("utf-8") if tag == 0x0C else None
    except (IndexError, UnicodeDecodeError):
        return None


def _extensions(der: bytes) -> list[tuple[bytes, bytes]]:
    """Return (object identifier, value) of the extensions of a certificate (RFC 5280, 4.1)."""
    try:
        _, certificate, _ = _element(der, 0)
        for tag, part in _elements(_element(certificate, 0)[1]):
            if tag == 0xA3:  # [3] EXPLICIT Extensions
                found = [list(_elements(e)) for _, e in _elements(_element(part, 0)[1])]
                # Between identifier and value there may be the critical flag.
                return [(e[0][1], e[-1][1]) for e in found]
    except IndexError:
        pass
    return []


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of the DER elements in `data`."""
    at = 0
    while at < len(data):
        tag, body, at = _element(data, at)
        yield tag, body


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return tag, content and the position behind one DER element."""
    tag, length = data[at], data[at + 1]
    start = at + 2
    if length & 0x80:
        n = length & 0x7F
        length = int.from_bytes(data[start : start + n], "big")
        start += n
    if start + length > len(data):
        raise IndexError("truncated")
    return tag, data[start : start + length], start + length


def _oid_bytes(oid: str) -> bytes:
    parts = [int(p) for p in oid.split(".")]
    out = bytes([40 * parts[0] + parts[1]])
    for part in parts[2:]:
        digits = [part & 0x7F]
        while part := part >> 7:
            digits.append(part & 0x7F | 0x80)
        out += bytes(reversed(digits))
    return out
