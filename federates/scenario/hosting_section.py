"""The section ``hosting`` of a scenario: what `feederate hosting` adds to the feeder, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from grid_models.base.sections import Section, StepPeriod

# Options classes of `grid_models.hosting` check these and own their fields.
Table = dict[str, Any]
Percent = Annotated[float, Field(ge=0, le=1000)]
Several = Annotated[list[Percent], Field(min_length=2)]
DeviceName = Literal["battery", "vehicle", "heat_pump"]
HostingSites = Literal["load_buses", "load_phases", "every_bus"] | list[str]


class HostingSection(Section):
    """Units that are added to the feeder, what they must not cause, and how each method works.

    Only ``feederate hosting`` reads it. Every key has a default.
    """

    at: HostingSites = Field(
        "load_buses",
        description="Sites: one per load bus with the phases of its loads, one per load bus and "
        "phase, one per bus, or the buses that match the names or globs given.",
    )
    unit_kw: list[float] = Field(
        [3.0, 12.0],
        min_length=2,
        max_length=2,
        description="Smallest and largest PV unit of a random placement; sizes are uniform.",
    )
    model: Literal["three-phase", "balanced"] = Field(
        "three-phase",
        description="Phase by phase; or the single-phase equivalent of a radial feeder, which "
        "spreads every load and unit over three phases.",
    )
    step_s: StepPeriod = Field(
        3600.0, description="Step of the study, from time.start_s over time.duration_s."
    )
    batteries: Literal["idle", "discharging"] = Field(
        "idle",
        description="What batteries that are on the feeder already do: nothing, or full discharge "
        "in the sunniest hours until they are empty.",
    )
    power_factor: float = Field(
        1.0, gt=0, le=1.0, description="Of PV, absorbing reactive power; 1 is active power only."
    )
    battery_pct: Percent | None = Field(
        None,
        description="Batteries beside the PV in the methods dynamic and stochastic: power in "
        "percent of the coincident peak of the loads in kVA. Default: 5; stochastic twice that.",
    )
    vehicle_pct: Percent | None = Field(
        None, description="Chargers of vehicles, likewise. Default: 13.5; stochastic: 27."
    )
    heat_pump_pct: Percent | None = Field(
        None, description="Heat pumps, likewise. Default: 5.7; stochastic: 11.4."
    )
    limits: Table = Field({}, description="What has to be kept; see below.")
    noise: Table | None = Field(
        None, description="Noise on demand and PV in the method static; see below. Default: none."
    )
    static: Table = Field({}, description="Options of the method static; see below.")
    alone: Table = Field({}, description="Options of the method alone; see below.")
    dynamic: Table = Field({}, description="Options of the method dynamic; see below.")
    sensitivity: dict[DeviceName, Several] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Percentages of two kinds, as {battery: [0, 15, 30], heat_pump: [0, 15, 30]}: "
        "the method dynamic solves its first pattern for each pair of them.",
    )
    stochastic: Table = Field({}, description="Options of the method stochastic; see below.")
    days: Table = Field({}, description="Noise of the days of the method stochastic; see below.")
    devices: Table = Field(
        {}, description="What devices of the methods dynamic and stochastic can do; see below."
    )
    replay: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        25,
        description="Designs that OpenDSS solves again at all hours: those with the most and the "
        "least PV and others at random, or `all`.",
    )
    plant: str | None = Field(
        None, description="Plant whose feeder is meant, where the scenario has several."
    )

    @model_validator(mode="after")
    def _sizes(self) -> HostingSection:
        low, high = self.unit_kw
        if not 0.0 < low <= high:
            raise ValueError(f"unit_kw [{low:g}, {high:g}] is no range above 0")
        return self
