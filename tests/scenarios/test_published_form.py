"""OPTDIST-VC as published on the demo's feeder: stable, and much slower than the demo's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

# Clear noon from a flat start; without control the highest voltage is 1.092 pu.
NOON = ("time.start_s=43200", "grid.profiles.kind=clear")


def last_steps(name: str, out: Path) -> tuple[float, float]:
    """Return the highest voltage and the largest change of a q in the last 100 of 600 steps."""
    run(load_scenario(name, NOON), out=out, placement="single", steps=600)
    v = read_signal(out / "signals", "feeder.v_pu")[2][-100:]
    q = read_signal(out / "signals", "volt_var.q_set_kvar")[2][-100:]
    return float(v.max()), float(np.abs(np.diff(q, axis=0)).max())


def test_published_form_is_stable_and_slower_than_the_preconditioned_one(tmp_path: Path) -> None:
    assert load_scenario("voltvar-ieee123-published").federates["volt_var"].options == {
        "form": "published",
        "margin_pu": 0.006,
    }
    published, change = last_steps("voltvar-ieee123-published", tmp_path / "published")
    # Measured: 1.0660 pu and at most 1.6 kvar a step; an unstable gamma swings by the ratings.
    assert 1.05 < published < 1.075
    assert change < 3.0
    preconditioned, _ = last_steps("voltvar-ieee123", tmp_path / "preconditioned")
    assert preconditioned < 1.05
