"""SunSpec curves: write a stored curve, have it adopted, check that it is the one in use.

Models 705 (volt-var), 706 (volt-watt) and 712 (watt-var): curve 1 is read-only and shows what is
in use; a new curve goes to another place and is taken over with AdptCrvReq.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from grid_models.base.errors import nearest_name
from hil.adapter.reader import DeviceReader
from hil.devices.codec import encode
from hil.devices.errors import DeviceError, GuardError, WrongReplyError
from hil.devices.points import Value
from hil.devices.spec import CurveSpec, DeviceSpec

_AXES = {705: ("V", "Var"), 706: ("V", "W"), 712: ("W", "Var")}
_FIELDS = ("DeptRef", "Pri", "VRef", "VRefAutoEna", "VRefAutoTms", "RspTms")
_COMPLETED, _FAILED = 1, 2

Write = Callable[[str, float, str], Awaitable[None]]
Read = Callable[[str], Awaitable[float]]


@dataclass(frozen=True)
class CurveJob:
    """A curve that the guard let pass.

    Parameters
    ----------
    model : 705, 706 or 712.
    xy : (float, float); In the model's units (percent), first coordinate ascending.
    fields : Further fields of the curve, e.g. RspTms.
    """

    model: int
    xy: Sequence[tuple[float, float]]
    fields: Mapping[str, float]
    limits: CurveSpec


def admit_curve(
    spec: DeviceSpec, model: int, xy: Sequence[tuple[float, float]], fields: Mapping[str, Value]
) -> CurveJob:
    """Return the job for a curve inside the limits of the device file.

    Raises GuardError: The model is not listed, a point is outside, the order is wrong, a field is
    unknown.
    """
    where = f"{spec.name}.{model}"
    if model not in spec.curves:
        raise GuardError(
            "not in the allow-list",
            where=where,
            expected=f"a model under 'curves': {', '.join(map(str, spec.curves)) or 'none'}",
        )
    limits = spec.curves[model]
    if not xy:
        raise GuardError("a curve without points", where=where)
    for x, y in xy:
        inside = limits.x[0] <= x <= limits.x[1] and limits.y[0] <= y <= limits.y[1]
        if not inside:  # also where one is nan
            text = f"x {limits.x[0]:g} to {limits.x[1]:g}, y {limits.y[0]:g} to {limits.y[1]:g}"
            raise GuardError(f"the point ({x:g}, {y:g}) is outside", where=where, expected=text)
    if any(b[0] < a[0] for a, b in itertools.pairwise(xy)):
        raise GuardError("first coordinates must not fall", where=where)
    for name, value in fields.items():
        if name not in _FIELDS:
            raise GuardError(
                f"a curve has no field '{name}'",
                where=where,
                expected=", ".join(_FIELDS),
                nearest=nearest_name(name, _FIELDS),
            )
        if isinstance(value, str) or not math.isfinite(value) or value < 0:
            raise GuardError(f"{name} = {value!r}", where=where, expected="a finite number >= 0")
    numbers = {k: float(v) for k, v in fields.items()}
    return CurveJob(model, tuple((float(x), float(y)) for x, y in xy), numbers, limits)


async def adopt(reader: DeviceReader, job: CurveJob, write: Write, read: Read) -> None:
    """Write the curve, adopt it, wait for the result and compare curve 1 with it.

    Raises DeviceError: No room for the curve, a read-back that differs, or the device refused to
    adopt it.
    """
    await reader.prepare()
    head = f"{job.model}"
    if reader.map is None:
        raise DeviceError("the device was not scanned yet", where=head)
    counts = reader.map.counts
    room, stored = counts.get(f"{head}.NPt", 0), counts.get(f"{head}.NCrv", 0)
    if len(job.xy) > room or job.limits.curve > stored:
        raise DeviceError(
            f"curve {job.limits.curve} of {len(job.xy)} points does not fit",
            where=head,
            expected=f"at most {stored} curves of {room} points",
        )
    values = {"ActPt": float(len(job.xy)), **job.fields}
    for i, point in enumerate(job.xy, start=1):
        for axis, value in zip(_AXES[job.model], point, strict=True):
            values[f"Pt[{i}].{axis}"] = value
    for name, value in values.items():
        await write(f"{head}.Crv[{job.limits.curve}].{name}", value, "curve")
    await _compare(reader, head, job.limits.curve, values, read)
    await write(f"{head}.AdptCrvReq", float(job.limits.curve), "adopt curve")
    await _result(head, job.limits.timeout_s, read)
    await _compare(reader, head, 1, values, read)
    await write(f"{head}.Ena", 1.0, "enable curve")


async def _compare(
    reader: DeviceReader, head: str, curve: int, values: Mapping[str, float], read: Read
) -> None:
    for name, value in values.items():
        full = f"{head}.Crv[{curve}].{name}"
        place, sf = reader.place(full)
        _, stands_for = encode(place, value, sf=sf)
        back = await read(full)
        if not abs(back - stands_for) <= 1e-9 * max(1.0, abs(stands_for)):
            raise WrongReplyError(f"{full} reads {back:g}, sent was {stands_for:g}")


async def _result(head: str, timeout_s: float, read: Read) -> None:
    """Wait until the device says how the adoption ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = await read(f"{head}.AdptCrvRslt")
        if result == _COMPLETED:
            return
        if result == _FAILED:
            raise DeviceError("the device refused to adopt the curve", where=head)
        if time.monotonic() > deadline:
            raise DeviceError(f"the curve was not adopted within {timeout_s:g} s", where=head)
        await asyncio.sleep(0.05)
