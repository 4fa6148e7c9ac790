"""What runs in the adapter's thread: poll loops, the supervisor, the watchdog's beats."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from grid_models.base.errors import nearest_name
from hil.adapter.audit import AuditLog
from hil.adapter.guard import Guard
from hil.adapter.quality_events import QualityEvents
from hil.adapter.reader import DeviceReader
from hil.adapter.watchdog_client import WatchdogClient
from hil.adapter.writer import DeviceWriter
from hil.devices.errors import DeviceError
from hil.devices.spec import DeviceSpec
from hil.modbus.client import ClientStats, ModbusClient

_SUPERVISE_S = 0.25
_LATENESS_KEPT = 200_000


class AdapterLoop:
    """Owns links, readers and writers; everything in it runs in one event loop.

    Parameters
    ----------
    tell : ``tell(device, kind, text)`` makes an event.
    via : (str, int); Proxies that devices are reached through, by name.
    """

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        armed: Collection[str],
        audit: Path,
        watchdog: bool,
        tell: Callable[[str, str, str], None],
        via: Mapping[str, tuple[str, int]],
        may_kill: bool = True,
    ) -> None:
        self.audit = AuditLog(audit, on_lost=partial(tell, "", "audit"))
        self.tell = tell
        self.stop = asyncio.Event()
        self.close_timeout_s = 5.0
        self.heard_s: float | None = None
        self._links: dict[str, ModbusClient] = {}
        self.readers = {d.name: DeviceReader(d, self._link(d, via)) for d in devices}
        self.writers = {
            d.name: DeviceWriter(
                self.readers[d.name],
                Guard(d, armed=d.name in armed),
                self.audit,
                tell,
                lambda d=d: self._may_write(d),  # type: ignore[misc]
                lambda d=d: self._watched(d.name),  # type: ignore[misc]
            )
            for d in devices
        }
        self._armed = [w for w in self.writers.values() if w.guard.armed]
        self._watchdog: WatchdogClient | None = None
        if watchdog and self._armed:
            self._watchdog = WatchdogClient(
                audit,
                self._watchdog_fired,
                self._watchdog_lost,
                lambda why: tell("", "audit", f"watchdog: {why}"),
                may_kill=may_kill,
            )
        self._rescued = False  # by the watchdog, at the end
        self._watchdog_gone = ""
        self._planned: dict[str, tuple[tuple[Any, ...], list[dict[str, Any]]]] = {}
        self._beat_s = time.monotonic()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lateness: deque[float] = deque(maxlen=_LATENESS_KEPT)
        self._polls = self._lost_polls = 0
        self._quality = {name: QualityEvents(r) for name, r in self.readers.items()}

    def _link(self, device: DeviceSpec, via: Mapping[str, tuple[str, int]]) -> ModbusClient:
        """Return the link of an address; devices behind one address share it."""
        connection = device.connection
        if device.name in via:
            connection = connection.through(*via[device.name])
        link = self._links.get(connection.endpoint)
        if link is None:
            link = self._links[connection.endpoint] = ModbusClient(connection)
        else:
            link.share(connection)
        return link

    def reader(self, device: str) -> DeviceReader:
        """Return a device's reader, or raise an error with the nearest name."""
        return self.writer(device).reader

    def writer(self, device: str) -> DeviceWriter:
        """Return a device's writer, or raise an error with the nearest name."""
        if device not in self.writers:
            raise DeviceError(
                f"there is no device '{device}'",
                expected=", ".join(self.writers) or "a device",
                nearest=nearest_name(device, self.writers),
            )
        return self.writers[device]

    # -- life -------------------------------------------------------------------------------------

    async def run(self, started: concurrent.futures.Future[None]) -> None:
        """Serve until `stop` is set; then make armed devices safe and disconnect."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_error)
        if self._watchdog is not None:
            await self._watchdog.start([w.guard.spec for w in self._armed])
        self._beat_s = time.monotonic()
        n = max(len(self.readers), 1)
        for i, reader in enumerate(self.readers.values()):
            for period_s in reader.periods_s:
                self._task(self._poll_loop(reader, period_s, period_s * i / n))
        for writer in self._armed:
            self._task(writer.run())
        supervisor = self._task(self._supervise())
        started.set_result(None)
        await self.stop.wait()
        await self._make_all_safe()
        supervisor.cancel()
        await self._end()

    async def _make_all_safe(self) -> None:
        for writer in self._armed:
            writer.go_safe("the adapter closes")
        deadline_s = time.monotonic() + self.close_timeout_s
        while not self._settled and time.monotonic() < deadline_s:
            await asyncio.sleep(0.005)

    @property
    def _settled(self) -> bool:
        """Return True where every armed device is safe, was never commanded or never answered."""
        return all(w.is_safe or w.left_alone or self._never_met(w) for w in self._armed)

    @staticmethod
    def _never_met(writer: DeviceWriter) -> bool:
        return not writer.touched and math.isinf(writer.reader.silent_s)

    async def _end(self) -> None:
        while self._tasks:
            # Python 3.11's wait_for may swallow a cancellation (gh-86296), so it is repeated.
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=0.1)
        for link in self._links.values():
            link.close()
        if self._watchdog is not None:
            for writer in self._armed:
                if writer.is_safe or writer.left_alone or self._never_met(writer):
                    self._watchdog.release(writer.name)
            self._rescued = await self._watchdog.close()
        await asyncio.sleep(0)  # let closed transports say goodbye
        self.audit.close()

    @property
    def all_safe(self) -> bool:
        """Return True where every armed device has its safe values, verified, or was left alone."""
        return self._rescued or all(w.is_safe or w.left_alone for w in self._armed)

    def unsafe(self) -> list[tuple[str, str, float]]:
        """Return (device, point, value it stands at or nan) of what was not made safe."""
        if self.all_safe:
            return []
        open_ = [w for w in self._armed if not (w.is_safe or w.left_alone)]
        return [(w.name, point, value) for w in open_ for point, value in w.not_safe().items()]

    def _task(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # A defect of this program: all devices go to their safe state.
        error = task.exception()
        self.tell("", "error", f"internal error: {error!r}")
        for writer in self._armed:
            writer.latch(f"internal error: {error!r}")

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, (OSError, ConnectionError)):
            self.tell("", "error", f"{context.get('message')}: {error!r}")

    # -- polling ----------------------------------------------------------------------------------

    async def _poll_loop(self, reader: DeviceReader, period_s: float, phase_s: float) -> None:
        """Poll at absolute deadlines; a deadline that passed meanwhile is lost, not caught up."""
        due_s = time.monotonic() + phase_s
        while True:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self._lateness.append(time.monotonic() - due_s)
            good = await self._poll(reader, period_s)
            reader.link.poll_done()
            self._polls += 1
            due_s += period_s
            behind = int((time.monotonic() - due_s) // period_s) + 1
            if behind > 0:
                due_s += behind * period_s
            self._lost_polls += max(behind, 0) + (not good)

    async def _poll(self, reader: DeviceReader, period_s: float | None = None) -> bool:
        """Read a device and compare what it holds with what was sent."""
        asked_s = time.monotonic()
        good = await reader.poll(period_s)
        self.writers[reader.spec.name].compare(asked_s)
        return good

    async def poll_all(self) -> bool:
        """Read every device once, now."""
        good = await asyncio.gather(*(self._poll(r) for r in self.readers.values()))
        return all(good)

    async def wait_idle(self) -> bool:
        """Wait until no writer has anything to do."""
        await asyncio.sleep(0)
        for writer in self._armed:
            await writer.idle.wait()
        return True

    # -- watching ---------------------------------------------------------------------------------

    def commanded(self) -> None:
        """Start the heartbeat's clock with the first command."""
        if self.heard_s is None:
            self.heard_s = time.monotonic()

    def _may_write(self, spec: DeviceSpec) -> str:
        """Say why nothing may be written to a device now; '' where it may."""
        now = time.monotonic()
        if self._watchdog_gone:
            return self._watchdog_gone
        limit_s = spec.guard.heartbeat_s
        if self._watchdog is not None and now - self._beat_s > 0.9 * limit_s:
            return f"the adapter hung for {now - self._beat_s:.1f} s"
        if self.heard_s is not None and now - self.heard_s > limit_s:
            return f"no heartbeat of the federation for {now - self.heard_s:.1f} s"
        return ""

    def _watched(self, name: str) -> str:
        """Say that the watchdog cannot make a device safe yet; '' where it can."""
        if self._watchdog is None or self._plan(self.writers[name]):
            return ""
        return "the watchdog does not know the device yet"

    def _plan(self, writer: DeviceWriter) -> bool:
        """Send the watchdog the writes that make the device safe, once they are known."""
        at, known = self._planned.get(writer.name, ((), []))
        now = (writer.reader.scans, *writer.guard.handed_over)
        if at == now and not writer.reader.moving_factors:
            return True
        try:
            plan = writer.safe_plan()
        except DeviceError:
            return bool(known)
        if self._watchdog is not None and (at, known) != (now, plan):
            self._watchdog.plan(writer.reader.spec, plan)
        self._planned[writer.name] = now, plan
        return True

    async def _supervise(self) -> None:
        limit_s = min((w.guard.spec.guard.heartbeat_s for w in self._armed), default=8.0)
        period_s = min(_SUPERVISE_S, limit_s / 8.0)
        beats: dict[str, float] = {}
        next_quality_s = 0.0
        while True:
            await asyncio.sleep(period_s)
            now = time.monotonic()
            hung_s, self._beat_s = now - self._beat_s, now
            if self._watchdog is not None:
                self._watchdog.beat()
            for writer in self._armed:
                if self._watchdog is not None:
                    if writer.touched:
                        self._plan(writer)
                    if hung_s > 0.9 * writer.guard.spec.guard.heartbeat_s:
                        writer.latch(f"the adapter hung for {hung_s:.1f} s")
                self._watch(writer, now)
                writer.upkeep(now)
                self._count_up(writer, beats, now)
            if now >= next_quality_s:
                next_quality_s = now + 1.0
                self._tell_quality(now)

    def _watch(self, writer: DeviceWriter, now: float) -> None:
        """Bring a device to its safe state when its inputs or its replies stay away."""
        guard = writer.guard.spec.guard
        if writer.safe_why or (writer.is_safe and not writer.guard.commanded):
            return
        if self.heard_s is None:
            return
        if now - self.heard_s > guard.heartbeat_s:
            writer.go_safe(f"no heartbeat of the federation for {now - self.heard_s:.1f} s")
        elif writer.guard.commanded:
            point = writer.guard.stale_input(now)
            if point:
                writer.go_safe(f"{point}: no command for {guard.input_limit_s:g} s")
            elif writer.reader.silent_s > guard.bad_limit_s:
                writer.go_safe(f"no usable reply for {guard.bad_limit_s:g} s")

    def _count_up(self, writer: DeviceWriter, beats: dict[str, float], now: float) -> None:
        guard = writer.guard.spec.guard
        alive = self.heard_s is not None and now - self.heard_s <= guard.heartbeat_s
        if guard.heartbeat_point and alive and now >= beats.get(writer.name, 0.0):
            beats[writer.name] = now + guard.heartbeat_s / 2.0
            self._task(writer.beat())

    def _tell_quality(self, now: float) -> None:
        for name, events in self._quality.items():
            for text in events.texts(now):
                self.tell(name, "quality", text)

    def _watchdog_fired(self, names: Sequence[str]) -> None:
        for name in names:
            self.writers[name].latch("the watchdog took over")

    def _watchdog_lost(self) -> None:
        self._watchdog_gone = "the watchdog is gone"
        self.tell("", "watchdog", self._watchdog_gone)
        for writer in self._armed:
            writer.latch(self._watchdog_gone)

    def reset(self, writer: DeviceWriter) -> None:
        """Forget a latched fault; the watchdog is told the plan anew."""
        writer.guard.reset()
        self._planned.pop(writer.name, None)
        self.audit.record(writer.name, "", verdict="written", why="fault reset by the user")
        self.tell(writer.name, "fault", "reset")

    def stats(self) -> dict[str, Any]:
        """Return counters over all links, and the lateness of the polls."""
        total: dict[str, Any] = {}
        for key in ClientStats.__dataclass_fields__:
            if key != "last_error":
                total[key] = sum(getattr(link.stats, key) for link in self._links.values())
        late = np.array(self._lateness) if self._lateness else np.zeros(1)
        p50, p99 = np.percentile(late, (50, 99))
        return total | {
            "devices": len(self.readers),
            "links": len(self._links),
            "polls": self._polls,
            "lost_polls": self._lost_polls,
            "lateness_s": {"p50": float(p50), "p99": float(p99), "max": float(late.max())},
            "last_errors": {n: r.last_error for n, r in self.readers.items() if r.last_error},
        }
