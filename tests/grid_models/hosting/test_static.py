from dataclasses import replace

import numpy as np
import pytest
from _hosting_cases import hosting_case
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.feeder.model import Der
from grid_models.hosting.limits import Limits
from grid_models.hosting.model import HostingModel
from grid_models.hosting.static import (
    StaticOptions,
    placement_search,
    static_capacity,
    with_batteries_discharging,
)
from grid_models.opendss.circuit import Circuit


@pytest.fixture(scope="module")
def case() -> tuple[HostingModel, Circuit]:
    return hosting_case(noon_load_pu=0.35)


def _worst(model: HostingModel, circuit: Circuit, site_kva: np.ndarray) -> float:
    """Return the largest excess over a day of one design by OpenDSS: voltages and line currents."""
    worst = -np.inf
    limits = model.limits
    rated = [x for x in circuit.feeder.lines if x.norm_amps]
    for t in range(len(model.hours)):
        circuit.set_loads(model.load_kva[t].real, model.load_kva[t].imag)
        circuit.set_ders(site_kva[t].real, site_kva[t].imag)
        circuit.solve()
        v_pu = circuit.v_pu()
        worst = max(worst, v_pu.max() - limits.v_max_pu, limits.v_min_pu - v_pu.min())
        for line in rated:
            circuit.engine.dss.Circuit.SetActiveElement(f"line.{line.name}")
            amps = circuit.engine.dss.CktElement.CurrentsMagAng()[0 : 2 * len(line.phases) : 2]
            worst = max(worst, max(amps) / line.norm_amps - 1.0)
    return float(worst)


def test_accepted_placements_keep_the_limits_in_the_engine_and_one_unit_more_does_not(
    case: tuple[HostingModel, Circuit],
) -> None:
    model, circuit = case
    found = static_capacity(model, StaticOptions(placements=3, critical_hours=2))
    more = static_capacity(model, StaticOptions(placements=3, critical_hours=0))
    assert found.hc_kw.tolist() == more.hc_kw.tolist()
    assert found.binding == more.binding
    table = found.tables["placements"]
    search = placement_search(model, StaticOptions(placements=3))
    beyond = search.site_kva(np.arange(3), table["units"] + 1, np.arange(len(model.hours)))
    for k in range(2):
        assert _worst(model, circuit, found.site_kva[k]) <= 1e-7
        assert _worst(model, circuit, beyond[k]) > 0.0
        at_hour = found.binding[k].hour == model.hours
        assert at_hour.any()
        label = found.binding[k].element
        assert label in circuit.node_labels
    assert found.site_kw.sum(axis=1) == pytest.approx(found.hc_kw)
    assert np.abs(found.site_kva).max(axis=1) == pytest.approx(
        found.site_kw * model.pv_pu.max(), rel=1e-12
    )
    assert table["hc_pct"] == pytest.approx(100.0 * found.hc_kw / model.base_kva)


def test_the_first_violation_ends_a_placement_also_where_a_later_unit_repairs_it() -> None:
    model, _ = hosting_case(noon_load_pu=0.35, step_h=12.0)
    search = placement_search(model, StaticOptions(placements=12))
    found = search.found()
    repaired = 0
    for k, units in enumerate(found.units.tolist()):
        counts = np.arange(1, units + 60)
        ok = search.feasible(np.full(len(counts), k), counts, search.steps)
        assert ok[:units].all()
        assert not ok[units]
        repaired += bool(ok[units:].any())
    assert repaired > 0


_DAY: dict[bool, HostingModel] = {}


def _coarse(balanced: bool = True) -> HostingModel:
    """Return a small study: the balanced model at four steps of the day."""
    if balanced not in _DAY:
        _DAY[balanced] = hosting_case(noon_load_pu=0.35, step_h=6.0, balanced=balanced)[0]
    return _DAY[balanced]


