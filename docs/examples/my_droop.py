"""A user's own controller: proportional volt/var, shared with the neighbours by mail.

Each agent commands one DER. It wants to use a fraction of its rating in proportion to its voltage
error, tells its two neighbours in the list of DERs, and acts on the average of what it wants and
what they want, so that a DER at the end of the feeder does not work alone.

Try it:  python -m controllers.core.compliance my_droop:MyDroop --option gain=8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from feederate import (
    ControllerError,
    ControllerStep,
    ControlSite,
    FloatArray,
    LatestMail,
    Link,
    Mail,
    Port,
)


class MyDroop:
    """Proportional volt/var control with neighbour averaging.

    Parameters
    ----------
    site : ControlSite
        Feeder, DERs and band: the same for every instance.
    hosted : sequence of str
        The agents to host here, any subset of `agents`.
    gain : float
        Fraction of the rating per pu of voltage error.
    response : float
        Share of the way to its target that a set-point goes in one step, 0 to 1.
    """

    def __init__(
        self, site: ControlSite, hosted: Sequence[str], gain: float = 8.0, response: float = 0.3
    ) -> None:
        if not 0.0 < response <= 1.0:
            raise ControllerError("response must be in (0, 1]", where="MyDroop", expected="0.3")
        names = self.agents(site)
        place = [names.index(name) for name in hosted]
        ders = [site.ders[i] for i in place]
        self._gain, self._response = gain, response
        self._kva = np.array([der.kva for der in ders])

        # Ports: unique labels, so several DERs at a node read it through a gather index.
        labels = tuple(dict.fromkeys(label for der in ders for label in der.labels))
        self._gather = [labels.index(label) for der in ders for label in der.labels]
        self._owner = np.repeat(np.arange(len(ders)), [len(der.phases) for der in ders])
        self.inputs = (Port("v_pu", "pu", labels, initial=1.0),)
        self.outputs = (Port("q_set_kvar", "kvar", tuple(hosted)),)

        # Links: each agent with the one before and the one after it. Only the site decides.
        pairs = [
            (k, names[i], names[j])
            for k, i in enumerate(place)
            for j in (i - 1, i + 1)
            if 0 <= j < len(names)
        ]
        self._ends = np.array([k for k, _, _ in pairs], dtype=np.int64)
        self.links_in = tuple(Link(other, me, "want") for _, me, other in pairs)
        self.links_out = tuple(Link(me, other, "want") for _, me, other in pairs)
        self._heard = LatestMail(self.links_in)

        self._v_pu = np.ones(len(labels))
        self._fraction = np.zeros(len(ders))
        self._round = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: float) -> tuple[str, ...]:
        """Return one agent per DER."""
        return tuple(der.name for der in site.ders)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Measure, tell the neighbours, act on the average."""
        self._heard.absorb(mail)
        self._v_pu = np.where(np.isfinite(inputs["v_pu"]), inputs["v_pu"], self._v_pu)
        n = self._kva.size
        v_sum = np.bincount(self._owner, self._v_pu[self._gather], minlength=n)
        v_mean_pu = v_sum / np.bincount(self._owner, minlength=n)
        want = np.clip(self._gain * (1.0 - v_mean_pu), -1.0, 1.0)

        others = np.bincount(self._ends, self._heard.values, minlength=n)
        average = (want + others) / (1.0 + np.bincount(self._ends, minlength=n))
        self._fraction += self._response * (average - self._fraction)

        told = Mail(
            np.arange(len(self.links_out)),
            np.full(len(self.links_out), self._round),
            want[self._ends],  # absolute state, so a message lost or repeated does no harm
        )
        self._round += 1
        return ControllerStep({"q_set_kvar": self._fraction * self._kva}, told)
