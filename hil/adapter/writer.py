"""Writing to one device: which command is written when, and what follows when it does not hold."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from hil.adapter.access import PointAccess
from hil.adapter.audit import AuditLog
from hil.adapter.curve_writer import CurveWriter
from hil.adapter.curves import CurveJob
from hil.adapter.guard import Decision, Guard
from hil.adapter.heartbeat import Heartbeat
from hil.adapter.held import Change, HeldValues
from hil.adapter.orders import Order, Orders
from hil.adapter.reader import DeviceReader
from hil.adapter.safe import MOST_RETRY_S, SafeState
from hil.adapter.sequence import Write, command_requests
from hil.devices.errors import DeviceError, GuardError, LinkError, NoReplyError, is_transient


class DeviceWriter:
    """The write side of one device; everything goes through its guard.

    Parameters
    ----------
    tell : ``tell(device, kind, text)`` makes an event.
    allowed : Returns '' while the adapter may write, else why not (watchdog gone, adapter hung).
    watched : Returns '' once the watchdog knows how to make the device safe, else why not.
    """

    def __init__(
        self,
        reader: DeviceReader,
        guard: Guard,
        audit: AuditLog,
        tell: Callable[[str, str, str], None],
        allowed: Callable[[], str],
        watched: Callable[[], str] = lambda: "",
    ) -> None:
        self.reader = reader
        self.guard = guard
        self.name = reader.spec.name
        self._record = partial(audit.record, self.name)
        self._tell = partial(tell, self.name)
        self._allowed, self._watched = allowed, watched
        self._access = PointAccess(reader)
        self._held = HeldValues(reader.spec)
        self._safe = SafeState(self._access, guard, self._held, self._record)
        self.not_safe, self.safe_plan = self._safe.unverified, self._safe.plan
        self._curve_writer = CurveWriter(
            self._access, guard, self._held, self._record, self._tell, self._stopped
        )
        self._heartbeat = Heartbeat(self._access)
        self._orders = Orders(guard.spec.guard.input_limit_s / 4.0)
        self._curves: dict[int, CurveJob] = {}
        self._safe_again = Orders(MOST_RETRY_S)  # points that left their safe value
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._urgent = asyncio.Event()  # set while the device must be made safe
        self.safe_why = ""
        self._at_safe = False
        self.touched = False
        """Whether a command was ever sent; a device without one is left as it is."""
        self._told_left = False

    def put(self, point: str, value: float) -> None:
        """Queue a command; a newer one for the same point replaces it."""
        self._queue(point, Order(value))

    def put_curve(self, job: CurveJob) -> None:
        """Queue a curve; a newer one for the same model replaces it."""
        self._curves[job.model] = job
        self._awake()

    def _queue(self, point: str, order: Order) -> None:
        self._orders.waiting[point] = order
        self._awake()

    def _awake(self) -> None:
        self.idle.clear()
        self._wake.set()

    @property
    def is_safe(self) -> bool:
        """Return True where every safe value was verified and no command came since."""
        return self._at_safe and not self._safe_again.waiting

    @property
    def left_alone(self) -> bool:
        """Return True where nothing was ever sent, and nothing is to be sent now."""
        return not self.touched and not self.safe_why

    def not_commanded(self) -> Mapping[str, str]:
        """Return why, by point, for points that do not stand at their command."""
        late = {point: delay.why for point, delay in dict(self._orders.delays).items()}
        return late | self.guard.handed_over

    def go_safe(self, why: str, *, always: bool = False) -> None:
        """Bring the device to its safe values, and try until that is done.

        A device that was never commanded is left as it is, unless `always`.
        """
        if not self.guard.armed:
            return
        self._orders.clear()
        self._curves.clear()
        self._safe_again.clear()
        self._held.clear()
        self.guard.forget()
        self._awake()
        if self.safe_why:
            self._safe.begin()  # without the rest of the pause
            return
        if not (self.touched or always):
            self._leave(why)
            return
        self.safe_why = why
        self._at_safe = False
        self._safe.begin()
        self._urgent.set()
        self._tell("safe", why)

    def _leave(self, why: str) -> None:
        if self._told_left:
            return
        self._told_left = True
        text = f"{why}: never commanded, left as it is"
        self._record("", verdict="left", why=text)
        self._tell("left", text)

    async def run(self) -> None:
        """Work off commands until cancelled."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(0.0, lambda: None)
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._work()
            except DeviceError as error:  # the guard's own refusals were recorded where they rose
                self._tell("failed", str(error))
            pause_s = self._next_pause_s()
            timer.cancel()
            if math.isfinite(pause_s):
                timer = loop.call_later(pause_s, self._wake.set)
            elif not self._wake.is_set():
                self.idle.set()

    def _next_pause_s(self) -> float:
        """Return how long until there is something to do; inf where there is nothing."""
        now = time.monotonic()
        if self.safe_why:
            return self._safe.pause_s(now)
        return min(self._orders.pause_s(now), self._safe_again.pause_s(now))

    async def _work(self) -> None:
        if self.safe_why and not self._safe.pause_s(time.monotonic()):
            await self._make_safe()
        while not self.safe_why and (taken := self._safe_again.take(time.monotonic())):
            await self._make_point_safe(*taken)
        while not self.safe_why and (taken := self._orders.take(time.monotonic())):
            await self._command(*taken)
        while self._curves and not self.safe_why:
            await self._curve(self._curves.pop(next(iter(self._curves))))

    # -- commands ---------------------------------------------------------------------------------

    async def _command(self, point: str, order: Order) -> None:
        try:
            await self.reader.prepare()
        except DeviceError as error:
            why = f"the device cannot be reached: {error.what}"
            if order.again or is_transient(error):
                self._later(point, order, why)
            else:
                self._refuse(point, order, why)
            return
        now = time.monotonic()
        if stop := self._stopped():
            self._refuse(point, order, stop)
            return
        decision = self.guard.decide(
            point, order.asked, now, self.reader.current(point), again=order.again
        )
        if decision.verdict == "unsafe":
            self._refuse(point, order, decision.why)
            self.go_safe(f"{point}: {decision.why}")
        elif decision.verdict == "refused":
            self._refuse(point, order, decision.why)
        elif not decision.writes:
            self._orders.done(point)
        elif stop := self._watched():
            self._later(point, order, stop)
        else:
            await self._attempt(point, order, decision)

    def _refuse(self, point: str, order: Order, why: str) -> None:
        self._orders.done(point)
        self._record(point, verdict="refused", asked=order.asked, why=why)
        self._tell("refused", f"{point} = {order.asked:g}: {why}")

    def _later(self, point: str, order: Order, why: str, **values: float) -> None:
        """Try again after a pause that grows, as long as the command counts."""
        now = time.monotonic()
        values = {"asked": order.asked} | values
        self._record(point, verdict="failed", why=why, **values)
        if self.safe_why:
            return
        if not order.again:
            self.guard.heard(point, now)
        elif not self.guard.young(point, now):
            self._refuse(point, order, f"given up, the command is too old: {why}")
            return
        if self._orders.delay(point, replace(order, again=True), why, now):
            text = f"{point} is not at its set-point {order.asked:g}: {why}; tried again"
            self._tell("delayed", text)

    async def _attempt(self, point: str, order: Order, decision: Decision) -> None:
        """Write and verify; again after a wrong read-back, until a fault is latched.

        A newer command is the next try.
        """
        self._held.forget(point)
        self._at_safe = False
        touched, self.touched = self.touched, True
        while not self.safe_why and point not in self._orders.waiting:
            lost = transient = False
            sent: dict[str, float] = {}
            back = math.nan
            try:
                back, failure = await self._write_point(point, decision.value, sent)
            except GuardError:
                return
            except DeviceError as error:
                failure, lost = error.what, isinstance(error, NoReplyError)
                transient = is_transient(error) or isinstance(error, LinkError)
                self.touched = touched or self.reader.link.stats.connects > 0
            values = {"asked": order.asked, "sent": sent.get(point, math.nan), "read_back": back}
            if not failure:
                self.guard.sent(point, decision.value, time.monotonic())
                self._held.hold(point, sent, time.monotonic())
                self._written(point, order, decision, values)
                return
            if transient:
                self.guard.lost(point)
                self._later(point, order, failure, **values)
                return
            self._tell("failed", f"{point} = {order.asked:g}: {failure}")
            latches = self.guard.failed(point, failure, lost=lost)
            if lost and not latches:
                self._later(point, order, failure, **values)
                return
            self._record(point, verdict="failed", why=failure, **values)
            if latches:
                self.latch(f"{point}: {failure}")
                return

    def _written(
        self, point: str, order: Order, decision: Decision, values: Mapping[str, float]
    ) -> None:
        why = "; ".join(filter(None, (order.why, decision.why))) or "command"
        remark = self._access.how_verified(point)
        why = f"{why}, {remark}" if remark else why
        self._record(point, verdict=decision.verdict, why=why, **values)
        if decision.verdict != "written":
            text = f"{point} = {order.asked:g}: {values['sent']:g} was sent, {decision.why}"
            self._tell(decision.verdict, text)
        if (delay := self._orders.done(point)) is not None:
            late_s = time.monotonic() - delay.since_s
            self._tell("delayed", f"{point} = {order.asked:g}: written after {late_s:.1f} s")

    def latch(self, why: str) -> None:
        """Latch a fault and go to the safe state."""
        self.guard.latch(why)
        self._record("", verdict="fault", why=why)
        self._tell("fault", why)
        self.go_safe(f"fault: {why}")

    async def _write_point(
        self, point: str, value: float, sent: dict[str, float]
    ) -> tuple[float, str]:
        """Write a set-point and what belongs to it; return what was read back and what is wrong.

        `sent` receives the values that were sent.
        """
        spec = self.reader.spec.points[point]
        await self.reader.prepare()
        low, high = self.guard.limits(point)
        for request in command_requests(spec, Write(point, value, "", low, high)):
            if stop := self._stopped():
                raise GuardError(stop)
            done = await self._access.write(request)
            for write in request:
                if write.point != point:
                    self._record(write.point, verdict="written", asked=write.value,
                                 sent=done[write.point], why=write.why)  # fmt: skip
            sent |= done
        timer = spec.reversion.point if spec.reversion else None
        sent.pop(timer or "", None)  # it counts down
        found = await self._access.verify(point, sent[point], self._urgent)
        if self.safe_why:
            raise GuardError(f"safe state: {self.safe_why}")
        return found

    def _stopped(self) -> str:
        """Return why an ordinary write may not go out any more; '' where it may."""
        return f"safe state: {self.safe_why}" if self.safe_why else self._allowed()

    # -- what the device holds --------------------------------------------------------------------

    def compare(self, asked_s: float) -> None:
        """Compare a poll that began at `asked_s` with what was sent."""
        if self.safe_why or not self._held.points:
            return
        reading, resolution = self.reader.since(asked_s), self.reader.resolution
        for change in self._held.changes(reading, asked_s, resolution):
            self._changed(change)

    def _changed(self, change: Change) -> None:
        latched = bool(self.guard.fault)
        reaction, why = self._held.react(change, time.monotonic(), latched=latched)
        point = change.point
        self._held.forget(point)
        self._record(
            change.read, verdict="changed", sent=change.sent, read_back=change.found, why=why
        )
        self._tell("changed", f"{change}: {why}")
        asked = self.guard.lost(point)
        if reaction == "hand_over":
            self.guard.hand_over(point, str(change))
            self._orders.drop(point)
        elif reaction == "fault":
            self.latch(f"{change}: {why}")
        elif change.safe or not math.isfinite(asked):
            self._safe_again.delay(point, Order(math.nan, why=str(change)), "", time.monotonic())
            self._awake()
        elif point not in self._orders.waiting:
            self._queue(point, Order(asked, again=True, why=f"written again, {change}"))

    def upkeep(self, now_s: float) -> None:
        """Write again what would end by itself otherwise."""
        if self.safe_why or self.guard.fault:
            return
        for point, value in self.guard.due(now_s):
            if point not in self._orders.waiting:
                self._queue(point, Order(value, again=True, why="refresh"))

    async def _curve(self, job: CurveJob) -> None:
        if stop := self._stopped() or self._watched():
            self._record(f"{job.model}.Crv", verdict="refused", why=stop)
            self._tell("refused", f"{job.model}.Crv: {stop}")
            return
        self._at_safe = False
        self.touched = True
        if fault := await self._curve_writer.write(job):
            self.latch(fault)

    # -- safe state -------------------------------------------------------------------------------

    async def _make_safe(self) -> None:
        """Write every safe value; what fails is tried again after a pause, without end."""
        if failure := await self._safe.write(self.safe_why):
            self.reader.last_error = failure
            return
        self.safe_why = ""
        self._urgent.clear()
        self._at_safe = True

    async def _make_point_safe(self, point: str, order: Order) -> None:
        was_safe, self._at_safe = self._at_safe, False
        failure, _ = await self._safe.write_point(point, order.why)
        if failure:
            self.go_safe(f"{point}: {failure}")
        self._at_safe = was_safe and not self.safe_why

    # -- heartbeat --------------------------------------------------------------------------------

    async def beat(self) -> None:
        """Count the device's heartbeat point up by one."""
        if not self.guard.armed or self.guard.fault or self.safe_why or self._allowed():
            return
        try:
            await self._heartbeat.beat(self._record)
        except DeviceError as error:
            self._tell("failed", f"heartbeat: {error.what}")
