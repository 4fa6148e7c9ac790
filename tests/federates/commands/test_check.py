"""What `feederate check` says of a scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from federates.cli import call
from federates.commands.check import check_scenario
from federates.scenario.schema import load_scenario, shipped_scenarios


def test_a_split_controller_is_one_row_and_loses_no_label() -> None:
    whole = check_scenario(load_scenario("voltvar-ieee123"))
    split = check_scenario(load_scenario("voltvar-ieee123", ["federates.volt_var.split=4"]))

    row = next(f for f in split.federates if f.name == "volt_var")
    assert row.count == 4
    assert row.agents == next(f for f in whole.federates if f.name == "volt_var").agents
    # The four may read a node twice, but write every set-point once, and mail is the same.
    wires = {(w.source, w.target): w for w in split.wires}
    set_points = wires["volt_var.q_set_kvar", "feeder.q_set_kvar"]
    assert (set_points.unit, set_points.labels) == ("kvar", row.agents)
    assert split.mail_links == whole.mail_links > 0


def test_noise_and_imperfect_links_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "noisy.yaml"
    path.write_text(
        "grid: {ders: [{kind: pv, at: load_phases, total_kw: 900}]}\n"
        "federates:\n"
        "  feeder: {kind: feeder}\n"
        "  c: {kind: controller, controller: optdist-vc}\n"
        "connections:\n"
        "  - {source: feeder.v_pu, target: c.v_pu, noise: 0.001}\n"
        "  - c.q_set_kvar -> feeder.q_set_kvar\n"
        "links: [{loss: 0.2}]\n"
    )

    result = check_scenario(load_scenario(path))
    assert {w.noise for w in result.wires} == {0.0, 0.001}
    assert result.imperfect_links == result.mail_links > 0

    assert call(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "0.001" in out
    assert f"{result.mail_links} mail links between agents" in out


def test_every_wiring_error_is_said_on_its_own_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "grid: {model: ieee13, ders: [{kind: pv, at: load_phases, total_kw: 900}]}\n"
        "federates:\n"
        "  feeder: {kind: feeder}\n"
        "  c: {kind: controller, controller: volt-var-1547}\n"
        "connections:\n"
        "  - feeder.p_kw -> c.v_pu\n"
        "  - c.q_set -> feeder.q_set_kvar\n"
    )

    assert call(["check", str(path)]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert any("wrong.yaml:6" in x and "is in kW" in x and "expects pu" in x for x in lines)
    assert any("wrong.yaml:7" in x and "did you mean 'q_set_kvar'" in x for x in lines)


@pytest.mark.parametrize("name", [n for n in shipped_scenarios() if n.startswith("attack-2")])
def test_a_market_on_another_feeder_names_the_ders_that_have_no_place(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["check", name, "--set", "grid.model=ieee13"]) == 2
    assert "DER 'load_1_1': bus '1' is not a bus of 'ieee13'" in capsys.readouterr().err


def test_overrides_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["check", "voltvar-ieee123", "--set", "grid.modle=ieee13"]) == 2
    assert "did you mean 'model'?" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["grid.profiles.path", "grid.der_table"])
def test_a_missing_table_is_refused_with_its_key_and_without_a_traceback(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.csv"
    assert call(["check", "voltvar-ieee123-none", "--set", f"{key}={missing}"]) == 2
    said = capsys.readouterr().err
    assert f"--set {key}={missing}" in said
    assert "traceback" not in said


DEFENDED = """\
time: {duration_s: 60, step_s: 60}
grid: {model: ieee13, ders: [{kind: pv, at: load_phases, total_kw: 900}]}
federates:
  feeder: {kind: feeder}
  c: {kind: controller, controller: optdist-vc}
connections:
  - feeder.v_pu -> c.v_pu
  - c.q_set_kvar -> feeder.q_set_kvar
links: [{loss: 0.1}]
defences:
  good: {patch: {federates: {c: {options: {margin_pu: 0.01}}}}}
  bad:
    patch: PATCH
"""


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("{fedrates: {}}", "my.yaml:13: fedrates: unknown key"),
        ("{links: [{loss: 2}]}", "my.yaml:13: links[1].loss: found 2; expected a number from 0"),
        ("{links: [{source: pv_x}]}", "my.yaml:13: links[1].source: no agent that sends mail"),
        (
            "{federates: {c: {options: {margin: 1}}}}",
            "my.yaml:13: federates.c.options.margin: optdist-vc: unknown option 'margin'",
        ),
    ],
)
def test_every_defence_is_checked(
    patch: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(DEFENDED.replace("PATCH", patch))

    assert call(["check", "my.yaml"]) == 2

    assert f"error: with the defence 'bad': {words}" in capsys.readouterr().err
    assert call(["check", "my.yaml", "--defence", "good"]) == 0


def test_a_defence_can_be_changed_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(DEFENDED.replace("PATCH", "{seed: 3}"))
    scenario = load_scenario(path, ["defences.bad.patch.seed=4"], defence="bad")
    assert scenario.seed == 4


def test_links_that_nobody_uses_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    text = DEFENDED.replace("PATCH", "{seed: 3}").replace("optdist-vc", "none")
    path.write_text(text)
    (words,) = check_scenario(load_scenario(path)).warnings
    assert words == f"{path}:9: links: not used: no agent of this scenario sends mail"
