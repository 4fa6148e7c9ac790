"""Columns of one load or node in a profile table."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid_models.base.errors import ProfileError
from grid_models.feeder.model import Load
from grid_models.profiles.load_columns import LoadColumns
from grid_models.profiles.table import Profiles


def load(name: str, bus: str, *phases: int, kw: float = 10.0) -> Load:
    return Load(name, bus, phases, "wye", "PQ", kw, 0.5 * kw, 0.4)


LOADS = [load("house", "b", 1), load("farm", "b", 1, 2, 3, kw=30.0), load("shop", "c", 2)]


def columns(**values: float) -> dict[str, np.ndarray]:
    return {name.replace("__", "."): np.array([value]) for name, value in values.items()}


def test_named_and_node_columns() -> None:
    table = columns(load_pu__house=0.2, load_pu__b__1=0.9, load_pu__b__2=0.3, other=7.0)
    own = LoadColumns(LOADS, table, "t.csv")
    # The farm: phases 1 and 2 have columns, phase 3 follows the common 0.6.
    assert own.factors(0, 0.6) == pytest.approx([0.2, (0.9 + 0.3 + 0.6) / 3.0, 0.6])


def test_powers_keep_the_power_factor_unless_told() -> None:
    own = LoadColumns(LOADS, columns(load_kw__house=4.0, load_kvar__shop=1.0), "t.csv")
    kw, kvar = own.powers(0, np.array([10.0, 30.0, 10.0]), np.array([5.0, 15.0, 5.0]))
    assert kw == pytest.approx([4.0, 30.0, 10.0])
    assert kvar == pytest.approx([2.0, 15.0, 1.0])


@given(common=st.floats(0.0, 2.0), own=st.floats(0.0, 2.0))
def test_equal_columns_for_all_nodes_are_the_common_profile(common: float, own: float) -> None:
    names = ["b.1", "b.2", "b.3", "c.2"]
    everywhere = LoadColumns(LOADS, {f"load_pu.{n}": np.array([own]) for n in names}, "t.csv")
    assert everywhere.factors(0, common) == pytest.approx([own] * 3, abs=1e-12)
    assert not LoadColumns(LOADS, columns(load_pu=own), "t.csv")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"column load_pu\.hause: .*mean 'house'"):
        LoadColumns(LOADS, columns(load_pu__hause=1.0), "t.csv")
    with pytest.raises(ProfileError, match=r"no load is called 'b\.1'"):
        LoadColumns(LOADS, columns(load_kw__b__1=1.0), "t.csv")


def test_a_table_needs_no_common_column(tmp_path: Path) -> None:
    path = tmp_path / "loads.csv"
    path.write_text("time_s,load_kw.house\n0,1\n60,2\n")
    day = Profiles.read(path).sample([0.0, 60.0])
    own = LoadColumns(LOADS, day, str(path))
    assert [own.powers(k, np.ones(3), np.ones(3))[0][0] for k in (0, 1)] == [1.0, 2.0]
