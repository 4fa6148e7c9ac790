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

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray, LatestMail, Link, Mail
from controllers.core.protocol import hosted_positions
from controllers.safety.central import PENALTY, Filtered, Seen
from controllers.safety.model import SafetyModel

_GAIN = 3.0
_MATTERS = 0.2
_SLOW = 0.05
_UNMOVED = 1e-6


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
        known = {der.name for der in model.ders}
        odd = next((agent for agent in agents if agent not in known), None)
        if odd is not None:
            raise ControllerError(
                f"kind 'price' needs an agent for each DER; '{odd}' is the name of no DER",
                expected="kind: central",
            )
        self._band, self._limited = band, limited
        a = model.by_q[:, model.positions(agents)]
        own = np.array(hosted_positions(hosted, agents, "safety"), dtype=np.int64)
        strength = np.abs(a)
        owner = np.where(
            strength.max(axis=1) > _UNMOVED * strength.max(), strength.argmax(axis=1), -1
        )
        gain = _GAIN / np.maximum(np.abs(a @ a.T).sum(axis=1), 1e-30)
        matters = strength > _MATTERS * strength.max(axis=1, keepdims=True)
        # Entries (node, DER) by watcher, DER and node: the order of every sum, however hosted.
        node, der = np.nonzero(matters & (owner >= 0)[:, None])
        order = np.lexsort((node, der, owner[node]))
        node, der = node[order], der[order]
        watcher = owner[node]
        mine = np.isin(watcher, own)
        place_of = {node: i for i, node in enumerate(model.nodes)}
        ders = [model.ders[i] for i in model.positions(hosted)]
        terminals = [[place_of[x] for x in d.labels if x in place_of] for d in ders]
        watched = np.flatnonzero(np.isin(owner, own))
        self.rows = np.unique(np.concatenate([watched, *terminals]).astype(np.int64))
        self._gain = np.where(np.isin(self.rows, watched), gain[self.rows], 0.0)
        self._terminal = np.searchsorted(self.rows, np.concatenate(terminals).astype(np.int64))
        counts = np.array([len(group) for group in terminals], dtype=np.int64)
        self._terminal_der = np.repeat(np.arange(len(ders)), counts)
        self._terminal_share = np.repeat(1.0 / np.maximum(counts, 1), counts)
        self._proposed = np.zeros(len(ders))
        self._price = np.zeros(len(self.rows))
        pairs, entry = np.unique(np.stack([watcher[mine], der[mine]]), axis=1, return_inverse=True)
        self._entry = entry.reshape(-1)
        self._entry_row = np.searchsorted(self.rows, node[mine])
        self._entry_weight = a[node[mine], der[mine]]
        place = {int(k): i for i, k in enumerate(own)}
        local = pairs[0] == pairs[1]
        self._n_pairs = pairs.shape[1]
        self._local = np.flatnonzero(local)
        self._local_der = np.array([place[int(k)] for k in pairs[1, local]], dtype=np.int64)
        self._sent = np.flatnonzero(~local)
        self.links_out = tuple(
            Link(agents[i], agents[j], "safety") for i, j in pairs[:, ~local].T.tolist()
        )
        heard = np.isin(der, own) & (watcher != der)
        into = np.unique(np.stack([der[heard], watcher[heard]]), axis=1)
        self.links_in = tuple(Link(agents[i], agents[j], "safety") for j, i in into.T.tolist())
        self._heard_der = np.array([place[int(k)] for k in into[0]], dtype=np.int64)
        self._inbox = LatestMail(self.links_in)
        self._n = len(own)
        self._round = 0

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
        off = np.nan_to_num(seen.v - 0.5)[self._terminal] * self._terminal_share
        away = np.bincount(self._terminal_der, off, self._n)
        change = x0 - self._proposed
        change = np.where(change * away > 0.0, np.clip(change, -_SLOW, _SLOW), change)
        self._proposed = self._proposed + change
        return self._proposed
