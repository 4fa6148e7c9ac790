"""Keys of a device federate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from federates.scenario.kinds import GridUserSection
from grid_models.base.sections import Duration, Section


class DeviceOptions(Section):
    """Settings of a device federate."""

    points: dict[str, str | None] = Field(
        {},
        description="Points of the device files by port, where they have another name; null for "
        "what the devices do not measure.",
    )
    power_factor: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95, description="Of thermostats, which do not measure reactive power; lagging."
    )
    houses: Literal["own", "feeder"] = Field(
        "own",
        description="Of simulated and emulated thermostats: 'feeder' gives each the house that the "
        "feeder simulates under its name, with the same walls and set-points; 'own' another one of "
        "its size.",
    )
    settle_s: Duration = Field(
        0.0,
        description="How long simulated and emulated devices run before the first step, without "
        "set-points and in the weather before it, so that houses start in different states.",
    )


class DeviceFederateSection(GridUserSection):
    """DERs behind Modbus/TCP, all of one role: inverters, batteries or thermostats."""

    kind: Literal["device"]
    devices: Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="By name or glob of DERs: 'simulated', 'emulated', 'emulated:CONFIG' (an "
        "emulator configuration), or a device file (path, or name of a shipped one); later entries "
        "win.",
    )
    not_good: Literal["hold", "model", "fail"] = Field(
        "hold",
        description="What the grid sees of a device whose values are not good: the last good "
        "ones, those of its model, or the end of the run.",
    )
    options: DeviceOptions = DeviceOptions()
