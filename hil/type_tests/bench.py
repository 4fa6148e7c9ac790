"""The device on the bench: its settings are written and its output is read through the adapter."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from hil.adapter.adapter import Adapter
from hil.devices.errors import DeviceError, NoReplyError
from hil.devices.points import PointSpec
from hil.devices.spec import DeviceSpec
from hil.type_tests.functions import Curve, Droop, Functions, Ratings

_WRITE_S = 20.0
_ANSWER_S = 10.0
#: Switch, and points of the setting itself, of each function that is not a curve.
_POINTS = {
    "q_share": ("704.VarSetEna", ("704.VarSetPct",)),
    "power_factor": ("704.PFWInjEna", ("704.PFWInj.PF", "704.PFWInj.Ext")),
    "limit": ("704.WMaxLimPctEna", ("704.WMaxLimPct",)),
}
_CURVES = {"volt_var": 705, "volt_watt": 706, "watt_var": 712, "droop": 711}
TRIP_MODELS = (707, 708, 709, 710)
_WRONG = ("refused", "failed", "clamped", "limited", "fault", "safe", "error", "watchdog")
_VAR_MAX, _VA_MAX = 1, 3  # 704 VarSetMod, 705 and 712 DeptRef


@dataclass(frozen=True)
class Measured:
    """What the device says it does: pu of W, VA, nominal voltage; Hz."""

    p: float
    q: float
    v_pu: float
    hz: float
    connected: bool

    @property
    def current(self) -> float:
        """Apparent current, pu; the powers are taken as of equal ratings."""
        return math.hypot(self.p, self.q) / max(self.v_pu, 1e-3)


def missing_for(spec: DeviceSpec, functions: Iterable[Functions]) -> list[str]:
    """Return what the device file does not let a test write."""
    lacking: dict[str, None] = {}
    for name in dict.fromkeys(n for f in functions for n in f.names()):
        if name in _CURVES:
            model = _CURVES[name]
            if model not in spec.curves:
                lacking[f"curves: {model}"] = None
            if _writable(spec, f"{model}.Ena") is None:
                lacking[f"a point of access rw at {model}.Ena"] = None
            continue
        switch, points = _POINTS[name]
        for point in (switch, *points):
            if _writable(spec, point) is None:
                lacking[f"a point of access rw at {point}"] = None
    return list(lacking)


def models_of(functions: Iterable[Functions]) -> set[int]:
    """Return the SunSpec models that hold the settings of functions."""
    names = {n for f in functions for n in f.names()}
    return {_CURVES.get(name, 704) for name in names}


def _writable(spec: DeviceSpec, sunspec: str) -> str | None:
    return next((n for n, p in spec.points.items() if p.sunspec == sunspec and p.writable), None)


class Bench:
    """One armed device.

    Parameters
    ----------
    adapter : Runs, and reads the models 701 and 702 whole.
    """

    def __init__(self, spec: DeviceSpec, adapter: Adapter, ratings: Ratings) -> None:
        self.spec, self.adapter, self.ratings = spec, adapter, ratings
        self._held: dict[str, float] = {}
        self._now = Functions()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Bench:
        self._keeper.start()
        for name in (*_CURVES, *_POINTS):
            self._off(name)
        self._flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._keeper.join(_ANSWER_S)

    def _keep(self) -> None:
        """Say that the test is alive, and repeat the set-points before they are too old."""
        while not self._stop.wait(self.spec.guard.heartbeat_s / 4.0):
            self.adapter.heartbeat()
            for point, value in list(self._held.items()):
                try:
                    self.adapter.command(self.spec.name, point, value)
                except DeviceError:
                    return  # a latched fault; the next `_flush` tells

    # -- settings ---------------------------------------------------------------------------------

    def apply(self, functions: Functions) -> bool:
        """Bring the device's settings to `functions`; return False where they are so already."""
        changed = [
            name for name, value in vars(functions).items() if value != getattr(self._now, name)
        ]
        for name in changed:
            if getattr(functions, name) is None:
                self._off(name)
        self._flush()
        for name in changed:
            value = getattr(functions, name)
            if value is not None:
                self._on(name, value)
        self._flush()
        self._now = functions
        return bool(changed)

    def _off(self, name: str) -> None:
        switch = f"{_CURVES[name]}.Ena" if name in _CURVES else _POINTS[name][0]
        if (point := _writable(self.spec, switch)) is not None:
            self._put(point, 0.0)

    def _on(self, name: str, value: Curve | Droop | float) -> None:
        if isinstance(value, (Curve, Droop)):
            xy, fields = _curve_of(name, value)
            self.adapter.adopt_curve(self.spec.name, _CURVES[name], xy, **fields)
            self._flush()
            # The adoption switched it on; the adapter must not hold the point at off.
            self._put_at(f"{_CURVES[name]}.Ena", 1.0)
            return
        if name == "q_share":
            self._put_at("704.VarSetPct", 100.0 * value * self._q_base(value))
        elif name == "power_factor":
            self._put_at("704.PFWInj.PF", abs(value))
            self._put_at("704.PFWInj.Ext", 0.0 if value > 0.0 else 1.0)
        else:
            self._put_at("704.WMaxLimPct", 100.0 * value)
        self._put_at(_POINTS[name][0], 1.0)

    def _q_base(self, share: float) -> float:
        """Return the largest reactive power in what 704.VarSetPct refers to."""
        r = self.ratings
        most = r.var_inject if share > 0.0 else r.var_absorb
        if _writable(self.spec, "704.VarSetMod") is not None:
            self._put_at("704.VarSetMod", _VAR_MAX)
            return 1.0
        mode = int(self._value("704.VarSetMod"))
        bases = {0: r.w, _VAR_MAX: most, _VA_MAX: r.va}
        if mode not in bases:
            raise DeviceError(
                f"704.VarSetMod is {mode}", where=self.spec.name,
                expected="a writable point, or 0, 1 or 3",
            )  # fmt: skip
        return most / bases[mode]

    def _put_at(self, sunspec: str, value: float) -> None:
        point = _writable(self.spec, sunspec)
        if point is None:
            raise DeviceError(f"no point of access rw at {sunspec}", where=self.spec.name)
        self._put(point, value)

    def _put(self, point: str, value: float) -> None:
        spec = self.spec.points[point]
        value = _in_file(spec, value)
        self._held[point] = value
        self.adapter.command(self.spec.name, point, value)

    def set_service(self, delay_s: float, ramp_s: float) -> bool:
        """Shorten the wait before service is entered again; return False where that is not open."""
        points = {"703.ESDlyTms": delay_s, "703.ESRmpTms": ramp_s}
        if any(_writable(self.spec, p) is None for p in points):
            return False
        for sunspec, value in points.items():
            self._put_at(sunspec, value)
        self._flush()
        return True

    def _flush(self) -> None:
        done = self.adapter.flush(timeout_s=_WRITE_S)
        wrong = [e for e in self.adapter.events() if e.kind in _WRONG]
        if wrong:
            event = wrong[0]
            raise DeviceError(f"{event.kind}: {event.text}", where=self.spec.name)
        if not done:
            raise NoReplyError("a setting was not written in time", where=self.spec.name)

    # -- measurements -----------------------------------------------------------------------------

    def measure(self) -> Measured:
        """Read the device now.

        Raises NoReplyError: It does not answer.
        """
        if not self.adapter.refresh(timeout_s=_ANSWER_S):
            raise NoReplyError("does not answer", where=self.spec.name)
        value, r = self._value, self.ratings
        volts = value("701.LLV")
        if not math.isfinite(volts):
            volts = value("701.LNV")
        return Measured(
            value("701.W") / r.w, value("701.Var") / r.va, volts / r.v_nominal, value("701.Hz"),
            value("701.ConnSt") == 1.0,
        )  # fmt: skip

    def _value(self, sunspec: str) -> float:
        return value_of(self.adapter, self.spec, sunspec)


