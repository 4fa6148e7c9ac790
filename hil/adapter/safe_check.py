"""How the watchdog, which knows no points, reads back what it wrote."""

from __future__ import annotations

import math
from typing import Any

from hil.adapter.reader import DeviceReader
from hil.devices.codec import sf_factor
from hil.devices.places import STRUCT_CODES


def check_of(reader: DeviceReader, point: str, sent: float) -> dict[str, Any] | None:
    """Return how a point is read back and what is right, as raw numbers.

    Returns
    -------
    check : ``function``, ``address``, ``count``, ``format`` of `struct` ('' for a bit), ``low`` and
        ``high`` raw value, ``delay_s`` before it is read, ``reversion_s`` of the device's own
        timer (0 for none). None where only the echo tells: the point cannot be read, or its value
        is no plain number.
    """
    spec = reader.spec.points.get(point)
    if spec is None or (how := spec.read_back) is None:
        return None
    place, sf = reader.place(how.point or point)
    factor = sf_factor(sf) * place.scale
    if not (place.is_bit or place.is_plain) or not math.isfinite(factor):
        return None
    margin = how.tolerance + 1e-9 * max(1.0, abs(sent))
    low, high = sorted((v - place.offset) / factor for v in (sent - margin, sent + margin))
    tables = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
    return {
        "function": tables[place.table],
        "address": place.address,
        "count": 1 if place.is_bit else place.words,
        "format": "" if place.is_bit else ">" + STRUCT_CODES[place.kind],
        "low": low,
        "high": high,
        "delay_s": how.delay_s,
        "reversion_s": spec.reversion.seconds if spec.reversion else 0.0,
    }
