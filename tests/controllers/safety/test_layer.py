"""The safety layer around controllers: what it changes, what it reports, what it guarantees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from controllers.baselines.no_control import NoControl
from controllers.baselines.volt_var_1547 import VoltVar1547
from controllers.core.compliance import check_controller, examine_controller
from controllers.core.mail import FloatArray, Mail
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.sample_site import sample_site
from controllers.safety.layer import SafetyLayer, safety_layer
from controllers.safety.model import SafetyModel
from controllers.safety.settings import SafetySection

MARGIN_PU = 0.003


class Asks:
    """A controller that asks for given reactive powers, over rating."""

    def __init__(self, site: ControlSite, hosted: Sequence[str]) -> None:
        self._inner = NoControl(site, hosted)
        self.inputs, self.outputs = self._inner.inputs, self._inner.outputs
        self.links_in, self.links_out = (), ()
        self.share: FloatArray = np.zeros(len(hosted))
        self._kva = np.array([der.kva for der in site.ders if der.name in hosted])

    agents = NoControl.agents

    def step(self, time_s: float, inputs: Any, mail: Mail) -> ControllerStep:
        return ControllerStep({"q_set_kvar": self.share * self._kva})


def guarded(site: ControlSite, **options: Any) -> tuple[Asks, SafetyLayer]:
    names = tuple(der.name for der in site.ders)
    inner = Asks(site, names)
    section = SafetySection(**{"kind": "central", "margin_pu": MARGIN_PU, **options})
    return inner, safety_layer(inner, SafetyModel.of(site), site, section, names)


def measured(layer: SafetyLayer, **values: Any) -> dict[str, FloatArray]:
    start = {p.name: np.full(len(p.labels), p.initial) for p in layer.inputs}
    return {n: np.broadcast_to(values.get(n, a), a.shape).copy() for n, a in start.items()}


# --- what it is -----------------------------------------------------------------------------------


def safe_class(kind: Literal["central", "price"]) -> type[Any]:
    model = SafetyModel.of(sample_site())

    class Safe(SafetyLayer):
        def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
            inner = VoltVar1547(site, hosted, **options)
            section = SafetySection(kind=kind)
            made = safety_layer(inner, model, site, section, self.agents(site))
            self.__dict__.update(made.__dict__)

        agents = VoltVar1547.agents

    return Safe


def test_the_central_form_follows_the_protocol_but_for_parts() -> None:
    checks = examine_controller(safe_class("central"))
    # One programme needs all set-points: a scenario that splits it is refused.
    assert {c.name for c in checks if not c.passed} == {"partition independence"}


def test_the_price_form_follows_the_protocol_also_in_parts() -> None:
    check_controller(safe_class("price"))


def test_prices_bring_the_voltage_back_and_stop_when_it_is_back() -> None:
    """On the linear model, by mail over good links: the band holds, and no more is changed."""
    site = sample_site()
    model = SafetyModel.of(site)
    inner, layer = guarded(site, kind="price")
    inner.share = np.full(5, 0.3)
    at = [model.nodes.index(node) for node in layer.inputs[-3].labels]
    q_kvar, inbox, links = np.zeros(5), Mail.empty(), [x.key for x in layer.links_in]
    for k in range(300):
        v = np.sqrt(1.045**2 + 2.0 * model.by_q @ (q_kvar / model.kva))
        seen = measured(layer, safety_v_pu=v[at], safety_q_kvar=q_kvar)
        done = layer.step(float(k), seen, inbox)
        q_kvar = done.outputs["q_set_kvar"]
        order = np.argsort([links.index(layer.links_out[i].key) for i in done.mail.link])
        inbox = Mail(np.arange(len(order)), done.mail.round[order], done.mail.values[order])
    assert v.max() == pytest.approx(1.05 - MARGIN_PU, abs=2e-4)
    central = guarded(site)[1]
    seen = measured(central, safety_v_pu=v, safety_q_kvar=q_kvar)
    for k in range(2):
        least = central.step(float(k), seen, Mail.empty()).outputs["q_set_kvar"]
    assert np.abs(q_kvar - 0.3 * model.kva).sum() < 1.3 * np.abs(least - 0.3 * model.kva).sum()


# --- what it does ---------------------------------------------------------------------------------


def test_safe_set_points_pass_to_the_last_bit() -> None:
    inner, layer = guarded(sample_site())
    inner.share = np.array([0.1, -0.2, 0.05, 0.3, 0.0])
    done = layer.step(0.0, measured(layer), Mail.empty())
    wanted = inner.step(0.0, {}, Mail.empty()).outputs["q_set_kvar"]
    assert np.array_equal(done.outputs["q_set_kvar"], wanted)
    assert layer.take_events() == []


def test_what_raises_a_high_voltage_is_turned_down() -> None:
    inner, layer = guarded(sample_site())
    inner.share = np.ones(5)
    done = layer.step(0.0, measured(layer, safety_v_pu=1.046), Mail.empty())
    q_kvar = done.outputs["q_set_kvar"]
    assert (q_kvar < inner.step(0.0, {}, Mail.empty()).outputs["q_set_kvar"]).any()
    assert [event["event"] for event in layer.take_events()] == ["safety_begins"]


def test_a_set_point_that_is_not_finite_is_replaced_by_the_last_good_one() -> None:
    inner, layer = guarded(sample_site())
    inner.share = np.full(5, 0.1)
    first = layer.step(0.0, measured(layer), Mail.empty()).outputs["q_set_kvar"]
    inner.share = np.array([np.nan, np.inf, 0.1, 0.1, 0.1])
    again = layer.step(1.0, measured(layer), Mail.empty()).outputs["q_set_kvar"]
    assert np.array_equal(again, first)


def test_a_node_without_voltage_has_no_limits() -> None:
    inner, layer = guarded(sample_site())
    inner.share = np.full(5, 0.1)
    done = layer.step(0.0, measured(layer, safety_v_pu=0.0), Mail.empty())
    wanted = inner.step(0.0, {}, Mail.empty()).outputs["q_set_kvar"]
    assert np.array_equal(done.outputs["q_set_kvar"], wanted)


def test_an_inverter_that_does_not_follow_is_frozen_and_later_released() -> None:
    _, layer = guarded(sample_site())
    kva = np.array([der.kva for der in sample_site().ders])
    stuck = np.array([0.0, 0.8 * kva[1], 0.0, 0.0, 0.0])
    events, q_kvar = [], np.zeros(5)
    for k in range(8):
        applied = np.where(stuck > 0.0, stuck, q_kvar) if k < 4 else q_kvar
        seen = measured(layer, safety_q_kvar=applied)
        q_kvar = layer.step(float(k), seen, Mail.empty()).outputs["q_set_kvar"]
        events += [(k, e["event"], e["ders"]) for e in layer.take_events()]
    # Three steps in a row each; the first shows the state before the first set-point.
    assert events == [(2, "inverters_frozen", ["pv_b2"]), (6, "inverters_follow", ["pv_b2"])]


def test_the_others_make_up_for_a_frozen_inverter() -> None:
    """The frozen column is given: the rest of the programme holds the band without it."""
    site = sample_site()
    model = SafetyModel.of(site)
    x = {}
    for follows in (True, False):
        _, layer = guarded(site)
        q_kvar = np.zeros(5)
        for k in range(6):
            applied = q_kvar.copy()
            if not follows:
                applied[1] = 0.0
            v = 1.049**2 + 2.0 * model.by_q @ (applied / model.kva)
            seen = measured(layer, safety_q_kvar=applied, safety_v_pu=np.sqrt(v))
            q_kvar = layer.step(float(k), seen, Mail.empty()).outputs["q_set_kvar"]
        x[follows] = q_kvar / model.kva
        applied = q_kvar if follows else np.where(np.arange(5) == 1, 0.0, q_kvar)
        v = np.sqrt(1.049**2 + 2.0 * model.by_q @ (applied / model.kva))
        assert v.max() <= 1.05 - MARGIN_PU + 2e-4
    others = np.arange(5) != 1
    assert np.abs(x[False][others]).sum() > 1.1 * np.abs(x[True][others]).sum()


def test_power_is_curtailed_only_by_what_reactive_power_leaves() -> None:
    """Volt-watt: at 1.049 pu reactive power alone holds the band, at 1.08 pu it does not."""
    site = sample_site()
    model = SafetyModel.of(site)
    p_max = np.array([der.p_max_kw for der in site.ders])
    pv = np.array([der.kind == "pv" for der in site.ders])
    for uncontrolled_pu, curtails in ((1.049, False), (1.08, True)):
        _, layer = guarded(site, volt_watt=True)
        assert [p.name for p in layer.outputs] == ["q_set_kvar", "p_set_kw"]
        q_kvar, p_kw = np.zeros(5), np.where(pv, 0.9 * p_max, 0.0)
        available = p_kw.copy()
        for k in range(60):
            p_over = (p_kw - available) / model.kva
            v = uncontrolled_pu**2 + 2.0 * (model.by_q @ (q_kvar / model.kva) + model.by_p @ p_over)
            seen = measured(
                layer, safety_q_kvar=q_kvar, safety_p_kw=p_kw, safety_v_pu=np.sqrt(v),
                safety_p_avail_kw=available[pv],
            )  # fmt: skip
            done = layer.step(float(k), seen, Mail.empty()).outputs
            p_kw = p_kw.copy()
            p_kw[pv] = np.minimum(available[pv], done["p_set_kw"])
            room = np.sqrt(model.kva**2 - p_kw**2)
            q_kvar = np.clip(done["q_set_kvar"], -room, room)
        kinds = [event["event"] for event in layer.take_events()]
        assert ("curtailment_begins" in kinds) == curtails
        assert (available - p_kw > 1.0).any() == curtails
        at_b3 = [i for i, node in enumerate(model.nodes) if node.startswith("b3")]
        reactive_only = uncontrolled_pu**2 + 2.0 * model.by_q @ (q_kvar / model.kva)
        gained = np.sqrt(reactive_only) - np.sqrt(v)
        assert (gained[at_b3].max() > 0.005) == curtails
