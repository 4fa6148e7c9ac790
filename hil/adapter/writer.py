"""Writing to one device: the order of the registers, the read-back, the safe state."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from hil.adapter.audit import AuditLog
from hil.adapter.curves import CurveJob, adopt
from hil.adapter.guard import Decision, Guard, SelfReversion
from hil.adapter.reader import DeviceReader
from hil.devices.codec import decode_one, encode
from hil.devices.errors import DeviceError, GuardError, LinkError, NoReplyError
from hil.devices.places import Place
from hil.devices.points import ReadBack

_SAFE_RETRY_S = 0.25


class DeviceWriter:
    """The write side of one device; everything goes through its guard.

    Parameters
    ----------
    tell : ``tell(device, kind, text)`` makes an event.
    allowed : Returns '' while the adapter may write, else why not (watchdog gone, adapter hung).
    """

    def __init__(
        self,
        reader: DeviceReader,
        guard: Guard,
        audit: AuditLog,
        tell: Callable[[str, str, str], None],
        allowed: Callable[[], str],
    ) -> None:
        self.reader = reader
        self.guard = guard
        self.name = reader.spec.name
        self._record = partial(audit.record, self.name)
        self._tell = tell
        self._allowed = allowed
        self._pending: dict[str, float] = {}
        self._curves: dict[int, CurveJob] = {}
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._urgent = asyncio.Event()  # set while the device must be made safe
        self.safe_why = ""
        self.is_safe = False
        self._making_safe = False
        self.touched = False  # whether anything but safe values was ever sent
        self._count = 0
        self._own_timers = SelfReversion(reader.spec.points)

    # -- called inside the loop -------------------------------------------------------------------

    def put(self, point: str, value: float) -> None:
        """Queue a command; a newer one for the same point replaces it."""
        self._pending[point] = value
        self._awake()

    def put_curve(self, job: CurveJob) -> None:
        """Queue a curve; a newer one for the same model replaces it."""
        self._curves[job.model] = job
        self._awake()

    def _awake(self) -> None:
        self.idle.clear()
        self._wake.set()

    def go_safe(self, why: str) -> None:
        """Bring the device to its safe values, and try until that is done."""
        if not self.guard.armed or self.safe_why:
            return
        self.safe_why = why
        self.is_safe = False
        self._pending.clear()
        self._curves.clear()
        self.guard.forget()
        self._urgent.set()
        self._tell(self.name, "safe", why)
        self._awake()

    async def run(self) -> None:
        """Work off commands until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._work()
            except DeviceError as error:  # the guard's own refusals were recorded where they rose
                self._tell(self.name, "failed", str(error))
            if self.safe_why:
                asyncio.get_running_loop().call_later(_SAFE_RETRY_S, self._wake.set)
            elif not self._wake.is_set():
                self.idle.set()

    async def _work(self) -> None:
        if self.safe_why:
            await self._make_safe()
        while self._pending and not self.safe_why:
            point = next(iter(self._pending))
            await self._command(point, self._pending.pop(point))
        while self._curves and not self.safe_why:
            await self._curve(self._curves.pop(next(iter(self._curves))))

    # -- commands ---------------------------------------------------------------------------------

    async def _command(self, point: str, asked: float) -> None:
        try:
            await self.reader.prepare()
        except DeviceError as error:
            self._refuse(point, asked, f"the device cannot be reached: {error.what}")
            return
        now = time.monotonic()
        stop = self._stopped()
        if stop:
            self._refuse(point, asked, stop)
            return
        decision = self.guard.decide(point, asked, now, self.reader.current(point))
        if decision.verdict == "unsafe":
            self._refuse(point, asked, decision.why)
            self.go_safe(f"{point}: {decision.why}")
        elif decision.verdict == "refused":
            self._refuse(point, asked, decision.why)
        elif decision.writes:
            await self._attempt(point, asked, decision)

    def _refuse(self, point: str, asked: float, why: str) -> None:
        self._record(point, verdict="refused", asked=asked, why=why)
        self._tell(self.name, "refused", f"{point} = {asked:g}: {why}")

    async def _attempt(self, point: str, asked: float, decision: Decision) -> None:
        """Write and verify; again after a failure, a few times or until a fault is latched."""
        for _ in range(self.guard.spec.guard.readback_failures):
            if self.safe_why or point in self._pending:
                return  # a newer command is the next try
            self.is_safe = False
            lost = False
            sent = back = math.nan
            try:
                sent, back = await self._write_point(point, decision.value)
                failure = self._mismatch(point, sent, back)
            except GuardError:
                return
            except DeviceError as error:
                failure, lost = error.what, isinstance(error, (NoReplyError, LinkError))
            if not failure:
                self.guard.sent(point, decision.value, time.monotonic())
                self._written(point, asked, sent, back, decision)
                return
            values = {"asked": asked, "sent": sent, "read_back": back}
            self._record(point, verdict="failed", why=failure, **values)
            self._tell(self.name, "failed", f"{point} = {asked:g}: {failure}")
            if self.guard.failed(point, failure, lost=lost):
                self.latch(f"{point}: {failure}")
                return

    def _written(
        self, point: str, asked: float, sent: float, back: float, decision: Decision
    ) -> None:
        verdict, why = decision.verdict, decision.why or "command"
        self._record(point, verdict=verdict, why=why, asked=asked, sent=sent, read_back=back)
        if decision.verdict != "written":
            text = f"{point} = {asked:g}: {sent:g} was sent, {decision.why}"
            self._tell(self.name, decision.verdict, text)

    def latch(self, why: str) -> None:
        """Latch a fault and go to the safe state."""
        self.guard.latch(why)
        self._record("", verdict="fault", why=why)
        self._tell(self.name, "fault", why)
        self.go_safe(f"fault: {why}")

    def _mismatch(self, point: str, sent: float, back: float) -> str:
        tolerance = (self._readback(point).tolerance) + 1e-9 * max(1.0, abs(sent))
        if abs(back - sent) <= tolerance:
            return ""
        return f"read back {back:g}, sent was {sent:g}"

    def _readback(self, point: str) -> ReadBack:
        return self.reader.spec.points[point].readback or ReadBack()

    async def _write_point(self, point: str, value: float) -> tuple[float, float]:
        """Write reversion, set-point and enable in this order; return (sent, read back)."""
        spec = self.reader.spec.points[point]
        await self.reader.prepare()
        if spec.reversion is not None:
            for write in spec.reversion.before:
                await self.write_value(write.point, write.value, "reversion value")
            await self.write_value(spec.reversion.point, spec.reversion.seconds, "reversion timer")
        low, high = self.guard.limits(point)
        if stop := self._stopped():
            raise GuardError(stop)
        sent = await self._send(point, value, low=low, high=high)
        for write in spec.enable:
            await self.write_value(write.point, write.value, "enable")
        readback = self._readback(point)
        await self._pause(readback.delay_s)
        return sent, await self.read_value(readback.point or point)

    async def _pause(self, delay_s: float) -> None:
        """Wait, but not when the device must be made safe."""
        if delay_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), delay_s)

    async def write_value(self, point: str, value: float, why: str) -> None:
        """Write one of the guard's own points and record it."""
        stop = self._stopped()
        if stop:
            raise GuardError(stop)
        sent = await self._send(point, value)
        self._record(point, verdict="written", asked=value, sent=sent, why=why)

    async def _send(
        self, point: str, value: float, *, low: float = -math.inf, high: float = math.inf
    ) -> float:
        place, sf = self.reader.place(point)
        words, sent = encode(place, value, sf=sf, low=low, high=high)
        self.touched = self.touched or not self._making_safe
        link = self.reader.link
        await link.write(self.reader.unit, self._function(point, place), place.address, words)
        return sent

    def _stopped(self) -> str:
        """Say why an ordinary write may not go out any more; '' where it may."""
        return f"safe state: {self.safe_why}" if self.safe_why else self._allowed()

    def _function(self, point: str, place: Place) -> int:
        spec = self.reader.spec.points.get(point)
        # Without an entry in the device file it is a point of a whole SunSpec model.
        return 16 if spec is None else spec.function(bits=place.is_bit, words=place.words)

    async def read_value(self, point: str) -> float:
        """Read one point now; nan where it is not implemented."""
        if self.safe_why and not self._making_safe:
            raise GuardError(f"safe state: {self.safe_why}")
        place, sf = self.reader.place(point)
        data = await self.reader.link.read(
            self.reader.unit, place.table, place.address, place.words
        )
        if place.is_bit:
            return float(data[0] & 1)
        words = [data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)]
        return decode_one(place, words, sf=sf)

    # -- curves -----------------------------------------------------------------------------------

    async def _curve(self, job: CurveJob) -> None:
        stop = self._allowed()
        name = f"{job.model}.Crv"
        if stop:
            self._record(name, verdict="refused", why=stop)
            self._tell(self.name, "refused", f"{name}: {stop}")
            return
        self.is_safe = False
        try:
            await adopt(self.reader, job, self.write_value, self.read_value)
        except DeviceError as error:
            self._record(name, verdict="failed", asked=str(job.xy), why=error.what)
            self._tell(self.name, "failed", f"{name}: {error}")
            if self.guard.failed_curve(job.model):
                self.latch(f"{name}: {error.what}")
            return
        why = "curve adopted and verified"
        self._record(name, verdict="written", why=why, asked=str(job.xy))

    # -- safe state -------------------------------------------------------------------------------

    async def _make_safe(self) -> None:
        self._making_safe = True
        try:
            await self._write_safe_values()
        finally:
            self._making_safe = False

    async def _write_safe_values(self) -> None:
        """Write every safe value, verified; limits of step and rate do not hold here."""
        why = self.safe_why
        failure = ""
        for point, value in self.guard.safe_values():
            failure = await self._make_point_safe(point, value, why) or failure
        for model, curve in self.reader.spec.curves.items():
            if curve.safe:
                failure = await self._make_curve_safe(model, curve.safe) or failure
        if failure:
            self.reader.last_error = failure
        else:
            self._done_safe()

    def _done_safe(self) -> None:
        self.safe_why = ""
        self._urgent.clear()
        self._own_timers.clear()
        self.is_safe = True

    async def _make_point_safe(self, point: str, value: float, why: str) -> str:
        sent = back = math.nan
        try:
            await self.reader.prepare()
            readback = self._readback(point)
            if self._own_timers.leaves_alone(point, time.monotonic()):
                back = await self.read_value(readback.point or point)
                if failure := self._mismatch(point, value, back):
                    return failure
                why = f"{why}, by the device's own timer"
            else:
                sent = await self._send(point, value)
                for write in self.reader.spec.points[point].enable:
                    await self._send(write.point, write.value)
                if readback.delay_s:
                    await asyncio.sleep(readback.delay_s)
                back = await self.read_value(readback.point or point)
                failure = self._mismatch(point, sent, back)
                self._own_timers.note(point, wrong=bool(failure), now_s=time.monotonic())
        except DeviceError as error:
            failure = error.what
        verdict = "failed" if failure else "safe"
        why = f"safe state ({why})" + (f": {failure}" if failure else "")
        self._record(point, verdict=verdict, why=why, asked=value, sent=sent, read_back=back)
        return failure

    async def _make_curve_safe(self, model: int, xy: Sequence[tuple[float, float]]) -> str:
        job = CurveJob(model, tuple(xy), {}, self.reader.spec.curves[model])
        try:
            await adopt(self.reader, job, self._write_safe, self.read_value)
        except DeviceError as error:
            return error.what
        return ""

    async def _write_safe(self, point: str, value: float, why: str) -> None:
        sent = await self._send(point, value)
        why = f"safe state ({self.safe_why}): {why}"
        self._record(point, verdict="safe", why=why, asked=value, sent=sent)

    # -- heartbeat --------------------------------------------------------------------------------

    async def beat(self) -> None:
        """Count the device's heartbeat point up by one."""
        point = self.reader.spec.guard.heartbeat_point
        if point is None or not self.guard.armed or self.guard.fault or self.safe_why:
            return
        self._count = (self._count + 1) % 60000
        try:
            await self.write_value(point, float(self._count), "heartbeat")
        except DeviceError as error:
            self._tell(self.name, "failed", f"heartbeat: {error.what}")

    # -- what the watchdog must know --------------------------------------------------------------

    def safe_plan(self) -> list[list[Any]]:
        """Return [function, address, [registers]] of the writes that make the device safe."""
        plan: list[list[Any]] = []
        for point, value in self.guard.safe_values():
            steps = [(point, value)]
            steps += [(w.point, w.value) for w in self.reader.spec.points[point].enable]
            for name, number in steps:
                place, sf = self.reader.place(name)
                words, _ = encode(place, number, sf=sf)
                plan.append([self._function(name, place), place.address, words, name, number])
        return plan
