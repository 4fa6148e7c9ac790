"""Options of the distributed MPC on a feeder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controllers.core.errors import ControllerError
from controllers.core.options import ControllerOptions, checked_number, checked_whole, option

_HOURS = 24


@dataclass(frozen=True, slots=True)
class FeederDmpcOptions(ControllerOptions):
    """Settings."""

    clusters: Any = option(
        4,
        "How many clusters to find by electrical distance, or cluster name to its buses.",
        shown="whole number or mapping",
    )
    sample_s: float | None = option(
        None,
        "Time between two plans; None: as long as the iterations take. With batteries it must "
        "be the feeder's step, as their energy is counted from the measured power.",
        above=0.0,
        high=1e6,
    )
    horizon: int = option(6, "Steps of a plan.", low=1)
    step_s: float = option(600.0, "Length of a step of a plan.", above=0.0, high=1e6)
    iterations: int = option(10, "Rounds of mail per sample, one controller period each.", low=1)
    inner: int = option(
        8, "Passes over a cluster's own constraints in each iteration; they need no mail.", low=1
    )
    relaxation: float = option(0.8, "Of the splitting, in (0, 1).", low=0.05, high=0.99)
    margin_pu: float = option(0.006, "Tightens the voltage band at both ends.", low=0.0, high=0.05)
    taps: Mapping[str, int] | None = option(
        None, "Tap steps of regulators that differ from the feeder's data.", shown="mapping"
    )
    weights: Mapping[str, float] | None = option(
        None, "See `controllers.dmpc.feeder_problem.FeederWeights`.", shown="mapping"
    )
    soc_start: float = option(0.5, "Share of a battery's energy at the start.", low=0.0, high=1.0)
    soc_min: float = option(0.1, "Least share of a battery's energy.", low=0.0, high=1.0)
    soc_max: float = option(1.0, "Largest share of a battery's energy.", low=0.0, high=1.0)
    soc_target: float = option(
        0.5, "Share of a battery's energy at the end of a plan.", low=0.0, high=1.0
    )
    charge_efficiency: float = option(0.95, "One way.", above=0.0, high=1.0)
    discharge_efficiency: float = option(0.95, "One way.", above=0.0, high=1.0)
    pv_shape: Any = option(
        None,
        "Forecast of PV power by the hour of the day, relative; None: as now (persistence).",
        shown="24 numbers",
    )
    load_shape: Any = option(
        None,
        "Forecast of the load by the hour of the day, relative; None: as now (persistence).",
        shown="24 numbers",
    )
    start_s: float = option(0.0, "Time of day at time 0, for the forecast.", low=0.0)
    patience: int = option(5, "Samples without mail until a boundary goes local.", low=1)
    trust_pu: float = option(
        0.02,
        "Contradiction between agreed and measured voltage that counts against a neighbour.",
        above=0.0,
        high=1.0,
    )
    local_step: float = option(
        0.2,
        "Share of the way to its plan that a cluster in local mode goes at each sample.",
        above=0.0,
        high=1.0,
    )

    plan: bool = option(
        False, "Publish `plan_kw`: the planned power of each cluster's batteries, by seconds ahead."
    )

    def check(self) -> None:
        """Check the clusters' number, the energy limits and the forecasts."""
        if not isinstance(self.clusters, Mapping):
            checked_whole("clusters", self.clusters, low=1)
        if self.soc_min >= self.soc_max:
            raise ControllerError(
                f"soc_min {self.soc_min:g} is not below soc_max {self.soc_max:g}",
                where="option 'soc_min'",
                expected="soc_min < soc_max",
            )
        for name in ("pv_shape", "load_shape"):
            _check_shape(name, getattr(self, name))


def _check_shape(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, (list, tuple)) or len(value) != _HOURS:
        raise ControllerError(
            f"{value!r} is not accepted", where=f"option '{name}'", expected="24 numbers"
        )
    for number in value:
        checked_number(name, number, low=0.0)
