"""Tables of transmission systems: the shipped ones, and what is wrong with a user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from grid_models.transmission.model import TransmissionError
from grid_models.transmission.system import SHIPPED, load_system

SHIPPED_FOLDER = Path(load_system.__code__.co_filename).parents[1] / "data"


def test_kundur_has_two_areas_and_their_tie_is_the_two_lines_from_bus_7() -> None:
    system = load_system("kundur")
    assert [b for b, tie in zip(system.branches, system.tie, strict=True) if tie] == [
        "7-8-1",
        "7-8-2",
    ]
    assert system.area_names == ("1", "2")
    assert system.load_mw.sum() == 2734.0
    assert system.machines == ("G1", "G2", "G3", "G4")


def test_ieee39_totals_are_those_of_the_published_case() -> None:
    system = load_system("ieee39")
    assert (len(system.buses), len(system.branches), len(system.machines)) == (39, 46, 10)
    assert system.load_mw.sum() == pytest.approx(6254.23)
    assert not system.tie.any()


@pytest.mark.parametrize("name", SHIPPED)
def test_columns_of_the_admittance_matrix_sum_to_charging_and_shunts_without_taps(
    name: str,
) -> None:
    system = load_system(name)
    plain = np.flatnonzero(system.tap_ratio == 1.0)
    use = np.zeros(len(system.branches), bool)
    use[plain] = True
    total = system.admittance(use).sum()
    expected = 1j * (system.b_pu[plain].sum() + system.shunt_mvar.sum() / system.base_mva)
    assert total == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        ("branches", 2, "to_bus", "66", "row 2, column 'to_bus': there is no bus '66'"),
        ("branches", 5, "circuit", "1", "branch '7-8-1' is there twice"),
        ("branches", 2, "x_pu", "none", "'none' is not a number"),
        ("buses", 2, "type", "PQ", "PQ of a bus with a machine"),
        ("buses", 4, "type", "PV", "0 buses are of type slack"),
        ("buses", 7, "bus", "5", "'5' is there twice"),
        ("machines", 2, "h_s", "0", "column 'h_s': '0' cannot be used"),
        ("machines", 2, "xq_subtransient_pu", "0.26", "subtransient saliency is not modelled"),
        ("machines", 3, "xd_transient_pu", "1.9", "row 3, column 'xd_pu': xd_pu is not larger"),
        ("machines", 3, "bus", "1", "'1' is there twice"),
        ("system", 2, "base_mva", "-1", "column 'base_mva': '-1' cannot be used"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_row_and_column(
    tmp_path: Path, table: str, row: int, column: str, value: str, message: str
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(SHIPPED_FOLDER / "kundur", folder)
    path = folder / f"{table}.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[row - 1][lines[0].index(column)] = value
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    with pytest.raises(TransmissionError) as caught:
        load_system(folder)
    assert message in str(caught.value)
    assert f"{table}.csv" in str(caught.value)


def test_a_bus_that_no_branch_reaches_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(SHIPPED_FOLDER / "kundur", folder)
    with (folder / "buses.csv").open("a") as file:
        file.write("12,PQ,230,0,0,0,2\n")
    with pytest.raises(TransmissionError, match=r"row 13.*no branch connects bus '12'"):
        load_system(folder)


def test_an_unknown_system_names_the_nearest() -> None:
    with pytest.raises(TransmissionError, match="did you mean 'kundur'"):
        load_system("kundurr")
