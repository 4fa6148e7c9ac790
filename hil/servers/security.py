"""Mutual TLS and the role in a client's certificate.

"MODBUS/TCP Security Protocol Specification", Modbus Organization, 2018: TLS 1.2 or later, both
sides with certificates, and the client's role as a UTF8String in the X.509 extension
1.3.6.1.4.1.50316.802.1. What a role may do is the server's choice; a role that may not is answered
with exception 1.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hil.servers.errors import ServerError

#: DER of the object identifier 1.3.6.1.4.1.50316.802.1, with tag and length.
ROLE_OID = bytes.fromhex("060b2b0601040183890c862201")
#: The roles of SunSpec's Modbus security profile that may change a device's settings.
WRITERS = frozenset(
    ("GridServiceSunSpec", "NetworkAdministratorSunSpec", "SuperAdministratorSunSpec")
)
CERTIFICATE_FILES = ("ca.pem", "server.pem", "server.key")
_TAGS_BEFORE_EXTENSIONS = 0xA3


@dataclass(frozen=True)
class RolePolicy:
    """Who may read and write.

    Attributes
    ----------
    writers : frozenset of str
        Roles that may write.
    readers : frozenset of str, optional
        Roles that may read; None admits every role. A certificate without a role may do nothing.
    """

    writers: frozenset[str] = WRITERS
    readers: frozenset[str] | None = None

    def may_write(self, role: str | None) -> bool:
        """Tell whether the role may write."""
        return role in self.writers

    def may_read(self, role: str | None) -> bool:
        """Tell whether the role may read."""
        return role is not None and (self.readers is None or role in self.readers)


def server_context(folder: str | Path) -> ssl.SSLContext:
    """Return a TLS context that asks every client for a certificate.

    Parameters
    ----------
    folder : path
        With ``ca.pem`` (whom to trust), ``server.pem`` and ``server.key``.

    Raises
    ------
    ServerError
        A file is missing or not usable.
    """
    files = [Path(folder) / name for name in CERTIFICATE_FILES]
    for path in files:
        if not path.is_file():
            raise ServerError(
                f"{path.name} is not there",
                where=str(folder),
                expected="the files " + ", ".join(CERTIFICATE_FILES),
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cafile=str(files[0]))
        context.load_cert_chain(certfile=str(files[1]), keyfile=str(files[2]))
    except (ssl.SSLError, OSError) as error:
        raise ServerError(
            f"the certificates cannot be loaded: {error}",
            where=str(folder),
            expected="PEM files, with a key that belongs to server.pem",
        ) from None
    return context


def peer_role(certificate: bytes | None) -> str | None:
    """Return the role in a DER certificate, or None where there is none or more than one.

    The certificate is walked, not searched: a subject could contain the extension's bytes.
    """
    if not certificate:
        return None
    try:
        roles = [value for oid, value in _extensions(certificate) if oid == ROLE_OID]
        if len(roles) != 1:
            return None
        ((tag, text),) = _items(roles[0])
        return text.decode("utf-8") if tag == 0x0C and text else None
    except (ValueError, IndexError):
        return None


def _extensions(certificate: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield object identifier (DER) and content of each extension."""
    ((_, body),) = _items(certificate)
    _, to_be_signed = list(_items(body))[0]  # noqa: RUF015 - an empty one is an IndexError here
    for tag, content in _items(to_be_signed):
        if tag == _TAGS_BEFORE_EXTENSIONS:
            ((_, sequence),) = _items(content)
            for _, extension in _items(sequence):
                parts = list(_items(extension))
                (oid_tag, oid), (_, value) = parts[0], parts[-1]
                yield bytes((oid_tag, len(oid))) + oid, value


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of the DER items that follow one another in `data`."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("truncated")
        yield tag, data[at : at + length]
        at += length
