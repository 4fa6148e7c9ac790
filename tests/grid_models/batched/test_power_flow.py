"""Batched power flow against OpenDSS, against itself, and where there is no solution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.base.threads import one_thread
from grid_models.batched.power_flow import BatchedFeeder
from grid_models.catalog import open_circuit
from grid_models.current_injection.model import ComplexArray
from grid_models.feeder.model import Der
from grid_models.opendss.circuit import Circuit

DERS = {
    "ieee13": (
        Der("three", "inverter", "675", (1, 2, 3), 300.0, 250.0),
        Der("one", "inverter", "634", (2,), 80.0, 60.0),
    ),
    "ieee123": (
        Der("three", "inverter", "65", (1, 2, 3), 100.0, 100.0),
        Der("one", "inverter", "9", (1,), 100.0, 100.0),
    ),
}

MODELS = """
clear
new circuit.mine basekv=12.47 bus1=src pu=1.0 mvasc3=60 mvasc1=50
new linecode.lc nphases=3 r1=0.2 x1=0.4 r0=0.6 x0=1.2 c1=3 c0=1 units=km
new line.l1 bus1=src bus2=a linecode=lc length=2 units=km normamps=300
new line.l2 bus1=a bus2=b linecode=lc length=2 units=km normamps=200
new line.open bus1=b bus2=z linecode=lc length=1 units=km switch=yes
new transformer.house phases=1 windings=3 buses=[b.1.0 lv.1.4 lv.4.2] kvs=[7.2 0.12 0.12]
~ kvas=[50 50 50] %rs=[0.6 1.2 1.2] xhl=2 xht=2 xlt=1.4
new reactor.ground bus1=lv.4 bus2=lv.0 r=0.5 x=0 phases=1
new transformer.t phases=3 windings=2 buses=[b c] conns=[delta wye] kvs=[12.47 0.48]
~ kvas=[500 500] xhl=5 %rs=[0.5 0.5]
new load.m1 bus1=a.1.2.3 phases=3 kv=12.47 kw=600 kvar=200 model=1 vminpu=0.85 vmaxpu=1.1
new load.m1d bus1=a.2.3 phases=1 conn=delta kv=12.47 kw=300 kvar=100 model=1
new load.m2 bus1=b.1.2.3 phases=3 kv=12.47 kw=300 kvar=150 model=2
new load.m3 bus1=b.2 phases=1 kv=7.2 kw=150 kvar=90 model=3 vminpu=0.6 vmaxpu=1.5
new load.m4 bus1=c.1.2.3 phases=3 kv=0.48 kw=90 kvar=40 model=4 cvrwatts=0.8 cvrvars=2.5
new load.m4n bus1=c.1 phases=1 kv=0.277 kw=30 kvar=10 model=4
new load.m5 bus1=c.1.2.3 phases=3 conn=delta kv=0.48 kw=60 kvar=20 model=5 vminpu=0.9 vlowpu=0.4
new load.m6 bus1=b.3 phases=1 kv=7.2 kw=100 kvar=50 model=6 vmaxpu=1.5
new load.m7 bus1=b.1 phases=1 kv=7.2 kw=100 kvar=50 model=7 vmaxpu=1.5
new load.m8 bus1=a.2.3 phases=2 kv=12.47 kw=200 kvar=60 model=8 zipv=[.3 .3 .4 .5 .2 .3 0]
new load.m8d bus1=c.3 phases=1 kv=0.277 kw=30 kvar=5 model=8 zipv=[.2 .3 .5 .2 .3 .5 .62]
new load.left bus1=lv.1.4 phases=1 kv=0.12 kw=6 kvar=2 model=5
new load.across bus1=lv.1.2 phases=1 kv=0.24 kw=8 kvar=1
new load.behind bus1=z.3 phases=1 kv=7.2 kw=40 kvar=10
set voltagebases=[12.47 0.48 0.208]
calcvoltagebases
"""


@pytest.fixture(scope="module")
def feeders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Circuit, BatchedFeeder]]:
    """Shipped feeders with DERs, and a circuit with every load model of OpenDSS."""
    path = tmp_path_factory.mktemp("models") / "models.dss"
    path.write_text(MODELS)
    circuits = {name: open_circuit(name, ders, tolerance_pu=1e-11) for name, ders in DERS.items()}
    circuits["models"] = open_circuit(
        path, (Der("d", "inverter", "b", (1, 2, 3), 300.0, 300.0),), tolerance_pu=1e-10
    )
    return {name: (circuit, BatchedFeeder(circuit)) for name, circuit in circuits.items()}


def _cases(
    feeder: BatchedFeeder, seed: int, n: int, most: float, der_kw: float
) -> tuple[ComplexArray, ComplexArray]:
    """Return random loads of 0 to `most` times nominal, and injections."""
    rng = np.random.default_rng(seed)
    level, spread = rng.uniform(0.0, most, (n, 1)), rng.uniform(0.5, 1.5, (n, 1))
    load = feeder.nominal_kva * level * spread ** rng.normal(size=(n, len(feeder.load_names)))
    ders = rng.uniform(-der_kw, der_kw, (2, n, len(feeder.der_names)))
    return load, ders[0] + 0.5j * ders[1]


def _solve_with_opendss(
    circuit: Circuit, load: ComplexArray, der: ComplexArray, source_pu: float, own_pu: float
) -> None:
    circuit.set_loads(load.real, load.imag)
    circuit.set_ders(der.real, der.imag)
    sources = circuit.engine.dss.Vsources
    sources.First()
    sources.PU(source_pu * own_pu)
    circuit.solve()


@pytest.mark.parametrize(
    ("name", "most", "low", "high", "der_kw"),
    [
        ("ieee13", 1.5, 0.95, 1.05, 200.0),
        ("ieee123", 3.0, 0.95, 1.08, 100.0),
        # Above the limits of the loads at which a model jumps, and may have two solutions.
        ("models", 0.7, 0.92, 1.15, 100.0),
    ],
)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_case_is_what_opendss_finds(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
    name: str,
    most: float,
    low: float,
    high: float,
    der_kw: float,
    seed: int,
) -> None:
    circuit, feeder = feeders[name]
    load, der = _cases(feeder, seed, 3, most, der_kw)
    source_pu = np.random.default_rng(seed).uniform(low, high, 3)
    flow = feeder.solve(load, der, source_pu)
    assert flow.converged.all()
    own_pu = circuit.feeder.source.v_pu
    for k in range(3):
        _solve_with_opendss(circuit, load[k], der[k], float(source_pu[k]), own_pu)
        assert circuit.tolerance_pu < 1e-9
        shown = np.abs(feeder.network.w) > 0.0
        assert np.abs(flow.v[k] - circuit.v_complex_pu())[shown].max() < 3e-9
        p, q = circuit.source_kw_kvar()
        assert flow.import_kva[k] == pytest.approx(complex(p, q), abs=1e-4)
        assert flow.losses_kw[k] == pytest.approx(circuit.losses_kw(), abs=1e-4)


def test_the_ranges_of_all_load_models_are_reached(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    circuit, feeder = feeders["models"]
    # Not where a voltage is just at `vmaxpu`: some models jump there, and have two solutions.
    source_pu = np.concatenate([np.linspace(0.2, 1.25, 50), np.linspace(1.4, 1.5, 5)])
    flow = feeder.solve(0.6 * feeder.nominal_kva, None, source_pu)
    own_pu, shown = circuit.feeder.source.v_pu, np.abs(feeder.network.w) > 0.0
    none = np.zeros(1, dtype=np.complex128)
    deviation = []
    assert flow.converged.all()
    for k in range(55):
        load = 0.6 * feeder.nominal_kva
        _solve_with_opendss(circuit, load, none, float(source_pu[k]), own_pu)
        deviation.append(np.abs(flow.v[k] - circuit.v_complex_pu())[shown].max())
    assert max(deviation) < 3e-9


def test_slopes_are_central_differences(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    for name in ("ieee123", "models"):
        feeder = feeders[name][1]
        load, der = _cases(feeder, 5, 3, 1.0, 50.0)
        source_pu, h = np.array([0.97, 1.0, 1.03]), 1e-4
        flow = feeder.solve(load, der, source_pu)
        up, down = (feeder.solve(load, der, source_pu + d) for d in (h, -h))
        by_source = (up.import_kva - down.import_kva) / (2.0 * h)
        assert np.abs(feeder.source_slopes(flow) - by_source).max() < 1e-2

        dv_dp, dv_dq = feeder.der_slopes(flow, 1)
        for k in range(len(feeder.der_names)):
            for unit, found in ((1.0, dv_dp), (1j, dv_dq)):
                d = np.zeros_like(der)
                d[1, k] = 0.05 * unit
                up, down = (feeder.solve(load, der + x, source_pu) for x in (d, -d))
                by_power = (up.v_pu - down.v_pu)[1] / 0.1
                assert np.abs(found[:, k] - by_power).max() < 1e-8


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40))
def test_a_case_does_not_depend_on_the_others(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]], seed: int, n: int
) -> None:
    feeder = feeders["ieee13"][1]
    load, der = _cases(feeder, seed, n, 1.5, 200.0)
    flow = feeder.solve(load, der)
    half = n // 2
    parts = [feeder.solve(load[x], der[x]) for x in (slice(half), slice(half, n))]
    # What has no solution alone has none among others: NaN equals NaN here.
    np.testing.assert_allclose(np.concatenate([x.v for x in parts]), flow.v, rtol=0, atol=1e-9)
    warm = feeder.solve(load, der, start=feeder.solve(1.02 * load, der))
    np.testing.assert_allclose(warm.v, flow.v, rtol=0, atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40))
def test_factors_are_the_same_as_powers_times_factors(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]], seed: int, n: int
) -> None:
    feeder = feeders["ieee13"][1]
    load, der = _cases(feeder, seed, 1, 1.0, 100.0)
    of_load, of_der = np.random.default_rng(seed).uniform(0.0, 1.2, (2, n))
    flow = feeder.solve(load, der, load_factor=of_load, der_factor=of_der)
    each = feeder.solve(of_load[:, None] * load, of_der[:, None] * der)
    np.testing.assert_allclose(flow.v, each.v, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        feeder.source_slopes(flow), feeder.source_slopes(each), rtol=1e-5, atol=1e-3
    )


def test_blocks_on_threads_have_the_same_bits(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    feeder = feeders["ieee13"][1]
    load, der = _cases(feeder, 1, 700, 1.5, 200.0)
    with one_thread():
        one, two = (feeder.solve(load, der, threads=n) for n in (1, 2))
    assert np.array_equal(one.v, two.v, equal_nan=True)


def test_one_set_of_loads_serves_many_source_voltages(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    feeder = feeders["ieee123"][1]
    source_pu = np.linspace(0.9, 1.1, 150)
    flow = feeder.solve(source_pu=source_pu)
    each = feeder.solve(np.tile(feeder.nominal_kva, (150, 1)), source_pu=source_pu)
    assert (flow.v == each.v).all()
    assert flow.loading.shape == (150, len(feeder.network.lines))
    assert np.isfinite(flow.loading).all()


def test_a_case_without_solution_is_not_a_number_and_harms_no_other(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    feeder = feeders["ieee13"][1]
    load = np.tile(feeder.nominal_kva, (3, 1))
    der = np.zeros((3, 2), dtype=np.complex128)
    der[1] = -60000.0  # far more than the lines can carry to one bus
    flow = feeder.solve(load, der)
    assert flow.converged.tolist() == [True, False, True]
    for values in (flow.v_pu, flow.import_kva, flow.losses_kw, flow.loading):
        assert np.isnan(values[1]).all()
        assert np.isfinite(values[[0, 2]]).all()
    assert np.isnan(feeder.der_slopes(flow, 1)[0]).all()
    assert np.isfinite(feeder.source_slopes(flow)).tolist() == [True, False, True]
    warm = feeder.solve(load, np.zeros_like(der), start=flow)
    assert warm.converged.all()


def test_what_an_open_switch_cuts_off_is_dead(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("models") / "models.dss"
    path.write_text(MODELS)
    circuit = open_circuit(path, tolerance_pu=1e-10)
    closed = BatchedFeeder(circuit).solve()
    circuit.set_switch("line.open", closed=False)
    circuit.solve()
    feeder = BatchedFeeder(circuit)
    flow = feeder.solve()
    dead = [k for k, label in enumerate(feeder.network.nodes) if label.startswith("z.")]
    assert len(dead) == 3
    assert (flow.v_pu[0, dead] < 1e-3).all()
    assert flow.import_kva[0].real < closed.import_kva[0].real - 30.0
    assert flow.import_kva[0].real == pytest.approx(circuit.source_kw_kvar()[0], abs=0.02)


def test_arguments_that_do_not_fit_are_refused(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    feeder = feeders["ieee13"][1]
    for load, source_pu in ((np.ones((2, 3)), 1.0), (None, np.ones((2, 2)))):
        with pytest.raises(FeederError, match=r"load_kva .* expected \(N, 20\)"):
            feeder.solve(load, source_pu=source_pu)
    with pytest.raises(FeederError, match="not finite"):
        feeder.solve(source_pu=np.nan)
    with pytest.raises(FeederError, match="as many cases"):
        feeder.solve(source_pu=np.ones(3), start=feeder.solve())


def test_without_a_source_all_voltages_are_0(
    feeders: dict[str, tuple[Circuit, BatchedFeeder]],
) -> None:
    feeder = feeders["ieee13"][1]
    flow = feeder.solve(source_pu=np.array([1.0, 0.0, 0.2]))
    assert flow.converged.all()
    assert (flow.v_pu[1] < 1e-9).all()
    assert abs(flow.import_kva[1]) < 1e-9
    assert np.isfinite(feeder.source_slopes(flow)).all()
    again = feeder.solve(source_pu=np.ones(3), start=flow)
    assert again.converged.all()
    assert np.abs(again.v - flow.v[0]).max() < 1e-9


BESIDE = """
clear
new circuit.mine basekv=12.47 bus1=src pu=1.0 mvasc3=60 mvasc1=50
new linecode.lc nphases=3 r1=0.2 x1=0.4 r0=0.6 x0=1.2 c1=3 c0=1 units=km
new line.l1 bus1=src bus2=a linecode=lc length=2 units=km
new transformer.t phases=3 windings=2 buses=[a d] conns=[wye delta] kvs=[12.47 0.48] kvas=[300 300]
new load.x bus1=a.1 phases=1 kv=7.2 kw=100 kvar=30
{}
set voltagebases=[12.47 0.48]
calcvoltagebases
"""


def _open(tmp_path: Path, more: str) -> Circuit:
    path = tmp_path / "mine.dss"
    path.write_text(BESIDE.format(more))
    return open_circuit(path, tolerance_pu=1e-10)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("new load.y bus1=a.1.4 phases=1 kv=7.2 kw=50", "a load at a.1 has a phase with voltage"),
        (
            "new line.l2 bus1=a bus2=z linecode=lc length=1 units=km\n"
            "new load.y bus1=z phases=3 conn=delta kv=12.47 kw=50\nopen line.l2 1 2",
            "has a phase with voltage",
        ),
        ("new load.y bus1=d.1 phases=1 kv=0.277 kw=5", r"OpenDSS has 1\.7.* pu at node d\."),
        ("new load.y bus1=a.1.1 phases=1 kv=7.2 kw=5\nedit load.y bus1=a.0", "both ends of load.y"),
        ("new isource.i bus1=a phases=3 amps=5", "does not have isource.i"),
        ("new fault.f bus1=a.1 phases=1 r=5", "does not have fault.f"),
    ],
)
def test_what_would_be_left_out_is_refused(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(FeederError, match=message):
        BatchedFeeder(_open(tmp_path, more))


def test_a_neutral_that_only_a_reactor_earths_carries_current(tmp_path: Path) -> None:
    circuit = _open(
        tmp_path,
        "new load.y bus1=a.1.2.3.4 phases=3 kv=12.47 kw=600 kvar=90\n"
        "new load.w bus1=a.2.4 phases=1 kv=7.2 kw=90\n"
        "new reactor.n bus1=a.4 bus2=a.0 phases=1 r=5 x=0",
    )
    flow = BatchedFeeder(circuit).solve()
    circuit.solve()
    assert np.abs(flow.v[0] - circuit.v_complex_pu()).max() < 3e-9


def test_the_factor_on_the_source_needs_a_single_source(tmp_path: Path) -> None:
    circuit = _open(tmp_path, "new vsource.s2 bus1=a basekv=12.47 mvasc3=40 mvasc1=30")
    feeder = BatchedFeeder(circuit)
    assert feeder.solve().converged.all()
    with pytest.raises(FeederError, match="sources at a, src"):
        feeder.solve(source_pu=0.98)


def test_a_feeder_without_loads_is_solved(tmp_path: Path) -> None:
    circuit = _open(tmp_path, "edit load.x enabled=no")
    feeder = BatchedFeeder(circuit)
    flow = feeder.solve(source_pu=[0.9, 1.1])
    assert flow.v_pu[1] == pytest.approx(1.1 / 0.9 * flow.v_pu[0])
    assert np.isfinite(feeder.source_slopes(flow)).all()
