"""The source voltage of a circuit, per phase, against the engine's own balanced source."""

from __future__ import annotations

import numpy as np
import pytest

from grid_models.catalog import open_circuit

NONE = [np.nan] * 3
# Both solutions are iterated to TOLERANCE_PU = 1e-6, hence they differ by as much.
ATOL_PU = 2e-6


@pytest.mark.parametrize("model", ["ieee13", "ieee123"])
def test_a_balanced_voltage_gives_the_solution_of_the_engines_own_source(model: str) -> None:
    own, moved = open_circuit(model, source_v_pu=1.02), open_circuit(model)
    moved.set_source([1.02] * 3, NONE)
    moved.solve()
    np.testing.assert_allclose(moved.v_complex_pu(), own.v_complex_pu(), atol=ATOL_PU)
    np.testing.assert_allclose(moved.source_kw_kvar(), own.source_kw_kvar(), atol=0.05)
    assert moved.losses_kw() == pytest.approx(own.losses_kw(), abs=0.01)


def test_nan_keeps_the_circuits_own_voltage() -> None:
    own, moved = open_circuit("ieee13"), open_circuit("ieee13")
    moved.set_source(NONE, NONE)
    moved.solve()
    np.testing.assert_allclose(moved.v_complex_pu(), own.v_complex_pu(), atol=ATOL_PU)


def test_each_phase_has_its_own_magnitude_and_angle() -> None:
    circuit = open_circuit("ieee13")
    assert circuit.source_phases == (1, 2, 3)
    at = [circuit.node_labels.index(f"650.{phase}") for phase in (1, 2, 3)]
    for v_pu, deg in (([1.01, 0.99, 1.03], [10.0, -110.0, 130.0]), ([1.0] * 3, [0, -120, 120])):
        circuit.set_source(v_pu, deg)
        circuit.solve()
        found = circuit.v_complex_pu()[at]
        np.testing.assert_allclose(np.abs(found), v_pu, atol=ATOL_PU)
        np.testing.assert_allclose(np.degrees(np.angle(found)), deg, atol=1e-3)


def test_the_first_solution_does_not_start_from_memory_that_the_engine_left_unset() -> None:
    # It did: the number of iterations (up to the limit, then a looser tolerance) and the last
    # digits depended on what the process had in memory before.
    seen = set()
    for _ in range(6):
        circuit = open_circuit("ieee13")
        filled = [np.full(4096, 1e6 * k) for k in range(200)]  # memory that is not zero
        del filled
        tolerance_pu = circuit.tolerance_pu
        circuit.set_source([1.0156, 1.0029, 1.0097], NONE)
        circuit.solve()
        assert circuit.tolerance_pu == tolerance_pu
        seen.add(circuit.v_pu().tobytes())
    assert len(seen) == 1
