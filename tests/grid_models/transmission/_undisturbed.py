"""A transmission system that nothing happens to, for tests that change one thing."""

from __future__ import annotations

import numpy as np

from grid_models.transmission.model import Disturbance
from grid_models.transmission.system import TransmissionSystem


def undisturbed(system: TransmissionSystem) -> Disturbance:
    n = len(system.buses)
    return Disturbance(
        load_mw=np.zeros(n),
        load_factor=np.ones(n),
        injection_mw=np.full(n, np.nan),
        branch_in=np.ones(len(system.branches), bool),
        machine_in=np.ones(len(system.machines), bool),
    )
