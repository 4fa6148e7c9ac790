"""A feeder cut into clusters for predictive control: who acts where, and what crosses a boundary.

On the lossless linear model (LinDistFlow, three phases) a cluster below bus p of its parent has

    v_i = v_i,now + T_i (v_p - v_p,now) + sum over own injections j of
          (R_ij - T_i R_pj) (p_j - p_j,now) + (X_ij - T_i X_pj) (q_j - q_j,now)

with v squared magnitudes, T_i the tap ratio between p and i on the phase of i, and a cluster
further down as one injection per phase at the bus it hangs on. A boundary carries, per phase, the
voltage of the parent's bus and the P and Q that the child's subtree injects there. The coupled
clusters reproduce the whole model.

Units inside: 0.01 pu^2 of squared voltage, 100 kW, 100 kvar.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from grid_models.base.errors import nearest_name
from grid_models.feeder.clusters import Clusters, found_clusters, given_clusters
from grid_models.feeder.model import Der, Feeder, Line
from grid_models.feeder.topology import RadialTree
from grid_models.linear.lindistflow import LinDistFlow

V_UNIT, S_UNIT = 0.01, 100.0
PHASES = (1, 2, 3)
_SCALE = S_UNIT / V_UNIT
_KINDS = ("pv", "battery", "inverter")
# Switches and regulators have no length; they must not attract a cut.
_SHORT_OHM = 1e-3


@dataclass(frozen=True, eq=False)
class Boundary:
    """Where cluster `child` hangs on `parent`: `labels` are the nodes of the parent's bus.

    `labels` has one entry per phase 1, 2, 3; None for a phase that does not go on.
    """

    parent: int
    child: int
    labels: tuple[str | None, ...]


@dataclass(frozen=True, eq=False)
class FeederCluster:
    """One cluster.

    Attributes
    ----------
    ders : (d,). Positions in the site of its DERs.
    labels : (n,). Nodes whose voltage it measures and predicts.
    up : Position in the boundaries of the one above; -1 at the source.
    downs : Boundaries below.
    ratio : (n, 3). T: response to the voltage of the three nodes above.
    r, x : (n, d). Response to own injections, per 100 kW and 100 kvar.
    r_down, x_down : (n, 3 * len(downs)). The same for each phase of each boundary below.
    share : (3, d). Share of a DER's power on each phase.
    load : (n,). Response to all own nominal loads.
    load_kva : (3,). Own nominal loads by phase, as injection (negative), in 100 kVA.
    """

    name: str
    ders: IntArray
    labels: tuple[str, ...]
    up: int
    downs: tuple[int, ...]
    ratio: FloatArray
    r: FloatArray
    x: FloatArray
    r_down: FloatArray
    x_down: FloatArray
    share: FloatArray
    load: FloatArray
    load_kva: np.ndarray[tuple[int, ...], np.dtype[np.complex128]]


@dataclass(frozen=True, eq=False)
class FeederNetwork:
    """All clusters, their boundaries, and the linear model they come from."""

    names: tuple[str, ...]
    clusters: tuple[FeederCluster, ...]
    boundaries: tuple[Boundary, ...]
    model: LinDistFlow


def feeder_network(
    site: ControlSite, clusters: int | Mapping[str, Any], taps: Mapping[str, int]
) -> FeederNetwork:
    """Cut the site's feeder.

    Parameters
    ----------
    clusters : How many to find by electrical distance, or the user's own.
    taps : Known positions that differ from the feeder's.

    Raises ControllerError, GridModelError: A DER is of a kind that cannot be commanded, a regulator
    is unknown, or the clusters are wrong (a bus twice or missing, a cluster in pieces).
    """
    for der in site.ders:
        if der.kind not in _KINDS:
            raise ControllerError(
                f"'{der.name}' is a {der.kind}",
                where="dmpc",
                expected=f"DERs of kind {', '.join(_KINDS)}",
            )
    feeder = _with_taps(site.feeder, taps).with_ders(site.ders)
    model = LinDistFlow.from_feeder(feeder)
    cut = _cut(model.tree, clusters)
    boundaries = _boundaries(model, cut)
    parts = tuple(_cluster(site, model, cut, boundaries, c) for c in range(len(cut.names)))
    return FeederNetwork(cut.names, parts, boundaries, model)


def _with_taps(feeder: Feeder, taps: Mapping[str, int]) -> Feeder:
    names = [regulator.name for regulator in feeder.regulators]
    for name in taps:
        if name not in names:
            raise ControllerError(
                f"no regulator is called '{name}'",
                where="dmpc: option 'taps'",
                expected="a regulator of the feeder",
                nearest=nearest_name(name, names),
            )
    regulators = tuple(replace(r, tap_step=taps.get(r.name, r.tap_step)) for r in feeder.regulators)
    return replace(feeder, regulators=regulators)


def _cut(tree: RadialTree, clusters: int | Mapping[str, Any]) -> Clusters:
    child = np.flatnonzero(tree.parent >= 0)
    parent = tree.parent[child]
    if isinstance(clusters, Mapping):
        lists = {str(k): [str(b) for b in buses] for k, buses in clusters.items()}
        return given_clusters(tree.buses, lists, parent, child)
    length = np.array([max(map(_ohm, tree.edges[i]), default=_SHORT_OHM) for i in child])
    count = min(clusters, len(tree.buses))
    return found_clusters(len(tree.buses), parent, child, length, count)


def _ohm(element: object) -> float:
    if isinstance(element, Line) and element.z_ohm.size:
        return max(float(np.abs(np.diag(element.z_ohm)).max()), _SHORT_OHM)
    return _SHORT_OHM


def _boundaries(model: LinDistFlow, cut: Clusters) -> tuple[Boundary, ...]:
    """Return the tree edges between clusters; in a tree each cluster has one above it at most."""
    tree = model.tree
    out = []
    for i in range(1, len(tree.buses)):
        up = int(tree.parent[i])
        if cut.member[i] != cut.member[up]:
            below, above = (_nodes_by_phase(model, tree.buses[k]) for k in (i, up))
            labels = tuple(above.get(p) if p in below else None for p in PHASES)
            out.append(Boundary(int(cut.member[up]), int(cut.member[i]), labels))
    return tuple(out)


def _nodes_by_phase(model: LinDistFlow, bus: str) -> dict[int, str]:
    """Return the (first) node of a bus that each phase of the source feeds."""
    labels = (x for x in model.feeder.buses[bus].labels if x in model.index)
    nodes: dict[int, str] = {}
    for label in labels:
        nodes.setdefault(int(model.feeding_phase[model.electrical_nodes(label)[0]]), label)
    return nodes


def _cluster(
    site: ControlSite, model: LinDistFlow, cut: Clusters, boundaries: tuple[Boundary, ...], c: int
) -> FeederCluster:
    place = model.tree.index
    ders = [i for i, d in enumerate(site.ders) if cut.member[place[d.bus]] == c]
    up = next((i for i, b in enumerate(boundaries) if b.child == c), -1)
    downs = tuple(i for i, b in enumerate(boundaries) if b.parent == c)
    watched = [label for i in ders for label in site.ders[i].labels]
    watched += [x for i in downs for x in boundaries[i].labels if x is not None]
    labels = tuple(dict.fromkeys(watched))
    own = [label for label in model.nodes if cut.member[place[_bus(label)]] == c]
    own_at = np.array([model.index[x] for x in own], dtype=np.int64)
    nominal_p, nominal_q = model.nominal_injection()
    injections: list[str | Der] = [site.ders[i] for i in ders]
    below = [x for i in downs for x in boundaries[i].labels]
    columns: list[str | Der] = [*injections, *(x for x in below if x is not None), *own]
    above = () if up < 0 else boundaries[up].labels
    ratio = _ratio(model, labels, above)
    r, x = _local(model, labels, columns, above, ratio)
    d = len(ders)
    has = np.array([label is not None for label in below], dtype=bool)
    r_down, x_down = np.zeros((len(labels), len(below))), np.zeros((len(labels), len(below)))
    between = slice(d, d + int(has.sum()))
    r_down[:, has], x_down[:, has] = r[:, between], x[:, between]
    loads_at = slice(between.stop, None)
    load = r[:, loads_at] @ nominal_p[own_at] + x[:, loads_at] @ nominal_q[own_at]
    phase_of = model.node_phase
    share = np.zeros((3, d))
    for k, i in enumerate(ders):
        at = [model.index[label] for label in model.labels_of(site.ders[i])]
        np.add.at(share[:, k], phase_of[at] - 1, 1.0 / len(at))
    load_kva = np.zeros(3, dtype=np.complex128)
    np.add.at(load_kva, phase_of[own_at] - 1, nominal_p[own_at] + 1j * nominal_q[own_at])
    return FeederCluster(
        cut.names[c],
        np.array(ders, dtype=np.int64),
        labels,
        up,
        downs,
        ratio,
        r[:, :d],
        x[:, :d],
        r_down,
        x_down,
        share,
        load / S_UNIT,
        load_kva / S_UNIT,
    )


def _bus(label: str) -> str:
    return label.rpartition(".")[0]


def _ratio(
    model: LinDistFlow, labels: tuple[str, ...], above: tuple[str | None, ...]
) -> FloatArray:
    """Return T (n, 3): squared tap ratio to the node above on the same phase."""
    ratio = np.zeros((len(labels), 3))
    phase_of = model.node_phase[[model.index[x] for x in labels]]
    for phase, top in enumerate(above):
        mine = np.flatnonzero(phase_of == phase + 1).tolist()
        if top is not None and mine:
            _, x = model.sensitivity([labels[i] for i in mine] + [top], [top])
            # At a stiff source no voltage changes, so any ratio will do.
            moves = x[-1, 0] > 1e-12
            ratio[mine, phase] = x[:-1, 0] / x[-1, 0] if moves else 1.0
    return ratio


def _local(
    model: LinDistFlow,
    labels: tuple[str, ...],
    columns: list[str | Der],
    above: tuple[str | None, ...],
    ratio: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return (R, X) of the cluster alone: what the path above it adds is taken off."""
    if not labels or not columns:
        empty = np.zeros((len(labels), len(columns)))
        return empty, empty
    r, x = model.sensitivity(labels, columns)
    for phase, top in enumerate(above):
        if top is not None:
            r_top, x_top = model.sensitivity([top], columns)
            r = r - ratio[:, [phase]] * r_top
            x = x - ratio[:, [phase]] * x_top
    return _SCALE * r, _SCALE * x
