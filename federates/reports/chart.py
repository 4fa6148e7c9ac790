"""Charts as HTML and inline SVG that stay readable from a phone to a desk.

The curves are an SVG that stretches to the space there is; all text is HTML around it, so letters
keep their size. Colours come from the page's style sheet, so one chart serves light and dark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape

import numpy as np

from controllers.core.mail import FloatArray
from federates.reports.format import clock
from federates.runs.data import Shade, Spread

_SIZE = 1000.0
_LARGE = 1e6  # from here on numbers are written as powers of ten, or they would not fit
_TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 14400, 21600, 43200, 86400, 2 * 86400, 7 * 86400),
)


@dataclass(frozen=True)
class Band:
    """A filled range with a line through its middle. `style` is a class of the style sheet."""

    name: str
    spread: Spread
    style: str
    fill: bool = True


@dataclass(frozen=True)
class Limit:
    """A horizontal line that should not be crossed."""

    value: float
    name: str


@dataclass(frozen=True)
class Chart:
    """One time chart; `y_range` may widen the axis, the data always fit."""

    title: str
    y_title: str
    bands: Sequence[Band]
    limits: Sequence[Limit] = ()
    y_range: tuple[float, float] | None = None
    start_s: float = 0.0
    digits: int = 0
    notes: Sequence[str] = field(default_factory=tuple)
    shade: Shade | None = None


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers that divide ``[low, high]`` into about `about` parts."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick_digits(low: float, high: float) -> int:
    """Return the decimals that tell the ticks of `nice_ticks` apart."""
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return next((n for n in range(9) if abs(round(step, n) - step) < 1e-6 * step), 9)


def time_ticks(start_s: float, end_s: float, about: int = 6) -> list[float]:
    """Return round times of day inside ``[start_s, end_s]``."""
    span = max(end_s - start_s, 1e-9)
    step = next((s for s in _TIME_STEPS_S if span / s <= about), _TIME_STEPS_S[-1])
    first, last = math.ceil(start_s / step - 1e-9), math.floor(end_s / step + 1e-9)
    return [float(k * step) for k in range(first, last + 1)]


def same_axis(charts: Sequence[Chart]) -> list[Chart]:
    """Return charts that share one y axis, so that they can be compared by eye."""
    ends = [end for chart in charts for end in _extent(chart)]
    return [replace(chart, y_range=(min(ends), max(ends))) for chart in charts]


def axis_range(chart: Chart) -> tuple[float, float]:
    """Return the y axis: all data and limits with a little air, at least a hair wide."""
    low, high = _extent(chart)
    air = 0.06 * (high - low) or max(abs(high) * 0.02, 0.5 * 10.0**-chart.digits)
    return low - air, high + air


def _extent(chart: Chart) -> tuple[float, float]:
    values = [limit.value for limit in chart.limits]
    for band in chart.bands:
        for series in (band.spread.low, band.spread.high):
            finite = series[np.isfinite(series)]
            if finite.size:
                values += [float(finite.min()), float(finite.max())]
    values += list(chart.y_range or ())
    return (min(values), max(values)) if values else (0.0, 1.0)


def time_chart(chart: Chart) -> str:
    """Return the chart as an HTML figure; each band is drawn at its own times."""
    bands = [_placed(band, chart.start_s) for band in chart.bands]
    low, high = axis_range(chart)
    t0 = min(float(b.spread.time_s[0]) for b in bands)
    t1 = max(float(b.spread.time_s[-1]) for b in bands)
    if t1 <= t0:
        t1 = t0 + 1.0
    scale = _Scale(t0, t1, low, high)
    shapes = [_grid(scale, chart), _shade(scale, chart)]
    shapes += [_band(scale, band) for band in bands]
    shapes += [_limit(scale, limit) for limit in chart.limits]
    x_labels = [(scale.x(t), clock(t)) for t in time_ticks(t0, t1)]
    ticks = _y_ticks(chart, low, high)
    digits = max(chart.digits, tick_digits(low, high))
    large = max(abs(low), abs(high)) >= _LARGE
    y_labels = [(scale.y(v), f"{v:.3g}" if large else f"{v:,.{digits}f}") for v in ticks]
    legend = [(b.style, b.name) for b in bands] if len(bands) > 1 or bands[0].fill else []
    legend += [("window", chart.shade.name)] if chart.shade else []
    return frame(
        chart.title,
        chart.y_title,
        "Time of day",
        "".join(shapes),
        x_labels,
        y_labels,
        legend=legend,
        limits=[(scale.y(limit.value), limit.name) for limit in chart.limits],
        notes=chart.notes,
        data=_readout(scale, bands, chart.digits),
    )


def _placed(band: Band, start_s: float) -> Band:
    """Return a band with as many points as a picture shows, at times of day."""
    spread = band.spread.decimated()
    return replace(band, spread=replace(spread, time_s=spread.time_s + start_s))


@dataclass(frozen=True)
class _Scale:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        """Return the share of the width in percent."""
        return 100.0 * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        """Return the share of the height in percent, from above."""
        return 100.0 * (self.y1 - value) / (self.y1 - self.y0)

    def points(self, xs: FloatArray, ys: FloatArray) -> list[str]:
        px = _SIZE * (xs - self.x0) / (self.x1 - self.x0)
        py = _SIZE * (self.y1 - ys) / (self.y1 - self.y0)
        return [f"{x:.1f} {y:.1f}" for x, y in zip(px, py, strict=True)]


def _y_ticks(chart: Chart, low: float, high: float) -> list[float]:
    """Return the ticks of the y axis, without those that a limit's own label would hide."""
    near = 0.045 * (high - low)
    ticks = nice_ticks(low, high)
    return [v for v in ticks if all(abs(v - limit.value) > near for limit in chart.limits)] + [
        limit.value for limit in chart.limits
    ]


