"""The three-phase market by areas in a run: clearings end, and hosts change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from federates.core.signals import read_signal
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

NAME, STEPS = "attack-1b-ieee123-areas", 30


def test_areas_clear_a_run_with_the_same_bits_however_they_are_split(tmp_path: Path) -> None:
    whole = run(load_scenario(NAME), out=tmp_path / "whole", placement="single", steps=STEPS)
    assert whole.metrics["market_clearings_count"] == 2.0
    assert whole.metrics["market_clearings_failed_count"] == 0.0
    assert whole.metrics["market_mail_refused_count"] == 0.0
    _, _, expected = read_signal(whole.folder / "signals", "market.scheduled_import_kw")
    _, _, metered = read_signal(whole.folder / "signals", "feeder.import_kw")
    assert expected[-1, 0] == pytest.approx(metered[-1, 0], rel=0.003)
    split = ["federates.market.split=3"]
    parts = run(load_scenario(NAME, split), out=tmp_path / "3", placement="single", steps=STEPS)
    # What the feeder sees: all that the market's federates do comes together there.
    files = sorted(path.name for path in (whole.folder / "signals").glob("feeder.*"))
    assert files
    for name in files:
        one, other = (folder / "signals" / name for folder in (whole.folder, parts.folder))
        assert one.read_bytes() == other.read_bytes(), name
