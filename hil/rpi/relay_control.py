"""When a relay closes: hysteresis, least times on and off, and what overrides them. No hardware."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

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
    """Decides what runs.

    It starts as if the unit had just been switched off: what it did before is not known.

    Parameters
    ----------
    now_s : Time of the start.

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
        """Return what runs from now on.

        Parameters
        ----------
        now_s : Monotonic time.
        temp_c : Room temperature; None: unknown, so nothing runs.
        targets : What the registers ask for.
        """
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
