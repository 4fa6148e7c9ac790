"""Sweeps: what is run, that nothing is lost or doubled, and equal tables wherever they are made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import feederate
from federates.cli import call
from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.reports.sweep import write_sweep_page
from federates.runs.runner import run
from federates.runs.sweep import SweepResult, read_sweep, run_folder, sweep
from federates.runs.sweep_values import (
    as_seeds,
    parse_seeds,
    parse_sets,
    parse_values,
    read_table,
    table_of,
)
from federates.scenario.schema import load_scenario

GRID = {"grid.load_scale": [0.8, 1.2], "grid.profiles.kind": ["clear", "cloudy"]}
SCENARIO, STEPS, SEEDS = "voltvar-ieee13", 25, [3, 9]
WORDS = [
    *("--steps", str(STEPS), "--seeds", "3,9", "--workers", "2"),
    *("--keep", "signals"),
    *(word for key, vs in GRID.items() for word in ("--set", f"{key}={','.join(map(str, vs))}")),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    out = tmp_path_factory.mktemp("sweep") / "made"
    return sweep(SCENARIO, GRID, seeds=SEEDS, steps=STEPS, out=out, workers=2, keep="signals")


def table_bytes(folder: Path) -> bytes:
    return (folder / "results.parquet").read_bytes()


def signal_bytes(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "runs").glob("*/signals/*.parquet"))
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


# -- values --------------------------------------------------------------------------------------


@given(
    st.decimals(-100, 100, places=2),
    st.decimals("0.01", 5, places=2),
    st.integers(1, 50),
)
def test_a_range_has_the_written_decimals_and_leaves_the_stop_out(
    start: Decimal, step: Decimal, n: int
) -> None:
    stop = start + n * step
    values = parse_values(f"range({start},{stop},{step})", "")
    assert [Decimal(repr(v)) for v in values] == [start + i * step for i in range(n)]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("a,b,c", ["a", "b", "c"]),
        ("1, 2.5,on", [1, 2.5, True]),
        ("[a,b],[c]", [["a", "b"], ["c"]]),
        ("'a,b',{x: 1, y: 2}", ["a,b", {"x": 1, "y": 2}]),
        ("range(1,4)", [1, 2, 3]),
        ("range(1,0,-0.5)", [1.0, 0.5]),
    ],
)
def test_values(words: str, values: list[Any]) -> None:
    found = parse_sets([f"k={words}"])["k"]
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_seeds_are_a_count_or_a_list() -> None:
    assert parse_seeds("20") == 20
    assert parse_seeds("3,5") == [3, 5]
    assert parse_seeds("range(0,3)") == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "grid.lod_scale=1,2"], "did you mean 'load_scale'?"),
        (["--set", "load_scale=1,2"], "did you mean 'grid.load_scale'?"),
        (["--set", "grid.load_scale="], "a value is missing"),
        (["--set", "grid.load_scale=range(2,1)"], "is empty"),
        (["--set", "grid.load_scale=range(1,2,0)"], "is empty"),
        (["--set", "grid.load_scale=range(a,b)"], "holds no numbers"),
        (["--set", "grid.*=1,2"], "is a pattern"),
        (["--set", "grid.load_scale"], "not of the form"),
        (["--set", "grid.load_scale=1,-2"], "--set grid.load_scale=-2"),
        (["--set", "grid.load_scale=1,1"], "given twice"),
        (["--set", "seed=1,2"], "--seeds"),
        (["--set", "grid.load_scale=1", "--set", "grid.load_scale=2"], "given twice"),
        (["--seeds", "0"], "at least 1"),
        (["--seeds", "many"], "a count, as 20"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_run(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["sweep", SCENARIO, "--out", str(tmp_path / "s"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s" / "runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid.load_scale,load_scale\n1,2\n", "row 2: .*did you mean 'grid.load_scale'"),
        ("grid.load_scale\n1\nx\n", "row 3: .*found 'x'"),
        ("grid.load_scale,grid.load_scale\n1,2\n", "two columns"),
        ("grid.load_scale,band.v_max_pu\n1\n", "row 2: 1 cells; expected 2"),
        ("grid.load_scale\n", "has no rows"),
    ],
)
def test_a_wrong_table_is_refused_by_row(text: str, said: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(ScenarioError, match=said):
        sweep(SCENARIO, table=table, steps=1, out=tmp_path / "s")


def test_an_empty_cell_leaves_the_scenarios_own_value(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("grid.load_scale,grid.profiles.kind\n0.5,cloudy\n,clear\n")
    assert read_table(table) == [
        {"grid.load_scale": 0.5, "grid.profiles.kind": "cloudy"},
        {"grid.profiles.kind": "clear"},
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([1, 2], "is a list; expected a CSV file, a DataFrame or a list of dicts"),
        ({"grid.load_scale": [1, 2]}, "is a dict"),
        (pd.Series([1, 2]), "is a Series"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
        (pd.DataFrame({"a": [pd.Timestamp(0)]}), "row 1, column 'a': .* cannot be a value"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, said: str) -> None:
    with pytest.raises(ScenarioError, match=f"^table: {said}"):
        table_of(table)


def test_whole_numbers_beside_missing_ones_stay_whole() -> None:
    found = table_of(pd.DataFrame({"a": [2, np.nan], "b": [0.5, np.nan], "c": [1.0, 2.0]}))
    assert repr(found) == "[{'a': 2, 'b': 0.5, 'c': 1.0}, {'c': 2.0}]"
    assert table_of(pd.DataFrame({"a": [np.array([1, 2]), None]})) == [{"a": [1, 2]}, {}]


def test_seeds_may_be_numbers_of_numpy() -> None:
    assert as_seeds(np.int64(3)) == 3
    assert as_seeds(np.arange(2)) == as_seeds(range(2)) == [0, 1]
    for wrong in (2.5, True, [1, 1], [], ["a"], [-1]):
        with pytest.raises(ScenarioError, match=r"^seeds: "):
            as_seeds(wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"grid": ["a"]}, "grid: is a list; expected a dict"),
        ({"keep": "all"}, "keep: found 'all'; expected 'summary' or 'signals'"),
        ({"workers": "2"}, "workers: '2' workers; expected at least 1"),
        ({"steps": 0}, "steps: found 0; expected a whole number from 1"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=said):
        sweep(SCENARIO, **{"grid": {"grid.load_scale": [1]}, "out": tmp_path / "s", **wrong})
    assert not (tmp_path / "s").exists()


# -- results -------------------------------------------------------------------------------------


def test_every_point_has_every_seed(made: SweepResult) -> None:
    rows = made.rows
    assert [row["run"] for row in rows] == list(range(8))
    assert {row["status"] for row in rows} == {"finished"}
    points = [(r["grid.load_scale"], r["grid.profiles.kind"], r["seed"]) for r in rows]
    assert points == [(a, b, s) for a in (0.8, 1.2) for b in ("clear", "cloudy") for s in SEEDS]
    frame = made.results
    assert frame.loc[3, "folder"] == "runs/00003"
    assert (frame["stepping_s"] > 0).all()
    assert "wall_s" not in pq.read_schema(made.folder / "results.parquet").names


def test_a_run_of_a_sweep_is_the_run_of_its_command(made: SweepResult, tmp_path: Path) -> None:
    # Run 6 shares its process and its feeder with others.
    options = made.plan.options(6)
    result = run(options.load(), options, out=tmp_path / "alone")
    row = made.rows[6]
    assert {key: row[key] for key in result.metrics} == result.metrics
    ours, theirs = (f / "signals" for f in (tmp_path / "alone", run_folder(made.folder, 6)))
    names = sorted(path.name for path in ours.iterdir())
    assert len(names) > 3
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    command = json.loads((theirs.parent / "manifest.json").read_text())["command"]
    assert command.startswith(f"feederate run {SCENARIO} ")
    assert "--seed 3" in command


def test_a_summary_is_kept_without_signals(made: SweepResult, tmp_path: Path) -> None:
    small = sweep(SCENARIO, {"grid.load_scale": [1.2]}, seeds=[9], steps=STEPS, out=tmp_path / "s")
    kept = {path.name for path in run_folder(small.folder, 0).iterdir()}
    assert kept == {"manifest.json", "summary.json", "events.jsonl", "row.json"}
    row = small.rows[0]
    same = next(r for r in made.rows if r["run"] == 5)
    assert row["losses_kwh"] == same["losses_kwh"]


def test_failures_are_rows_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "breaks.py").write_text(
        "import os\n"
        "from controllers.baselines.no_control import NoControl\n"
        "class Breaks(NoControl):\n"
        "    def __init__(self, site, hosted, *, how):\n"
        "        super().__init__(site, hosted)\n"
        "        self.how = how\n"
        "    @classmethod\n"
        "    def agents(cls, site, **options):\n"
        "        return NoControl.agents(site)\n"
        "    def step(self, time_s, inputs, mail):\n"
        "        if self.how == 'raise': raise ValueError('as told')\n"
        "        if self.how == 'die': os.kill(os.getpid(), 9)\n"
        "        return super().step(time_s, inputs, mail)\n"
    )
    scenario = tmp_path / "s.yaml"
    text = (Path("co-sim-configs") / "voltvar-ieee13.yaml").read_text()
    text = text.replace("controller: optdist-vc", "controller: breaks:Breaks")
    scenario.write_text(text.replace("{margin_pu: 0.006}", "{how: fine}"))
    words = ["sweep", str(scenario), "--steps", "3", "--out", str(tmp_path / "o"), "--workers", "1"]
    words += ["--set", "federates.volt_var.options.how=fine,raise,die,good", "--json"]
    assert call(words) == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["finished"], said["failed"]) == (2, 2)
    rows = read_sweep(tmp_path / "o").rows
    assert [row["status"] for row in rows] == ["finished", "failed", "failed", "finished"]
    assert rows[1]["reason"] == "volt_var: ValueError: as told"
    assert "SIGKILL" in rows[2]["reason"]
    assert "as told" in (tmp_path / "o" / "sweep.html").read_text()


# -- going on ------------------------------------------------------------------------------------


# The controller of SCENARIO, which goes on only while few runs have ended.
HELD = """\
import os, time
from pathlib import Path
from controllers.optdist.controller import OptdistVc
class Held(OptdistVc):
    def step(self, time_s, inputs, mail):
        folder, n = os.environ.get("HELD", "runs:99").rsplit(":", 1)
        while len(list(Path(folder).glob("runs/*/row.json"))) >= int(n):
            time.sleep(0.01)
        return super().step(time_s, inputs, mail)
