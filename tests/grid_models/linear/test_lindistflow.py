"""Laws of the linear power flow, on random trees and against hand formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from grid_models.base.errors import FeederError, GridModelError, PowerFlowError, TopologyError
from grid_models.catalog import load_feeder
from grid_models.feeder.model import (
    Bus,
    Capacitor,
    Der,
    Feeder,
    Line,
    Load,
    Regulator,
    Source,
    Switch,
    Transformer,
    Winding,
)
from grid_models.linear.edges import edge_law
from grid_models.linear.lindistflow import LinDistFlow

KV_LN = 2.4
ALPHA = {p: np.exp(-2j * np.pi / 3 * (p - 1)) for p in (1, 2, 3)}


def random_feeder(seed: int, n_buses: int = 25) -> Feeder:
    """A random unbalanced tree: laterals lose phases, impedances are symmetric and dominant."""
    rng = np.random.default_rng(seed)
    buses = {"s": Bus("s", (1, 2, 3), KV_LN)}
    lines, loads = [], []
    for i in range(n_buses):
        above = list(buses.values())[int(rng.integers(len(buses)))]
        count = int(rng.integers(1, len(above.phases) + 1))
        phases = tuple(sorted(rng.choice(above.phases, count, replace=False).tolist()))
        mutual = rng.uniform(0.02, 0.05) * (1 + 2j)
        z = np.full((count, count), mutual) + np.eye(count) * rng.uniform(0.05, 0.2) * (1 + 2j)
        ends = (above.name, f"b{i}") if rng.random() < 0.5 else (f"b{i}", above.name)
        buses[f"b{i}"] = Bus(f"b{i}", phases, KV_LN)
        lines.append(Line(f"l{i}", *ends, phases, z, np.zeros((count, count))))
        loads.append(Load(f"d{i}", f"b{i}", phases, "wye", "PQ", 6.0 * count, 2.0 * count, KV_LN))
    return Feeder("random", Source("s", KV_LN * 3**0.5), buses, tuple(lines), loads=tuple(loads))


def paths(feeder: Feeder) -> dict[str, dict[str, Line]]:
    """Lines on the way from the source to each bus of `random_feeder`, by name."""
    found: dict[str, dict[str, Line]] = {"s": {}}
    for i, line in enumerate(feeder.lines):
        bus = f"b{i}"
        above = line.from_bus if line.to_bus == bus else line.to_bus
        found[bus] = {**found[above], line.name: line}
    return found


def dense_sensitivities(feeder: Feeder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Path sums of Arnold et al. (2016): 2 Re/Im(sum of z_ab over the common path, turned)."""
    on_path = paths(feeder)
    labels = [(b.name, p) for b in feeder.buses.values() for p in b.phases]
    g = np.zeros((len(labels), len(labels)), dtype=complex)
    for i, (bus_i, a) in enumerate(labels):
        for j, (bus_j, b) in enumerate(labels):
            common = on_path[bus_i].keys() & on_path[bus_j].keys()
            for line in (on_path[bus_i][name] for name in common):
                g[i, j] += line.z_ohm[line.phases.index(a), line.phases.index(b)]
            g[i, j] *= np.conj(ALPHA[a]) * ALPHA[b]
    g *= 2e3 / (1e3 * KV_LN) ** 2
    return g.real, g.imag


@pytest.mark.parametrize("seed", range(6))
def test_sweeps_equal_the_dense_path_formula(seed: int) -> None:
    feeder = random_feeder(seed)
    model = LinDistFlow.from_feeder(feeder)
    assert model.nodes == feeder.node_labels
    r, x = model.sensitivity(model.nodes, model.nodes)
    r_dense, x_dense = dense_sensitivities(feeder)
    np.testing.assert_allclose(r, r_dense, rtol=0, atol=1e-12 * np.abs(r_dense).max())
    np.testing.assert_allclose(x, x_dense, rtol=0, atol=1e-12 * np.abs(x_dense).max())
    p, q = model.nominal_injection()
    expected = 1.0 + r_dense @ p + x_dense @ q
    np.testing.assert_allclose(model.v_squared_pu(p, q), expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.sampled_from(["three", "single"]))
