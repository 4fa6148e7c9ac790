"""The admittance matrix against the engine's own system matrix and its power flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_array

from grid_models.catalog import open_circuit
from grid_models.opendss.admittance import node_admittance
from grid_models.opendss.engine import Engine
from grid_models.opendss.master import open_master

# A delta-wye transformer off its middle tap, a neutral conductor, a capacitor, an open line, an
# element out of service, loads between phases and between phase and neutral.
MASTER = """\
clear
new circuit.y basekv=12.47 pu=1.02 bus1=src
new linecode.w nphases=4 r1=0.3 x1=0.6 r0=0.6 x0=1.2 c1=9 c0=5 units=km
new transformer.t phases=3 windings=2 buses=(src lv.1.2.3.0)
~ conns=(delta wye) kvs=(12.47 0.48) kvas=(500 500) xhl=5
~ wdg=2 tap=1.025
new line.a phases=4 bus1=lv.1.2.3.4 bus2=end.1.2.3.4 linecode=w length=0.05 units=km
new line.b phases=3 bus1=end bus2=far r1=0.1 x1=0.1 r0=0.2 x0=0.2 length=0.1
new line.c phases=3 bus1=lv bus2=far r1=0.1 x1=0.1 r0=0.2 x0=0.2 length=0.1 enabled=no
new line.d phases=3 bus1=lv bus2=far r1=0.1 x1=0.1 r0=0.2 x0=0.2 length=0.1
open line.d 1 2
new reactor.ground phases=1 bus1=lv.4 bus2=lv.0 r=0.5 x=0
new capacitor.c bus1=far kv=0.48 kvar=30
new load.pp bus1=far.1.2 phases=1 conn=delta kv=0.48 kw=20 kvar=5
new load.pn bus1=end.3.4 phases=1 kv=0.277 kw=15 kvar=3
set voltagebases=(12.47 0.48)
calcvoltagebases
solve
"""


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    path = tmp_path / "Master.dss"
    path.write_text(MASTER)
    return open_master(path)._engine


def _voltages(engine: Engine, labels: tuple[str, ...]) -> np.ndarray:
    dss = engine.dss
    assert labels == tuple(str(n).lower() for n in dss.Circuit.YNodeOrder())
    return np.asarray(dss.Circuit.YNodeVArray(), dtype=float).view(complex)


def test_it_is_the_engines_system_matrix_without_loads_and_source(engine: Engine) -> None:
    labels, matrix = node_admittance(engine)
    for kind in ("load", "vsource"):
        engine.command(f"batchedit {kind}..* enabled=no")
    engine.command("solve")
    order = [str(n).lower() for n in engine.dss.Circuit.YNodeOrder()]
    place = [order.index(label) for label in labels]
    own = csc_array(engine.dss.YMatrix.getYsparse())[place][:, place]
    np.testing.assert_allclose(matrix.toarray(), own.toarray(), atol=1e-13 * abs(own).max())


def test_currents_are_those_of_the_loads_and_the_source(engine: Engine) -> None:
    labels, matrix = node_admittance(engine)
    v = _voltages(engine, labels)
    i_a = matrix @ v
    place = {label: n for n, label in enumerate(labels)}
    assert "lv.4" in place  # the neutral conductor has nodes of its own
    expected = np.zeros(len(labels), dtype=complex)
    for element in ("load.pp", "load.pn", "vsource.source"):
        engine.dss.Circuit.SetActiveElement(element)
        into = np.asarray(engine.dss.CktElement.Currents(), dtype=float).view(complex)
        for node, current in zip(engine.dss.CktElement.NodeRef(), into, strict=True):
            if node:
                expected[node - 1] -= current
    np.testing.assert_allclose(i_a, expected, atol=1e-4 * abs(expected).max())
    assert abs(i_a[place["end.4"]]) > 10.0


def test_reading_it_leaves_the_solution_as_it_was(engine: Engine) -> None:
    labels, first = node_admittance(engine)
    before = _voltages(engine, labels)
    again, second = node_admittance(engine)
    assert again == labels
    assert (first != second).nnz == 0
    assert (_voltages(engine, labels) == before).all()


@pytest.mark.parametrize("model", ["ieee13", "ieee123"])
def test_losses_of_shipped_feeders(model: str) -> None:
    circuit = open_circuit(model, ())
    labels, matrix = node_admittance(circuit._engine)
    v = _voltages(circuit._engine, labels)
    fed_in_kw = (v * np.conj(matrix @ v)).real.sum() / 1e3
    assert fed_in_kw == pytest.approx(circuit.losses_kw(), rel=1e-6)
