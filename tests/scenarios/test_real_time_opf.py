"""Real-time OPF in whole co-simulations with OpenDSS: parts of the shipped days."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.scenario

# From 11:39 on: a cloud leaves, and the available power rises by 3 MW within 30 s.
CLOUDS = ("time.start_s=41940", "time.duration_s=300", "time.warm_up_s=0")


def test_areas_hold_the_voltage_under_passing_clouds(ran: Callable[..., Any]) -> None:
    free = ran("rt-opf-ieee123", *CLOUDS, "federates={feeder: {kind: feeder}}", "connections=[]")
    held = ran("rt-opf-ieee123", *CLOUDS)
    assert free.values("feeder.v_pu").max() > 1.07
    v_max = held.values("feeder.v_pu")[5:].max(axis=1)
    assert v_max.max() < 1.054
    assert np.mean(v_max > 1.05 + 1e-3) < 0.1
    p_kw, available_kw = (held.values(f"feeder.{x}") for x in ("p_kw", "p_avail_kw"))
    assert p_kw[-1].sum() > 0.99 * available_kw[-1].sum(), "little of the sun is lost"


def test_the_import_follows_its_signal(ran: Callable[..., Any]) -> None:
    signal = "federates.dispatch.options.values=[[0, 300], [150, -300]]"
    result = ran("vpp-ieee123", *CLOUDS, signal, "federates.dispatch.options.sine=null")
    import_kw = result.values("feeder.import_kw")[:, 0]
    asked_kw = result.values("dispatch.import_set_kw")[:, 0]
    assert set(asked_kw) == {300.0, -300.0}
    error = np.abs(import_kw - asked_kw)
    settled = np.ones(len(error), dtype=bool)
    settled[:20] = settled[150:160] = False
    assert error[settled].mean() < 10.0
    assert error[160] < 30.0
    assert result.values("feeder.v_pu")[20:].max() < 1.051


def test_inverters_on_the_circle_of_their_rating_do_not_swing(ran: Callable[..., Any]) -> None:
    # At noon all inverters give what their rating allows: P and Q move together.
    noon = ("time.start_s=43200", "time.duration_s=180", "time.warm_up_s=0")
    held = ran("curtailment-ieee123", *noon, "federates.opf.options.areas=1")
    v_pu = held.values("feeder.v_pu")[30:]
    assert v_pu.max() < 1.0505
    assert np.ptp(v_pu, axis=0).max() < 2e-3
