import csv
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grid_models.base.errors import FeederError, GridModelError, PowerFlowError
from grid_models.catalog import load_feeder, open_circuit, shipped_folder
from grid_models.feeder.model import Der, Feeder
from grid_models.opendss import engine
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.master import open_master

DATA = Path(__file__).parents[1] / "data"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def published(name: str) -> dict[str, complex]:
    """Published voltages by node label (IEEE result sheets), per unit."""
    table = rows(DATA / name / "reference_ieee_voltages.csv")
    return {
        f"{r['bus']}.{'ABC'.index(r['phase']) + 1}": float(r["vmag_pu"])
        * np.exp(1j * np.radians(float(r["vangle_deg"])))
        for r in table
    }


def some_ders(feeder: Feeder) -> list[Der]:
    loads = [load for load in feeder.loads if load.connection == "wye"]
    return [Der(f"pv_{x.name}", "pv", x.bus, x.phases, 60.0, 50.0) for x in loads]


# ------------------------------------------------------------ against the published solutions


@pytest.mark.parametrize(("name", "tolerance_pu"), [("ieee13", 0.0002), ("ieee123", 0.0005)])
def test_published_voltages_are_met_at_published_taps(name: str, tolerance_pu: float) -> None:
    # Origin: IEEE PES result sheets. Bus 610 is delta: its own test below.
    circuit = open_circuit(name)
    ours = dict(zip(circuit.node_labels, circuit.v_pu(), strict=True))
    theirs = {k: abs(v) for k, v in published(name).items() if not k.startswith("610.")}
    assert len(theirs) == {"ieee13": 35, "ieee123": 271}[name]
    worst = max(abs(ours[label] - v) for label, v in theirs.items())
    assert worst < tolerance_pu


def test_delta_bus_610_is_met_line_to_line() -> None:
    circuit = open_circuit("ieee123")
    ours = dict(zip(circuit.node_labels, circuit.v_complex_pu(), strict=True))
    theirs = published("ieee123")
    for a, b in ((1, 2), (2, 3), (3, 1)):
        pair = [abs(v[f"610.{a}"] - v[f"610.{b}"]) / np.sqrt(3.0) for v in (ours, theirs)]
        assert pair[0] == pytest.approx(pair[1], abs=0.0003)


def test_total_input_of_ieee123_is_the_published_one() -> None:
    table = rows(DATA / "ieee123" / "reference_ieee_summary.csv")
    totals = {row["quantity"]: float(row["total"]) for row in table}
    circuit = open_circuit("ieee123")
    p_kw, q_kvar = circuit.source_kw_kvar()
    # 0.1 % of the total input, as apparent power for the reactive part.
    limit = 0.001 * abs(complex(totals["input_kw"], totals["input_kvar"]))
    assert p_kw == pytest.approx(totals["input_kw"], rel=0.001)
    assert q_kvar == pytest.approx(totals["input_kvar"], abs=limit)
    assert circuit.losses_kw() == pytest.approx(totals["loss_kw"], rel=0.005)


# ------------------------------------------------------------ laws of the circuit


def test_power_balances() -> None:
    feeder = load_feeder("ieee13")
    circuit = open_circuit(feeder, some_ders(feeder))
    kw = np.zeros(len(circuit.load_names))
    circuit.set_loads(kw, kw)
    p_kw = np.linspace(5.0, 30.0, len(circuit.der_names))
    circuit.set_ders(p_kw, 0.5 * p_kw)
    circuit.solve()
    assert circuit.source_kw_kvar()[0] == pytest.approx(circuit.losses_kw() - p_kw.sum(), abs=0.01)


