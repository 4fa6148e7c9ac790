"""Reading one device: which requests fetch its points, and what is known of each value now."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hil.adapter.snapshot import Snapshot
from hil.adapter.sunspec import SunSpecMap, scan
from hil.devices.codec import BlockCodec, Request, plan_requests, times_power
from hil.devices.errors import (
    DeviceError,
    ExchangeError,
    LinkError,
    NoReplyError,
    RefusedError,
    ScanError,
    WrongReplyError,
)
from hil.devices.places import Place, as_in_file, in_order, place_of
from hil.devices.points import PointSpec, Quality
from hil.devices.spec import DeviceSpec
from hil.devices.sunspec_models import text_of
from hil.modbus.client import ModbusClient

FloatArray = npt.NDArray[np.float64]
Listed = tuple[str, Place | None, PointSpec | None]
_FINITE = (-sys.float_info.max, sys.float_info.max)
_BUSY = (5, 6)
"""Modbus exceptions that ask for another try later."""


@dataclass
class _Block:
    """One read and the slots that it fills."""

    request: Request
    slots: npt.NDArray[np.intp]
    codec: BlockCodec | None  # None for bits

    def raw(self, data: bytes, places: list[Place]) -> FloatArray:
        """Return the raw values of the slots."""
        if self.codec is not None:
            return self.codec.raw(data)
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        first = self.request.address
        return np.array([float(bits[places[s].address - first]) for s in self.slots])


class DeviceReader:
    """The points of one device, how they are fetched, and their values with quality and age."""

    def __init__(self, spec: DeviceSpec, link: ModbusClient) -> None:
        self.spec = spec
        self.link = link
        self.generation = 0
        self.map: SunSpecMap | None = None
        self.texts: dict[str, str] = {}
        self.last_error = ""
        self.scans = 0
        self._lock = threading.Lock()
        self._preparing = asyncio.Lock()
        self._blocks: dict[float, list[_Block]] = {}
        self._heard_s = -math.inf
        self._ready = False
        self._lay_out(self._plain_places())
        # Points of the file have their places from the start, even before a scan.
        self._ready = not spec.has_sunspec and not self._text_points()

    @property
    def unit(self) -> int:
        """Modbus unit id."""
        return self.spec.connection.unit

    @property
    def periods_s(self) -> list[float]:
        """Poll periods of the device, in seconds; known before the scan."""
        periods = {p.poll_s or self.spec.poll_s for p in self.spec.points.values()}
        return sorted(periods | ({self.spec.poll_s} if self.spec.sunspec else set()))

    def _plain_places(self) -> list[Listed]:
        return [(n, place_of(p), p) for n, p in self.spec.points.items() if p.type != "string"]

    def _text_points(self) -> list[tuple[str, PointSpec]]:
        return [(n, p) for n, p in self.spec.points.items() if p.type == "string"]

    # -- layout ---------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Scan for SunSpec models and read the texts, once after the device was away."""
        if self._prepared:
            return
        async with self._preparing:
            if not self._prepared:
                await self._prepare()

    @property
    def _prepared(self) -> bool:
        # A SunSpec device that was away for long may come back with another map.
        away = self.spec.has_sunspec and self.silent_s >= self.spec.bad_limit_s()
        return self._ready and not away

    async def _prepare(self) -> None:
        for name, point in self._text_points():
            if point.table is not None and point.address is not None:
                data = await self.link.read(self.unit, point.table, point.address, point.length)
                words = [data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)]
                self.texts[name] = text_of(in_order(words, point.word_order, point.byte_order))
        if self.spec.has_sunspec:
            wanted = _wanted_models(self.spec)
            limit = self.spec.connection.max_registers
            self.map = await scan(self.link, self.unit, wanted=wanted, max_registers=limit)
            self.texts.update(self.map.identity)
            self._lay_out(self._mapped_places(self.map))
        self._heard_s = time.monotonic()
        self.scans += 1
        self._ready = True

    def _mapped_places(self, found: SunSpecMap) -> list[Listed]:
        places: list[Listed] = []
        for name, point in self.spec.points.items():
            if point.type == "string":
                continue
            place = place_of(point)
            if point.sunspec is not None:
                if point.sunspec not in found.points:
                    raise ScanError(
                        f"the device does not have {point.sunspec}",
                        where=f"{self.spec.name}.{name}",
                    )
                model_place = found.points[point.sunspec].place
                place = as_in_file(model_place, point)
            places.append((name, place, point))
        whole = {str(m) for m in self.spec.sunspec}
        factors = {p.place.sf for p in found.points.values() if isinstance(p.place.sf, str)}
        used = {p.sf for _, p, _ in places if p is not None and isinstance(p.sf, str)}
        moving = {f for f in factors & used if not found.points[f].static}
        for name, known in found.points.items():
            model = name.partition(".")[0].partition("#")[0]
            in_whole = model in whole and known.place.kind != "string"
            if (in_whole or name in moving) and name not in self.spec.points:
                places.append((name, known.place, None))
        return places

    def _lay_out(self, listed: list[Listed]) -> None:
        names = [name for name, _, _ in listed]
        places = [place or Place("holding", 0, "uint16") for _, place, _ in listed]
        n = len(names)
        slot = {name: i for i, name in enumerate(names)}
        period = [(p.poll_s if p else None) or self.spec.poll_s for _, _, p in listed]
        plausible = [p.plausible if p and p.plausible else _FINITE for _, _, p in listed]
        with self._lock:
            if getattr(self, "names", None) != names:
                self.generation += 1
                self.names = names
                self._value = np.full(n, np.nan)
                self._good_s = np.full(n, -np.inf)
                self._bad = np.zeros(n, dtype=bool)
            self.slot = slot
            self.places = places
            self._raw = np.full(n, np.nan)
            self._scale = np.array([p.scale for p in places])
            self._offset = np.array([p.offset for p in places])
            self._low = np.array([low for low, _ in plausible])
            self._high = np.array([high for _, high in plausible])
            self._stale_limit = np.array([self.spec.stale_limit_s(p) for p in period])
            self._bad_limit = np.array([self.spec.bad_limit_s(p) for p in period])
            self._set_factors(places)
        usable = [i for i, (_, place, _) in enumerate(listed) if place is not None]
        self._blocks = {
            p: self._plan([i for i in usable if period[i] == p]) for p in sorted(set(period))
        }

    def _set_factors(self, places: list[Place]) -> None:
        found = self.map
        self._sf_slot = np.full(len(places), -1)
        self._sf = np.zeros(len(places))
        for i, place in enumerate(places):
            if isinstance(place.sf, str):
                self._sf[i] = found.factors.get(place.sf, np.nan) if found else np.nan
                self._sf_slot[i] = self.slot.get(place.sf, -1)
            elif place.sf is not None:
                self._sf[i] = place.sf
        self._scaled = bool(np.any(self._sf != 0) or np.any(self._sf_slot >= 0))

    def _plan(self, members: list[int]) -> list[_Block]:
        connection = self.spec.connection
        # Inside a SunSpec map every register is there, so any gap may be read over.
        gap = 124 if self.spec.has_sunspec else connection.max_gap
        places = [self.places[i] for i in members]
        requests = plan_requests(places, max_registers=connection.max_registers, max_gap=gap)
        blocks = []
        for request in requests:
            slots = np.array([members[i] for i in request.members], dtype=np.intp)
            inside = [self.places[s] for s in slots]
            bits = request.table in ("coil", "discrete")
            codec = None if bits else BlockCodec(inside, request.address, request.count)
            blocks.append(_Block(request, slots, codec))
        return blocks

    # -- reading --------------------------------------------------------------------------------

    async def poll(self, period_s: float | None = None) -> bool:
        """Read the points of one period (default all); return True where every read was good."""
        try:
            await self.prepare()
        except DeviceError as error:
            self._note(error, slice(None))
            return False
        good = True
        received: list[npt.NDArray[np.intp]] = []
        periods = self._blocks if period_s is None else (period_s,)
        for block in [b for p in periods for b in self._blocks.get(p, [])]:
            request = block.request
            try:
                data = await self.link.read(
                    self.unit, request.table, request.address, request.count
                )
            except (RefusedError, WrongReplyError) as error:
                good = False
                self._note(error, block.slots)
                if isinstance(error, WrongReplyError):
                    break
                continue
            except ExchangeError as error:
                good = False
                self._note(error, None)
                break  # the other reads would time out, too
            self._raw[block.slots] = block.raw(data, self.places)
            received.append(block.slots)
        if received:
            self._take(np.concatenate(received))
        return good

    def _note(self, error: DeviceError, slots: npt.NDArray[np.intp] | slice | None) -> None:
        """Remember an error; a wrong or refused read makes its values bad at once."""
        self.last_error = error.what
        if isinstance(error, RefusedError) and error.code in _BUSY:
            return
        lost = isinstance(error, (NoReplyError, LinkError))
        if slots is not None and not lost:
            with self._lock:
                self._bad[slots] = True

    def _take(self, slots: npt.NDArray[np.intp]) -> None:
        """Turn the raw values of `slots` into values; what is not there is bad."""
        raw = self._raw[slots]
        if self._scaled:
            pointer = self._sf_slot[slots]
            sf = np.where(pointer >= 0, self._raw[pointer], self._sf[slots])
            raw = times_power(raw, sf)
        with np.errstate(over="ignore"):  # too large is infinite, and so not good
            value = raw * self._scale[slots] + self._offset[slots]
        ok = (value >= self._low[slots]) & (value <= self._high[slots])  # nan is never ok
        now = time.monotonic()
        self._heard_s = now
        with self._lock:
            self._bad[slots] = ~ok
            kept = slots[ok]
            self._value[kept] = value[ok]
            self._good_s[kept] = now

    # -- asking ---------------------------------------------------------------------------------

    def state(self) -> tuple[npt.NDArray[Any], ...]:
        """Return value, time of the last good value, bad, stale limit, bad limit of each point.

        In the order of `names`; copies where they may change.
        """
        with self._lock:
            now = self._value.copy(), self._good_s.copy(), self._bad.copy()
            return *now, self._stale_limit, self._bad_limit

    def current(self, point: str) -> float:
        """Return the value of a point where it is good, else nan."""
        state, i = self.state(), self.slot.get(point)
        quality, _ = Snapshot.judge(time.monotonic(), state)
        return float(state[0][i]) if i is not None and quality[i] == Quality.GOOD else math.nan

    def heard(self) -> None:
        """Note a usable reply to a request of the writer."""
        self._heard_s = time.monotonic()

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

    def same_place(self, point: str) -> set[str]:
        """Return the points that are read from the registers of a point."""
        place, _ = self.place(point)
        return {
            name
            for name, other in zip(self.names, self.places, strict=True)
            if other.table == place.table
            and other.address < place.end
            and place.address < other.end
        }

    @property
    def moving_factors(self) -> bool:
        """Return True where scale factors are read with the values, because they may change."""
        return bool(np.any(self._sf_slot >= 0))

    @property
    def silent_s(self) -> float:
        """Seconds since the device gave a usable reply."""
        return time.monotonic() - self._heard_s

    def all_bad(self, now_s: float) -> bool:
        """Return True where no point is better than bad."""
        return bool(np.all(Snapshot.judge(now_s, self.state())[0] == Quality.BAD))

    def place(self, point: str) -> tuple[Place, float]:
        """Return where a point is and its scale factor now.

        Raises DeviceError: The device was not scanned yet.
        """
        if not self._ready:
            raise DeviceError("the device was not scanned yet", where=f"{self.spec.name}.{point}")
        if point in self.slot:
            i = self.slot[point]
            at = self._sf_slot[i]
            return self.places[i], float(self._raw[at] if at >= 0 else self._sf[i])
        if self.map is not None and point in self.map.points:
            place = self.map.points[point].place
            sf = place.sf
            factor = self.map.factors.get(sf, math.nan) if isinstance(sf, str) else float(sf or 0)
            return place, factor
        raise DeviceError("no such point", where=f"{self.spec.name}.{point}")


def _wanted_models(spec: DeviceSpec) -> set[int]:
    named = {p.sunspec for p in spec.points.values() if p.sunspec}
    return {
        *spec.sunspec,
        *spec.curves,
        *(int(n.partition(".")[0].partition("#")[0]) for n in named),
    }
