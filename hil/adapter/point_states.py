"""The points of one device as arrays: raw values to values, their quality and why they are bad."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hil.adapter.snapshot import Snapshot
from hil.devices.codec import Multipliers, times_power
from hil.devices.places import Place
from hil.devices.points import PointSpec, Quality
from hil.devices.spec import DeviceSpec

FloatArray = npt.NDArray[np.float64]
Slots = npt.NDArray[np.intp]
_LARGEST = float(np.finfo(np.float64).max)


class Cause(IntEnum):
    """Why a point is not good."""

    none = 0
    unread = 1
    told = 2  # the text of an error
    not_implemented = 3
    implausible = 4
    no_factor = 5
    write_only = 6


_WORDS = {
    Cause.unread: "never read",
    Cause.not_implemented: "not implemented",
    Cause.no_factor: "the scale factor or sign is not available",
    Cause.write_only: "write-only, never read",
}


class Listed(NamedTuple):
    """A point, where it is (None: not known), its entry in the file and its SunSpec model."""

    name: str
    place: Place | None
    point: PointSpec | None
    model: str = ""


class PointStates:
    """Values, quality and reasons of the points of one device; safe to ask from any thread."""

    def __init__(self, spec: DeviceSpec) -> None:
        self.spec = spec
        self.generation = 0
        self.names: list[str] = []
        self._lock = threading.Lock()
        self._layout = 0

    def lay_out(self, listed: Sequence[Listed], factors: dict[str, float]) -> None:
        """Take the points in place of those before; values are kept where the names are the same.

        Parameters
        ----------
        factors : Scale factors that do not change, by name.
        """
        names = [p.name for p in listed]
        n = len(names)
        plausible = [p.point.plausible if p.point else None for p in listed]
        period = [(p.point.poll_s if p.point else None) or self.spec.poll_s for p in listed]
        with self._lock:
            if self._layout == 0 or self.names != names:
                self.generation += 1
                self.names = names
                self._value = np.full(n, np.nan)
                self._good_s = np.full(n, -np.inf)
                self._bad = np.zeros(n, dtype=bool)
                self._cause = np.full(n, Cause.unread, dtype=np.uint8)
                self._told = np.full(n, "", dtype=object)
                self._found = np.full(n, np.nan)
            self._layout += 1
            self.slot = {name: i for i, name in enumerate(names)}
            self.places = [p.place or Place("holding", 0, "uint16") for p in listed]
            self._raw = np.full(n, np.nan)
            self._scale = np.array([p.scale for p in self.places])
            self._offset = np.array([p.offset for p in self.places])
            self._low = np.array([p[0] if p else -_LARGEST for p in plausible])
            self._high = np.array([p[1] if p else _LARGEST for p in plausible])
            self._period = np.array(period)
            self._stale_limit = np.array([self.spec.stale_limit_s(p) for p in period])
            self._bad_limit = np.array([self.spec.bad_limit_s(p) for p in period])
            self._in_file = np.array([p.point is not None for p in listed], dtype=bool)
            self._of_model = np.array([p.model for p in listed], dtype=object)
            self._write_only = np.array(
                [bool(p.point and p.point.write_only) for p in listed], bool
            )
            self._cause[self._write_only] = Cause.write_only
            self._set_factors(factors)
            self._multipliers = Multipliers(self.places, self.slot)
            # Factors that are read with the values, because they may change.
            self.moving_factors = bool(np.any(self._sf_slot >= 0)) or bool(self._multipliers)

    def _set_factors(self, factors: dict[str, float]) -> None:
        self._sf_slot = np.full(len(self.places), -1)
        self._sf = np.zeros(len(self.places))
        for i, place in enumerate(self.places):
            if isinstance(place.sf, str):
                self._sf[i] = factors.get(place.sf, np.nan)
                self._sf_slot[i] = self.slot.get(place.sf, -1)
            elif place.sf is not None:
                self._sf[i] = place.sf
        self._scaled = bool(np.any(self._sf != 0) or np.any(self._sf_slot >= 0))

    # -- taking -----------------------------------------------------------------------------------

    def fail(self, slots: Slots | slice, why: str, *, bad: bool) -> None:
        """Note why points were not read; `bad` where their last values no longer count either."""
        with self._lock:
            self._told[slots] = why
            self._cause[slots] = np.where(
                self._write_only[slots], np.uint8(Cause.write_only), np.uint8(Cause.told)
            )
            if bad:
                self._bad[slots] = True

    def take(self, slots: Slots, raw: FloatArray) -> None:
        """Turn the raw values of one poll into values; what is not there is bad."""
        now = time.monotonic()
        self._raw[slots] = raw
        at = self._sf_slot[slots]
        if self._scaled:
            here = np.zeros(len(self.names) + 1, dtype=bool)
            here[slots] = True
            # A factor that should have come with the value, but did not, may be another by now.
            lost = (at >= 0) & ~here[at] & (self._period[at] == self._period[slots])
            slots, raw, at = slots[~lost], raw[~lost], at[~lost]
            known, _ = self._known(now, slots)
            raw = times_power(raw, np.where(at >= 0, known[at], self._sf[slots]))
        with np.errstate(over="ignore"):  # too large is infinite, and so not good
            part = raw * self._scale[slots]
            value = part + self._offset[slots]
        ok = self._plausible(slots, value)
        if self._multipliers:
            known, values = self._known(now, slots)
            known[slots] = np.where(ok, self._raw[slots], np.nan)
            values[slots] = np.where(ok, value, np.nan)
            value = part * self._multipliers.of(known, values)[slots] + self._offset[slots]
            ok = self._plausible(slots, value)
        cause: npt.NDArray[Any] | Cause = Cause.none
        if not ok.all():
            cause = np.select(
                [ok, np.isnan(self._raw[slots]), np.isnan(value)],
                [Cause.none, Cause.not_implemented, Cause.no_factor],
                Cause.implausible,
            )
        with self._lock:
            self._cause[slots] = cause
            self._found[slots] = value
            self._bad[slots] = ~ok
            kept = slots[ok]
            self._value[kept] = value[ok]
            self._good_s[kept] = now

    def _plausible(self, slots: Slots, value: FloatArray) -> npt.NDArray[np.bool_]:
        return (value >= self._low[slots]) & (value <= self._high[slots])  # nan never is

    def _known(self, now_s: float, slots: Slots | None = None) -> tuple[FloatArray, FloatArray]:
        """Return raw values and values that still count, or are of `slots`; nan elsewhere."""
        usable = ~self._bad & (now_s - self._good_s <= self._bad_limit)
        if slots is not None:
            usable[slots] = True
        return np.where(usable, self._raw, np.nan), np.where(usable, self._value, np.nan)

    # -- asking -----------------------------------------------------------------------------------

    def state(self) -> tuple[npt.NDArray[Any], ...]:
        """Return value, time of the last good value, bad, stale limit, bad limit of each point.

        In the order of `names`; copies where they may change.
        """
        with self._lock:
            now = self._value.copy(), self._good_s.copy(), self._bad.copy()
            return *now, self._stale_limit, self._bad_limit

    def quality(self, now_s: float) -> npt.NDArray[np.uint8]:
        """Return the quality of each point, in the order of `names`."""
        return Snapshot.judge(now_s, self.state())[0]

    def reasons(self) -> dict[str, str]:
        """Return why a point is not good, by name; points that are good are left out."""
        now = time.monotonic()
        with self._lock:
            state = self._value, self._good_s, self._bad, self._stale_limit, self._bad_limit
            quality, age = Snapshot.judge(now, state)
            return {
                self.names[i]: self._reason(i, age[i])
                for i in np.flatnonzero(quality != Quality.GOOD).tolist()
            }

    def _reason(self, i: int, age_s: float) -> str:
        cause = Cause(self._cause[i])
        if cause is Cause.told:
            return str(self._told[i])
        if cause is Cause.implausible:
            low, high = self._low[i], self._high[i]
            return f"{self._found[i]:.10g} is not plausible ({low:g} to {high:g})"
        return _WORDS.get(cause) or f"last read {age_s:.1f} s ago"

    def watched(self) -> npt.NDArray[np.bool_]:
        """Return which points were tried and should be there, in the order of `names`.

        A point of a whole SunSpec model that the device does not implement should not.
        """
        with self._lock:
            absent = ~self._in_file & (self._cause == Cause.not_implemented)
            tried: npt.NDArray[np.bool_] = self._cause != Cause.unread
            return np.asarray(tried & ~self._write_only & ~absent)

    def awaited(self) -> set[str]:
        """Return the points that never were good, but that nothing says will not be soon."""
        with self._lock:
            open_ = ~self._bad & np.isneginf(self._good_s) & ~self._write_only
            return {self.names[i] for i in np.flatnonzero(open_).tolist()}

    def current(self, point: str) -> float:
        """Return the value of a point where it is good, else nan."""
        i = self.slot.get(point)
        good = i is not None and self.quality(time.monotonic())[i] == Quality.GOOD
        return float(self._value[i]) if good else np.nan

    def since(self, asked_s: float) -> Callable[[str], float]:
        """Return the reading of each point by its name; nan where none is good and read since."""
        value, good_s, bad, *_ = self.state()
        fresh = np.append(np.where(~bad & (good_s >= asked_s), value, np.nan), np.nan)
        return lambda point: float(fresh[self.slot.get(point, -1)])

    def resolution(self, point: str) -> float:
        """Return the step of a point whose scale factor may change, else 0."""
        i = self.slot[point]
        at = self._sf_slot[i]
        if at < 0 or not abs(self._raw[at]) <= 10:
            return 0.0
        return float(abs(10.0 ** self._raw[at] * self._scale[i]))

    def now_at(self, i: int) -> tuple[Place, float]:
        """Return where a point is, with its scale as it is now, and its scale factor now."""
        at = self._sf_slot[i]
        place = self.places[i]
        if at < 0 and not (place.factor_from or place.sign_from):
            return place, float(self._sf[i])
        raw, value = self._known(time.monotonic())
        if place.factor_from or place.sign_from:
            place = replace(place, scale=place.scale * self._multipliers.of(raw, value)[i])
        return place, float(raw[at] if at >= 0 else self._sf[i])
