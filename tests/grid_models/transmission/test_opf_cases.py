"""The shipped cases of optimal power flow, and what is wrong with a user's own tables."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from grid_models.transmission.matpower import load_case
from grid_models.transmission.model import TransmissionError
from grid_models.transmission.opf_case import Costs

DATA = Path(load_case.__code__.co_filename).parents[1] / "data"


def test_operating_point_of_case39_is_a_solved_power_flow() -> None:
    # Its voltages have 8 digits, its powers 6: that leaves 3 kVA.
    case = load_case("case39")
    buses, branches, generators = case.buses, case.branches, case.generators
    v = buses.v_pu * np.exp(1j * np.radians(buses.angle_deg))
    i, j = branches.from_bus, branches.to_bus
    y_ff, y_ft, y_tf, y_tt = branches.admittances()
    left = buses.load_mw + 1j * buses.load_mvar
    left += abs(v) ** 2 * (buses.shunt_mw - 1j * buses.shunt_mvar)
    np.add.at(left, i, case.base_mva * v[i] * np.conj(y_ff * v[i] + y_ft * v[j]))
    np.add.at(left, j, case.base_mva * v[j] * np.conj(y_tf * v[i] + y_tt * v[j]))
    np.subtract.at(left, generators.bus, generators.p_mw + 1j * generators.q_mvar)
    assert abs(left).max() < 4e-3


@pytest.mark.parametrize(
    # Totals of load_mw, shunt_mvar, p_max_mw, x_pu, b_pu, coefficients of MATPOWER 8.0.
    ("name", "size", "totals"),
    [
        ("case39", (39, 46, 10), (6254.23, 0.0, 7367.0, 0.8773, 10.3613, 5.1)),
        ("case57", (57, 80, 7), (1250.8, 22.2, 1975.88, 19.4436, 1.1528, 200.41206)),
        ("case118", (118, 186, 54), (4242.0, 88.0, 9966.2, 19.85673, 13.39228, 1786.081775)),
    ],
)
def test_shipped_case_has_the_published_totals(
    name: str, size: tuple[int, int, int], totals: tuple[float, ...]
) -> None:
    case = load_case(name)
    assert (len(case.buses.names), len(case.branches.names), len(case.generators.names)) == size
    arrays = (
        case.buses.load_mw,
        case.buses.shunt_mvar,
        case.generators.p_max_mw,
        case.branches.x_pu,
        case.branches.b_pu,
        case.costs.coefficients,
    )
    assert [float(a.sum()) for a in arrays] == pytest.approx(totals, rel=1e-6)
    assert not case.notes
    assert not case.costs.zero


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        ("branches", 2, "to_bus", "66", "branch 1-66: there is no bus 66; expected a number"),
        ("branches", 3, "x_pu", "none", "'none' is not a number"),
        ("branches", 3, "to_bus", "1", "branch 1-1: the branch ends where it starts"),
        ("branches", 2, "tap_ratio", "0", "branch 1-2: 0 cannot be used; expected a number over 0"),
        ("buses", 32, "type", "PQ", "no bus is of type slack"),
        ("buses", 3, "bus", "1", "bus 1: this number is there twice"),
        ("buses", 3, "bus", "1.5", "bus 1.5: 1.5 cannot be used; expected 1, 2, ..."),
        ("buses", 3, "v_max_pu", "0.9", "bus 2: the limits 0.94 to 0.9 allow nothing"),
        ("generators", 2, "p_min_mw", "2000", "generator at bus 30: the limits 2000 to 1040"),
        ("generators", 2, "bus", "300", "there is no bus 300; expected a number of the table of"),
        ("system", 2, "base_mva", "0", "'0' cannot be used; expected a number over 0"),
    ],
)
def test_what_is_wrong_is_named_with_file_row_column_and_element(
    tmp_path: Path, table: str, row: int, column: str, value: str, message: str
) -> None:
    shutil.copytree(DATA / "case39", tmp_path / "mine")
    file = tmp_path / "mine" / f"{table}.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    lines[row - 1][lines[0].index(column)] = value
    file.write_text("\n".join(",".join(line) for line in lines) + "\n")
    with pytest.raises(TransmissionError) as caught:
        load_case(tmp_path / "mine")
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_isolated_bus_takes_its_branches_and_generator_along(tmp_path: Path) -> None:
    shutil.copytree(DATA / "case39", tmp_path / "mine")
    file = tmp_path / "mine" / "buses.csv"
    file.write_text(file.read_text().replace("30,PV", "30,isolated"))
    case = load_case(tmp_path / "mine")
    assert "30" not in case.buses.names
    assert "2-30-1" not in case.branches.names
    assert case.generators.names[0] == "31-1"
    assert case.costs.coefficients.shape == (9, 3)


def test_bus_without_a_path_to_the_slack_bus_is_refused(tmp_path: Path) -> None:
    shutil.copytree(DATA / "case39", tmp_path / "mine")
    file = tmp_path / "mine" / "branches.csv"
    file.write_text(re.sub("\n2,30,.*", "", file.read_text()))
    with pytest.raises(TransmissionError, match="bus 30: no branch in service connects it with"):
        load_case(tmp_path / "mine")


@pytest.mark.parametrize(("name", "near"), [("case93", "case39"), ("case 57", "case57")])
def test_unknown_case_gets_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(TransmissionError, match=f"there is no case '{name}'.*mean '{near}'"):
        load_case(name)


def test_piecewise_and_polynomial_costs_are_evaluated_per_generator() -> None:
    # By hand: 1 + 2 p + 3 p^2 at 2; corners (0, 0), (10, 100), (20, 300) at 15: 200.
    costs = Costs(
        coefficients=np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]),
        points_mw=np.array([[np.nan] * 3, [0.0, 10.0, 20.0]]),
        points_usd_per_h=np.array([[np.nan] * 3, [0.0, 100.0, 300.0]]),
    )
    assert costs.piecewise.tolist() == [False, True]
    assert costs.usd_per_h(np.array([2.0, 15.0])).tolist() == [17.0, 200.0]
