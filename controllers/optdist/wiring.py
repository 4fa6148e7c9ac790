"""Index arrays of one instance: which of its values and mail enter which sum.

Every sum runs over entries in the network's own order through `bincount`, which adds one by one, so
an agent's sum has the same bits whatever other agents the instance hosts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link, Mail
from controllers.optdist.network import AgentNetwork


class Wiring:
    """Links and sums of the agents hosted together.

    Parameters
    ----------
    network : The network of all agents.
    hosted : (h,). Positions of the hosted agents.
    v_labels : Labels of the instance's `v_pu` port.

    Attributes
    ----------
    owned : (p,). Points owned by hosted agents, in the network's order.
    links_in, links_out : One per needed point and asking agent; the kind is the point's name.
    """

    def __init__(self, network: AgentNetwork, hosted: IntArray, v_labels: tuple[str, ...]) -> None:
        agent_at = np.full(len(network.names), -1, dtype=np.int64)
        agent_at[hosted] = np.arange(len(hosted))
        self.owned = np.flatnonzero(agent_at[network.owner] >= 0)
        point_at = np.full(len(network.points), -1, dtype=np.int64)
        point_at[self.owned] = np.arange(len(self.owned))
        self._wire_links(network, agent_at, point_at)
        self._wire_sums(network, agent_at, point_at)
        self._wire_voltages(network, v_labels)

    def _wire_links(self, network: AgentNetwork, agent_at: IntArray, point_at: IntArray) -> None:
        needs = network.needs()
        into = needs[agent_at[needs[:, 0]] >= 0]
        out = needs[point_at[needs[:, 1]] >= 0]
        self.links_in = _links(network, into)
        self.links_out = _links(network, out)
        self._sender = point_at[out[:, 1]]
        self._link_numbers = np.arange(len(out), dtype=np.int64)
        m = len(network.points)
        self._mail_at = {key: i for i, key in enumerate((into[:, 0] * m + into[:, 1]).tolist())}

    def _wire_sums(self, network: AgentNetwork, agent_at: IntArray, point_at: IntArray) -> None:
        edges = np.flatnonzero(point_at[network.target] >= 0)
        self._edge_target = point_at[network.target[edges]]
        self._edge_weight = network.weight[edges]
        self._edge_value = self._places(
            network, point_at, network.owner[network.target[edges]], network.source[edges]
        )
        self._own_weight = network.y_diag[self.owned]
        mine = np.flatnonzero(agent_at[network.member_agent] >= 0)
        # Hosted order, not the network's, numbers the agents; the points keep their order.
        self._member_agent = agent_at[network.member_agent[mine]]
        self._member_share = network.member_share[mine]
        self._member_value = self._places(
            network, point_at, network.member_agent[mine], network.member_point[mine]
        )
        own = self._member_value < len(self.owned)
        self._injects_at = self._member_value[own]
        self._injector = self._member_agent[own]
        self._injected_share = self._member_share[own]
        self._n_agents = int((agent_at >= 0).sum())

    def _places(
        self, network: AgentNetwork, point_at: IntArray, agent: IntArray, point: IntArray
    ) -> IntArray:
        """Return where in (own messages, inbox) the value of `point` for `agent` stands.

        Only an agent's own points are read directly: all else comes by mail, hosted or not.
        """
        m = len(network.points)
        return np.array(
            [
                int(point_at[p])
                if network.owner[p] == a
                else len(self.owned) + self._mail_at[int(a) * m + int(p)]
                for a, p in zip(agent.tolist(), point.tolist(), strict=True)
            ],
            dtype=np.int64,
        )

    def _wire_voltages(self, network: AgentNetwork, v_labels: tuple[str, ...]) -> None:
        position = {label: i for i, label in enumerate(v_labels)}
        groups = [network.watched[p] for p in self.owned.tolist()]
        self._watched = np.array([position[x] for group in groups for x in group], dtype=np.int64)
        self._watch_count = np.array([len(group) for group in groups], dtype=np.int64)
        self._watcher = np.repeat(np.arange(len(groups)), self._watch_count)

    def point_voltage(self, node_v_pu: FloatArray) -> FloatArray:
        """Return the voltage of each owned point, (p,): the mean of what it watches, or 0."""
        total = np.bincount(self._watcher, node_v_pu[self._watched], minlength=len(self.owned))
        return np.asarray(total / np.maximum(self._watch_count, 1))

    def coupling(self, message: FloatArray, inbox: FloatArray) -> FloatArray:
        """Return ``sum_i Y_ki message_i`` for each owned point k, (p,)."""
        values = np.concatenate([message, inbox])[self._edge_value]
        others = np.bincount(
            self._edge_target, self._edge_weight * values, minlength=len(self.owned)
        )
        return np.asarray(self._own_weight * message + others)

    def price(self, message: FloatArray, inbox: FloatArray) -> FloatArray:
        """Return each hosted agent's mean price over its points, (h,)."""
        values = np.concatenate([message, inbox])[self._member_value]
        total = np.bincount(
            self._member_agent, self._member_share * values, minlength=self._n_agents
        )
        return np.asarray(total, dtype=np.float64)

    def injection(self, q: FloatArray) -> FloatArray:
        """Return what the owners inject at their points, (p,), for the agents' `q` (h,)."""
        total = np.bincount(
            self._injects_at, self._injected_share * q[self._injector], minlength=len(self.owned)
        )
        return np.asarray(total, dtype=np.float64)

    def outgoing_mail(self, message: FloatArray, number: int) -> Mail:
        """Return the mail that tells the owned points' messages to those who need them."""
        rounds = np.full(self._link_numbers.size, number, dtype=np.int64)
        return Mail(self._link_numbers, rounds, message[self._sender])


@lru_cache(maxsize=32)
def wiring_of(network: AgentNetwork, hosted: tuple[int, ...], v_labels: tuple[str, ...]) -> Wiring:
    """Return the wiring of an instance; it holds no state, so that the runs of a sweep share it."""
    return Wiring(network, np.array(hosted, dtype=np.int64), v_labels)


def _links(network: AgentNetwork, pairs: IntArray) -> tuple[Link, ...]:
    return tuple(
        Link(network.names[network.owner[p]], network.names[a], network.points[p])
        for a, p in pairs.tolist()
    )
