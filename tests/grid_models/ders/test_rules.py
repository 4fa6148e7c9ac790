"""Placement by rule: sites, choice, sizes, names and refusals."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.catalog import load_feeder
from grid_models.ders.rules import KVA_PER_KW, DerError, DerRule, load_kw_by_node, place, sites
from grid_models.feeder.model import Bus, Feeder, Load, Source


@pytest.fixture(scope="module")
def ieee123():
    return load_feeder("ieee123")


def tiny():
    """Three buses: a single-phase wye load, a delta load between phases 2 and 3, no load."""
    buses = {
        name: Bus(name, phases, 2.4)
        for name, phases in {"src": (1, 2, 3), "a.x": (1, 2, 3), "b": (1, 2, 3), "c": (2,)}.items()
    }
    loads = (
        Load("l1", "a.x", (1,), "wye", "PQ", 30.0, 10.0, 2.4),
        Load("l2", "b", (2, 3), "delta", "PQ", 60.0, 10.0, 4.16),
        Load("minus", "c", (2,), "wye", "PQ", -5.0, 0.0, 2.4),
    )
    return Feeder("tiny", Source("src", 4.16), buses, loads=loads)


def test_ieee123_has_the_sites_the_published_loads_give(ieee123):
    # 85 spot loads on 85 buses: 79 touch one phase, 5 three (47, 48, 49, 65, 76) and the delta
    # load at 35 two: 79 + 15 + 2 = 96 bus phases (counted in the IEEE load sheet).
    per_phase = place(ieee123, DerRule("pv", "load_phases", total_kw=5000.0))
    assert len(per_phase) == 96
    assert all(len(d.phases) == 1 for d in per_phase)
    assert [d.name for d in per_phase if d.bus in ("35", "65")] == [
        "pv_35_1",
        "pv_35_2",
        "pv_65_1",
        "pv_65_2",
        "pv_65_3",
    ]
    per_bus = place(ieee123, DerRule("pv", "load_buses", total_kw=5000.0))
    assert len(per_bus) == 85
    assert {d.name: d.phases for d in per_bus}["pv_35"] == (1, 2)


def test_totals_are_met_in_proportion_to_the_load(ieee123):
    units = place(ieee123, DerRule("pv", "load_phases", total_kw=5000.0, total_kva=6000.0))
    assert sum(d.p_max_kw for d in units) == pytest.approx(5000.0)
    assert sum(d.kva for d in units) == pytest.approx(6000.0)
    # The feeder has 3490 kW of load (IEEE load sheet), 20 kW of it at bus 2 and 105 at bus 47.
    by_name = {d.name: d for d in units}
    assert by_name["pv_2_2"].p_max_kw == pytest.approx(5000.0 * 20.0 / 3490.0)
    assert by_name["pv_47_3"].p_max_kw == pytest.approx(5000.0 * 35.0 / 3490.0)
    assert sum(sum(v.values()) for v in load_kw_by_node(ieee123).values()) == pytest.approx(3490.0)


def test_a_delta_load_counts_on_the_phases_it_touches():
    units = place(tiny(), DerRule("pv", "load_phases", kw_per_load_kw=2.0))
    assert [(d.name, d.bus, d.p_max_kw) for d in units] == [
        ("pv_a_x_1", "a.x", 60.0),
        ("pv_b_2", "b", 60.0),
        ("pv_b_3", "b", 60.0),
    ]


def test_every_bus_leaves_out_the_source_and_shares_equally():
    units = place(tiny(), DerRule("inverter", "every_bus", total_kva=30.0))
    assert [(d.bus, d.phases, d.kva) for d in units] == [
        ("a.x", (1, 2, 3), 10.0),
        ("b", (1, 2, 3), 10.0),
        ("c", (2,), 10.0),
    ]
    assert len(place(tiny(), DerRule("pv", "every_bus", kw=1.0, per_phase=True))) == 7


def test_names_globs_and_nodes_in_the_feeders_order(ieee123):
    units = place(ieee123, DerRule("pv", ["76", "6?", "1.2", "25R"], kw=1.0))
    order = list(ieee123.buses)
    assert [d.bus for d in units] == sorted((d.bus for d in units), key=order.index)
    assert {d.bus for d in units} == {b for b in order if re.fullmatch(r"6.", b)} | {
        "76",
        "1",
        "25r",
    }
    assert {d.bus: d.phases for d in units}["1"] == (2,)


def test_sizes_that_follow_from_one_another():
    (unit,) = place(tiny(), DerRule("pv", ["b"], kva=KVA_PER_KW * 9.0))
    assert unit.p_max_kw == pytest.approx(9.0)
    # IEEE 1547-2018 Category B: 44 % of the kVA is left beside full active power.
    assert (unit.kva**2 - unit.p_max_kw**2) ** 0.5 == pytest.approx(0.44 * unit.kva)
    (unit,) = place(tiny(), DerRule("pv", ["b"], kw=9.0, kva_per_kw=1.2))
    assert (unit.kva, unit.p_max_kw) == pytest.approx((10.8, 9.0))


def test_each_kind_has_its_own_bounds():
    def bounds(kind, **more):
        (d,) = place(tiny(), DerRule(kind, ["b"], kw=20.0, **more))
        return (d.p_min_kw, d.p_max_kw, d.energy_kwh, d.count)

    assert bounds("pv") == (0.0, 20.0, 0.0, 1)
    assert bounds("battery", hours=2.0) == (-20.0, 20.0, 40.0, 1)
    assert bounds("inverter") == (-20.0, 20.0, 0.0, 1)
    assert bounds("flexible_load", flexibility=0.25) == (-20.0, -15.0, 0.0, 1)
    assert bounds("house", kw_per_house=5.0) == (-20.0, 0.0, 0.0, 4)


@settings(max_examples=30, deadline=None)
@given(small=st.floats(0.01, 1.0), large=st.floats(0.01, 1.0), seed=st.integers(0, 2**40))
def test_a_larger_fraction_keeps_every_site_of_a_smaller_one(ieee123, small, large, seed):
    small, large = sorted((small, large))
    few, many = (
        place(ieee123, DerRule("pv", "load_phases", fraction=f, seed=seed, total_kw=1000.0))
        for f in (small, large)
    )
    assert len(few) == max(1, round(small * 96))
    assert {d.name for d in few} <= {d.name for d in many}
    assert sum(d.p_max_kw for d in few) == pytest.approx(1000.0)


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_buses(ieee123):
    rule = DerRule("pv", fraction=0.5, kw=1.0, seed=1)
    first = {d.name for d in place(ieee123, rule)}
    turned = replace(ieee123, buses=dict(reversed(ieee123.buses.items())))
    assert {d.name for d in place(turned, rule)} == first
    assert {d.name for d in place(ieee123, replace(rule, seed=2))} != first


def test_several_rules_and_equal_names(ieee123):
    pv, battery = DerRule("pv", kw=5.0), DerRule("battery", kw=5.0)
    assert len(place(ieee123, [pv, battery])) == 170
    with pytest.raises(DerError, match=r"'pv_1'.*prefix"):
        place(ieee123, [pv, pv])
    assert len(place(ieee123, [pv, replace(pv, prefix="roof")])) == 170


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"kind": "pv", "totl_kw": 5.0}, ["unknown option 'totl_kw'", "did you mean 'total_kw'"]),
        ({"kw": 5.0}, ["'kind' is missing"]),
        ({"kind": "batery", "kw": 5.0}, ["did you mean 'battery'"]),
        ({"kind": "pv", "kw": 5.0, "at": "load_bus"}, ["did you mean 'load_buses'"]),
        (
            {"kind": "pv", "kw": 5.0, "at": []},
            ["option 'at': [] is not accepted", "a list of buses"],
        ),
        ({"kind": "pv", "kw": 5.0, "at": 65}, ["option 'at': 65 is not accepted"]),
        ({"kind": "pv", "kw": 5.0, "seed": "one"}, ["option 'seed': 'one' is not accepted"]),
        ({"kind": "pv"}, ["no size is given"]),
        ({"kind": "pv", "kw": 5.0, "total_kw": 5.0}, ["kw and total_kw are given"]),
        ({"kind": "pv", "kw": "5"}, ["option 'kw': '5' is not accepted", "a number in (0, 1e+06]"]),
        ({"kind": "pv", "kw": float("nan")}, ["option 'kw': nan is not"]),
        ({"kind": "pv", "kw": True}, ["option 'kw': True is not"]),
        ({"kind": "pv", "kw": 5.0, "fraction": 0.0}, ["option 'fraction': 0.0 is not"]),
        ({"kind": "pv", "kw": 5.0, "kva_per_kw": 0.9}, ["option 'kva_per_kw': 0.9 is not"]),
        ({"kind": "pv", "kw": 5.0, "share": "even"}, ["option 'share': 'even' is not"]),
    ],
)
def test_a_bad_rule_is_refused_with_its_place(values, parts):
    with pytest.raises(DerError) as caught:
        DerRule.from_mapping(values, where="my.yaml: grid.ders[0]")
    for part in ("my.yaml: grid.ders[0]", *parts):
        assert part in str(caught.value)


def test_what_a_feeder_cannot_give_is_refused(ieee123):
    with pytest.raises(DerError, match=r"no bus matches '151x'.*did you mean '151'"):
        place(ieee123, DerRule("pv", ["151x"], kw=1.0))
    with pytest.raises(DerError, match=r"no bus matches '65\.4'.*did you mean '65\.\d'"):
        place(ieee123, DerRule("pv", ["65.4"], kw=1.0))
    with pytest.raises(DerError, match="site 'c' has no load"):
        place(tiny(), DerRule("pv", ["c"], kw_per_load_kw=1.0))
    with pytest.raises(DerError, match="no site"):
        sites(replace(tiny(), loads=()), DerRule("pv", kw=1.0))
    with pytest.raises(DerError, match="more than its"):
        place(tiny(), DerRule("pv", kw=2.0, kva=1.0))


@pytest.mark.parametrize("order", [("x/1", "x_1", "x#1"), ("x_1", "x#1", "x/1")])
def test_buses_that_differ_in_other_characters_keep_apart(order):
    buses = {name: Bus(name, (1, 2, 3), 2.4) for name in ("src", *order, "x")}
    loads = tuple(Load(f"l{i}", b, (1,), "wye", "PQ", 9.0, 1.0, 2.4) for i, b in enumerate(order))
    feeder = Feeder("odd", Source("src", 4.16), buses, loads=loads)
    units = place(feeder, DerRule("pv", "load_phases", kw=5.0))
    names = {unit.bus: unit.name for unit in units}
    assert names["x_1"] == "pv_x_1_1"
    assert set(names.values()) == {"pv_x_1_1", "pv_x_1-2_1", "pv_x_1-3_1"}
    for fraction in (0.3, 0.7):
        some = place(feeder, DerRule("pv", "load_phases", kw=5.0, fraction=fraction))
        assert {(unit.bus, unit.name) for unit in some} < set(names.items())


def test_a_bus_keeps_its_name_where_another_would_be_called_the_same():
    buses = {name: Bus(name, (1, 2, 3), 2.4) for name in ("src", "a.b", "a_b", "a_b-2")}
    feeder = Feeder("odd", Source("src", 4.16), buses)
    units = place(feeder, DerRule("pv", "every_bus", kw=5.0))
    assert [u.name for u in units] == ["pv_a_b-3", "pv_a_b", "pv_a_b-2"]
