"""How the watchdog makes the devices behind one address safe, however long that takes."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grid_models.base.errors import FeederateError, reason_of
from hil.adapter.watchdog_wire import SafeWrites, Wire, WireError, open_wire, write_pdu

GIVE_UP_S = 3600.0
FIRST_PAUSE_S, MOST_PAUSE_S, MOST_UNREACHED_S = 0.1, 5.0, 1.0
_FIRST_SILENCE_S, _MOST_SILENCE_S = 15.0, 120.0
_WRONG_LIMIT = 3
_SLICE_S = 0.1
_TELL_AGAIN_S = 60.0

NotSafe = tuple[str, str, float]
"""Device, point and the value that it should have."""


@dataclass(eq=False)
class _Job:
    """The writes of one point, which succeed or fail together."""

    plan: SafeWrites
    writes: list[dict[str, Any]]
    wrong: int = 0
    look_only_until_s: float = 0.0
    told: dict[str, float] = field(default_factory=dict)


class Rescue:
    """Writes the plans of the devices behind one address until every write is confirmed.

    A point that fails does not stop the others. Failed writes are repeated after a pause that
    grows from 0.1 s to 5 s, because each may wear the device's flash.

    Parameters
    ----------
    why : In words, for the audit log.
    record : ``record(device, point, verdict=, why=, ...)`` adds a line to the audit log.
    take_over : Ends an adapter that hangs and may hold the only connection; True where it did.
    done : Called with the name of a device that is safe.
    """

    def __init__(
        self,
        why: str,
        record: Callable[..., None],
        take_over: Callable[[], bool],
        done: Callable[[str], None],
    ) -> None:
        self._why, self._record, self._take_over, self._done = why, record, take_over, done
        self._jobs: list[_Job] = []
        self._wire: Wire | None = None
        self._silence_s = _FIRST_SILENCE_S
        self._pause_s = 0.0
        self._rounds = 0
        self._start_s = time.monotonic()

    def add(self, plans: Sequence[SafeWrites]) -> None:
        """Make further devices safe; those that are not safe yet are not begun anew."""
        begun = {job.plan.name for job in self._jobs}
        for plan in plans:
            if plan.name not in begun:
                jobs = itertools.groupby(plan.writes, lambda w: w.get("of", w["point"]))
                self._jobs += [_Job(plan, list(writes)) for _, writes in jobs]

    def drop(self, device: str) -> None:
        """Leave a device alone: the adapter has made it safe."""
        self._jobs = [job for job in self._jobs if job.plan.name != device]

    async def run(self) -> list[NotSafe]:
        """Try until everything is confirmed or an hour has passed; return what is not safe."""
        while self._jobs and time.monotonic() - self._start_s < GIVE_UP_S:
            sent = await self._round()
            if not self._jobs:
                break
            if self._take_over():
                self._disconnect()
                self._pause_s = 0.0
                continue
            most_s = MOST_PAUSE_S if sent else MOST_UNREACHED_S
            self._pause_s = min(max(2.0 * self._pause_s, FIRST_PAUSE_S), most_s)
            await self._pause()
        self._disconnect()
        return [self._given_up(job) for job in self._jobs]

    def _given_up(self, job: _Job) -> NotSafe:
        write = next((w for w in job.writes if w["point"] == w.get("of")), job.writes[-1])
        point, value = write["point"], write["value"]
        text = f"given up after {GIVE_UP_S:g} s, should be {value:g}"
        self._record(job.plan.name, point, verdict="failed", why=f"watchdog: {text}", asked=value)
        return job.plan.name, point, value

    def hurry(self) -> None:
        """End a pause: the adapter is gone, and what it held is free."""
        self._pause_s = 0.0

    async def _pause(self) -> None:
        """Wait for the next try, a late reply or `hurry`."""
        began_s = time.monotonic()
        try:
            while (left_s := began_s + self._pause_s - time.monotonic()) > 0:
                if self._wire is None:
                    await asyncio.sleep(min(left_s, _SLICE_S))
                elif await self._wire.listen(min(left_s, _SLICE_S)):
                    return
        except (OSError, WireError):
            self._disconnect()

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _round(self) -> bool:
        """Try every job that is left; return True where a write may have reached its device."""
        job, sent = self._jobs[0], False
        silent: set[int] = set()
        try:
            if self._wire is None:
                self._wire, self._rounds = await open_wire(job.plan), 0
            for job in list(self._jobs):
                if job.plan.unit in silent or job not in self._jobs:
                    continue  # behind a gateway other units may answer
                sent = True
                try:
                    failure = await self._try(self._wire, job)
                except TimeoutError:
                    failure = "no answer in time"
                    silent.add(job.plan.unit)
                if job not in self._jobs:
                    continue  # dropped meanwhile
                if failure:
                    self._tell(job, failure)
                else:
                    self._wire.settle()
                    self._finish(job)
            self._rounds += 1
            self._require_sign_of_life(self._wire)
        except Exception as error:  # whatever it is, it must not end the tries
            # What follows on this connection cannot be trusted; another point comes first then.
            known = isinstance(error, (WireError, FeederateError))
            text = str(error) if known else reason_of(error) or "no connection in time"
            self._tell(job, text)
            if self._wire is not None and job in self._jobs:
                self._jobs.remove(job)
                self._jobs.append(job)
            self._disconnect()
        return sent

    def _require_sign_of_life(self, wire: Wire) -> None:
        """A connection without any reply may be half open; some devices need long, though."""
        if self._jobs and time.monotonic() - wire.heard_s > self._silence_s:
            self._silence_s = min(2.0 * self._silence_s, _MOST_SILENCE_S)
            raise WireError("silent for long: connected anew")

    def _tell(self, job: _Job, failure: str) -> None:
        """Record a failure; the same one again only from time to time."""
        now = time.monotonic()
        if now - job.told.get(failure, -_TELL_AGAIN_S) < _TELL_AGAIN_S:
            return
        job.told[failure] = now
        why = f"watchdog: {self._why}: {failure}"
        self._record(job.plan.name, "", verdict="failed", why=why)

    # -- one point --------------------------------------------------------------------------------

    async def _try(self, wire: Wire, job: _Job) -> str:
        """Write and check one point; return what went wrong, '' for nothing."""
        checks = [w for w in job.writes if w.get("check")]
        if job.wrong and not await self._wrong_of(wire, job, checks):
            self._confirmed(job)  # the device came to it by itself
            return ""
        if time.monotonic() < job.look_only_until_s:
            return "left to the device's own timer"
        for write in job.writes:
            if failure := await self._write(wire, job.plan, write):
                return f"{write['point']}: {failure}"
        if checks:
            await asyncio.sleep(max(w["check"].get("delay_s", 0.0) for w in checks))
        if failure := await self._wrong_of(wire, job, checks):
            self._note_wrong(job, checks)
            return failure
        self._confirmed(job)
        return ""

    def _finish(self, job: _Job) -> None:
        self._jobs.remove(job)
        if all(other.plan.name != job.plan.name for other in self._jobs):
            self._done(job.plan.name)

    def _confirmed(self, job: _Job) -> None:
        for write in job.writes:
            value, why = write["value"], f"watchdog: {self._why}"
            self._record(
                job.plan.name, write["point"], verdict="safe", asked=value, sent=value, why=why
            )

    @staticmethod
    def _note_wrong(job: _Job, checks: Sequence[dict[str, Any]]) -> None:
        """Leave a point that reads back something else to the device's own timer, if it has one."""
        job.wrong += 1
        timer_s = max((w["check"].get("reversion_s") or 0.0 for w in checks), default=0.0)
        if timer_s and job.wrong >= _WRONG_LIMIT:
            job.look_only_until_s = time.monotonic() + timer_s + 1.0
            job.wrong = 1

    def _wait_s(self, plan: SafeWrites) -> float:
        """How long to wait for a reply: longer from round to round, for a slow device."""
        return min(plan.timeout_s * 2.0 ** min(self._rounds, 10), max(MOST_PAUSE_S, plan.timeout_s))

    async def _write(self, wire: Wire, plan: SafeWrites, write: dict[str, Any]) -> str:
        function, address, registers = write["function"], write["address"], write["registers"]
        mask = write.get("mask")
        if mask is not None:
            now = await self._read(wire, plan, 3, address, 1)
            if isinstance(now, str):
                return now
            word = int.from_bytes(now) & ~mask | registers[0] & mask
            registers = [word]
        request = write_pdu(function, address, registers)
        reply = await wire.ask(plan.unit, request, self._wait_s(plan))
        if reply[0] == function | 0x80:
            return f"refused with exception {reply[1]}"
        if reply != request[:5]:
            raise WireError(f"echo {reply[:5].hex(' ')}, sent {request[:5].hex(' ')}")
        return ""

    async def _read(
        self, wire: Wire, plan: SafeWrites, function: int, address: int, count: int
    ) -> bytes | str:
        """Return the bytes that were read, or what went wrong."""
        request = struct.pack(">BHH", function, address, count)
        reply = await wire.ask(plan.unit, request, self._wait_s(plan))
        if reply[0] == function | 0x80:
            return f"reading {address} was refused with exception {reply[1]}"
        size = (count + 7) // 8 if function < 3 else 2 * count
        if reply[:2] != bytes([function, size]) or len(reply) != 2 + size:
            raise WireError(f"reply {reply[:5].hex(' ')} to reading {count} at {address}")
        return reply[2:]

    async def _wrong_of(self, wire: Wire, job: _Job, checks: Sequence[dict[str, Any]]) -> str:
        """Read back where the plan says how; return what is not as it should be, '' for nothing."""
        for write in checks:
            check = write["check"]
            found = await self._read(
                wire, job.plan, check["function"], check["address"], check["count"]
            )
            if isinstance(found, str):
                return f"{write['point']}: {found}"
            raw = struct.unpack(check["format"], found)[0] if check["format"] else found[0] & 1
            if not check["low"] <= raw <= check["high"]:
                low, high = check["low"], check["high"]
                return f"{write['point']}: reads back raw {raw:g}, not {low:g} to {high:g}"
        return ""
