"""Lines and switches that a run opens and closes, and what is then cut off from the source."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federates.core.federate import FloatArray
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Line, Switch, node_label
from grid_models.opendss.circuit import Circuit


class Switchgear:
    """Opens and closes lines and switches of a circuit.

    Nodes without a way to the source are dead: 0 V, and loads and DERs there neither draw nor
    inject. A DER is cut off with its first phase (it must not feed one alone), a load with its
    last.

    Attributes
    ----------
    names : Lines and switches.
    live : ndarray of bool, shape (n_nodes,)
        False for nodes that were cut off; nodes dead by the model itself are not among them.
    live_loads, live_ders : ndarray of bool, shapes (n_loads,) and (n_ders,)
    """

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        feeder = circuit.feeder
        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        self._model = {e.name: e.closed for e in branches}
        in_engine = {str(name).lower() for name in circuit.engine.dss.Lines.AllNames()}
        self.names = tuple(name for name in self._model if name.lower() in in_engine)
        self._commanded: dict[str, bool] = {}
        self._forced: dict[str, bool] = {}
        self._now = dict(self._model)
        self._nodes = EnergisedNodes(feeder)
        self._reached = self._nodes.reach({})
        index = {label: i for i, label in enumerate(circuit.node_labels)}
        self._load_nodes = [_places(index, x.bus, x.phases) for x in feeder.all_loads]
        self._der_nodes = [_places(index, x.bus, x.phases) for x in feeder.ders]
        self.live = np.ones(len(circuit.node_labels), dtype=bool)
        self.live_loads = np.ones(len(self._load_nodes), dtype=bool)
        self.live_ders = np.ones(len(feeder.ders), dtype=bool)

    @property
    def opened(self) -> tuple[str, ...]:
        """Lines and switches that are open although the model has them closed."""
        return tuple(name for name, on in self._now.items() if self._model[name] and not on)

    def closed(self) -> FloatArray:
        """Return 1 for what is closed and 0 for what is open, (n_names,)."""
        return np.array([self._now[name] for name in self.names], dtype=np.float64)

    def locked(self) -> FloatArray:
        """Return 1 for what is held whatever is commanded, (n_names,)."""
        return np.array([name in self._forced for name in self.names], dtype=np.float64)

    def command(self, closed: Mapping[str, bool]) -> None:
        """Open and close what is named; all else stays as it was commanded last."""
        self._commanded |= closed
        self._update()

    def force(self, closed: Mapping[str, bool]) -> None:
        """Hold what is named, whatever is commanded; release all else."""
        self._forced = dict(closed)
        self._update()

    def _update(self) -> None:
        wanted = self._model | self._commanded | self._forced
        if wanted == self._now:
            return
        for name, closed in wanted.items():
            if closed != self._now[name]:
                self._circuit.set_switch(f"line.{name}", closed)
        self._now = wanted
        self.live = self._nodes.reach(wanted) | ~self._reached
        self.live_loads = np.array(
            [self.live[at].any() or not at for at in self._load_nodes], dtype=bool
        )
        self.live_ders = np.array([self.live[at].all() for at in self._der_nodes], dtype=bool)

    def voltages(self, v_pu: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return voltages with dead nodes at 0, and for statistics with dead nodes at NaN."""
        if self.live.all():
            return v_pu, v_pu
        return np.where(self.live, v_pu, 0.0), np.where(self.live, v_pu, np.nan)


def _places(index: Mapping[str, int], bus: str, phases: tuple[int, ...]) -> list[int]:
    """Return where an element's nodes are; a node that never had a voltage is nowhere."""
    labels = (node_label(bus.lower(), phase) for phase in phases)
    return [index[label] for label in labels if label in index]
