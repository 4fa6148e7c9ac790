"""Limits of a feeder, and how far solved cases are beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.batched.power_flow import BatchFlow
from grid_models.current_injection.model import FloatArray, PortNetwork


@dataclass(frozen=True, slots=True)
class Limits(Options):
    """What a feeder must stay within. None takes a limit away.

    Raises FeederError: A value is out of range, or two limits contradict each other.
    """

    error: ClassVar[type[FeederateError]] = FeederError

    v_min_pu: float = option(0.95, "Lowest voltage of a node.", low=0.5, high=1.5)
    v_max_pu: float = option(1.05, "Highest voltage of a node.", low=0.5, high=1.5)
    line_pu: float | None = option(
        1.0, "Current of a line over its normal amps, a mean over `average_h`.", above=0.0
    )
    transformer_pu: float | None = option(
        1.0, "Current of a transformer over its normal amps, a mean over `average_h`.", above=0.0
    )
    average_h: float = option(
        1.0, "Time over which continuous currents are averaged.", above=0.0, high=24.0
    )
    short_time_pu: float | None = option(
        None, "Current of lines and transformers over their normal amps in any step.", above=0.0
    )
    reverse_kw: float | None = option(
        None, "Largest power that flows back into the source.", low=0.0
    )
    deviation_pu: float | None = option(
        None, "Largest change of a voltage when the PV of one site is switched off.", above=0.0
    )
    unbalance_pct: float | None = option(
        None, "Largest negative-sequence voltage of three-phase buses, of the positive.", above=0.0
    )

    def check(self) -> None:
        """Check that the band holds a voltage, and that a short-time current is the larger one."""
        if not self.v_min_pu < self.v_max_pu:
            raise FeederError(
                f"v_min_pu {self.v_min_pu:g} is not below v_max_pu {self.v_max_pu:g}",
                where="option 'v_min_pu'",
                expected="a band that holds a voltage",
            )
        continuous = max(self.line_pu or 0.0, self.transformer_pu or 0.0)
        if self.short_time_pu is not None and self.short_time_pu < continuous:
            raise FeederError(
                f"short_time_pu {self.short_time_pu:g} is below the continuous {continuous:g}",
                where="option 'short_time_pu'",
                expected=f"at least {continuous:g}",
            )


@dataclass(frozen=True)
class Excess:
    """How far N cases are beyond each of K limits.

    Attributes
    ----------
    value : (N, K). Above 0 a limit is passed; inf where the power flow did not converge. Voltages
        in pu, currents relative to the limit, power in kW.
    element : (N, K). Position of the worst element among `LimitCheck.labels` of the limit.
    """

    value: FloatArray
    element: NDArray[np.intp]

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether all limits are kept, (N,)."""
        return np.asarray((self.value <= 0.0).all(axis=1))


class LimitCheck:
    """The limits of one network, as rows of arrays.

    Parameters
    ----------
    watt_scale : What a power of the network is multiplied with: 3 for a single-phase equivalent.

    Attributes
    ----------
    kinds : (K,). Names of the limits that are set and can be passed.

    Raises FeederError: A limit of currents is set, and no line of the network has a rating.
    """

    def __init__(self, network: PortNetwork, limits: Limits, watt_scale: float = 1.0) -> None:
        self.network, self.limits, self._scale = network, limits, watt_scale
        held = np.abs(network.w) > 0.0
        held[network.source_nodes] = False
        self._nodes = np.flatnonzero(held)
        is_line = np.array([label.startswith("line.") for label in network.lines], dtype=bool)
        self._branches = {
            "line": np.flatnonzero(is_line),
            "transformer": np.flatnonzero(~is_line),
        }
        if limits.line_pu is not None and not is_line.any():
            raise FeederError(
                "no line of the feeder has a rating",
                where="limit 'line_pu'",
                expected="grid.ratings, a table of normal currents, or line_pu: null for a study "
                "without them",
            )
        rated = {"line": limits.line_pu, "transformer": limits.transformer_pu}
        self.kinds: tuple[str, ...] = ("overvoltage", "undervoltage")
        self.kinds += tuple(
            kind for kind, most in rated.items() if most is not None and self._branches[kind].size
        )
        if limits.reverse_kw is not None:
            self.kinds += ("reverse power",)

    def labels(self, kind: str) -> tuple[str, ...]:
        """Return the names of the elements that a limit is about."""
        net = self.network
        if kind in self._branches:
            return tuple(net.lines[k] for k in self._branches[kind].tolist())
        if kind == "reverse power":
            return ("source",)
        return tuple(net.nodes[k] for k in self._nodes.tolist())

    def excess(self, flow: BatchFlow) -> Excess:
        """Return how far each case of a flow of this network is beyond the limits."""
        found = [self._of(kind, flow) for kind in self.kinds]
        value = np.stack([v for v, _ in found], axis=1)
        value[~flow.converged] = np.inf
        return Excess(value, np.stack([k for _, k in found], axis=1))

    def by_element(self, kind: str, flow: BatchFlow) -> FloatArray:
        """Return the excess of every element of a limit, (N, elements); NaN without a solution."""
        limits = self.limits
        if kind == "reverse power":
            assert limits.reverse_kw is not None
            return np.asarray(-self._scale * flow.import_kva.real - limits.reverse_kw)[:, None]
        if kind in self._branches:
            most = limits.line_pu if kind == "line" else limits.transformer_pu
            assert most is not None
            return flow.loading[:, self._branches[kind]] / most - 1.0
        v_pu = flow.v_pu[:, self._nodes]
        return v_pu - limits.v_max_pu if kind == "overvoltage" else limits.v_min_pu - v_pu

    def columns(self, kind: str) -> NDArray[np.intp]:
        """Return the positions of a limit's elements in the network's nodes, or in its lines."""
        return self._branches.get(kind, self._nodes)

    def _of(self, kind: str, flow: BatchFlow) -> tuple[FloatArray, NDArray[np.intp]]:
        """Return excess and worst element of one limit, (N,) each."""
        by_element = self.by_element(kind, flow)
        worst = np.where(np.isnan(by_element), -np.inf, by_element).argmax(axis=1)
        return by_element[np.arange(len(worst)), worst], worst
