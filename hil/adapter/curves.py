"""SunSpec curves: write a stored curve, have it adopted, check that it is the one in use.

Models 705 (volt-var), 706 (volt-watt), 712 (watt-var), 707 to 710 (must-trip limits) and 711
(frequency-droop): curve 1 is read-only and shows what is in use; a new curve goes to another place
and is taken over with AdptCrvReq. The two "points" of 711 are deadband and slope, above and below
the nominal frequency.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from grid_models.base.errors import nearest_name
from hil.adapter.reader import DeviceReader
from hil.devices.codec import encode
from hil.devices.errors import DeviceError, GuardError, WrongReplyError
from hil.devices.points import Value
from hil.devices.spec import CurveSpec, DeviceSpec

_FIELDS = ("DeptRef", "Pri", "VRef", "VRefAutoEna", "VRefAutoTms", "RspTms", "PMin")
_COMPLETED, _FAILED = 1, 2
_DROOP = 711


class _Names(NamedTuple):
    """How a model names its curves; `points` has `{i}` where points are counted."""

    points: Sequence[tuple[str, str]]
    active: str = "ActPt"
    head: str = "Crv"
    stored: str = "NCrv"
    adopt: str = "AdptCrv"


_TRIP = {"active": "MustTrip.ActPt", "stored": "NCrvSet"}
_NAMES = {
    705: _Names([("Pt[{i}].V", "Pt[{i}].Var")]),
    706: _Names([("Pt[{i}].V", "Pt[{i}].W")]),
    712: _Names([("Pt[{i}].W", "Pt[{i}].Var")]),
    707: _Names([("MustTrip.Pt[{i}].V", "MustTrip.Pt[{i}].Tms")], **_TRIP),
    708: _Names([("MustTrip.Pt[{i}].V", "MustTrip.Pt[{i}].Tms")], **_TRIP),
    709: _Names([("MustTrip.Pt[{i}].Hz", "MustTrip.Pt[{i}].Tms")], **_TRIP),
    710: _Names([("MustTrip.Pt[{i}].Hz", "MustTrip.Pt[{i}].Tms")], **_TRIP),
    711: _Names([("DbOf", "KOf"), ("DbUf", "KUf")], "", "Ctl", "NCtl", "AdptCtl"),
}
CURVE_MODELS = tuple(sorted(_NAMES))

Write = Callable[[str, float, str], Awaitable[None]]
Read = Callable[[str], Awaitable[float]]


@dataclass(frozen=True)
class CurveJob:
    """A curve that the guard let pass.

    Parameters
    ----------
    model : One of `CURVE_MODELS`.
    xy : (float, float); In the model's units, first coordinate ascending (not in 711).
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
    if model == _DROOP and len(xy) != 2:
        raise GuardError(f"{len(xy)} points", where=where, expected="2: above and below nominal")
    if model != _DROOP and any(b[0] < a[0] for a, b in itertools.pairwise(xy)):
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
    head, names = f"{job.model}", _NAMES[job.model]
    if reader.map is None:
        raise DeviceError("the device was not scanned yet", where=head)
    counts = reader.map.counts
    stored = counts.get(f"{head}.{names.stored}", 0)
    room = counts.get(f"{head}.NPt", 0) if names.active else len(names.points)
    if len(job.xy) > room or job.limits.curve > stored:
        raise DeviceError(
            f"curve {job.limits.curve} of {len(job.xy)} points does not fit",
            where=head,
            expected=f"at most {stored} curves of {room} points",
        )
    values = {names.active: float(len(job.xy))} if names.active else {}
    values |= job.fields
    for i, point in enumerate(job.xy):
        axes = names.points[min(i, len(names.points) - 1)]
        for axis, value in zip(axes, point, strict=True):
            values[axis.format(i=i + 1)] = value
    curve = f"{head}.{names.head}[{job.limits.curve}]"
    for name, value in values.items():
        await write(f"{curve}.{name}", value, "curve")
    await _compare(reader, curve, values, read)
    await write(f"{head}.{names.adopt}Req", float(job.limits.curve), "adopt curve")
    await _result(f"{head}.{names.adopt}Rslt", job.limits.timeout_s, read)
    await _compare(reader, f"{head}.{names.head}[1]", values, read)
    await write(f"{head}.Ena", 1.0, "enable curve")


async def _compare(
    reader: DeviceReader, curve: str, values: Mapping[str, float], read: Read
) -> None:
    for name, value in values.items():
        full = f"{curve}.{name}"
        place, sf = reader.place(full)
        _, stands_for = encode(place, value, sf=sf)
        back = await read(full)
        if not abs(back - stands_for) <= 1e-9 * max(1.0, abs(stands_for)):
            raise WrongReplyError(f"{full} reads {back:g}, sent was {stands_for:g}")


async def _result(point: str, timeout_s: float, read: Read) -> None:
    """Wait until the device says how the adoption ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = await read(point)
        if result == _COMPLETED:
            return
        if result == _FAILED:
            raise DeviceError("the device refused to adopt the curve", where=point)
        if time.monotonic() > deadline:
            raise DeviceError(f"the curve was not adopted within {timeout_s:g} s", where=point)
        await asyncio.sleep(0.05)
