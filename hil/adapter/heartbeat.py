"""The count that tells a device that its master is alive."""

from __future__ import annotations

from collections.abc import Callable

from hil.adapter.access import PointAccess
from hil.adapter.sequence import Write
from hil.devices.places import Place, raw_range

_MOST = 59_999
"""Some devices take the highest counts of a register for "not implemented"."""


def heartbeat_range(
    place: Place, low: float | None, high: float | None, given: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the lowest and highest count of a heartbeat point.

    Parameters
    ----------
    low, high : Limits of the point in the device file, where it has any.
    given : ``guard.heartbeat_range``.
    """
    if given is not None:
        return given
    _, most = raw_range(place.kind, place.mask)
    first = 0 if low is None else round(low)
    held = most * place.scale + place.offset
    return first, max(first, int(min(held, _MOST if high is None else high, _MOST + first)))


class Heartbeat:
    """Counts the heartbeat point of a device up, and from its highest count to its lowest."""

    def __init__(self, access: PointAccess) -> None:
        self._access = access
        self._count: int | None = None

    async def beat(self, record: Callable[..., None]) -> None:
        """Write the next count.

        Raises DeviceError: It did not arrive.
        """
        reader = self._access.reader
        guard = reader.spec.guard
        point = guard.heartbeat_point
        if point is None:
            return
        await reader.prepare()
        spec = reader.spec.points[point]
        low, high = heartbeat_range(
            reader.place(point)[0], spec.min, spec.max, guard.heartbeat_range
        )
        count = low if self._count is None else self._count + 1
        self._count = count if low <= count <= high else low
        sent = await self._access.write((Write(point, float(self._count)),))
        record(point, verdict="written", asked=self._count, sent=sent[point], why="heartbeat")
