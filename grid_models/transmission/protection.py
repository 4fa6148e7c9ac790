"""What acts by itself: load shedding, machine protection, automatic generation control.

Each reads speeds or flows after a step of integration and counts its own delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grid_models.base.options import Options, checked_number, option
from grid_models.transmission.model import FloatArray, TransmissionError
from grid_models.transmission.system import TransmissionSystem

_ROUNDING_S = 1e-9  # of a sum of steps


@dataclass(frozen=True)
class LoadShedding(Options):
    """Under-frequency load shedding, a relay at every bus with demand.

    The default stages are of the kind that NERC PRC-006 asks of its regions: together a quarter
    of the load above 58.5 Hz.
    """

    error = TransmissionError
    stages: Sequence[tuple[float, float]] = option(
        ((59.5, 0.07), (59.3, 0.07), (59.1, 0.07), (58.9, 0.07)),
        "frequency in Hz below which a relay sheds this part of its bus' demand",
        shown="list of [hz, part]",
    )
    delay_s: float = option(0.2, "time below the frequency before a stage acts", low=0.0)

    def check(self) -> None:
        """Check the stages: parts that are at most the whole load."""
        pairs = tuple(self.stages) if isinstance(self.stages, (list, tuple)) else ()
        if not pairs or any(not isinstance(s, (list, tuple)) or len(s) != 2 for s in pairs):
            raise TransmissionError(
                f"{self.stages!r} is not accepted",
                where="option 'stages'",
                expected="a list of pairs of Hz and part of the load, such as [[59.5, 0.07]]",
            )
        for hz, part in pairs:
            checked_number("stages", hz, low=0.0, open_low=True, error=TransmissionError)
            checked_number("stages", part, low=0.0, high=1.0, error=TransmissionError)
        if sum(part for _, part in pairs) > 1.0 + 1e-9:
            raise TransmissionError(
                "the stages shed more than the whole load",
                where="option 'stages'",
                expected="parts whose sum is at most 1",
            )

    def check_nominal(self, nominal_hz: float) -> None:
        """Check that no stage acts at the system's nominal frequency."""
        highest = max(hz for hz, _ in self.stages)
        if highest >= nominal_hz:
            raise TransmissionError(
                f"a stage at {highest:g} Hz",
                where="option 'stages'",
                expected=f"less than the nominal {nominal_hz:g} Hz",
            )


@dataclass(frozen=True)
class MachineProtection(Options):
    """Under- and over-frequency protection, a relay at every machine."""

    error = TransmissionError
    under_hz: float = option(57.5, "trip below this speed", low=0.0)
    over_hz: float = option(61.8, "trip above this speed", low=0.0)
    delay_s: float = option(1.0, "time beyond a limit before the machine trips", low=0.0)

    def check(self) -> None:
        """Check the order of the limits."""
        if self.under_hz >= self.over_hz:
            raise TransmissionError(
                f"{self.under_hz:g} is not accepted",
                where="option 'under_hz'",
                expected=f"less than over_hz, {self.over_hz:g}",
            )

    def check_nominal(self, nominal_hz: float) -> None:
        """Check that the limits are on both sides of the system's nominal frequency."""
        if not self.under_hz < nominal_hz < self.over_hz:
            raise TransmissionError(
                f"limits of {self.under_hz:g} and {self.over_hz:g} Hz",
                where="options 'under_hz' and 'over_hz'",
                expected=f"one below and one above the nominal {nominal_hz:g} Hz",
            )


@dataclass(frozen=True)
class GenerationControl(Options):
    """Automatic generation control (AGC): tie-line bias control of each area.

    Every `cycle_s` the area control error, export beyond that at the start plus bias times
    frequency deviation, is integrated; its turbines share the result by their reserve.
    """

    error = TransmissionError
    cycle_s: float = option(2.0, "time between set-points", above=0.0)
    integral_s: float = option(30.0, "time constant of the integral", above=0.0)
    bias_pu: float | None = option(
        None,
        "power by frequency, per unit of the area's turbines; null: by their droop",
        low=0.0,
    )