def test_consumption_and_injection_have_opposite_signs() -> None:
    feeder = load_feeder("ieee123")
    circuit = open_circuit(feeder, some_ders(feeder))
    n = len(circuit.der_names)
    before, import_before = circuit.v_pu(), circuit.source_kw_kvar()
    circuit.set_ders(np.full(n, 5.0), np.full(n, 5.0))
    circuit.solve()
    assert circuit.v_pu().mean() > before.mean()
    p_kw, q_kvar = circuit.source_kw_kvar()
    assert p_kw < import_before[0]
    assert q_kvar < import_before[1]
    circuit.set_ders(np.zeros(n), np.zeros(n))
    circuit.set_loads(1.2 * circuit.load_kw, 1.2 * circuit.load_kvar)
    circuit.solve()
    assert circuit.v_pu().mean() < before.mean()


def test_kvar_that_does_not_change_stays_when_kw_does() -> None:
    feeder = load_feeder("ieee13")
    alike, apart = (open_circuit(feeder, some_ders(feeder)) for _ in range(2))
    n, n_loads = len(alike.der_names), len(alike.load_names)
    alike.set_ders(np.zeros(n), np.zeros(n))
    alike.set_loads(np.zeros(n_loads), np.ones(n_loads))
    for circuit in (alike, apart):
        circuit.set_ders(np.full(n, 9.0), np.zeros(n))
        circuit.set_loads(np.full(n_loads, 20.0), np.ones(n_loads))
        circuit.solve()
    assert alike.source_kw_kvar() == pytest.approx(apart.source_kw_kvar(), abs=1e-3)


def test_multi_phase_der_is_equal_single_phase_ones() -> None:
    three = [Der("a", "pv", "48", (1, 2, 3), 100.0, 90.0)]
    single = [Der(f"a{p}", "pv", "48", (p,), 40.0, 30.0) for p in (1, 2, 3)]
    volts = []
    for ders, p_kw in ((three, [90.0]), (single, [30.0] * 3)):
        circuit = open_circuit("ieee123", ders)
        circuit.set_ders(p_kw, [0.3 * p for p in p_kw])
        circuit.solve()
        volts.append(circuit.v_pu())
    # Two connections of one injection; both solved to 1e-6 pu.
    np.testing.assert_allclose(volts[0], volts[1], atol=5e-6)


def test_result_depends_on_history_only_below_the_tolerance() -> None:
    a, b = open_circuit("ieee123"), open_circuit("ieee123")
    for scale in (0.3, 1.4, 0.8):
        b.set_loads(scale * b.load_kw, scale * b.load_kvar)
        b.solve()
    a.set_loads(0.8 * a.load_kw, 0.8 * a.load_kvar)
    a.solve()
    np.testing.assert_allclose(a.v_pu(), b.v_pu(), atol=1e-5)


# ------------------------------------------------------------ isolation and determinism


def trajectory(name: str) -> bytes:
    circuit = open_circuit(name)
    out = b""
    for step in range(40):
        scale = 1.0 + 0.3 * np.sin(0.7 * step)
        circuit.set_loads(scale * circuit.load_kw, scale * circuit.load_kvar)
        circuit.solve()
        out += circuit.v_pu().tobytes()
        out += np.array([*circuit.source_kw_kvar(), circuit.losses_kw()]).tobytes()
    return out


def test_circuits_in_threads_and_processes_give_the_same_bytes() -> None:
    alone = {name: trajectory(name) for name in ("ieee13", "ieee123")}
    results: dict[int, bytes] = {}

    def work(i: int) -> None:
        results[i] = trajectory("ieee13" if i % 2 else "ieee123")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert results[i] == alone["ieee13" if i % 2 else "ieee123"]
    code = (
        "import importlib.util as u, sys, hashlib\n"
        f"spec = u.spec_from_file_location('t', {__file__!r})\n"
        "t = u.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "sys.stdout.write(t.trajectory('ieee123').hex())"
    )
    root = str(Path(__file__).parents[3])
    child = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, timeout=600, cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert bytes.fromhex(child.stdout) == alone["ieee123"]


