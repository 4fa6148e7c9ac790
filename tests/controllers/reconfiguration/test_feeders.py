"""The optimum of IEEE 13 and 123 against every configuration of the switches in OpenDSS."""

from __future__ import annotations

import pytest
from reconfiguration import row_of


@pytest.mark.parametrize(
    ("case", "line", "operations"),
    [("ieee13", "line_632_671_mid_671", 1), ("ieee123", "line_57_60", 2)],
)
def test_the_plan_is_the_optimum_of_all_configurations_in_opendss(
    case: str, line: str, operations: int
) -> None:
    row = row_of(case, line)
    assert row is not None
    assert row["operations"] == operations
    assert float(row["restored_kw"]) > 100.0
    assert float(row["gap_kw"]) == pytest.approx(0.0, abs=1e-6)
    # Losses are compared in steps of a watt.
    assert float(row["gap_losses_kw"]) == pytest.approx(0.0, abs=2e-3)
    assert float(row["losses_error_kw"]) < 1e-4
    assert row["bad_states"] == 0
    assert float(row["configurations"]) > 1
