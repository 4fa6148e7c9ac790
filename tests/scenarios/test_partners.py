"""A handful of benchmarks/partners.py, which has all faulty partners, and the examples."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import partners  # benchmarks/partners.py
import pytest

from federates.errors import RunError, ScenarioError
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

DOCS = Path(__file__).parents[2] / "docs"
CASES = {case.name: case for case in partners.cases()}


@pytest.mark.parametrize(
    "name",
    [
        "publishes in another unit",
        "falls silent after 5 steps",
        "leaves after 5 steps",
        "hangs in a step",
        "another host has another seed",
        "a recorder that nobody declared, from the start",
    ],
)
def test_faulty_partner(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What must happen, not how fast: the seconds are the benchmark's subject.
    monkeypatch.setattr(partners, "LIMIT_S", 600.0)
    assert partners.measure(CASES[name], tmp_path).problems == []


def test_fifteen_faults_are_in_the_table() -> None:
    page = (DOCS / "faults.md").read_text()
    rows = re.findall(
        r"^\| (.+?) \| (\d+) \| ([\d.]+) \|", page.partition("partners: begin")[2], re.M
    )
    assert {name: int(code) for name, code, _ in rows} == {c.name: c.code for c in CASES.values()}
    assert len(rows) >= 15
    assert all(float(seconds) <= 60.0 for *_, seconds in rows)


@pytest.mark.parametrize("placement", ["shared", "thread"])
def test_a_program_that_never_joins_is_waited_for_aloud(
    example, tmp_path: Path, placement: str
) -> None:
    scenario = load_scenario(
        example("plain_pyhelics.yaml"),
        ["federates.lab.command=null", "time.join_timeout_s=2.5"],
    )
    said: list[str] = []
    with pytest.raises(RunError, match=r"federate 'lab': not ready within .*core type tcp_ss"):
        run(scenario, placement=placement, out=tmp_path / "run", on_warning=said.append)
    waiting = r"since 2 s: waiting for 'lab' at broker tcp://127\.0\.0\.1:\d+, core type tcp_ss"
    assert re.match(waiting, said[-1])


def test_only_without_another_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"--only: .*expected with it --listen"):
        run(load_scenario("voltvar-ieee13"), only=("feeder",), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_nothing_reads_is_recorded_and_a_warning(ran, example, tmp_path: Path) -> None:
    path = example("plain_pyhelics.yaml")
    text = path.read_text().replace("  - lab.q_set_kvar -> feeder.q_set_kvar\n", "")
    path.write_text(text)
    finished = ran(path, placement="shared")
    assert finished.values("lab.q_set_kvar").shape == (30, 1)
    assert finished.manifest["warnings"] == [
        "lab: nothing reads its output 'q_set_kvar'; it is only recorded"
    ]


def test_a_plain_pyhelics_program_reads_voltages_and_commands_inverters(ran, example) -> None:
    path = example("plain_pyhelics.yaml")
    runs = [ran(path, placement=p) for p in ("shared", "thread", "process")]
    assert "lab.q_set_kvar.parquet" in runs[0].digests()  # its outputs are recorded
    assert runs[0].digests() == runs[1].digests() == runs[2].digests()
    v_pu, q_kvar = runs[0].values("feeder.v_pu"), runs[0].values("feeder.q_kvar")[:, 0]
    assert len(q_kvar) == 30
    # What the program computes from the voltages of step k acts in step k + 1; recomputed here.
    error_pu = np.array([1.0 - row[row > 0.0].mean() for row in v_pu])
    assert q_kvar[0] == 0.0
    assert q_kvar[1:] == pytest.approx(5000.0 * error_pu[:-1], rel=1e-12)


def test_helics_recorder_writes_a_topic(ran, example) -> None:
    path = example("helics_recorder.yaml")
    import_kw = ran(path, placement="shared").values("feeder.import_kw")[:, 0]
    rows = [line.split() for line in path.with_name("recorded.txt").read_text().splitlines()[1:]]
    recorded = [float(row[-1].strip('"[]')) for row in rows]
    assert recorded == pytest.approx(import_kw, rel=1e-4)


def test_a_runner_file_of_helics_starts_run_and_script(example, tmp_path: Path) -> None:
    path = example("helics_run.json")
    port = _free_port()
    path.write_text(
        path.read_text().replace("23500", str(port)).replace('run"', 'run --no-report"')
    )
    bin_dir = Path(sys.executable).parent
    done = subprocess.run(
        [sys.executable, "-m", "helics.cli", "run", f"--path={path}"],
        cwd=path.parent,
        env=os.environ | {"PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + (path.parent / "feederate.log").read_text()
    assert json.loads((path.parent / "run" / "summary.json").read_text())["status"] == "finished"


def test_the_script_of_the_page_joins_over_a_forwarded_port(
    command_line, example, forwarded, tmp_path: Path
) -> None:
    page = (DOCS / "federates.md").read_text()
    script = re.search(r"as a program of its own -->\n```python\n(.*?)```", page, re.DOTALL)
    assert script is not None
    assert len([line for line in script[1].splitlines() if line]) <= 20
    (tmp_path / "partner.py").write_text(script[1])
    port = _free_port()
    process = command_line(
        ["run", str(example("plain_pyhelics.yaml")), "--set", "federates.lab.command=null",
         "--listen", f"tcp://127.0.0.1:{port}", "--no-report", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    partners.wait_for(port)  # a tunnel accepts connections while nobody listens behind it
    with forwarded(port) as near:
        lab = subprocess.Popen(
            [sys.executable, str(tmp_path / "partner.py"), f"tcp://127.0.0.1:{near}"],
            stdout=subprocess.DEVNULL,
        )
        _, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
        assert lab.wait(60) == 0
    assert (tmp_path / "out" / "signals" / "lab.q_set_kvar.parquet").is_file()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
