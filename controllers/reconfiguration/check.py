"""The AC check of a configuration: supplied on all phases, in the voltage band, within ratings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from grid_models.base.errors import PowerFlowError
from grid_models.current_injection.model import BASE_KVA, ComplexArray, PortLoads, PortNetwork
from grid_models.current_injection.power_flow import PortFlow, power_flow
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Feeder, Line, Switch

_ROUNDING_PU = 1e-6


@dataclass(frozen=True)
class Demand:
    """What is connected to a feeder, supplied or not.

    Attributes
    ----------
    load_kw : (n_loads,). Active power of `Feeder.all_loads` at nominal voltage; reactive power
        follows at the nominal power factor.
    der_kva : complex (n_ders,). Injections of `Feeder.ders`; negative is consumption.
    """

    load_kw: FloatArray
    der_kva: ComplexArray

    @classmethod
    def nominal(cls, feeder: Feeder) -> Demand:
        """Return the nominal loads, and DERs that inject nothing."""
        kw = np.array([load.kw for load in feeder.all_loads])
        return cls(kw, np.zeros(len(feeder.ders), dtype=np.complex128))

    def consumed_kw(self) -> FloatArray:
        """Return the consumption of loads and DERs, (n_loads + n_ders,)."""
        return np.concatenate([self.load_kw, np.maximum(-self.der_kva.real, 0.0)])


@dataclass(frozen=True)
class Checked:
    """A configuration under load.

    Attributes
    ----------
    losses_kw : float
    v_min_pu, v_max_pu : Extremes of supplied nodes.
    violation : What is beyond its limit, in words; '' where nothing is.
    """

    losses_kw: float = np.inf
    v_min_pu: float = np.nan
    v_max_pu: float = np.nan
    violation: str = ""


class AcCheck:
    """Checks configurations of a feeder at one demand.

    What is beyond a limit in the present state may stay so in another, but not get worse.

    Parameters
    ----------
    ports : As `ControlSite.ports`.
    present : States of lines and switches now, as far as they differ from the feeder's.
    section_of : Section of each bus: one that is supplied on some of its phases only is refused.
    """

    def __init__(
        self,
        feeder: Feeder,
        ports: Callable[[Mapping[str, bool] | None], PortNetwork],
        demand: Demand,
        band_pu: tuple[float, float],
        present: Mapping[str, bool],
        section_of: Mapping[str, int],
    ) -> None:
        self._feeder, self._ports, self._demand = feeder, ports, demand
        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        self._model = {e.name: e.closed for e in branches}
        self._energised = EnergisedNodes(feeder)
        labels = self._energised.labels
        self._section = np.array([section_of[x.rpartition(".")[0]] for x in labels], dtype=np.intp)
        self._normal = self._energised.reach({})
        self._low, self._high = np.array(band_pu[0]), np.array(band_pu[1])
        self._slack: FloatArray = np.array(0.0)
        found = self._solved(self._changed(present))
        if found is not None:
            network, flow = found
            v, live = np.abs(flow.v), network.w != 0.0
            self._low = np.where(live, np.minimum(band_pu[0], v - _ROUNDING_PU), band_pu[0])
            self._high = np.where(live, np.maximum(band_pu[1], v + _ROUNDING_PU), band_pu[1])
            self._slack = np.maximum(self._loading(network, flow) - 1.0, 0.0)
        self._done: dict[tuple[tuple[str, bool], ...], Checked] = {}

    def _changed(self, closed: Mapping[str, bool]) -> dict[str, bool] | None:
        return {name: on for name, on in closed.items() if on != self._model[name]} or None

    def state(self, closed: Mapping[str, bool]) -> Checked:
        """Return the state with these lines and switches closed or open, all others as modelled."""
        other = self._changed(closed)
        key = tuple(sorted((other or {}).items()))
        if key not in self._done:
            partly = self._partly(other or {})
            known = Checked(violation=partly) if partly else self._checked(other)
            self._done[key] = known
        return self._done[key]

    def _solved(self, closed: Mapping[str, bool] | None) -> tuple[PortNetwork, PortFlow] | None:
        """Return the network of a configuration and its state; None where it has no solution."""
        try:
            network = self._ports(closed)
            s, loads = injections(self._feeder, network, self._demand)
            return network, power_flow(network, s, loads)
        except PowerFlowError:
            return None

    def _checked(self, closed: Mapping[str, bool] | None) -> Checked:
        found = self._solved(closed)
        if found is None:
            return Checked(violation="the power flow has no solution")
        network, flow = found
        live, v = network.w != 0.0, np.abs(flow.v)
        words = self._beyond(network, flow, v, live)
        lost = flow.loss * BASE_KVA
        return Checked(lost, float(v[live].min()), float(v[live].max()), words)

    def _partly(self, closed: Mapping[str, bool]) -> str:
        """Return which node of a supplied section is dark, in words; '' where none is."""
        live, section = self._energised.reach(closed), self._section
        part = live[self._normal], section[self._normal]
        alive = np.bincount(part[1], part[0], minlength=section.max() + 1)
        partly = (alive > 0) & (alive < np.bincount(part[1], minlength=section.max() + 1))
        odd = np.flatnonzero(partly[section] & self._normal & ~live)
        at = self._energised.labels[odd[0]] if odd.size else ""
        return at and f"supplied on some phases only, not at {at}"

    def _beyond(
        self, network: PortNetwork, flow: PortFlow, v: FloatArray, live: NDArray[np.bool_]
    ) -> str:
        """Return what is beyond its limit most, in words; '' where nothing is."""
        under = np.where(live, self._low - v, -np.inf)
        over = np.where(live, v - self._high, -np.inf)
        loading = self._loading(network, flow) - 1.0 - self._slack
        if under[worst := int(under.argmax())] > 0.0:
            return f"{v[worst]:.4f} pu at {network.nodes[worst]}, too low"
        if over[worst := int(over.argmax())] > 0.0:
            return f"{v[worst]:.4f} pu at {network.nodes[worst]}, too high"
        if loading.size and loading[worst := int(loading.argmax())] > _ROUNDING_PU:
            percent = 100.0 * self._loading(network, flow)[worst]
            return f"{network.lines[worst]} at {percent:.0f} % of its rating"
        return ""

    @staticmethod
    def _loading(network: PortNetwork, flow: PortFlow) -> FloatArray:
        """Return currents over limits, (r,)."""
        current = np.abs(network.line_w + network.line_z @ flow.i)
        return np.asarray(current / network.line_limit)


def injections(
    feeder: Feeder, network: PortNetwork, demand: Demand
) -> tuple[ComplexArray, PortLoads]:
    """Return the DERs' injections at the ports, (m,) per unit, and the loads at their demand."""
    at = network.load_terminal
    rows = [i for i, load in enumerate(feeder.all_loads) if load.name in at]
    terminal = np.array([at[feeder.all_loads[i].name] for i in rows], dtype=np.intp)
    nominal = np.array([load.kw for load in feeder.all_loads])[rows]
    wanted = np.bincount(terminal, demand.load_kw[rows], network.size)
    modelled = np.bincount(terminal, nominal, network.size)
    # Loads of one port keep their shares: those of one terminal are scaled together.
    wanted_port, port = network.share @ wanted, network.share @ modelled
    factor = np.where(port != 0.0, wanted_port / np.where(port != 0.0, port, 1.0), 1.0)
    own = network.loads
    loads = replace(own, s_pq=factor * own.s_pq, s_i=factor * own.s_i, s_z=factor * own.s_z)
    ders = np.zeros(network.size, dtype=np.complex128)
    places = [network.terminal_of_der(der.name) for der in feeder.ders]
    np.add.at(ders, places, demand.der_kva / BASE_KVA)
    return network.share @ ders, loads
