from pathlib import Path

import pytest

from grid_models.base.errors import FeederError
from grid_models.catalog import load_feeder, shipped_feeders, shipped_folder


def test_every_shipped_feeder_has_a_line_of_description_and_loads() -> None:
    feeders = shipped_feeders()
    folders = (p for p in shipped_folder("ieee13").parent.iterdir() if p.is_dir())
    # A folder with machines or generators is a transmission system.
    systems = ("machines.csv", "generators.csv")
    here = {p.name for p in folders if not any((p / name).exists() for name in systems)}
    assert here <= set(feeders)
    assert set(feeders) >= {"ieee13", "ieee123"}
    for name, text in feeders.items():
        assert text
        assert "\n" not in text
        feeder = load_feeder(name.upper())
        assert feeder.name == name
        assert feeder.loads or feeder.ders


@pytest.mark.parametrize("name", shipped_feeders())
def test_every_shipped_feeder_solves_in_a_sane_voltage_range(name: str) -> None:
    from grid_models.catalog import open_circuit

    v_pu = open_circuit(name).v_pu()
    # With the IEEE loads in the range of the result sheets; without loads (DERs at rest) the
    # published taps lift an idle feeder: 1.0437 * 1.05 * capacitors.
    highest = 1.1 if load_feeder(name).loads else 1.15
    assert 0.9 < v_pu.min() <= v_pu.max() < highest


def test_a_table_folder_is_a_model() -> None:
    assert load_feeder(shipped_folder("ieee13")).node_labels == load_feeder("ieee13").node_labels


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        FeederError, match=r"no such feeder; expected one of .*did you mean 'ieee13"
    ):
        load_feeder("iee13")
    (tmp_path / "master.dss").write_text("clear\n")
    with pytest.raises(FeederError, match=r"no such file; .*did you mean '.*master\.dss'"):
        load_feeder(tmp_path / "mastr.dss")
