"""Keys of a feeder federate."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from federates.scenario.kinds import FederateSection
from federates.scenario.sections import Grid
from grid_models.base.sections import Duration


class FeederSection(FederateSection):
    """An OpenDSS power flow of a grid; the plant that most others are connected to."""

    is_plant: ClassVar[bool] = True
    has_elements: ClassVar[bool] = True

    kind: Literal["feeder"]
    grid: Grid | None = Field(
        None, description="A grid of its own, in place of the scenario's; the same keys as `grid`."
    )
    settle_s: Duration = Field(
        0.0,
        description="Time for which houses and heaters run before the first step, without "
        "set-points and in the weather before it, so that their temperatures fit the hour.",
    )
