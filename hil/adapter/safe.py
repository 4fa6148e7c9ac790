"""The safe state of one device: writing its safe values until the device has confirmed them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from hil.adapter.access import PointAccess, difference
from hil.adapter.curves import CurveJob, adopt
from hil.adapter.guard import Guard, SelfReversion
from hil.adapter.held import HeldValues
from hil.adapter.safe_check import check_of
from hil.adapter.sequence import Write, frames_of, safe_requests
from hil.devices.errors import DeviceError, LinkError, is_transient

FIRST_RETRY_S, MOST_RETRY_S, MOST_UNREACHED_S = 0.25, 5.0, 1.0


def grown(retry_s: float, most_s: float = MOST_RETRY_S) -> float:
    """Return the next pause of a back-off: 0.25 s, then doubling up to `most_s`."""
    return min(2.0 * retry_s, most_s) if retry_s else min(FIRST_RETRY_S, most_s)


class SafeState:
    """Makes a device safe; limits of step and rate do not hold here.

    Parameters
    ----------
    record : ``record(point, verdict=, why=, ...)`` adds a line to the audit log.
    """

    def __init__(
        self, access: PointAccess, guard: Guard, held: HeldValues, record: Callable[..., None]
    ) -> None:
        self._access, self._guard, self._held, self._record = access, guard, held, record
        self._reader = access.reader
        self._own_timers = SelfReversion(guard.spec.points)
        self._retry_s = 0.0
        self._next_s = -math.inf
        self._open = set(guard.safe_points())

    def pause_s(self, now_s: float) -> float:
        """Return how long until the next try.

        It grows from failure to failure, to spare the device's flash.
        """
        return max(0.0, self._next_s - now_s)

    def begin(self) -> None:
        """Note that the device must be made safe, at once."""
        self._retry_s, self._next_s = 0.0, -math.inf
        self._open = set(self._guard.safe_points())

    def unverified(self) -> dict[str, float]:
        """Return the points that are not verified to be safe: the value last read, or nan."""
        value, good_s, *_ = self._reader.state()
        found = {}
        for point in (p for p in self._guard.spec.points if p in self._open):
            i = self._reader.slot.get(point)
            polled = (-math.inf, math.nan) if i is None else (float(good_s[i]), float(value[i]))
            found[point] = max(polled, self._access.seen.get(point, (-math.inf, math.nan)))[1]
        return found

    async def write(self, why: str) -> str:
        """Write every safe value, verified; return what went wrong, '' for nothing."""
        failure, most_s = "", 0.0
        for point, left in self._guard.handed_over.items():
            self._record(point, verdict="left", why=f"handed over: {left}")
        for point in self._guard.safe_points():
            failed, longest_s = await self.write_point(point, why)
            failure, most_s = failed or failure, max(most_s, longest_s)
        for model, curve in self._reader.spec.curves.items():
            if curve.safe:
                failed = await self._write_curve(model, curve.safe, why)
                failure, most_s = failed or failure, MOST_RETRY_S if failed else most_s
        if failure:
            self._retry_s = grown(self._retry_s, most_s)
            self._next_s = time.monotonic() + self._retry_s
        else:
            self._own_timers.clear()
        return failure

    async def write_point(self, point: str, why: str) -> tuple[str, float]:
        """Make one point safe; return what went wrong, and the longest pause before the next try.

        Where no write reached the device, none has worn its flash.
        """
        spec, most_s = self._reader.spec.points[point], MOST_RETRY_S
        value = math.nan if spec.safe_value is None or spec.release else float(spec.safe_value)
        sent: dict[str, float] = {}
        back = math.nan
        try:
            await self._reader.prepare()
            if self._own_timers.leaves_alone(point, time.monotonic()):
                back, failure = await self._look(point, value)
                why = f"{why}, by the device's own timer"
                most_s = FIRST_RETRY_S
            else:
                for request in safe_requests(spec, point):
                    sent |= await self._access.write(request)
                back, failure = await self._confirm(point, sent)
                self._own_timers.note(point, wrong=bool(failure), now_s=time.monotonic())
        except DeviceError as error:
            failure = error.what
            if isinstance(error, LinkError) or is_transient(error):
                most_s = MOST_UNREACHED_S
        (self._open.add if failure else self._open.discard)(point)
        if not failure and not spec.release:
            self._held.hold(point, sent or {point: value}, time.monotonic(), safe=True)
        self._log(point, why, failure, value, sent.get(point, math.nan), back)
        return failure, most_s if failure else 0.0

    def _log(
        self, point: str, why: str, failure: str, asked: float, sent: float, back: float
    ) -> None:
        spec = self._reader.spec.points[point]
        if spec.release:
            why = f"{why}: control handed back to the device"
        elif not failure and (remark := self._access.how_verified(point)):
            why = f"{why}, {remark}"
        why = f"safe state ({why})" + (f": {failure}" if failure else "")
        verdict = "failed" if failure else "safe"
        self._record(point, verdict=verdict, why=why, asked=asked, sent=sent, read_back=back)

    async def _look(self, point: str, value: float) -> tuple[float, str]:
        """Read a point that is left to the device's own timer."""
        read_back = self._reader.spec.points[point].read_back
        if read_back is None:
            return math.nan, ""
        back = await self._access.read(read_back.point or point)
        return back, difference(value, back, read_back.tolerance)

    async def _confirm(self, point: str, sent: dict[str, float]) -> tuple[float, str]:
        """Read back the safe value, or every point that hands control back."""
        if not self._reader.spec.points[point].release:
            return await self._access.verify(point, sent[point])
        back = math.nan
        for name, value in sent.items():
            back, failure = await self._access.verify(name, value)
            if failure:
                return back, f"{name}: {failure}"
        return back, ""

    async def _write_curve(self, model: int, xy: Sequence[tuple[float, float]], why: str) -> str:
        async def write(point: str, value: float, of: str) -> None:
            sent = (await self._access.write((Write(point, value),)))[point]
            text = f"safe state ({why}): {of}"
            self._record(point, verdict="safe", why=text, asked=value, sent=sent)

        job = CurveJob(model, tuple(xy), {}, self._reader.spec.curves[model])
        try:
            await adopt(self._reader, job, write, self._access.read)
        except DeviceError as error:
            return error.what
        return ""

    def plan(self) -> list[dict[str, Any]]:
        """Return the writes that make the device safe, as the watchdog sends them.

        Each has ``function``, ``address``, ``registers``, ``mask`` (None, or the bits of the one
        register that are changed), ``point``, ``value``, ``of`` (the point whose safe state it
        belongs to: these writes succeed or fail together) and ``check`` (None, or how it is read
        back: see `check_of`).

        Raises DeviceError: A place or a scale factor is not known yet.
        """
        plan: list[dict[str, Any]] = []
        for point in self._guard.safe_points():
            spec = self._reader.spec.points[point]
            for request in safe_requests(spec, point):
                frames, sent = frames_of(self._reader, request)
                shown = point if point in sent else request[0].point
                checked = spec.release or shown == point
                check = check_of(self._reader, shown, sent[shown]) if checked else None
                more = {"point": shown, "value": sent[shown], "of": point}
                plan += [asdict(f) | more | {"check": None} for f in frames]
                plan[-1]["check"] = check
        return plan
