"""Charts over time as data; ``templates/time_charts.js`` draws them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from controllers.core.mail import FloatArray
from federates.reports.blocks import Drawing, Figures, Key
from federates.runs.data import RunData, Shade, Spread


@dataclass(frozen=True)
class ShadedBand:
    """A curve of a chart: the range of a vector signal, or with `fill` False a single value.

    `style` names a colour of the style sheet; `parts` are the words for the spread's rows.
    """

    name: str
    spread: Spread
    style: str
    fill: bool = True
    parts: tuple[str, str, str] = ("lowest", "median", "highest")


class Limit(NamedTuple):
    """A horizontal line that should not be crossed; two of them enclose the permitted range."""

    value: float
    name: str


@dataclass(frozen=True)
class Chart:
    """One chart over time.

    Parameters
    ----------
    title, y_title : `y_title` ends with the unit after a comma, ``Voltage, pu``.
    bands : Each is drawn at its own times.
    include : Values that the axis must show; data and limits are always shown.
    start_s : Time of day of the run's first step.
    digits : Decimals of values; None: by the size of the largest one.
    shade : Shade, optional
        Stretches of time to be shaded.
    stepped : Whether a value holds until the next point, as of a switch.
    """

    title: str
    y_title: str
    bands: Sequence[ShadedBand]
    limits: Sequence[Limit] = ()
    include: Sequence[float] = ()
    start_s: float = 0.0
    digits: int | None = None
    shade: Shade | None = None
    stepped: bool = False

    def drawing(self) -> Drawing:
        """Return the chart for ``time_charts.js``; times are times of day, s."""
        keys = [Key(band.name, band.style, i) for i, band in enumerate(self.bands)]
        if len(keys) == 1 and not self.bands[0].fill:
            keys = []  # the title says it
        if self.shade is not None:
            keys.append(Key(self.shade.name, "window"))
        data = {
            "title": self.title,
            "unit": self.y_title.partition(", ")[2],
            "digits": self._digits() if self.digits is None else self.digits,
            "limits": [limit._asdict() for limit in self.limits],
            "include": list(self.include),
            "stepped": self.stepped,
            "windows": shade_data(self.shade, self.start_s),
            "bands": [_band_data(band, self.start_s) for band in self.bands],
        }
        return Drawing("time-chart", self.title, keys, data, self.y_title, "Time of day")

    def _digits(self) -> int:
        values = np.concatenate([np.abs(b.spread.high) for b in self.bands])
        largest = float(np.nanmax(values, initial=0.0))
        return 0 if largest >= 50 else 1 if largest >= 5 else 2


def limits(run: RunData) -> list[Limit]:
    """Return the voltage band as lines of a chart."""
    return [Limit(run.band[0], "lower limit"), Limit(run.band[1], "upper limit")]


def in_rows(charts: Sequence[Chart], columns: int = 3, *, shared_axis: bool = False) -> Figures:
    """Return charts in rows of up to `columns`."""
    drawings = [chart.drawing() for chart in charts]
    return Figures(drawings, min(columns, len(charts)), shared_axis)


def side_by_side(charts: Sequence[Chart]) -> Figures:
    """Return charts of one quantity, on one range of values so that they compare by eye."""
    return in_rows(charts, 2 if len(charts) == 4 else 3, shared_axis=True)


def small_multiples(charts: Sequence[Chart]) -> Figures:
    """Return many charts of one quantity, small, on one range of values and with one legend."""
    unnamed = [replace(c, limits=[limit._replace(name="") for limit in c.limits]) for c in charts]
    drawings = [chart.drawing() for chart in unnamed]
    legend = dict.fromkeys(key._replace(band=None) for d in drawings for key in d.legend)
    return Figures(drawings, 5, shared_axis=True, small=True, legend=list(legend))


def shade_data(shade: Shade | None, start_s: float) -> list[list[float | None]]:
    """Return the shaded windows as times of day; None is an end that is not in the run."""
    windows = () if shade is None else shade.windows
    return [[float(t + start_s) if np.isfinite(t) else None for t in w] for w in windows]


def _band_data(band: ShadedBand, start_s: float) -> dict[str, Any]:
    """Return a curve with as many points as a screen shows, the extremes of all others kept."""
    spread = band.spread.decimated()
    parts = dict(zip(band.parts, (spread.low, spread.mid, spread.high), strict=True))
    if not band.fill:
        parts = {"lowest": spread.low, "mean": spread.mid, "highest": spread.high}
        if np.array_equal(spread.low, spread.high, equal_nan=True):
            parts = {"value": spread.mid}
    return {
        "name": band.name,
        "style": band.style,
        "time": time_data(spread.time_s + start_s),
        "hold_s": float(np.median(np.diff(spread.time_s))) if len(spread.time_s) > 1 else 0.0,
        "parts": [{"name": name, "data": float32(values)} for name, values in parts.items()],
    }


def time_data(time_s: FloatArray) -> dict[str, Any]:
    """Return times: evenly spaced ones as start, step and count, others one by one."""
    steps = np.diff(time_s)
    if len(steps) and np.ptp(steps) < 1e-6:
        step_s = float((time_s[-1] - time_s[0]) / len(steps))
        return {"start": float(time_s[0]), "step": step_s, "count": len(time_s)}
    return {"values": np.round(time_s, 6).tolist()}


def float32(values: FloatArray) -> str:
    """Return numbers as base64 of little-endian float32; NaN is a gap."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")
