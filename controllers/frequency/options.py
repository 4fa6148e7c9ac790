"""Options of load-side frequency control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controllers.core.options import ControllerOptions, option


@dataclass(frozen=True, slots=True)
class DppdOptions(ControllerOptions):
    """The system, limits of lines, and gains per step; see `controllers.frequency.iteration`.

    The default gains are those of the fastest iteration that also settles when every message is one
    step late (`python benchmarks/dppd.py --tune`).
    """

    system: str = option(
        "ieee39",
        "The transmission system, as of its federate; its folder has a table flexible_loads.csv.",
    )
    line_limits_mw: Any = option(
        None,
        "Limits of branches by name, MW either way, such as {16-17-1: 400}; default: none.",
        shown="mapping",
    )
    k_d: float = option(0.113, "Gain of the flexible loads; 0: no control.", low=0.0, high=1.0)
    k_z: float = option(0.118, "Gain of the tracked sub-gradient.", above=0.0, high=1.0)
    k_phi: float = option(0.438, "Gain of the virtual angles.", above=0.0, high=10.0)
    k_mu: float = option(0.938, "Gain of the prices of balance.", above=0.0, high=10.0)
    lead_mu: float = option(
        2.52, "What a bus adds to its price for its imbalance, pu/pu.", low=0.0, high=100.0
    )
    k_sigma: float = option(0.05, "Gain of the prices of lines.", above=0.0, high=1.0)
    lead_sigma: float = option(
        0.5,
        "What a line adds to its price for an excess, over what would end it.",
        above=0.0,
        high=1e3,
    )
    gamma: float = option(0.2, "Step of the proximal operator.", above=0.0, high=100.0)
