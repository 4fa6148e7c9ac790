"""How much energy loads draw by voltage: the price of conservation voltage reduction.

A load of nominal power P with shares z of constant impedance and i of constant current draws
``P l (z v^2 + i v + 1 - z - i)`` at a demand l of its nominal power, so

    d load / d (v^2) = P l (z + i / (2 v))

P, z and i are the feeder's; l is the day-ahead forecast of the common profile. A load between two
phases counts half at each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.real_time_opf.objectives import S_BASE_KW
from grid_models.feeder.model import node_label


class LoadEnergy:
    """d(load)/d(v^2) at nodes, per unit of `S_BASE_KW`.

    Parameters
    ----------
    rows : Labels, (m,); those that are no node have 0.
    """

    def __init__(self, site: ControlSite, rows: Sequence[str]) -> None:
        self._site = site
        at = {label: k for k, label in enumerate(rows)}
        self._nominal = np.zeros((2, len(rows)))  # impedance, current
        kinds = {"Z": 0, "I": 1}
        for load in site.feeder.all_loads:
            if load.model not in kinds:
                continue
            for phase in load.phases:
                k = at.get(node_label(load.bus, phase))
                if k is not None:
                    share = load.kw / S_BASE_KW / len(load.phases)
                    self._nominal[kinds[load.model], k] += share

    def price(self, time_s: float, v_sq: FloatArray) -> FloatArray:
        """Return the derivative at a time of the run and squared voltages, (m,)."""
        demand = float(self._site.forecast(np.array([time_s]))["load_pu"][0])
        by_current = 0.5 / np.sqrt(np.maximum(v_sq, 0.25))
        return np.asarray(demand * (self._nominal[0] + self._nominal[1] * by_current))
