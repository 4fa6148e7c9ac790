"""Certificates for a test bench: an authority, a server, and clients with roles.

For tests and emulators only: a lab that talks to real devices has an authority of its own. Needs
the package `cryptography`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.devices.errors import DeviceError
from hil.modbus.tls import ROLE_OID

if TYPE_CHECKING:
    from cryptography import x509

_DAYS = 365


def make_certificates(
    folder: Path, roles: Mapping[str, str | None], *, host: str = "127.0.0.1"
) -> None:
    """Write ``ca.pem``, ``server.pem``, ``server.key``, and NAME.pem, NAME.key of each client.

    Parameters
    ----------
    folder : Made where it is not there.
    roles : Client name -> role in its certificate; None for a certificate without a role.
    host : Address of the server.

    Raises
    ------
    DeviceError: The package `cryptography` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise DeviceError("making certificates needs the package 'cryptography'") from None
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _name("Feederate test authority")
    root = _builder(name, name, authority.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
    root = root.add_extension(x509.KeyUsage(**usage), critical=True)
    _write(folder / "ca.pem", None, root, authority, authority)
    key = ec.generate_private_key(ec.SECP256R1())
    server = _builder(_name("Feederate test device"), name, key.public_key())
    address = x509.IPAddress(ipaddress.ip_address(host))
    names = x509.SubjectAlternativeName([address, x509.DNSName("localhost")])
    _write(
        folder / "server.pem", folder / "server.key", server.add_extension(names, False),
        key, authority,
    )  # fmt: skip
    for client, role in roles.items():
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(client), name, key.public_key())
        if role is not None:
            text = role.encode()
            value = b"\x0c" + bytes([len(text)]) + text  # DER: UTF8String, shorter than 128
            oid = x509.ObjectIdentifier(ROLE_OID)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), False)
        _write(folder / f"{client}.pem", folder / f"{client}.key", builder, key, authority)


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _name(common: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=_DAYS))
    )


def _write(
    cert: Path, key_path: Path | None, builder: x509.CertificateBuilder, key: Any, authority: Any
) -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    signed = builder.sign(authority, hashes.SHA256())
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    if key_path is not None:
        key_path.touch(mode=0o600)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
