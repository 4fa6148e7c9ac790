"""Curves of single elements (nodes, DERs, devices) for a page; ``traces.js`` draws those chosen."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from federates.core.signals import signal_batches, signal_labels
from federates.reports.blocks import Block, Drawing, Figures, PageSection, Text
from federates.reports.chart import limits, shade_data, time_data
from federates.reports.format import metric_unit
from federates.runs.data import RunData

_BUDGET, _SHARE = 100_000, 65_000
"""Most bytes of all signals of a page, and of one of them, before base64."""
_POINTS, _LEAST_POINTS, _ELEMENTS = 1024, 60, 600
_LEVELS, _GAP = 500, np.iinfo(np.int16).min


def trace_sections(run: RunData) -> Iterator[PageSection]:
    """Let the reader draw single elements of any recorded signal that has several."""
    plants = [f"{plant.name}.v_pu" for plant in run.plants]
    signals: list[dict[str, Any]] = []
    room = _BUDGET
    for name in sorted(run.recorded, key=lambda name: name not in plants):
        if len(signal_labels(run.signals, name)) < 2 or not run.has(name):
            continue
        found, size = _signal(run, name, min(room, _SHARE))
        if size <= room:
            signals.append(found)
            room -= size
    if not signals:
        return
    data = {
        "title": "Single elements",
        "windows": shade_data(run.shade, run.start_s),
        "band": [limit._asdict() for limit in limits(run)],
        "signals": signals,
    }
    drawing = Drawing("element-traces", "Single elements", (), data, "", "Time of day")
    words = (
        "Choose a signal and elements by name; a bus adds its nodes, as does a click in the map."
    )
    notes = "; ".join(f"{signal['name']}: {signal['note']}" for signal in signals if signal["note"])
    blocks: list[Block] = [Text(words), Figures([drawing])]
    if notes:
        blocks.append(Text(f"Shortened here, complete in signals/: {notes}.", style="sub"))
    yield PageSection("Single elements", blocks)


def _signal(run: RunData, name: str, room: int) -> tuple[dict[str, Any], int]:
    """Return a signal as data of the page, and the bytes it takes: about `room` at most."""
    labels = signal_labels(run.signals, name)
    time_s, values, every = _thinned(run, name)
    kept = np.sort(np.argsort(-_range(values), kind="stable")[:_ELEMENTS])
    values = values[:, kept]
    # About a byte per value, more where a signal is noisy.
    excess = values.size / (3.0 * room)
    while True:
        for _ in range(int(np.ceil(np.log2(max(excess, 1.0))))):
            time_s, values, every = *_halved(time_s, values), 2 * every
        packed, step, offset = _packed(values)
        excess = len(packed) / room
        if excess <= 1.0 or len(time_s) < _LEAST_POINTS:
            break
    notes = [f"the lowest and the highest of every {2 * every} steps"] if every > 1 else []
    if len(kept) < len(labels):
        notes.append(f"the {len(kept)} of {len(labels)} elements that vary most")
    found = {
        "name": name,
        "unit": metric_unit(name),
        "labels": [labels[i] for i in kept],
        "first": _extremes(values),
        "time": time_data(time_s + run.start_s),
        "hold_s": float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0,
        "stepped": bool(np.all((values == np.round(values)) | ~np.isfinite(values))),
        "step": step,
        "offset": offset,
        "digits": max(0, -round(np.log10(step))),
        "note": ", ".join(notes),
        "data": base64.b64encode(packed).decode("ascii"),
    }
    return found, len(packed)


def _thinned(run: RunData, name: str) -> tuple[FloatArray, FloatArray, int]:
    """Return times (n,), values (n, labels), and how many steps one of them stands for."""
    times, parts, rows, every = list[FloatArray](), list[FloatArray](), 0, 1
    for time_s, values in signal_batches(run.signals, name):
        t, v = time_s, np.where(np.isfinite(values), values, np.nan)
        for _ in range(every.bit_length() - 1):
            t, v = _halved(t, v)
        times.append(t)
        parts.append(v)
        rows += len(t)
        if rows > 2 * _POINTS:
            t, v = _halved(np.concatenate(times), np.concatenate(parts))
            times, parts, rows, every = [t], [v], len(t), 2 * every
    return np.concatenate(times), np.concatenate(parts), every


def _halved(time_s: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return of every four rows the lowest and the highest value of each column, in their order."""
    if len(time_s) < 2:
        return time_s, values
    more = -len(time_s) % 4
    after = time_s[-1] + (time_s[1] - time_s[0]) * np.arange(1, more + 1)
    groups = np.concatenate([values, np.repeat(values[-1:], more, axis=0)])
    groups = groups.reshape(-1, 4, values.shape[1])
    gap = np.isnan(groups)
    low_at = np.where(gap, np.inf, groups).argmin(axis=1)[:, None]
    high_at = np.where(gap, -np.inf, groups).argmax(axis=1)[:, None]
    at = np.concatenate([np.minimum(low_at, high_at), np.maximum(low_at, high_at)], axis=1)
    kept = np.take_along_axis(groups, at, axis=1).reshape(-1, values.shape[1])
    return np.concatenate([time_s, after])[::2], kept


def _range(values: FloatArray) -> FloatArray:
    low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    return np.asarray(np.nan_to_num(high - low, nan=-1.0))


def _extremes(values: FloatArray) -> list[int]:
    """Return which elements have the highest and the lowest value of all."""
    known = np.isfinite(values)
    if not known.any():
        return []
    high = np.where(known, values, -np.inf).max(axis=0).argmax()
    low = np.where(known, values, np.inf).min(axis=0).argmin()
    return list(dict.fromkeys((int(high), int(low))))


def _packed(values: FloatArray) -> tuple[bytes, float, int]:
    """Return values as compressed differences in whole steps, the step, and the first step.

    A step is a power of ten, so that at least 500 of them span the signal.
    """
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    span = (high - low) or abs(high) or 1.0
    step = float(10.0 ** np.floor(np.log10(span / _LEVELS)))
    offset = round(low / step)
    whole = np.nan_to_num(np.round(values / step) - offset, nan=_GAP).astype("<i2")
    steps = np.diff(whole, axis=0, prepend=np.zeros((1, values.shape[1]), "<i2"))
    planes = np.ascontiguousarray(steps.T).view(np.uint8).reshape(-1, 2).T
    return zlib.compress(planes.tobytes()), step, offset
