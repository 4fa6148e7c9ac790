"""The agents' electrical network: who influences whom, and who are neighbours.

X (n, n) is the sensitivity of the agents' squared voltages to their reactive powers on the linear
power-flow model; Y = inv(X)' couples an agent with its *Kron neighbours* only: those agents that
no other agent separates from it. Everything here is design-time knowledge, computed from the
site alone, hence equal in every instance.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.errors import ControllerError
from controllers.mail import FloatArray
from controllers.optdist_terminals import agent_names
from controllers.protocol import ControlSite

Q_BASE_KVAR = 1000.0
"""Base of the per-unit reactive power inside the volt/var algorithms."""

# Entries of Y below this share of the diagonals' geometric mean are rounding, not neighbours.
_NEIGHBOUR_TOLERANCE = 1e-6
# Agents closer than this (in X_ii + X_jj - X_ij - X_ji, relative to X's mean diagonal) count as
# one point, where X is singular; each gets a reactance of its own of `_SERVICE_SHARE`.
_POINT_TOLERANCE = 1e-4
_SERVICE_SHARE = 0.02


@dataclass(frozen=True)
class AgentNetwork:
    """Agents, their sensitivities and their neighbours.

    Attributes
    ----------
    names : tuple of str, (n,)
        Agents in the site's order.
    x : float (n, n)
        d v^2 [pu^2] / d q [per unit of `Q_BASE_KVAR`].
    y_diag : float (n,)
        Diagonal of Y = inv(X)'.
    target, source : int (m,)
        Edges: agent `target` needs the message of agent `source`; sorted by (target, source).
    weight : float (m,)
        Y[target, source].
    """

    names: tuple[str, ...]
    x: FloatArray
    y_diag: FloatArray
    target: NDArray[np.int64]
    source: NDArray[np.int64]
    weight: FloatArray

    def y_dense(self) -> FloatArray:
        """Return Y as a dense matrix, (n, n)."""
        y = np.diag(self.y_diag)
        y[self.target, self.source] = self.weight
        return y

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Return the agents whose messages `name` needs."""
        sources = self.source[self.target == self.names.index(name)]
        return tuple(self.names[i] for i in sources)


def network_of_sensitivity(names: tuple[str, ...], x: FloatArray) -> AgentNetwork:
    """Return the agents' network for a given X (see `AgentNetwork`).

    Agents at one electrical point make X singular; they are set apart by a small reactance of
    their own (a service drop), which leaves voltage limits exact at rest and shares the duty
    between them.

    Raises
    ------
    ControllerError
        X is not finite, or some agent has no influence on its own voltage.
    """
    x = np.array(x, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ControllerError("the sensitivity matrix is not finite", where="optdist-vc")
    own = np.diag(x)
    for name, value in zip(names, own, strict=True):
        if value <= 0.0:
            raise ControllerError(
                "reactive power does not move its own voltage (is it at the source?)",
                where=f"agent '{name}'",
                expected="a DER behind some reactance",
            )
    spread = _set_points_apart(x)
    y = np.linalg.inv(spread).T
    scale = np.sqrt(np.abs(np.outer(np.diag(y), np.diag(y))))
    keep = np.abs(y) > _NEIGHBOUR_TOLERANCE * scale
    np.fill_diagonal(keep, False)
    target, source = np.nonzero(keep)
    return AgentNetwork(
        names,
        x,
        np.diag(y).copy(),
        target.astype(np.int64),
        source.astype(np.int64),
        y[target, source],
    )


def _set_points_apart(x: FloatArray) -> FloatArray:
    own = np.diag(x)
    apart = own[:, None] + own[None, :] - x - x.T
    np.fill_diagonal(apart, np.inf)
    shared = apart.min(axis=1, initial=np.inf) < _POINT_TOLERANCE * own.mean()
    return x + np.diag(np.where(shared, _SERVICE_SHARE * own, 0.0))


_CACHE: dict[tuple[int, str], tuple[weakref.ref[object], tuple[object, ...], AgentNetwork]] = {}


def agent_network(site: ControlSite, model: str = "three_phase") -> AgentNetwork:
    """Return the network of the site's agents; one agent per instance costs no rebuild each.

    Parameters
    ----------
    site : ControlSite
        Feeder and DERs.
    model : 'three_phase' or 'single_phase'
        The linear model that gives X.
    """
    key = (id(site.feeder), model)
    hit = _CACHE.get(key)
    if hit is not None and hit[0]() is site.feeder and hit[1] == site.ders:
        return hit[2]
    network = network_of_sensitivity(agent_names(site), der_sensitivity(site, model))
    ref: weakref.ref[object] = weakref.ref(site.feeder, lambda _: _CACHE.pop(key, None))
    _CACHE[key] = (ref, site.ders, network)
    return network


def der_sensitivity(site: ControlSite, model: str) -> FloatArray:
    """Return d v^2 / d q between the DERs, (n, n), per unit of `Q_BASE_KVAR`.

    A DER of several phases injects equally on each and measures their mean, so its row and
    column are means over its nodes.
    """
    from grid_models.lindistflow_network import three_phase_network
    from grid_models.topology import radial_tree
    net = three_phase_network(site.feeder, radial_tree(site.feeder), merge_ohm=0.005, with_source_impedance=True)
    n = net.size
    zf = np.linalg.inv(np.eye(n) - net.transfer.toarray())
    zf = zf @ net.impedance.toarray() @ zf.conj().T
    pos = {l: k for l, k in zip(net.labels, net.node)}
    ph = np.zeros(n)
    for l, k in pos.items(): ph[k] = (int(l.split(".")[1]) - 1)
    a = np.exp(-2j*np.pi/3*ph)
    x = 2*np.imag(np.conj(a)[:, None]*zf*a[None, :])/net.base_v[:, None]/net.base_v[None, :]*Q_BASE_KVAR*1e3
    m = np.zeros((len(site.ders), n))
    for i, d in enumerate(site.ders):
        for l in d.labels: m[i, pos[l]] = 1/len(d.phases)
    return m @ x @ m.T
