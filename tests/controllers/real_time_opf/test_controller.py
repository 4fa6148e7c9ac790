"""Real-time OPF: fixed points, limits, partition independence, bad mail, and the shipped runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Mail
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_site
from controllers.real_time_opf.controller import RtOpf
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Der
from grid_models.linear.lindistflow import LinDistFlow

BASE_KW = 1000.0


@dataclass
class Plant:
    """The controller's own linear model of the sample site, with a feeder's delay of one step.

    `level` is the voltage that the loads leave, `available` the share of the DERs' power, `late`
    the age of measured voltages and of the import in steps.
    """

    site: ControlSite
    level: float
    available: float
    target_kw: float = np.nan
    late: int = 0

    def __post_init__(self) -> None:
        model = LinDistFlow.from_feeder(self.site.feeder.with_ders(self.site.ders))
        a = np.concatenate(model.sensitivity(model.nodes, self.site.ders), axis=1)
        moved = np.flatnonzero(np.abs(a).max(axis=1) > 1e-9)  # not the source
        self.a = a[moved]
        self.index = {model.nodes[i]: k for k, i in enumerate(moved.tolist())}
        self.names = [der.name for der in self.site.ders]
        self.p_high = self.available * np.array([der.p_max_kw for der in self.site.ders])
        self.p = self.p_high * [der.kind == "pv" for der in self.site.ders]
        self.q = np.zeros(len(self.names))
        self.past = [(self.v_pu, self.p.sum())]

    @property
    def v_pu(self) -> FloatArray:
        return np.asarray(np.sqrt(self.level**2 + self.a @ np.concatenate([self.p, self.q])))

    def measure(self, port: Port, step: int) -> FloatArray:
        v_pu, p_sum = self.past[max(0, len(self.past) - 1 - self.late)]
        if port.name == "v_pu":
            v = dict(zip(self.index, v_pu, strict=True))
            return np.array([v.get(label, self.level) for label in port.labels])
        if port.name == "v_deg":
            turned = {"1": 0.0, "2": -120.0, "3": 120.0}
            return np.array([turned[label[-1]] for label in port.labels])
        if port.name == "p_avail_kw":
            return self.p_high[[self.names.index(label) for label in port.labels]]
        return np.array([900.0 - p_sum if port.name == "import_kw" else self.target_kw])

    def run(self, steps: int, parts: int = 1, post: Post | None = None, **options: Any) -> None:
        """Close the loop over `parts` instances."""
        agents = RtOpf.agents(self.site, **options)
        shares = np.array_split(np.array(agents), min(parts, len(agents)))
        hosts = [RtOpf(self.site, [str(x) for x in share], **options) for share in shares]
        loop = MailLoop(hosts, post, self.measure)
        for _ in range(steps):
            outputs = loop.outputs(loop.step())
            asked = np.array([outputs["p_set_kw", name] for name in self.names])
            self.p = np.minimum(asked, self.p_high)
            self.q = np.array([outputs["q_set_kvar", name] for name in self.names])
            self.past.append((self.v_pu, self.p.sum()))

    def optimum(self, change: Callable[[Any, Any], Any] = lambda p, q: 0.0) -> FloatArray:
        """Return p and q of the optimum, kW and kvar, by clarabel."""
        import cvxpy as cp

        ders = self.site.ders
        kva = np.array([der.kva for der in ders]) / BASE_KW
        p, q = cp.Variable(len(ders)), cp.Variable(len(ders))
        ref = np.where([der.kind == "pv" for der in ders], self.p_high, 0.0) / BASE_KW
        v_sq = self.level**2 + BASE_KW * self.a @ cp.hstack([p, q])
        limits = [
            v_sq <= 1.05**2,
            v_sq >= 0.95**2,
            p >= np.array([der.p_min_kw for der in ders]) / BASE_KW,
            p <= self.p_high / BASE_KW,
            cp.square(p) + cp.square(q) <= kva**2,
        ]
        if np.isfinite(self.target_kw):
            limits.append(0.9 - cp.sum(p) == self.target_kw / BASE_KW)
        cost = cp.sum(cp.multiply(3.0 / kva, cp.square(ref - p)) + cp.square(q) / kva) / 2.0
        cp.Problem(cp.Minimize(cost + change(p, q)), limits).solve(solver=cp.CLARABEL)
        return BASE_KW * np.concatenate([p.value, q.value])


CASES: dict[str, dict[str, Any]] = {
    "high": {"level": 1.045, "available": 0.8},
    "low": {"level": 0.945, "available": 0.1},
    "calm": {"level": 1.0, "available": 0.5},
    "import": {"level": 1.02, "available": 0.8, "target_kw": 700.0},
    "import and high": {"level": 1.045, "available": 0.8, "target_kw": 500.0},
}


@pytest.mark.parametrize("dual", ["plain", "pi"])
@pytest.mark.parametrize("case", CASES)
def test_settles_at_the_optimum_of_the_linear_model(case: str, dual: str) -> None:
    plant = Plant(sample_site(), **CASES[case])
    plant.run(200, dual=dual)
    best = plant.optimum()
    assert np.abs(np.concatenate([plant.p, plant.q]) - best).max() < 0.02  # kW; of clarabel
    assert plant.v_pu.max() < 1.05 + 1e-5
    assert plant.v_pu.min() > 0.95 - 1e-5


def test_the_cases_need_what_they_test() -> None:
    free = Plant(sample_site(), **CASES["high"])
    assert free.v_pu.max() > 1.055
    assert Plant(sample_site(), **CASES["low"]).v_pu.min() < 0.948
    assert np.abs(free.p - free.optimum()[: len(free.p)]).max() > 5.0, "it curtails"


def test_objective_terms_add_up() -> None:
    plant = Plant(sample_site(), 1.0, 0.5)
    weights = {"cvr": 0.5, "voltage": 2.0, "v_ref_pu": 0.99}
    plant.run(200, objective=weights)

    def terms(p: Any, q: Any) -> Any:
        import cvxpy as cp

        v_sq = plant.level**2 + BASE_KW * plant.a @ cp.hstack([p, q])
        return (0.5 * cp.sum(v_sq) + cp.sum_squares(v_sq - 0.99**2)) / len(plant.a)

    best = plant.optimum(terms)
    assert np.abs(best[len(plant.p) :]).max() > 5.0, "the terms do something"
    assert np.abs(np.concatenate([plant.p, plant.q]) - best).max() < 0.02


def test_the_regularised_law_keeps_a_bias_that_grows_with_it() -> None:
    over = []
    for regularisation in (1e-6, 1e-3, 1e-2):
        plant = Plant(sample_site(), **CASES["high"])
        plant.run(200, dual="regularised", regularisation=regularisation)
        over.append(plant.v_pu.max() - 1.05)
    assert over[0] < 1e-5
    assert 1e-4 < over[1] < over[2]


@pytest.mark.parametrize("areas", [1, 3, 5])
def test_the_number_of_areas_does_not_move_the_optimum(areas: int) -> None:
    plant = Plant(sample_site(), **CASES["high"])
    plant.run(200, areas=areas)
    assert np.abs(np.concatenate([plant.p, plant.q]) - plant.optimum()).max() < 0.02


def test_lost_and_late_mail_does_not_move_the_optimum_either() -> None:
    plant = Plant(sample_site(), **CASES["high"])
    plant.run(600, post=Post(loss=0.3, max_delay_steps=3), mail_delay_s=3.0)
    assert np.abs(np.concatenate([plant.p, plant.q]) - plant.optimum()).max() < 0.02


@pytest.mark.parametrize("areas", [1, 4])
def test_measurements_that_are_ten_steps_old(areas: int) -> None:
    plant = Plant(sample_site(), **CASES["import and high"])
    plant.late = 10
    plant.run(600, areas=areas, measurement_delay_s=10.0)
    assert np.abs(np.concatenate([plant.p, plant.q]) - plant.optimum()).max() < 0.02
    untold = Plant(sample_site(), **CASES["import and high"])
    untold.late = 10
    untold.run(300, areas=areas)
    spread = np.ptp([v_pu.max() for v_pu, _ in untold.past[-40:]])
    assert spread > 0.005, "at the gains for fresh measurements it swings"


def test_damping_moves_no_optimum() -> None:
    plant = Plant(sample_site(), **CASES["high"])
    plant.run(400, objective={"damping": 2.0, "damping_s": 20.0})
    best = plant.optimum()
    assert np.abs(np.concatenate([plant.p, plant.q]) - best).max() < 0.02


@pytest.mark.parametrize(("energy", "waits"), [(0.0, True), (5.0, False)])
def test_power_that_is_worth_something_need_not_wait_for_the_next_command(
    energy: float, waits: bool
) -> None:
    plant = Plant(sample_site(), 1.0, 0.3)
    options: dict[str, Any] = {"areas": 1, "objective": {"energy": energy}}
    agents = RtOpf(plant.site, RtOpf.agents(plant.site, **options), **options)
    inputs = {port.name: plant.measure(port, 0) for port in agents.inputs}
    asked = agents.step(0.0, inputs, Mail.empty()).outputs["p_set_kw"]
    ders = {der.name: der for der in plant.site.ders}
    available = dict(zip(plant.names, plant.p_high, strict=True))
    for name, kw in zip(agents.outputs[0].labels, asked, strict=True):
        if ders[name].kind == "pv":
            assert kw == pytest.approx(available[name] if waits else ders[name].p_max_kw)


@pytest.mark.parametrize("objective", [{}, {"losses": 5.0, "load": 2.0, "damping": 1.0}])
def test_partitions_have_the_same_bits_over_bad_links(objective: dict[str, float]) -> None:
    ends = []
    for parts in (1, 2, 4):
        plant = Plant(sample_site(), **CASES["import and high"])
        plant.run(80, parts, Post(loss=0.2, max_delay_steps=2, seed=3), objective=objective)
        ends.append(np.concatenate([plant.p, plant.q]))
    assert all(np.array_equal(ends[0], end) for end in ends[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"areas": 1, "objective": {"losses": 1.0, "load": 1.0, "damping": 0.5}},
        {"dual": "regularised", "anticipation": 0.0},
        {"measurement_delay_s": 10.0, "primal_step": 0.2},
    ],
)
def test_compliance(options: dict[str, Any]) -> None:
    check_controller("rt-opf", **options)


def test_areas_without_a_der_or_a_node_that_moves_are_agents_too() -> None:
    feeder = load_feeder("ieee13")
    ders = (Der("pv", "pv", "671", (1, 2, 3), kva=500.0, p_max_kw=400.0),)
    site = ControlSite(feeder.with_ders(ders), ders, 1.0)
    agents = RtOpf.agents(site, areas=1000)
    assert len(agents) == len(set(agents)) > 10
    done = MailLoop([RtOpf(site, [agent], areas=1000) for agent in agents]).step()
    assert sum(len(step.outputs) for step in done) == 2, "one commands the DER"


def test_an_import_out_of_reach_takes_all_that_there_is() -> None:
    plant = Plant(sample_site(), 1.0, 0.5, target_kw=-5000.0)
    plant.run(100)
    np.testing.assert_allclose(plant.p, plant.p_high, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"areas": 0}, "areas"),
        ({"dual": "pid"}, "did you mean 'pi'"),
        ({"objective": {"cvrr": 1.0}}, "did you mean 'cvr'"),
        ({"objective": {"curtailment": 0.0}}, "curtailment"),
        ({"margin_pu": 0.05}, "no band is left"),
        ({"gain": 2.0}, "unknown option 'gain'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], match: str) -> None:
    site = sample_site()
    with pytest.raises(ControllerError, match=match):
        RtOpf(site, RtOpf.agents(site), **options)
