"""The protocol of a detector: what a third party implements to watch a co-simulation.

A detector reads what the operator sees, forged or not, and returns one score per label and step; at
a score of 1 it raises an alarm. Detectors are pure and deterministic: no files, no clocks, no
random stream, no knowledge of the attack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from grid_models.base.errors import nearest_name
from grid_models.feeder.model import Feeder

ALARM_SCORE = 1.0
LEAST_HISTORY = 30
"""Steps of clean data below which the shipped detectors refuse to learn."""


@dataclass(frozen=True)
class Forecast:
    """The day as the operator expects it; a row holds from its `time_s` until the next.

    Attributes
    ----------
    time_s : (k,). Seconds since the start of the run, rising.
    load_pu : (k,). Every load as a multiple of its nominal power.
    irradiance_pu : (k,)
    """

    time_s: FloatArray
    load_pu: FloatArray
    irradiance_pu: FloatArray

    def load_at(self, time_s: FloatArray | float) -> FloatArray:
        """Return the expected load factor at one time or at several."""
        row = np.searchsorted(self.time_s, time_s, side="right") - 1
        return np.asarray(self.load_pu[np.clip(row, 0, len(self.time_s) - 1)])


@dataclass(frozen=True)
class DetectionSite:
    """Design-time knowledge of a detector.

    Attributes
    ----------
    feeder : The feeder as the operator knows it (its DERs included).
    period_s : Time between two steps of the detector.
    """

    feeder: Feeder
    period_s: float
    forecast: Forecast

    def port(self, name: str, globs: Sequence[str] = ("*",)) -> Port:
        """Return an input port for a signal of the grid, optional in the wiring.

        Its initial value is NaN: a label that nothing feeds is not measured.

        `globs`: Over the labels wanted.

        Raises ControllerError: There is no such signal; the nearest is named.
        """
        ders = tuple(der.name for der in self.feeder.ders)
        known: dict[str, tuple[str, tuple[str, ...]]] = {
            "v_pu": ("pu", self.feeder.node_labels),
            "p_kw": ("kW", ders),
            "q_kvar": ("kvar", ders),
            "p_set_kw": ("kW", ders),
            "q_set_kvar": ("kvar", ders),
            "import_kw": ("kW", ("source",)),
            "import_kvar": ("kvar", ("source",)),
            "losses_kw": ("kW", ("source",)),
        }
        if name not in known:
            raise ControllerError(
                f"no signal of the grid is called '{name}'",
                expected="one of " + ", ".join(known),
                nearest=nearest_name(str(name), known),
            )
        unit, labels = known[name]
        chosen = tuple(x for x in labels if any(fnmatchcase(x, glob) for glob in globs))
        return Port(name, unit, chosen, initial=np.nan, required=False)


@dataclass(frozen=True)
class History:
    """What a detector would have read while nothing was wrong.

    Attributes
    ----------
    time_s : (k,)
    inputs : (k, n_labels). NaN where nothing was measured.
    forecast : That of the time the history comes from.
    """

    time_s: FloatArray
    inputs: Mapping[str, FloatArray]
    forecast: Forecast


@runtime_checkable
class Detector(Protocol):
    """Constructed as ``cls(site, **options)``; see the module's docstring for the rules.

    Optional methods: ``calibrate(history)`` learns from clean data; it is called at most once,
    between two steps, and needs ``least_history`` steps (`LEAST_HISTORY` without that attribute).
    ``take_events()`` is called after each step and returns a list of mappings with the key
    ``event``.
    """

    inputs: tuple[Port, ...]
    """What it reads. NaN is a value that was not measured."""
    labels: tuple[str, ...]
    """What its scores are about: checks, or signals as ``port:label``."""

    def __init__(self, site: DetectionSite, **options: Any) -> None: ...

    def step(self, time_s: float, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """Return the scores (n_labels,), finite and not negative; 1 is the alarm's threshold."""
        ...
