"""The actions on Modbus frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from federates.attacks.modbus.action import NO_LIMITS, Limits, ModbusAction
from federates.scenario.attack_wording import formula
from grid_models.base.errors import nearest_hint
from grid_models.base.sections import Period

if TYPE_CHECKING:
    from hil.devices.spec import DeviceSpec


class PointAction(ModbusAction):
    """Base of the actions on one point of the device file."""

    point: str = Field(description="Point of the device file.")

    def point_problem(self, device: str, file: DeviceSpec) -> str:
        usable = [n for n, p in file.points.items() if p.type != "string"]
        if self.point not in usable:
            return (
                f"'{device}' has no point '{self.point}'; expected one of {', '.join(usable)}"
                f"{nearest_hint(self.point, usable)}"
            )
        if self.drives_device and file.points[self.point].table in ("input", "discrete"):
            return f"'{self.point}' of '{device}' is in a table that nobody can write"
        return ""

    @property
    def drives_device(self) -> bool:
        """Whether it changes what is written to the device."""
        return True

    def limits(self, file: DeviceSpec) -> Limits | None:
        from hil.mitm.rules import limits_of

        return limits_of(file, self.point) if self.drives_device else NO_LIMITS


class Rewrite(PointAction):
    """Rewrites a point's registers on the wire, in what is read or in what is written."""

    rule_class = "RewriteRule"
    kind: Literal["rewrite"]
    direction: Literal["read", "write"] = Field(
        "read", description="What the adapter reads, or what it writes."
    )
    value: float | None = Field(None, description="In engineering units, in place of the true one.")
    factor: float = Field(1.0, description="What the value is multiplied by.")
    bias: float = Field(0.0, description="What is added to the value, in engineering units.")
    hide: bool = Field(
        False,
        description="Writes: whoever reads the point meanwhile is shown what was asked for, so "
        "that reading back finds nothing.",
    )

    @model_validator(mode="after")
    def _hides_writes(self) -> Rewrite:
        if self.hide and self.direction == "read":
            raise ValueError("hide belongs to direction: write")
        return self

    def describe(self, unit: str = "") -> str:
        way = "what is read" if self.direction == "read" else "what is written"
        hidden = ", and shows readers what was asked for" if self.hide else ""
        new = formula(self.factor, self.bias, self.value)
        return f"rewrites {self.point} in {way}: {new}{hidden}"

    @property
    def drives_device(self) -> bool:
        return self.direction == "write"

    def acts_on(self) -> str:
        return f"{self.point} ({self.direction})"

    def point_problem(self, device: str, file: DeviceSpec) -> str:
        usable = {n: p for n, p in file.points.items() if p.type != "string"}
        if self.drives_device and self.point in usable and usable[self.point].access == "r":
            writable = [n for n, p in usable.items() if p.access != "r"]
            return (
                f"nobody writes '{self.point}' of '{device}'; expected one of "
                f"{', '.join(writable) or 'the points with access rw, of which it has none'}"
            )
        return super().point_problem(device, file)

    def rule_options(self, limits: Limits) -> dict[str, Any]:
        return super().rule_options(limits) | {"low": limits[0], "high": limits[1]}


class WritePoint(PointAction):
    """Writes a point itself when the step begins; the adapter's own writes still come after it."""

    words = "writes {point} = {value:g}"
    rule_class = "WriteRule"
    kind: Literal["write"]
    value: float = Field(description="In engineering units.")

    def acts_on(self) -> str:
        return f"{self.point} (written by the attack)"

    def rule_options(self, limits: Limits) -> dict[str, Any]:
        low, high = limits
        return {"point": self.point, "value": min(max(self.value, low), high)}


class ForgeException(ModbusAction):
    """Answers requests with a Modbus exception."""

    words = "answers with Modbus exception {code}"
    rule_class = "ExceptionRule"
    kind: Literal["exception"]
    code: Annotated[int, Field(ge=1, le=255)] = Field(
        4, description="Modbus exception code; 4 is 'server device failure'."
    )


class DelayFrames(ModbusAction):
    """Holds requests back, in wall-clock time; those behind them wait as well."""

    words = "delivers {delay} late"
    rule_class = "DelayRule"
    kind: Literal["delay"]
    delay_s: Period = Field(description="By how much.")


class DropFrames(ModbusAction):
    """Swallows requests and replies; a connection that is not Modbus is cut."""

    words = "drops; nothing new arrives"
    rule_class = "DropRule"
    kind: Literal["drop"]


class Flood(ModbusAction):
    """Sends further requests to the device."""

    words = "sends {requests_per_s:g} further requests per second"
    rule_class = "FloodRule"
    kind: Literal["flood"]
    requests_per_s: Annotated[float, Field(gt=0, le=10_000)] = Field(100.0, description="How many.")
