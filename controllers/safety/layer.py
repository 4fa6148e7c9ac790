"""The safety layer: a controller whose set-points keep the voltage band as far as they can.

It stands between a controller and its outputs, whoever wrote, trained or misleads the controller,
has measurements of its own, and passes the set-points on unchanged while they are safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.core.ports import Port
from controllers.core.protocol import Controller, ControllerStep, ControlSite
from controllers.safety.central import CentralFilter, Seen
from controllers.safety.episodes import Episodes
from controllers.safety.following import Following
from controllers.safety.model import SafetyModel
from controllers.safety.power_limits import P_SET, PowerLimits
from controllers.safety.price import PriceFilter
from controllers.safety.settings import SafetySection
from grid_models.base.errors import nearest_name

_DEAD_PU = 0.1
"""Below it a node is taken to be cut off."""


class SafetyLayer:
    """A controller around another; in a federation it takes the part of its instance.

    Inputs of its own: ``safety_v_pu`` of the nodes, ``safety_q_kvar`` and ``safety_p_kw`` of the
    DERs, and with `volt_watt` ``safety_p_avail_kw``; all else is the controller's. A set-point or
    measurement that is not finite is replaced by the last good one.

    Parameters
    ----------
    inner : The controller.
    model : Of the site.
    rows : Positions of the nodes that it measures.
    limited : Positions of the DERs, among those that the controller commands, whose active power
        it may limit.
    form : What changes the set-points.
    """

    def __init__(
        self,
        inner: Controller,
        model: SafetyModel,
        rows: Sequence[int] | IntArray,
        limited: Sequence[int],
        form: CentralFilter | PriceFilter,
        period_s: float,
    ) -> None:
        self.inner, self._filter = inner, form
        names = commanded(inner, model)
        at = model.positions(names)
        self._kva = model.kva[at]
        own = next((port for port in inner.outputs if port.name == P_SET), None)
        self._limits = PowerLimits(limited, [model.ders[at[i]] for i in limited], own)
        ports = (
            Port("safety_v_pu", "pu", tuple(model.nodes[i] for i in rows), initial=1.0),
            Port("safety_q_kvar", "kvar", names),
            Port("safety_p_kw", "kW", names),
            *self._limits.inputs,
        )
        self.inputs = (*inner.inputs, *ports)
        self.outputs = (*inner.outputs, *self._limits.outputs)
        self.links_in = (*inner.links_in, *form.links_in)
        self.links_out = (*inner.links_out, *form.links_out)
        self._widths = np.array([link.width for link in self.links_in], dtype=np.int64)
        self._last = {port.name: np.full(len(port.labels), port.initial) for port in ports}
        self._stepped = False
        self._proposal = np.zeros(len(names))
        self._asked = np.zeros(len(names))
        self._p_low = np.array([model.ders[i].p_min_kw for i in at]) / self._kva
        self._p_high = np.array([model.ders[i].p_max_kw for i in at]) / self._kva
        self._following = Following(len(names))
        self._episodes = Episodes(names, self._kva, period_s)

    def take_events(self) -> list[dict[str, Any]]:
        """Return what the controller and the layer report since the last call."""
        inner = getattr(self.inner, "take_events", list)
        return [*inner(), *self._episodes.take()]

    def summary(self) -> dict[str, float]:
        """Return the metrics of the controller and of the layer."""
        inner = getattr(self.inner, "summary", dict)
        return {**inner(), **self._episodes.summary()}

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Let the controller step; pass on what is safe of its set-points."""
        own, others = self.sorted_mail(mail)
        self._filter.absorb(own)
        told = self.inner.step(time_s, inputs, others)
        if told.mail_only:
            return told
        q_kvar = told.outputs["q_set_kvar"]
        self._proposal = np.where(np.isfinite(q_kvar), q_kvar, self._proposal)
        seen = self._read(inputs, told.outputs)
        x0 = np.clip(self._proposal / self._kva, -seen.room, seen.room)
        found = self._filter.step(x0, seen)
        self._asked = found.x
        safe = np.where(found.x == x0, self._proposal, found.x * self._kva)
        outputs = {**told.outputs, "q_set_kvar": safe}
        outputs |= self._limits.command(found.p[self._limits.at], told.outputs)
        curtailed_kw = self._limits.curtailed_kw
        self._episodes.add(time_s, found.x - x0, curtailed_kw, found.slack_pu)
        return ControllerStep(outputs, self._joined(told.mail, found.mail))

    def _read(self, inputs: Mapping[str, FloatArray], proposed: Mapping[str, FloatArray]) -> Seen:
        """Return this step's measurements; see which inverters follow."""
        before = self._last
        last = self._last = {
            name: np.where(np.isfinite(inputs[name]), inputs[name], old)
            for name, old in before.items()
        }
        if not self._stepped:
            before, self._stepped = last, True
        x, p = last["safety_q_kvar"] / self._kva, last["safety_p_kw"] / self._kva
        room = np.sqrt(np.maximum(1.0 - p * p, 0.0))
        changed = self._following.update(np.clip(self._asked, -room, room), x)
        if changed.any():
            self._episodes.frozen(changed, self._following.frozen)
        # Clouds pass in more than one step.
        p_next = np.clip(2.0 * p - before["safety_p_kw"] / self._kva, self._p_low, self._p_high)
        if self._limits.at.size:
            available_kw = last["safety_p_avail_kw"]
            rise_kw = available_kw - before["safety_p_avail_kw"]
            p_next[self._limits.at] = self._limits.expected(available_kw, rise_kw, proposed)
        v_pu = last["safety_v_pu"]
        v = np.where(v_pu > _DEAD_PU, 0.5 * v_pu * v_pu, np.nan)
        room = np.sqrt(np.maximum(1.0 - p_next * p_next, 0.0))
        return Seen(v, x, p, p_next, room, self._following.frozen)

    def sorted_mail(self, mail: Mail) -> tuple[Mail, Mail]:
        """Return the layer's mail and the controller's."""
        first = len(self.inner.links_in)
        own = mail.link >= first
        if not own.any():
            return Mail.empty(), mail
        values = np.repeat(own, self._widths[mail.link])
        mine = Mail(mail.link[own] - first, mail.round[own], mail.values[values])
        return mine, Mail(mail.link[~own], mail.round[~own], mail.values[~values])

    def _joined(self, inner: Mail, own: Mail) -> Mail:
        """Return the mail of the controller and of the layer."""
        if not len(own):
            return inner
        link = own.link + len(self.inner.links_out)
        return Mail(
            np.concatenate([inner.link, link]),
            np.concatenate([inner.round, own.round]),
            np.concatenate([inner.values, own.values]),
        )


