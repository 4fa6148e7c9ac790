"""Runs from pools of processes, from several threads at once, and from a Jupyter kernel."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import feederate
from federates.errors import OutputError
from feederate import FeederateError, RunError, RunFolder, ScenarioError, WiringError
from grid_models.base.errors import FeederError

pytestmark = pytest.mark.scenario
STEPS = 15


def signal_bytes(run: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.folder / "signals").iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("alone") / "run"
    return feederate.run("voltvar-ieee13", steps=STEPS, placement="single", out=out, report=False)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("where", "placement"),
    [("threads", "single"), ("threads", None), ("fork", None), ("spawn", "single")],
)
def test_runs_side_by_side_give_the_same_bytes(
    alone: RunFolder, tmp_path: Path, where: str, placement: Any
) -> None:
    pool: Executor
    if where == "threads":
        pool = ThreadPoolExecutor(3)
    else:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(where))
    with pool:
        started = [
            pool.submit(
                feederate.run,
                "voltvar-ieee13",
                steps=STEPS,
                placement=placement,
                out=tmp_path / str(i),
                report=False,
            )
            for i in range(3 if where == "threads" else 2)
        ]
        wrong = pool.submit(feederate.run, "voltvar-iee13")
        for future in started:
            run = future.result(timeout=300)
            assert isinstance(run, RunFolder)
            assert signal_bytes(run) == signal_bytes(alone)
        with pytest.raises(ScenarioError, match="did you mean 'voltvar-ieee13'"):
            wrong.result(timeout=300)


_HANGING = """
import time
from feederate import Federate, Step

class Hanging(Federate):
    def step(self, time_s, inputs, mail):
        while time_s > 0.0:
            time.sleep(0.01)
        return Step({})
"""


@pytest.mark.filterwarnings("ignore:.*nothing is connected to it:UserWarning")
def test_a_step_that_hangs_in_a_thread_ends_its_run_only(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(_HANGING)
    (tmp_path / "hanging.yaml").write_text(
        "time: {duration_s: 60, step_s: 5, step_timeout_s: 1}\n"
        "grid: {model: ieee13}\n"
        "federates: {feeder: {kind: feeder}, own: {kind: 'hanging:Hanging'}}\n"
    )
    with ThreadPoolExecutor(1) as pool:
        hangs = pool.submit(
            feederate.run, tmp_path / "hanging.yaml", placement="single", out=tmp_path / "out"
        )
        with pytest.raises(RunError, match=r"own.*longer than step_timeout_s = 1 s"):
            hangs.result(timeout=120)
        assert pool.submit(int, "3").result(timeout=60) == 3  # the thread goes on


@pytest.mark.parametrize(
    "error",
    [
        FeederError("no source", where="Master.dss:3", expected="a circuit", nearest="x"),
        WiringError(["first", "second"], where="a.yaml"),
        OutputError("v_pu", "NaN", "numbers", 5.0),
        RunError("broke", federate="own", run_dir=Path("runs/x")),
        feederate.UnknownNameError("no signal", where="here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_pass_between_processes_whole(error: FeederateError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


# -- Jupyter --------------------------------------------------------------------------------------

_CELLS = {
    "run": """
import asyncio, os, signal, feederate
asyncio.get_running_loop()  # a notebook has one
handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
run = feederate.run("voltvar-ieee13", steps=15, out="run")
assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
run""",
    "threads": """
names = ["a", "b"]
work = [asyncio.to_thread(feederate.run, "voltvar-ieee13", steps=15, out=n) for n in names]
[run.status for run in await asyncio.gather(*work)]""",
    "devices": """
feederate.run("hil-inverter-voltvar", steps=3, out="hil").status""",
    "interrupt": """
def press(done, steps):
    if done >= 5:
        os.kill(os.getpid(), signal.SIGINT)

stopped = []
for placement in ("single", None):
    try:
        feederate.run("voltvar-ieee13", placement=placement, out=str(placement), on_progress=press)
    except feederate.RunInterruptedError as error:
        stopped.append(len(feederate.read_run(error.where).signals["feeder.v_pu"]) >= 5)
stopped""",
    "error": """
feederate.run("voltvar-iee13")""",
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the cells of a notebook that a fresh kernel has executed, and the folder `here`."""
    here = tmp_path_factory.mktemp("notebook")
    script = (
        "import nbformat, sys\n"
        "from nbclient import NotebookClient\n"
        "book = nbformat.read(sys.argv[1], as_version=4)\n"
        "NotebookClient(book, timeout=300, kernel_name='python3', allow_errors=True).execute()\n"
        "nbformat.write(book, sys.argv[1])\n"
    )
    import nbformat

    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(text.strip()) for text in _CELLS.values()]
    nbformat.write(book, here / "book.ipynb")
    folders = {name: str(here) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    subprocess.run(
        [sys.executable, "-P", "-c", script, "book.ipynb"],
        cwd=here,
        env=os.environ | folders,
        check=True,
        timeout=300,
    )
    done = nbformat.read(here / "book.ipynb", as_version=4)
    return {"here": here, **dict(zip(_CELLS, done.cells, strict=True))}


def only_output(cell: Any) -> Any:
    """Return a cell's only output: nothing else was printed."""
    assert len(cell.outputs) == 1, cell.outputs
    return cell.outputs[0]


def test_a_notebook_shows_a_run_and_prints_nothing(
    notebook: dict[str, Any], alone: RunFolder
) -> None:
    output = only_output(notebook["run"])
    assert "<b>OPTDIST-VC on IEEE 13" in output["data"]["text/html"]
    assert "href='run/report.html'" in output["data"]["text/html"]
    run = feederate.read_run(notebook["here"] / "run")
    assert signal_bytes(run) == signal_bytes(alone)


def test_threads_and_devices_run_beside_the_loop_of_a_notebook(notebook: dict[str, Any]) -> None:
    threads, devices = only_output(notebook["threads"]), only_output(notebook["devices"])
    assert threads["data"]["text/plain"] == "['finished', 'finished']"
    assert devices["data"]["text/plain"] == "'finished'"


def test_interrupting_a_cell_stops_the_run_and_keeps_what_it_recorded(
    notebook: dict[str, Any],
) -> None:
    assert only_output(notebook["interrupt"])["data"]["text/plain"] == "[True, True]"


def test_an_error_reads_in_a_notebook_as_on_the_command_line(notebook: dict[str, Any]) -> None:
    output = only_output(notebook["error"])
    assert output["ename"] == "ScenarioError"
    assert "did you mean 'voltvar-ieee13'?" in output["evalue"]
