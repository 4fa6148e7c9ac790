"""Currents, loadings, powers and taps of a circuit, against what the engine itself exports."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.catalog import load_feeder, open_circuit
from grid_models.feeder.model import Der
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.commands import feeder_commands
from grid_models.opendss.engine import Engine
from grid_models.opendss.master import open_master
from grid_models.opendss.node_voltages import NodeVoltages
from grid_models.opendss.readings import Readings
from grid_models.opendss.states import CapacitorStates, TapPositions

# A 400 V street with a neutral conductor, earthed at the transformer only, and one load per phase.
STREET = """clear
new circuit.street basekv=11 bus1=hv pu=1.0 r1=0.5 x1=1 r0=0.5 x0=1
new linecode.four nphases=4 units=km normamps=180
~ rmatrix=[0.40 | 0.05 0.40 | 0.05 0.05 0.40 | 0.05 0.05 0.05 0.40]
~ xmatrix=[0.32 | 0.24 0.32 | 0.24 0.24 0.32 | 0.24 0.24 0.24 0.32]
~ cmatrix=[0 | 0 0 | 0 0 0 | 0 0 0 0]
new transformer.tx phases=3 windings=2 xhl=4 wdg=1 bus=hv conn=delta kv=11 kva=160 %r=0.6
~ wdg=2 bus=lv.1.2.3.4 conn=wye kv=0.4 kva=160 %r=0.6
new reactor.earth phases=1 bus1=lv.4 bus2=lv.0 r=5 x=0
new line.s1 phases=4 bus1=lv.1.2.3.4 bus2=p1.1.2.3.4 linecode=four length=0.12 units=km
new line.s2 phases=4 bus1=p1.1.2.3.4 bus2=p2.1.2.3.4 linecode=four length=0.15 units=km
new load.a phases=1 bus1=p1.1.4 kv=0.23 kw=22 kvar=4
new load.b phases=1 bus1=p2.2.4 kv=0.23 kw=9 kvar=3
new load.c phases=3 bus1=p2.1.2.3.4 kv=0.4 kw=30 kvar=10
set voltagebases=[11 0.4]
calcvoltagebases
"""


def of_street(path: Path) -> list[str]:
    """Return the commands of the street whose loads keep their power from 0.7 to 1.3 pu."""
    return [f'redirect "{path}"', *(f"edit load.{x} vminpu=0.7 vmaxpu=1.3" for x in "abc")]


class Exports:
    """An engine context of its own, given the same circuit, and its export files."""

    def __init__(self, commands: Sequence[str], folder: Path) -> None:
        self._engine, self._folder = Engine(), folder
        for command in (*commands, "set mode=snapshot tolerance=1e-9 maxiterations=100", "solve"):
            self._engine.command(command)

    def command(self, text: str) -> str:
        """Run one command."""
        return self._engine.command(text)

    def table(self, kind: str) -> list[dict[str, str]]:
        """Return the rows of an export, ``currents``, with words and keys stripped."""
        path = self._folder / f"{kind.replace(' ', '_')}.csv"
        self._engine.command(f'export {kind} "{path}"')
        with path.open(newline="") as file:
            rows = list(csv.reader(file, skipinitialspace=True))
        head = [word.strip() for word in rows[0]]
        return [dict(zip(head, map(str.strip, row), strict=False)) for row in rows[1:]]

    def currents(self) -> dict[str, float]:
        """Return current magnitudes of lines and transformers, ``line.l1.1#2``: by conductor."""
        found = {}
        for row in self.table("currents"):
            name = row.pop("Element").lower()
            for key, value in row.items():
                if key.startswith("I") and "_" in key and name.startswith(("line", "transformer")):
                    terminal, _, conductor = key[1:].partition("_")
                    found[f"{name}.{terminal}#{conductor}"] = float(value)
        return found

    def conductors(self, name: str) -> list[list[str]]:
        """Return the nodes of each terminal of an element, ``'0'`` for ground."""
        dss = self._engine.dss
        dss.Circuit.SetActiveElement(name)
        order = [str(n) for n in dss.CktElement.NodeOrder()]
        return np.array(order).reshape(dss.CktElement.NumTerminals(), -1).tolist()


def street(folder: Path) -> Path:
    path = folder / "street.dss"
    path.write_text(STREET)
    return path


