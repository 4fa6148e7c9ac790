"""The action on settings of inverters: curves, response times, power factor, trip limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from controllers.core.mail import FloatArray
from federates.attacks.physical.action import SETTINGS, PhysicalAction
from federates.attacks.physical.elements import PhysicalElements
from hil.devices.inverter_change import CurveChange, InverterChange


class ChangeSettings(InverterChange, PhysicalAction):
    """Changes settings of inverters that are devices, and locks their owner out of them.

    At the end of the step the settings of before return, unless `on_end: leave`. A reactive power
    that a controller commands goes before any curve, in the inverter as in the standard.
    """

    port_name = SETTINGS
    kinds = ("pv", "inverter")
    kinds_text = "PV and inverters that a device federate simulates or emulates"
    only_devices = True
    numbered = True
    kind: Literal["settings"]

    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        return np.ones(len(labels))

    def describe(self, unit: str = "") -> str:
        said = [
            f"{name} {_curve_words(curve)}"
            for name, curve in (("volt-var", self.volt_var), ("volt-watt", self.volt_watt))
            if curve is not None
        ]
        if self.power_factor is not None:
            said.append(f"power factor {self.power_factor:g}")
        said += [f"trip {name.replace('_', ' ')}" for name in self.trips]
        beyond = " (beyond IEEE 1547)" if next(self.beyond(), "") else ""
        return f"changes settings: {', '.join(said)}{beyond}"


def _curve_words(curve: CurveChange) -> str:
    words = []
    points = curve.points()
    if points is not None:
        pairs = zip(*points, strict=True)
        words.append("through " + ", ".join(f"{v:g} pu {y:g} %" for v, y in pairs))
    v_ref_pu = getattr(curve, "v_ref_pu", None)
    if v_ref_pu is not None:
        words.append(f"around {v_ref_pu:g} pu")
    if getattr(curve, "v_ref_auto_s", None) is not None:
        words.append("around the terminal voltage")
    if curve.response_s is not None:
        words.append(f"in {curve.response_s:g} s")
    return " ".join(words) or "switched on"
