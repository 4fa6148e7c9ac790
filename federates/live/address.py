"""Where the live page is served: the words behind ``--live``. Standard library only."""

from __future__ import annotations

from ipaddress import ip_address

LOOPBACK = "127.0.0.1"
ANY_PORT = "auto"
"""In place of a port: `FIRST_PORT`, or another one where that is taken."""
FIRST_PORT = 8080


def parse_address(text: str) -> tuple[str, int | None]:
    """Return (host, port) of ``PORT`` or ``HOST:PORT``; the port None for `ANY_PORT`.

    Raises ValueError: With what was found and what was expected.
    """
    host, colon, word = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else LOOPBACK
    if word == ANY_PORT and host:
        return host, None
    if not host or not (word.isascii() and word.isdigit()) or not 1 <= int(word) <= 65535:
        raise ValueError(
            f"found '{text}', expected a port (1 to 65535), or HOST:PORT as in 0.0.0.0:8080"
        )
    return host, int(word)


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