def test_superposition(seed: int, factor: float, phases: str) -> None:
    model = LinDistFlow.from_feeder(random_feeder(seed % 7), phases)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 20, (2, 2, len(model.nodes)))
    none = model.v_squared_pu(np.zeros(len(model.nodes)), np.zeros(len(model.nodes)))
    together = model.v_squared_pu(*(a + factor * b)) - none
    apart = (model.v_squared_pu(*a) - none) + factor * (model.v_squared_pu(*b) - none)
    np.testing.assert_allclose(together, apart, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_single_phase_x_is_symmetric_positive_definite_and_grows_along_paths(seed: int) -> None:
    feeder = random_feeder(seed)
    model = LinDistFlow.from_feeder(feeder, "single")
    buses = [b for b in model.nodes if b != "s"]
    r, x = model.sensitivity(buses, buses)
    for m in (r, x):
        np.testing.assert_allclose(m, m.T, rtol=1e-9)
        assert np.linalg.eigvalsh(m)[0] > 0
        assert (m > -1e-15).all()
    on_path = paths(feeder)
    for i, bus in enumerate(buses):
        for j, above in enumerate(buses):
            if on_path[above].keys() < on_path[bus].keys():
                # An injection further out lifts every bus at least as much.
                assert (x[:, i] >= x[:, j] - 1e-15).all()
                assert x[i, i] > x[j, j]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_renaming_and_reordering_change_nothing(seed: int) -> None:
    feeder = random_feeder(seed, 15)
    order = np.random.default_rng(seed + 1).permutation(len(feeder.lines))
    new = {name: f"x{i}" for i, name in enumerate(sorted(feeder.buses, reverse=True))}
    shuffled = [list(feeder.buses)[i] for i in np.argsort([new[b] for b in feeder.buses])]
    renamed = Feeder(
        "renamed",
        replace(feeder.source, bus=new["s"]),
        {new[b]: replace(feeder.buses[b], name=new[b]) for b in shuffled},
        tuple(
            replace(line, from_bus=new[line.from_bus], to_bus=new[line.to_bus])
            for line in (feeder.lines[i] for i in order)
        ),
        loads=tuple(replace(d, bus=new[d.bus]) for d in reversed(feeder.loads)),
    )
    for around in (None, "nominal"):
        first = LinDistFlow.from_feeder(feeder, around=around)  # type: ignore[arg-type]
        second = LinDistFlow.from_feeder(renamed, around=around)  # type: ignore[arg-type]
        v1 = dict(zip(first.nodes, first.v_pu(*first.nominal_injection()), strict=True))
        v2 = dict(zip(second.nodes, second.v_pu(*second.nominal_injection()), strict=True))
        for label, v in v1.items():
            bus, phase = label.split(".")
            assert v2[f"{new[bus]}.{phase}"] == pytest.approx(v, abs=1e-10)


def test_many_columns_equal_one_by_one() -> None:
    model = LinDistFlow.from_feeder(random_feeder(3))
    p, q = np.random.default_rng(0).normal(0, 10, (2, len(model.nodes), 4))
    together = model.v_pu(p, q)
    assert together.shape == p.shape
    for k in range(4):
        np.testing.assert_allclose(together[:, k], model.v_pu(p[:, k], q[:, k]), atol=1e-13)


@pytest.mark.parametrize("phases", ["three", "single"])
@pytest.mark.parametrize("name", ["ieee13", "ieee123"])
def test_tangent_is_the_derivative_of_the_power_flow(name: str, phases: str) -> None:
    """Own AC solutions at slightly shifted points; the tangent misses them by second order."""
    feeder = load_feeder(name)
    model = LinDistFlow.from_feeder(feeder, phases, around="nominal")  # type: ignore[arg-type]
    p, q = model.nominal_injection()
    dp, dq = np.random.default_rng(1).normal(0, 1, (2, len(p)))
    errors = []
    for h in (1.0, 0.5):
        moved = model.linearised_at(p + h * dp, q + h * dq)
        exact = moved.v_squared_pu(p + h * dp, q + h * dq)
        errors.append(np.abs(model.v_squared_pu(p + h * dp, q + h * dq) - exact).max())
    change = np.abs(exact - model.v_squared_pu(p, q)).max()
    assert errors[1] < 0.01 * change
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.1)


def test_no_load_tangent_equals_lindistflow() -> None:
    feeder = replace(random_feeder(5), loads=())
    flat = LinDistFlow.from_feeder(feeder)
    zero = np.zeros(len(flat.nodes))
    tangent = LinDistFlow.from_feeder(feeder, around=(zero, zero))
    below = [n for n in flat.nodes if not n.startswith("s.")]
    for a, b in zip(flat.sensitivity(below, below), tangent.sensitivity(below, below), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9 * np.abs(a).max())


def two_bus(*elements: object, kv_ln: float = KV_LN, phases: tuple[int, ...] = (1, 2, 3)) -> Feeder:
    kinds = {Line: "lines", Transformer: "transformers", Regulator: "regulators"}
    kinds |= {Capacitor: "capacitors", Load: "loads", Switch: "switches"}
    parts: dict[str, tuple[object, ...]] = {}
    for e in elements:
        parts[kinds[type(e)]] = (*parts.get(kinds[type(e)], ()), e)
    buses = {"s": Bus("s", (1, 2, 3), KV_LN), "e": Bus("e", phases, kv_ln)}
    return Feeder("two", Source("s", KV_LN * 3**0.5), buses, **parts)  # type: ignore[arg-type]


