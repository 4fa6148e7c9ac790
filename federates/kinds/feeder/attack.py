"""What the feeder federate does with a physical attack: trips, islands, demand, thermostats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federates.attacks.physical.action import CONNECTED, LOAD_FACTOR, LOAD_KW, THERMOSTAT_K
from federates.attacks.physical.plan import PhysicalPlan
from federates.core.federate import FloatArray
from grid_models.ders.disturbances import DerDisturbance
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Line, Switch, node_label
from grid_models.opendss.circuit import Circuit


class GridAttack:
    """Applies the attack's inputs to a circuit.

    Nodes that an open line or switch cuts off from the source are dead: 0 V, and loads and DERs
    there neither draw nor inject. A DER is cut off with its first phase (it must not feed one
    alone), a load with its last.

    Attributes
    ----------
    ders : What is done to the DERs in this step.
    live : ndarray of bool, shape (n_nodes,)
        False for nodes that the attack has cut off; nodes dead by the model itself are not its.
    """

    def __init__(self, plan: PhysicalPlan, circuit: Circuit) -> None:
        self._circuit = circuit
        feeder = circuit.feeder
        self._at = {f"load.{load.name}": i for i, load in enumerate(feeder.loads)}
        self._at |= {f"der.{der.name}": i for i, der in enumerate(feeder.ders)}
        self._rows = {name: _Rows(labels, self._at) for name, labels in plan.labels.items()}
        nominal = np.where(circuit.load_kw != 0.0, circuit.load_kw, np.inf)
        self._tan_phi = circuit.load_kvar / nominal
        self._n_ders = len(feeder.ders)
        self._branches = [
            (i, label.partition(".")[2])
            for i, label in enumerate(plan.labels.get(CONNECTED, ()))
            if label.startswith(("line.", "switch."))
        ]
        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        self._model = {e.name: e.closed for e in branches}
        self._now = dict(self._model)
        if self._branches:
            self._nodes = EnergisedNodes(feeder)
            self._reached = self._nodes.reach({})
        index = {label: i for i, label in enumerate(circuit.node_labels)}
        self._load_nodes = [_places(index, x.bus, x.phases) for x in feeder.all_loads]
        self._der_nodes = [_places(index, x.bus, x.phases) for x in feeder.ders]
        self.live = np.ones(len(circuit.node_labels), dtype=bool)
        self._live_loads = np.ones(len(self._load_nodes), dtype=bool)
        self._live_ders = np.ones(self._n_ders, dtype=bool)
        self._loads_on = self._live_loads
        self._inputs: Mapping[str, FloatArray] = {}
        self.ders = DerDisturbance.none(self._n_ders)
        self._dead_node_h = 0.0

    @property
    def opened(self) -> tuple[str, ...]:
        """Lines and switches that are open although the model has them closed."""
        return tuple(name for name, on in self._now.items() if self._model[name] and not on)

    def take(self, inputs: Mapping[str, FloatArray], dt_s: float) -> None:
        """Read the step's inputs; switch what is to be switched."""
        self._inputs = inputs
        connected = inputs.get(CONNECTED)
        if connected is not None and self._branches:
            self._switch(connected)
        ders = DerDisturbance.none(self._n_ders)
        np.copyto(ders.connected, self._live_ders)
        self._loads_on = self._live_loads.copy()
        for name, array in (
            (LOAD_KW, ders.extra_kw),
            (LOAD_FACTOR, ders.factor),
            (THERMOSTAT_K, ders.thermostat_k),
        ):
            if name in self._rows:
                rows = self._rows[name]
                array[rows.ders] = inputs[name][rows.from_ders]
        if connected is not None:
            rows = self._rows[CONNECTED]
            ders.connected[rows.ders] &= connected[rows.from_ders] != 0.0
            self._loads_on[rows.loads] &= connected[rows.from_loads] != 0.0
        self.ders = ders
        self._dead_node_h += float(np.count_nonzero(~self.live)) * dt_s / 3600.0

    def _switch(self, connected: FloatArray) -> None:
        """Open and close what changed, and find out who is cut off then."""
        wanted = dict(self._now)
        for i, name in self._branches:
            value = connected[i]
            wanted[name] = self._model[name] if np.isnan(value) else bool(value)
        if wanted == self._now:
            return
        for name, closed in wanted.items():
            if closed != self._now[name]:
                self._circuit.set_switch(f"line.{name}", closed)
        self._now = wanted
        self.live = self._nodes.reach(wanted) | ~self._reached
        self._live_loads = np.array(
            [self.live[at].any() or not at for at in self._load_nodes], dtype=bool
        )
        self._live_ders = np.array([self.live[at].all() for at in self._der_nodes], dtype=bool)

    def loads(self, kw: FloatArray, kvar: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the demand of the loads; reactive power follows at their power factor."""
        kw, kvar = kw.copy(), kvar.copy()
        if LOAD_FACTOR in self._rows:
            rows = self._rows[LOAD_FACTOR]
            factor = self._inputs[LOAD_FACTOR][rows.from_loads]
            kw[rows.loads] *= factor
            kvar[rows.loads] *= factor
        if LOAD_KW in self._rows:
            rows = self._rows[LOAD_KW]
            extra = self._inputs[LOAD_KW][rows.from_loads]
            more = np.flatnonzero(extra)  # adding 0 to -0 would change a bit
            at, extra = rows.loads[more], extra[more]
            now = kw[at]
            # Less than nothing is no demand.
            kw[at] = np.maximum(now + extra, np.minimum(now, 0.0))
            kvar[at] += (kw[at] - now) * self._tan_phi[at]
        kw[~self._loads_on] = kvar[~self._loads_on] = 0.0
        return kw, kvar

    def injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what reaches the grid of what DERs, devices among them, inject."""
        on = self.ders.connected
        return np.where(on, p_kw, 0.0), np.where(on, q_kvar, 0.0)

    def voltages(self, v_pu: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return voltages with dead nodes at 0, and for statistics with dead nodes at NaN."""
        if self.live.all():
            return v_pu, v_pu
        return np.where(self.live, v_pu, 0.0), np.where(self.live, v_pu, np.nan)

    def summary(self) -> dict[str, float]:
        """Return how long nodes were without voltage, where something could cut them off."""
        return {"dead_node_hours": self._dead_node_h} if self._branches else {}


def _places(index: Mapping[str, int], bus: str, phases: tuple[int, ...]) -> list[int]:
    """Return where an element's nodes are; a node that never had a voltage is nowhere."""
    labels = (node_label(bus.lower(), phase) for phase in phases)
    return [index[label] for label in labels if label in index]


class _Rows:
    """Where a port's labels are among the loads and the DERs."""

    def __init__(self, labels: tuple[str, ...], at: Mapping[str, int]) -> None:
        def rows(prefix: str) -> tuple[np.ndarray, np.ndarray]:
            found = [(at[x], i) for i, x in enumerate(labels) if x.startswith(prefix)]
            pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
            return pairs[:, 0], pairs[:, 1]

        self.loads, self.from_loads = rows("load.")
        self.ders, self.from_ders = rows("der.")
