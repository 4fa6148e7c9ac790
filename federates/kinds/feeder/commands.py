"""Inputs of a feeder federate by which others switch it; they exist where something is connected.

NaN leaves an element as it is, and gives a regulator or capacitor back to its own control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from federates.core.federate import FloatArray, Port
from federates.kinds.feeder.events import Tell
from federates.kinds.feeder.ports import Measured
from federates.kinds.feeder.switchgear import Switchgear
from federates.scenario.schema import Scenario

INPUTS: Mapping[str, tuple[str, str]] = {
    "tap_set": (
        "step",
        "Tap per regulator, in steps from neutral. Its own control does not act meanwhile.",
    ),
    "cap_set": (
        "step",
        "Steps in service per capacitor bank, 0 or 1 for a bank of one. Its own control does not "
        "act meanwhile.",
    ),
    "switch_set": ("1", "1 closes and 0 opens a line or switch, all phases."),
    "load_scale": ("1", "Factor on the demand of each load, besides the profile's."),
}


def used_inputs(scenario: Scenario, federate: str) -> tuple[str, ...]:
    """Return which of `INPUTS` a connection feeds."""
    fed = {wire.target for wire in scenario.wires}
    return tuple(name for name in INPUTS if f"{federate}.{name}" in fed)


class _Group(NamedTuple):
    """Elements of one input: what they may be set to, and what sets one of them."""

    names: Sequence[str]
    lowest: FloatArray
    highest: FloatArray
    command: Callable[[int, int], None]
    release: Callable[[int], None]


class GridCommands:
    """Applies the commands that changed since the last step.

    A command that is no whole number, or is out of range, is rounded and limited; the event
    ``command_limited`` says so.

    Parameters
    ----------
    names : Which of `INPUTS` the scenario feeds.
    gear : Opens and closes lines and switches; needed for ``switch_set``.

    Attributes
    ----------
    ports : What the federate adds to its inputs.
    load_scale : (n_loads,), or None where nothing scales loads.
    """

    def __init__(self, measured: Measured, names: Sequence[str], gear: Switchgear | None) -> None:
        self._gear = gear
        self._closed: dict[str, bool] = {}
        self._groups = {name: self._group(name, measured) for name in names if name != "load_scale"}
        labels = {name: tuple(group.names) for name, group in self._groups.items()}
        if "load_scale" in names:
            labels["load_scale"] = measured.circuit.load_names
        self.ports = tuple(
            Port(name, INPUTS[name][0], labels[name], initial=np.nan, required=False)
            for name in names
        )
        self._last = {port.name: np.full(len(port.labels), np.nan) for port in self.ports}
        self.load_scale: FloatArray | None = None

    def _group(self, name: str, measured: Measured) -> _Group:
        if name == "tap_set":
            taps = measured.taps
            return _Group(taps.names, taps.lowest, taps.highest, taps.command, taps.release)
        if name == "cap_set":
            banks = measured.capacitors
            zero = np.zeros(len(banks.names))
            return _Group(banks.names, zero, banks.highest, banks.command, banks.release)
        assert self._gear is not None
        lines = self._gear.names
        n = len(lines)
        return _Group(lines, np.zeros(n), np.ones(n), self._switch, lambda i: None)

    def _switch(self, i: int, closed: int) -> None:
        assert self._gear is not None
        self._closed[self._gear.names[i]] = bool(closed)

    def take(self, time_s: float, inputs: Mapping[str, FloatArray], tell: Tell) -> None:
        """Read the step's inputs and act on those that changed."""
        for name, last in self._last.items():
            values = inputs[name]
            changed = (values != last) & ~(np.isnan(values) & np.isnan(last))
            if not changed.any():
                continue
            last[:] = values
            if name == "load_scale":
                self._scale(time_s, values, tell)
                continue
            group = self._groups[name]
            for i in np.flatnonzero(changed).tolist():
                self._apply(name, group, i, float(values[i]), time_s, tell)
        if self._closed and self._gear is not None:
            self._gear.command(self._closed)
            self._closed = {}

    def _apply(
        self, name: str, group: _Group, i: int, value: float, time_s: float, tell: Tell
    ) -> None:
        if np.isnan(value):
            group.release(i)
            return
        applied = round(float(np.clip(value, group.lowest[i], group.highest[i])))
        if applied != value:
            tell(
                "command_limited",
                time_s,
                port=name,
                element=group.names[i],
                asked=value,
                applied=applied,
            )
        group.command(i, applied)
        if name == "switch_set":
            tell("switched", time_s, element=group.names[i], closed=bool(applied))

    def _scale(self, time_s: float, values: FloatArray, tell: Tell) -> None:
        names = next(port.labels for port in self.ports if port.name == "load_scale")
        for i in np.flatnonzero(values < 0.0).tolist():
            asked = float(values[i])
            tell(
                "command_limited",
                time_s,
                port="load_scale",
                element=names[i],
                asked=asked,
                applied=0,
            )
        self.load_scale = np.where(np.isnan(values), 1.0, np.maximum(values, 0.0))
