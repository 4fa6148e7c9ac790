"""What a hosting study knows: a feeder with sites, its day, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grid_models.base.errors import FeederError
from grid_models.batched.power_flow import BatchedFeeder, BatchFlow
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.feeder.model import Der
from grid_models.hosting.limits import Excess, LimitCheck, Limits
from grid_models.hosting.switching import Switching

_CASES_AT_ONCE = 4000
"""Cases whose voltages and currents are held in memory at a time."""


@dataclass(frozen=True)
class HostingModel:
    """A feeder whose last S DERs are the sites where units may be added, over T steps of a day.

    All powers are those of the whole feeder, also where `feeder` is a single-phase equivalent.

    Attributes
    ----------
    feeder : At fixed taps; its DERs are those already there, then the sites.
    sites : (S,)
    load_kva : complex (T, n_loads). Demand at rated voltage.
    der_kva : complex (T, n_ders - S). Injections of the DERs already there.
    hours : (T,). Time of day of each step, h.
    step_h : Length of a step.
    pv_pu : (T,). Output of a PV unit over its rating.
    temp_c : (T,). Outdoor temperature.
    limits : What has to be kept.
    peak_kva : Base of percentages, where the steps are a part of the day. None: of these steps.
    watt_scale : Power of the feeder over power in `feeder`: 3 for a single-phase equivalent.
    """

    feeder: BatchedFeeder
    sites: tuple[Der, ...]
    load_kva: ComplexArray
    der_kva: ComplexArray
    hours: FloatArray
    step_h: float
    pv_pu: FloatArray
    temp_c: FloatArray
    limits: Limits
    watt_scale: float = 1.0
    peak_kva: float | None = None

    @cached_property
    def check(self) -> LimitCheck:
        """The limits as rows of arrays."""
        switching = None
        if self.limits.deviation_pu is not None:
            switching = Switching(self.feeder, tuple(site.name for site in self.sites))
        network = self.feeder.network
        return LimitCheck(network, self.limits, self.watt_scale, self.step_h, switching)

    @property
    def demand_kva(self) -> ComplexArray:
        """Demand of all loads together, complex (T,); of DERs that draw, where there is no load."""
        demand = self.load_kva.sum(axis=1)
        if not demand.any():
            demand = -np.where(self.der_kva.real < 0.0, self.der_kva, 0.0).sum(axis=1)
        return np.asarray(demand, dtype=np.complex128)

    @property
    def base_kva(self) -> float:
        """Largest apparent power of the demand over the day; percentages are of it.

        Raises FeederError: There is no demand.
        """
        if self.peak_kva is not None:
            return self.peak_kva
        peak = float(np.abs(self.demand_kva).max())
        if peak == 0.0:
            raise FeederError(
                "nothing draws power in any step",
                where="hosting capacity",
                expected="loads, whose peak percentages and the search are in terms of",
            )
        return peak

    @property
    def n_buses(self) -> int:
        """Buses that have a voltage, without the source's."""
        return len({label.rpartition(".")[0] for label in self.check.labels("overvoltage")})

    def flow(
        self,
        site_kva: ArrayLike = 0.0,
        steps: NDArray[np.intp] | None = None,
        load_kva: ArrayLike | None = None,
        start: BatchFlow | None = None,
    ) -> BatchFlow:
        """Return N designs at T' steps as N T' cases, the steps of a design side by side.

        Parameters
        ----------
        site_kva : complex (N, T', S), (T', S) or a number. Injections at the sites.
        steps : (T',). Positions of the steps; default: all.
        load_kva : complex (N, T', n_loads). In place of the model's own demand.
        start : Flow of as many similar cases.
        """
        steps = np.arange(len(self.hours)) if steps is None else steps
        added = np.asarray(site_kva, dtype=np.complex128)
        added = np.broadcast_to(added, (*added.shape[:-2], len(steps), len(self.sites)))
        added = added.reshape(-1, len(steps), len(self.sites))
        n = len(added)
        there = np.broadcast_to(self.der_kva[steps], (n, len(steps), self.der_kva.shape[1]))
        ders = np.concatenate([there, added], axis=2).reshape(n * len(steps), -1)
        if load_kva is None:
            loads = np.tile(self.load_kva[steps], (n, 1))
        else:
            loads = np.asarray(load_kva).reshape(n * len(steps), -1)
        scale = self.watt_scale
        return self.feeder.solve(loads / scale, ders / scale, start=start)

    def excess(
        self,
        site_kva: ComplexArray,
        steps: NDArray[np.intp] | None = None,
        load_kva: ComplexArray | None = None,
    ) -> Excess:
        """Return how far N designs at T' steps are beyond the limits, as N T' cases.

        `site_kva`: complex (N, T', S). `steps`, `load_kva`: As for `flow`.
        """
        steps = np.arange(len(self.hours)) if steps is None else steps
        # A mean current is of steps that follow one another, and a study may leave some out.
        instants = np.rint(np.unwrap(self.hours, period=24.0)[steps] / self.step_h).astype(np.intp)
        at_once = max(1, _CASES_AT_ONCE // len(steps))
        parts = []
        for first in range(0, len(site_kva), at_once):
            at = slice(first, first + at_once)
            load = None if load_kva is None else load_kva[at]
            parts.append(self.check.excess(self.flow(site_kva[at], steps, load), instants))
        value = np.concatenate([part.value for part in parts])
        return Excess(value, np.concatenate([part.element for part in parts]), parts[0].size)


def refuse_darkness(pv_pu: FloatArray) -> None:
    """Refuse a day on which PV has no output, of which a study would find any capacity.

    Raises FeederError
    """
    if not (pv_pu > 0.0).any():
        raise FeederError(
            "the sun does not shine in any step",
            where="hosting capacity of PV",
            expected="a day, or hours of daylight",
        )
