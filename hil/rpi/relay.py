"""Relays on GPIO pins, through gpiozero."""

from __future__ import annotations

from typing import Any

from hil.rpi.relay_control import Use


class Relays:
    """One relay for cooling, one for heating, or one of them; never both closed.

    Parameters
    ----------
    cool_pin, heat_pin : BCM numbers.
    active_high : False for relay boards that close at 0 V.
    pin_factory : Of gpiozero; its default unless given.
    """

    def __init__(
        self,
        cool_pin: int | None,
        heat_pin: int | None,
        *,
        active_high: bool = True,
        pin_factory: Any = None,
    ) -> None:
        from gpiozero import DigitalOutputDevice

        self._devices: dict[Use, Any] = {}
        for use, pin in ((Use.cooling, cool_pin), (Use.heating, heat_pin)):
            if pin is not None:
                self._devices[use] = DigitalOutputDevice(
                    pin, active_high=active_high, initial_value=False, pin_factory=pin_factory
                )

    def apply(self, use: Use) -> Use:
        """Close the relay of `use`, open the other; return what really runs."""
        for other, device in self._devices.items():
            if other is not use:
                device.off()
        if use in self._devices:
            self._devices[use].on()
            return use
        return Use.none

    def close(self) -> None:
        """Open all relays and give the pins back."""
        for device in self._devices.values():
            device.off()
            device.close()
