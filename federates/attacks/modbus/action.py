"""What an action of the modbus layer is: a rule for the proxy before a device."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from federates.scenario.attack_actions import Action

if TYPE_CHECKING:
    from hil.devices.file import DeviceSpec
    from hil.mitm.rules import Rule

Limits = tuple[float, float]
NO_LIMITS: Limits = (-math.inf, math.inf)


class ModbusAction(Action):
    """Base of the actions on Modbus frames.

    A subclass declares its options as fields and returns the rule of `hil.mitm.rules` that the
    proxy follows while the step is active.
    """

    layer: ClassVar[str] = "modbus"

    @abstractmethod
    def rule(self, step: int, probability: float, name: str, limits: Limits = NO_LIMITS) -> Rule:
        """Return what the proxy does.

        Parameters
        ----------
        step : Position in the attack.
        name : The step's id.
        limits : What it writes stays within them, in the point's unit.
        """

    def acts_on(self) -> str:
        """Return what it acts on of a device, in words; two active steps must not share it."""
        return f"({self.kind})"

    def point_problem(self, device: str, file: DeviceSpec) -> str:
        """Say why its point cannot be attacked on a device; '' if it can or there is no point."""
        return ""

    def limits(self, file: DeviceSpec) -> Limits | None:
        """Return what it may drive a real device to; None where the file has no limits."""
        return NO_LIMITS
