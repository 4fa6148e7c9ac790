"""Where a scenario's grid finds the user's files."""

from pathlib import Path

import pytest

from federates.core.sites import GridSite
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError

FEEDER = """clear
new circuit.yard basekv=11 bus1=src
new line.one bus1=src bus2=mid length=1 units=km r1=0.3 x1=0.3 r0=0.6 x0=0.9
new load.m bus1=mid kv=11 kw=700 kvar=150
set voltagebases=[11]
calcvoltagebases
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "Master.dss").write_text(FEEDER)
    (tmp_path / "day.csv").write_text("time_s,load_pu\n0,0.25\n86400,0.25\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def _site(*overrides: str) -> GridSite:
    return GridSite(load_scenario("voltvar-ieee123-none", list(overrides)))


def test_home_is_expanded(folder: Path) -> None:
    site = _site("grid.model=~/study/Master.dss", "grid.profiles.path=~/day.csv")
    assert site.model == folder / "study" / "Master.dss"
    assert site.feeder.name == "yard"
    assert site.profiles().sample([0.0])["load_pu"].tolist() == [0.25]


def test_a_folder_of_opendss_files_is_explained(folder: Path) -> None:
    with pytest.raises(FeederateError) as caught:
        _ = _site("grid.model=~/study").feeder
    assert "grid.model=~/study: grid model" in str(caught.value)
    assert f"did you mean '{folder}/study/Master.dss'?" in str(caught.value)
