"""Load-side frequency control of 39 buses in whole co-simulations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controllers.frequency.iteration import DppdLoop
from controllers.frequency.network import control_network
from controllers.frequency.options import DppdOptions
from federates.errors import ScenarioError
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

SHORT = "time.duration_s=9"


@pytest.mark.parametrize("name", ["ieee39-dppd", "ieee39-alc", "ieee39-dppd-varying"])
def test_scenario_gives_the_bits_of_the_loop(name: str, ran: Callable[..., Any]) -> None:
    """The agents' set-points, from what they measured, are those of one loop without mail."""
    result = ran(name, SHORT, "federates.loads.split=4")
    hz = result.values("grid.frequency_hz")
    given = result.values("injections.injection_mw")
    set_mw = {bus: np.frombuffer(bits) for bus, bits in result.by_label("load_set_mw").items()}
    network = control_network("ieee39", None)
    assert len(set_mw) == np.count_nonzero(network.limit_pu)
    loop = DppdLoop(network, DppdOptions(), smooth=name != "ieee39-alc")
    changed = [network.buses.index(bus) for bus in ("37", "39")]
    largest_mw = 0.0
    for k in range(len(hz)):
        p = network.injection_pu.copy()
        # What is published at the same time as an agent steps is read at its next step.
        if k:
            p[changed] = given[k - 1] / network.base_mva
        demand = network.base_mva * loop.step(2.0 * math.pi * (hz[k] - 60.0), p)
        for bus, values in set_mw.items():
            assert values[k] == demand[network.buses.index(bus)]
        largest_mw = max(largest_mw, np.abs(demand).max())
    assert largest_mw > 10.0


def test_signal_needs_a_value_for_each_label() -> None:
    scenario = load_scenario("ieee39-dppd", ["federates.injections.options.values=[[0, 1, 2, 3]]"])
    with pytest.raises(ScenarioError, match="3 values, the port 2 labels"):
        run(scenario, placement="single")
    with pytest.raises(ScenarioError, match="rows of equal length"):
        load_scenario("ieee39-dppd", ["federates.injections.options.values=[[0, 1], [1, 2, 3]]"])
