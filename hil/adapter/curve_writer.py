"""Curves of one device: written, adopted, verified; the fault that follows when they are not."""

from __future__ import annotations

from collections.abc import Callable

from hil.adapter.access import PointAccess
from hil.adapter.curves import CurveJob, adopt
from hil.adapter.guard import Guard
from hil.adapter.held import HeldValues
from hil.adapter.sequence import Write
from hil.devices.errors import DeviceError, GuardError, is_transient


class CurveWriter:
    """Writes curves through the guard.

    Parameters
    ----------
    record : ``record(point, verdict=, why=, ...)`` adds a line to the audit log.
    tell : ``tell(kind, text)`` makes an event.
    stopped : Returns why nothing may be written now; '' where it may.
    """

    def __init__(
        self,
        access: PointAccess,
        guard: Guard,
        held: HeldValues,
        record: Callable[..., None],
        tell: Callable[[str, str], None],
        stopped: Callable[[], str],
    ) -> None:
        self._access, self._guard, self._held = access, guard, held
        self._record, self._tell, self._stopped = record, tell, stopped

    async def write(self, job: CurveJob) -> str:
        """Write and adopt a curve; return the fault that this latches, '' for none."""
        name = f"{job.model}.Crv"
        try:
            await adopt(self._access.reader, job, self._write, self._read)
        except DeviceError as error:
            self._record(name, verdict="failed", asked=str(job.xy), why=error.what)
            self._tell("failed", f"{name}: {error}")
            if not is_transient(error) and self._guard.failed_curve(job.model):
                return f"{name}: {error.what}"
            return ""
        why = "curve adopted and verified"
        self._record(name, verdict="written", why=why, asked=str(job.xy))
        return ""

    async def _write(self, point: str, value: float, why: str) -> None:
        """Write a field; points of the device file in its registers are no longer held."""
        if stop := self._stopped():
            raise GuardError(stop)
        self._held.forget_read(self._access.reader.same_place(point))
        sent = (await self._access.write((Write(point, value),)))[point]
        self._record(point, verdict="written", asked=value, sent=sent, why=why)

    async def _read(self, point: str) -> float:
        if stop := self._stopped():
            raise GuardError(stop)
        return await self._access.read(point)
