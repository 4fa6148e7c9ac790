"""Electric vehicles that leave with less than they should have."""

from __future__ import annotations

import numpy as np

from federates.kinds.feeder.events import Tell
from grid_models.base.errors import listed
from grid_models.ders.vehicles import VehicleFleet


class Departures:
    """Tells of departures below the target, one event for all that leave in a step."""

    def __init__(self, vehicles: VehicleFleet) -> None:
        self._vehicles = vehicles
        self._count = 0

    def tell(self, time_s: float, tell: Tell, counts: bool) -> None:
        """Tell of the step that begins at `time_s`; `counts` is False in the warm-up."""
        short_kwh = self._vehicles.leaving_short_kwh
        short = np.flatnonzero(short_kwh).tolist()
        if short:
            self._count += counts * len(short)
            tell(
                "vehicles_left_below_target",
                time_s,
                vehicles=listed([self._vehicles.names[i] for i in short]),
                count=len(short),
                short_kwh=round(float(short_kwh.sum()), 3),
            )

    def totals(self) -> dict[str, float]:
        """Return the metric."""
        return {"vehicles_left_below_target_count": float(self._count)}
