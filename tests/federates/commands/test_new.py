"""Starting points run as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controllers.core.compliance import check_controller
from federates.cli import call


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_new_scenario_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["new", "scenario", "my-study"]) == 0
    assert "feederate run my-study.yaml" in capsys.readouterr().out

    code = call(["run", "my-study.yaml", "--steps", "5", "--placement", "single", "--json"])

    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["scenario"] == "my-study"
    assert summary["metrics"]["abs_q_kvarh"] > 0


def test_a_new_attack_fits_a_new_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["new", "scenario", "my-study"]) == 0
    assert call(["new", "attack", "my-attack"]) == 0
    assert call(["attack", "check", "my-attack.yaml", "my-study.yaml"]) == 0
    assert "fits: my-attack on my-study" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["my-study", "my-stduy", "my-stduy.yaml"])
def test_a_file_that_is_there_is_suggested(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my-study.yaml").write_text("title: x\n")
    for command in (["run", given], ["attack", "check", "false-voltage", given]):
        assert call(command) == 2
        assert capsys.readouterr().err.strip().endswith("did you mean 'my-study.yaml'?")


def test_a_new_controller_keeps_the_protocol_and_controls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["new", "controller", "my_first_droop"]) == 0
    assert '"my_first_droop:MyFirstDroop"' in capsys.readouterr().out

    check_controller("my_first_droop:MyFirstDroop")

    out_of_band = {}
    for name in ("my_first_droop:MyFirstDroop", "none"):
        options = ["--set", f"federates.volt_var.controller={name}"]
        options += ["--set", "federates.volt_var.options={}", "--set", "time.start_s=43200"]
        options += ["--set", "grid.profiles.kind=clear", "--set", "grid.ders.0.total_kw=6000"]
        options += ["--steps", "60", "--placement", "single", "--json", "--no-report"]
        assert call(["run", "voltvar-ieee123-droop", *options]) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        out_of_band[name] = metrics["out_of_band_node_hours"]
    assert out_of_band["none"] > 1
    assert out_of_band["my_first_droop:MyFirstDroop"] < 0.8 * out_of_band["none"]


@pytest.mark.parametrize(("what", "name"), [("scenario", "a"), ("controller", "my_a")])
def test_a_file_is_never_overwritten(
    what: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(f"{name}.yaml" if what == "scenario" else f"{name}.py")
    path.write_text("mine")

    assert call(["new", what, name]) == 2

    assert path.read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "name", "nearest"),
    [
        ("scenario", "my study", "my-study"),
        ("scenario", "../up", "up"),
        ("controller", "my-ctrl", "my_ctrl"),
        ("controller", "class", None),
        ("controller", "random", "my_random"),
        ("controller", "numpy", "my_numpy"),
        ("controller", "controllers", "my_controllers"),
    ],
)
def test_names_that_cannot_work_are_refused(
    what: str, name: str, nearest: str | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(["new", what, name]) == 2

    error = capsys.readouterr().err
    assert f"'{name}' cannot be the name" in error
    if nearest is not None:
        assert f"did you mean '{nearest}'?" in error
    assert list(tmp_path.iterdir()) == []
