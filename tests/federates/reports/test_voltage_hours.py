"""Voltages per hour against what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from federates.core.signals import read_signal
from federates.reports.run import write_report
from federates.reports.voltage_hours import voltage_hours
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario


def test_hours_are_clock_hours_after_the_warm_up(tmp_path: Path) -> None:
    # 11:30 to 13:30 in steps of 10 min; the warm-up leaves two of the first hour's three samples.
    time = "time={start_s: 41400, step_s: 600, duration_s: 7200, warm_up_s: 600}"
    scenario = load_scenario("voltvar-ieee123-none", [time, "grid.model=ieee13"])
    done = run(scenario, out=tmp_path / "r", placement="single")
    found = voltage_hours(RunData(done.folder), "feeder")
    assert found is not None
    _, _, v_pu = read_signal(done.folder / "signals", "feeder.v_pu")
    np.testing.assert_array_equal(found.begin_s, [39600.0, 43200.0, 46800.0])
    rows = found.rows()
    for k, steps in enumerate((slice(1, 3), slice(3, 9), slice(9, 12))):
        here = v_pu[steps]
        got = (found.mean[k], found.std[k], found.low[k], found.high[k])
        np.testing.assert_allclose(got, (here.mean(), here.std(), here.min(), here.max()))
        assert rows[k][0] == ("11:00", "12:00", "13:00")[k]
        assert rows[k][2] == f"{here.std():.4f}"
    assert np.isclose(done.metrics["v_std_pu"], v_pu[1:].std(), rtol=1e-9)
    text = write_report(done.folder).read_text()
    assert "Voltages per hour" in text
    assert f">{rows[1][2]}</td>" in text
    assert voltage_hours(RunData(done.folder), "nobody") is None
