"""The single-phase equivalent network: one node for each bus, total power of all its phases.

Every edge shares its power equally on its n phases, so a total power S at the line-to-neutral
voltage V drops ``(z_self - z_mutual) S / (n V)``: the balanced equivalent for three phases and
the true drop for a single-phase lateral.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from grid_models.feeder.model import Bus, Capacitor, Feeder, Line, Regulator, Transformer
from grid_models.feeder.topology import BranchElement, RadialTree
from grid_models.linear.edges import Complex, Real, star_impedances_pu
from grid_models.linear.network import (
    Network,
    NetworkBuilder,
    is_negligible,
    merge_limit_ohm,
    source_impedance,
)


def single_phase_network(
    feeder: Feeder, tree: RadialTree, *, merge_ohm: float, with_source_impedance: bool
) -> Network:
    """Build the single-phase equivalent of `feeder`: labels are bus names, powers are totals."""
    build = NetworkBuilder()
    source, root = feeder.source, feeder.buses[feeder.source.bus]
    volts = np.array([source.v_pu * source.base_kv_ll * 1e3 / sqrt(3)], dtype=np.complex128)
    z0 = np.array([[source_impedance(feeder, with_source_impedance) / len(root.phases)]])
    build.add_root(root.name, (0,), volts, z0, 1e3 * root.base_kv_ln)
    for i, name in enumerate(tree.buses[1:], start=1):
        bus, parent = feeder.buses[name], tree.buses[int(tree.parent[i])]
        limit = merge_limit_ohm(bus, merge_ohm)
        if is_negligible(tree.edges[i], limit):
            build.merge_bus(name, {0: 0}, parent)
            continue
        ratio, z = _edge_law(tree.edges[i], feeder.buses[parent], bus)
        build.add_bus(
            name, (0,), parent, np.array([[ratio]]), np.array([[z]]), 1e3 * bus.base_kv_ln
        )
    _add_shunts(feeder, build)
    labels = [name for name in feeder.buses if name in build.columns]
    return build.network(labels, [build.columns[name][0] for name in labels])


def positive_sequence(matrix: Complex | Real) -> complex:
    """Return mean self minus mean mutual term of a symmetric matrix."""
    n = len(matrix)
    own = complex(np.trace(matrix)) / n
    if n == 1:
        return own
    return own - (complex(matrix.sum()) - complex(np.trace(matrix))) / (n * (n - 1))


def _edge_law(
    elements: Sequence[BranchElement], parent: Bus, child: Bus
) -> tuple[complex, complex]:
    """Return voltage ratio and impedance (ohm, for the total power) of one edge."""
    step = child.base_kv_ln / parent.base_kv_ln
    taps: list[float] = []
    conductance = 0j
    for e in elements:
        if isinstance(e, Regulator):
            ratio = e.tap_pu if e.to_bus == child.name else 1.0 / e.tap_pu
            taps += [ratio] * len(e.phases)
        elif isinstance(e, Transformer):
            tap, z = _transformer_law(e, parent, child)
            taps.append(tap)
            conductance += 1.0 / z if z else 0.0
        elif isinstance(e, Line):
            z = positive_sequence(e.z_ohm) / len(e.phases)
            conductance += 1.0 / z if z else 0.0
    ratio = step * (float(np.mean(taps)) if taps else 1.0)
    return complex(ratio), (1.0 / conductance if conductance else 0j)


def _transformer_law(t: Transformer, parent: Bus, child: Bus) -> tuple[float, complex]:
    """Return the off-nominal ratio and the impedance (ohm, total power) of a transformer."""
    p = next((i for i, w in enumerate(t.windings) if w.bus == parent.name), 0)
    c = next(i for i, w in enumerate(t.windings) if w.bus == child.name and i != p)
    star = star_impedances_pu(t)
    rated = t.windings[c].kv * t.windings[c].tap_pu / (t.windings[p].kv * t.windings[p].tap_pu)
    # Ratio of the buses' bases, on the same footing (line to neutral or winding) at both ends.
    nominal = child.base_kv_ln / parent.base_kv_ln
    across = [_coil_factor(t, i) for i in (c, p)]
    volts = 1e3 * child.base_kv_ln
    z = (star[p] + star[c]) * volts**2 / (1e3 * t.windings[0].kva)
    return rated * across[0] / across[1] / nominal, z


def _coil_factor(t: Transformer, winding: int) -> float:
    """Return line-to-neutral voltage at a winding's bus per unit of its rated kv."""
    w = t.windings[winding]
    between_phases = t.n_phases > 1 or (len(w.nodes) > 1 and min(w.nodes[:2]) > 0)
    return 1.0 / sqrt(3) if between_phases else 1.0


def _add_shunts(feeder: Feeder, build: NetworkBuilder) -> None:
    for line in feeder.lines:
        if line.closed and np.any(line.b_us):
            y = 0.5e-6j * positive_sequence(line.b_us) * len(line.phases)
            for bus in (line.from_bus, line.to_bus):
                if bus in build.columns:
                    build.add_shunt([build.columns[bus][0]], np.array([[y]]))
    for cap in feeder.capacitors:
        if cap.closed:
            y = 1j * _capacitor_siemens(cap)
            build.add_shunt([build.columns[cap.bus][0]], np.array([[y]]))


def _capacitor_siemens(cap: Capacitor) -> float:
    return cap.kvar / (1e3 * cap.kv_ln**2)
