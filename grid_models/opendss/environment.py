"""Keeps the engine's view of the process environment valid.

The engine is a Free Pascal library. It remembers where the environment table stood when it was
loaded and reads that table again in every new thread that calls it. The C library moves and frees
its table when variables are added, so a thread started after an ``os.environ[...] = ...`` would
read freed memory. Giving the process a table that is never freed before the engine loads avoids
this: later changes are made in a new table, and the engine keeps the old one.

It remembers the folder in which it was loaded too, and makes it anew for each new context, or ends
the process with a segmentation fault where it cannot.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_KEPT: list[ctypes.Array[ctypes.c_void_p]] = []


def settle_environment() -> None:
    """Replace the process' environment table by a copy that stays for good; once, before loading.

    Nothing changes for readers of the environment. Only done where the table can be reached
    (glibc, musl); elsewhere this does nothing.
    """
    if _KEPT or not sys.platform.startswith("linux"):
        return
    try:
        table = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")
    except (OSError, ValueError):
        return
    if table.value is None:
        return
    entries = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
    n = 0
    while entries[n]:
        n += 1
    copy = (ctypes.c_void_p * (n + 1))(*entries[:n])
    _KEPT.append(copy)
    table.value = ctypes.addressof(copy)


@contextmanager
def existing(folder: Path) -> Iterator[None]:
    """Let a folder exist for a moment; what of it was not there before is removed again.

    Raises OSError: It cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
