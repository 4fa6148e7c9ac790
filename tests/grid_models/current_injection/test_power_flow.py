"""The port model against OpenDSS, and its derivatives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError, PowerFlowError
from grid_models.catalog import load_feeder, open_circuit
from grid_models.current_injection.model import PortNetwork
from grid_models.current_injection.power_flow import jacobian, power_flow
from grid_models.feeder.model import Der, Load, Switch
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.ports import port_network

DERS = (
    Der("three", "inverter", "675", (1, 2, 3), 300.0, 250.0),
    Der("one", "inverter", "634", (2,), 80.0, 60.0),
)


def _meshed() -> Circuit:
    """IEEE 13 with a three-phase delta load, and a closed switch between 632 and 675."""
    feeder = load_feeder("ieee13")
    tie = Switch("tie", "632", "675", (1, 2, 3), closed=True)
    pump = Load("pump", "680", (1, 2, 3), "delta", "I", 90.0, 40.0, 4.16)
    more = replace(feeder, switches=(*feeder.switches, tie), loads=(*feeder.loads, pump), ders=DERS)
    return Circuit.from_feeder(more, tolerance_pu=1e-11)


@pytest.fixture(scope="module")
def circuits() -> dict[str, tuple[Circuit, PortNetwork]]:
    """Circuits that are radial and meshed, with delta and wye loads of all three models."""
    made = {
        "ieee13": open_circuit("ieee13", DERS, tolerance_pu=1e-11),
        "ieee123": open_circuit("ieee123", tolerance_pu=1e-11),
        "meshed": _meshed(),
    }
    return {name: (circuit, port_network(circuit)) for name, circuit in made.items()}


@pytest.mark.parametrize("name", ["ieee13", "ieee123", "meshed"])
@settings(max_examples=8, deadline=None)
@given(scale=st.floats(0.0, 1.2), p_kw=st.floats(-40.0, 60.0), q_kvar=st.floats(-40.0, 40.0))
def test_voltages_import_and_losses_are_those_of_opendss(
    circuits: dict[str, tuple[Circuit, PortNetwork]],
    name: str,
    scale: float,
    p_kw: float,
    q_kvar: float,
) -> None:
    circuit, network = circuits[name]
    circuit.set_loads(circuit.load_kw * scale, circuit.load_kvar * scale)
    injected = np.zeros(network.size, dtype=np.complex128)
    n = len(circuit.der_names)
    for der in circuit.der_names:
        injected[network.terminal_of_der(der)] += complex(p_kw, q_kvar) / network.base_kva
    circuit.set_ders(np.full(n, p_kw), np.full(n, q_kvar))
    circuit.solve()
    flow = power_flow(network, network.share @ injected, network.loads.scaled(scale))
    assert np.abs(flow.v - circuit.v_complex_pu()).max() < 1e-8
    p, q = circuit.source_kw_kvar()
    assert flow.s_import * network.base_kva == pytest.approx(complex(p, q), abs=1e-4)
    assert flow.loss * network.base_kva == pytest.approx(circuit.losses_kw(), abs=1e-4)


def test_first_derivatives_against_central_differences(
    circuits: dict[str, tuple[Circuit, PortNetwork]],
) -> None:
    network = circuits["ieee13"][1]
    s = np.full(len(network.ports), 0.01 + 0.005j)
    at = power_flow(network, s, network.loads)
    matrix = jacobian(network, at.i, at.u, network.loads)
    m, step = len(s), 1e-6
    p_by_i, q_by_i = network.source_gradient(at.i)
    for k in (0, 7, m - 1):
        for unit in (1.0, 1j):
            ds = np.zeros(m, dtype=np.complex128)
            ds[k] = step * unit
            up, down = (power_flow(network, s + sign * ds, network.loads) for sign in (1, -1))
            by_s = (up.i - down.i) / (2.0 * step)
            answer = matrix @ np.concatenate([by_s.real, by_s.imag])
            expected = np.concatenate([ds.real, ds.imag]) / step
            assert np.abs(answer - expected).max() < 1e-6
            by_import = (up.s_import - down.s_import) / (2.0 * step)
            assert (p_by_i @ by_s).real == pytest.approx(by_import.real, abs=1e-6)
            assert (q_by_i @ by_s).real == pytest.approx(by_import.imag, abs=1e-6)


def test_terminals_are_named_by_bus_phase_and_connection(
    circuits: dict[str, tuple[Circuit, PortNetwork]],
) -> None:
    network = circuits["meshed"][1]
    for label in ("645", "675.2", "675.1.2.3", "671.1-2", "634.2"):
        assert label in network.terminals
    assert np.allclose(network.share.sum(axis=0), 1.0)
    # The only terminal of its bus has the name of the bus.
    delta = network.terminals.index("680")
    ports = [network.ports[j] for j in np.flatnonzero(network.share[:, delta])]
    assert ports == ["680.1-2", "680.2-3", "680.3-1"]


def test_what_an_open_switch_cuts_off_is_dead() -> None:
    circuit = open_circuit("ieee13")
    switch = circuit.feeder.switches[0]
    whole = port_network(circuit)
    network = port_network(circuit, {switch.name: False})
    dead = [i for i, live in enumerate(network.live) if not live]
    assert whole.live.all()
    assert dead
    flow = power_flow(network, np.zeros(len(network.ports), dtype=np.complex128), network.loads)
    circuit.solve()
    assert np.abs(np.abs(flow.v) - circuit.v_pu())[np.abs(network.w) > 0].max() < 1e-6
    supplied = network.share @ network.live > 0
    assert not flow.s_drawn[~supplied].any()
    assert flow.s_drawn[supplied].all()
    closed_again = port_network(circuit, {switch.name: True})
    assert closed_again.live.all()


def test_what_has_no_solution_is_an_error(
    circuits: dict[str, tuple[Circuit, PortNetwork]],
) -> None:
    network = circuits["ieee13"][1]
    with pytest.raises(PowerFlowError, match="did not converge"):
        power_flow(network, np.full(len(network.ports), -50.0 + 0j))
    with pytest.raises(FeederError, match=r"no such DER.*three"):
        network.terminal_of_der("tree")


MASTER = """
clear
new circuit.mine basekv=12.47 bus1=src pu=1.02 mvasc3=200 mvasc1=180
new linecode.lc nphases=3 r1=0.2 x1=0.4 r0=0.6 x0=1.2 c1=3 c0=1 units=km
new line.l1 bus1=src bus2=a linecode=lc length=2 units=km normamps=300
new line.open bus1=a bus2=z linecode=lc length=1 units=km
new transformer.house phases=1 windings=3 buses=[a.1.0 lv.1.4 lv.4.2] kvs=[7.2 0.12 0.12]
~ kvas=[50 50 50] %rs=[0.6 1.2 1.2] xhl=2 xht=2 xlt=1.4
new reactor.ground bus1=lv.4 bus2=lv.0 r=0.5 x=0 phases=1
new load.left bus1=lv.1.4 phases=1 kv=0.12 kw=6 kvar=2 model=5
new load.across bus1=lv.1.2 phases=1 kv=0.24 kw=8 kvar=1
new load.alive bus1=z.1 phases=1 kv=7.2 kw=50 kvar=10 model=2
new load.dead bus1=z.3 phases=1 kv=7.2 kw=70 kvar=10
open line.open 1 3
set voltagebases=[12.47 0.208]
calcvoltagebases
"""


def test_a_users_circuit_with_a_neutral_conductor_and_an_open_phase(tmp_path: Path) -> None:
    path = tmp_path / "mine.dss"
    path.write_text(MASTER)
    circuit = open_circuit(path, tolerance_pu=1e-10)
    network = port_network(circuit)
    flow = power_flow(network, np.zeros(len(network.ports), dtype=np.complex128), network.loads)
    shown = np.abs(circuit.v_pu()) > 0.5
    # OpenDSS lets the load of the open phase draw some watts through the line's capacitance.
    assert np.abs(flow.v - circuit.v_complex_pu())[shown].max() < 1e-6
    p, q = circuit.source_kw_kvar()
    assert flow.s_import * network.base_kva == pytest.approx(complex(p, q), abs=0.02)
    supplied = dict(zip(network.terminals, network.live, strict=True))
    assert supplied == {"lv.1": True, "lv.1-2": True, "z.1": True, "z.3": False}
    assert "line.l1.1" in network.lines
    rated = network.line_limit[network.lines.index("line.l1.1")]
    assert rated * 1e6 / (12470.0 / np.sqrt(3.0)) == pytest.approx(300.0, rel=1e-6)