def test_two_circuits_do_not_disturb_each_other() -> None:
    a, b = open_circuit("ieee13"), open_circuit("ieee13")
    before = a.v_pu()
    b.set_loads(0.0 * b.load_kw, 0.0 * b.load_kvar)
    b.solve()
    a.solve()
    np.testing.assert_allclose(a.v_pu(), before, atol=1e-6)
    assert b.v_pu().min() > before.min()


def test_a_circuit_that_is_dropped_lets_go_of_its_engine_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The engine's Python layers would keep every context: 2.5 MB for each circuit of a sweep.
    # Only new contexts: objects of other tests may still hold one that has served before.
    monkeypatch.setattr(engine, "_idle", [])
    ended: list[object] = []
    dispose = engine._dispose
    monkeypatch.setattr(engine, "_dispose", lambda dss: (ended.append(id(dss)), dispose(dss)))
    circuits = [open_circuit("ieee13") for _ in range(4)]
    contexts = [weakref.ref(circuit.engine.ctx) for circuit in circuits]
    assert None not in [context() for context in contexts]
    circuits.clear()
    gc.collect()
    assert len(ended) == 4 - engine._MOST_IDLE
    kept = [context() for context in contexts if context() is not None]
    assert len(kept) == engine._MOST_IDLE


THREADS = """
import gc, threading
from grid_models.opendss.engine import Engine

def work():
    for k in range(25):
        engine = Engine(own=k % 2 == 0)
        for command in ("clear", "new circuit.c", "new line.l bus1=sourcebus bus2=b", "solve"):
            engine.command(command)
        del engine
        gc.collect()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_circuits_come_and_go_in_several_threads() -> None:
    """In a process of its own: it was ended by a segmentation fault, in ten of ten tries."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_context_is_used_again_without_what_was_set_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_idle", [])
    new = open_circuit("ieee13", regulators="auto")
    new.set_loads(1.1 * new.load_kw, new.load_kvar)
    new.solve()
    before = open_circuit("ieee123", regulators="auto", taps={"rg1": 3}, tolerance_pu=1e-8)
    before.set_loads(0.2 * before.load_kw, 0.0 * before.load_kvar)
    before.solve()
    context = before._engine.ctx
    del before
    gc.collect()
    after = open_circuit("ieee13", regulators="auto")
    assert after._engine.ctx is context
    after.set_loads(1.1 * after.load_kw, after.load_kvar)
    after.solve()
    assert after.v_pu().tobytes() == new.v_pu().tobytes()


def test_the_engine_calls_no_python_in_which_an_interrupt_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dss_python_backend.events import EventCallbackManager

    called: list[object] = []
    monkeypatch.setattr(EventCallbackManager, "handle_event", lambda *args: called.append(args))
    circuit = open_circuit("ieee13")
    circuit.solve()
    circuit._engine.command("clear")
    assert not called


def test_a_context_of_the_users_commands_is_not_used_again(tmp_path: Path) -> None:
    master = tmp_path / "Master.dss"
    master.write_text(
        "set defaultbasefrequency=50\nclear\nnew circuit.c basekv=4.16 bus1=a\n"
        "new line.l bus1=a bus2=b length=1 r1=0.1 x1=0.1\n"
        "new load.d bus1=b kv=4.16 kw=100\nset voltagebases=[4.16]\ncalcvoltagebases\nsolve\n"
    )
    circuit = open_master(master)
    context = weakref.ref(circuit._engine.ctx)
    del circuit
    gc.collect()
    assert context() is None


# ------------------------------------------------------------ taps, source, switching


def test_auto_regulators_move_and_hold_their_band() -> None:
    circuit = open_circuit("ieee13", regulators="auto")
    circuit.set_loads(0.3 * circuit.load_kw, 0.3 * circuit.load_kvar)
    circuit.solve()
    taps = circuit.tap_steps()
    assert set(taps) == {"rg1a", "rg1b", "rg1c"}
    # Less load, less line drop to make up for: the taps come down from 10, 8 and 11.
    assert all(taps[k] < old for k, old in zip(taps, (10, 8, 11), strict=True))
    fixed = open_circuit("ieee13")
    fixed.set_loads(0.3 * fixed.load_kw, 0.3 * fixed.load_kvar)
    fixed.solve()
    assert fixed.tap_steps() == {"rg1a": 10, "rg1b": 8, "rg1c": 11}


