"""Small master files with the awkward features of users' feeders, and the real ones on request.

``FEEDERATE_DSS_DIR`` may name a folder that holds OpenDSS feeders (any tree of ``*.dss``): every
master named in `REAL` that is found there is read, solved and rebuilt.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grid_models.catalog import load_feeder, open_circuit
from grid_models.feeder.model import Der, Feeder
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.master import open_master

HEAD = "clear\nnew circuit.small basekv=12.47 bus1=src r1=0.001 x1=0.001 r0=0.001 x0=0.001\n"
LINE = "rmatrix=[0.4|0.1 0.4|0.1 0.1 0.4] xmatrix=[1|0.4 1|0.4 0.4 1] cmatrix=[9|-2 9|-2 -2 9]"
TAIL = "\nset voltagebases=[12.47 4.16 0.48 0.208]\ncalcvoltagebases\n"

Read = Callable[..., Circuit]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def _read(body: str, head: str = HEAD, tail: str = TAIL, **options: object) -> Circuit:
        path = tmp_path / "master.dss"
        path.write_text(head + body + tail)
        return open_master(path, **options)  # type: ignore[arg-type]

    return _read


def rebuilt(circuit: Circuit) -> float:
    """Largest voltage difference to the circuit that is built anew from what was read."""
    again = Circuit.from_feeder(circuit.feeder)
    if circuit.der_names:
        power = [getattr(circuit._ders, k) for k in ("kw", "kvar")]
        again.set_ders(-power[0], -power[1])
        again.solve()
    assert again.node_labels == circuit.node_labels
    assert again.load_names == circuit.load_names
    return float(np.abs(again.v_pu() - circuit.v_pu()).max())


def volts(circuit: Circuit) -> dict[str, float]:
    return dict(zip(circuit.node_labels, circuit.v_pu(), strict=True))


def test_line_impedance_is_per_length_times_length(read: Read) -> None:
    circuit = read(
        f"new linecode.c nphases=3 units=mi {LINE}\n"
        "new line.l bus1=src bus2=b linecode=c length=2640 units=ft\n"
        "new load.x bus1=b kv=12.47 kw=300 kvar=100 vminpu=0.9\n"
    )
    (line,) = circuit.feeder.lines
    # Hand: 2640 ft = 0.5 mile; 9 nF/mile at 60 Hz = 3.393 uS/mile.
    assert line.length_ft == pytest.approx(2640.0)
    np.testing.assert_allclose(np.diag(line.z_ohm), 0.5 * (0.4 + 1j), rtol=1e-6)
    np.testing.assert_allclose(line.z_ohm[0, 1], 0.5 * (0.1 + 0.4j), rtol=1e-6)
    np.testing.assert_allclose(np.diag(line.b_us), 0.5 * 9e-3 * 2 * np.pi * 60, rtol=1e-3)
    assert rebuilt(circuit) < 1e-5


def test_open_switch_disabled_elements_and_dead_part(read: Read) -> None:
    circuit = read(
        f"new line.l1 bus1=src bus2=b {LINE} length=1\n"
        f"new line.tie bus1=b bus2=c switch=y\nnew line.l2 bus1=src bus2=c {LINE} length=1\n"
        f"new line.off bus1=b bus2=c {LINE} length=1 enabled=no\n"
        f"new line.dead bus1=c bus2=d {LINE} length=1\nnew load.dead bus1=d kv=12.47 kw=7\n"
        "new load.off bus1=b kv=12.47 kw=900 enabled=no\n"
        "new load.x bus1=c.2 phases=1 kv=7.2 kw=300 kvar=100\n"
        "open line.tie 1\nopen line.dead 1\nsolve\n"
    )
    feeder = circuit.feeder
    assert [(s.name, s.closed) for s in feeder.switches] == [("tie", False)]
    assert [line.name for line in feeder.lines] == ["l1", "l2"]
    assert [load.name for load in feeder.loads] == ["x"]
    assert circuit.load_names == ("x", "dead")
    assert set(feeder.buses) == {"src", "b", "c"}
    assert rebuilt(circuit) < 1e-5
    before = volts(circuit)
    circuit.set_switch("tie", True)
    circuit.solve()
    assert volts(circuit)["c.2"] > before["c.2"]
    circuit.enable("line.dead", True)
    circuit.solve()


def test_line_with_one_phase_open(read: Read) -> None:
    circuit = read(
        f"new line.l1 bus1=src bus2=b {LINE} length=1\nopen line.l1 1 2\n"
        "new load.a bus1=b.1 phases=1 kv=7.2 kw=300\nnew load.c bus1=b.3 phases=1 kv=7.2 kw=99\n"
    )
    assert circuit.feeder.lines[0].phases == (1, 3)
    # The open conductor hangs on the coupling of the others: far below its base, not a dead node.
    assert volts(circuit)["b.1"] > 0.9
    assert volts(circuit).get("b.2", 0.0) < 0.6


def test_delta_and_open_wye_loads(read: Read) -> None:
    circuit = read(
        f"new line.l1 bus1=src bus2=b {LINE} length=1\n"
        "new load.ab bus1=b.1.2 phases=1 conn=delta kv=12.47 kw=200 kvar=50\n"
        "new load.d3 bus1=b phases=3 conn=delta kv=12.47 kw=300 kvar=50 model=2\n"
        "new load.w2 bus1=b.1.3 phases=2 conn=wye kv=12.47 kw=100 kvar=50 model=5\n"
        "new load.pp bus1=b.2.3 phases=1 conn=wye kv=12.47 kw=70 kvar=5\n"
    )
    loads = {x.name: x for x in circuit.feeder.loads}
    assert (loads["ab"].phases, loads["ab"].connection) == ((1, 2), "delta")
    assert (loads["d3"].phases, loads["d3"].model) == ((1, 2, 3), "Z")
    assert (loads["w2"].phases, loads["w2"].connection, loads["w2"].model) == ((1, 3), "wye", "I")
    assert (loads["pp"].phases, loads["pp"].connection) == ((2, 3), "delta")
    assert rebuilt(circuit) < 1e-5


def test_centre_tapped_secondary(read: Read) -> None:
    circuit = read(
        f"new line.l1 bus1=src bus2=b {LINE} length=1\n"
        "new transformer.t phases=1 windings=3 xhl=2.04 xht=2.04 xlt=1.36 %imag=0.5 "
        "%rs=[0.6 1.2 1.2] buses=[b.1 s.1.0 s.0.2] kvs=[7.2 0.12 0.12] kvas=[25 25 25]\n"
        "new linecode.tx nphases=2 units=kft rmatrix=[0.3|0.1 0.3] xmatrix=[0.2|0.1 0.2] "
        "cmatrix=[0|0 0]\nnew line.tx bus1=s.1.2 bus2=h.1.2 linecode=tx length=100 units=ft "
        "phases=2\nnew load.one bus1=h.1 phases=1 kv=0.12 kw=3 kvar=1\n"
        "new load.both bus1=h.1.2 phases=2 kv=0.208 kw=8 kvar=2\n"
    )
    feeder = circuit.feeder
    (transformer,) = feeder.transformers
    assert [w.nodes for w in transformer.windings] == [(1, 0), (1, 0), (0, 2)]
    assert feeder.buses["h"].phases == (1, 2)
    assert feeder.buses["h"].base_kv_ln == pytest.approx(0.12, rel=0.01)
    assert 0.9 < volts(circuit)["h.2"] < 1.0
    # %imag (magnetising) has no place in a Transformer: the known difference of the rebuilt one.
    assert rebuilt(circuit) < 2e-4
    der = Der("pv", "pv", "h", (1, 2), 10.0, 8.0)
    again = open_circuit(feeder, [der])
    before = again.source_kw_kvar()[0]
    again.set_ders([8.0], [0.0])
    again.solve()
    assert again.source_kw_kvar()[0] == pytest.approx(before - 8.0, abs=0.3)


def test_regulator_bank_and_its_taps(read: Read) -> None:
    body = f"new line.l0 bus1=src bus2=a {LINE} length=1\n"
    for phase in (1, 2, 3):
        body += (
            f"new transformer.r{phase} phases=1 windings=2 buses=[a.{phase} ar.{phase}] "
            "kvs=[7.2 7.2] kvas=[5000 5000] xhl=0.01 %loadloss=0.001\n"
            f"new regcontrol.c{phase} transformer=r{phase} winding=2 vreg=124 band=2 ptratio=60 "
            "ctprim=300 r=1 x=2\n"
        )
    body += f"new line.l1 bus1=ar bus2=b {LINE} length=3\n"
    body += "new load.x bus1=b.1 phases=1 kv=7.2 kw=900 kvar=300\n"
    circuit = read(body)
    regulators = {r.name: r for r in circuit.feeder.regulators}
    assert set(regulators) == {"r1", "r2", "r3"}
    assert not circuit.feeder.transformers
    r1 = regulators["r1"]
    assert (r1.v_set_v, r1.bandwidth_v, r1.pt_ratio, r1.ct_primary_a) == (124.0, 2.0, 60.0, 300.0)
    assert circuit.tap_steps()["r1"] == r1.tap_step > 0
    assert rebuilt(circuit) < 2e-5
    # 'fixed' holds what settled; 'auto' goes on.
    for mode, moves in (("fixed", False), ("auto", True)):
        circuit = read(body, regulators=mode)
        taps = circuit.tap_steps()
        circuit.set_loads([2700.0], [900.0])
        circuit.solve()
        assert (circuit.tap_steps() != taps) is moves


def test_open_delta_regulators_stay_transformers(read: Read) -> None:
    circuit = read(
        "new transformer.ra phases=1 windings=2 buses=[src.1.2 b.1.2] conns=[delta delta] "
        "kvs=[12.47 12.47] kvas=[2000 2000] xhl=1\n"
        "new regcontrol.ca transformer=ra winding=2 vreg=122 band=2 ptratio=104\n"
        "new transformer.rc like=ra buses=[src.3.2 b.3.2]\n"
        "new regcontrol.cc like=ca transformer=rc\n"
        "new line.jumper bus1=src.2 bus2=b.2 phases=1 r1=1e-3 x1=0 r0=1e-3 x0=0 c1=0 c0=0\n"
        "new load.x bus1=b phases=3 conn=delta kv=12.47 kw=600 kvar=200\n"
    )
    assert {t.name for t in circuit.feeder.transformers} == {"ra", "rc"}
    assert circuit.feeder.transformers[0].windings[0].nodes == (1, 2)
    assert set(circuit.tap_steps()) == {"ra", "rc"}
    assert rebuilt(circuit) < 2e-4


def test_zero_length_line_is_mended(read: Read) -> None:
    circuit = read(
        f"new line.l1 bus1=src bus2=b {LINE} length=1\nnew line.zero bus1=b bus2=c {LINE} "
        "length=0\nnew load.x bus1=c kv=12.47 kw=300\n"
    )
    v = volts(circuit)
    assert v["b.1"] == pytest.approx(v["c.1"], abs=1e-6)
    assert rebuilt(circuit) < 1e-5


def test_several_voltage_bases_with_and_without_calcvoltagebases(read: Read) -> None:
    body = (
        f"new line.l1 bus1=src bus2=b {LINE} length=1\n"
        "new transformer.t phases=3 windings=2 buses=[b c] conns=[delta wye] kvs=[12.47 0.48] "
        "kvas=[500 500] xhl=4 %rs=[0.5 0.5]\nnew load.x bus1=c kv=0.48 kw=200 kvar=50\n"
        "new transformer.t2 phases=1 windings=2 buses=[b.2 d.2] kvs=[7.2 0.24] kvas=[50 50] "
        "xhl=2\nnew load.y bus1=d.2 phases=1 kv=0.24 kw=20\n"
    )
    given = read(body, tail="\nset voltagebases=[12.47 0.48 0.4157]\ncalcv\n")
    for circuit in (given, read(body, tail="\n")):
        buses = circuit.feeder.buses
        assert buses["b"].base_kv_ln == pytest.approx(12.47 / np.sqrt(3.0))
        assert buses["c"].base_kv_ln == pytest.approx(0.48 / np.sqrt(3.0))
        assert buses["d"].base_kv_ln == pytest.approx(0.24, rel=1e-3)
        assert rebuilt(circuit) < 1e-4


def test_ders_of_the_file(read: Read) -> None:
    body = (
        f"new line.l1 bus1=src bus2=b {LINE} length=3\nnew load.x bus1=b kv=12.47 kw=300\n"
        "new pvsystem.p bus1=b.1 phases=1 kv=7.2 kva=120 pmpp=100 irradiance=0.8 pf=1\n"
        "new storage.s bus1=b kv=12.47 kwrated=50 kwhrated=200 state=discharging kw=30\n"
        "new generator.g bus1=b kv=12.47 kw=40 kvar=20\n"
    )
    circuit = read(body, file_ders="ours")
    ders = {d.name: d for d in circuit.feeder.ders}
    assert circuit.der_names == ("pvsystem_p", "storage_s", "generator_g")
    assert (ders["pvsystem_p"].kva, ders["pvsystem_p"].p_max_kw) == (120.0, 100.0)
    assert ders["storage_s"].energy_kwh == 200.0
    assert ders["storage_s"].p_min_kw == -50.0
    # Taken over at the file's output: 80 + 30 + 40 kW against 300 kW and the losses.
    expected = 300.0 - 150.0 + circuit.losses_kw()
    assert circuit.source_kw_kvar()[0] == pytest.approx(expected, abs=3.0)
    circuit.set_ders([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    circuit.solve()
    assert circuit.source_kw_kvar()[0] == pytest.approx(300.0 + circuit.losses_kw(), abs=0.1)
    # Run by OpenDSS they stay as they are, beside resources of one's own.
    extra = read(body)
    extra.place_ders([Der("mine", "pv", "b", (3,), 20.0, 15.0)])
    assert extra.der_names == ("mine",)
    before = extra.source_kw_kvar()[0]
    assert before == pytest.approx(expected, abs=3.0)
    extra.set_ders([15.0], [0.0])
    extra.solve()
    assert extra.source_kw_kvar()[0] == pytest.approx(before - 15.0, abs=0.3)


def test_neutral_conductor_is_reduced(read: Read) -> None:
    circuit = read(
        "new line.l phases=4 bus1=src.1.2.3.4 bus2=b.1.2.3.4 length=1 "
        "rmatrix=[.4|.1 .4|.1 .1 .4|.1 .1 .1 .5] xmatrix=[1|.4 1|.4 .4 1|.4 .4 .4 1.2] "
        "cmatrix=[0|0 0|0 0 0|0 0 0 0]\nnew reactor.g1 phases=1 bus1=src.4 bus2=src.0 r=1e-4 x=0\n"
        "new reactor.g2 phases=1 bus1=b.4 bus2=b.0 r=1e-4 x=0\n"
        "new load.x bus1=b.1 phases=1 kv=7.2 kw=200 kvar=90\n"
    )
    (line,) = circuit.feeder.lines
    # Kron by hand: 0.4+j1 - (0.1+j0.4)^2 / (0.5+j1.2)
    assert line.z_ohm[0, 0] == pytest.approx((0.4 + 1j) - (0.1 + 0.4j) ** 2 / (0.5 + 1.2j))
    assert all(label.split(".")[1] in "123" for label in circuit.node_labels)
    assert rebuilt(circuit) < 1e-5


def test_load_multiplier_is_part_of_the_nominal_load(read: Read) -> None:
    body = f"new line.l bus1=src bus2=b {LINE} length=1\nnew load.x bus1=b kv=12.47 kw=300 pf=0.9\n"
    circuit = read(body + "set loadmult=0.5\n")
    assert circuit.load_kw.tolist() == [150.0]
    assert circuit.source_kw_kvar()[0] == pytest.approx(150.0, abs=1.0)


def test_endless_solve_plots_and_exports_are_passed_over(read: Read, tmp_path: Path) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=b {LINE} length=1\nnew load.x bus1=b kv=12.47 kw=300\n",
        tail=TAIL + "solve mode=yearly number=9999999\nplot profile\nexport voltages\nshow taps\n",
    )
    assert circuit.source_kw_kvar()[0] == pytest.approx(300.0, abs=3.0)
    assert [p.name for p in tmp_path.iterdir()] == ["master.dss"]


def test_redirects_are_found_as_windows_would(tmp_path: Path) -> None:
    (tmp_path / "Parts").mkdir()
    (tmp_path / "Parts" / "Lines.DSS").write_text(f"new line.l bus1=src bus2=b {LINE} length=1\n")
    (tmp_path / "xy.csv").write_text("src, 0, 0\nb, 3, 4\n")
    path = tmp_path / "master.dss"
    path.write_text(
        HEAD + "Redirect parts\\lines.dss ! comment\n/* skip\nbogus\n*/\n"
        "new load.x bus1=b kv=12.47 kw=300\n" + TAIL + "buscoords xy.csv\n"
    )
    feeder = load_feeder(path)
    assert feeder.name == "small"
    assert (feeder.buses["b"].x_ft, feeder.buses["b"].y_ft) == (3.0, 4.0)


def test_shipped_feeder_survives_the_engine() -> None:
    from grid_models.opendss.reader import feeder_from_engine

    feeder = load_feeder("ieee123")
    circuit = open_circuit(feeder)
    again = feeder_from_engine(circuit._engine, name="again")
    _assert_same_lines(feeder, again)
    assert {r.name: r.tap_step for r in again.regulators} == {
        r.name: r.tap_step for r in feeder.regulators
    }
    assert [(x.name, x.phases, x.model, x.kw) for x in again.loads] == [
        (x.name, x.phases, x.model, x.kw) for x in feeder.loads
    ]


def _assert_same_lines(one: Feeder, other: Feeder) -> None:
    by_name = {line.name: line for line in other.lines}
    for line in one.lines:
        np.testing.assert_allclose(by_name[line.name].z_ohm, line.z_ohm, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(by_name[line.name].b_us, line.b_us, rtol=1e-3, atol=1e-3)


# Masters by file name: nodes at least, and the largest difference of the rebuilt circuit. Known
# differences: no-load losses and magnetising currents, and CVR loads taken as constant current.
REAL = {
    "ieee34mod1.dss": (90, 2e-4),
    "ieee34mod2.dss": (90, 2e-4),
    "ieee37.dss": (110, 1e-3),
    "master-unbal.dss": (8000, 6e-3),
    "master-unbal-initial-config.dss": (8000, 6e-3),
}
DSS_DIR = os.environ.get("FEEDERATE_DSS_DIR")
FOUND = sorted(p for p in Path(DSS_DIR).rglob("*.dss") if p.name.lower() in REAL) if DSS_DIR else []


@pytest.mark.skipif(not DSS_DIR, reason="FEEDERATE_DSS_DIR does not name a folder of feeders")
def test_real_feeders_are_there() -> None:
    assert FOUND


@pytest.mark.parametrize("path", FOUND, ids=lambda p: p.name)
def test_real_feeder_is_read_solved_and_rebuilt(path: Path) -> None:
    n_nodes, tolerance_pu = REAL[path.name.lower()]
    circuit = open_circuit(path)
    assert len(circuit.node_labels) >= n_nodes
    assert np.all((circuit.v_pu() > 0.8) & (circuit.v_pu() < 1.1))
    assert rebuilt(circuit) < tolerance_pu
