"""What the loads of a feeder federate demand, step by step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federates.core.federate import FloatArray
from federates.core.sites import GridSite
from grid_models.opendss.circuit import Circuit
from grid_models.profiles.load_columns import LoadColumns
from grid_models.profiles.load_diversity import LoadDiversity


class Demand:
    """The demand of every load: nominal power, the day's profile, and what differs from it.

    Parameters
    ----------
    day : The profile at each step, by column.
    origin : Of the profile, for messages.
    start_s : Time of day of the run's time 0.
    """

    def __init__(
        self,
        site: GridSite,
        circuit: Circuit,
        day: Mapping[str, FloatArray],
        origin: str,
        start_s: float,
        seed: int,
    ) -> None:
        grid, loads = site.grid, site.feeder.all_loads
        self._kw = circuit.load_kw * grid.load_scale
        self._kvar = circuit.load_kvar * grid.load_scale
        self._fixed = np.array([load.fixed for load in loads], dtype=bool)
        self._load_pu, self._start_s = day["load_pu"], start_s
        # The load shapes of the file act on the powers that are set once.
        self._own_shapes = grid.profiles.kind == "master"
        diversity = grid.load_diversity
        self._diversity = LoadDiversity(circuit.load_names, seed, diversity) if diversity else None
        with site.located("profiles", "path"):
            self._columns = LoadColumns(loads, day, origin)

    def powers(
        self, k: int, time_s: float, scale: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return kW and kvar of every load at step k, each (n_loads,).

        `scale`: (n_loads,). Factor on each load; None for 1.
        """
        if self._own_shapes:
            kw, kvar = self._kw, self._kvar
        else:
            factor: float | FloatArray = self._load_pu[k]
            if self._diversity is not None:
                factor = factor * self._diversity.factors(self._start_s + time_s)
            if self._fixed.any():
                factor = np.where(self._fixed, 1.0, factor)
            if self._columns:
                factor = self._columns.factors(k, factor)
            kw, kvar = self._kw * factor, self._kvar * factor
            if self._columns:
                kw, kvar = self._columns.powers(k, kw, kvar)
        return (kw, kvar) if scale is None else (kw * scale, kvar * scale)