def test_taps_and_source_voltage_can_be_given() -> None:
    base = open_circuit("ieee123")
    raised = open_circuit("ieee123", taps={"RG1": 12}, source_v_pu=0.98)
    assert raised.tap_steps()["rg1"] == 12
    at = base.node_labels.index
    assert raised.v_pu()[at("150.1")] == pytest.approx(0.98, abs=1e-4)
    assert raised.v_pu()[at("150r.1")] == pytest.approx(0.98 * (1 + 12 * 0.00625), abs=1e-4)
    with pytest.raises(FeederError, match="did you mean 'rg4b'"):
        open_circuit("ieee123", taps={"rg4bb": 1})
    with pytest.raises(FeederError, match="-16 to 16"):
        open_circuit("ieee123", taps={"rg1": 17})
    with pytest.raises(FeederError, match=r"0\.5 to 1\.5"):
        open_circuit("ieee123", source_v_pu=0.0)


def test_tripping_and_switching() -> None:
    feeder = load_feeder("ieee123")
    circuit = open_circuit(feeder, some_ders(feeder)[:2])
    circuit.set_ders([50.0, 50.0], [0.0, 0.0])
    circuit.solve()
    before, p_before = circuit.v_pu(), circuit.source_kw_kvar()[0]
    circuit.enable(circuit.der_names[0], False)
    circuit.solve()
    assert circuit.source_kw_kvar()[0] == pytest.approx(p_before + 50.0, rel=0.01)
    circuit.enable(circuit.der_names[0], True)
    circuit.solve()
    np.testing.assert_allclose(circuit.v_pu(), before, atol=1e-5)

    at = circuit.node_labels.index
    circuit.set_switch("sw2", False)  # 13-152: everything behind it goes dark
    circuit.solve()
    dark = circuit.v_pu()
    assert dark[at("152.1")] < 0.01
    assert dark[at("13.1")] > 0.9
    assert circuit.node_labels == feeder.node_labels
    circuit.set_switch("sw2", True)
    circuit.solve()
    np.testing.assert_allclose(circuit.v_pu(), before, atol=1e-5)

    circuit.enable("load_65a", False)
    circuit.solve()
    assert circuit.v_pu()[at("65.1")] != pytest.approx(before[at("65.1")], abs=1e-6)
    with pytest.raises(FeederError, match="did you mean 'load_65a'"):
        circuit.enable("load_65aa", True)


def test_tie_switch_can_take_over() -> None:
    circuit = open_circuit("ieee123")
    circuit.set_switch("sw4", False)  # 60-160
    circuit.set_switch("sw7", True)  # 151-300
    circuit.solve()
    v = dict(zip(circuit.node_labels, circuit.v_pu(), strict=True))
    assert v["160.1"] > 0.8
    assert v["300.1"] == pytest.approx(v["151.1"], abs=1e-3)


def test_der_on_a_delta_zone_sits_between_phases() -> None:
    # Bus 610 is behind a delta-delta transformer: phase-to-ground power would leave its voltages
    # without a solution worth the name.
    circuit = open_circuit("ieee123", [Der("pv", "pv", "610", (1,), 30.0, 25.0)])
    before = circuit.source_kw_kvar()[0]
    circuit.set_ders([25.0], [0.0])
    circuit.solve()
    assert circuit.source_kw_kvar()[0] == pytest.approx(before - 25.0, abs=2.0)
    v = dict(zip(circuit.node_labels, circuit.v_pu(), strict=True))
    assert all(0.9 < v[f"610.{p}"] < 1.1 for p in (1, 2, 3))


# ------------------------------------------------------------ bad use