def test_regulator_units_scale_their_phase() -> None:
    taps = {1: 7, 2: 0, 3: -4}
    units = [
        Regulator(f"r{p}", "s", "e", (p,), t, p, 120, 2, 20, 700, 0, 0) for p, t in taps.items()
    ]
    model = LinDistFlow.from_feeder(two_bus(*units))
    zero = np.zeros(6)
    expected = [1, 1, 1, *(1 + 0.00625 * t for t in taps.values())]
    np.testing.assert_allclose(model.v_pu(zero, zero), expected, atol=1e-12)


def wdg(bus: str, nodes: tuple[int, ...], connection: str, kv: float) -> Winding:
    return Winding(bus, nodes, connection, kv, 300.0, 0.5)  # type: ignore[arg-type]


def test_delta_wye_shifts_by_thirty_degrees_and_mixes_phases() -> None:
    """Hand formula: v_a = (V_A - V_C) / sqrt 3 in pu, drop z S on the load's own phase."""
    bank = Transformer(
        "t", 3, (wdg("s", (1, 2, 3), "delta", 4.157), wdg("e", (1, 2, 3), "wye", 0.48)), (4.0,)
    )
    kv = 0.48 / 3**0.5
    feeder = replace(two_bus(bank, kv_ln=kv), source=Source("s", 4.157))
    feeder = replace(feeder, buses={**feeder.buses, "s": Bus("s", (1, 2, 3), 4.157 / 3**0.5)})
    model = LinDistFlow.from_feeder(feeder)
    p, q = np.zeros(6), np.zeros(6)
    np.testing.assert_allclose(model.v_pu(p, q), 1.0, atol=1e-12)
    p[3], q[3] = -50.0, -20.0
    v2 = model.v_squared_pu(p, q)
    assert v2[3] == pytest.approx(1 - 2 * (0.01 * 50 + 0.04 * 20) / 100, abs=1e-12)
    np.testing.assert_allclose(v2[[4, 5]], 1.0, atol=1e-12)
    angle = np.angle(model.network.source_v[0] / model._law.voltage[3], deg=True)
    assert angle == pytest.approx(30.0, abs=1e-9)


def test_grounded_wye_delta_bank_is_a_zero_sequence_shunt() -> None:
    """Textbook zero-sequence circuit: the leakage impedance to ground at the primary."""
    bank = Transformer(
        "t", 3, (wdg("s", (1, 2, 3), "wye", 4.157), wdg("e", (1, 2, 3), "delta", 0.48)), (4.0,)
    )
    _, _, shunt = edge_law((bank,), "s", "e", (1, 2, 3), (1, 2, 3), 5e-3)
    z_ohm = (0.01 + 0.04j) * (4157 / 3**0.5) ** 2 / 100e3
    assert shunt is not None
    np.testing.assert_allclose(shunt, np.full((3, 3), 1 / (3 * z_ohm)), rtol=1e-9)
    delta = Transformer("d", 3, (wdg("s", (1, 2, 3), "delta", 4.157), bank.windings[1]), (4.0,))
    _, _, none = edge_law((delta,), "s", "e", (1, 2, 3), (1, 2, 3), 5e-3)
    np.testing.assert_allclose(none, 0, atol=1e-12)


def test_centre_tapped_secondary() -> None:
    """Star equivalent by hand: one loaded half drops z1 + z2, the other half z1 only."""
    halves = (wdg("e", (1, 0), "wye", 0.12), wdg("e", (0, 2), "wye", 0.12))
    service = Transformer("ct", 1, (wdg("s", (2, 0), "wye", KV_LN), *halves), (2.0, 2.0, 1.4))
    model = LinDistFlow.from_feeder(two_bus(service, kv_ln=0.12, phases=(1, 2)))
    p, q = np.zeros(5), np.zeros(5)
    q[model.index["e.1"]] = -30.0
    v2 = model.v_squared_pu(p, q)
    x1, x2 = (2.0 + 2.0 - 1.4) / 200, 1.4 / 200
    assert v2[model.index["e.1"]] == pytest.approx(1 - 2 * (x1 + x2) * 30 / 300, abs=1e-12)
    assert v2[model.index["e.2"]] == pytest.approx(1 - 2 * x1 * 30 / 300, abs=1e-12)


