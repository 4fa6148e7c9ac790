"""Keeps the engine's view of the process environment valid.

The engine is a Free Pascal library. It remembers where the environment table stood when it was
loaded and reads that table again in every new thread that calls it. The C library moves and frees
its table when variables are added, so a thread started after an ``os.environ[...] = ...`` would
read freed memory. Giving the process a table that is never freed before the engine loads avoids
this: later changes are made in a new table, and the engine keeps the old one.
"""

from __future__ import annotations

import ctypes
import sys

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
