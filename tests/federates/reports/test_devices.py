"""Devices on a run's page: temperatures, verbs, quality, lateness, commands."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from federates.reports.run import write_report
from federates.runs.runner import run
from federates.scenario.schema import load_scenario


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["federates.houses.devices={'*': simulated}", "federates.houses.options.settle_s=60"]
    scenario = load_scenario("hil-thermostats-ieee123", settings)
    out = tmp_path_factory.mktemp("devices") / "run"
    return run(scenario, out=out, steps=40, placement="single").folder


def section(folder: Path) -> str:
    text = write_report(folder).read_text()
    return text[text.index("<h2>Devices") :].partition("</section>")[0]


def test_every_quantity_of_a_thermostat_has_a_chart_and_is_not_shown_twice(finished: Path) -> None:
    text = write_report(finished).read_text()
    devices = section(finished)

    for title in ("Temperature inside", "Verb (CTA-2045)", "Active power", "Quality"):
        assert f"<figcaption>{title}</figcaption>" in devices
    assert "State of charge" not in devices
    for name in ("houses.temp_c", "houses.quality", "operator.verb"):
        assert f"<figcaption>{name}</figcaption>" not in text


def test_a_device_has_its_seconds_of_each_quality_and_its_commands(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    entries = [{"device": "house_1_1", "verdict": v} for v in ("written", "written", "refused")]
    lines = [json.dumps(entry) for entry in entries]
    (folder / "houses.audit.jsonl").write_text("\n".join([*lines, '{"device": "hou']))

    devices = section(folder)

    head = re.findall(r"<th[^>]*>([^<]*)</th>", devices)
    assert head == ["Device", "Good, s", "Stale, s", "Bad, s", "refused", "written"]
    row = re.findall(r"<td[^>]*>([^<]*)</td>", re.findall(r"<tr><td>house_1_1.*?</tr>", devices)[0])
    assert row == ["house_1_1", "400", "0", "0", "1", "2"]


def test_lateness_is_that_of_the_steps_and_of_the_polls(finished: Path, tmp_path: Path) -> None:
    assert "Lateness: none" in section(finished)
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    late = {"lateness_p50_ms": 1.25, "lateness_p99_ms": 8.0, "lateness_max_ms": 1234.5}
    summary = json.loads((folder / "summary.json").read_text())
    summary["real_time"] = {"steps": 40, "overruns": 3, **late}
    (folder / "summary.json").write_text(json.dumps(summary))
    event = {"federate": "houses", "event": "adapter", "polls": 1200, "lost_polls": 7, **late}
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")

    devices = section(folder)

    rows = re.findall(r"<tr><td>((?:Steps|Polls).*?)</tr>", devices)
    cells = [re.findall(r">([^<>]+)<", f">{row}") for row in rows]
    assert [row[1:] for row in cells] == [
        ["40", "3", "1.2", "8.0", "1,234.5"],
        ["1,200", "7", "1.2", "8.0", "1,234.5"],
    ]


def test_points_that_were_not_good_are_shown_with_their_reason(
    finished: Path, tmp_path: Path
) -> None:
    assert "Quality of its points" not in section(finished)
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    event = {"federate": "houses", "event": "device", "device": "house_1_1", "what": "quality"}
    with (folder / "events.jsonl").open("a") as file:
        for k in range(53):
            why = f"bad: temp_c: {90 + k} is not plausible (-40 to 60)"
            file.write(json.dumps(event | {"time_s": 30.0 * k, "text": why}) + "\n")

    devices = section(folder)

    rows = re.findall(
        r"<tr><td[^>]*>([^<]*)</td><td[^>]*>house_1_1</td><td[^>]*>(bad[^<]*)<", devices
    )
    assert rows[1] == ("30", "bad: temp_c: 91 is not plausible (-40 to 60)")
    assert len(rows) == 50
    assert "3 more changes of quality are in events.jsonl" in devices
