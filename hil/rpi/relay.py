"""When a relay closes (hysteresis, least times on and off), and the relays on GPIO pins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hil.servers.thermostat import Targets


class Use(StrEnum):
    """What runs."""

    none = "none"
    cooling = "cooling"
    heating = "heating"


@dataclass(frozen=True)
class RelayTiming:
    """Band and least times.

    Attributes
    ----------
    band_k : Whole width of the band round a set-point.
    least_on_s, least_off_s : float
        A compressor that starts against pressure is damaged: three minutes off is customary.
    """

    band_k: float = 1.0
    least_on_s: float = 60.0
    least_off_s: float = 180.0


class RelayControl:
    """Decides what runs; no hardware.

    It starts at `now_s` as if the unit had just been switched off: what it did before is not known.

    Attributes
    ----------
    use : What runs now.
    waiting : Whether a least time delays a switch.
    """

    def __init__(self, timing: RelayTiming, now_s: float) -> None:
        self.timing = timing
        self.use = Use.none
        self.waiting = False
        self._since_s = now_s

    def step(self, now_s: float, temp_c: float | None, targets: Targets) -> Use:
        """Return what runs from now on; nothing where the room temperature is not known (None)."""
        if temp_c is None or not targets.may_run:
            self.waiting = False
            self._switch(Use.none, now_s)  # at once: an unknown room is not heated any longer
            return self.use
        wanted = self._wanted(temp_c, targets)
        if wanted is not self.use:
            least_s = self.timing.least_off_s if self.use is Use.none else self.timing.least_on_s
            if now_s - self._since_s >= least_s:
                # Between cooling and heating there is always a rest.
                self._switch(wanted if self.use is Use.none else Use.none, now_s)
        self.waiting = wanted is not self.use
        return self.use

    def _wanted(self, temp_c: float, targets: Targets) -> Use:
        half = 0.5 * self.timing.band_k
        cool_from = targets.cool_c + (-half if self.use is Use.cooling else half)
        heat_from = targets.heat_c + (half if self.use is Use.heating else -half)
        if temp_c > cool_from:
            return Use.cooling
        return Use.heating if temp_c < heat_from else Use.none

    def _switch(self, use: Use, now_s: float) -> None:
        if use is not self.use:
            self.use, self._since_s = use, now_s


class Relays:
    """Relays on GPIO pins, through gpiozero: one for cooling, one for heating, or one of them.

    Never both are closed.

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