class Relays:
    """Relays that act once, after a time without interruption beyond their limit."""

    def __init__(self, shape: tuple[int, ...], delay_s: float) -> None:
        self.acted: NDArray[np.bool_] = np.zeros(shape, bool)
        self._beyond_s = np.zeros(shape)
        self._delay_s = delay_s

    def look(self, beyond: NDArray[np.bool_], step_s: float) -> NDArray[np.bool_]:
        """Return which relays act now, given which are beyond their limit."""
        self._beyond_s = np.where(beyond, self._beyond_s + step_s, 0.0)
        now: NDArray[np.bool_] = (
            beyond & ~self.acted & (self._beyond_s >= self._delay_s - _ROUNDING_S)
        )
        self.acted |= now
        return now


class Shedding:
    """The state of the load-shedding relays: (n_stages, n_buses)."""

    def __init__(self, options: LoadShedding, n_buses: int) -> None:
        self.hz = np.array([hz for hz, _ in options.stages])
        self.part = np.array([part for _, part in options.stages])
        self._relays = Relays((len(self.hz), n_buses), options.delay_s)

    @property
    def kept(self) -> FloatArray:
        """Part of the demand of each bus that is still connected, (n_buses,)."""
        return np.asarray(1.0 - self.part @ self._relays.acted)

    def look(
        self, frequency_hz: FloatArray, loaded: NDArray[np.bool_], step_s: float
    ) -> NDArray[np.bool_]:
        """Return which stages act at which buses now, (n_stages, n_buses)."""
        return self._relays.look((frequency_hz < self.hz[:, None]) & loaded, step_s)


class SecondaryControl:
    """Set-points of the governors by area; the flows it is made with are the schedule."""

    def __init__(
        self,
        options: GenerationControl,
        system: TransmissionSystem,
        droop_pu: float,
        step_s: float,
        flow_mw: tuple[FloatArray, FloatArray],
    ) -> None:
        self.every = max(1, round(options.cycle_s / step_s))
        if abs(self.every * step_s - options.cycle_s) > 1e-6 * step_s:
            raise TransmissionError(
                f"cycle_s {options.cycle_s:g}",
                where="option 'cycle_s'",
                expected=f"a multiple of the dynamics' step of {step_s:g} s",
            )
        names = system.area_names
        machine_area = [system.areas[bus] for bus in system.machine.bus]
        self._member = np.array([[area == name for area in machine_area] for name in names])
        leaving = np.array([system.leaving(name) for name in names])
        self._leaves, self._enters = leaving > 0, leaving < 0
        self._bias = 1.0 / droop_pu if options.bias_pu is None else options.bias_pu
        self._part = options.cycle_s / options.integral_s
        self._p_max = system.machine.p_max_mw
        self._change_mw = np.zeros(len(names))
        self._scheduled_mw = self._export_mw(flow_mw)

    def look(
        self,
        flow_mw: tuple[FloatArray, FloatArray],
        w_machine: FloatArray,
        start_pu: FloatArray,
        most_pu: FloatArray,
        machine_in: NDArray[np.bool_],
    ) -> FloatArray:
        """Return the turbines' set-points, (n_machines,) per unit of their power.

        flow_mw : Into both ends of the branches, each (n_branches,).
        w_machine : (n_machines,). Speed deviation of the island of each machine, per unit.
        start_pu, most_pu : (n_machines,). Set-points at the start, and limits.
        """
        size = self._member * np.where(machine_in, self._p_max, 0.0)
        error_mw = self._export_mw(flow_mw) - self._scheduled_mw + self._bias * (size @ w_machine)
        up_mw, down_mw = size @ (most_pu - start_pu), size @ start_pu
        # Within the reserves, so that the integral does not run away.
        change = np.clip(self._change_mw - self._part * error_mw, -down_mw, up_mw)
        self._change_mw = change
        up = np.divide(change, up_mw, out=np.zeros_like(change), where=change > 0.0)
        down = np.divide(change, down_mw, out=np.zeros_like(change), where=change < 0.0)
        return np.asarray(
            start_pu + (up @ self._member) * (most_pu - start_pu) + (down @ self._member) * start_pu
        )

    def _export_mw(self, flow_mw: tuple[FloatArray, FloatArray]) -> FloatArray:
        return np.asarray(self._leaves @ flow_mw[0] + self._enters @ flow_mw[1])
