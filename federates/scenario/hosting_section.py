"""The section ``hosting`` of a scenario: what `feederate hosting` adds to the feeder, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema, model_validator

from grid_models.base.sections import Section, StepPeriod
from grid_models.hosting.limits import Limits

# `Limits` checks its values and owns its fields; its schema is generated from there.
LimitTable = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(Limits).json_schema())]
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
        description="What batteries that are on the feeder already do in the methods static and "
        "alone: nothing, or full discharge in the sunniest hours until they are empty.",
    )
    power_factor: float = Field(
        1.0, gt=0, le=1.0, description="Of PV, absorbing reactive power; 1 is active power only."
    )
    limits: LimitTable = Field({}, description="What has to be kept; see below.")
    static: dict[str, Any] = Field({}, description="Options of the method static.")
    alone: dict[str, Any] = Field({}, description="Options of the method alone.")
    replay: int | Literal["all"] = Field(
        25,
        ge=1,
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
