"""OPTDIST-VC: distributed optimal voltage control by feedback and neighbour messages.

Each agent measures its own voltage, exchanges one number per step with its neighbours, and sets its
reactive power. The agents converge to the cheapest reactive powers that hold the band, without a
model of the loads and without a central unit. Update rules and sources are in
`controllers.optdist.forms`, step sizes and their bounds in `controllers.optdist.tuning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray, LatestMail, Mail
from controllers.core.options import parse_options
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.terminals import DerTerminals, agent_names
from controllers.optdist.forms import PreconditionedForm, PublishedForm, SquaredVoltageBand
from controllers.optdist.network import Q_BASE_KVAR, agent_network
from controllers.optdist.tuning import OptdistOptions, preconditioned_steps, published_steps
from controllers.optdist.wiring import wiring_of

_WHERE = "optdist-vc"
# In the two cases of the benchmark prices use at most 5 % of this cap.
_PRICE_CAP = 3.0


class OptdistVc:
    """Agents of OPTDIST-VC, one per DER.

    An agent of several phases injects equally on each; in the preconditioned form on the
    three-phase model it keeps each phase's voltage in the band, otherwise their mean. Its
    reactive limits are its headroom ``sqrt(kva^2 - p^2)`` at the measured `p_kw` (0 kW when that
    port is not fed).

    Parameters
    ----------
    site : Feeder, DERs, band.
    hosted : Agents of this instance; the trajectories do not depend on who hosts whom.
    **options : See `controllers.optdist.tuning.OptdistOptions`.

    Raises ControllerError: An option or a hosted name is not accepted, or the feeder gives no
    usable network.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(OptdistOptions, options, _WHERE)
        self._terminals = DerTerminals(site, hosted)
        self.inputs = self._terminals.inputs
        self.outputs = self._terminals.outputs
        v_lo, v_hi = site.band_pu(settings.margin_pu, _WHERE)
        self._band = SquaredVoltageBand(v_lo**2, v_hi**2)
        published = settings.form == "published"
        network = agent_network(
            site, settings.model, settings.pattern, "ders" if published else "nodes"
        )
        position = {name: i for i, name in enumerate(network.names)}
        chosen = tuple(position[name] for name in hosted)
        wiring = wiring_of(network, chosen, self.inputs[0].labels)
        self._wiring = wiring
        self.links_in = wiring.links_in
        self.links_out = wiring.links_out
        self._inbox = LatestMail(self.links_in)
        self._form: PublishedForm | PreconditionedForm
        if published:
            self._form = PublishedForm(len(hosted), published_steps(network, settings))
        else:
            # The step sizes are those of all agents, cut to the points owned here.
            steps = preconditioned_steps(network, settings)
            # At the cap a point's own price is many times what would use the largest rating.
            rating = max(der.kva for der in site.ders) / Q_BASE_KVAR
            cap = _PRICE_CAP * rating / network.sensitivity.diagonal
            # No voltage drives a relay's price.
            lam_cap = np.where(network.relays(), 0.0, cap)[wiring.owned]
            self._form = PreconditionedForm(steps.of(wiring.owned), lam_cap)
        self._q: FloatArray = np.zeros(len(hosted))
        self._round = 0
        self.held_messages = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        parse_options(OptdistOptions, options, _WHERE)
        return agent_names(site)

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return ten steps of the preconditioned form, a hundred of the published one."""
        settings = parse_options(OptdistOptions, options, _WHERE)
        return (100 if settings.form == "published" else 10) * period_s

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Measure, take the neighbours' newest values, update, command, and send."""
        reading = self._terminals.read(inputs)
        self._absorb(mail)
        wiring, form = self._wiring, self._form
        v_pu = wiring.point_voltage(reading.node_v_pu)
        q_max = reading.q_max_kvar / Q_BASE_KVAR
        coupling = wiring.coupling(form.message, self._inbox.values)
        if isinstance(form, PublishedForm):
            self._q = form.advance(v_pu * v_pu, self._band, coupling, -q_max, q_max)
        else:
            form.advance(v_pu * v_pu, self._band, coupling, wiring.injection(self._q))
            price = wiring.price(form.message, self._inbox.values)
            self._q = np.clip(-price, -q_max, q_max)
        return ControllerStep({"q_set_kvar": self._q * Q_BASE_KVAR}, self._outgoing_mail())

    def _absorb(self, mail: Mail) -> None:
        good = np.isfinite(mail.values)
        if not good.all():
            self.held_messages += int(good.size - np.count_nonzero(good))
            mail = Mail(mail.link[good], mail.round[good], mail.values[good])
        self._inbox.absorb(mail)

    def _outgoing_mail(self) -> Mail:
        mail = self._wiring.outgoing_mail(self._form.message, self._round)
        self._round += 1
        return mail
