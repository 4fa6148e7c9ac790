"""Islands: the graph says what the engine's voltages say."""

from __future__ import annotations

import numpy as np
import pytest

from grid_models.catalog import load_feeder, open_circuit
from grid_models.feeder.energised import EnergisedNodes


@pytest.mark.parametrize("model", ["ieee13", "ieee123"])
def test_nodes_without_a_way_to_the_source_are_those_without_voltage(model: str) -> None:
    feeder = load_feeder(model)
    circuit, nodes = open_circuit(feeder), EnergisedNodes(feeder)
    assert nodes.labels == circuit.node_labels
    for element in (*feeder.switches, *feeder.lines[::5]):
        if element.closed:
            circuit.set_switch(f"line.{element.name}", False)
            circuit.solve()
            live = nodes.reach({element.name: False})
            np.testing.assert_array_equal(live, circuit.v_pu() > 1e-3, element.name)
            assert not live.all()
            circuit.set_switch(f"line.{element.name}", True)


def test_a_tie_that_is_closed_keeps_a_part_alive() -> None:
    # IEEE 123: sw4 feeds 160 from 60; sw7 ties 151 to 300 on all phases, sw8 54 to 94 on one.
    feeder = load_feeder("ieee123")
    nodes = EnergisedNodes(feeder)
    assert nodes.reach({}).all()
    cut = nodes.reach({"sw4": False})
    tied = nodes.reach({"sw4": False, "sw7": True, "sw8": True})
    assert cut.sum() < tied.sum()
    circuit = open_circuit(feeder)
    for name, closed in (("sw4", False), ("sw7", True), ("sw8", True)):
        circuit.set_switch(f"line.{name}", closed)
    circuit.solve()
    np.testing.assert_array_equal(tied, circuit.v_pu() > 1e-3)
