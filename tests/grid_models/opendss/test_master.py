"""A user's master file: its DERs, controls and time series, against the engine alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grid_models.base.errors import FeederError
from grid_models.feeder.model import Der
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.engine import Engine
from grid_models.opendss.master import open_master

HEAD = """\
clear
new circuit.town basekv=11 bus1=grid pu=1.01 mvasc3=150 mvasc1=120
new linecode.ohl nphases=3 r1=0.25 x1=0.35 r0=0.6 x0=1.1 c1=4 c0=2 units=km
new line.feed bus1=grid bus2=mid linecode=ohl length=3 units=km
new line.tail bus1=mid bus2=end linecode=ohl length=9 units=km
new load.shop bus1=mid kv=11 kw=800 kvar=250
new load.mill bus1=end kv=11 kw=500 kvar=150
"""
TAIL = "set voltagebases=[11 0.4]\ncalcvoltagebases\n"
HOURS = {
    "demand": ".4 .4 .4 .4 .4 .5 .7 .8 .8 .7 .7 .7 .8 .8 .7 .7 .8 1 1 1 .9 .7 .6 .5",
    "sky": "0 0 0 0 0 .1 .2 .4 .6 .8 .9 1 1 .9 .8 .6 .4 .2 .1 0 0 0 0 0",
    "plan": "-1 -1 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 0",
}
SHAPES = (
    "".join(
        f"new loadshape.{name} npts=24 interval=1 mult=({mult})\n" for name, mult in HOURS.items()
    )
    + "new xycurve.vv npts=4 xarray=(0.5 0.97 1.01 1.5) yarray=(.3 .3 -.3 -.3)\n"
)
PV = "new pvsystem.roof bus1=end kv=11 kva=1000 pmpp=900 irradiance=1 wattpriority=no"
CONTROL = "new invcontrol.ic mode=voltvar voltage_curvex_ref=rated vvc_curve1=vv\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(body: str, tail: str = TAIL) -> Path:
        path = tmp_path / "master.dss"
        path.write_text(HEAD + body + tail)
        return path

    return _write


def import_kw(circuit: Circuit) -> float:
    return circuit.source_kw_kvar()[0]


def test_pv_with_a_load_shape_follows_the_sun_that_is_set(write: Write) -> None:
    circuit = open_master(write(SHAPES + PV + " daily=sky\n"))
    found = []
    for sun in (0.0, 0.5, 1.0):
        circuit.set_sun(sun)
        circuit.solve()
        found.append(import_kw(circuit) - circuit.losses_kw())
    assert found == pytest.approx([1300.0, 1300.0 - 450.0, 1300.0 - 900.0], abs=0.01)


def test_pv_without_a_load_shape_is_constant_and_said_to_be(write: Write) -> None:
    circuit = open_master(write(PV + "\n"))
    circuit.set_sun(0.0)
    circuit.solve()
    assert import_kw(circuit) - circuit.losses_kw() == pytest.approx(400.0, abs=0.01)
    (note,) = circuit.feeder.notes
    assert "1 of 1 PVSystems have no load shape (roof)" in note


def test_storage_stops_at_its_reserve(write: Write) -> None:
    body = (
        "new storage.bank bus1=mid kv=11 kwrated=300 kwhrated=100 %stored=60 %reserve=20 "
        "%effdischarge=100 %effcharge=100 %idlingkw=0 state=discharging kw=300\n"
    )
    circuit = open_master(write(body), step_s=60.0)
    imports = []
    for minute in range(12):
        circuit.set_time(60.0 * minute)
        circuit.solve()
        imports.append(import_kw(circuit) - circuit.losses_kw())
    # 40 kWh above the reserve at 300 kW: 8 minutes; OpenDSS stops one step after it is below.
    assert imports[:8] == pytest.approx([1000.0] * 8, abs=0.1)
    assert imports[9:] == pytest.approx([1300.0] * 3, abs=0.1)


def test_solving_twice_at_one_time_discharges_once(write: Write) -> None:
    body = "new storage.bank bus1=mid kv=11 kwrated=300 kwhrated=100 state=discharging kw=300\n"
    circuit = open_master(write(body))
    for minute in range(3):
        circuit.set_time(60.0 * minute)
        for _ in range(3):
            circuit.solve()
    stored = float(circuit._engine.command("? storage.bank.kwhstored"))
    once = open_master(write(body))
    for minute in range(3):
        once.set_time(60.0 * minute)
        once.solve()
    assert stored == pytest.approx(float(once._engine.command("? storage.bank.kwhstored")))
    assert stored < 100.0


def test_volt_var_control_of_the_file_acts_with_held_taps(write: Write) -> None:
    path = write(SHAPES + PV + " daily=sky\n" + CONTROL)
    voltages = {}
    for regulators in ("auto", "fixed"):
        circuit = open_master(path, regulators=regulators)  # type: ignore[arg-type]
        circuit.set_loads(0.3 * circuit.load_kw, 0.3 * circuit.load_kvar)
        circuit.set_sun(1.0)
        circuit.solve()
        voltages[regulators] = circuit.v_pu().max()
    without = open_master(write(SHAPES + PV + " daily=sky\n"))
    without.set_loads(0.3 * without.load_kw, 0.3 * without.load_kvar)
    without.set_sun(1.0)
    without.solve()
    assert voltages["fixed"] == pytest.approx(voltages["auto"], abs=1e-3)
    assert voltages["fixed"] < without.v_pu().max() - 0.004


def test_adopted_ders_bring_rating_and_curve(write: Write) -> None:
    body = (
        SHAPES
        + PV
        + " daily=sky\nnew generator.chp bus1=mid kv=11 kw=100 kvar=0 daily=plan\n"
        + CONTROL
        + "new expcontrol.e derlist=(pvsystem.roof)\n"
    )
    circuit = open_master(write(body), file_ders="ours")
    pv, chp = circuit.feeder.ders
    assert (pv.name, pv.kva, pv.p_max_kw) == ("pvsystem_roof", 1000.0, 900.0)
    assert pv.volt_var is not None
    assert pv.volt_var.q_pu == (0.3, 0.3, -0.3, -0.3)
    assert not pv.volt_var.of_rating
    assert chp.volt_var is None
    notes = " ".join(circuit.feeder.notes)
    assert "expcontrol.e" in notes
    assert "1 generator or storage elements" in notes
    circuit.set_ders([0.0, 0.0], [0.0, 0.0])
    circuit.solve()
    assert import_kw(circuit) - circuit.losses_kw() == pytest.approx(1300.0, abs=0.01)


def test_ders_out_of_service_are_named(write: Write) -> None:
    circuit = open_master(write(PV + "\n"), file_ders="none")
    assert import_kw(circuit) - circuit.losses_kw() == pytest.approx(1300.0, abs=0.01)
    assert circuit.feeder.notes == ("1 DERs of the file are out of service (pvsystem.roof)",)


def test_fixed_loads_and_load_shapes_are_told(write: Write) -> None:
    body = SHAPES + "edit load.shop status=fixed\nedit load.mill daily=demand\n"
    circuit = open_master(write(body))
    assert [load.fixed for load in circuit.feeder.loads] == [True, False]
    assert "1 of 2 loads have load shapes" in circuit.feeder.notes[0]
    # Set powers are what is drawn, whatever the shape says at this time.
    circuit.set_time(3600.0)
    circuit.solve()
    assert import_kw(circuit) - circuit.losses_kw() == pytest.approx(1300.0, abs=0.01)


def test_load_shapes_are_asked_for_but_there_are_none(write: Write) -> None:
    with pytest.raises(FeederError, match="no load shapes"):
        open_master(write(""), load_shapes=True)


def test_taps_settle_before_they_are_held_whatever_the_control_mode(write: Write) -> None:
    body = (
        "new transformer.reg buses=(end far) conns=(wye wye) kvs=(11 11) kvas=(4000 4000) "
        "xhl=0.01 %loadloss=0.0001\n"
        "new regcontrol.rc transformer=reg winding=2 vreg=122 band=2 ptratio=52.92 delay=30\n"
        "new load.last bus1=far kv=11 kw=400 kvar=150\n"
    )
    taps = []
    for mode in ("static", "time", "event"):
        path = write(body, TAIL + f"set mode=daily controlmode={mode} stepsize=1m\nsolve\n")
        circuit = open_master(path, regulators="fixed")
        taps.append(circuit.tap_steps()["reg"])
        circuit.set_loads(2.0 * circuit.load_kw, 2.0 * circuit.load_kvar)
        circuit.solve()
        assert circuit.tap_steps()["reg"] == taps[-1]
    assert taps[0] > 0
    assert taps == [taps[0]] * 3


def test_controls_that_hunt_do_not_end_the_later_steps(write: Write) -> None:
    # A bank that lifts the voltage by more than the range in which it stays on.
    body = (
        "new capacitor.bank bus1=end kv=11 kvar=1500 phases=3\n"
        "new capcontrol.cc capacitor=bank element=line.tail terminal=2 type=voltage ptratio=52.92 "
        "onsetting=119.5 offsetting=120 delay=0 delayoff=0 deadtime=0\n"
    )
    circuit = open_master(write(body))
    settled = []
    for k, factor in enumerate((0.0, 1.0, 1.0, 2.0)):
        circuit.set_time(60.0 * k)
        circuit.set_loads(factor * circuit.load_kw, factor * circuit.load_kvar)
        circuit.solve()
        settled.append(circuit.controls_settled)
    assert not all(settled)


def alone(path: Path, step_s: float, steps: int) -> np.ndarray:
    """Node voltages of the engine by itself: compile, widen the loads, solve step by step."""
    engine = Engine()
    engine.command(f'compile "{path}"')
    for load in engine.dss.Loads:
        load.Vminpu(0.7)
        load.Vmaxpu(1.3)
    engine.command("set tolerance=1e-6 maxiterations=100 maxcontroliter=100")
    engine.command(f"set mode=daily number=1 stepsize={step_s}s")
    # The first solution is at hour 0.
    engine.command(f"set hour=-1 sec={3600.0 - step_s}")
    voltages = []
    for _ in range(steps):
        engine.dss.Solution.Solve()
        voltages.append(np.array(engine.dss.Circuit.AllBusMagPu()))
    return np.array(voltages)


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "set maxcontroliter=100\nsolve\n",
        "set controlmode=time\n",
        "set controlmode=time\nsolve\n",
        # The file's own series, of no steps here: no snapshot.
        "set mode=daily number=0\nsolve\n",
        "set maxcontroliter=100\nsolve\nset controlmode=time\nset mode=daily number=0\nsolve\n",
    ],
)
def test_a_day_of_the_file_is_that_of_the_engine_alone(write: Write, tail: str) -> None:
    body = (
        SHAPES
        + "edit load.shop daily=demand\nedit load.mill daily=demand\n"
        + PV
        + " daily=sky\n"
        + CONTROL
        + "new storage.bank bus1=mid kv=11 kwrated=100 kwhrated=300 dispmode=follow daily=plan\n"
        "new transformer.reg buses=(end far) conns=(wye wye) kvs=(11 11) kvas=(4000 4000) "
        "xhl=0.01 %loadloss=0.0001\n"
        "new regcontrol.rc transformer=reg winding=2 vreg=122 band=2 ptratio=52.92 delay=30\n"
        "new load.last bus1=far kv=11 kw=400 kvar=150 daily=demand\n"
        "new capacitor.bank bus1=end kv=11 kvar=300\n"
        "new capcontrol.cc capacitor=bank element=line.tail terminal=1 type=kvar onsetting=150 "
        "offsetting=-150\n"
    )
    path = write(body, TAIL + tail)
    expected = alone(path, 900.0, 96)
    circuit = open_master(path, load_shapes=True, step_s=900.0)
    found, taps = [], []
    for step in range(96):
        circuit.set_time(900.0 * step)
        circuit.solve()
        found.append(circuit._engine.dss.Circuit.AllBusMagPu())
        taps.append(circuit.tap_steps()["reg"])
    np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=1e-9)
    assert len(set(taps)) > 1


def test_means_of_the_load_shapes(write: Write) -> None:
    body = SHAPES + "edit load.mill daily=demand\n" + PV + " daily=sky\n"
    circuit = open_master(write(body), load_shapes=True)
    means = circuit.mean_shapes([0.0, 12 * 3600.0, 18 * 3600.0])
    # Hour 0 is the shape's last point, hour 12 its twelfth; the shop has no shape.
    mill = np.array([0.5, 0.7, 1.0])
    assert means["load_pu"] == pytest.approx((800.0 + 500.0 * mill) / 1300.0)
    assert means["irradiance_pu"] == pytest.approx([0.0, 1.0, 0.2])


def test_controls_that_the_file_switches_off_leave_its_taps(write: Write) -> None:
    body = (
        "new transformer.reg buses=(end far) conns=(wye wye) kvs=(11 11) kvas=(4000 4000) "
        "xhl=0.01 %loadloss=0.0001\n"
        "new regcontrol.rc transformer=reg winding=2 vreg=122 band=2 ptratio=52.92\n"
        "new load.last bus1=far kv=11 kw=400 kvar=150\n"
        "edit transformer.reg wdg=2 tap=1.0125\n"
    )
    circuit = open_master(write(body, TAIL + "set controlmode=off\nsolve\n"))
    assert circuit.tap_steps() == {"reg": 2}
    circuit.set_time(60.0)
    circuit.solve()
    assert circuit.tap_steps() == {"reg": 2}


def test_a_source_without_voltage_is_named(write: Write) -> None:
    with pytest.raises(FeederError, match="bus 'grid' has no voltage"):
        open_master(write("edit vsource.source pu=0\n"))


@pytest.mark.parametrize(("rows", "n_phases"), [("makeposseq\n", 1), ("set cktmodel=pos\n", 3)])
def test_powers_of_a_positive_sequence_circuit_count_once(
    write: Write, rows: str, n_phases: int
) -> None:
    text = (
        "clear\nnew circuit.one basekv=11 bus1=s\nnew line.l bus1=s bus2=e r1=0.4 x1=0.6\n"
        "new load.e bus1=e kv=11 kw=600 kvar=90\nnew generator.g bus1=e kv=11 kw=60 kvar=9\n"
        "set voltagebases=[11]\ncalcvoltagebases\n"
    )
    circuit = open_master(write(text + rows), file_ders="ours")
    part = n_phases / 3
    assert circuit.load_kw == pytest.approx([600 * part])
    (p_kw, _), losses_kw = circuit.source_kw_kvar(), circuit.losses_kw()
    assert p_kw == pytest.approx(540 * part + losses_kw, abs=1e-3)
    assert losses_kw > 0
    assert sum("count once" in note for note in circuit.feeder.notes) == 1


def test_a_der_stands_at_a_bus_with_a_blank_in_its_name(write: Write) -> None:
    text = (
        'clear\nnew circuit.one basekv=11 bus1=s\nnew line.l bus1=s bus2="e 7" r1=0.4 x1=0.6\n'
        'new load.e bus1="e 7" kv=11 kw=600 kvar=90\nset voltagebases=[11]\ncalcvoltagebases\n'
    )
    circuit = open_master(write(text))
    circuit.place_ders([Der("pv", "pv", "e 7", (2,), 300.0, 200.0)])
    circuit.set_ders([200.0], [0.0])
    circuit.solve()
    assert circuit.source_kw_kvar()[0] == pytest.approx(400 + circuit.losses_kw(), abs=1e-3)


@pytest.mark.parametrize(
    ("row", "loads", "said"),
    [
        ("open load.e 1", ("f",), "loads with all conductors open are out of service (1): e"),
        ("open load.e 1 2", ("e", "f"), "counts as if they were closed (1): e"),
    ],
)
def test_loads_with_open_conductors_are_said(
    write: Write, row: str, loads: tuple[str, ...], said: str
) -> None:
    text = (
        "clear\nnew circuit.one basekv=11 bus1=s\nnew line.l bus1=s bus2=e r1=0.4 x1=0.6\n"
        "new load.e bus1=e kv=11 kw=600 kvar=90\nnew load.f bus1=e kv=11 kw=60 kvar=9\n"
        "set voltagebases=[11]\ncalcvoltagebases\nsolve\n"
    )
    circuit = open_master(write(text + row + "\n"))
    assert circuit.load_names == loads
    assert any(said in note for note in circuit.feeder.notes)
    p_kw = circuit.source_kw_kvar()[0] - circuit.losses_kw()
    if loads == ("f",):
        assert p_kw == pytest.approx(60.0, abs=1e-3)
    else:
        assert p_kw < 600.0
