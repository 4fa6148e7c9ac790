"""A recorded or foreign trace as an attack: one step per port, values played as they were."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from controllers.core.mail import FloatArray
from federates.attacks.signal.replay import ReplayValues
from federates.attacks.signal.trace_file import read_trace
from federates.errors import ScenarioError
from federates.scenario.attack_files import adopt
from federates.scenario.attack_schema import AttackSpec, Step, Target, Trigger
from federates.scenario.yaml_source import YamlSource

_SHORTEST_S = 1e-6  # of a step of an attack: `grid_models.base.sections.Period`


@dataclass(frozen=True)
class _TraceSource(YamlSource):
    """Where the steps come from: a problem is one of the trace, not of an attack file."""

    ports: tuple[str, ...] = ()

    def where(self, path: Sequence[str | int]) -> str:
        step = path[1] if len(path) > 1 else None
        port = f": port {self.ports[step]}" if isinstance(step, int) else ""
        return f"{self.name}{port}"


def trace_attack(
    path: Path,
    kind: Literal["attack", "disturbance"],
    offset_s: float,
    speed: float,
    horizon_s: float,
    step_s: float,
) -> AttackSpec:
    """Return an attack that plays a trace.

    Parameters
    ----------
    path : As `trace_file.read_trace` takes it.
    offset_s : Time of the run at which the trace's time is 0.
    speed : Seconds of the trace per second of the run.
    horizon_s : End of the run.
    step_s : How long a trace of a single time lasts.

    Raises ScenarioError: The trace cannot be read, is empty, or plays outside the run.
    """
    if not (np.isfinite(speed) and speed > 0.0 and np.isfinite(offset_s)):
        what = f"offset {offset_s:g} and speed {speed:g}"
        raise ScenarioError(what, where=str(path), expected="finite numbers, the speed above 0")
    times, ports, labels, _ = read_trace(path)
    if not len(times):
        raise ScenarioError(
            "holds no value of a signal", where=str(path), expected="at least one row"
        )
    begin_s, end_s = _window(times, offset_s, speed, step_s)
    if fault := _outside(begin_s, end_s, horizon_s, float(times.min()), speed):
        window = f"would play from {begin_s:.10g} to {end_s:.10g} s"
        raise ScenarioError(window, where=str(path), expected=fault)
    begin_s, file = max(begin_s, 0.0), str(path.resolve())
    of_port: dict[str, dict[str, None]] = {}
    for port, label in zip(ports, labels, strict=True):
        of_port.setdefault(port, {})[label] = None
    steps = [
        Step(
            id=_id(port, n),
            title=f"plays {path.name}",
            layer="signal",
            trigger=Trigger(at_s=begin_s),
            duration_s=None if end_s > horizon_s else end_s - begin_s,
            target=Target(port=_exactly(port), labels=_labels(path, names)),
            action=ReplayValues(kind="replay", file=file, offset_s=offset_s - begin_s, speed=speed),
        )
        for n, (port, names) in enumerate(of_port.items())
    ]
    what = "recorded or foreign values are played in place of the run's own"
    spec = AttackSpec(
        id=_id(path.stem, 0),
        kind=kind,
        title=f"The trace {path.name} as {'an' if kind == 'attack' else 'a'} {kind}",
        description=f"From {begin_s:.10g} to {min(end_s, horizon_s):.10g} s {what}.",
        steps=steps,
    )
    adopt(spec, _TraceSource(str(path), {}, ports=tuple(of_port)), path.resolve().parent)
    return spec


def _outside(begin_s: float, end_s: float, horizon_s: float, first_s: float, speed: float) -> str:
    """Say what would have been played of the run; '' where enough of a trace is."""
    if end_s <= 0.0 or begin_s >= horizon_s:
        at_0 = 0.0 - first_s / speed
        hint = f"; --offset {in_full(at_0)} plays its first row at 0" if np.isfinite(at_0) else ""
        return f"a time of the run, 0 to {horizon_s:g} s{hint}"
    if end_s - max(begin_s, 0.0) < _SHORTEST_S:
        return f"at least {_SHORTEST_S:g} s of the run; found --speed {in_full(speed)}"
    return ""


def _window(times: FloatArray, offset_s: float, speed: float, step_s: float) -> tuple[float, float]:
    """Return from when to when a trace plays; its last row lasts as long as rows mostly do."""
    distinct = np.unique(times)
    with np.errstate(over="ignore"):
        last_s = float(np.median(np.diff(distinct))) if len(distinct) > 1 else step_s * speed
    first_s, end_s = float(distinct[0]), float(distinct[-1]) + last_s
    return offset_s + first_s / speed, offset_s + end_s / speed


def in_full(number: float) -> str:
    """Return a number that reads back as the same one: an offset may be seconds since 1970."""
    return repr(float(number)).removesuffix(".0")


def _labels(path: Path, names: Iterable[str]) -> list[str]:
    """Return the labels of a port that are played; a recording may hold some without a reader."""
    return ["*"] if path.parent.name == "signals" else [_exactly(x) for x in names]


def _id(words: str, n: int) -> str:
    text = re.sub(r"[^A-Za-z0-9_-]+", "-", words).strip("-") or "trace"
    text = text if text[0].isalpha() else f"trace-{text}"
    return f"{text}-{n + 1}" if n else text


def _exactly(name: str) -> str:
    """Return the glob that only this name matches."""
    return re.sub(r"([*?[])", r"[\1]", name)
