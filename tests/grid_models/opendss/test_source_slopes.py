"""The slope of a feeder's import by the voltage of its source."""

from __future__ import annotations

import numpy as np
import pytest

from grid_models.catalog import open_circuit
from grid_models.opendss.circuit import Circuit
from grid_models.opendss.source_slopes import SourceSlopes

OWN = np.full(3, np.nan)


def import_kva(circuit: Circuit, v_pu: float) -> complex:
    circuit.set_source(np.full(3, v_pu), OWN)
    circuit.solve()
    return complex(*circuit.source_kw_kvar())


@pytest.mark.parametrize("v_pu", [1.0, 0.9, 0.6])  # at 0.6 loads are impedances
def test_slope_is_that_of_solutions_on_both_sides(v_pu: float) -> None:
    circuit = open_circuit("ieee13", (), regulators="fixed")
    slopes = SourceSlopes(circuit)
    before = import_kva(circuit, v_pu)
    found = slopes.kva_per_pu()
    after = complex(*circuit.source_kw_kvar())
    tight = open_circuit("ieee13", (), regulators="fixed", tolerance_pu=1e-9)
    expected = (import_kva(tight, v_pu + 1e-3) - import_kva(tight, v_pu - 1e-3)) / 2e-3
    assert abs(found - expected) < 0.003 * abs(expected)
    assert abs(after - before) < 1e-5 * abs(before)  # it is back where it was
    assert slopes.kva_per_pu() == found  # the same solution is not solved again