@pytest.fixture(params=["ieee13", "ieee123", "street"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Circuit, Exports]:
    """A circuit of ours and an engine of its own with the same circuit, both solved tightly."""
    if request.param == "street":
        path = street(tmp_path)
        return tight(open_circuit(path)), Exports(of_street(path), tmp_path)
    commands = [*feeder_commands(load_feeder(request.param)), "set controlmode=off"]
    return tight(open_circuit(request.param)), Exports(commands, tmp_path)


def tight(circuit: Circuit) -> Circuit:
    circuit.set_tolerance(1e-9)
    circuit.solve()
    return circuit


def test_currents_are_those_the_engine_exports(pair: tuple[Circuit, Exports]) -> None:
    circuit, engine = pair
    readings = Readings(circuit)
    ours = dict(zip(readings.current_labels, readings.current_a(), strict=True))
    exported = engine.currents()
    compared = 0
    for name in (
        *(f"line.{x}" for x in readings.lines),
        *(f"transformer.{x}" for x in readings.transformers),
    ):
        for terminal, nodes in enumerate(engine.conductors(name), start=1):
            for place, node in enumerate(nodes, start=1):
                if node != "0":
                    theirs = exported[f"{name}.{terminal}#{place}"]
                    # Six digits are exported.
                    assert ours[f"{name}.{terminal}.{node}"] == pytest.approx(
                        theirs, rel=1e-5, abs=1e-5
                    )
                    compared += 1
    assert compared == len(ours) > 0


def test_loadings_are_those_the_engine_exports(pair: tuple[Circuit, Exports]) -> None:
    circuit, engine = pair
    readings = Readings(circuit)
    ours = dict(zip(readings.rated, readings.loading_pct(), strict=True))
    currents = engine.currents()
    exported = {row["Name"].lower(): row for row in engine.table("capacity")}
    exported = {k: v for k, v in exported.items() if k.startswith(("line.", "transformer."))}
    assert ours.keys() == exported.keys()
    for name, row in exported.items():
        # The engine looks at the first terminal, and writes two decimals.
        percent, i_a = float(row["%normal"]), float(row["Imax"])
        assert ours[name] >= percent - 0.006, name
        if name.startswith("line.") and percent > 1.0:
            both = max(currents[f"{name}.{t}#{p}"] for t in (1, 2) for p in range(1, 5))
            assert ours[name] == pytest.approx(percent * both / i_a, rel=0.006), name
    lines = {k: float(v["%normal"]) for k, v in exported.items() if k.startswith("line.")}
    worst = max(lines, key=lambda name: lines[name])
    assert max(lines, key=lambda name: ours[name]) == worst
    assert ours[worst] == pytest.approx(lines[worst], abs=0.01)


def test_the_winding_with_the_highest_loading_counts(tmp_path: Path) -> None:
    # 45 kW at a winding of 50 kVA; the primary is rated 200 kVA.
    path = tmp_path / "three.dss"
    path.write_text(
        "clear\nnew circuit.three basekv=11 bus1=hv\n"
        "new transformer.t phases=3 windings=3 xhl=0.1 xht=0.1 xlt=0.1 %loadloss=0.001\n"
        "~ kvs=[11 0.4 0.4] kvas=[200 100 50] buses=[hv lv1 lv2] conns=[delta wye wye]\n"
        "new load.l bus1=lv2 kv=0.4 kw=45 kvar=0\nset voltagebases=[11 0.4]\ncalcvoltagebases\n"
    )
    readings = Readings(open_circuit(path))
    assert readings.rated == ("transformer.t",)
    # OpenDSS takes 110 % of the kVA as normal.
    assert readings.loading_pct()[0] == pytest.approx(45.0 / 55.0 * 100.0, rel=5e-3)


def test_taps_are_those_the_engine_exports(pair: tuple[Circuit, Exports]) -> None:
    circuit, engine = pair
    taps = TapPositions(circuit)
    exported = {row["Name"].lower(): float(row["Position"]) for row in engine.table("taps")}
    assert dict(zip(taps.names, taps.steps(), strict=True)) == exported


def test_powers_are_those_the_engine_exports(pair: tuple[Circuit, Exports]) -> None:
    circuit, engine = pair
    readings = Readings(circuit)
    load, line = readings.load_kva(), readings.line_kva()
    ours = {f"load.{n}": x for n, x in zip(readings.loads, load, strict=True)}
    ours |= {f"line.{n}": x for n, x in zip(readings.lines, line, strict=True)}
    exported = {}
    for row in engine.table("powers kva"):
        p, q = (next(v for k, v in row.items() if k.startswith(x)) for x in ("P(", "Q("))
        if row["Terminal"] == "1":
            exported[row["Element"].strip('"').lower()] = complex(float(p), float(q))
    for name, kva in ours.items():
        assert kva == pytest.approx(exported[name], abs=0.075), name  # one decimal is exported


def test_losses_of_lines_and_transformers_are_all_losses(pair: tuple[Circuit, Exports]) -> None:
    circuit, _ = pair
    assert sum(Readings(circuit).losses_kw()) == pytest.approx(circuit.losses_kw(), rel=1e-9)


def test_voltages_to_the_neutral_and_their_unbalance(tmp_path: Path) -> None:
    path = street(tmp_path)
    circuit, engine = tight(open_circuit(path)), Exports(of_street(path), tmp_path)
    nodes = NodeVoltages(circuit)
    assert nodes.three_phase == ("hv", "lv", "p1", "p2")
    rows = {r["Bus"].strip('"').lower(): r for r in engine.table("seqvoltages")}
    for bus, percent in zip(nodes.three_phase, nodes.unbalance_pct(), strict=True):
        assert percent == pytest.approx(float(rows[bus]["%V2/V1"]), abs=0.006), bus
    degrees = dict(zip(circuit.node_labels, nodes.v_deg(), strict=True))
    assert degrees["hv.1"] - degrees["lv.1"] == pytest.approx(30.0, abs=2.0)


def test_an_open_or_absent_line_carries_nothing() -> None:
    circuit = open_circuit("ieee13")
    readings = Readings(circuit)
    at = [i for i, x in enumerate(readings.current_labels) if x.startswith("line.line_632_633.")]
    labels = readings.current_labels
    assert readings.current_a()[at].min() > 1.0
    circuit.enable("line.line_632_633", False)
    circuit.solve()
    assert (readings.current_a()[at] == 0.0).all()
    assert readings.current_labels == labels
    assert readings.dead_loads().tolist() == [load.bus == "634" for load in circuit.feeder.loads]
    circuit.enable("line.line_632_633", True)
    circuit.solve()
    assert readings.current_a()[at].min() > 1.0
    assert not readings.dead_loads().any()


def test_elements_that_never_were_in_service_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "off.dss"
    path.write_text(
        STREET + "new line.off phases=4 bus1=p2.1.2.3.4 bus2=p3.1.2.3.4 linecode=four enabled=no\n"
        "new load.off bus1=p3.1.4 phases=1 kv=0.23 kw=5 enabled=no\nsolve\n"
    )
    circuit = open_circuit(path)
    readings = Readings(circuit)
    assert not [label for label in readings.current_labels if label.startswith("line.off.")]
    usual = Readings(open_circuit(street(tmp_path)))
    np.testing.assert_allclose(readings.current_a(), usual.current_a(), rtol=1e-5)
    assert sum(readings.losses_kw()) == pytest.approx(circuit.losses_kw(), rel=1e-9)
    source_kw, losses_kw = circuit.source_kw_kvar()[0], circuit.losses_kw()
    balance = readings.balance(source_kw, losses_kw, np.zeros(0), *readings.injections())
    assert abs(balance.residual_kw) < 1e-5 * balance.total_kva


def test_a_moved_tap_is_in_the_next_reading() -> None:
    circuit = open_circuit("ieee13")
    readings, taps = Readings(circuit), TapPositions(circuit)
    before = readings.line_kva()
    circuit.set_taps({"rg1a": 5})
    circuit.solve()
    assert taps.steps()[taps.names.index("rg1a")] == 5
    assert abs(readings.line_kva() - before).max() > 1.0
    assert sum(readings.losses_kw()) == pytest.approx(circuit.losses_kw(), rel=1e-9)


def test_capacitor_steps_follow_the_files_own_control(tmp_path: Path) -> None:
    path = tmp_path / "caps.dss"
    path.write_text(
        "clear\nnew circuit.caps basekv=12.47 bus1=s\n"
        "new line.l1 bus1=s bus2=a r1=0.3 x1=0.6 r0=.5 x0=1.5 length=5\n"
        "new load.x bus1=a kv=12.47 kw=2000 kvar=1500\nnew capacitor.one bus1=a kvar=600 kv=12.47\n"
        "new capacitor.three bus1=a kv=12.47 kvar=900 numsteps=3\n"
        "new capcontrol.c1 capacitor=one element=line.l1 type=kvar ptratio=1 ctratio=1 on=400 "
        "off=-300\nset voltagebases=[12.47]\ncalcvoltagebases\n"
    )
    circuit = open_circuit(path, regulators="auto")
    banks = CapacitorStates(circuit)
    assert banks.names == ("one", "three")
    assert banks.steps().tolist() == [1.0, 3.0]
    circuit.set_loads(0.1 * circuit.load_kw, 0.1 * circuit.load_kvar)
    circuit.solve()
    assert banks.steps().tolist() == [0.0, 3.0]


LOADED = load_feeder("ieee13")
UNITS = tuple(
    Der(f"u{i}", "inverter", bus, (phase,), 900.0, 800.0)
    for i, (bus, phase) in enumerate([("671", 1), ("675", 2), ("634", 3), ("611", 3)])
)


@pytest.fixture(scope="module")
def ieee13() -> Circuit:
    # What is drawn belongs to the last voltages, what is fed in to those before: the balance is
    # met to about the tolerance of the solution.
    return open_circuit("ieee13", UNITS, tolerance_pu=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    factors=st.lists(st.floats(0.0, 1.2), min_size=len(LOADED.loads), max_size=len(LOADED.loads)),
    kw=st.lists(st.floats(-300.0, 600.0), min_size=4, max_size=4),
    kvar=st.lists(st.floats(-200.0, 200.0), min_size=4, max_size=4),
)
def test_what_comes_in_goes_out(
    ieee13: Circuit, factors: list[float], kw: list[float], kvar: list[float]
) -> None:
    readings = Readings(ieee13)
    ieee13.set_loads(ieee13.load_kw * factors, ieee13.load_kvar * factors)
    ieee13.set_ders(kw, kvar)
    ieee13.solve()
    residual, total_kva = readings.balance(
        ieee13.source_kw_kvar()[0], ieee13.losses_kw(), np.array(kw), *readings.injections()
    )
    assert total_kva > 0.0
    assert abs(residual) <= 1e-6 * total_kva


def test_a_der_that_injects_something_else_shows_in_the_balance() -> None:
    circuit = open_circuit("ieee13", UNITS)
    circuit.set_ders([100.0, 0.0, 0.0, 0.0], [0.0] * 4)
    circuit.solve()
    said = np.array([60.0, 0.0, 0.0, 0.0])
    source_kw, losses_kw = circuit.source_kw_kvar()[0], circuit.losses_kw()
    readings = Readings(circuit)
    residual, _ = readings.balance(source_kw, losses_kw, said, *readings.injections())
    assert residual == pytest.approx(-40.0, abs=0.01)


def test_losses_count_a_grounding_reactor(tmp_path: Path) -> None:
    path = tmp_path / "master.dss"
    path.write_text(
        "clear\nnew circuit.g basekv=11 bus1=mv mvasc3=100 mvasc1=80\n"
        "new transformer.t windings=2 buses=(mv lv.1.2.3.4) conns=(delta wye) kvs=(11 0.4) "
        "kvas=(250 250) xhl=4 %rs=(1 1)\n"
        "new reactor.earth bus1=lv.4 bus2=lv.0 phases=1 r=0.5 x=0\n"
        "new load.house bus1=lv.1.0 phases=1 kv=0.23 kw=20\n"
        "set voltagebases=[11 0.4]\ncalcvoltagebases\n"
    )
    circuit = open_master(path, tolerance_pu=1e-9)
    drawn_kw = Readings(circuit).load_kva().real.sum()
    assert circuit.losses_kw() > 3.0  # 87 A and more through 0.5 ohm
    assert circuit.source_kw_kvar()[0] == pytest.approx(drawn_kw + circuit.losses_kw(), abs=1e-5)