def value_of(adapter: Adapter, spec: DeviceSpec, sunspec: str) -> float:
    """Return the last good value of a SunSpec point; nan where there is none."""
    reading = adapter.latest()[spec.name].get(sunspec)
    return reading.value if reading is not None and not reading.quality else math.nan


def _in_file(spec: PointSpec, value: float) -> float:
    """Return a SunSpec value in the unit of the device file."""
    return value * spec.scale + spec.offset


def _curve_of(
    name: str, value: Curve | Droop
) -> tuple[Sequence[tuple[float, float]], Mapping[str, float]]:
    """Return points and fields of a function in its SunSpec model."""
    if isinstance(value, Droop):
        xy = [(value.over_hz, value.over_slope), (value.under_hz, value.under_slope)]
        return xy, {"RspTms": value.response_s}
    xy = [(100.0 * x, 100.0 * y) for x, y in zip(value.x, value.y, strict=True)]
    fields = {"RspTms": value.response_s} if name != "watt_var" else {}
    if name == "volt_watt":
        return xy, fields | {"DeptRef": 0.0}
    extra = {"DeptRef": float(_VA_MAX), "Pri": 1.0}
    if name == "volt_var":
        extra |= {"VRef": 100.0, "VRefAutoEna": 0.0}
    return xy, fields | extra