"""


def start(words: list[str], folder: Path, hold_at: int) -> subprocess.Popen[str]:
    """Start a command, and return when `hold_at` runs of the sweep in `folder` have ended."""
    program = "from federates.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HELD": f"{folder}:{hold_at}"},
    )
    deadline = time.monotonic() + 60
    while len(list(folder.glob("runs/*/row.json"))) < hold_at:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def workers_of(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False


def test_a_sweep_that_was_ended_goes_on_without_loss(made: SweepResult, tmp_path: Path) -> None:
    out, scenario = tmp_path / "s", tmp_path / "held.yaml"
    text = (Path("co-sim-configs") / f"{SCENARIO}.yaml").read_text()
    scenario.write_text(text.replace("controller: optdist-vc", "controller: held:Held"))
    (tmp_path / "held.py").write_text(HELD)
    words, done = ["sweep", str(scenario), *WORDS, "--out", str(out)], 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process = start(words, out, done + 1)
        workers = workers_of(process.pid)
        os.kill(process.pid, number)
        process.communicate(timeout=30)
        assert process.returncode == code
        deadline = time.monotonic() + 20
        while any(map(alive, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/row.json")}
        assert done < len(before) < 8
        done = len(before)
    assert call(words) == 0
    assert table_bytes(out) == table_bytes(made.folder)
    assert signal_bytes(out) == signal_bytes(made.folder)
    assert all(path.stat().st_mtime_ns == since for path, since in before.items())


def test_another_sweep_in_the_folder_is_refused(made: SweepResult) -> None:
    before = table_bytes(made.folder)
    same: dict[str, Any] = {"seeds": SEEDS, "steps": STEPS, "out": made.folder, "keep": "signals"}
    for grid, changed, said in (
        ({"grid.load_scale": [0.8]}, {}, "keys was"),
        (GRID | {"grid.load_scale": [0.8, 1.3]}, {}, "the grid was"),
        (GRID, {"seeds": 3}, "seeds was"),
        (GRID, {"keep": "summary"}, "keep was"),
    ):
        with pytest.raises(ScenarioError, match=f"holds another sweep: {said}"):
            sweep(SCENARIO, grid, **same | changed)
    assert table_bytes(made.folder) == before


def test_a_changed_scenario_or_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (Path("co-sim-configs") / "voltvar-ieee13.yaml").read_text()
    (tmp_path / "own.py").write_text(
        "from controllers.baselines.no_control import NoControl as Own\n"
    )
    text = text.replace("controller: optdist-vc", "controller: own:Own")
    path.write_text(text.replace("options: {margin_pu: 0.006}", ""))
    sweep(path, steps=1, out=tmp_path / "s")
    sweep(path, steps=1, out=tmp_path / "s")
    (tmp_path / "own.py").write_text(
        "from controllers.baselines.no_control import NoControl as Own\n#\n"
    )
    with pytest.raises(ScenarioError, match="the hash of own:Own was"):
        sweep(path, steps=1, out=tmp_path / "s")
    path.write_text(path.read_text() + "\nband: {v_max_pu: 1.04}\n")
    with pytest.raises(ScenarioError, match="the scenario's hash was"):
        sweep(path, steps=1, out=tmp_path / "s")


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ScenarioError, match="holds no sweep"):
        sweep(SCENARIO, steps=1, out=tmp_path)


# -- a cluster -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster_gives_the_same_bytes(made: SweepResult, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        found = sweep(
            SCENARIO, GRID, seeds=SEEDS, steps=STEPS, out=tmp_path / "s", keep="signals",
            dask=cluster.scheduler_address,
        )  # fmt: skip
    assert table_bytes(found.folder) == table_bytes(made.folder)
    assert signal_bytes(found.folder) == signal_bytes(made.folder)
    assert len({row["process"] for row in found.rows}) == 2


# -- the page ------------------------------------------------------------------------------------


def test_the_page_links_the_extreme_runs(made: SweepResult) -> None:
    page = write_sweep_page(made).read_text()
    assert call(["report", str(made.folder)]) == 0
    assert (made.folder / "sweep.html").read_text() == page
    losses = {row["run"]: row["losses_kwh"] for row in made.rows}
    for run_number in (min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)):
        assert f'href="runs/{run_number:05d}/report.html"' in page
        assert (run_folder(made.folder, run_number) / "report.html").is_file()
    figures = [json.loads(part.partition("</script>")[0]) for part in
               page.split('<script type="application/json">')[1:]]  # fmt: skip
    chart = next(f for f in figures if f["title"] == "Losses")
    assert chart["x"] == [0.8, 1.2]
    cloudy = next(b for b in chart["bands"] if "cloudy" in b["name"])
    parts = {part["name"]: part["values"] for part in cloudy["parts"]}
    runs = [losses[6], losses[7]]
    assert parts["lowest"][1] == min(runs)
    assert parts["highest"][1] == max(runs)
    assert parts["mean"][1] == pytest.approx(sum(runs) / 2)


def test_signals_of_a_run_are_read_as_those_of_any_run(made: SweepResult) -> None:
    time_s, labels, values = read_signal(made.run(0).folder / "signals", "feeder.v_pu")
    assert len(time_s) == STEPS
    assert values.shape == (STEPS, len(labels))
    with pytest.raises(ScenarioError, match="a number from 0 to 7"):
        made.run(8)


def test_a_dask_scheduler_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("federates.runs.sweep_workers._DASK_TIMEOUT_S", 0.2)
    with pytest.raises(ScenarioError, match="no Dask scheduler answers"):
        sweep(SCENARIO, steps=1, out=tmp_path / "s", dask="tcp://127.0.0.1:1")


def test_the_scenarios_seed_comes_first(tmp_path: Path) -> None:
    found = sweep(SCENARIO, seeds=2, steps=1, out=tmp_path / "s")
    first = load_scenario(SCENARIO).seed
    assert [row["seed"] for row in found.rows] == [first, first + 1]


def test_a_loaded_scenario_is_swept_as_it_was_loaded(tmp_path: Path) -> None:
    loaded = feederate.load(SCENARIO, set={"band": {"v_max_pu": 1.04}}, seed=7)
    table = pd.DataFrame({"grid.load_scale": [np.nan, 1.2], "record.every": [1, 2]})
    found = feederate.sweep(
        loaded, table=table, set={"time": {"duration_s": 3600}}, steps=2, out=tmp_path / "s"
    )
    frame = found.results
    assert frame["seed"].tolist() == [7, 7]
    assert frame["band.v_max_pu"].tolist() == [1.04, 1.04]
    assert frame["time.duration_s"].tolist() == [3600, 3600]
    assert np.isnan(frame["grid.load_scale"][0])
    manifest = found.run(1).manifest["scenario"]
    assert (manifest["grid"]["load_scale"], manifest["record"]["every"]) == (1.2, 2)
    assert (tmp_path / "s" / "sweep.html").is_file()
    again = feederate.read_sweep(tmp_path / "s")
    assert again.plan == found.plan
    assert "2 of 2 runs" in again._repr_html_()
