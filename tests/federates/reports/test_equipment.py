"""Loadings, tap positions and unbalance on a run's page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.reports.equipment import Peaks, peaks
from federates.reports.run import write_report
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

FEEDER = """Clear
New Circuit.small basekv=12.47 pu=1.0 phases=3 bus1=src
New Line.feed bus1=src bus2=s phases=3 r1=2 x1=2 r0=2 x0=2 length=1 units=km normamps=400
New Transformer.reg phases=3 windings=2 buses=(s, a) kvs=(12.47 12.47) kvas=(5000 5000) xhl=1
New RegControl.reg transformer=reg winding=2 vreg=123 band=2 ptratio=60 delay=15
New Line.main bus1=a bus2=b phases=3 r1=0.6 x1=0.6 r0=0.6 x0=0.6 length=2 units=km normamps=77
New Line.side bus1=b.1 bus2=c.1 phases=1 r1=0.6 x1=0.6 length=1 units=km normamps=500
New Load.b bus1=b phases=3 kv=12.47 kw=1500 pf=0.95
New Load.c bus1=c.1 phases=1 kv=7.2 kw=500 pf=0.95
New Capacitor.cap bus1=b phases=3 kvar=300 kv=12.47
Set VoltageBases=(12.47)
CalcVoltageBases
BusCoords coords.csv
Solve
"""
PORTS = '["*", feeder.loading_pct, feeder.tap, feeder.cap_state, feeder.unbalance_pct]'


def _run(folder: Path, *overrides: str) -> Path:
    (folder / "feeder.dss").write_text(FEEDER)
    (folder / "coords.csv").write_text("src,0,0\ns,5,0\na,10,0\nb,500,0\nc,500,300\n")
    (folder / "day.csv").write_text("time_s,load_pu\n0,0.2\n60,1\n180,1\n240,0.2\n")
    settings = [
        f"grid.model={folder / 'feeder.dss'}",
        "grid.ders=[]",
        f"grid.profiles.path={folder / 'day.csv'}",
        "time.step_s=10",
        "time.start_s=0",
        *overrides,
    ]
    scenario = load_scenario("voltvar-ieee123-none", settings)
    run(scenario, out=folder / "run", placement="single", steps=30)
    return folder / "run"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(tmp_path_factory.mktemp("equipment"), f"record.ports={PORTS}")


def _section(folder: Path) -> str:
    text = write_report(folder).read_text()
    return text[text.index("<h2>Equipment") :].partition("</section>")[0]


def test_the_most_loaded_elements_come_first_with_rating_time_and_hours(recorded: Path) -> None:
    section = _section(recorded)
    time_s, labels, percent = read_signal(recorded / "signals", "feeder.loading_pct")
    main = percent[:, labels.index("line.main")]
    assert main.max() > 100.0 > np.delete(percent, labels.index("line.main"), axis=1).max()
    rows = re.findall(r"<tr><td>(\w+\.\w+)</td>(.*?)</tr>", section)
    assert [name for name, _ in rows] == [
        "line.main",
        *sorted(set(labels) - {"line.main"}, key=lambda x: -percent[:, labels.index(x)].max()),
    ]
    first = re.findall(r">([^<>]+)<", rows[0][1])
    hours = np.count_nonzero(main > 100.0) * 10.0 / 3600.0
    at_s = int(time_s[main.argmax()])
    clock = f"00:{at_s // 60:02d}" + (f":{at_s % 60:02d}" if at_s % 60 else "")
    assert first == ["77", f"{main.max():.2f}", clock, f"{hours:.2f}"]


def _drawing(section: str, title: str) -> dict[str, object]:
    found = [json.loads(x) for x in re.findall(r'json">(.*?)</script>', section, re.DOTALL)]
    return next(data for data in found if data["title"] == title)


def test_the_map_has_each_line_in_the_colour_of_its_loading(recorded: Path) -> None:
    data = _drawing(_section(recorded), "Map of the loadings")
    names = [bus["name"] for bus in data["buses"]]  # type: ignore[attr-defined]
    styles = {
        (names[a], names[b]): style
        for a, b, style in data["wires"]  # type: ignore[attr-defined]
    }
    _, labels, percent = read_signal(recorded / "signals", "feeder.loading_pct")
    side = percent[:, labels.index("line.side")].max()
    assert side < 50.0
    assert styles["a", "b"] == "hi2"
    assert styles["b", "c"] == "ok"
    text = next(b["text"] for b in data["buses"] if b["name"] == "c")  # type: ignore[attr-defined]
    assert text.startswith(f"line.side {side:.1f} % at ")


def test_tap_positions_are_a_stepped_chart_of_their_changes(recorded: Path) -> None:
    section = _section(recorded)
    _, _, steps = read_signal(recorded / "signals", "feeder.tap")
    moves = int(np.abs(np.diff(steps[:, 0])).sum())
    assert moves > 0
    ends = (steps[0, 0], steps.min(), steps.max(), steps[-1, 0], moves)
    cells = "".join(f'<td class="number">{v:.0f}</td>' for v in ends)
    assert f"<td>reg</td>{cells}" in section
    chart = _drawing(section, "Regulator reg")
    assert chart["stepped"] is True
    times = chart["bands"][0]["time"]["values"]  # type: ignore[index]
    assert len(times) == 2 + np.count_nonzero(np.diff(steps[:, 0]))
    # A capacitor that never switched needs no chart.
    assert "<td>cap</td>" in section
    assert "Capacitor cap" not in section


def test_the_worst_buses_of_the_unbalance_are_listed(recorded: Path) -> None:
    section = _section(recorded)
    _, labels, percent = read_signal(recorded / "signals", "feeder.unbalance_pct")
    worst = labels[int(percent.max(axis=0).argmax())]
    assert f'<td>{worst}</td><td class="number">{percent.max():.2f}</td>' in section
    assert "Not recorded" not in section


def test_peaks_are_those_of_the_signal_after_the_warm_up(recorded: Path) -> None:
    time_s, labels, values = read_signal(recorded / "signals", "feeder.loading_pct")
    run = RunData(recorded)
    found = peaks(run, "feeder.loading_pct", 30.0)
    assert 0.0 < run.warm_up_s < time_s[-1]
    time_s, values = time_s[time_s >= run.warm_up_s], values[time_s >= run.warm_up_s]
    assert found is not None
    assert found.labels == labels
    np.testing.assert_array_equal(found.highest, values.max(axis=0))
    np.testing.assert_array_equal(found.at_s, time_s[values.argmax(axis=0)])
    np.testing.assert_allclose(found.above_h, (values > 30.0).sum(axis=0) * 10.0 / 3600.0)


def test_an_element_without_any_number_is_left_out(recorded: Path) -> None:
    found = Peaks(("dead", "live"), np.array([-np.inf, 1.5]), np.zeros(2), np.zeros(2))
    assert [row[0] for row in found.rows(RunData(recorded))] == ["live"]


def test_a_run_without_these_signals_says_how_to_record_them(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    shutil.rmtree(folder / "grid")  # as of older versions
    section = _section(folder)
    assert "Not recorded: loading_pct, tap, unbalance_pct." in section
    command = re.search(r"--set (&#39;|')record\.ports=(.*?)(&#39;|')<", section)
    assert command is not None
    ports = command[2].replace("&#34;", '"')
    again = load_scenario("voltvar-ieee123-none", [f"record.ports={ports}"])
    assert again.record.ports == ["*", "feeder.loading_pct", "feeder.tap", "feeder.unbalance_pct"]


def test_the_highest_loading_names_its_element_and_time(recorded: Path) -> None:
    text = write_report(recorded).read_text()
    tile = text[text.index("Highest loading of a line or transformer") :].partition("</div></div>")
    assert "line.main at 00:0" in tile[0][:400]


def test_warnings_are_one_list(recorded: Path) -> None:
    manifest = json.loads((recorded / "manifest.json").read_text())
    manifest["warnings"] = ["first thing", "second thing"]
    (recorded / "manifest.json").write_text(json.dumps(manifest))
    text = write_report(recorded).read_text()
    assert text.count('<td class="wrap">first thing</td>') == 1
    assert text.count('<td class="wrap">second thing</td>') == 1
