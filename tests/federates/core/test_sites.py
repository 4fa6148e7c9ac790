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


SHAPED = FEEDER.replace(
    "set voltagebases",
    "new loadshape.day npts=2 interval=12 mult=(0.4 0.8)\nedit load.m daily=day\nset voltagebases",
)


def test_a_file_is_compiled_once_for_feeder_and_circuit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_models.opendss import script

    compiled = []
    original = script.compile_master
    monkeypatch.setattr(
        script, "compile_master", lambda *given: compiled.append(given) or original(*given)
    )
    site = _site("grid.model=~/study/Master.dss")
    feeder = site.feeder
    circuit = site.take_circuit()
    assert len(compiled) == 1
    assert circuit.der_names == tuple(der.name for der in feeder.ders)
    assert site.regulators == "auto"
    assert circuit.tolerance_pu == 1e-7


def test_load_shapes_of_the_file_are_the_day_of_all(folder: Path) -> None:
    (folder / "study" / "Master.dss").write_text(SHAPED)
    site = _site("grid.model=~/study/Master.dss", "grid.profiles.kind=master", "time.step_s=3600")
    circuit = site.take_circuit()
    day = site.profiles().sample([0.0, 43_200.0])
    assert day["load_pu"] == pytest.approx([0.8, 0.4])
    short = ("grid.profiles.kind=master", "time.duration_s=600", "time.step_s=60")
    assert len(_site("grid.model=~/study/Master.dss", *short).profiles()) == 10
    for time_s, power_kw in ((0.0, 560.0), (43_200.0, 280.0)):
        circuit.set_time(time_s)
        circuit.solve()
        assert circuit.source_kw_kvar()[0] - circuit.losses_kw() == pytest.approx(power_kw, abs=0.1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["grid.model=ieee13"], r"grid\.profiles\.kind=master.*load shapes of an OpenDSS file"),
        (["grid.profiles.path=day.csv"], "profiles without a path"),
        (["grid.load_diversity=0.2"], r"grid\.load_diversity=0\.2.*their own shapes"),
    ],
)
def test_what_the_files_own_series_does_not_go_with_is_refused(
    folder: Path, overrides: list[str], words: str
) -> None:
    (folder / "study" / "Master.dss").write_text(SHAPED)
    with pytest.raises(FeederateError, match=words):
        _ = _site("grid.model=~/study/Master.dss", "grid.profiles.kind=master", *overrides).feeder


def test_who_runs_the_ders_of_a_shipped_feeder_is_not_asked() -> None:
    notes = _site("grid.model=ieee13", "grid.file_ders=none").feeder.notes
    assert notes == ("grid.file_ders is not used: grid.model is no OpenDSS file",)
    assert _site("grid.model=ieee13").feeder.notes == ()


def test_the_weather_of_the_generated_day_may_be_given() -> None:
    plain, hot = (
        _site("time.step_s=900"),
        _site(
            "time.step_s=900",
            "grid.profiles={kind: clear, temp_mean_c: 30, temp_amplitude_k: 10, day_of_year: 355}",
        ),
    )
    usual, found = (site.profiles() for site in (plain, hot))
    # The daily wave has a mean of 30 and goes up by 10 K; weather noise is below 1 K.
    assert found["temp_c"].mean() == pytest.approx(30.0, abs=1.0)
    assert found["temp_c"].max() == pytest.approx(40.0, abs=1.0)
    assert found["irradiance_pu"].max() < 0.6 < usual["irradiance_pu"].max()
    assert (found["load_pu"] == usual["load_pu"]).all()
    assert (found["price_per_kwh"] == usual["price_per_kwh"]).all()


def test_the_outlook_is_read_once() -> None:
    grid = _site()
    assert grid.outlook() is grid.outlook()
