"""All readings of all devices at one moment, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grid_models.base.errors import nearest_name
from hil.devices.errors import DeviceError
from hil.devices.points import Quality, Reading

FloatArray = npt.NDArray[np.float64]
Qualities = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Event:
    """An event of the adapter.

    Parameters
    ----------
    time_s : Seconds since 1970.
    device : '' where it is about the adapter itself.
    kind : refused, clamped, limited, delayed, changed, failed, fault, safe, left, quality,
        watchdog, error.
    """

    time_s: float
    device: str
    kind: str
    text: str


@dataclass(frozen=True)
class Snapshot:
    """All readings at one moment.

    Parameters
    ----------
    values : (n,); Last good values in the points' units; nan where there never was one.
    quality : (n,); `hil.devices.points.Quality`.
    age_s : (n,); Seconds since the last good value; inf where there never was one.
    index : (device, point); Position of each reading.
    generation : int
        Changes whenever `index` changes (after a SunSpec scan); gather positions again then.
    """

    values: FloatArray
    quality: Qualities
    age_s: FloatArray
    index: Mapping[tuple[str, str], int]
    generation: int

    def positions(self, wanted: Iterable[tuple[str, str]]) -> npt.NDArray[np.intp]:
        """Return the positions of (device, point) pairs, for use as an index into the arrays.

        Raises DeviceError: There is no such device or point.
        """
        return np.array([self._position(*pair) for pair in wanted], dtype=np.intp)

    def find(self, devices: Iterable[str], point: str) -> npt.NDArray[np.intp]:
        """Return the position of a point of each device; -1 where it is not known (yet)."""
        return np.array([self.index.get((d, point), -1) for d in devices], dtype=np.intp)

    def at(self, positions: npt.NDArray[np.intp]) -> tuple[FloatArray, Qualities, FloatArray]:
        """Return values, qualities and ages at `positions`; nan, bad and inf at -1."""
        values = np.append(self.values, np.nan)
        quality = np.append(self.quality, np.uint8(Quality.BAD))
        return values[positions], quality[positions], np.append(self.age_s, np.inf)[positions]

    def _position(self, device: str, point: str) -> int:
        found = self.index.get((device, point))
        if found is None:
            points = [p for d, p in self.index if d == device]
            if not points:
                devices = {d for d, _ in self.index}
                near = nearest_name(device, devices)
                raise DeviceError(f"there is no device '{device}'", nearest=near)
            near = nearest_name(point, points)
            raise DeviceError(f"there is no point '{point}'", where=device, nearest=near)
        return found

    def reading(self, device: str, point: str) -> Reading:
        """Return one reading."""
        i = self._position(device, point)
        return Reading(float(self.values[i]), Quality(self.quality[i]), float(self.age_s[i]))

    @staticmethod
    def judge(now_s: float, state: Sequence[npt.NDArray[Any]]) -> tuple[Qualities, FloatArray]:
        """Return qualities and ages from the state that `DeviceReader.state` returns."""
        _, good_s, bad, stale_limit, bad_limit = state
        age = now_s - good_s
        quality = np.where(age > stale_limit, Quality.STALE, Quality.GOOD)
        quality[bad | (age > bad_limit)] = Quality.BAD
        return quality.astype(np.uint8), age

    def as_dict(self) -> dict[str, dict[str, Reading]]:
        """Return device -> point -> Reading."""
        out: dict[str, dict[str, Reading]] = {}
        columns = zip(
            self.index,
            self.values.tolist(),
            self.quality.tolist(),
            self.age_s.tolist(),
            strict=True,
        )
        for (device, point), value, quality, age_s in columns:
            out.setdefault(device, {})[point] = Reading(value, Quality(quality), age_s)
        return out
