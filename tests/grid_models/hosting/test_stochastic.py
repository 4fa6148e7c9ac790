from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from grid_models.base.errors import FeederError
from grid_models.hosting.devices import DeviceOptions
from grid_models.hosting.dynamic import dynamic
from grid_models.hosting.interior_point import by_clarabel, by_piqp
from grid_models.hosting.ray import RayOptions
from grid_models.hosting.result import HostingResult
from grid_models.hosting.scenarios import DayNoise, drawn_days, own_day
from grid_models.hosting.site_groups import site_groups
from grid_models.hosting.stochastic import (
    StochasticOptions,
    StochasticStudy,
    stochastic_capacity,
)
from grid_models.hosting.stochastic_program import Risk, Tangents, design_program
from grid_models.hosting.stochastic_search import Plan
from tests.grid_models.hosting._studies import HOURS, study

PRICE = np.full(len(HOURS), 0.1)
TOTAL_KW = {"battery": 250.0, "vehicle": 300.0, "heat_pump": 150.0}


def _nominal_kw() -> np.ndarray:
    model = study(True)
    net, by_bus = model.feeder.network, dict[str, float]()
    for name, kw in zip(model.feeder.load_names, model.load_kva.real.max(axis=0), strict=True):
        bus = net.terminals[net.load_terminal[name]]
        by_bus[bus] = by_bus.get(bus, 0.0) + kw
    return np.array([by_bus.get(site.bus, 0.0) for site in model.sites])


def _study(**options: object) -> StochasticStudy:
    given = StochasticOptions(**{"groups": 6, "most_pu": 3.0, **options})  # type: ignore[arg-type]
    return StochasticStudy(study(True), _nominal_kw(), TOTAL_KW, DeviceOptions(), given)


@cache
def _design(risk: Risk) -> tuple[StochasticStudy, Plan]:
    made = _study(risk=risk, level=0.7)
    days = drawn_days(made.model, PRICE, DayNoise(0.1), 8, seed=1)
    found = made.design(days)
    assert found is not None
    return made, found


def test_groups_share_all_that_they_have_by_load() -> None:
    model, nominal = study(True), _nominal_kw()
    groups = site_groups(model, nominal, 6)
    assert len(groups) == 6
    np.testing.assert_allclose(groups.share.sum(axis=0), 1.0)
    np.testing.assert_allclose(groups.share @ groups.nominal_kw, nominal)
    alone = site_groups(model, nominal, 10_000)
    assert len(alone) <= np.count_nonzero(nominal)
    with pytest.raises(FeederError, match="no site has a load"):
        site_groups(model, 0.0 * nominal, 6)


def test_groups_are_electrically_near() -> None:
    model, nominal = study(True), _nominal_kw()
    groups = site_groups(model, nominal, 6)
    loaded = np.flatnonzero(nominal)
    member = groups.share[loaded].argmax(axis=1)
    net = model.feeder.network
    ports = [net.terminal_of_der(model.sites[k].name) for k in loaded]
    z = np.abs(net.share[:, ports].T @ net.z_port @ net.share[:, ports])
    within = sum(((z[member == g] - z[member == g].mean(axis=0)) ** 2).sum() for g in range(6))
    # Random groups leave 94 % of it.
    assert within < 0.3 * ((z - z.mean(axis=0)) ** 2).sum()


@pytest.mark.parametrize("risk", ["expected", "cvar", "every"])
def test_a_design_keeps_all_limits_and_the_curtailment(risk: Risk) -> None:
    made, found = _design(risk)
    g = len(made.groups)
    assert found.excess.max() <= 2e-5
    worst = np.sort(found.curtailed)[::-1]
    # Worst 30 % of 8 days: two whole days and 0.4 of the third.
    tail = (worst[0] + worst[1] + 0.4 * worst[2]) / 2.4
    limited = {"expected": worst.mean(), "cvar": tail, "every": worst[0]}[risk]
    # The limit is on energies, of which a day's share is a part; sunny days have more.
    assert 0.0 < limited <= 0.01 * 1.1
    by_kind = 1e3 * found.capacity_mw.reshape(4, g)
    np.testing.assert_allclose(by_kind.sum(axis=1)[2:], [300.0, 150.0], rtol=1e-5)
    assert by_kind[1].sum() <= 250.0 * (1.0 + 1e-5)
    assert (by_kind <= 3.0 * made.groups.nominal_kw * (1.0 + 1e-5)).all()


