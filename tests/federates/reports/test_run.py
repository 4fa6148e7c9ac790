"""The report page of whole and of broken runs."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from federates.cli import call
from federates.core.signals import read_signal
from federates.reports.run import write_report
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

VOID = {"meta", "br", "input"}


class _Page(HTMLParser):
    """Checks that tags are balanced and collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.titles = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        self.titles += tag == "figure"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "one"
    sunny = ["time.start_s=43200", "grid.profiles.kind=clear", "grid.ders.0.total_kw=6000"]
    scenario = load_scenario("voltvar-ieee123-droop", sunny)
    run(scenario, out=folder, placement="single", steps=30)
    return folder


def settled(folder: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the nodes and their voltages after the warm-up of ten steps."""
    time_s, labels, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    assert json.loads((folder / "summary.json").read_text())["warm_up_s"] == 50.0
    assert v_pu[0].max() > v_pu[time_s >= 50.0].max(), "the case must overshoot at first"
    return labels, v_pu[time_s >= 50.0]


def test_a_page_is_whole_and_refers_to_nothing_outside(finished: Path) -> None:
    page = write_report(finished)

    text = page.read_text()
    parsed = _Page(text)
    assert parsed.links == []
    # The only address is that of uPlot's authors, in a comment of its source.
    assert set(re.findall(r"https?://[^ )]*", text)) == {"https://github.com/leeoniya/uPlot"}
    assert "Permission is hereby granted, free of charge" in text
    assert "@import" not in text
    assert "url(" not in text
    assert page.stat().st_size < 500_000


def test_a_page_shows_the_run(finished: Path) -> None:
    text = write_report(finished).read_text()

    labels, v_pu = settled(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert f"{v_pu.max():.4f} <span" in text
    assert f"node {labels[v_pu.max(axis=0).argmax()]} at " in text
    assert f"{summary['metrics']['losses_kwh']:,.1f} <span" in text
    for part in ("Phase A", "Phase C", "Every node at the worst instant", "Map of the feeder"):
        assert part in text
    for part in ("Reactive power of all DERs", "Losses", "Voltage, pu", "Power, kW"):
        assert part in text
    assert "volt_var.q_set_kvar</figcaption>" in text
    assert "--seed 1" in text
    assert "total_kw: 6000" in text
    assert "The first 50 s of the run, its warm-up (time.warm_up_s), are left out" in text
    assert f"{summary['stepping_s']:.1f} s of stepping; {summary['wall_s']:.1f} s of wall" in text
    changes = "time.start_s=43200, grid.profiles.kind=clear, grid.ders.0.total_kw=6000, steps=30"
    assert f"<h1>IEEE 1547 droop on IEEE 123, a PV-rich day ({changes})" in text


def test_the_map_has_every_bus_with_coordinates_in_the_class_of_its_worst_voltage(
    finished: Path,
) -> None:
    text = write_report(finished).read_text()

    labels, v_pu = settled(finished)
    high: dict[str, float] = {}
    for label, value in zip(labels, v_pu.max(axis=0), strict=True):
        bus = label.rpartition(".")[0]
        high[bus] = max(high.get(bus, 0.0), value)
    bus = max(high, key=lambda name: high[name])
    assert high[bus] > 1.07, "the case must have a bus far above the band"
    (figure,) = re.findall(r'feeder-map">.*?application/json">(.*?)</script>', text, re.DOTALL)
    drawn = {entry["name"]: entry for entry in json.loads(figure)["buses"]}
    assert drawn[bus]["style"] == "hi2"
    assert drawn[bus]["text"].startswith(f"{high[bus]:.4f} pu; over the run A ")
    assert set(high) <= set(drawn)


def test_the_profile_has_every_node_at_the_worst_instant(finished: Path) -> None:
    text = write_report(finished).read_text()

    labels, v_pu = settled(finished)
    worst = v_pu[np.maximum(v_pu - 1.05, 0.95 - v_pu).max(axis=1).argmax()]
    (figure,) = re.findall(r'voltage-profile">.*?application/json">(.*?)</script>', text, re.DOTALL)
    data = json.loads(figure)
    phases = {"A": "1", "B": "2", "C": "3"}
    found = {
        f"{n['bus']}.{phases[data['phases'][n['phase']]['name']]}": n["v_pu"] for n in data["nodes"]
    }
    assert found == pytest.approx(dict(zip(labels, worst, strict=True)), abs=6e-6)
    distance = [n["x"] for n in data["nodes"]]
    assert distance == sorted(distance)
    # From the source out: a node lies farther out than its parent, on the same phase.
    linked = [n for n in data["nodes"] if n["parent"] is not None]
    assert len(linked) > 200
    for n in linked:
        parent = data["nodes"][n["parent"]]
        assert parent["x"] <= n["x"]
        assert parent["phase"] == n["phase"]


def test_a_killed_run_is_reported_as_far_as_it_came(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"status": "running", "reason": "not finished"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "summary.json").unlink()
    (folder / "signals" / "feeder.q_kvar.parquet").unlink()

    text = write_report(folder).read_text()

    _Page(text)
    assert "The run is not finished." in text
    assert "30 steps of " in text
    assert "Phase A" in text
    assert "Reactive power of all DERs" not in text


def test_a_failed_run_shows_the_end_of_its_log(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "failed"
    shutil.copytree(finished, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"status": "failed", "reason": "volt_var: it <broke>"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "logs").mkdir()
    (folder / "logs" / "volt_var.log").write_text("Traceback: line 12\n")

    text = write_report(folder).read_text()

    assert "volt_var: it &lt;broke&gt;" in text
    assert "Traceback: line 12" in text


def test_words_of_a_scenario_cannot_become_markup(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(finished, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["scenario"]["title"] = "<script>alert(1)</script> $body"
    (folder / "manifest.json").write_text(json.dumps(manifest))

    text = write_report(folder).read_text()

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $body" in text


def test_a_run_without_a_feeder_has_a_page(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "signals")

    _Page(write_report(folder).read_text())


TWO_PLANTS = """\
title: Two feeders
time: {start_s: 43200, duration_s: 60, step_s: 15}
grid:
  model: ieee13
  ders: [{kind: pv, at: load_phases, total_kw: 3000, kva_per_kw: 1.1}]
federates:
  north: {kind: feeder}
  south: {kind: feeder, grid: {model: ieee123}}
"""


def test_each_plant_has_its_own_voltages_map_and_power(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO_PLANTS)
    folder = run(load_scenario(tmp_path / "two.yaml"), out=tmp_path / "r").folder

    text = write_report(folder).read_text()

    _Page(text)
    for plant in ("north", "south"):
        for title in ("Voltages", "Where the voltages are worst", "Power"):
            assert f"<h2>{plant}: {title}</h2>" in text
    assert "feeders ieee13, ieee123" in text
    maps = re.findall(r'feeder-map">.*?application/json">(.*?)</script>', text, re.DOTALL)
    north, south = ({bus["name"] for bus in json.loads(m)["buses"]} for m in maps)
    assert "671" in north
    assert "610" in south


def test_metrics_of_several_plants_are_a_column_each(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO_PLANTS)
    folder = run(load_scenario(tmp_path / "two.yaml"), out=tmp_path / "r", steps=2).folder
    _, labels, v_pu = read_signal(folder / "signals", "south.v_pu")
    summary = json.loads((folder / "summary.json").read_text())
    summary["metrics"] = {"north.losses_kwh": 2.0, "south.v_max_pu": v_pu.max()}
    (folder / "summary.json").write_text(json.dumps(summary))

    text = write_report(folder).read_text()

    table = next(part for part in text.split("<table>") if "Highest voltage, pu" in part)
    cells = [re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row) for row in table.split("</tr>")]
    rows = {row[0]: row[1:] for row in cells if row}
    node = labels[v_pu.max(axis=0).argmax()]
    assert rows["Metric"] == ["north", "south"]
    assert rows["Losses, kWh"] == ["2.0", "-"]
    assert rows["Highest voltage, pu"][1] == f"{v_pu.max():.4f} (node {node} at 12:00)"


def test_the_command_names_the_pages_it_wrote(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["report", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")


def test_the_command_refuses_a_folder_that_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: not the folder of a run")


def test_the_end_of_a_run_cannot_become_markup(finished: Path, tmp_path: Path) -> None:
    for status in ('x"><script>alert(1)</script>', "", "<b>"):
        folder = tmp_path / f"evil{len(status)}"
        shutil.copytree(finished, folder)
        manifest = json.loads((folder / "manifest.json").read_text()) | {"status": status}
        (folder / "manifest.json").write_text(json.dumps(manifest))

        text = write_report(folder).read_text()

        _Page(text)
        assert "alert(1)" not in text
        assert '<span class="badge not">unknown</span>' in text


@pytest.mark.parametrize("text", ['{"scenario": {}}', "{}", "[]", "", "{", "[" * 100_000])
def test_a_foreign_manifest_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "manifest.json").write_text(text)
    for command in ("report", "compare"):
        assert call([command, str(tmp_path)]) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def _with_events(finished: Path, folder: Path, n: int) -> str:
    """Return the events of a page of a run with an attack, and `n` things that happened later."""
    shutil.copytree(finished, folder)
    events = [{"event": "started", "time_s": None}]
    events += [{"event": "attack_began", "step": "lie", "time_s": 0.0}]
    events += [{"event": f"thing-{i}", "time_s": float(i)} for i in range(n)]
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    text = write_report(folder).read_text()
    return text[text.index("<h2>Events") : text.index("<h2>Recorded")]


def test_events_that_are_left_out_are_counted_and_the_attack_is_kept(
    finished: Path, tmp_path: Path
) -> None:
    text = _with_events(finished, tmp_path / "many", 150)

    assert "<h2>Events: last 100 of 152</h2>" in text
    assert "and 1 earlier of the attack" in text
    assert "attack_began" in text
    assert "thing-49<" not in text
    assert "thing-50<" in text
    assert text.count("<tr>") == 1 + 101


def test_few_events_are_all_shown(finished: Path, tmp_path: Path) -> None:
    text = _with_events(finished, tmp_path / "few", 98)

    assert "<h2>Events</h2>" in text
    assert text.count("<tr>") == 1 + 100


def test_the_summary_names_a_report_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "voltvar-ieee13", "--steps", "2", "--placement", "single"]
    assert call([*words, "--out", str(tmp_path / "good")]) == 0
    assert f"report  {tmp_path / 'good' / 'report.html'}" in capsys.readouterr().out

    def fail(run: object) -> str:
        raise IndexError("boolean index did not match")

    monkeypatch.setattr("federates.reports.run.run_page", fail)
    assert call([*words, "--out", str(tmp_path / "bad")]) == 0
    captured = capsys.readouterr()
    assert "warning: no report: IndexError" in captured.err
    assert "report.html" not in captured.out
