"""Who may connect to a server, and what the role in a client's certificate may do.

"MODBUS/TCP Security Protocol Specification", Modbus Organization, 2018. TLS itself, and the role in
a certificate, are in `hil.modbus.tls`; a role that may not do what it asks is answered with
exception 1.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from hil.modbus import tls
from hil.servers.errors import ServerError

#: The roles of SunSpec's Modbus security profile that may change a device's settings.
WRITERS = frozenset(
    ("GridServiceSunSpec", "NetworkAdministratorSunSpec", "SuperAdministratorSunSpec")
)
CERTIFICATE_FILES = ("ca.pem", "server.pem", "server.key")


@dataclass(frozen=True)
class RolePolicy:
    """Who may read and write.

    Attributes
    ----------
    writers : Roles that may write.
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
    folder : With ``ca.pem`` (whom to trust), ``server.pem`` and ``server.key``.

    Raises
    ------
    ServerError: A file is missing.
    hil.devices.errors.DeviceError: A file is not usable.
    """
    files = [Path(folder) / name for name in CERTIFICATE_FILES]
    for path in files:
        if not path.is_file():
            raise ServerError(
                f"{path.name} is not there",
                where=str(folder),
                expected="the files " + ", ".join(CERTIFICATE_FILES),
            )
    return tls.server_context(*files)
