"""The actions on elements of a plant: connections, demand, thermostats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from controllers.core.mail import FloatArray
from federates.attacks.physical.action import LOAD_FACTOR, LOAD_KW, THERMOSTAT_K, PhysicalAction
from federates.attacks.physical.elements import PhysicalElements
from federates.scenario.attack_wording import span
from grid_models.base.sections import Period, Probability


class Trip(PhysicalAction):
    """Disconnects a DER, a load or a machine, or opens a line or a switch."""

    words = "trips: disconnects or opens"
    kind: Literal["trip"]

    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        return np.zeros(len(labels))


class CloseBranch(PhysicalAction):
    """Closes a switch or a line that is open."""

    kinds = ("line", "switch")
    kinds_text = "lines and switches"
    words = "closes"
    kind: Literal["close"]

    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        return np.ones(len(labels))


class DemandAction(PhysicalAction):
    """Base of the actions on demand; that of a device is its own and cannot be changed here."""

    kinds: ClassVar[tuple[str, ...]] = ("load", "house", "flexible_load")
    kinds_text = "loads, and houses and flexible loads of the feeder's own model"
    on_devices = False
    port_name = LOAD_KW


class AlterLoad(DemandAction):
    """Switches demand on: of loads, and of the HVAC of houses.

    `kw` is shared by the targets in proportion to their nominal power; `factor` multiplies it.
    """

    kind: Literal["load"]
    kw: float | None = Field(None, description="Extra demand of all targets together.")
    factor: Annotated[float, Field(ge=0)] | None = Field(None, description="Times the demand.")
    on_s: Period | None = Field(None, description="On and off in turn: time on.")
    off_s: Period | None = Field(None, description="On and off in turn: time off.")
    synchrony: Probability = Field(
        1.0, description="1: all targets switch at once; 0: spread over a whole on-off cycle."
    )

    @model_validator(mode="after")
    def _one_size(self) -> AlterLoad:
        if (self.kw is None) == (self.factor is None):
            raise ValueError("exactly one of kw, factor")
        if (self.on_s is None) != (self.off_s is None):
            raise ValueError("on_s and off_s together")
        return self

    def describe(self, unit: str = "") -> str:
        size = (
            f"adds {self.kw:g} kW of demand in all"
            if self.kw is not None
            else f"multiplies demand by {self.factor:g}"
        )
        if self.on_s is None or self.off_s is None:
            return size
        spread = "at once" if self.synchrony == 1.0 else f"with synchrony {self.synchrony:g}"
        return f"{size}, {span(self.on_s)} on and {span(self.off_s)} off, {spread}"

    @property
    def port(self) -> str:
        return LOAD_FACTOR if self.kw is None else LOAD_KW

    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        if self.kw is None:
            return np.full(len(labels), self.factor)
        nominal = np.array([elements.nominal_kw[x] for x in labels])
        if not nominal.sum() > 0.0:
            nominal = np.ones(len(labels))
        share: FloatArray = self.kw * (nominal / nominal.sum())
        return share

    def on(self, elapsed_s: float, draws: FloatArray) -> NDArray[np.bool_] | bool:
        if self.on_s is None or self.off_s is None:
            return True
        cycle_s = self.on_s + self.off_s
        late_s = draws * (1.0 - self.synchrony) * cycle_s
        active: NDArray[np.bool_] = np.mod(elapsed_s - late_s, cycle_s) < self.on_s
        return active


class MoveThermostat(PhysicalAction):
    """Moves the set-point of the thermostats of houses."""

    port_name = THERMOSTAT_K
    kinds = ("house",)
    kinds_text = "DERs of kind house"
    words = "moves thermostats by {offset_k:+g} K"
    kind: Literal["thermostat"]
    offset_k: float = Field(description="By how much, in kelvin; above 0 is warmer.")

    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        return np.full(len(labels), self.offset_k)
