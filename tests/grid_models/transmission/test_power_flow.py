"""Power flow of the shipped systems against reference tables made with PYPOWER."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grid_models.transmission.model import TransmissionError
from grid_models.transmission.power_flow import power_flow
from grid_models.transmission.system import load_system


@pytest.mark.parametrize("name", ["kundur", "ieee39"])
def test_voltages_are_those_of_the_reference(name: str) -> None:
    path = Path(__file__).parent / "reference" / f"{name}_power_flow.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    flow = power_flow(load_system(name))
    v_pu = np.array([float(row["vmag_pu"]) for row in rows])
    angle = np.radians([float(row["vangle_deg"]) for row in rows])
    # The tables have eight digits of the magnitude and six of the angle.
    assert np.abs(np.abs(flow.v) - v_pu).max() < 1e-8
    assert np.abs(flow.v - v_pu * np.exp(1j * angle)).max() < 1e-8 + np.radians(1e-6)
    assert flow.iterations <= 5


def test_loads_beyond_what_the_lines_carry_are_refused() -> None:
    system = load_system("kundur")
    heavy = replace(system, load_mw=system.load_mw * 3.0)
    with pytest.raises(TransmissionError, match=r"'kundur'.*does not converge"):
        power_flow(heavy)