def test_open_delta_bank_fixes_line_voltages() -> None:
    coils = [((1, 2), "ab"), ((2, 3), "bc")]
    kv = KV_LN * 3**0.5
    units = [
        Transformer(n, 1, (wdg("s", c, "delta", kv), wdg("e", c, "delta", 0.48)), (2.0,))
        for c, n in coils
    ]
    model = LinDistFlow.from_feeder(two_bus(*units, kv_ln=0.48 / 3**0.5))
    np.testing.assert_allclose(model.v_pu(np.zeros(6), np.zeros(6)), 1.0, atol=1e-12)


def test_delta_load_is_split_on_its_phases() -> None:
    """Unity power factor from 1 to 2: s_1 = S / (1 - a^2) = S (1/2 - j / (2 sqrt 3)) by hand."""
    load = Load("d", "e", (1, 2), "delta", "PQ", 90.0, 0.0, KV_LN * 3**0.5)
    line = Line("l", "s", "e", (1, 2, 3), np.eye(3) * (0.1 + 0.2j), np.zeros((3, 3)))
    p, q = LinDistFlow.from_feeder(two_bus(line, load)).nominal_injection()
    np.testing.assert_allclose(p[3:], [-45, -45, 0], atol=1e-9)
    np.testing.assert_allclose(q[3:], [45 / 3**0.5, -45 / 3**0.5, 0], atol=1e-9)
    assert not p[:3].any()


def test_capacitor_lifts_by_its_reactive_power() -> None:
    line = Line("l", "s", "e", (1, 2, 3), np.eye(3) * (0.1 + 0.2j), np.zeros((3, 3)))
    cap = Capacitor("c", "e", (1, 2, 3), "wye", 300.0, KV_LN)
    v2 = LinDistFlow.from_feeder(two_bus(line, cap)).v_squared_pu(np.zeros(6), np.zeros(6))
    np.testing.assert_allclose(v2[3:], 1 + 2 * 0.2 * 100e3 / 2400**2, atol=1e-12)
    delta = replace(cap, connection="delta")
    same = LinDistFlow.from_feeder(two_bus(line, delta)).v_squared_pu(np.zeros(6), np.zeros(6))
    np.testing.assert_allclose(same, v2, atol=1e-12)


def test_near_zero_impedance_is_merged() -> None:
    short = Line("l", "s", "e", (1, 2, 3), np.eye(3) * 4e-3, np.zeros((3, 3)))
    model = LinDistFlow.from_feeder(two_bus(short))
    assert model.network.size == 3
    assert model.electrical_nodes("e.2") == model.electrical_nodes("s.2")
    assert LinDistFlow.from_feeder(two_bus(short), merge_ohm=1e-3).network.size == 6


def test_source_impedance_is_optional() -> None:
    line = Line("l", "s", "e", (1, 2, 3), np.eye(3) * (0.1 + 0.2j), np.zeros((3, 3)))
    feeder = two_bus(line)
    feeder = replace(feeder, source=replace(feeder.source, r_ohm=0.1, x_ohm=0.3))
    _, x = LinDistFlow.from_feeder(feeder).sensitivity(["e.1"], ["e.1"])
    _, stiff = LinDistFlow.from_feeder(feeder, source_impedance=False).sensitivity(["e.1"], ["e.1"])
    assert x[0, 0] / stiff[0, 0] == pytest.approx(0.5 / 0.2)


def test_der_is_the_mean_of_its_phases() -> None:
    model = LinDistFlow.from_feeder(load_feeder("ieee123"))
    der = Der("pv", "pv", "76", (1, 2, 3), 100.0, 100.0)
    r, x = model.sensitivity([der], [der])
    r3, x3 = model.sensitivity(der.labels, der.labels)
    assert r[0, 0] == pytest.approx(r3.mean())
    assert x[0, 0] == pytest.approx(x3.mean())


def test_errors_name_the_place() -> None:
    model = LinDistFlow.from_feeder(load_feeder("ieee123"))
    with pytest.raises(FeederError, match=r"no node '65\.4'.*did you mean '65\."):
        model.sensitivity(["65.4"], ["65.1"])
    with pytest.raises(GridModelError, match="injections of shape"):
        model.v_pu(np.zeros(3), np.zeros(3))
    with pytest.raises(GridModelError, match=r"'phases': .* is not accepted"):
        LinDistFlow.from_feeder(model.feeder, "tree")  # type: ignore[arg-type]
    p, q = model.nominal_injection()
    with pytest.raises(PowerFlowError, match="no operating point"):
        model.linearised_at(20 * p, 20 * q)
    unfed = Load("lost", "e", (3,), "wye", "PQ", 1.0, 0.0, KV_LN)
    line = Line("l", "s", "e", (1, 2), np.eye(2) * 0.1j, np.zeros((2, 2)))
    with pytest.raises(TopologyError, match=r"'lost' sits on e\.3, which nothing feeds"):
        LinDistFlow.from_feeder(two_bus(line, unfed))
