"""The Modbus/TCP adapter: many devices, read in the background, written through the guard.

Sketch of use (every method may be called from any thread, none blocks longer than it says)::

    specs = [load_device_file("inverter.yaml"), load_device_file("thermostat.yaml")]
    with Adapter(specs, armed={"inverter"}, audit=Path("audit.jsonl")) as adapter:
        adapter.poll(timeout_s=2.0)                        # read everything once, now
        adapter.heartbeat()                                # once per step: "I am alive"
        adapter.command("inverter", "p_limit_pct", 80.0)   # queued; latest value per point wins
        adapter.flush(timeout_s=2.0)                       # optional: wait until it was written
        view = adapter.snapshot()                          # arrays over all devices and points
        reading = adapter.latest()["inverter"]["p_kw"]     # Reading(value, quality, age_s)
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from hil.adapter.curves import admit_curve
from hil.adapter.guard import check_arming
from hil.adapter.loop import AdapterLoop
from hil.adapter.snapshot import Event, Snapshot
from hil.adapter.sunspec import SunSpecMap
from hil.adapter.writer import DeviceWriter
from hil.devices.errors import DeviceError, GuardError
from hil.devices.points import Reading, Value
from hil.devices.spec import DeviceSpec

__all__ = ["Adapter", "Event", "Snapshot"]

_MAX_EVENTS = 10_000


class Adapter:
    """Reads and commands devices from a thread of its own.

    Parameters
    ----------
    devices : Names must be unique. A device that is not on loopback must be in `armed`, unless
        `read_only`.
    armed : Names of the devices that may be written; all others are read only.
    audit : Append-only audit log, one JSON object per line.
    read_only : Refuse every write; devices elsewhere may then be read without arming.
    watchdog : bool
        Start the independent watchdog process for the armed devices, and lock them against other
        runs (tests, and devices that end with this process, may leave it out).
    may_kill : bool
        Whether the watchdog may end this process (SIGKILL) when it hangs and may hold the only
        connection that a device takes. Without it, a device with `one_connection` is refused.
    via : (str, int); Proxies that devices are reached through, by name. Arming and certificates go
        by the device's own address, and the watchdog goes straight to it.

    Raises ArmingError: A device is not on loopback and not armed, or `armed` has an unknown name.
    Raises DeviceError: Two devices have the same name, or one could not be made safe.
    """

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        *,
        armed: Collection[str] = (),
        audit: Path,
        read_only: bool = False,
        watchdog: bool = True,
        via: Mapping[str, tuple[str, int]] | None = None,
        may_kill: bool = True,
    ) -> None:
        names = [d.name for d in devices]
        for name in names:
            if names.count(name) > 1:
                raise DeviceError(f"two devices are called '{name}'", expected="unique names")
        check_arming(devices, armed, read_only=read_only)
        if watchdog and not may_kill:
            _refuse_one_connection([d for d in devices if d.name in armed])
        self._events: deque[Event] = deque(maxlen=_MAX_EVENTS)
        self._core = AdapterLoop(
            devices, set(armed), Path(audit), watchdog, self._tell, via or {}, may_kill
        )
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._index: dict[tuple[str, str], int] = {}
        self._generation = -1

    # -- life -------------------------------------------------------------------------------------

    def start(self, *, wait_s: float = 0.0) -> None:
        """Start thread, watchdog and polling; wait up to `wait_s` for a first reading of all.

        In the main thread, SIGTERM and SIGHUP then end the program by `SystemExit` (so that `close`
        runs), unless the program has a handler of its own or ignores them.

        Raises DeviceError: Another run commands a device, or the watchdog does not start.
        """
        if self._thread is not None:
            return
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="hil-adapter", daemon=True
        )
        self._thread.start()
        started.result()
        atexit.register(self.close)
        in_main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if in_main and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _exit_on_signal)
        if wait_s > 0:
            self.poll(timeout_s=wait_s)

    def _serve(self, started: concurrent.futures.Future[None]) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            await self._core.run(started)

        try:
            asyncio.run(main())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            else:
                self._tell("", "error", f"the adapter ended: {error!r}")

    def close(self, *, timeout_s: float = 5.0) -> bool:
        """Bring armed devices to their safe values, stop; True if every one was verified.

        Devices that could not be reached in time are left to the watchdog, which goes on trying.
        """
        atexit.unregister(self.close)
        if self._closed or self._thread is None or self._loop is None:
            return self._core.all_safe
        self._closed = True
        self._core.close_timeout_s = timeout_s
        try:
            self._loop.call_soon_threadsafe(self._core.stop.set)
        except RuntimeError:  # the loop ended by itself; the watchdog took over
            return False
        self._thread.join(timeout_s + 5.0)
        return self._core.all_safe

    def unsafe(self) -> list[tuple[str, str, float]]:
        """Return what was not made safe: device, point, value it last stood at or nan.

        Of interest after `close`. Before, a device that is commanded is not safe either.
        """
        return self._core.unsafe()

    def __enter__(self) -> Adapter:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- reading ----------------------------------------------------------------------------------

    def poll(self, *, timeout_s: float = 5.0) -> dict[str, dict[str, Reading]]:
        """Read every point once, now, and return `latest`; others keep value and age."""
        self.refresh(timeout_s=timeout_s)
        return self.latest()

    def refresh(self, *, timeout_s: float = 5.0) -> bool:
        """Read every point once, now; return True where every device answered in time."""
        return self._run(self._core.poll_all, timeout_s)

    def latest(self) -> dict[str, dict[str, Reading]]:
        """Return device -> point -> Reading, without any traffic."""
        return self.snapshot().as_dict()

    def snapshot(self) -> Snapshot:
        """Return all readings as arrays, without any traffic."""
        readers = self._core.readers.values()
        generation = sum(r.generation for r in readers)
        parts = [(r.spec.name, r.names, r.state()) for r in readers]
        state = [np.concatenate(arrays) for arrays in zip(*(p[2] for p in parts), strict=True)]
        if not parts:
            state = [np.empty(0)] * 5
        if generation != self._generation or len(state[0]) != len(self._index):
            pairs = ((name, point) for name, points, _ in parts for point in points)
            self._index = {pair: i for i, pair in enumerate(pairs)}
            self._generation = generation
        quality, age_s = Snapshot.judge(time.monotonic(), state)
        return Snapshot(state[0], quality, age_s, self._index, generation)

    def points(self, device: str) -> list[str]:
        """Return the device's point names (SunSpec repeats are known after its first scan)."""
        return list(self._core.reader(device).names)

    def texts(self, device: str) -> dict[str, str]:
        """Return the device's texts: text points, and a SunSpec device's Mn, Md, SN and Vr."""
        return dict(self._core.reader(device).texts)

    def reasons(self, device: str) -> dict[str, str]:
        """Return why a point, or a text, is not good, by name; what is good is left out."""
        reader = self._core.reader(device)
        return reader.reasons() | reader.text_reasons

    def awaited(self, device: str) -> set[str]:
        """Return the points that were not read yet, but may be soon: busy, or no reply."""
        return self._core.reader(device).awaited()

    def sunspec_map(self, device: str) -> SunSpecMap | None:
        """Return what the SunSpec scan found; None before it, or for another kind of device."""
        return self._core.reader(device).map

    # -- writing ----------------------------------------------------------------------------------

    def command(self, device: str, point: str, value: Value) -> None:
        """Ask for a set-point; returns at once. The guard decides, the audit log says how.

        Raises GuardError: Not armed, not in the allow-list, latched fault, unknown name: known at
        once. (Limits clamp or refuse later, in the background; see `events`.)
        Raises DeviceError: There is no such device.
        """
        writer = self._core.writer(device)
        try:
            number = writer.guard.admit(point, value)
        except GuardError as error:
            self._refused(device, point, value, error)
            raise
        self._core.commanded()
        self._soon(writer.put, point, number)

    def command_all(self, point: str, values: Mapping[str, float]) -> int:
        """Ask for set-points of many devices, as `command`; return how many were refused."""
        refused, admitted = 0, []
        for device, value in values.items():
            writer = self._core.writer(device)
            try:
                admitted.append((writer, writer.guard.admit(point, value)))
            except GuardError as error:
                refused += 1
                self._refused(device, point, value, error)
        if admitted:
            self._core.commanded()
            self._soon(self._put_all, point, admitted)
        return refused

    @staticmethod
    def _put_all(point: str, admitted: list[tuple[DeviceWriter, float]]) -> None:
        for writer, number in admitted:
            writer.put(point, number)

    def adopt_curve(
        self, device: str, model: int, xy: Sequence[tuple[float, float]], **fields: Value
    ) -> None:
        """Write a SunSpec curve (705, 706, 712), adopt it and check the result; returns at once.

        Parameters
        ----------
        xy : (float, float); In the model's units (percent), first coordinate ascending.
        **fields : Further fields of the curve, e.g. ``RspTms=5``.

        Raises GuardError: Not armed, latched fault, or the curve is outside what the device file
        allows.
        """
        writer = self._core.writer(device)
        try:
            writer.guard.require_armed(str(model))
            job = admit_curve(writer.reader.spec, model, xy, fields)
        except GuardError as error:
            self._refused(device, f"{model}.Crv", str(list(xy)), error)
            raise
        self._core.commanded()
        self._soon(writer.put_curve, job)

    def _refused(self, device: str, point: str, value: Value, error: GuardError) -> None:
        self._core.audit.record(device, point, verdict="refused", asked=value, why=error.what)
        self._tell(device, "refused", f"{point} = {value}: {error.what}")

    def flush(self, *, timeout_s: float = 5.0) -> bool:
        """Wait until every queued command was decided and written; False if time ran out."""
        return self._run(self._core.wait_idle, timeout_s)

    def heartbeat(self) -> None:
        """Say that the federation is alive; without it every armed device goes to safe state."""
        self._core.heard_s = time.monotonic()

    def safe_state(self, why: str, *, devices: Collection[str] | None = None) -> None:
        """Bring devices to their safe values; returns at once."""
        for name in self._core.writers if devices is None else devices:
            self._soon(partial(self._core.writer(name).go_safe, why, always=True))

    def reset_fault(self, device: str) -> None:
        """Reset a latched fault, after a person has inspected the device."""
        self._soon(self._core.reset, self._core.writer(device))

    def faults(self) -> dict[str, str]:
        """Return device -> reason, for devices with a latched fault."""
        return {n: w.guard.fault for n, w in self._core.writers.items() if w.guard.fault}

    def not_commanded(self) -> dict[tuple[str, str], str]:
        """Return (device, point) -> reason, for points that do not stand at their last command.

        They were handed over, or the device does not take the command now.
        """
        writers = self._core.writers.items()
        return {(n, p): why for n, w in writers for p, why in w.not_commanded().items()}

    def safe_devices(self) -> dict[str, bool]:
        """Return device -> whether its safe values are verified and no command came since."""
        return {n: w.is_safe for n, w in self._core.writers.items()}

    # -- telling ----------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """Return and forget what happened since the last call (refused, clamped, fault, ...)."""
        found = []
        while self._events:
            found.append(self._events.popleft())
        return found

    @property
    def stats(self) -> Mapping[str, Any]:
        """Requests, replies, timeouts, wrong replies, reconnects, lost polls, lateness.

        ``lateness_s`` has p50, p99 and max of the polls against their absolute deadlines;
        ``lost_polls`` counts deadlines that passed while the previous poll still ran, and polls
        that brought nothing.
        """
        return self._core.stats()

    def _tell(self, device: str, kind: str, text: str) -> None:
        self._events.append(Event(time.time(), device, kind, text))

    # -- the thread -------------------------------------------------------------------------------

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._closed:
            raise DeviceError("the adapter is not running", expected="start() before, not closed")
        return self._loop

    def _soon(self, call: Any, *args: Any) -> None:
        self._running().call_soon_threadsafe(call, *args)

    def _run(self, work: Callable[[], Coroutine[Any, Any, bool]], timeout_s: float) -> bool:
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            return False


def _refuse_one_connection(armed: Sequence[DeviceSpec]) -> None:
    for spec in armed:
        if spec.connection.one_connection:
            raise DeviceError(
                "the device takes one connection only: the watchdog can make it safe only when it "
                "may end a process that hangs",
                where=f"device '{spec.name}'",
                expected="may_kill=True",
            )


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
