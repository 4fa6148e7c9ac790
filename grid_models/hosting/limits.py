"""Limits of a feeder, and how far solved cases are beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederateError, FeederError
from grid_models.base.options import Options, option
from grid_models.batched.power_flow import BatchFlow
from grid_models.current_injection.model import ComplexArray, FloatArray, PortNetwork
from grid_models.hosting.switching import Switching


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

    @property
    def most_by_kind(self) -> dict[str, float | None]:
        """Value of each limit by its kind, in the order of reports."""
        return {
            "overvoltage": self.v_max_pu,
            "undervoltage": self.v_min_pu,
            "line": self.line_pu,
            "transformer": self.transformer_pu,
            "short-time current": self.short_time_pu,
            "reverse power": self.reverse_kw,
            "deviation": self.deviation_pu,
            "unbalance": self.unbalance_pct,
        }


@dataclass(frozen=True)
class Excess:
    """How far N cases are beyond each of K limits.

    Attributes
    ----------
    value : (N, K). Above 0 a limit is passed; inf where the power flow did not converge. Voltages
        in pu, currents relative to the limit, power in kW, unbalance in percent.
    element : (N, K). Position of the worst element among `LimitCheck.labels` of the limit.
    size : (K,). What a value is divided by where limits of different kinds are compared: the band's
        upper or lower voltage, the rating, the largest reverse power.
    """

    value: FloatArray
    element: NDArray[np.intp]
    size: FloatArray

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether all limits are kept, (N,)."""
        return np.asarray((self.value <= 0.0).all(axis=1))

    @property
    def relative(self) -> FloatArray:
        """The values over their sizes, (N, K)."""
        return self.value / self.size


class LimitCheck:
    """The limits of one network, as rows of arrays.

    Parameters
    ----------
    watt_scale : What a power of the network is multiplied with: 3 for a single-phase equivalent.
    step_h : Time between two steps of a day.
    switching : How voltages change when a site is switched off; needed for `deviation_pu` only.

    Attributes
    ----------
    kinds : (K,). Names of the limits that are set and can be passed.
    held_nodes : (n,). Nodes that the voltage band is about: those with a voltage but the source's.
    window : Steps that a continuous current is a mean over.

    Raises FeederError: A limit of currents is set, and no line of the network has a rating; or one
    of unbalance, and no bus has three phases.
    """

    def __init__(
        self,
        network: PortNetwork,
        limits: Limits,
        watt_scale: float = 1.0,
        step_h: float = 1.0,
        switching: Switching | None = None,
    ) -> None:
        self.network, self.limits, self._scale = network, limits, watt_scale
        self.window = max(1, round(limits.average_h / step_h))
        self._switching = switching
        held = np.abs(network.w) > 0.0
        held[network.source_nodes] = False
        self.held_nodes = np.flatnonzero(held)
        self._three = _three_phase_buses(network, held)
        is_line = np.array([label.startswith("line.") for label in network.lines], dtype=bool)
        self._branches = {
            "line": np.flatnonzero(is_line),
            "transformer": np.flatnonzero(~is_line),
            "short-time current": np.arange(len(is_line)),
        }
        self._refuse(bool(is_line.any()))
        most = limits.most_by_kind
        self.kinds = tuple(
            kind
            for kind, value in most.items()
            if value is not None and (kind not in self._branches or self._branches[kind].size)
        )
        self._most = {kind: float(most[kind] or 0.0) for kind in self.kinds}
        size = dict.fromkeys(self._branches, 1.0)
        size["reverse power"] = max(limits.reverse_kw or 0.0, 1.0)
        self._size = np.array([size.get(kind, self._most[kind]) for kind in self.kinds])

    def _refuse(self, any_line: bool) -> None:
        if self.limits.line_pu is not None and not any_line:
            raise FeederError(
                "no line of the feeder has a rating",
                where="limit 'line_pu'",
                expected="grid.ratings, a table of normal currents, or line_pu: null for a study "
                "without them",
            )
        if self.limits.unbalance_pct is not None and not len(self._three):
            raise FeederError(
                "no bus of the network has three phases",
                where="limit 'unbalance_pct'",
                expected="a three-phase model; a balanced equivalent has one phase",
            )

    def labels(self, kind: str) -> tuple[str, ...]:
        """Return the names of the elements that a limit is about."""
        net = self.network
        if kind in self._branches:
            return tuple(net.lines[k] for k in self._branches[kind].tolist())
        if kind == "reverse power":
            return ("source",)
        if kind == "deviation":
            assert self._switching is not None
            return self._switching.sites
        if kind == "unbalance":
            return tuple(net.nodes[k].rpartition(".")[0] for k in self._three[:, 0].tolist())
        return tuple(net.nodes[k] for k in self.held_nodes.tolist())

    def quantity(self, kind: str, value: FloatArray) -> FloatArray:
        """Return what is limited, from its excess: voltage, current over rating, power, percent."""
        most = self._most[kind]
        if kind in self._branches:
            return (value + 1.0) * most
        return most - value if kind == "undervoltage" else most + value

    def excess(self, flow: BatchFlow, steps: NDArray[np.intp] | None = None) -> Excess:
        """Return how far each case of a flow of this network is beyond the limits.

        A mean over `average_h` belongs to the step at which it ends; where a step before it is
        missing there is none, and the excess is -inf.

        `steps`: (T',). Instants that the cases of a design are at, counted in steps and ascending,
        designs one after the other; default: each case stands alone, with no mean over several.
        """
        v_pu, found = flow.v_pu[:, self.held_nodes], []
        for kind in self.kinds:
            if kind == "deviation":
                assert self._switching is not None
                change, site = self._switching.off(flow, v_pu, self.held_nodes)
                found.append((change - self._most[kind], site))
                continue
            by_element = self.by_element(kind, flow, v_pu)
            if kind in ("line", "transformer") and self.window > 1 and steps is not None:
                by_element = _trailing_mean(by_element, steps, self.window)
            worst = by_element.argmax(axis=1)
            found.append((by_element[np.arange(len(worst)), worst], worst))
        value = np.stack([v for v, _ in found], axis=1)
        value[~flow.converged] = np.inf
        return Excess(value, np.stack([k for _, k in found], axis=1), self._size)

    def by_element(self, kind: str, flow: BatchFlow, v_pu: FloatArray | None = None) -> FloatArray:
        """Return the excess of every element of a limit, (N, elements); NaN without a solution.

        `v_pu`: (N, n). Voltages of the nodes that count, where they are known.

        Raises FeederError: The limit is `deviation_pu`, which needs further power flows.
        """
        if kind == "deviation":
            raise FeederError(
                "the change of voltage when a site is switched off is no function of one state",
                where="limit 'deviation_pu'",
                expected="null here; the methods static and alone know it",
            )
        most = self._most[kind]
        if kind in self._branches:
            return flow.loading[:, self._branches[kind]] / most - 1.0
        if kind == "reverse power":
            return np.asarray(-self._scale * flow.import_kva.real - most)[:, None]
        if kind == "unbalance":
            return _unbalance_pct(flow.v, self._three) - most
        v_pu = flow.v_pu[:, self.held_nodes] if v_pu is None else v_pu
        return v_pu - most if kind == "overvoltage" else most - v_pu

    def columns(self, kind: str) -> NDArray[np.intp]:
        """Return the positions of a limit's elements in the network's nodes, or in its lines.

        Raises FeederError: The limit is `unbalance_pct`, which is about three nodes at a time.
        """
        if kind == "unbalance":
            raise FeederError(
                "unbalance has no tangent here",
                where="limit 'unbalance_pct'",
                expected="null here; the methods static and alone know it",
            )
        return self._branches.get(kind, self.held_nodes)


