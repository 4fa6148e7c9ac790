"""A user's own iterative agents: agree on the mean voltage error, then share the work fairly.

Each agent commands one DER. Between measurements the agents run dynamic average consensus over a
ring: every agent ends up with the mean of all voltage errors (M. Zhu and S. Martinez,
"Discrete-time dynamic average consensus", Automatica 46(2), 2010) and uses the same fraction of
its rating. One agent at a time is written; `AgentGroup` hosts any number of them anywhere.

Try it:  python -m controllers.core.compliance my_fair_share:FairShare
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from feederate import (
    AgentGroup,
    Barrier,
    Channel,
    ControlSite,
    Der,
    FloatArray,
    Inbox,
    IterativeAgent,
    Letters,
    Port,
)


class Sharer(IterativeAgent):
    """One DER of the ring."""

    def __init__(self, der: Der, ring: Sequence[str], gain: float) -> None:
        at = ring.index(der.name)
        near = dict.fromkeys((ring[at - 1], ring[(at + 1) % len(ring)]))
        super().__init__(
            der.name,
            [Channel(peer, "mean") for peer in near if peer != der.name],
            waiting=Barrier(),
            inputs=(Port("v_pu", "pu", der.labels, initial=1.0),),
            outputs=(Port("q_set_kvar", "kvar", (der.name,)),),
        )
        self.kva, self.gain = der.kva, gain
        self.error_pu = self.used_pu = self.mean_pu = 0.0

    def observe(self, time_s: float, measured: Mapping[str, FloatArray]) -> None:
        """Remember the newest voltage error."""
        self.error_pu = 1.0 - float(measured["v_pu"].mean())

    def first(self) -> Letters:
        """Open with a mean of zero."""
        return self.to_all(self.mean_pu, "mean")

    def compute(self, inbox: Inbox) -> Letters:
        """Move towards the neighbours and add what the own error changed by."""
        apart = inbox.stack("mean") - self.mean_pu
        self.mean_pu += float(apart.sum()) / 3.0 + self.error_pu - self.used_pu
        self.used_pu = self.error_pu
        return self.to_all(self.mean_pu, "mean")

    def actuate(self) -> Mapping[str, FloatArray]:
        """Use the agreed fraction of the rating."""
        fraction = np.clip(self.gain * self.mean_pu, -1.0, 1.0)
        return {"q_set_kvar": np.array([fraction * self.kva])}


class FairShare(AgentGroup):
    """The controller: a ring of sharers, one per DER."""

    @classmethod
    def agents(cls, site: ControlSite, gain: float = 8.0) -> tuple[str, ...]:
        """Return one agent per DER."""
        return tuple(der.name for der in site.ders)

    @classmethod
    def build(
        cls, site: ControlSite, hosted: Sequence[str], gain: float = 8.0
    ) -> list[IterativeAgent]:
        """Return the hosted sharers."""
        ring = cls.agents(site)
        by_name = {der.name: der for der in site.ders}
        return [Sharer(by_name[name], ring, gain) for name in hosted]
