"""The price form: nodes' prices travel by mail from the agents that watch them to the DERs.

Each node is watched by the agent of the DER that moves it most. The agent keeps the node's price
lam, the multiplier of its voltage band, by what it measures alone::

    lam += gain (v - clip(lam / gain + v, v_low, v_high))

and tells each DER that matters the sum of its nodes' prices times their sensitivities, the *toll*.
A DER passes on ``x = clip(x0 - tolls, -room, room)``: the dual ascent of the central form's
programme with the feeder in the place of a model. What tolls ask for below -room, PV that may be
limited gives up in active power. A message that is lost or late leaves the last toll in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray, LatestMail, Link, Mail
from controllers.core.protocol import hosted_positions
from controllers.safety.central import PENALTY, Filtered, Seen
from controllers.safety.model import SafetyModel

_GAIN = 3.0
"""Over the sum of a row of |A A'|. 2 is safe if all rows act at once; few do."""
_MATTERS = 0.2
"""Least sensitivity of a node to a DER that is told its price, over the node's largest."""
_SLOW = 0.05
"""Largest change of a set-point, over rating and step, that takes the own voltage from 1 pu."""


@dataclass(frozen=True, eq=False)
class Tolls:
    """Who watches which node and tells whom, the same for all instances of a controller.

    Attributes
    ----------
    owner, gain : (m,). The agent that watches each node; the gain of its price.
    watcher, der, node : (e,)
        Entries of the tolls, in this order: an agent tells a DER about a node of its own.
    weight : (e,). Sensitivity of the node to the DER.
    """

    owner: IntArray
    gain: FloatArray
    watcher: IntArray
    der: IntArray
    node: IntArray
    weight: FloatArray


@lru_cache(maxsize=8)
def tolls_of(model: SafetyModel, agents: tuple[str, ...]) -> Tolls:
    """Return the tolls of all agents, each named as its DER.

    Raises ControllerError: An agent is no DER.
    """
    known = {der.name for der in model.ders}
    odd = next((agent for agent in agents if agent not in known), None)
    if odd is not None:
        raise ControllerError(
            f"kind 'price' needs an agent for each DER; '{odd}' is the name of no DER",
            expected="kind: central, without the key 'split'",
        )
    a = model.by_q[:, model.positions(agents)]
    strength = np.abs(a)
    owner = strength.argmax(axis=1)
    node, der = np.nonzero(strength > _MATTERS * strength.max(axis=1, keepdims=True))
    order = np.lexsort((node, der, owner[node]))
    node, der = node[order], der[order]
    gain = _GAIN / np.abs(a @ a.T).sum(axis=1)
    return Tolls(owner, gain, owner[node], der, node, a[node, der])


class PriceFilter:
    """The agents of the price form that are hosted together.

    Parameters
    ----------
    model : Of the site.
    agents : All agents of the controller: each is named as its DER.
    hosted : DERs of the hosted agents.
    limited : Positions of those whose active power can be limited.
    band : Of `Seen.v`.

    Attributes
    ----------
    rows : Positions of the nodes that the hosted agents watch.
    """

    def __init__(
        self,
        model: SafetyModel,
        agents: Sequence[str],
        hosted: Sequence[str],
        limited: IntArray,
        band: tuple[float, float],
    ) -> None:
        tolls = tolls_of(model, tuple(agents))
        own = np.array(hosted_positions(hosted, agents, "safety"), dtype=np.int64)
        self._band, self._limited, self._n = band, limited, len(own)
        node_at = {node: i for i, node in enumerate(model.nodes)}
        ders = [model.ders[i] for i in model.positions(hosted)]
        ends = [(i, node_at[x]) for i, d in enumerate(ders) for x in d.labels if x in node_at]
        self._terminal_der, terminal = np.array(ends, dtype=np.int64).reshape(-1, 2).T
        watched = np.flatnonzero(np.isin(tolls.owner, own))
        self.rows = np.union1d(watched, terminal)
        self._terminal = np.searchsorted(self.rows, terminal)
        self._gain = np.where(np.isin(self.rows, watched), tolls.gain[self.rows], 0.0)
        self._price: FloatArray = np.zeros(len(self.rows))
        self._proposed: FloatArray = np.zeros(len(own))
        self._wire(tolls, agents, own)
        self._inbox = LatestMail(self.links_in)
        self._round = 0

    def _wire(self, tolls: Tolls, agents: Sequence[str], own: IntArray) -> None:
        """Find the sums that make the hosted agents' tolls, and the links."""
        mine = np.isin(tolls.watcher, own)
        told = np.stack([tolls.watcher[mine], tolls.der[mine]])
        pairs, entry = np.unique(told, axis=1, return_inverse=True)
        self._entry, self._n_pairs = entry.reshape(-1), pairs.shape[1]
        self._entry_row = np.searchsorted(self.rows, tolls.node[mine])
        self._entry_weight = tolls.weight[mine]
        place = np.zeros(len(agents), dtype=np.int64)
        place[own] = np.arange(len(own))
        local = pairs[0] == pairs[1]
        self._local, self._sent = np.flatnonzero(local), np.flatnonzero(~local)
        self._local_der = place[pairs[1, local]]
        out = pairs[:, ~local].T.tolist()
        self.links_out = tuple(Link(agents[i], agents[j], "safety") for i, j in out)
        heard = np.isin(tolls.der, own) & (tolls.watcher != tolls.der)
        into = np.unique(np.stack([tolls.der[heard], tolls.watcher[heard]]), axis=1)
        self.links_in = tuple(Link(agents[i], agents[j], "safety") for j, i in into.T.tolist())
        self._heard_der = place[into[0]]

    def absorb(self, mail: Mail) -> None:
        """Take in tolls."""
        self._inbox.absorb(mail)

    def step(self, x0: FloatArray, seen: Seen) -> Filtered:
        """Advance the prices; apply the tolls; tell the others theirs."""
        ends, gain = self._band, self._gain
        wanted = self._price / np.where(gain, gain, 1.0) + seen.v
        price = gain * (wanted - np.clip(wanted, *ends))
        x0 = self._slowed(x0, seen)
        price = np.where(np.isnan(price), 0.0, price)
        self._price = np.clip(price, -PENALTY, PENALTY)
        weighted = self._entry_weight * self._price[self._entry_row]
        told = np.bincount(self._entry, weighted, self._n_pairs).astype(np.float64, copy=False)
        own = np.bincount(self._local_der, told[self._local], self._n)
        toll = own + np.bincount(self._heard_der, self._inbox.values, self._n)
        x = np.clip(x0 - toll, -seen.room, seen.room)
        p, left = seen.p_next.copy(), np.maximum(x - x0 + toll, 0.0)[self._limited]
        p[self._limited] = np.maximum(p[self._limited] - left, 0.0)
        slack = np.nan_to_num(np.abs(seen.v - np.clip(seen.v, *ends)))
        rounds = np.full(len(self._sent), self._round, dtype=np.int64)
        self._round += 1
        mail = Mail(np.arange(len(self._sent)), rounds, told[self._sent])
        return Filtered(x, p, float(slack.max(initial=0.0)), mail)

    def _slowed(self, x0: FloatArray, seen: Seen) -> FloatArray:
        """Return x0, slowed where it takes a DER's own voltage away from 1 pu."""
        off = np.nan_to_num(seen.v - 0.5)[self._terminal]
        away = np.bincount(self._terminal_der, off, self._n)
        change = x0 - self._proposed
        change = np.where(change * away > 0.0, np.clip(change, -_SLOW, _SLOW), change)
        self._proposed = self._proposed + change
        return self._proposed