def _trailing_mean(by_element: FloatArray, steps: NDArray[np.intp], window: int) -> FloatArray:
    """Return the means over the last `window` steps; -inf where not all of them are there."""
    n_steps = len(steps)
    days = by_element.reshape(-1, n_steps, by_element.shape[1])
    mean = np.full(days.shape, -np.inf)
    if n_steps >= window:
        total = np.zeros((len(days), n_steps - window + 1, days.shape[2]))
        for k in range(window):
            total += days[:, k : k + len(total[0])]
        whole = steps[window - 1 :] - steps[: n_steps - window + 1] == window - 1
        mean[:, window - 1 :][:, whole] = total[:, whole] / window
    return mean.reshape(by_element.shape)


def _three_phase_buses(network: PortNetwork, held: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the nodes of phases 1, 2 and 3 of each bus that has them and a voltage, (b, 3)."""
    at = {label: k for k, label in enumerate(network.nodes) if held[k]}
    buses = [label.removesuffix(".1") for label in at if label.endswith(".1")]
    found = [[at.get(f"{bus}.{phase}", -1) for phase in (1, 2, 3)] for bus in buses]
    nodes = np.array(found, dtype=np.intp).reshape(-1, 3)
    return nodes[(nodes >= 0).all(axis=1)]


def _unbalance_pct(v: ComplexArray, three: NDArray[np.intp]) -> FloatArray:
    """Return 100 |V2| / |V1| of buses by their nodes, (N, b) (Fortescue's components)."""
    a = np.exp(2j * np.pi / 3.0)
    v1, v2, v3 = (v[:, three[:, phase]] for phase in range(3))
    positive, negative = v1 + a * v2 + a * a * v3, v1 + a * a * v2 + a * v3
    return np.asarray(100.0 * np.abs(negative) / np.abs(positive))
