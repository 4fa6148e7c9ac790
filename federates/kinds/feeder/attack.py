"""What the feeder federate does with a physical attack: trips, islands, demand, thermostats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federates.attacks.physical.action import CONNECTED, LOAD_FACTOR, LOAD_KW, THERMOSTAT_K
from federates.core.federate import FloatArray
from federates.kinds.feeder.switchgear import Switchgear
from grid_models.ders.disturbances import DerDisturbance
from grid_models.opendss.circuit import Circuit


class GridAttack:
    """Applies the attack's inputs, and what the switchgear cut off, to loads and DERs.

    Parameters
    ----------
    labels : Elements that the attack can touch, by input port; see `PhysicalPlan.labels`.
    gear : What opens and closes lines and switches; None where nothing does.

    Attributes
    ----------
    ders : What is done to the DERs in this step.
    loads_on : ndarray of bool, shape (n_loads,)
        False for loads that are disconnected or cut off.
    """

    def __init__(
        self, labels: Mapping[str, tuple[str, ...]], circuit: Circuit, gear: Switchgear | None
    ) -> None:
        feeder = circuit.feeder
        at = {f"load.{load.name}": i for i, load in enumerate(feeder.loads)}
        at |= {f"der.{der.name}": i for i, der in enumerate(feeder.ders)}
        self._rows = {name: _Rows(port_labels, at) for name, port_labels in labels.items()}
        nominal = np.where(circuit.load_kw != 0.0, circuit.load_kw, np.inf)
        self._tan_phi = circuit.load_kvar / nominal
        self._n_ders, self._n_loads = len(feeder.ders), len(feeder.all_loads)
        self._gear = gear
        self._branches = branches_of(labels)
        self.loads_on = np.ones(self._n_loads, dtype=bool)
        self._inputs: Mapping[str, FloatArray] = {}
        self.ders = DerDisturbance.none(self._n_ders)
        self._dead_node_h = 0.0

    def take(self, inputs: Mapping[str, FloatArray], dt_s: float) -> None:
        """Read the step's inputs; switch what is to be switched."""
        self._inputs, gear = inputs, self._gear
        connected = inputs.get(CONNECTED)
        ders = DerDisturbance.none(self._n_ders)
        self.loads_on = np.ones(self._n_loads, dtype=bool)
        if gear is not None:
            if connected is not None:
                states = ((name, connected[i]) for i, name in self._branches)
                gear.force({name: bool(state) for name, state in states if state == state})
            np.copyto(ders.connected, gear.live_ders)
            self.loads_on = gear.live_loads.copy()
            self._dead_node_h += float(np.count_nonzero(~gear.live)) * dt_s / 3600.0
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
            self.loads_on[rows.loads] &= connected[rows.from_loads] != 0.0
        self.ders = ders

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
        kw[~self.loads_on] = kvar[~self.loads_on] = 0.0
        return kw, kvar

    def injections(self, p_kw: FloatArray, q_kvar: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what reaches the grid of what DERs, devices among them, inject."""
        on = self.ders.connected
        return np.where(on, p_kw, 0.0), np.where(on, q_kvar, 0.0)

    def summary(self) -> dict[str, float]:
        """Return how long nodes were without voltage, where something could cut them off."""
        return {} if self._gear is None else {"dead_node_hours": self._dead_node_h}


def branches_of(labels: Mapping[str, tuple[str, ...]]) -> list[tuple[int, str]]:
    """Return position and name of the lines and switches that an attack can open or close."""
    return [
        (i, label.partition(".")[2])
        for i, label in enumerate(labels.get(CONNECTED, ()))
        if label.startswith(("line.", "switch."))
    ]


class _Rows:
    """Where a port's labels are among the loads and the DERs."""

    def __init__(self, labels: tuple[str, ...], at: Mapping[str, int]) -> None:
        def rows(prefix: str) -> tuple[np.ndarray, np.ndarray]:
            found = [(at[x], i) for i, x in enumerate(labels) if x.startswith(prefix)]
            pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
            return pairs[:, 0], pairs[:, 1]

        self.loads, self.from_loads = rows("load.")
        self.ders, self.from_ders = rows("der.")
