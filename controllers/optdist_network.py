"""The agents' electrical network: who influences whom, and who are neighbours.

X (n, n) is the sensitivity of the agents' squared voltages to their reactive powers on the linear
power-flow model; Y = inv(X)' couples an agent with its Kron neighbours (`grid_models.kron`). The
transpose matters on untransposed feeders, where X is not symmetric: the gradient of a function of
v = X q + v0 is X' times its derivative. Everything here is design-time knowledge, computed from
the site alone, hence equal in every instance.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from scipy import sparse

from controllers.errors import ControllerError
from controllers.mail import FloatArray, IntArray
from controllers.optdist_terminals import agent_names
from controllers.protocol import ControlSite
from grid_models.errors import GridModelError
from grid_models.kron import KronReduction, Pattern, kron_reduce
from grid_models.lindistflow import LinDistFlow

Q_BASE_KVAR = 1000.0
"""Base of the per-unit reactive power inside the volt/var algorithms."""

MODELS = ("three_phase", "single_phase")
PATTERNS = ("exact", "phase")
"""Of `grid_models.kron`. Its 'bus' is left out: the entries it drops make Y a wrong gradient
(on IEEE 123 with an agent per loaded phase the voltage leaves the band and the cost doubles)."""


@dataclass(frozen=True, eq=False)
class AgentNetwork:
    """Points where agents act, who owns them, their sensitivities and their neighbours.

    A *point* is an electrical node with at least one DER. The first DER there owns it: its agent
    watches the point's voltage and keeps its price. Other DERs at the point read that price by
    mail, so that DERs on one node do not make X singular and share the duty by weight.

    Attributes
    ----------
    names : tuple of str, (n,)
        Agents in the site's order.
    points : tuple of str, (m,)
        Names of the points.
    watched : tuple of tuple of str, (m,)
        Node labels whose mean is a point's voltage.
    owner : int (m,)
        Position of the owning agent.
    x : float (m, m)
        d v^2 [pu^2] / d q [per unit of `Q_BASE_KVAR`] between the points.
    y_diag : float (m,)
        Diagonal of Y = inv(X)'.
    target, source : int (e,)
        Edges: point `target` needs the message of point `source`; sorted by (target, source).
    weight : float (e,)
        Y[target, source].
    member_agent, member_point : int (k,)
        Which agent injects at which point; sorted by agent.
    member_share : float (k,)
        The share of the agent's reactive power that goes there.
    """

    names: tuple[str, ...]
    points: tuple[str, ...]
    watched: tuple[tuple[str, ...], ...]
    owner: IntArray
    x: FloatArray
    y_diag: FloatArray
    target: IntArray
    source: IntArray
    weight: FloatArray
    member_agent: IntArray
    member_point: IntArray
    member_share: FloatArray

    def y_dense(self) -> FloatArray:
        """Return Y as a dense matrix, (m, m)."""
        y: FloatArray = np.diag(self.y_diag)
        y[self.target, self.source] = self.weight
        return y

    def spread(self) -> FloatArray:
        """Return the (m, n) matrix of each agent's shares on the points."""
        matrix: FloatArray = np.zeros((len(self.points), len(self.names)))
        matrix[self.member_point, self.member_agent] = self.member_share
        return matrix

    def needs(self) -> IntArray:
        """Return the (agent, point) pairs of which `agent` needs the point's message by mail.

        Shape (l, 2), sorted: the order of the links, the same in every instance.
        """
        asks = np.concatenate([self.owner[self.target], self.member_agent])
        asked = np.concatenate([self.source, self.member_point])
        foreign = self.owner[asked] != asks
        pairs = np.stack([asks[foreign], asked[foreign]], axis=1)
        return np.unique(pairs, axis=0).reshape(-1, 2).astype(np.int64)

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Return the agents whose messages `name` needs."""
        pairs = self.needs()
        senders = np.unique(self.owner[pairs[pairs[:, 0] == self.names.index(name), 1]])
        return tuple(self.names[i] for i in senders)


def _network(
    site: ControlSite,
    places: _Places,
    reduced: KronReduction,
    members: list[tuple[int, int, float]],
) -> AgentNetwork:
    y = sparse.csr_array(reduced.y.T).toarray() * (1.0 / Q_BASE_KVAR)
    y_diag = np.array(np.diag(y), dtype=np.float64)
    if not (np.isfinite(reduced.x).all() and np.isfinite(y).all() and (y_diag > 0.0).all()):
        raise ControllerError(
            "reactive power does not raise its own voltage at every agent",
            where=site.feeder.name,
            expected="DERs behind some reactance",
        )
    off = y - np.diag(y_diag)
    target, source = np.nonzero(off)
    agent, point, share = zip(*members, strict=True)
    return AgentNetwork(
        names=agent_names(site),
        points=places.points,
        watched=places.watched,
        owner=np.array(places.owner, dtype=np.int64),
        x=np.asarray(reduced.x * Q_BASE_KVAR),
        y_diag=y_diag,
        target=target.astype(np.int64),
        source=source.astype(np.int64),
        weight=np.array(off[target, source], dtype=np.float64),
        member_agent=np.array(agent, dtype=np.int64),
        member_point=np.array(point, dtype=np.int64),
        member_share=np.array(share, dtype=np.float64),
    )


@dataclass(frozen=True, slots=True)
class _Places:
    points: tuple[str, ...]
    watched: tuple[tuple[str, ...], ...]
    owner: tuple[int, ...]


def point_network(site: ControlSite, model: str, pattern: str) -> AgentNetwork:
    """Return the network whose points are electrical nodes (the preconditioned form's)."""
    linear = linear_model(site, model)
    place: dict[int, int] = {}
    points: list[str] = []
    watched: list[tuple[str, ...]] = []
    owner: list[int] = []
    members: list[tuple[int, int, float]] = []
    for agent, der in enumerate(site.ders):
        labels = linear.labels_of(der)
        for label, node in zip(labels, linear.electrical_nodes(der), strict=True):
            if node not in place:
                place[node] = len(points)
                points.append(label)
                watched.append((label,) if model == "three_phase" else der.labels)
                owner.append(agent)
            members.append((agent, place[node], 1.0 / len(labels)))
    reduced = kron_reduce(linear, points, pattern=cast(Pattern, pattern))
    return _network(site, _Places(tuple(points), tuple(watched), tuple(owner)), reduced, members)


_MAX_ERROR = 0.1


def der_network(site: ControlSite, model: str, pattern: str) -> AgentNetwork:
    """Return the network whose points are the DERs themselves (the published form's).

    DERs on several phases have no sparse Y that would be an inverse of X; all agents are then
    neighbours of all others.
    """
    linear = linear_model(site, model)
    reduced = kron_reduce(linear, site.ders, pattern=cast(Pattern, pattern))
    if reduced.error > _MAX_ERROR:
        reduced = replace(reduced, y=sparse.csr_array(np.linalg.inv(reduced.x)))
    names = agent_names(site)
    places = _Places(names, tuple(der.labels for der in site.ders), tuple(range(len(names))))
    return _network(site, places, reduced, [(k, k, 1.0) for k in range(len(names))])


def linear_model(site: ControlSite, model: str) -> LinDistFlow:
    """Return the flat LinDistFlow of the site's feeder with the site's DERs."""
    phases: Literal["three", "single"] = "three" if model == "three_phase" else "single"
    return LinDistFlow.from_feeder(site.feeder.with_ders(site.ders), phases)


_Key = tuple[int, str, str, str]
_CACHE: dict[_Key, tuple[weakref.ref[object], tuple[object, ...], AgentNetwork]] = {}


def agent_network(
    site: ControlSite,
    model: str = "three_phase",
    pattern: str = "exact",
    points: str = "nodes",
) -> AgentNetwork:
    """Return the network of the site's agents; instances of one site share it.

    Parameters
    ----------
    site : ControlSite
        Feeder and DERs.
    model : 'three_phase' or 'single_phase'
        The linear model that gives X.
    pattern : 'exact' or 'phase'
        Who are neighbours, see `grid_models.kron`.
    points : 'nodes' or 'ders'
        See `point_network` and `der_network`.

    Raises
    ------
    ControllerError
        The feeder gives no usable network; the message carries the grid model's.
    """
    key = (id(site.feeder), model, pattern, points)
    hit = _CACHE.get(key)
    if hit is not None and hit[0]() is site.feeder and hit[1] == site.ders:
        return hit[2]
    agent_names(site)
    build = point_network if points == "nodes" else der_network
    try:
        network = build(site, model, pattern)
    except GridModelError as error:
        raise ControllerError(
            error.what, where=error.where, expected=error.expected, nearest=error.nearest
        ) from error
    ref: weakref.ref[object] = weakref.ref(site.feeder, lambda _: _CACHE.pop(key, None))
    _CACHE[key] = (ref, site.ders, network)
    return network
