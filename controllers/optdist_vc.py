"""OPTDIST-VC: distributed optimal voltage control by feedback and neighbour messages.

Each agent measures its own voltage, exchanges one number per step with its neighbours, and sets
its reactive power; together they drive the feeder to the cheapest reactive powers that hold the
band, without a model of the loads and without a centre. The update rules and their sources are in
`controllers.optdist_forms`, the step sizes and their bounds in `controllers.optdist_tuning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.errors import ControllerError
from controllers.mail import FloatArray, LatestMail, Link, Mail
from controllers.optdist_forms import Band, Form, PreconditionedForm, PublishedForm
from controllers.optdist_network import Q_BASE_KVAR, AgentNetwork, agent_network
from controllers.optdist_options import parse_options
from controllers.optdist_terminals import DerTerminals, agent_names
from controllers.optdist_tuning import OptdistOptions, preconditioned_steps, published_steps
from controllers.protocol import ControllerStep, ControlSite

_WHERE = "optdist-vc"


class OptdistVc:
    """Agents of OPTDIST-VC, one per DER.

    An agent of several phases measures their mean voltage and injects equally on each. Its
    reactive limits are its headroom ``sqrt(kva^2 - p^2)`` at the measured `p_kw` (0 kW when that
    port is not fed).

    Parameters
    ----------
    site : ControlSite
        Feeder, DERs, band.
    hosted : sequence of str
        Agents of this instance; the trajectories do not depend on who hosts whom.
    **options
        See `controllers.optdist_tuning.OptdistOptions`.

    Raises
    ------
    ControllerError
        An option or a hosted name is not accepted, or the feeder gives no usable network.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        settings = parse_options(OptdistOptions, options, _WHERE)
        self._terminals = DerTerminals(site, hosted)
        self.inputs = self._terminals.inputs
        self.outputs = self._terminals.outputs
        self._v_lo_sq, self._v_hi_sq = _band_sq(site, settings)
        network = agent_network(site, settings.model, settings.pattern)
        chosen = np.array([network.names.index(name) for name in hosted], dtype=np.int64)
        self._wire(network, chosen)
        self._form = _form(network, settings, chosen)
        self._round = 0
        self.held_messages = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return one agent per DER."""
        parse_options(OptdistOptions, options, _WHERE)
        return agent_names(site)

    @property
    def held_values(self) -> int:
        """Measurements that were not finite and were replaced by the last good one."""
        return self._terminals.held_values

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Measure, take the neighbours' newest values, update, command, and send."""
        reading = self._terminals.read(inputs)
        self._absorb(mail)
        q_max = reading.q_max_kvar / Q_BASE_KVAR
        band = Band(self._v_lo_sq, self._v_hi_sq, -q_max, q_max)
        q = self._form.advance(reading.v_pu * reading.v_pu, band, self._coupling())
        return ControllerStep({"q_set_kvar": q * Q_BASE_KVAR}, self._letters())

    def _wire(self, network: AgentNetwork, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Fix links and edge weights: edges in the network's order, filtered to hosted agents."""
        names = network.names
        local = np.full(len(names), -1, dtype=np.int64)
        local[chosen] = np.arange(len(chosen))
        into = np.flatnonzero(local[network.target] >= 0)
        out = np.flatnonzero(local[network.source] >= 0)
        pairs = list(zip(network.source.tolist(), network.target.tolist(), strict=True))
        self.links_in = tuple(Link(names[pairs[e][0]], names[pairs[e][1]]) for e in into)
        self.links_out = tuple(Link(names[pairs[e][0]], names[pairs[e][1]]) for e in out)
        self._edge_target = local[network.target[into]]
        self._edge_weight = network.weight[into]
        self._own_weight = network.y_diag[chosen]
        self._edge_sender = local[network.source[out]]
        self._out_links = np.arange(len(out), dtype=np.int64)
        self._inbox = LatestMail(self.links_in)

    def _absorb(self, mail: Mail) -> None:
        good = np.isfinite(mail.values)
        if not good.all():
            self.held_messages += int(good.size - np.count_nonzero(good))
            mail = Mail(mail.link[good], mail.round[good], mail.values[good])
        self._inbox.absorb(mail)

    def _coupling(self) -> FloatArray:
        """Return sum_i Y_ki message_i for each hosted agent k.

        `bincount` adds edge by edge in the network's order, so that the bits of an agent's sum
        do not depend on which other agents this instance hosts.
        """
        own = self._form.message
        others = np.bincount(
            self._edge_target, self._edge_weight * self._inbox.values, minlength=own.size
        )
        return np.asarray(self._own_weight * own + others)

    def _letters(self) -> Mail:
        mail = Mail(
            self._out_links,
            np.full(self._out_links.size, self._round, dtype=np.int64),
            self._form.message[self._edge_sender],
        )
        self._round += 1
        return mail


def _band_sq(site: ControlSite, settings: OptdistOptions) -> tuple[float, float]:
    v_lo, v_hi = site.v_min_pu + settings.margin_pu, site.v_max_pu - settings.margin_pu
    if not 0.0 < v_lo < v_hi:
        raise ControllerError(
            f"no band is left between {v_lo:g} and {v_hi:g} pu",
            where=f"{_WHERE}: option 'margin_pu'",
            expected="less than half of the band's width",
        )
    return v_lo**2, v_hi**2


def _form(
    network: AgentNetwork,
    settings: OptdistOptions,
    chosen: np.ndarray[Any, np.dtype[np.int64]],
) -> Form:
    """Return the update rule for the chosen agents; the step sizes are those of all agents."""
    weights = np.ones(len(network.names))
    if settings.form == "published":
        return PublishedForm(weights[chosen], published_steps(network, settings, weights))
    steps = preconditioned_steps(network, settings, weights)
    return PreconditionedForm(weights[chosen], steps.of(chosen))
