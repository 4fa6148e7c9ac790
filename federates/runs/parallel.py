"""How many runs may go on at the same time."""

from __future__ import annotations

import os

from federates.scenario.schema import Scenario


def at_a_time(scenario: Scenario) -> int:
    """Return how many runs of a scenario may run at the same time.

    One if they would share something: a real device, the topics of a foreign program, or the wall
    clock.
    """
    if scenario.time.real_time is not None:
        return 1
    for spec in scenario.federates.values():
        ours = all(d in ("simulated", "emulated") for d in getattr(spec, "devices", {}).values())
        if spec.kind == "external" or not ours:
            return 1
    return len(os.sched_getaffinity(0))
