"""Options of the distributed MPC on a feeder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controllers.core.errors import ControllerError
from controllers.core.options import checked_number, checked_whole

_HOURS = 24


@dataclass(frozen=True, slots=True)
class FeederDmpcOptions:
    """Settings.

    Attributes
    ----------
    clusters : How many clusters to find by electrical distance, or cluster name to its buses.
    sample_s : Time between two plans; None: as long as the iterations take. With batteries it must
        be the feeder's step, as their energy is counted from the measured power.
    horizon, step_s : Steps of a plan and the length of each.
    iterations : Rounds of mail per sample, one controller period each.
    inner : Passes over a cluster's own constraints in each iteration; they need no mail.
    relaxation : Of the splitting, in (0, 1).
    margin_pu : Tightens the voltage band at both ends.
    taps : Tap steps of regulators that differ from the feeder's data.
    weights : See `controllers.dmpc.feeder_problem.FeederWeights`.
    soc_start, soc_min, soc_max, soc_target : Shares of a battery's energy.
    charge_efficiency, discharge_efficiency : One way.
    pv_shape, load_shape : Forecast of the day by the hour, relative; None: as now (persistence).
    start_s : Time of day at time 0, for the forecast.
    patience : Samples without mail until a boundary goes local.
    trust_pu : Contradiction between agreed and measured voltage that counts against a neighbour.
    local_step : Share of the way to its plan that a cluster in local mode goes at each sample.
    """

    clusters: Any = 4
    sample_s: float | None = None
    horizon: int = 6
    step_s: float = 600.0
    iterations: int = 10
    inner: int = 8
    relaxation: float = 0.8
    margin_pu: float = 0.006
    taps: Mapping[str, int] | None = None
    weights: Mapping[str, float] | None = None
    soc_start: float = 0.5
    soc_min: float = 0.1
    soc_max: float = 1.0
    soc_target: float = 0.5
    charge_efficiency: float = 0.95
    discharge_efficiency: float = 0.95
    pv_shape: Any = None
    load_shape: Any = None
    start_s: float = 0.0
    patience: int = 5
    trust_pu: float = 0.02
    local_step: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.clusters, Mapping):
            checked_whole("clusters", self.clusters, low=1)
        if self.sample_s is not None:
            checked_number("sample_s", self.sample_s, low=0.0, high=1e6, open_low=True)
        checked_whole("horizon", self.horizon, low=1)
        checked_number("step_s", self.step_s, low=0.0, high=1e6, open_low=True)
        checked_whole("iterations", self.iterations, low=1)
        checked_whole("inner", self.inner, low=1)
        checked_number("relaxation", self.relaxation, low=0.05, high=0.99)
        checked_number("margin_pu", self.margin_pu, low=0.0, high=0.05)
        checked_whole("patience", self.patience, low=1)
        checked_number("trust_pu", self.trust_pu, low=0.0, high=1.0, open_low=True)
        checked_number("local_step", self.local_step, low=0.0, high=1.0, open_low=True)
        checked_number("start_s", self.start_s, low=0.0)
        for name in ("soc_start", "soc_min", "soc_max", "soc_target"):
            checked_number(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("charge_efficiency", "discharge_efficiency"):
            checked_number(name, getattr(self, name), low=0.0, high=1.0, open_low=True)
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
