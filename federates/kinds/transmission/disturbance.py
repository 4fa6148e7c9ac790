"""What set-points and an attack do to a transmission system: demand, branches, machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from controllers.core.mail import IntArray
from federates.attacks.physical.action import CONNECTED, LOAD_FACTOR, LOAD_KW
from federates.attacks.physical.elements import PhysicalElements
from federates.core.federate import FloatArray
from grid_models.transmission.model import Disturbance, TransmissionModel

LOAD_SET, INJECTION = "load_set_mw", "injection_mw"


def elements_of(model: TransmissionModel, load_mw: FloatArray) -> PhysicalElements:
    """Return what a physical step can act on.

    Loads of the tables, branches and machines. `load_mw`: Demand of the tables, (n_buses,).
    """
    p_mw = model.state.p_mw
    loads = {f"load.{bus}": mw for bus, mw in zip(model.buses, load_mw.tolist(), strict=True) if mw}
    lines = {f"line.{branch}": 0.0 for branch in model.branches}
    machines = {
        f"machine.{name}": abs(mw) for name, mw in zip(model.machines, p_mw.tolist(), strict=True)
    }
    nominal_mw = {**loads, **lines, **machines}
    return PhysicalElements(
        tuple(nominal_mw),
        {label: label.partition(".")[0] for label in nominal_mw},
        {label: 1e3 * abs(mw) for label, mw in nominal_mw.items()},
        dict.fromkeys(nominal_mw, True),
        {label: label.partition(".")[2] for label in loads},
    )


class Disturbances:
    """Makes a `Disturbance` of the inputs of a step.

    A machine that an attack has tripped stays off: it would have to be synchronised again.

    Parameters
    ----------
    labels : Elements that the attack can touch, by input port; see `PhysicalPlan.labels`.
    """

    def __init__(self, model: TransmissionModel, labels: Mapping[str, tuple[str, ...]]) -> None:
        self._n = len(model.buses), len(model.branches), len(model.machines)
        names = {"load": model.buses, "line": model.branches, "machine": model.machines}
        at = {
            f"{family}.{name}": i for family, all_ in names.items() for i, name in enumerate(all_)
        }
        self._rows = {
            (port, family): _rows(port_labels, family, at)
            for port, port_labels in labels.items()
            for family in names
        }
        self._tripped = np.zeros(len(model.machines), bool)

    def of(self, inputs: Mapping[str, FloatArray]) -> Disturbance:
        """Return what is done to the system from now on."""
        buses, branches, machines = self._n
        done = Disturbance(
            inputs[LOAD_SET].copy(),
            np.ones(buses),
            inputs[INJECTION].copy() if INJECTION in inputs else np.full(buses, np.nan),
            np.ones(branches, bool),
            np.ones(machines, bool),
        )
        for (port, family), (place, source) in self._rows.items():
            value = inputs[port][source]
            if port == LOAD_KW:
                done.load_mw[place] += 1e-3 * value
            elif port == LOAD_FACTOR:
                done.load_factor[place] *= value
            elif port == CONNECTED:
                off = value == 0.0
                if family == "load":
                    done.load_factor[place[off]] = 0.0
                elif family == "line":
                    done.branch_in[place[off]] = False
                else:
                    self._tripped[place[off]] = True
        done.machine_in = ~self._tripped
        return done


def _rows(labels: Sequence[str], family: str, at: Mapping[str, int]) -> tuple[IntArray, IntArray]:
    """Return where elements of one family are in the system, and in a port."""
    found = [(at[x], i) for i, x in enumerate(labels) if x.startswith(f"{family}.")]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
