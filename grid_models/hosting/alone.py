"""Hosting capacity of each site alone: the map of a feeder, for generation or for load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.hosting.model import HostingModel
from grid_models.hosting.placements import Placements
from grid_models.hosting.result import HostingResult
from grid_models.hosting.search import Found, PlacementSearch, power_per_kw

_MOST_STEPS = 10**6


@dataclass(frozen=True, slots=True)
class AloneOptions(Options):
    """What is added at one site at a time.

    Raises FeederError: A value is out of range.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    direction: Literal["generation", "load"] = option(
        "generation",
        "PV with the output of the day, or load that may draw its rating in every step (chargers, "
        "heat pumps).",
        choices=("generation", "load"),
    )
    power_factor: float = option(1.0, "It absorbs reactive power below 1.", above=0.0, high=1.0)
    step_kw: float = option(1.0, "Resolution.", above=0.0)
    critical_hours: int = option(3, "Steps of the first pass; 0: it looks at every step.", low=0)
    most_pct: float = option(
        400.0, "Where the search ends, of the coincident peak in kVA.", above=0.0
    )


def alone_capacity(model: HostingModel, options: AloneOptions) -> HostingResult:
    """Return what each site takes when nothing is added elsewhere, kW of rating.

    The table `sites` has site, bus, phases, kW, percent, and limit, element and hour that end it.

    Raises FeederError: The resolution is too fine for the range.
    """
    n_sites = len(model.sites)
    n_units = max(1, round(options.most_pct / 100.0 * model.base_kva / options.step_kw))
    if n_units > _MOST_STEPS:
        raise FeederError(
            f"{n_units} steps of step_kw up to most_pct",
            where="hosting capacity of each site alone",
            expected=f"at most {_MOST_STEPS:g}",
        )
    shape = n_sites, n_units
    at = np.broadcast_to(np.arange(n_sites)[:, None], shape)
    placements = Placements(at, np.broadcast_to(options.step_kw, shape), n_sites)
    per_kw, output_pu = power_per_kw(options.power_factor), model.pv_pu[None, :, None]
    if options.direction == "load":
        per_kw, output_pu = -per_kw.conjugate(), np.ones((1, len(model.hours), 1))
    search = PlacementSearch(model, placements, per_kw, output_pu, critical=options.critical_hours)
    return search.result(tuple(site.name for site in model.sites), _site_table)


def _site_table(search: PlacementSearch, found: Found) -> Mapping[str, Mapping[str, Any]]:
    sites = search.model.sites
    table = {
        "site": [site.name for site in sites],
        "bus": [site.bus for site in sites],
        "phases": [".".join(map(str, site.phases)) for site in sites],
        "hc_kw": found.hc_kw,
        "hc_pct": 100.0 * found.hc_kw / search.model.base_kva,
        "limit": [b.kind for b in found.binding],
        "element": [b.element for b in found.binding],
        "hour": [b.hour for b in found.binding],
    }
    return {"sites": table}
