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
from controllers.core.mail import IntArray
from controllers.core.protocol import ControlSite
from grid_models.base.errors import nearest_name
from grid_models.feeder.clusters import Clusters, found_clusters, given_clusters
from grid_models.feeder.model import Feeder, Line
from grid_models.feeder.topology import RadialTree, radial_tree
from grid_models.linear.lindistflow import LinDistFlow

V_UNIT, S_UNIT = 0.01, 100.0
PHASES = (1, 2, 3)
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
    nodes : Positions in the model of all nodes of its buses.
    labels : (n,). Nodes whose voltage it measures and predicts.
    up : Position in the boundaries of the one above; -1 at the source.
    downs : Boundaries below.
    """

    name: str
    ders: IntArray
    nodes: IntArray
    labels: tuple[str, ...]
    up: int
    downs: tuple[int, ...]


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
    model = LinDistFlow.from_feeder(_checked_feeder(site, taps))
    cut = _cut(model.tree, clusters)
    boundaries = _boundaries(model, cut)
    return FeederNetwork(cut.names, _clusters(site, model, cut, boundaries), boundaries, model)


def cluster_names(
    site: ControlSite, clusters: int | Mapping[str, Any], taps: Mapping[str, int]
) -> tuple[str, ...]:
    """Return the names of the clusters that `feeder_network` cuts; it raises the same errors."""
    return _cut(radial_tree(_checked_feeder(site, taps)), clusters).names


def _checked_feeder(site: ControlSite, taps: Mapping[str, int]) -> Feeder:
    for der in site.ders:
        if der.kind not in _KINDS:
            raise ControllerError(
                f"'{der.name}' is a {der.kind}",
                where="dmpc",
                expected=f"DERs of kind {', '.join(_KINDS)}",
            )
    return _with_taps(site.feeder, taps).with_ders(site.ders)


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


def _clusters(
    site: ControlSite, model: LinDistFlow, cut: Clusters, boundaries: tuple[Boundary, ...]
) -> tuple[FeederCluster, ...]:
    place = model.tree.index
    of_der = np.array([cut.member[place[d.bus]] for d in site.ders], dtype=np.int64)
    of_node = np.array([cut.member[place[bus_of(x)]] for x in model.nodes], dtype=np.int64)
    ups = {b.child: i for i, b in enumerate(boundaries)}
    downs: list[list[int]] = [[] for _ in cut.names]
    for i, b in enumerate(boundaries):
        downs[b.parent].append(i)
    ders, nodes = _groups(of_der, len(cut.names)), _groups(of_node, len(cut.names))
    out = []
    for c, name in enumerate(cut.names):
        watched = [label for i in ders[c] for label in site.ders[i].labels]
        watched += [x for i in downs[c] for x in boundaries[i].labels if x is not None]
        labels = tuple(dict.fromkeys(watched))
        out.append(FeederCluster(name, ders[c], nodes[c], labels, ups.get(c, -1), tuple(downs[c])))
    return tuple(out)


def _groups(member: IntArray, count: int) -> list[IntArray]:
    """Return the positions of each cluster's members, in order."""
    order = np.argsort(member, kind="stable")
    return np.split(order, np.searchsorted(member[order], np.arange(1, count)))


def bus_of(label: str) -> str:
    """Return the bus of a node label."""
    return label.rpartition(".")[0]
