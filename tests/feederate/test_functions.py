"""The functions of `feederate`: run, load, check, read_run, compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feederate
from federates.core.signals import read_signal
from federates.scenario.overrides import apply_override, override_words
from feederate import AttackRun, FeederateError, RunError, RunFolder, ScenarioError


def test_a_run_has_metrics_signals_events_and_grid(short_run: RunFolder) -> None:
    assert short_run.status == "finished"
    assert 1.0 < short_run.metrics["v_max_pu"] < 1.2
    frame = short_run.signals["feeder.v_pu"]
    time_s, labels, values = read_signal(short_run.folder / "signals", "feeder.v_pu")
    assert frame.index.name == "time_s"
    assert list(frame.columns) == list(labels)
    assert frame.index.tolist() == time_s.tolist() == [5.0 * k for k in range(30)]
    np.testing.assert_array_equal(frame.to_numpy(), values)
    assert short_run.signals.arrow("feeder.v_pu").column_names == ["time_s", *labels]
    assert set(short_run.events["event"]) >= {"started", "finished"}
    # Buses called by numbers stay text, as in the labels.
    assert set(short_run.grid["buses"]["bus"]) >= {"650", "671"}
    assert len(short_run.labels) == 0


def test_overrides_and_seed_reach_the_scenario(short_run: RunFolder) -> None:
    scenario = short_run.manifest["scenario"]
    assert scenario["time"]["start_s"] == 43200.0
    assert scenario["grid"]["ders"][0]["total_kw"] == 3000
    assert short_run.manifest["seed"] == 7
    assert "--set grid.ders.0.total_kw=3000 --seed 7 --steps 30" in short_run.manifest["command"]


def test_a_run_shows_itself_in_a_notebook(short_run: RunFolder) -> None:
    page = short_run._repr_html_()
    for part in ("OPTDIST-VC on IEEE 13", "finished", "v_max_pu", "report.html"):
        assert part in page
    assert "finished, 30 steps" in repr(short_run)
    assert short_run.report is not None
    assert short_run.signals._ipython_key_completions_() == list(short_run.signals)


def test_an_unknown_signal_names_the_nearest(short_run: RunFolder) -> None:
    with pytest.raises(FeederateError, match=r"did you mean 'feeder\.v_pu'"):
        short_run.signals["feeder.vpu"]
    assert "feeder.vpu" not in short_run.signals
    assert short_run.signals.get("feeder.vpu") is None


def test_read_run_takes_text_and_folders_inside(short_run: RunFolder) -> None:
    for place in (str(short_run.folder), short_run.folder / "signals"):
        again = feederate.read_run(place)
        assert again.folder == short_run.folder
        assert again.metrics == short_run.metrics


@pytest.mark.parametrize("keep", [True, False])
def test_read_run_reads_what_a_killed_run_left(
    short_run: RunFolder, tmp_path: Path, keep: bool
) -> None:
    import pyarrow as pa

    folder = tmp_path / "killed"
    shutil.copytree(short_run.folder, folder)
    table = short_run.signals.arrow("feeder.v_pu")
    (folder / "signals" / "feeder.v_pu.parquet").unlink()
    stream = folder / "signals" / "feeder.v_pu.arrows"
    with pa.OSFile(str(stream), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=10):
            writer.write_batch(batch)
    whole = stream.read_bytes()
    stream.write_bytes(whole[: len(whole) * 3 // 4] if keep else b"")
    (folder / "summary.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))

    killed = feederate.read_run(folder)
    assert killed.status == "not finished"
    assert killed.metrics == {}
    frame = killed.signals["feeder.v_pu"]
    assert len(frame) == (20 if keep else 0)
    assert frame.equals(short_run.signals["feeder.v_pu"].iloc[:20]) or not keep
    assert "not finished" in killed._repr_html_()


def test_read_run_says_what_a_folder_is_not(short_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"missing: no such folder; expected the folder of"):
        feederate.read_run(tmp_path / "missing")
    with pytest.raises(ScenarioError, match=r"not the folder of a run; expected a folder with"):
        feederate.read_run(tmp_path)
    shutil.copytree(short_run.folder, tmp_path / "baseline")
    with pytest.raises(ScenarioError, match="but of 1; expected one of its folders: baseline"):
        feederate.read_run(tmp_path)


@pytest.mark.filterwarnings("ignore:.*nothing is connected to it:UserWarning")
def test_a_failed_run_raises_and_stays_readable(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from feederate import Federate, Step\n"
        "class Failing(Federate):\n"
        "    def step(self, time_s, inputs, mail):\n"
        "        if time_s > 0.0:\n"
        "            raise ValueError('broken on purpose')\n"
        "        return Step({})\n"
    )
    (tmp_path / "failing.yaml").write_text(
        "time: {duration_s: 60, step_s: 5}\n"
        "grid: {model: ieee13}\n"
        "federates: {feeder: {kind: feeder}, own: {kind: 'failing:Failing'}}\n"
    )
    with pytest.raises(RunError, match="broken on purpose") as error:
        feederate.run(tmp_path / "failing.yaml", placement="single", out=str(tmp_path / "out"))
    assert error.value.run_dir is not None
    failed = feederate.read_run(error.value.run_dir)
    assert failed.status == "failed"
    assert "broken on purpose" in failed.reason
    assert failed.signals["feeder.v_pu"].index.tolist() == [0.0]
    assert failed.report is not None


def test_a_folder_in_use_is_refused_as_our_error(short_run: RunFolder) -> None:
    with pytest.raises(FeederateError, match="exists already; expected the path of a new or empty"):
        feederate.run("voltvar-ieee13", steps=1, out=short_run.folder)


def test_load_changes_a_loaded_scenario_further() -> None:
    first = feederate.load("voltvar-ieee123", set={"time.step_s": 10}, defence="late-mail")
    assert feederate.load(first) is first
    second = feederate.load(first, set={"grid": {"ders": {0: {"total_kw": 10}}}}, seed=3)
    assert second.time.step_s == 10.0
    assert second.seed == 3
    assert second.grid.ders[0]["total_kw"] == 10
    assert second.given.defence == "late-mail"
    assert feederate.load(second, attack="link-jamming").attack_spec is not None


def test_a_wrong_override_names_its_key() -> None:
    with pytest.raises(ScenarioError, match=r"time\.step_z.*did you mean 'step_s'"):
        feederate.load("voltvar-ieee13", set={"time": {"step_z": 5}})
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(ScenarioError, match=r"set: time\.step_s: .* cannot be set; expected"):
            feederate.load("voltvar-ieee13", set={"time": {"step_s": value}})

    with pytest.raises(ScenarioError, match="set: is a str; expected a dict"):
        feederate.load("voltvar-ieee13", set="time.step_s=5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"placement": "sharde"}, "placement: found 'sharde'.*did you mean 'shared'"),
        ({"steps": 0}, "steps: found 0; expected a whole number from 1"),
        ({"steps": 2.5}, "steps: found 2.5; expected a whole number from 1"),
        ({"steps": "20"}, "steps: found '20'; expected a whole number from 1"),
        ({"scenario": None}, "scenario: is a NoneType; expected a str or a Path"),
        ({"attack": 5}, "attack: is a int; expected a str or a Path"),
        ({"out": 3}, "out: is a int; expected a str or a Path"),
        ({"arm": "meter"}, "no device is called 'meter'"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_run(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        feederate.run(**{"scenario": "voltvar-ieee13", **wrong})


def test_numbers_of_numpy_are_steps(tmp_path: Path) -> None:
    found = feederate.run(
        "voltvar-ieee13",
        steps=np.int64(2),  # type: ignore[arg-type]
        placement="single",
        report=False,
        out=tmp_path / "run",
    )
    assert found.summary["steps"] == 2


def test_names_may_be_a_single_one() -> None:
    with pytest.raises(ScenarioError, match="no defence is called 'nope'"):
        feederate.attack_run("voltvar-ieee123", "link-jamming", defences="nope")


def test_one_run_is_no_list_of_runs(short_run: RunFolder) -> None:
    for one in (short_run, short_run.folder, str(short_run.folder)):
        with pytest.raises(ScenarioError, match="runs: is one run; expected a list or dict"):
            feederate.compare(one)  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match="folder: is a NoneType"):
        feederate.read_run(None)  # type: ignore[arg-type]


def test_check_describes_the_wiring() -> None:
    found = feederate.check("voltvar-ieee13", set={"federates.volt_var.split": 2})
    assert {row.name: row.count for row in found.federates} == {"feeder": 1, "volt_var": 2}


def test_compare_is_a_table_of_metrics(short_run: RunFolder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(short_run.folder, other)
    table = feederate.compare([short_run, str(other)])
    assert list(table.columns) == ["run", "other"]
    named = feederate.compare({"a": short_run, "b": other}, page=tmp_path / "page.html")
    assert list(named.columns) == ["a", "b"]
    assert table["run"]["v_max_pu"] == short_run.metrics["v_max_pu"]
    assert (tmp_path / "page.html").is_file()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> AttackRun:
    return feederate.attack_run(
        feederate.load("voltvar-ieee13", set={"grid.ders.0.total_kw": 3000}),
        "false-voltage",
        set={"attack.steps.0": {"trigger": {"at_s": 60}, "duration_s": 60}},
        steps=30,
        placement="single",
        out=tmp_path_factory.mktemp("attacked") / "runs",
    )


@pytest.mark.scenario
def test_an_attack_run_is_runs_by_state_and_their_metrics(attacked: AttackRun) -> None:
    assert list(attacked) == list(attacked.metrics.columns) == ["baseline", "attacked"]
    assert attacked["attacked"].manifest["scenario"]["grid"]["ders"][0]["total_kw"] == 3000
    assert attacked.metrics["attacked"]["attacked_values_count"] > 0
    assert attacked.report is not None
    assert "attacked_values_count" in attacked._repr_html_()
    assert attacked.remarks == []
    with pytest.raises(KeyError, match="did you mean 'baseline'"):
        attacked["base"]


@pytest.mark.scenario
def test_labels_say_which_values_an_attack_changed(attacked: AttackRun) -> None:
    labels = attacked["attacked"].labels["feeder.v_pu"]
    assert labels.index[labels["under_attack"] == 1].tolist() == [60.0 + 5.0 * k for k in range(12)]
    assert labels.attrs["steps"] == {"0": "none", "1": "bias"}
    assert list(attacked["attacked"].seen) == ["feeder.v_pu"]
    assert len(attacked["baseline"].labels) == len(attacked["baseline"].seen) == 0


def test_an_attack_that_does_not_fit_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="names no attack"):
        feederate.attack_run("voltvar-ieee13", out=tmp_path / "out")
    with pytest.raises(ScenarioError, match="did you mean 'false-voltage'"):
        feederate.attack_run("voltvar-ieee13", "false-volt", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# YAML takes no control characters.
_TEXT = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=8)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT
_VALUES = st.recursive(
    _SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner),
    max_leaves=5,
)


@given(_VALUES.filter(lambda value: not isinstance(value, dict)))
def test_every_plain_value_survives_the_way_through_an_override(value: Any) -> None:
    data: dict[str, Any] = {}
    (word,) = override_words({"a": {"b": value}})
    apply_override(data, word)
    assert data == {"a": {"b": value}}
    assert type(data["a"]["b"]) is type(value)


def test_numbers_of_numpy_and_paths_are_plain() -> None:
    changes = {"a": np.int64(3), "b": np.array([1.5, 2.5]), "c": Path("x/y.dss"), "d": (1, 2)}
    assert override_words(changes) == ("a=3", "b=[1.5, 2.5]", 'c="x/y.dss"', "d=[1, 2]")
