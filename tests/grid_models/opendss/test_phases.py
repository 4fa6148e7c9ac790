"""Nodes and phases of users' feeders, against the engine alone: the same commands, no project code.

Loads on any node, phases that change their number along a line or through a transformer, neutral
conductors, dead phases, voltage bases that do not fit.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grid_models.base.errors import GridModelError
from grid_models.ders.rules import DerRule, place
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Der
from grid_models.linear.lindistflow import LinDistFlow
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.commands import floating_buses
from grid_models.opendss.elements import as_complex
from grid_models.opendss.engine import Engine
from grid_models.opendss.master import open_master

HEAD = "clear\nnew circuit.small basekv=12.47 bus1=src r1=.1 x1=.6 r0=.1 x0=.6\n"
BASES = "\nset voltagebases=[12.47 0.48 0.4 0.24 0.208]\ncalcvoltagebases\n"
Z3 = "rmatrix=[.4|.1 .4|.1 .1 .4] xmatrix=[1|.4 1|.4 .4 1] cmatrix=[9|-2 9|-2 -2 9]"
Z4 = (
    "rmatrix=[.4|.06 .4|.06 .06 .4|.06 .06 .06 .5] xmatrix=[.3|.1 .3|.1 .1 .3|.1 .1 .1 .35] "
    "cmatrix=[0|0 0|0 0 0|0 0 0 0]"
)
Z2 = "rmatrix=[.4|.06 .5] xmatrix=[.3|.1 .35] cmatrix=[0|0 0]"
Z1 = "r1=.5 x1=.8 r0=.5 x0=.8 c1=0 c0=0"
FOUR_WIRE = (
    "new transformer.t phases=3 windings=2 buses=(src lv.1.2.3.4) conns=(delta wye) "
    "kvs=(12.47 .4) kvas=(250 250) xhl=4 %rs=(1 1)\nnew reactor.g bus1=lv.4 phases=1 r=.4 x=0\n"
)

#: Feeders whose loads and nodes are unusual.
NODES = {
    "renamed": f"new line.l bus1=src.1.2.3 bus2=b.4.5.6 {Z3}\n"
    "new load.x bus1=b.4.5.6 kv=12.47 kw=900 pf=.95\nnew load.y bus1=b.6 phases=1 kv=7.2 kw=90\n",
    "delta on 4 to 6": f"new line.l bus1=src.1.2.3 bus2=b.4.5.6 {Z3}\n"
    "new load.x bus1=b.4.5.6 conn=delta kv=12.47 kw=900 pf=.95\n"
    "new load.y bus1=b.5.6 phases=1 conn=delta kv=12.47 kw=200 kvar=90 model=2\n",
    "phase and node 5": f"new line.l bus1=src bus2=b {Z3}\n"
    f"new line.m bus1=src.2 bus2=b.5 phases=1 {Z1}\n"
    "new load.x bus1=b.1.5 phases=1 kv=12.47 kw=300 kvar=100\n"
    "new load.y bus1=b kv=12.47 kw=300 pf=.9\n",
    "six phases": f"new line.l bus1=src bus2=b {Z3}\n"
    f"new line.m bus1=src.2.3.1 bus2=b.4.5.6 {Z3}\n"
    "new load.x bus1=b.1.2.3 kv=12.47 kw=300 pf=.9\nnew load.y bus1=b.4 phases=1 kv=7.2 kw=200\n",
    "transposed": f"new line.l bus1=src.1.2.3 bus2=a.2.3.1 {Z3} length=2\n"
    f"new line.m bus1=a.1.2.3 bus2=b.3.2.1 {Z3}\nnew load.x bus1=b.2 phases=1 kv=7.2 kw=500\n"
    "new load.y bus1=a.1.3 phases=1 conn=delta kv=12.47 kw=300 pf=.9\n"
    "new capacitor.c bus1=b.3 phases=1 kv=7.2 kvar=200\n",
    "renamed lateral and switch": f"new line.l bus1=src bus2=a {Z3}\n"
    f"new line.m bus1=a.3 bus2=b.1 phases=1 {Z1}\n"
    "new line.s bus1=a.1.2.3 bus2=c.3.1.2 switch=y\n"
    "new load.x bus1=b.1 phases=1 kv=7.2 kw=300\nnew load.y bus1=c.1 phases=1 kv=7.2 kw=200\n",
    "swapped by a transformer": f"new line.l bus1=src bus2=a {Z3}\n"
    "new transformer.t phases=3 windings=2 buses=(a.1.2.3.0 lv.3.1.2.0) conns=(wye wye) "
    "kvs=(12.47 .48) kvas=(500 500) xhl=4 %rs=(1 1)\n"
    "new load.x bus1=lv.1 phases=1 kv=.277 kw=90 pf=.9\n",
    "renamed by a delta transformer": f"new line.l bus1=src bus2=a {Z3}\n"
    "new transformer.t phases=3 windings=2 buses=(a.2.3.1 lv.4.5.6.0) conns=(delta wye) "
    "kvs=(12.47 .48) kvas=(500 500) xhl=4 %rs=(1 1)\n"
    "new load.x bus1=lv.5 phases=1 kv=.277 kw=90 pf=.9\nnew load.y bus1=lv.4.5.6 kv=.48 kw=90\n",
    "source on other nodes": f"edit vsource.source bus1=src.6.4.5\nnew line.l bus1=src.4.5.6 "
    f"bus2=a.1.2.3 {Z3}\nnew load.x bus1=a.1 phases=1 kv=7.2 kw=400\n"
    "new load.y bus1=a.1.3 phases=1 conn=delta kv=12.47 kw=300 pf=.9\n",
    "source of one phase": "edit vsource.source phases=1 bus1=src.2 basekv=7.2\n"
    f"new line.l bus1=src.2 bus2=a.1 phases=1 {Z1}\nnew load.x bus1=a.1 phases=1 kv=7.2 kw=400\n",
    "source turned": f"edit vsource.source bus1=src.3.1.2\nnew line.l bus1=src bus2=a {Z3}\n"
    "new load.x bus1=a.1 phases=1 kv=7.2 kw=400\n",
}
#: Feeders with neutral conductors: body, bus, its neutral.
NEUTRALS = {
    "grounded at one end": (
        f"{FOUR_WIRE}new line.s phases=4 bus1=lv.1.2.3.4 bus2=h.1.2.3.4 {Z4} length=.3\n"
        "new load.x bus1=h.1.4 phases=1 kv=.23 kw=10 pf=.95\n"
        "new load.y bus1=h.1.2.3.4 phases=3 kv=.4 kw=12 pf=.95\n",
        "h",
        4,
    ),
    "no load at the end": (
        f"{FOUR_WIRE}new line.s phases=4 bus1=lv.1.2.3.4 bus2=h.1.2.3.4 {Z4} length=.3\n"
        "new load.x bus1=lv.2.4 phases=1 kv=.23 kw=10 pf=.95\n",
        "h",
        4,
    ),
    "two wires": (
        f"{FOUR_WIRE}new line.s phases=2 bus1=lv.3.4 bus2=h.1.2 {Z2} length=.3\n"
        "new load.x bus1=h.1.2 phases=1 kv=.23 kw=8 pf=.95\n",
        "h",
        2,
    ),
}

Read = Callable[..., Circuit]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def _read(body: str, bases: str = BASES, **options: object) -> Circuit:
        path = tmp_path / "master.dss"
        path.write_text(HEAD + body + bases)
        return open_master(path, **options)  # type: ignore[arg-type]

    return _read


class Alone:
    """The engine on its own: volts by node, import in kW, powers of elements."""

    def __init__(self, body: str, load: float = 1.0, bases: str = BASES) -> None:
        engine = Engine()
        for row in (HEAD + body + bases).splitlines():
            engine.command(row)
        for row in (
            "batchedit load..* vminpu=.5 vmaxpu=2",
            f"set loadmult={load} tolerance=1e-9 maxiterations=100",
            "solve",
        ):
            engine.command(row)
        self.engine = engine
        labels = [str(n).lower() for n in engine.dss.Circuit.AllNodeNames()]
        flat = np.asarray(engine.dss.Circuit.AllBusVolts()).view(np.complex128)
        self.volts = dict(zip(labels, flat.tolist(), strict=True))
        self.import_kw = -float(np.ravel(engine.dss.Circuit.TotalPower())[0].real)


def check(circuit: Circuit, alone: Alone) -> None:
    base = {b: bus.base_kv_ln * 1e3 for b, bus in circuit.feeder.buses.items()}
    expected = [abs(alone.volts[x]) / base[x.rpartition(".")[0]] for x in circuit.node_labels]
    np.testing.assert_allclose(circuit.v_pu(), expected, atol=2e-5)
    assert circuit.source_kw_kvar()[0] == pytest.approx(alone.import_kw, abs=0.02)


@pytest.mark.parametrize("name", NODES)
def test_loads_on_any_node_follow_the_profile(read: Read, name: str) -> None:
    circuit = read(NODES[name])
    check(circuit, Alone(NODES[name]))
    circuit.set_loads(0.3 * circuit.load_kw, 0.3 * circuit.load_kvar)
    circuit.solve()
    alone = Alone(NODES[name], load=0.3)
    check(circuit, alone)
    assert alone.import_kw < 0.35 * Alone(NODES[name]).import_kw
    assert not circuit.feeder.notes


@pytest.mark.parametrize("name", NODES)
def test_the_tables_give_the_same_circuit(read: Read, name: str) -> None:
    circuit = read(NODES[name])
    again = Circuit.from_feeder(circuit.feeder)
    assert again.node_labels == circuit.node_labels
    np.testing.assert_allclose(again.v_pu(), circuit.v_pu(), atol=2e-4)


def measured(
    circuit: Circuit, nodes: list[str], volts: Callable[[], np.ndarray]
) -> tuple[list[Der], list[np.ndarray]]:
    """Central differences: squared voltage at nodes per kW, then per kvar, of a DER at each."""
    ders = [
        Der(f"d{i}", "inverter", x.rpartition(".")[0], (int(x.rpartition(".")[2]),), 99.0, 99.0)
        for i, x in enumerate(nodes)
    ]
    if not circuit.der_names:
        circuit.place_ders(ders)
    seen = [circuit.node_labels.index(x) for x in nodes]
    found = []
    for k in range(2):
        change = np.zeros((len(nodes), len(nodes)))
        for j in range(len(ders)):
            for sign in (1.0, -1.0):
                power = np.zeros((2, len(ders)))
                power[k, j] = 5.0 * sign
                circuit.set_ders(*power)
                circuit.solve()
                change[:, j] += sign * volts()[seen] ** 2 / 10.0
        found.append(change)
    return ders, found


@pytest.mark.parametrize("name", NODES)
def test_linear_model_has_the_engines_sensitivities(read: Read, name: str) -> None:
    """Every node on every node."""
    circuit = read(NODES[name])
    nodes = [x for x in circuit.node_labels if not x.startswith("src.")]
    ders, changes = measured(circuit, nodes, circuit.v_pu)
    tangent = LinDistFlow.from_feeder(circuit.feeder, around="nominal").sensitivity(nodes, ders)
    flat = LinDistFlow.from_feeder(circuit.feeder).sensitivity(nodes, ders)
    for k, change in enumerate(changes):
        scale = np.abs(change).max()
        np.testing.assert_allclose(tangent[k], change, atol=0.002 * scale)
        # The flat law forgets losses and loads, not where phases go.
        np.testing.assert_allclose(flat[k], change, atol=0.25 * scale)


@pytest.mark.parametrize("name", NEUTRALS)
def test_linear_model_of_a_neutral_is_as_far_off_as_documented(read: Read, name: str) -> None:
    circuit = read(NEUTRALS[name][0])
    nodes = [x for x in circuit.node_labels if x.startswith("h.")]
    ders, to_ground = measured(circuit, nodes, circuit.v_pu)
    _, to_neutral = measured(circuit, nodes, circuit.v_ln_pu)
    r, x = (np.diag(m) for m in LinDistFlow.from_feeder(circuit.feeder).sensitivity(nodes, ders))
    for model, change in ((r, to_ground[0]), (x, to_ground[1])):
        assert (np.abs(model / np.diag(change) - 1.0) < 0.37).all()
    np.testing.assert_allclose(r / np.diag(to_neutral[0]), 0.5, atol=0.06)
    np.testing.assert_allclose(x / np.diag(to_neutral[1]), 0.68, atol=0.06)


@pytest.mark.parametrize("name", NODES)
def test_feeding_phase_is_the_one_whose_angle_it_has(read: Read, name: str) -> None:
    circuit = read(NODES[name])
    model = LinDistFlow.from_feeder(circuit.feeder)
    volts = dict(zip(circuit.node_labels, circuit.v_complex_pu(), strict=True))
    lag = -np.angle([volts[x] for x in model.nodes], deg=True)
    phase = np.round(lag / 120.0).astype(int) % 3 + 1
    np.testing.assert_array_equal(model.node_phase, phase)


def test_a_switch_takes_down_the_renamed_phases_behind_it(read: Read) -> None:
    circuit = read(NODES["renamed lateral and switch"])
    nodes = EnergisedNodes(circuit.feeder)
    dead = {x for x, on in zip(nodes.labels, nodes.reach({"m": False}), strict=True) if not on}
    assert dead == {"b.1"}


@pytest.mark.parametrize("name", NEUTRALS)
def test_ders_stand_between_phase_and_neutral(read: Read, name: str) -> None:
    body, bus, neutral = NEUTRALS[name]
    circuit = read(body)
    assert circuit.feeder.buses[bus].neutral == neutral
    assert f"{bus}.{neutral}" not in circuit.node_labels
    assert not floating_buses(circuit.feeder)
    phases = circuit.feeder.buses[bus].phases
    circuit.place_ders([Der("pv", "pv", bus, phases[:1], 12.0, 12.0)])
    circuit.place_ders([Der("all", "pv", bus, phases, 12.0, 12.0)])
    circuit.set_ders([6.0, 9.0], [1.0, -2.0])
    circuit.solve()
    kv = 0.23 if len(phases) == 1 else 0.4
    nodes = ".".join(map(str, phases))
    alone = Alone(
        f"{body}new load.pv bus1={bus}.{phases[0]}.{neutral} phases=1 kv=.23 kw=-6 kvar=-1\n"
        f"new load.all bus1={bus}.{nodes}.{neutral} phases={len(phases)} kv={kv} kw=-9 kvar=2\n"
    )
    check(circuit, alone)
    of_bus = [x for x in circuit.node_labels if x.startswith(f"{bus}.")]
    star = alone.volts[f"{bus}.{neutral}"]
    expected = [abs(alone.volts[x] - star) / 400.0 * 3**0.5 for x in of_bus]
    found = dict(zip(circuit.node_labels, circuit.v_ln_pu(), strict=True))
    np.testing.assert_allclose([found[x] for x in of_bus], expected, atol=2e-5)
    assert abs(star) > 0.1  # volts: the neutral moves, so the two kinds of voltage differ
    LinDistFlow.from_feeder(circuit.feeder, around="nominal")


def test_a_star_point_without_a_conductor_is_no_neutral(read: Read) -> None:
    body = (
        "new transformer.t phases=3 windings=2 buses=(src lv.1.2.3.4) conns=(delta wye) "
        f"kvs=(12.47 .4) kvas=(250 250) xhl=4 %rs=(1 1)\nnew line.l bus1=lv bus2=h {Z3} length=.1\n"
        "new load.x bus1=h.1.2.3 conn=delta kv=.4 kw=10\n"
    )
    feeder = read(body).feeder
    assert {bus.neutral for bus in feeder.buses.values()} == {0}
    assert {"lv", "h"} <= floating_buses(feeder)


def test_centre_tapped_secondary_has_no_neutral_conductor(read: Read) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=a {Z3}\nnew transformer.c phases=1 windings=3 "
        "buses=(a.3.0 s.1.0 s.0.2) kvs=(7.2 .12 .12) kvas=(25 25 25) xhl=2 xht=2 xlt=1\n"
        "new load.x bus1=s.1.2 phases=1 kv=.24 kw=5\nnew load.y bus1=s.2 phases=1 kv=.12 kw=2\n"
    )
    bus = circuit.feeder.buses["s"]
    assert (bus.phases, bus.neutral, bus.base_fit) == ((1, 2), 0, 1.0)
    np.testing.assert_array_equal(circuit.v_ln_pu(), circuit.v_pu())
    model = LinDistFlow.from_feeder(circuit.feeder)
    assert model.node_phase[[model.index["s.1"], model.index["s.2"]]].tolist() == [3, 3]


DEAD = {
    "fuse": (
        f"new line.f1 bus1=a.1 bus2=z.1 phases=1 {Z1}\n"
        f"new line.f2 bus1=a.2 bus2=z.2 phases=1 {Z1} enabled=no\n",
        "new load.on bus1=z.1 phases=1 kv=7.2 kw=80\nnew load.off bus1=z.2 phases=1 kv=7.2 kw=60\n",
    ),
    "one open conductor": (
        f"new line.s bus1=a bus2=z {Z3}\nopen line.s 1 2\n",
        "new load.on bus1=z.3 phases=1 kv=7.2 kw=80\nnew load.off bus1=z.2 phases=1 kv=7.2 kw=60\n",
    ),
    "a dead lateral": (
        f"new line.s bus1=a bus2=y {Z3}\nnew line.r bus1=y bus2=z {Z3}\nopen line.s 1 2\n",
        "new load.on bus1=z.1 phases=1 kv=7.2 kw=80\nnew load.off bus1=z.2 phases=1 kv=7.2 kw=60\n",
    ),
}


@pytest.mark.parametrize("name", DEAD)
def test_ders_by_rule_stand_on_live_phases_only(read: Read, name: str) -> None:
    body = f"new line.l bus1=src bus2=a {Z3}\n" + "".join(DEAD[name])
    circuit = read(body)
    assert circuit.load_names == ("on", "off")
    assert [load.name for load in circuit.feeder.other_loads] == ["off"]
    for at in ("load_phases", "load_buses", "every_bus", ["z"]):
        ders = place(circuit.feeder, DerRule(kind="pv", at=at, total_kw=30.0))  # type: ignore[arg-type]
        assert ders
        assert not any("z.2" in der.labels for der in ders)
    circuit.place_ders(place(circuit.feeder, DerRule(kind="pv", at="load_phases", total_kw=30.0)))
    circuit.set_ders([30.0], [0.0])
    circuit.solve()
    live = "z.3" if "z.3 " in body else "z.1"
    check(circuit, Alone(f"{body}new load.pv bus1={live} phases=1 kv=7.2 kw=-30 kvar=0\n"))
    loads, phases = circuit.feeder.notes[:2]
    assert loads == "1 of 2 loads, 60 of 140 kW, without voltage: off at bus z"
    assert "z.2" in phases
    assert "no DER is placed there" in phases
    LinDistFlow.from_feeder(circuit.feeder)


def test_an_induced_voltage_is_no_voltage(read: Read) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=a {Z3}\nnew line.s bus1=a bus2=y {Z3}\n"
        f"new line.r bus1=y bus2=z {Z3}\nopen line.s 1 2\n"
        "new load.on bus1=z.1 phases=1 kv=7.2 kw=80\n"
    )
    dss = circuit._engine.dss
    labels, v_pu = dss.Circuit.AllNodeNames(), dss.Circuit.AllBusMagPu()
    assert dict(zip(labels, v_pu, strict=True))["z.2"] == pytest.approx(0.22, abs=0.01)
    assert circuit.feeder.buses["z"].phases == (1, 3)
    (note,) = circuit.feeder.notes
    assert note.startswith("2 phases without voltage at buses that have others: y.2, z.2")


@pytest.mark.parametrize(
    "load", ["bus1=z.1.2 phases=1 conn=delta kv=12.47", "bus1=z phases=3 conn=delta kv=12.47"]
)
def test_a_phase_that_only_a_load_feeds_is_dead(read: Read, load: str) -> None:
    body = f"new line.l bus1=src bus2=a {Z3}\nnew line.s bus1=a bus2=z {Z3}\nopen line.s 1 2\n"
    circuit = read(f"{body}new load.on bus1=z.3 phases=1 kv=7.2 kw=80\nnew load.x {load} kw=90\n")
    dss = circuit._engine.dss
    volts = dict(zip(dss.Circuit.AllNodeNames(), dss.Circuit.AllBusMagPu(), strict=True))
    assert volts["z.2"] > 0.3
    assert circuit.feeder.buses["z"].phases == (1, 3)
    ders = place(circuit.feeder, DerRule(kind="pv", at="load_phases", total_kw=30.0))
    assert all(der.phases in ((1,), (3,)) for der in ders)


def test_an_open_transformer_terminal_leaves_its_secondary_dead(read: Read) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=a {Z3}\nnew transformer.t phases=3 windings=2 buses=(a lv) "
        "conns=(wye wye) kvs=(12.47 .4) kvas=(250 250) xhl=4\nopen transformer.t 1 1\n"
        "open transformer.t 1 2\nopen transformer.t 1 3\nnew load.x bus1=lv kv=.4 kw=90\n"
    )
    assert "lv" not in circuit.feeder.buses
    assert circuit.feeder.notes[0].startswith("1 of 1 load, 90 of 90 kW, without voltage: x at")


def test_shunts_of_one_terminal_are_no_conductors(read: Read) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=a {Z3}\nnew line.s bus1=a bus2=z {Z3}\nopen line.s 1 2\n"
        "new reactor.r bus1=z conn=delta kv=12.47 kvar=30\n"
        "new capacitor.c bus1=z conn=delta kv=12.47 kvar=60\n"
        "new load.on bus1=z.3 phases=1 kv=7.2 kw=80\n"
    )
    assert circuit.feeder.buses["z"].phases == (1, 3)


def test_a_load_across_a_dead_phase_is_in_the_circuit_only(read: Read) -> None:
    body = f"new line.l bus1=src bus2=a {Z3}\nnew line.f bus1=a.1 bus2=z.1 phases=1 {Z1}\n"
    body += "new load.x bus1=z.1.2 phases=1 kv=12.47 kw=90 model=2\n"
    body += "new load.y bus1=z.2 phases=1 kv=7.2 kw=9000 model=2\n"
    circuit = read(body)
    assert [load.name for load in circuit.feeder.other_loads] == ["x", "y"]
    assert circuit.load_kw.tolist() == [90.0, 9000.0]


def test_what_has_no_voltage_is_named(read: Read) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=mill {Z3}\nnew line.m bus1=mil bus2=farm {Z3}\n"
        f"new line.off bus1=mill bus2=shed {Z3} enabled=no\n"
        "new load.x bus1=mill kv=12.47 kw=300\nnew load.y bus1=farms kv=12.47 kw=200\n"
        "new load.off bus1=gone kv=12.47 kw=99 enabled=no\n"
    )
    loads, buses, lines = circuit.feeder.notes
    assert loads == "1 of 2 loads, 200 of 500 kW, without voltage: y at bus farms"
    assert buses == "3 buses without voltage: mil, farm, farms"
    assert lines == "1 line without voltage: m"
    assert circuit.load_names == ("x", "y")


def test_many_names_are_cut_short_and_a_lonely_bus_gets_a_hint(read: Read) -> None:
    rows = "".join(f"new load.x{i} bus1=milk{i} kv=12.47 kw=10\n" for i in range(9))
    circuit = read(
        f"new line.l bus1=src bus2=mill {Z3}\nnew load.x bus1=mill kv=12.47 kw=10\n{rows}"
    )
    loads, buses = circuit.feeder.notes
    assert loads.startswith("9 of 10 loads, 90 of 100 kW, without voltage: x0 at bus milk0 (did")
    assert "did you mean 'mill'?" in buses
    assert buses.endswith("and 4 more")


BASE_OFF = {
    # Name: bases of the file; voltage of the bus over the one that it gets.
    "too low": ("\nset voltagebases=[12.47 .24]\ncalcvoltagebases\n", 1.73),
    "too high": ("\nset voltagebases=[12.47 .72]\ncalcvoltagebases\n", 0.577),
}


@pytest.mark.parametrize("name", BASE_OFF)
@pytest.mark.parametrize("p_kw", [-6.0, 14.0])
def test_what_a_der_is_told_is_injected_whatever_the_base(
    read: Read, name: str, p_kw: float
) -> None:
    bases, fit = BASE_OFF[name]
    body = (
        f"new line.l bus1=src.2 bus2=e.2 phases=1 {Z1}\n"
        "new transformer.c phases=1 windings=2 buses=(e.2.0 lv.1.0) kvs=(7.2 .24) kvas=(25 25) "
        "xhl=4 %rs=(.7 .7)\nnew load.h bus1=lv.1 phases=1 kv=.24 kw=10 pf=.95\n"
    )
    circuit = read(body, bases)
    (note,) = circuit.feeder.notes
    assert note.startswith("the voltage base of 1 bus does not fit")
    assert "lv (" in note
    assert circuit.feeder.buses["lv"].base_fit == pytest.approx(fit, rel=0.03)
    circuit.place_ders([Der("pv", "pv", "lv", (1,), 20.0, 20.0)])
    circuit.set_ders([p_kw], [3.0])
    circuit.solve()
    dss = circuit._engine.dss
    dss.Circuit.SetActiveElement("load.feederate_der_0")
    power = as_complex(dss.CktElement.TotalPowers())[0]
    assert -power.real == pytest.approx(p_kw, rel=1e-4)
    assert -power.imag == pytest.approx(3.0, rel=1e-4)
    check(
        circuit,
        Alone(f"{body}new load.d bus1=lv.1 phases=1 kv=.24 kw={-p_kw} kvar=-3\n", 1.0, bases),
    )


@pytest.mark.parametrize("source_v_pu", [0.62, 1.45])
def test_ders_keep_their_power_at_any_voltage_that_a_grid_has(
    read: Read, source_v_pu: float
) -> None:
    circuit = read(f"new line.l bus1=src bus2=a {Z3}\nnew load.x bus1=a kv=12.47 kw=99 model=2\n")
    circuit.place_ders([Der("pv", "pv", "a", (1, 2, 3), 99.0, 99.0)])
    before = circuit.adjusted(None, source_v_pu).source_kw_kvar()[0]
    circuit.set_ders([80.0], [0.0])
    circuit.solve()
    assert before - circuit.source_kw_kvar()[0] == pytest.approx(80.0, abs=0.5)


def test_an_island_with_ders_has_a_solution(read: Read) -> None:
    circuit = read(
        f"new line.l bus1=src bus2=a {Z3}\nnew line.m bus1=a bus2=b {Z3}\n"
        "new load.x bus1=b kv=12.47 kw=99\n"
    )
    circuit.place_ders([Der("pv", "pv", "b", (1, 2, 3), 300.0, 300.0)])
    circuit.set_ders([250.0], [30.0])
    circuit.set_switch("m", False)
    circuit.solve()
    dead = [x.startswith("b.") for x in circuit.node_labels]
    assert np.abs(circuit.v_pu()[dead]).max() < 0.5


def test_a_der_on_a_dead_phase_is_refused(read: Read) -> None:
    body = f"new line.l bus1=src bus2=a {Z3}\n" + "".join(DEAD["fuse"])
    circuit = read(body)
    with pytest.raises(GridModelError, match=r"z.*phases \(2,\)"):
        circuit.place_ders([Der("pv", "pv", "z", (2,), 9.0, 9.0)])


def test_ders_of_the_file_are_adopted_on_any_node(read: Read) -> None:
    body = NODES["renamed"] + (
        "new pvsystem.p bus1=b.4.5 phases=2 kv=12.47 kva=60 pmpp=50 irradiance=.8\n"
        "new generator.g bus1=nowhere.1 phases=1 kv=7.2 kw=9\n"
    )
    circuit = read(body, file_ders="ours")
    (der,) = circuit.feeder.ders
    assert (der.name, der.phases) == ("pvsystem_p", (4, 5))
    assert "1 of 2 DERs of the file, without voltage: generator.g" in circuit.feeder.notes
    check(circuit, Alone(body))


def test_a_turned_source_is_set_by_the_phase_that_it_feeds(read: Read) -> None:
    circuit = read(NODES["source turned"])
    before = circuit.v_pu()
    assert circuit.source_phases == (3, 1, 2)
    circuit.set_source([1.0, 1.0, 1.0], [0.0, -120.0, -240.0])
    circuit.solve()
    np.testing.assert_allclose(circuit.v_pu(), before, atol=1e-6)
    circuit.set_source([1.02, np.nan, np.nan], [np.nan] * 3)
    circuit.solve()
    change = dict(zip(circuit.node_labels, circuit.v_pu() - before, strict=True))
    assert change["src.3"] == pytest.approx(0.02, abs=1e-4)
    assert abs(change["src.1"]) < 1e-4


def test_a_der_on_six_phases_injects_a_sixth_on_each(read: Read) -> None:
    body = NODES["six phases"]
    circuit = read(body)
    circuit.place_ders([Der("x", "pv", "b", (1, 2, 3, 4, 5, 6), 99.0, 99.0)])
    circuit.set_ders([60.0], [6.0])
    circuit.solve()
    rows = "".join(
        f"new load.d{n} bus1=b.{n} phases=1 kv=7.2 kw=-10 kvar=-1\n" for n in range(1, 7)
    )
    check(circuit, Alone(body + rows))
