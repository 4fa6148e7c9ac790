"""What every method of hosting capacity returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import FloatArray
from grid_models.hosting.limits import Excess
from grid_models.hosting.model import HostingModel


@dataclass(frozen=True)
class Binding:
    """The limit that ends a search: its kind, element and time of day.

    `kind` is "" where nothing limits it within the bounds of the search.
    """

    kind: str
    element: str
    hour: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.element}, {self.hour:g} h" if self.element else self.kind


@dataclass(frozen=True)
class HostingResult:
    """Hosting capacity of K designs: placements, sites, or one.

    Attributes
    ----------
    names : (K,). Names of the designs.
    hc_kw : (K,). PV that the design hosts; NaN where it has no solution without any.
    binding : (K,). What ends it.
    site_kw : (K, S). PV at each site.
    site_kva : complex (K, T, S). Injections of all devices at each site, by step, as accepted.
    notes : Sentences that the reader of the figures must know.
    tables : Further tables by name; of columns of equal length.
    """

    names: tuple[str, ...]
    hc_kw: FloatArray
    binding: tuple[Binding, ...]
    site_kw: FloatArray
    site_kva: NDArray[np.complex128]
    notes: tuple[str, ...] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def bindings(model: HostingModel, excess: Excess, steps: NDArray[np.intp]) -> tuple[Binding, ...]:
    """Return the worst limit of each of N designs from the excess of N T' cases.

    Limits of different kinds are compared by the excess over their own size, `Excess.size`.

    `steps`: (T',). Steps that the cases of a design are at.
    """
    check = model.check
    by_design = excess.relative.reshape(-1, len(steps) * len(check.kinds))
    found = []
    for n, at in enumerate(by_design.argmax(axis=1).tolist()):
        t, k = divmod(at, len(check.kinds))
        kind = check.kinds[k]
        if np.isinf(by_design[n, at]):
            found.append(Binding("no power flow", "", float(model.hours[steps[t]])))
            continue
        element = check.labels(kind)[excess.element[n * len(steps) + t, k]]
        found.append(Binding(kind, element, float(model.hours[steps[t]])))
    return tuple(found)
