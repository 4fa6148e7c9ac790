"""Static hosting capacity: PV units are added at random sites until a limit is passed.

Thesis' slides, "Deterministic iterative method"; nothing is coordinated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.current_injection.model import ComplexArray, FloatArray
from grid_models.feeder.model import Der
from grid_models.hosting.model import HostingModel
from grid_models.hosting.placements import Placements
from grid_models.hosting.result import HostingResult
from grid_models.hosting.search import PlacementSearch, power_per_kw
from grid_models.hosting.static_tables import placement_tables


@dataclass(frozen=True, slots=True)
class StaticOptions(Options):
    """How units are placed and tested.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    placements: int = option(1000, "Random sequences of units.", low=1)
    seed: int = option(1, "Of the sequences.", low=0)
    unit_min_kw: float = option(3.0, "Smallest rating of a unit.", above=0.0)
    unit_max_kw: float = option(12.0, "Largest rating of a unit.", above=0.0)
    power_factor: float = option(
        1.0, "Of the PV; below 1 it absorbs reactive power.", above=0.0, high=1.0
    )
    critical_hours: int = option(
        3, "Steps of the first pass; 0: it looks at every step with sun.", low=0
    )
    most_pct: float = option(
        400.0, "Where the search ends, of the coincident peak in kVA.", above=0.0
    )

    def check(self) -> None:
        """Check that the sizes are in order."""
        if self.unit_max_kw < self.unit_min_kw:
            raise FeederError(
                f"unit_max_kw {self.unit_max_kw:g} is below unit_min_kw {self.unit_min_kw:g}",
                where="option 'unit_max_kw'",
                expected=f"at least {self.unit_min_kw:g}",
            )


def static_capacity(
    model: HostingModel,
    options: StaticOptions,
    pv_pu: FloatArray | None = None,
    load_kva: ComplexArray | None = None,
) -> HostingResult:
    """Return the hosting capacity of random placements of PV.

    Tables of the result, by columns of equal length:
    `placements`, what each of them hosts and what ends it;
    `curve`, over the PV installed the least, median and largest value of what each limit is about,
    among the first 100 placements, and the share of all placements that keep all limits;
    `hours`, PV output that each step would take if it were the only one, among the first 20 and by
    bisection alone.

    `pv_pu`, `load_kva`: As for `placement_search`.
    """
    search = placement_search(model, options, pv_pu, load_kva)
    names = tuple(f"placement {k}" for k in range(options.placements))
    return search.result(names, placement_tables)


def placement_search(
    model: HostingModel,
    options: StaticOptions,
    pv_pu: FloatArray | None = None,
    load_kva: ComplexArray | None = None,
) -> PlacementSearch:
    """Return the search over random placements of PV.

    Parameters
    ----------
    pv_pu : (K, T, S or 1). Output of the PV of each placement, in place of the model's.
    load_kva : complex (K, T, n_loads). Demand of each placement, in place of the model's.
    """
    sizes = options.unit_min_kw, options.unit_max_kw
    n_units = max(1, round(2.0 * options.most_pct / 100.0 * model.base_kva / sum(sizes)))
    return PlacementSearch(
        model,
        Placements.random(options.placements, len(model.sites), n_units, sizes, options.seed),
        power_per_kw(options.power_factor),
        model.pv_pu[None, :, None] if pv_pu is None else pv_pu,
        load_kva,
        options.critical_hours,
    )


def with_batteries_discharging(model: HostingModel, ders: Sequence[Der]) -> HostingModel:
    """Return the model with its batteries at full discharge around the peak of PV.

    `ders`: The DERs already there, in the order of `HostingModel.der_kva`, with the power that they
    have in the whole feeder. A battery discharges in the steps with most PV until it is empty.
    """
    der_kva = model.der_kva.copy()
    by_pv = np.argsort(-model.pv_pu, kind="stable")
    for k, der in enumerate(ders):
        if der.kind == "battery":
            n = max(1, round(der.energy_kwh / der.p_max_kw / model.step_h))
            der_kva[by_pv[:n], k] = der.p_max_kw
    return replace(model, der_kva=der_kva)
