"""Episodes against runs of the same scenario, laws of a step, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import feederate
from federates.environment.world import World

ONE = np.arange(1)
# OpenDSS' own tolerance, 1e-6, would be the largest part of a deviation.
DAY = {"time": {"start_s": 43000.0, "duration_s": 120.0}, "grid.tolerance_pu": 1e-11}
BATTERIES = {
    "kind": "battery",
    "at": ["47", "48", "76"],
    "kw": 60.0,
    "hours": 0.03,
    "per_phase": False,
}
TANKS = [
    {"kind": "flexible_load", "at": "load_buses", "fraction": 0.1, "kw": 5.0, "hours": 2.0},
    {"kind": "house", "at": "load_buses", "fraction": 0.1, "kw": 14.0},
    {"kind": "vehicle", "at": "houses", "kw": 7.0, "leave_h": 8.0, "return_h": 11.9499},
]


def replayed(run: Any, found: World, q_of: str, p_share: float | None = None) -> tuple[Any, Any]:
    """Step an episode with the set-points that were sent in a run; return both voltages."""
    found.restart(ONE, [np.random.default_rng(0)])
    assert found.solve().all()
    q_set = run.signals[q_of][list(found.agents)].to_numpy()
    seen = [found.v_pu[0].copy()]
    for q in q_set[:-1]:
        headroom = found._ders.headroom_kvar[0]
        share = np.divide(q, headroom, out=np.zeros_like(q), where=headroom > 0.0)
        assert np.abs(share).max() <= 1.0 + 1e-12
        more = [] if p_share is None else [p_share] * len(found.storage)
        found.act([[*share, *more]])
        assert found.solve().all()
        seen.append(found.v_pu[0].copy())
    return np.array(seen), run.signals["feeder.v_pu"][list(found.nodes)].to_numpy()


def test_voltages_are_those_of_a_run(tmp_path: Path) -> None:
    given = feederate.load("voltvar-ieee123-droop", set=DAY)
    run = feederate.run(given, placement="single", report=False, out=tmp_path / "run")
    seen, v_pu = replayed(run, World(given, 1), "volt_var.q_set_kvar")
    assert np.ptp(v_pu, axis=0).max() > 0.01  # the droop has acted
    np.testing.assert_allclose(seen, v_pu, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_batteries_and_loads_behind_ders_are_those_of_a_run(
    direction: float, tmp_path: Path
) -> None:
    pv = feederate.load("voltvar-ieee123-droop").grid.ders
    signal = {"port": "p_set_kw", "unit": "kW", "values": [[0.0, 1e4 * direction]]}
    given = feederate.load(
        "voltvar-ieee123-droop",
        set={
            **DAY,
            "grid.ders": [*pv, BATTERIES, *TANKS],
            "federates.order": {"kind": "signal", "options": {**signal, "ders": ["battery_*"]}},
            "federates.volt_var.ders": ["pv_*", "battery_*"],
            "connections": [
                "feeder.v_pu -> volt_var.v_pu",
                "volt_var.q_set_kvar -> feeder.q_set_kvar",
                "order.p_set_kw -> feeder.p_set_kw",
            ],
        },
    )
    run = feederate.run(given, placement="single", report=False, out=tmp_path / "run")
    found = World(given, 1)
    seen, v_pu = replayed(run, found, "volt_var.q_set_kvar", direction)
    p_kw = run.signals["feeder.p_kw"]
    batteries = p_kw[list(found.storage)].to_numpy()
    assert np.abs(batteries[1]).min() > 50.0
    assert np.abs(batteries[-1]).max() == 0.0  # empty, or full
    np.testing.assert_allclose(found._ders.p_kw[0], p_kw.to_numpy()[-1], rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(seen, v_pu, rtol=0.0, atol=1e-8)
