"""What the section ``environment`` draws for an episode of a whole federation.

An episode is a run of the scenario with another begin, length, load and source voltage.
"""

from __future__ import annotations

import numpy as np

from federates.environment.episodes import begins_and_steps
from federates.errors import ScenarioError
from federates.scenario.environment import Environment
from federates.scenario.schema import Scenario
from federates.scenario.sections import Time


def refuse_what_cannot_be_drawn(scenario: Scenario) -> None:
    """Raise ScenarioError where the section has keys that a federation cannot follow."""
    spec = scenario.environment or Environment()
    ranged = spec.load_scale != [1.0, 1.0] or spec.source_v_pu is not None
    for key, wrong, expected in (
        ("observation", spec.observation != "local", "local: agents see their own terminals"),
        ("load_diversity", spec.load_diversity > 0.0, "grid.load_diversity"),
        ("forged", spec.forged is not None, "an attack of the scenario"),
        (
            "load_scale" if spec.source_v_pu is None else "source_v_pu",
            ranged and len(scenario.plants) > 1,
            "no range in a scenario with several plants",
        ),
    ):
        if wrong:
            raise ScenarioError(
                "not possible with one agent per inverter",
                where=scenario.where("environment", key),
                expected=expected,
            )


def episode_of(scenario: Scenario, seed: int) -> Scenario:
    """Return the scenario of one episode; `seed` is its own, and that of what is drawn.

    Raises ScenarioError: The episode does not fit into the run.
    """
    spec, generator = scenario.environment or Environment(), np.random.default_rng(seed)
    time, grid = _time(scenario, spec, generator), scenario.grid
    low, high = spec.load_scale
    drawn = {"load_scale": grid.load_scale * generator.uniform(low, high)}
    if spec.source_v_pu is not None:
        low, high = spec.source_v_pu
        drawn["source_v_pu"] = generator.uniform(low, high)
    parts = {"seed": seed, "time": time, "grid": grid.model_copy(update=drawn)}
    return scenario.model_copy(update=parts)


def _time(scenario: Scenario, spec: Environment, generator: np.random.Generator) -> Time:
    """Return begin and length of an episode, on the steps of the run."""
    time, step_s = scenario.time, scenario.time.step_s
    if spec.start_h is None and spec.episode_s is None:
        return time
    first, n_steps = begins_and_steps(scenario, spec)
    begin_s = time.start_s + step_s * generator.integers(*first, endpoint=True)
    # One more: the state that the episode begins with.
    update = {"start_s": float(begin_s), "duration_s": (n_steps + 1) * step_s}
    return time.model_copy(update=update)
