"""The agents' electrical network: who influences whom, and who are neighbours.

X (n, n) is the sensitivity of the agents' squared voltages to their reactive powers on the linear
power-flow model; Y = inv(X)' couples an agent with its Kron neighbours (`grid_models.kron`). The
transpose matters on untransposed feeders, where X is not symmetric: the gradient of a function of
v = X q + v0 is X' times its derivative. Everything here is design-time knowledge, computed from
the site alone, hence equal in every instance.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from controllers.errors import ControllerError
from controllers.mail import FloatArray
from controllers.optdist_terminals import agent_names
from controllers.protocol import ControlSite
from grid_models.errors import GridModelError
from grid_models.kron import Pattern, kron_reduce
from grid_models.lindistflow import LinDistFlow

Q_BASE_KVAR = 1000.0
"""Base of the per-unit reactive power inside the volt/var algorithms."""

MODELS = ("three_phase", "single_phase")
PATTERNS = ("exact", "phase")
"""Of `grid_models.kron`. Its 'bus' is left out: the entries it drops make Y a wrong gradient
(on IEEE 123 with an agent per loaded phase the voltage leaves the band and the cost doubles)."""


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
        y: FloatArray = np.diag(self.y_diag)
        y[self.target, self.source] = self.weight
        return y

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Return the agents whose messages `name` needs."""
        sources = self.source[self.target == self.names.index(name)]
        return tuple(self.names[i] for i in sources)


def network_of(names: tuple[str, ...], x: FloatArray, y: FloatArray) -> AgentNetwork:
    """Return the network of given X and Y (`AgentNetwork`); zeros of Y are no neighbours.

    Raises
    ------
    ControllerError
        A number is not finite, or some diagonal entry of Y is not positive.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ControllerError("the sensitivities are not finite", where="volt/var agents")
    y_diag = np.array(np.diag(y), dtype=np.float64)
    for name, value in zip(names, y_diag, strict=True):
        if value <= 0.0:
            raise ControllerError(
                "reactive power does not raise its own voltage",
                where=f"agent '{name}'",
                expected="a DER behind some reactance of its own",
            )
    off = y - np.diag(y_diag)
    target, source = np.nonzero(off)
    return AgentNetwork(
        names,
        np.array(x, dtype=np.float64),
        y_diag,
        target.astype(np.int64),
        source.astype(np.int64),
        np.array(off[target, source], dtype=np.float64),
    )


def linear_model(site: ControlSite, model: str) -> LinDistFlow:
    """Return the flat LinDistFlow of the site's feeder with the site's DERs."""
    phases: Literal["three", "single"] = "three" if model == "three_phase" else "single"
    return LinDistFlow.from_feeder(site.feeder.with_ders(site.ders), phases)


_Key = tuple[int, str, str]
_CACHE: dict[_Key, tuple[weakref.ref[object], tuple[object, ...], AgentNetwork]] = {}


def agent_network(
    site: ControlSite, model: str = "three_phase", pattern: str = "exact"
) -> AgentNetwork:
    """Return the network of the site's agents; instances of one site share it.

    A DER of several phases injects equally on each and measures their mean, so its row and
    column of X are means over its nodes.

    Parameters
    ----------
    site : ControlSite
        Feeder and DERs.
    model : 'three_phase' or 'single_phase'
        The linear model that gives X.
    pattern : 'exact' or 'phase'
        Who are neighbours, see `grid_models.kron`.

    Raises
    ------
    ControllerError
        The feeder gives no usable network; the message carries the grid model's.
    """
    key = (id(site.feeder), model, pattern)
    hit = _CACHE.get(key)
    if hit is not None and hit[0]() is site.feeder and hit[1] == site.ders:
        return hit[2]
    names = agent_names(site)
    try:
        reduced = kron_reduce(linear_model(site, model), site.ders, pattern=cast(Pattern, pattern))
    except GridModelError as error:
        raise ControllerError(
            error.what, where=error.where, expected=error.expected, nearest=error.nearest
        ) from error
    y = sparse.csr_array(reduced.y.T).toarray() * (1.0 / Q_BASE_KVAR)
    network = network_of(names, reduced.x * Q_BASE_KVAR, y)
    ref: weakref.ref[object] = weakref.ref(site.feeder, lambda _: _CACHE.pop(key, None))
    _CACHE[key] = (ref, site.ders, network)
    return network