def _grid(scale: _Scale, chart: Chart) -> str:
    lines = [f"M0 {10 * scale.y(v):.1f}H{_SIZE:.0f}" for v in nice_ticks(scale.y0, scale.y1)] + [
        f"M{10 * scale.x(t):.1f} 0V{_SIZE:.0f}" for t in time_ticks(scale.x0, scale.x1)
    ]
    return f'<path class="grid" d="{"".join(lines)}"/>'


def _shade(scale: _Scale, chart: Chart) -> str:
    """Return one rectangle per window, at least a line wide, so that a short one is seen."""
    out = ""
    for begin, end in chart.shade.windows if chart.shade else ():
        left, right = (10 * min(100.0, max(0.0, scale.x(t + chart.start_s))) for t in (begin, end))
        width = max(right - left, 3.0)
        out += f'<rect class="window" x="{left:.1f}" y="0" width="{width:.1f}" height="1000"/>'
    return out


def _band(scale: _Scale, band: Band) -> str:
    """Return a band's fill, edges and line; broken where it has no numbers."""
    spread = band.spread
    good = np.isfinite(spread.low) & np.isfinite(spread.high) & np.isfinite(spread.mid)
    at = np.flatnonzero(good)
    if not at.size:
        return ""
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    fill = edges = line = ""
    alone = []
    has_width = band.fill or bool((spread.high[at] > spread.low[at]).any())
    for run in runs:
        t, low, mid, high = (x[run] for x in (spread.time_s, spread.low, spread.mid, spread.high))
        if has_width:
            there = scale.points(t, high)
            back = scale.points(t[::-1], low[::-1])
            fill += f"M{'L'.join(there + back)}Z"
        if len(run) == 1:  # a line of one point is invisible
            alone.append((scale.x(float(t[0])), scale.y(float(mid[0]))))
            continue
        edges += "".join(f"M{'L'.join(scale.points(t, edge))}" for edge in (low, high))
        line += f"M{'L'.join(scale.points(t, mid))}"
    out = f'<path class="fill {band.style}" d="{fill}"/>' if fill else ""
    out += f'<path class="edge {band.style}" d="{edges}"/>' if edges and band.fill else ""
    out += f'<path class="line {band.style}" d="{line}"/>' if line else ""
    return out + dots(alone, band.style)


def _limit(scale: _Scale, limit: Limit) -> str:
    return f'<path class="limit" d="M0 {10 * scale.y(limit.value):.1f}H{_SIZE:.0f}"/>'