@settings(max_examples=10, deadline=None)
@given(
    st.floats(1.04, 1.06),
    st.floats(0.0, 0.02),
    st.floats(0.6, 1.0),
    st.floats(0.0, 0.5),
    st.integers(0, 1000),
)
def test_wider_limits_never_lower_what_is_hosted(
    v_max_pu: float, more_pu: float, line_pu: float, more_line_pu: float, seed: int
) -> None:
    options = StaticOptions(placements=4, seed=seed)
    tight, wide = (
        placement_search(replace(_coarse(), limits=limits), options).found().hc_kw
        for limits in (
            Limits(v_max_pu=v_max_pu, line_pu=line_pu),
            Limits(v_max_pu=v_max_pu + more_pu, line_pu=line_pu + more_line_pu),
        )
    )
    assert (wide >= tight).all()


def test_a_placement_does_not_depend_on_how_many_others_there_are() -> None:
    few, many = (
        placement_search(_coarse(), StaticOptions(placements=n)).found().hc_kw for n in (5, 150)
    )
    assert few.tolist() == many[:5].tolist()


def test_a_base_case_that_is_infeasible_has_no_hosting_capacity() -> None:
    model = replace(_coarse(), limits=Limits(v_min_pu=1.03))
    found = static_capacity(model, StaticOptions(placements=3))
    assert np.isnan(found.hc_kw).all()
    assert {b.kind for b in found.binding} == {"undervoltage"}
    assert (
        "3 of 3 designs pass a limit without any unit, the first by undervoltage" in found.notes[0]
    )
    assert set(found.tables) == {"placements"}


def test_a_search_without_an_end_says_so() -> None:
    model = replace(_coarse(), limits=Limits(v_max_pu=1.3, line_pu=None))
    found = static_capacity(model, StaticOptions(placements=2, most_pct=50.0))
    assert found.binding[0].kind == ""
    assert found.hc_kw / model.base_kva == pytest.approx(0.5, rel=0.1)
    assert "2 of 2 designs reach most_pct" in found.notes[0]


def test_batteries_that_discharge_at_noon_take_their_power_from_what_is_hosted() -> None:
    battery = Der("bess", "battery", "67", (1, 2, 3), 150.0, 147.0, -147.0, 441.0)
    idle, _ = hosting_case(noon_load_pu=0.35, balanced=True, ders=[battery])
    busy = with_batteries_discharging(idle, [battery])
    assert np.count_nonzero(busy.der_kva) == 3
    options = StaticOptions(placements=10)
    before, after = (placement_search(m, options).found().hc_kw for m in (idle, busy))
    lost = before - after
    assert 0.5 * 147.0 < lost.mean() < 2.0 * 147.0


def test_reactive_power_raises_what_a_voltage_limit_lets_in() -> None:
    plain, absorbing = (
        static_capacity(_coarse(), StaticOptions(placements=5, power_factor=pf)).hc_kw
        for pf in (1.0, 0.95)
    )
    assert (absorbing > plain).all()


def test_tables_agree_with_the_results() -> None:
    found = static_capacity(_coarse(), StaticOptions(placements=30))
    curve = found.tables["curve"]
    assert curve["kept"][0] == 1.0
    assert curve["kept"][-1] == 0.0
    # A level holds whole units, up to 12 kW less than it says.
    passes = curve["overvoltage max"] > 1.05
    assert (curve["kept"][passes] < 1.0).all()
    below = curve["pv_kw"] <= found.hc_kw.min()
    assert not passes[below].any()
    assert (np.diff(curve["overvoltage max"]) >= -1e-9).all()
    assert curve["overvoltage min"][0] == curve["overvoltage max"][0]
    assert (curve["overvoltage median"] <= curve["overvoltage max"]).all()
    hours = found.tables["hours"]
    noon = int(hours["pv_pu"].argmax())
    some = found.hc_kw[:20]
    assert hours["min_kw"][noon] * 1.0 == pytest.approx(some.min() * hours["pv_pu"][noon], abs=12.0)


def test_a_study_at_night_is_refused() -> None:
    model = replace(_coarse(), pv_pu=0.0 * _coarse().pv_pu)
    with pytest.raises(FeederError, match="the sun does not shine in any step"):
        static_capacity(model, StaticOptions(placements=2))


def test_options_that_contradict_are_refused() -> None:
    with pytest.raises(FeederError, match="unit_max_kw 2 is below unit_min_kw 3"):
        StaticOptions(unit_max_kw=2.0)