def test_a_stricter_risk_hosts_less() -> None:
    pv_mw = [_design(risk)[1].capacity_mw[:6].sum() for risk in ("expected", "cvar", "every")]
    assert pv_mw[0] > pv_mw[1] > pv_mw[2]


@pytest.mark.parametrize("curtailment", [0.0, 0.02])
def test_groups_lie_below_the_dynamic_capacity_and_free_sites_above_it(curtailment: float) -> None:
    """`ray` is an independent programme with another solver: one day, a pattern, single sites.

    Without devices and curtailment there is nothing that a group shares, and the two agree.
    """
    model, nominal = study(True), _nominal_kw()
    total = {"battery": 250.0, "heat_pump": 150.0} if curtailment else {}
    sizes = {kind: kw * nominal / nominal.sum() for kind, kw in total.items()}
    ray = dynamic(model, nominal, sizes, DeviceOptions(), RayOptions(curtailment=curtailment))
    pv_kw = []
    for groups in (1, 1000):
        options = StochasticOptions(
            groups=groups, most_pu=3.0, curtailment=curtailment, energy_weight=0.0
        )
        made = StochasticStudy(model, nominal, total, DeviceOptions(), options)
        found = made.design(own_day(model, PRICE))
        assert found is not None
        pv_kw.append(1e3 * found.capacity_mw[: len(made.groups)].sum())
    assert pv_kw[0] < ray.hc_kw[0] * (1.0 + 2e-4) < pv_kw[1]
    if not curtailment:
        assert pv_kw[0] == pytest.approx(ray.hc_kw[0], rel=2e-4)


def test_both_solvers_find_the_same_design() -> None:
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    made = _study()
    days = drawn_days(made.model, PRICE, DayNoise(), 2, seed=1)
    stacked = made._stacked(days)
    steps = 2 * len(HOURS) * len(made.groups)
    # Export of each step and day at most 1 MW: rows of ones.
    one = np.kron(np.eye(2 * len(HOURS)), np.ones((1, len(made.groups))))
    rows = Tangents(csr_array(one), np.ones(len(one)), np.repeat([0, 1], len(HOURS)))
    cost = made._energy_cost(days)
    assert len(cost) == steps
    p = design_program(stacked, days.weight, made.first, rows, cost, np.zeros(stacked.n), 9.0)
    exact = linprog(
        p.cost, p.less, p.most, p.equal, p.right, np.column_stack([p.low, p.high]), method="highs"
    )
    for solve in (by_piqp, by_clarabel):
        found = solve(p, 1e-7)
        assert found is not None
        assert p.cost @ found.v == pytest.approx(exact.fun, rel=1e-5)
        slack = p.most - p.less @ found.v
        assert found.less_dual.min() > -1e-6
        np.testing.assert_allclose(found.less_dual * slack, 0.0, atol=1e-5)


def test_the_design_is_tried_on_other_days() -> None:
    model = study(True)
    options = StochasticOptions(scenarios=3, groups=4, most_pu=3.0, fresh=3, seed=5)
    found, load_kva = stochastic_capacity(
        model, _nominal_kw(), TOTAL_KW, PRICE, options=options, noise=DayNoise(0.1)
    )
    assert isinstance(found, HostingResult)
    assert found.names == ("own day", "fresh day 1", "fresh day 2", "fresh day 3")
    np.testing.assert_array_equal(load_kva[0], model.load_kva)
    # The plans of these days, by their own power flows.
    excess = model.check.excess(model.flow(found.site_kva, load_kva=load_kva)).value.max(axis=1)
    by_day = excess.reshape(4, -1).max(axis=1)
    np.testing.assert_allclose(by_day, found.tables["stochastic_days"]["excess"], atol=1e-9)
    assert by_day.max() <= 2e-5
    assert any("noise on demand" in note for note in found.notes)
    again, _ = stochastic_capacity(
        model, _nominal_kw(), TOTAL_KW, PRICE, options=options, noise=DayNoise(0.1)
    )
    np.testing.assert_array_equal(found.site_kva, again.site_kva)


def test_no_design_is_said() -> None:
    overloaded = study(True, load_pu=2.5)
    options = StochasticOptions(scenarios=1, groups=2, fresh=0)
    found, _ = stochastic_capacity(overloaded, _nominal_kw(), {}, PRICE, options=options)
    assert np.isnan(found.hc_kw).all()
    assert "no design keeps the limits" in found.notes[0]
