"""Voltage envelopes drawn with braille dots, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from federates.reports.format import clock
from federates.runs.data import Spread

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a cell
_AXIS = 6  # "1.050 "
_GAP = 2


@dataclass(frozen=True)
class Panel:
    """One envelope and its heading."""

    title: str
    spread: Spread
    start_s: float = 0.0


def voltage_picture(
    panels: Sequence[Panel], band: tuple[float, float], width: int = 80, height: int = 11
) -> list[Text]:
    """Return lines of text: one panel per run, side by side, on one voltage axis.

    The range from the lowest to the highest node is filled; what lies outside the band is red,
    the band's ends are drawn as lines.
    """
    columns = (width - _AXIS - _GAP * (len(panels) - 1)) // max(1, len(panels))
    low = min([band[0], *(float(p.spread.low.min()) for p in panels)])
    high = max([band[1], *(float(p.spread.high.max()) for p in panels)])
    step = (high - low) / (height * 4 - 1) or 1e-6
    rows_of_band = {int((high - v) / step) // 4: v for v in band}
    lines = [Text(" " * _AXIS)]
    for i, panel in enumerate(panels):
        lines[0].append(panel.title[:columns].ljust(columns + (_GAP if i < len(panels) - 1 else 0)))
    lines[0].stylize("bold")
    cells = [_cells(panel.spread, columns, height, high, step) for panel in panels]
    for row in range(height):
        value = rows_of_band.get(row, {0: high, height - 1: low}.get(row))
        line = Text((f"{value:.3f}" if value is not None else "").ljust(_AXIS))
        top, bottom = high - row * 4 * step, high - (row * 4 + 3) * step
        outside = bottom > band[1] or top < band[0]
        for i, panel_cells in enumerate(cells):
            for code in panel_cells[row]:
                if row in rows_of_band:
                    # Across the filling too, so that it can be seen without colours.
                    line.append("┄", "yellow")
                else:
                    line.append(chr(0x2800 + code) if code else " ", "red" if outside else "cyan")
            line.append(" " * (_GAP if i < len(cells) - 1 else 0))
        lines.append(line)
    lines.append(_time_axis(panels, columns))
    return lines


def _cells(spread: Spread, columns: int, height: int, high: float, step: float) -> list[list[int]]:
    """Return the braille pattern of every cell."""
    small = spread.decimated(columns * 2)
    at = np.minimum(np.arange(columns * 2) * len(small.low) // (columns * 2), len(small.low) - 1)
    first = np.clip(np.round((high - small.high[at]) / step), 0, height * 4 - 1)
    last = np.clip(np.round((high - small.low[at]) / step), 0, height * 4 - 1)
    dots = np.arange(height * 4)[:, None]
    filled = (dots >= first) & (dots <= last)
    return [
        [
            sum(
                _DOTS[r][c]
                for r in range(4)
                for c in range(2)
                if filled[4 * row + r, 2 * column + c]
            )
            for column in range(columns)
        ]
        for row in range(height)
    ]


def _time_axis(panels: Sequence[Panel], columns: int) -> Text:
    line = " " * _AXIS
    for i, panel in enumerate(panels):
        start, end = (clock(float(panel.spread.time_s[k]) + panel.start_s)[:5] for k in (0, -1))
        line += start + end.rjust(columns - len(start))
        line += " " * (_GAP if i < len(panels) - 1 else 0)
    return Text(line, "dim")
