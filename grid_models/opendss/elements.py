"""The active element of a compiled OpenDSS circuit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def each(interface: Any) -> Iterator[None]:
    """Step through the elements of a class that are in service; each becomes the active one."""
    more = interface.First()
    while more:
        yield
        more = interface.Next()


def source_kv_ll(dss: Any) -> float:
    """Return the line-to-line base of the active source; a single-phase one states its own."""
    kv = float(dss.Vsources.BasekV())
    return kv * float(np.sqrt(3.0)) if int(dss.Vsources.Phases()) == 1 else kv


def terminals(dss: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Return bus and nodes of each terminal of the active element."""
    names = [str(n).split(".")[0].lower() for n in dss.CktElement.BusNames()]
    order = [int(n) for n in dss.CktElement.NodeOrder()]
    n = int(dss.CktElement.NumConductors())
    return [(bus, tuple(order[i * n : (i + 1) * n])) for i, bus in enumerate(names)]


def primitive(dss: Any) -> NDArray[np.complex128]:
    """Return the primitive admittance matrix of the active element, in siemens."""
    flat = as_complex(dss.CktElement.YPrim())
    n = round(np.sqrt(flat.size))
    # The engine stores columns one after the other.
    return flat.reshape(n, n).T


def as_complex(values: Any) -> NDArray[np.complex128]:
    """Return the engine's complex numbers, which some versions give as pairs of real ones."""
    flat = np.asarray(values)
    return flat if np.iscomplexobj(flat) else flat.astype(np.float64).view(np.complex128)
