"""The agents' electrical network: sensitivities and neighbours.

X (n, n) is the sensitivity of the agents' squared voltages to their reactive powers on the linear
power-flow model; Y = inv(X)' couples an agent with its Kron neighbours (`grid_models.linear.kron`).
The transpose matters on untransposed feeders, where X is not symmetric: the gradient of a function
of v = X q + v0 is X' times its derivative. All of this follows from the site alone, so it is equal
in every instance.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray
from controllers.core.protocol import ControlSite
from controllers.core.terminals import agent_names
from controllers.optdist.sensitivity import DenseSensitivity, Sensitivity
from grid_models.base.errors import GridModelError
from grid_models.linear.kron import Pattern, kron_reduce
from grid_models.linear.kron_tree import TreeReduction, tree_reduce
from grid_models.linear.lindistflow import LinDistFlow

Q_BASE_KVAR = 1000.0
"""Base of the per-unit reactive power inside the volt/var algorithms."""

DENSE_POINTS = 256
"""Above it X is kept as tree sweeps, and relays keep Y sparse."""

BoolArray = NDArray[np.bool_]

MODELS = ("three_phase", "single_phase")
PATTERNS = ("exact", "phase")
"""Of `grid_models.linear.kron`."""


@dataclass(frozen=True, eq=False)
class AgentNetwork:
    """Points where agents act, who owns them, their sensitivities and their neighbours.

    A *point* is an electrical node with at least one DER. The first DER there owns it: its agent
    watches the point's voltage and keeps its price. Other DERs at the point read that price by
    mail, so that DERs on one node do not make X singular and share the duty by weight. On large
    feeders there are also *relays*, points without a DER (`grid_models.linear.kron_tree`): an
    agent near by keeps their price, which no voltage drives.

    Attributes
    ----------
    names : (n,). Agents in the site's order.
    points : (m,). Names of the points.
    watched : (m,). Node labels whose mean is a point's voltage; none for a relay.
    owner : (m,). Position of the owning agent.
    sensitivity : X, d v^2 [pu^2] / d q [per unit of `Q_BASE_KVAR`] between the points.
    y_diag : (m,). Diagonal of Y = inv(X)'.
    target, source : int (e,)
        Edges: point `target` needs the message of point `source`; sorted by (target, source).
    weight : (e,). Y[target, source].
    member_agent, member_point : (k,). Which agent injects at which point; sorted by agent.
    member_share : (k,). The share of the agent's reactive power that goes there.
    """

    names: tuple[str, ...]
    points: tuple[str, ...]
    watched: tuple[tuple[str, ...], ...]
    owner: IntArray
    sensitivity: Sensitivity
    y_diag: FloatArray
    target: IntArray
    source: IntArray
    weight: FloatArray
    member_agent: IntArray
    member_point: IntArray
    member_share: FloatArray

    @property
    def x(self) -> FloatArray:
        """X as a dense matrix, (m, m)."""
        return self.sensitivity.dense()

    def y_dense(self) -> FloatArray:
        """Return Y as a dense matrix, (m, m)."""
        return np.asarray(self.y_matrix().toarray())

    def y_matrix(self) -> sparse.csr_array:
        """Return Y, (m, m)."""
        m = len(self.points)
        own = np.arange(m)
        rows = np.concatenate([self.target, own])
        cols = np.concatenate([self.source, own])
        values = np.concatenate([self.weight, self.y_diag])
        return sparse.csr_array((values, (rows, cols)), shape=(m, m))

    def spread(self) -> sparse.csr_array:
        """Return the (m, n) matrix of each agent's shares on the points."""
        return sparse.csr_array(
            (self.member_share, (self.member_point, self.member_agent)),
            shape=(len(self.points), len(self.names)),
        )

    def relays(self) -> BoolArray:
        """Say which points are relays, (m,): without injection, they only pass prices on."""
        counts = np.bincount(self.member_point, minlength=len(self.points))
        return np.asarray(counts == 0)

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
    x: Sensitivity,
    y_kvar: sparse.csr_array,
    members: list[tuple[int, int, float]],
) -> AgentNetwork:
    """Put a network together; `y_kvar` is inv(X) in kvar per pu."""
    y = sparse.csr_array(y_kvar.T * (1.0 / Q_BASE_KVAR))
    y.sort_indices()
    y_diag = np.array(y.diagonal(), dtype=np.float64)
    good = np.isfinite(x.diagonal).all() and np.isfinite(y.data).all() and (y_diag > 0.0).all()
    if not good:
        raise ControllerError(
            "reactive power does not raise its own voltage at every agent",
            where=site.feeder.name,
            expected="DERs behind some reactance",
        )
    target = np.repeat(np.arange(len(y_diag)), np.diff(y.indptr))
    source = y.indices.astype(np.int64)
    off = (target != source) & (y.data != 0.0)
    agent, point, share = zip(*members, strict=True)
    return AgentNetwork(
        names=agent_names(site),
        points=places.points,
        watched=places.watched,
        owner=np.array(places.owner, dtype=np.int64),
        sensitivity=x,
        y_diag=y_diag,
        target=target[off],
        source=source[off],
        weight=np.array(y.data[off], dtype=np.float64),
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
    places = _Places(tuple(points), tuple(watched), tuple(owner))
    if len(points) <= DENSE_POINTS:
        reduced = kron_reduce(linear, points, pattern=cast(Pattern, pattern))
        return _network(site, places, DenseSensitivity(reduced.x * Q_BASE_KVAR), reduced.y, members)
    tree = tree_reduce(linear, points, within_phase=pattern == "phase")
    places = _with_relays(places, tree)
    per_unit = replace(tree.x, scale=tree.x.scale * Q_BASE_KVAR)
    return _network(site, places, per_unit, tree.y, members)


def _with_relays(places: _Places, tree: TreeReduction) -> _Places:
    """Give each relay to the owner of the point it is coupled with most, agents' points first."""
    y = tree.y
    owner = [*places.owner, *[-1] * len(tree.relays)]
    waiting = list(range(len(places.owner), len(owner)))
    while waiting:
        left, found = [], {}
        for relay in waiting:
            row = slice(y.indptr[relay], y.indptr[relay + 1])
            near = [
                (abs(value), -i)
                for i, value in zip(y.indices[row].tolist(), y.data[row].tolist(), strict=True)
                if owner[i] >= 0
            ]
            if near:
                found[relay] = owner[-max(near)[1]]
            else:
                left.append(relay)
        for relay, agent in found.items():
            owner[relay] = agent
        if not found:  # cannot be: every kept node lies above an agent
            raise AssertionError("a relay is not connected to any agent")
        waiting = left
    nothing: tuple[tuple[str, ...], ...] = ((),) * len(tree.relays)
    return _Places(places.points + tree.relays, places.watched + nothing, tuple(owner))


_MAX_ERROR = 0.1


def der_network(site: ControlSite, model: str, pattern: str) -> AgentNetwork:
    """Return the network whose points are the DERs themselves (the published form's).

    DERs on several phases have no sparse Y that would be an inverse of X; all agents are then
    neighbours of all others.

    Raises ControllerError: There are more than `DENSE_POINTS` DERs: the published form knows no
    relays.
    """
    if len(site.ders) > DENSE_POINTS:
        raise ControllerError(
            f"form 'published' cannot serve {len(site.ders)} agents",
            where=site.feeder.name,
            expected=f"at most {DENSE_POINTS} agents, or form 'preconditioned', which has no limit",
        )
    linear = linear_model(site, model)
    reduced = kron_reduce(linear, site.ders, pattern=cast(Pattern, pattern))
    if reduced.error > _MAX_ERROR:
        reduced = replace(reduced, y=sparse.csr_array(np.linalg.inv(reduced.x)))
    names = agent_names(site)
    places = _Places(names, tuple(der.labels for der in site.ders), tuple(range(len(names))))
    members = [(k, k, 1.0) for k in range(len(names))]
    return _network(site, places, DenseSensitivity(reduced.x * Q_BASE_KVAR), reduced.y, members)


def linear_model(site: ControlSite, model: str) -> LinDistFlow:
    """Return the flat LinDistFlow of the site's feeder with the site's DERs."""
    phases: Literal["three", "single"] = "three" if model == "three_phase" else "single"
    return LinDistFlow.from_feeder(site.feeder.with_ders(site.ders), phases)


_Key = tuple[int, str, str, str]
_CACHE: dict[_Key, tuple[weakref.ref[object], tuple[object, ...], AgentNetwork]] = {}


def agent_network(
    site: ControlSite, model: str = "three_phase", pattern: str = "exact", points: str = "nodes"
) -> AgentNetwork:
    """Return the network of the site's agents; instances of one site share it.

    Parameters
    ----------
    site : Feeder and DERs.
    model : The linear model that gives X.
    pattern : Who are neighbours, see `grid_models.linear.kron`.
    points : See `point_network` and `der_network`.

    Raises ControllerError: The feeder gives no usable network; the message carries the grid
    model's.
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
