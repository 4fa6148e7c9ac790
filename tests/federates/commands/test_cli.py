"""The command line: exit codes, clean standard output, plain words, light imports."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from federates import cli
from federates.cli import call
from federates.commands import terminal as cli_terminal
from federates.errors import RunError

COMMAND = [sys.executable, "-P", "-c", "from federates.cli import main; main()"]
HANG_S = 600  # after which a test that waits is taken to hang; no statement about speed
SHORT = ["--steps", "4", "--placement", "single", "--no-report"]

BROKEN = """
import time
from controllers.baselines.volt_var_1547 import VoltVar1547

class Raises(VoltVar1547):
    def step(self, time_s, inputs, mail):
        print("a controller that prints")
        if time_s > 60:
            raise RuntimeError("sensor 5 exploded")
        return super().step(time_s, inputs, mail)

class Hangs(VoltVar1547):
    def step(self, time_s, inputs, mail):
        if time_s > 60:
            time.sleep(1000)
        return super().step(time_s, inputs, mail)

class CannotBeBuilt(VoltVar1547):
    def __init__(self, site, hosted, **options):
        raise KeyError("no such setting")
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    (tmp_path / "broken.py").write_text(BROKEN)
    return "federates.volt_var.controller=broken"


def heed_ctrl_c() -> None:
    """A shell's background job ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def feederate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def test_help_imports_only_typer_and_the_standard_library() -> None:
    code = (
        "import sys\nfrom federates.cli import call\nassert call(['--help']) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    heavy = {"numpy", "helics", "cvxpy", "pandas", "matplotlib", "pyarrow", "opendssdirect"}
    heavy |= {"rich", "ruamel", "jinja2", "pydantic", "scipy", "dss", "controllers"}
    modules = set(done.stderr.split())
    assert "typer" in modules
    assert modules & heavy == set()
    errors = "grid_models.base.errors"  # itself of the standard library only
    assert {m for m in modules if m.startswith("grid_models.base.")} <= {errors}


def test_reading_a_scenario_imports_no_model() -> None:
    code = (
        "import sys\nfrom federates.scenario.schema import load_scenario\n"
        "load_scenario('voltvar-ieee123-published')\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not {'scipy', 'cvxpy', 'pandas', 'pyarrow', 'dss', 'gymnasium'} & loaded\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], timeout=HANG_S, check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "0"], "'--steps': expected at least 1"),
        (["--steps", "x"], "'--steps': expected a whole number"),
        (["--placement", "sharde"], "'--placement': 'sharde' is not one of 'shared'"),
    ],
)
def test_a_wrong_option_is_said_in_our_words(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["run", "voltvar-ieee13", *words]) == 2
    assert said in capsys.readouterr().err


ATTACKED = ("--attack", "false-voltage", "--set", "attack.steps.0.trigger.at_s=10")


@pytest.mark.parametrize(
    ("scenario", "more"), [("voltvar-ieee123", ()), ("voltvar-ieee123-droop", ATTACKED)]
)
def test_a_run_and_its_report_need_no_solver_and_no_plots(
    scenario: str, more: tuple[str, ...]
) -> None:
    # Taken away, not only looked for; pandas, whose import is slow, is not even looked for.
    words = ["run", scenario, "--steps", "6", "--out", "r", *more]
    code = (
        "import sys\nsys.modules |= dict.fromkeys(('cvxpy', 'matplotlib'))\n"
        "class Trap:\n"
        "    def find_spec(self, name, *_):\n"
        "        assert name != 'pandas'\n"
        "sys.meta_path.insert(0, Trap())\n"
        "from federates.cli import call\n"
        f"sys.exit(call({words!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert Path("r/report.html").is_file()


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for command in ("demo", "run", "check", "list", "report", "compare", "new", "schema"):
        assert f"\n  {command} " in result.output
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize("group", [[], ["attack"], ["device"], ["emulate"]])
def test_without_a_command_the_help_is_shown(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(group) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(" ".join(["Usage: feederate", *group]))
    assert captured.err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out.startswith("feederate ")


def test_json_of_a_run_is_the_summary_and_nothing_else(broken: str) -> None:
    done = feederate(
        *("run", "voltvar-ieee123-droop", "--steps", "4", "--json", "--out", "r", "--seed", "7"),
        *("--set", f"{broken}:Raises"),
    )

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads(Path("r/summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["seed"]) == ("finished", 4, 7)
    assert {"v_max_pu", "v_min_pu", "losses_kwh", "import_kwh", "abs_q_kvarh"} <= set(
        summary["metrics"]
    )
    assert "a controller that prints" in done.stderr
    manifest = json.loads(Path("r/manifest.json").read_text())
    assert manifest["command"].startswith("feederate run voltvar-ieee123-droop --set ")


def test_a_failed_run_is_exit_code_3_with_its_folder_and_json(broken: str) -> None:
    done = feederate(
        "run", "voltvar-ieee123-droop", "--json", "--out", "r", "--set", f"{broken}:Raises"
    )

    assert done.returncode == 3
    summary = json.loads(done.stdout)
    assert summary["status"] == "failed"
    assert "sensor 5 exploded" in summary["reason"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "federate 'volt_var'" in errors[0]
    assert "sensor 5 exploded" in errors[0]
    assert errors[1].endswith("is in r")
    assert errors[2].endswith(f"is in {Path('r/logs/volt_var.log')}")
    assert "broken.py" in Path("r/logs/volt_var.log").read_text()
    assert "Traceback" not in done.stderr
    assert "sensor 5 exploded" in Path("r/report.html").read_text()


def test_a_hung_step_does_not_keep_the_process(broken: str) -> None:
    # The step sleeps longer than `feederate` waits for the process.
    done = feederate(
        *("run", "voltvar-ieee123-droop", "--out", "r", "--set", f"{broken}:Hangs"),
        *("--set", "time.step_timeout_s=1"),
    )

    assert done.returncode == 3
    assert "step_timeout_s = 1 s" in done.stderr


def test_an_interrupted_run_is_exit_code_130_and_readable() -> None:
    options = ["--set", "time.step_s=1", "--json", "--out", "r"]
    process = subprocess.Popen(
        [*COMMAND, "run", "voltvar-ieee123-droop", *options],
        env=os.environ | {cli_terminal.PROGRESS: cli_terminal.PROGRESS_LINES},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{cli_terminal.PROGRESS_WORD} "):  # it steps
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG_S)

    assert process.returncode == 130, err
    assert json.loads(out)["status"] == "interrupted"
    assert "readable in r" in err
    assert "Traceback" not in err
    assert call(["report", "r"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "voltvar-iee123"], "did you mean 'voltvar-ieee123'?"),
        (["run", "voltvar-ieee123-droop", "--set", "seed"], "not of the form key=value"),
        (["run", "voltvar-ieee123-droop", "--set", "grid.model=no.dss"], "no such file"),
        (["run", "voltvar-ieee123-droop", "--set", "time.step_s=x"], "time.step_s"),
        (["run", "voltvar-ieee123-droop", "--placement", "proces"], "'thread', 'process'"),
        (["run", "voltvar-ieee123-droop", "--steps", "0"], "'--steps': expected at least 1"),
        (["run", "voltvar-ieee123-droop", "--steps", "x"], "'--steps': expected a whole number"),
        (["emulate", "inverter", "--port", "99999"], "'--port': expected at most 65535"),
        (["run", "x", "--seed", str(2**63)], "expected from 0 to 9223372036854775807"),
        (["run"], "Missing argument 'SCENARIO'"),
        (["run", "voltvar-ieee123-droop", "--only", "feeder", "--placement", "single"], "--join"),
        (["run", "x", "--listen", "127.0.0.1"], "found '127.0.0.1', expected tcp://host:port"),
        (["run", "x", "--join", "tcp://a:b"], "expected tcp://host:port"),
        (["rnu"], "run"),
        (["check", "."], "is a folder"),
        (["new", "thing", "x"], "scenario"),
        (["compare", "nowhere"], "not the folder of a run"),
        (["run", "voltvar-ieee123-droop", "--out", "a" * 400], "aaa: File name too long"),
        (["attack", "run", "voltvar-ieee123", "link-jamming", "--out", "a" * 400], "too long"),
    ],
)
def test_wrong_input_is_exit_code_2_in_plain_words(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert all(line.startswith("error: ") for line in captured.err.splitlines())
    assert "Value error" not in captured.err
    assert not Path("runs").exists()


def test_a_folder_with_something_in_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine").write_text("x")

    assert call(["run", "voltvar-ieee123-none", *SHORT, "--out", "r"]) == 2

    assert "error: r exists already" in capsys.readouterr().err
    assert os.listdir("r") == ["mine"]


def test_a_users_class_that_cannot_be_built_names_its_federate_and_keeps_the_traceback(
    broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(["check", "voltvar-ieee123-droop", "--set", f"{broken}:CannotBeBuilt"])

    assert code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "volt_var" in first
    assert "KeyError: 'no such setting'" in first
    log = Path(second.rpartition(" ")[2])
    assert "broken.py" in log.read_text()
    log.unlink()


def test_an_unexpected_error_is_one_line_and_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("federates.commands.list.print_list", explode)

    assert call(["list"]) == 3

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ZeroDivisionError: by nothing (unexpected; the traceback is in ")
    log = Path(line.rpartition(" ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    log.unlink()


def test_a_full_disk_leaves_a_json_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RunError("No space left on device", federate="feeder", run_dir=tmp_path / "gone")

    monkeypatch.setattr("federates.runs.runner.run", fail)

    assert call(["run", "voltvar-ieee123-none", "--json"]) == 3

    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == "failed"
    assert "No space left" in summary["reason"]


def test_a_report_that_cannot_be_written_does_not_spoil_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr("federates.reports.run.write_report", fail)

    code = call(["run", "voltvar-ieee123-none", "--steps", "2", "--placement", "single", "--json"])

    captured = capsys.readouterr()
    assert code == 0
    assert json.loads(captured.out)["status"] == "finished"
    assert "warning: no report" in captured.err


def test_a_summary_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "voltvar-ieee123-droop", *SHORT, "--out", "r"]) == 0
    out = capsys.readouterr().out
    assert "finished: 4 steps in " in out
    assert "Highest voltage" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "report.html" not in out


def test_a_long_heading_leaves_room_for_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    head = ("Detector", "In", "False alarms in each whole day of the clean run", "AUC")
    row = ("oscillation", "baseline", "0.0", "1.00")
    cli_terminal.print_table(cli_terminal.output(), head, [row], (2, 3))
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines() if "osc" in line] == [list(row)]
    assert max(map(len, printed.splitlines())) <= cli_terminal.WIDTH


def test_the_progress_bar_goes_to_standard_error_of_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with cli_terminal.progress_bar("quiet") as tell:
        assert tell is None
    assert capsys.readouterr() == ("", "")

    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=80, legacy_windows=False)
    monkeypatch.setattr(cli_terminal, "messages", lambda: console)
    with cli_terminal.progress_bar("my-study") as tell:
        assert tell is not None
        for done in range(1, 1001):
            tell(done, 1000)
    assert "my-study" in drawn.getvalue()
    assert "1000/1000" in drawn.getvalue()
    assert capsys.readouterr() == ("", "")


def test_list_has_one_line_for_each_thing(capsys: pytest.CaptureFixture[str]) -> None:
    from controllers.core.registry import descriptions
    from controllers.optimisation.algorithms.catalog import ALGORITHMS
    from controllers.optimisation.problems.catalog import problems
    from federates.scenario.attack_files import shipped_attacks
    from federates.scenario.schema import shipped_dir, shipped_scenarios
    from grid_models.catalog import shipped_feeders

    assert call(["list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    attacks = shipped_attacks(shipped_dir())
    parts = [*shipped_scenarios(), *attacks, *shipped_feeders(), *descriptions()]
    assert names == [*parts, *problems(), *ALGORITHMS]
    assert all(len(line.split()) > 2 for line in lines if line.startswith("  "))


@pytest.mark.parametrize("arguments", [["list"], ["check", "voltvar-ieee13"], ["schema"]])
def test_a_reader_that_has_gone_is_no_failure(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_schema_is_a_json_schema_of_the_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "Scenario"
    assert "federates" in schema["required"]
    assert schema["additionalProperties"] is False


def test_only_takes_several_names(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "federates.commands.run.run_command", lambda options, as_json: seen.append(options)
    )

    options = ["--only", "a,b", "--only", "c", "--join", "tcp://10.0.0.1:23404"]
    assert call(["run", "x", *options]) == 0

    (given,) = seen
    assert given.only == ("a", "b", "c")
    assert given.command() == ("feederate run x --join tcp://10.0.0.1:23404 --only a,b,c")
