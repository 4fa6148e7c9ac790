"""Reading one device: which requests fetch its points, and what is known of each value now."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace

import numpy as np

from hil.adapter.model_check import ModelCheck
from hil.adapter.plan import Block, PollPlan, Target, plan_blocks
from hil.adapter.point_states import Listed, PointStates
from hil.adapter.sunspec import SunSpecMap, label_of, scan
from hil.devices.codec import sf_factor
from hil.devices.errors import (
    DeviceError,
    ExchangeError,
    LinkError,
    NoReplyError,
    NotNowError,
    RefusedError,
    WrongReplyError,
    is_transient,
)
from hil.devices.places import Place, as_in_file, in_order, place_of
from hil.devices.points import PointSpec
from hil.devices.spec import DeviceSpec
from hil.devices.sunspec_models import text_of
from hil.modbus.client import ModbusClient
from hil.modbus.pdu import unpack

_SILENT_LIMIT = 2
"""Reads without a reply, one after the other, that end a poll: the device is away."""
_REFUSED_LIMIT = 16
"""Refused reads that end a poll, so that splitting large blocks takes several polls."""
_SCAN_PAUSE_S = 5.0  # longest pause between two scans that fail
Received = list[tuple[Block, bytes]]


class DeviceReader(PointStates):
    """The points of one device, how they are fetched, and their values with quality and age."""

    def __init__(self, spec: DeviceSpec, link: ModbusClient) -> None:
        super().__init__(spec)
        self.link = link
        self.map: SunSpecMap | None = None
        self.texts: dict[str, str] = {}
        self.text_reasons: dict[str, str] = {}
        self.last_error = ""
        self.scans = 0
        self._preparing = asyncio.Lock()
        self._polling = asyncio.Lock()
        self._plans: dict[float, PollPlan] = {}
        self._heard_s = -math.inf
        self._is_sunspec = spec.has_sunspec
        self._ready = not self._is_sunspec
        self._scan_error: DeviceError | None = None
        self._scan_pause_s = self._next_scan_s = 0.0
        self._scanned_s = -math.inf
        self._check = ModelCheck(link, self.unit, self._map_moved)
        self._unread = {
            name: place for name, p in spec.points.items()
            if p.type == "string" and (place := self._plain_place(p)) is not None
        }  # fmt: skip
        # Points of the file have their places from the start, even before a scan.
        self._set_points(
            [
                Listed(n, self._plain_place(p), p, p.sunspec or "")
                for n, p in spec.points.items()
                if p.type != "string"
            ]
        )

    @property
    def unit(self) -> int:
        """Modbus unit id."""
        return self.spec.connection.unit

    @property
    def periods_s(self) -> list[float]:
        """Poll periods of the device, in seconds; known before the scan."""
        periods = {p.poll_s or self.spec.poll_s for p in self.spec.points.values()}
        return sorted(periods | ({self.spec.poll_s} if self.spec.sunspec else set()))

    # -- layout ---------------------------------------------------------------------------------

    def _plain_place(self, point: PointSpec) -> Place | None:
        place, base = place_of(point), self.spec.connection.base_address
        if place is None:
            return None
        if point.type == "string":
            place = replace(place, words=point.length)
        words = tuple(w + base for w in place.word_addresses)
        return replace(place, address=place.address + base, word_addresses=words)

    def _set_points(self, listed: list[Listed]) -> None:
        self.lay_out(listed, self.map.factors if self.map else {})
        self._listed = listed
        self._plan_all()

    def _plan_all(self) -> None:
        models = {m.label: m for m in self.map.models} if self.map else {}
        targets: dict[float, list[Target]] = {}
        for i, (_, place, _, model) in enumerate(self._listed):
            if place is not None and not self._write_only[i]:
                target = Target(place, i, models.get(model))
                targets.setdefault(float(self._period[i]), []).append(target)
        connection = self.spec.connection
        self._plans = {p: PollPlan(plan_blocks(t, connection)) for p, t in sorted(targets.items())}

    async def prepare(self) -> None:
        """Scan for SunSpec models, once after the device was away; after a failure not at once."""
        if self._prepared:
            return
        async with self._preparing:
            if not self._prepared:
                await self._prepare()

    async def _prepare(self) -> None:
        if self._scan_error is not None and time.monotonic() < self._next_scan_s:
            raise self._scan_error.with_traceback(None)
        try:
            await self._scan()
        except (LinkError, NoReplyError):
            raise  # the link has a back-off of its own
        except DeviceError as error:
            pause_s = max(2.0 * self._scan_pause_s, min(self.spec.poll_s, 0.5))
            self._scan_pause_s = min(pause_s, _SCAN_PAUSE_S)
            self._next_scan_s = time.monotonic() + self._scan_pause_s
            self._scan_error = error
            raise
        self._scan_error, self._scan_pause_s = None, 0.0

    @property
    def _prepared(self) -> bool:
        # A SunSpec device that was away for long may come back with another map.
        away = self._is_sunspec and self.silent_s >= self.spec.bad_limit_s()
        return self._ready and not away

    async def _scan(self) -> None:
        spec, connection = self.spec, self.spec.connection
        found = await scan(
            self.link,
            self.unit,
            wanted={*spec.sunspec, *spec.curves},
            also={label_of(p.sunspec)[1] for p in spec.points.values() if p.sunspec},
            max_registers=connection.max_registers,
            base=connection.sunspec_base,
        )
        self.map = found
        self.texts.update(found.identity)
        self._set_points(self._found_points(found))
        for i, (_, place, point, _) in enumerate(self._listed):
            if place is None and point is not None:
                self.fail(np.array([i]), f"the device has no {point.sunspec}", bad=True)
        self.heard()
        self._scanned_s = time.monotonic()
        self.scans += 1
        self._ready = True

    def _found_points(self, found: SunSpecMap) -> list[Listed]:
        """Return the points of the file, then those of whole models and the factors in use."""
        listed = []
        for name, point in self.spec.points.items():
            if point.sunspec is None:
                if point.type != "string":
                    listed.append(Listed(name, self._plain_place(point), point))
                continue
            known = found.points.get(point.sunspec)
            place = None if known is None else as_in_file(known.place, point)
            if place is not None and place.kind == "string":
                self._unread[name] = place
                continue
            listed.append(Listed(name, place, point, label_of(point.sunspec)[0]))
        used = {p.place.sf for p in listed if p.place is not None and isinstance(p.place.sf, str)}
        # What is not there now may come: it is read with the values from then on.
        read = {
            f for f in used & found.factors.keys()
            if not found.points[f].static or math.isnan(sf_factor(found.factors[f]))
        }  # fmt: skip
        for name, known in found.points.items():
            label, model = label_of(name)
            in_whole = model in self.spec.sunspec and known.place.kind != "string"
            if (in_whole or name in read) and name not in self.spec.points:
                listed.append(Listed(name, known.place, None, label))
        return listed

    async def _read_texts(self) -> None:
        """Read the text points that were not read yet."""
        for name, place in list(self._unread.items()):
            try:
                data = await self.link.read(self.unit, place.table, place.address, place.words)
            except ExchangeError as error:
                self.text_reasons[name] = error.what
                if isinstance(error, (LinkError, NoReplyError)):
                    return
                if isinstance(error, RefusedError) and not is_transient(error):
                    self._unread.pop(name, None)  # another poll may have read it
                continue
            words = unpack(place.table, place.words, data)
            self.texts[name] = text_of(in_order(words, place.word_order, place.byte_order))
            self.text_reasons.pop(name, None)
            self._unread.pop(name, None)  # another poll may have read it
            self.heard()

    # -- reading --------------------------------------------------------------------------------

    async def poll(self, period_s: float | None = None) -> bool:
        """Read the points of one period (default all); return True where every read was good.

        One poll at a time: a second one would find the blocks that this one is splitting.
        """
        async with self._polling:
            return await self._poll(period_s)

    async def _poll(self, period_s: float | None) -> bool:
        good = True
        try:
            await self.prepare()
        except DeviceError as error:
            self.last_error = error.what
            if isinstance(error, (LinkError, NoReplyError)):
                self.fail(slice(None), error.what, bad=False)
                return False
            good = False
            slots = np.flatnonzero(self._of_model != "")
            self.fail(slots, error.what, bad=not is_transient(error))
        self._look_for_reconnect()
        for period in list(self._plans) if period_s is None else [period_s]:
            if period in self._plans:
                good = await self._poll_plan(self._plans[period], period_s is None) and good
        if self._unread:
            await self._read_texts()
        return good

    def _look_for_reconnect(self) -> None:
        """Try split blocks whole again on a new connection: the device may have been mended."""
        now = self.link.stats.connects
        split = any(plan.split_on not in (None, now) for plan in self._plans.values())
        if split and not self.spec.connection.close_after_poll:
            self._plan_all()

    async def _poll_plan(self, plan: PollPlan, everything: bool) -> bool:
        layout, good, silent, refused = self._layout, True, 0, 0
        received: Received = []
        queue = plan.begin(everything=everything)
        while queue and silent < _SILENT_LIMIT and refused < _REFUSED_LIMIT:
            block = queue.pop(0)
            asked = block.request
            try:
                data = await self.link.read(self.unit, asked.table, asked.address, asked.count)
            except ExchangeError as error:
                if layout != self._layout:
                    return False
                good = False
                silent = silent + 1 if isinstance(error, NoReplyError) else 0
                refused += isinstance(error, RefusedError)
                queue[:0] = self._not_read(plan, block, error)
                if isinstance(error, (LinkError, WrongReplyError)):
                    break  # there is no connection any more
            else:
                silent = 0
                block.answered()
                received.append((block, data))
            if layout != self._layout:  # scanned meanwhile: slots and places are others
                return False
        for block in queue:
            self.fail(block.slots, self.last_error, bad=False)
        if queue:
            plan.not_reached(queue[0])
        good = await self._accept(received) and good
        if any(block in plan.absent for block, _ in received):
            self._plan_all()  # it is there again, so others may be, too
        return good

    def _not_read(self, plan: PollPlan, block: Block, error: ExchangeError) -> list[Block]:
        """Note why a block was not read; return the parts of it to read now."""
        self.last_error = error.what
        if isinstance(error, RefusedError) and is_transient(error):
            block.put_off()
        refused = isinstance(error, RefusedError) and not is_transient(error)
        # A wrong or refused read makes its values bad at once; a lost one lets them age.
        self.fail(block.slots, error.what, bad=refused or isinstance(error, WrongReplyError))
        return plan.refused(block, self.link.stats.connects) if refused else []

    async def _accept(self, received: Received) -> bool:
        """Take what was read, where the models still are where the scan found them."""
        layout, doubt = self._layout, ""
        try:
            await self._check.after_poll(received)
        except DeviceError as error:
            doubt = self.last_error = error.what
        if layout != self._layout:
            return False
        taken = []
        for block, data in received:
            if doubt and block.models:
                self.fail(block.slots, doubt, bad=False)
            elif block.slots.size:
                taken.append((block, data))
        if taken:
            self.heard()
            raw = [block.raw(data) for block, data in taken]
            self.take(np.concatenate([block.slots for block, _ in taken]), np.concatenate(raw))
        return not doubt

    async def verify_model(self, point: str) -> None:
        """Check before a write that the SunSpec model of a point is where the scan found it.

        Raises NotNowError: It is not; the next `prepare` scans again.
        Raises ExchangeError: The header of the model could not be read.
        """
        spec = self.spec.points.get(point)
        label, _ = label_of((spec and spec.sunspec) or point)
        for model in self.map.models if self.map else ():
            if model.label == label:
                await self._check.before_write(model)

    def _map_moved(self, why: str) -> None:
        self._ready = False
        self.last_error = why
        self.fail(np.flatnonzero(self._of_model != ""), why, bad=True)

    # -- asking ---------------------------------------------------------------------------------

    def heard(self) -> None:
        """Note a usable reply."""
        self._heard_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the device gave a usable reply."""
        return time.monotonic() - self._heard_s

    def place(self, point: str) -> tuple[Place, float]:
        """Return where a point is and its scale factor now.

        Raises NotNowError: The device was not scanned yet.
        Raises DeviceError: The device does not have the point.
        """
        where = f"{self.spec.name}.{point}"
        if not self._ready:
            raise NotNowError("the device was not scanned yet", where=where)
        if point in self.slot:
            i = self.slot[point]
            if self._listed[i].place is None:
                raise DeviceError(self.reasons()[point], where=where)
            return self.now_at(i)
        if self.map is not None and point in self.map.points:
            place = self.map.points[point].place
            sf = place.sf
            factor = self.map.factors.get(sf, math.nan) if isinstance(sf, str) else float(sf or 0)
            if math.isnan(sf_factor(factor)) and time.monotonic() - self._scanned_s > _SCAN_PAUSE_S:
                self._ready = False  # it may be there by now
            return place, factor
        raise DeviceError("no such point", where=where)

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
