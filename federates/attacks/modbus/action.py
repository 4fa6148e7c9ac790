"""What an action of the modbus layer is: a rule for the proxy before a device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from federates.scenario.attack_actions import Action

if TYPE_CHECKING:
    from hil.devices.spec import DeviceSpec
    from hil.mitm.rules import FrameRule

Limits = tuple[float, float]
NO_LIMITS: Limits = (-math.inf, math.inf)


class ModbusAction(Action):
    """Base of the actions on Modbus frames.

    A subclass declares its options as fields, and the rule that the proxy follows while the step is
    active as `rule_class`.
    """

    layer: ClassVar[str] = "modbus"

    rule_class: ClassVar[str]
    """Name of the rule in `hil.mitm.rules`; its options are the action's fields."""

    def rule(
        self, step: int, probability: float, name: str, limits: Limits = NO_LIMITS
    ) -> FrameRule:
        """Return what the proxy does.

        Parameters
        ----------
        step : Position in the attack.
        name : The step's id.
        limits : What it writes stays within them, in the point's unit.
        """
        from hil.mitm import rules

        found: FrameRule = getattr(rules, self.rule_class)(
            step, probability, name, **self.rule_options(limits)
        )
        return found

    def rule_options(self, limits: Limits) -> dict[str, Any]:
        """Return the options of the rule."""
        return self.model_dump(exclude={"kind"})

    def acts_on(self) -> str:
        """Return what it acts on of a device, in words; two active steps must not share it."""
        return f"({self.kind})"

    def point_problem(self, device: str, file: DeviceSpec) -> str:
        """Say why its point cannot be attacked on a device; '' if it can or there is no point."""
        return ""

    def limits(self, file: DeviceSpec) -> Limits | None:
        """Return what it may drive a real device to; None where the file has no limits."""
        return NO_LIMITS
