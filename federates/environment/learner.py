"""The inverters of a scenario whose set-points come from outside: the agents of an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, LatestMail, Link, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names
from controllers.optdist.network import agent_network
from federates.environment.observations import V_GAIN

MAIL_BOUND = 2.0


@dataclass(frozen=True, slots=True)
class LearnerOptions(ControllerOptions):
    """What the agents exchange."""

    mail_width: int = option(0, "Numbers in a message to each neighbour; 0: no mail.", low=0)


class Learner:
    """Agents that show what they see, then do what they are told.

    One per DER. Neighbours are those of OPTDIST-VC with ``pattern: phase``
    (`controllers.optdist.network`).

    Attributes
    ----------
    agent_names : (n,)
    observation_bound : (k,). Largest magnitude of each number of `observe`.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self.mail_width = parse_options(LearnerOptions, options, "learner").mail_width
        self._terminals = DerTerminals(site, hosted)
        names, ders = self._terminals.names, self._terminals.ders
        self.agent_names = names
        self.inputs = (*self._terminals.inputs, Port("q_kvar", "kvar", names, required=False))
        self.outputs = self._terminals.outputs
        pairs = self._neighbours(site)
        links = tuple(Link(names[s], names[t], "learned", self.mail_width) for t, s in pairs)
        self.links_in = self.links_out = links
        self._target, self._source = pairs.T
        first = np.searchsorted(self._target, self._target)
        self._slot = np.arange(len(pairs)) - first
        self.neighbours = int(self._slot.max(initial=-1)) + 1
        self._latest = LatestMail(links)
        self._kva: FloatArray = np.array([der.kva for der in ders])
        self._p_max_kw: FloatArray = np.array([max(der.p_max_kw, -der.p_min_kw) for der in ders])
        own = [V_GAIN, 1.0, 1.0, 1.0]
        message = [1.0, *[MAIL_BOUND] * self.mail_width]
        self.observation_bound: FloatArray = np.array([*own, *message * self.neighbours])
        self._headroom_kvar: FloatArray = np.zeros(len(ders))
        self._actions: FloatArray = np.zeros((len(ders), 1 + self.mail_width))
        self._round = 0

    def _neighbours(self, site: ControlSite) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the (receiver, sender) pairs of agents that exchange mail, sorted, (l, 2)."""
        if self.mail_width == 0:
            return np.empty((0, 2), dtype=np.int64)
        network = agent_network(site, pattern="phase")
        agent, point = network.needs().T
        pairs = np.stack([agent, network.owner[point]], axis=1)
        return np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        return agent_names(site)

    def observe(self, inputs: Mapping[str, FloatArray], mail: Mail) -> FloatArray:
        """Return what each agent sees, (n, 4 + neighbours (1 + mail_width)), within its bounds.

        Of itself: 20 (v - 1), p / p_max, headroom / kVA, q / kVA. Of each neighbour: whether a
        message of it arrived since the last step, and the numbers of its newest one, 0 before the
        first. An agent with fewer neighbours than others sees zeros in their place.
        """
        reading, n = self._terminals.read(inputs), len(self._kva)
        self._headroom_kvar = reading.q_max_kvar
        own = (
            V_GAIN * (reading.v_pu - 1.0),
            _per(inputs["p_kw"], self._p_max_kw),
            _per(reading.q_max_kvar, self._kva),
            _per(inputs["q_kvar"], self._kva),
        )
        self._latest.absorb(mail)
        arrived = np.isin(np.arange(len(self.links_in)), mail.link)
        messages = np.zeros((n, self.neighbours, 1 + self.mail_width))
        messages[self._target, self._slot, 0] = arrived
        newest = self._latest.values.reshape(-1, self.mail_width or 1)
        messages[self._target, self._slot, 1:] = newest
        seen = np.concatenate([np.stack(own, axis=1), messages.reshape(n, -1)], axis=1)
        return np.asarray(np.clip(seen, -self.observation_bound, self.observation_bound))

    def act(self, actions: FloatArray) -> None:
        """Take the actions of the next step, (n, 1 + mail_width) in -1 to 1.

        First the reactive power as a share of the headroom that was seen, then the message.
        """
        self._actions = actions

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Command and send what `act` was told."""
        outputs = {"q_set_kvar": self._headroom_kvar * self._actions[:, 0]}
        n, self._round = len(self.links_out), self._round + 1
        if not n:
            return ControllerStep(outputs)
        values = self._actions[self._source, 1:].ravel()
        return ControllerStep(outputs, Mail(np.arange(n), np.full(n, self._round), values))


def _per(values: FloatArray, base: FloatArray) -> FloatArray:
    """Return values / base; 0 where the base is 0."""
    return np.divide(values, base, out=np.zeros_like(values), where=base != 0.0)