def safety_layer(
    inner: Controller,
    model: SafetyModel,
    site: ControlSite,
    settings: SafetySection,
    agents: Sequence[str],
) -> SafetyLayer:
    """Return a controller with its safety layer.

    Parameters
    ----------
    inner : Hosts some or all agents of a controller.
    model : Of the site.
    settings : What the scenario says.
    agents : All agents of the controller.

    Raises ControllerError: The controller does not command the reactive power of the site's DERs;
    or the form does not suit it.
    """
    names = commanded(inner, model)
    at = model.positions(names)
    low, high = site.band_pu(settings.margin_pu, "safety")
    band = 0.5 * low**2, 0.5 * high**2
    settable = [port.labels for port in inner.outputs if port.name == P_SET] or [names]
    pv = [
        i
        for i, k in enumerate(at)
        if settings.volt_watt and model.ders[k].kind == "pv" and names[i] in settable[0]
    ]
    if settings.volt_watt and not any(der.kind == "pv" for der in model.ders):
        raise ControllerError(
            "volt_watt has nothing to limit: the controller commands no PV",
            expected="PV under grid.ders, or volt_watt: false",
        )
    limited = np.array(pv, dtype=np.int64)
    if settings.kind == "price":
        price = PriceFilter(model, agents, names, limited, band)
        return SafetyLayer(inner, model, price.rows, pv, price, site.period_s)
    central = CentralFilter(model.by_q[:, at], model.by_p[:, at], limited, band, settings.margin_pu)
    return SafetyLayer(inner, model, range(len(model.nodes)), pv, central, site.period_s)


def commanded(inner: Controller, model: SafetyModel) -> tuple[str, ...]:
    """Return the DERs whose reactive power a controller commands."""
    port = next((port for port in inner.outputs if port.name == "q_set_kvar"), None)
    known = {der.name for der in model.ders}
    odd = "" if port is None else next((x for x in port.labels if x not in known), "")
    if port is None or odd:
        what = f"its set-point '{odd}' is of no DER" if odd else "it has no output q_set_kvar"
        raise ControllerError(
            f"a safety layer cannot serve {type(inner).__name__}: {what}",
            expected="a controller that commands the reactive power of the grid's DERs",
            nearest=nearest_name(odd, known) if odd else None,
        )
    return port.labels
