"""Loads of a feeder on a network: terminals, nominal power, dependence on voltage."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from scipy import sparse

from grid_models.feeder.model import Feeder, Load
from grid_models.linear.edges import Complex, Real
from grid_models.linear.network import Network, terminal_pairs

PhaseModel = Literal["three", "single"]
# An I load follows |V|; near nominal that is half a PQ and half a Z load (first order).
_Z_SHARE = {"PQ": 0.0, "I": 0.5, "Z": 1.0}


@dataclass(frozen=True)
class LoadSet:
    """Single-phase parts of all loads.

    Attributes
    ----------
    terminals : csr_array, (parts, m)
        +1 at the node where a part's current leaves, -1 where it returns (delta).
    labels : (parts, n). The same by public label.
    power_va : (parts,). Power drawn at nominal voltage.
    z_va : (parts,). The share of it that goes with the square of the voltage.
    nominal_v : (parts,)
    """

    terminals: sparse.csr_array
    labels: sparse.csr_array
    power_va: Complex
    z_va: Complex
    nominal_v: Real

    def injection_va(self, label_v: Complex) -> Complex:
        """Return nominal injections by label, delta parts split by the voltages `label_v`."""
        across: Complex = np.asarray(self.labels @ label_v)
        drawn: Complex = np.asarray(self.labels.T @ (self.power_va / across))
        return np.asarray(-label_v * drawn)

    def shunt(self) -> sparse.csr_array:
        """Return the nodal admittance of the share that goes with the squared voltage."""
        y = np.conj(self.z_va) / self.nominal_v**2
        return sparse.csr_array(self.terminals.T @ sparse.diags_array(y) @ self.terminals)


def load_set(feeder: Feeder, network: Network, phases: PhaseModel) -> LoadSet:
    """Return the loads of `feeder` on `network`."""
    where = {label: i for i, label in enumerate(network.labels)}
    rows: list[int] = []
    cols: list[int] = []
    signs: list[float] = []
    power: list[complex] = []
    z_power: list[complex] = []
    volts: list[float] = []
    for load in feeder.loads:
        parts = [(load.bus,)] if phases == "single" else _parts(load)
        for part in parts:
            for label, sign in zip(part, (1.0, -1.0), strict=False):
                rows.append(len(power))
                cols.append(where[label])
                signs.append(sign)
            s = complex(load.kw, load.kvar) * 1e3 / len(parts)
            power.append(s)
            z_power.append(_Z_SHARE[load.model] * s)
            nominal = network.base_v[network.node[where[load.bus]]] if phases == "single" else 0.0
            volts.append(float(nominal) or _part_volts(load))
    n = len(network.labels)
    labels = sparse.csr_array((signs, (rows, cols)), shape=(len(power), n), dtype=np.float64)
    gather = sparse.csr_array((np.ones(n), (np.arange(n), network.node)), shape=(n, network.size))
    return LoadSet(
        terminals=sparse.csr_array(labels @ gather),
        labels=labels,
        power_va=np.array(power, dtype=np.complex128),
        z_va=np.array(z_power, dtype=np.complex128),
        nominal_v=np.array(volts),
    )


def _parts(load: Load) -> list[tuple[str, ...]]:
    pairs = terminal_pairs(load.phases, load.connection)
    return [tuple(f"{load.bus}.{p}" for p in pair) for pair in pairs]


def _part_volts(load: Load) -> float:
    line_to_line = load.connection == "wye" and len(load.phases) > 1
    return 1e3 * load.kv / (sqrt(3) if line_to_line else 1.0)