def test_wrong_arrays_are_refused() -> None:
    circuit = open_circuit("ieee13", [Der("pv", "pv", "671", (1, 2, 3), 30.0, 25.0)])
    with pytest.raises(
        GridModelError, match=r"circuit 'ieee13': kW has shape \(3,\); expected \(1,\)"
    ):
        circuit.set_ders(np.zeros(3), np.zeros(1))
    with pytest.raises(GridModelError, match="not finite"):
        circuit.set_ders([np.nan], [0.0])


def test_no_convergence_is_an_error_that_names_the_circuit() -> None:
    circuit = open_circuit("ieee13", [Der("pv", "pv", "680", (1, 2, 3), 1e5, 1e5, -1e5)])
    circuit.set_loads(20.0 * circuit.load_kw, 20.0 * circuit.load_kvar)
    circuit.set_ders([-9e4], [-9e4])
    with pytest.raises(PowerFlowError, match="circuit 'ieee13'"):
        _solve_often(circuit)


def _solve_often(circuit: Circuit) -> None:
    for _ in range(3):
        circuit.solve()
        if circuit.v_pu().min() < 0.5:
            raise PowerFlowError("collapsed", where=f"circuit '{circuit.name}'")


@pytest.mark.parametrize(
    ("der", "words"),
    [
        (Der("x", "pv", "6711", (1,), 1.0, 1.0), "did you mean '671'"),
        (Der("x", "pv", "611", (1,), 1.0, 1.0), "does not have phases"),
    ],
)
def test_bad_der_place(der: Der, words: str) -> None:
    with pytest.raises(FeederError, match=f"DER 'x'.*{words}"):
        open_circuit("ieee13", [der])


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def _write(text: str) -> Path:
        path = tmp_path / "master.dss"
        path.write_text(text)
        return path

    return _write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "defines no circuit"),
        ("! nothing\n/* clear\n*/\n", "defines no circuit"),
        ("clear\nnew circuit.a\nbogus 5\n", "row 3: OpenDSS: Unknown Command"),
        ("new circuit.a\nnew line.l bus1=sourcebus bus2=b linecode=z", "row 2: .*LineCode.*z"),
        ("new circuit.a\nnew load.l bus1=sourcebus kw=abc", "row 2: OpenDSS: .*abc"),
        ("new circuit.a\nredirect lins.dss\n", "row 2: the file 'lins.dss' does not exist"),
        ("new circuit.a\nredirect\n", "row 2: 'redirect' names no file"),
        ("clear\nredirect master.dss\n", "redirect to each other"),
        ("new circuit.a\nbuscoords nowhere.csv\n", "row 2: the file 'nowhere.csv' does not exist"),
    ],
)
def test_bad_master_is_named(write: Callable[[str], Path], text: str, words: str) -> None:
    with pytest.raises(FeederError, match=rf"(?s)master\.dss.*{words}"):
        open_master(write(text))


def test_binary_or_missing_master(tmp_path: Path) -> None:
    path = tmp_path / "master.dss"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(FeederError, match="not text"):
        open_master(path)
    path.write_bytes(b"\xff\xd8\xe0 \x10JFIF\n\xfe garbage")
    with pytest.raises(FeederError, match="row 1"):
        open_master(path)
    with pytest.raises(FeederError, match=r"did you mean 'master\.dss'"):
        open_master(tmp_path / "mastr.dss")
    with pytest.raises(FeederError, match=r"lines\.csv"):
        open_circuit(tmp_path)


def test_folder_of_the_process_stays(write: Callable[[str], Path]) -> None:
    here = Path.cwd()
    path = write("new circuit.a basekv=4.16\nnew load.l bus1=sourcebus kv=4.16 kw=9\nshow voltages")
    open_master(path)
    assert Path.cwd() == here
    assert [p.name for p in path.parent.iterdir()] == ["master.dss"]


def test_tables_are_package_data() -> None:
    # The wheel takes whole packages, so tables under a package ship with it.
    import grid_models

    inside = Path(grid_models.__file__).parent
    assert shipped_folder("ieee13").is_relative_to(inside)