def _readout(scale: _Scale, bands: Sequence[Band], digits: int) -> str:
    """Return the numbers behind the curves, for the pointer's read-out: one grid for all bands."""
    grid = np.unique(np.concatenate([b.spread.time_s for b in bands]))
    data: dict[str, object] = {
        "t": [clock(t) for t in np.round(grid).tolist()],
        "digits": digits,
        "series": [_numbers(b, grid, digits) for b in bands],
    }
    share = (grid - scale.x0) / (scale.x1 - scale.x0)
    even = np.linspace(0.0, 1.0, len(grid)) if len(grid) > 1 else share
    if np.abs(share - even).max() * len(grid) > 0.5:
        # The pointer finds its point by these; without them points are evenly spaced.
        data["x"] = np.round(1e4 * share).astype(int).tolist()
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _numbers(band: Band, grid: FloatArray, digits: int) -> dict[str, object]:
    """Return a band on a grid that has its times among others'; a sample counts until the next."""
    own = band.spread.time_s
    last = np.searchsorted(own, grid, side="right") - 1
    at = np.maximum(last, 0)
    lasts_s = float(np.median(np.diff(own))) if len(own) > 1 else 0.0
    known = (last >= 0) & ((grid == own[at]) | (grid - own[at] < lasts_s * (1.0 - 1e-9)))

    def numbers(values: FloatArray) -> list[float | None]:
        placed = np.where(known, values[at], np.nan)
        return [round(v, digits + 1) if math.isfinite(v) else None for v in placed.tolist()]

    spread = band.spread
    return {
        "name": band.name,
        "low": numbers(spread.low) if band.fill else None,
        "mid": numbers(spread.mid),
        "high": numbers(spread.high) if band.fill else None,
    }


def frame(
    title: str,
    y_title: str,
    x_title: str,
    shapes: str,
    x_labels: Sequence[tuple[float, str]],
    y_labels: Sequence[tuple[float, str]],
    *,
    legend: Sequence[tuple[str, str]] = (),
    limits: Sequence[tuple[float, str]] = (),
    notes: Sequence[str] = (),
    data: str | None = None,
) -> str:
    """Return a figure: title, legend, axes with their titles around a stretching SVG.

    Positions of labels are in percent from the left and from above.
    """
    out = ['<figure class="chart">', f"<figcaption>{escape(title)}</figcaption>"]
    keys = "".join(f'<li><i class="key {style}"></i>{escape(name)}</li>' for style, name in legend)
    out.append(
        f'<div class="over"><span class="axis-title">{escape(y_title)}</span>'
        f'<ul class="legend">{keys}</ul></div>'
    )
    y_axis = "".join(f'<span style="top:{p:.2f}%">{escape(t)}</span>' for p, t in y_labels)
    x_axis = "".join(f'<span style="left:{p:.2f}%">{escape(t)}</span>' for p, t in x_labels)
    marks = "".join(
        f'<span class="limit-name" style="top:{p:.2f}%">{escape(t)}</span>' for p, t in limits
    )
    readout = f'<script type="application/json">{data}</script>' if data else ""
    out.append(
        f'<div class="plot"><div class="y-axis">{y_axis}</div>'
        f'<div class="area"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{shapes}</svg>{marks}{readout}</div>'
        f'<div class="x-axis">{x_axis}</div></div>'
        f'<div class="x-title">{escape(x_title)}</div>'
    )
    out += [f'<p class="note">{escape(note)}</p>' for note in notes]
    out.append("</figure>")
    return "".join(out)


def dots(points: Sequence[tuple[float, float]], style: str) -> str:
    """Return round dots at positions in percent; they stay round however the chart stretches."""
    path = "".join(f"M{10 * x:.1f} {10 * y:.1f}h0" for x, y in points)
    return f'<path class="dot {style}" d="{path}"/>' if path else ""


def segments(pairs: Sequence[tuple[float, float, float, float]], style: str) -> str:
    """Return line segments (x1, y1, x2, y2) in percent."""
    path = "".join(f"M{10 * a:.1f} {10 * b:.1f}L{10 * c:.1f} {10 * d:.1f}" for a, b, c, d in pairs)
    return f'<path class="line {style}" d="{path}"/>' if path else ""