def read_ratings(
    adapter: Adapter, spec: DeviceSpec, *, normal: str = "", abnormal: str = ""
) -> Ratings:
    """Return the ratings of model 702.

    Parameters
    ----------
    normal, abnormal : Performance categories where the device does not tell them.

    Raises DeviceError: Model 702 does not have what is needed.
    """
    if not adapter.refresh(timeout_s=_ANSWER_S):
        raise NoReplyError("does not answer", where=spec.name)
    names = {"w": "WMax", "va": "VAMax", "var_inject": "VarMaxInj", "var_absorb": "VarMaxAbs",
             "v_nominal": "VNom"}  # fmt: skip
    values = {key: value_of(adapter, spec, f"702.{point}") for key, point in names.items()}
    for key, value in values.items():
        if not value > 0.0:
            raise DeviceError(
                f"702.{names[key]} is not implemented", where=spec.name, expected="a rating",
            )  # fmt: skip
    told = {0.0: "A", 1.0: "B"}.get(value_of(adapter, spec, "702.NorOpCatRtg"), "")
    told_abnormal = {0.0: "I", 1.0: "II", 2.0: "III"}.get(
        value_of(adapter, spec, "702.AbnOpCatRtg"), ""
    )
    ratings = Ratings(**values, normal=normal or told, abnormal=abnormal or told_abnormal)
    for category, point, option in (
        (ratings.normal, "NorOpCatRtg", "--category A or B"),
        (ratings.abnormal, "AbnOpCatRtg", "--abnormal I, II or III"),
    ):
        if not category:
            raise DeviceError(f"702.{point} does not say", where=spec.name, expected=option)
    return ratings


def read_trips(adapter: Adapter, spec: DeviceSpec) -> dict[int, list[tuple[float, float]]]:
    """Return the trip settings in force by model: (pu or Hz, clearing time in s), nearest first."""
    found = {}
    for model in TRIP_MODELS:
        if value_of(adapter, spec, f"{model}.Ena") != 1.0:
            continue
        axis, scale = ("V", 100.0) if model in (707, 708) else ("Hz", 1.0)
        head = f"{model}.Crv[1].MustTrip."
        count = value_of(adapter, spec, head + "ActPt")
        points = [
            (
                value_of(adapter, spec, f"{head}Pt[{i}].{axis}") / scale,
                value_of(adapter, spec, f"{head}Pt[{i}].Tms"),
            )
            for i in range(1, int(count) + 1 if math.isfinite(count) else 1)
        ]
        found[model] = sorted(points, reverse=model in (707, 709))
    return found
