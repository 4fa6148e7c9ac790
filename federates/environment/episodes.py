"""What is drawn for each episode, and which scenarios have episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from federates.core.federate import FloatArray
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.kinds.controller import INVERTERS
from federates.kinds.feeder.section import FeederSection
from federates.scenario.environment import Environment
from federates.scenario.schema import Scenario

_COMMANDED = ("q_set_kvar", "p_set_kw")
_SAME_S = 1e-6


@dataclass(frozen=True)
class Draw:
    """One episode.

    Attributes
    ----------
    first : Row of the day at which it begins.
    load_factor : (n_loads,). Factors on the loads.
    source_pu : Voltage of the source.
    forged_pu : (n_inverters,). Added to the voltages that inverters read.
    """

    first: int
    load_factor: FloatArray
    source_pu: float
    forged_pu: FloatArray


class Episodes:
    """How episodes of a scenario are drawn.

    Parameters
    ----------
    spec : The section ``environment``, or its defaults.
    source_v_pu : Voltage of the grid's source.
    n_loads, n_inverters : Of the feeder.

    Attributes
    ----------
    n_steps : Steps of an episode after its first state.

    Raises ScenarioError: An episode does not fit into the run.
    """

    def __init__(
        self,
        scenario: Scenario,
        spec: Environment,
        source_v_pu: float,
        n_loads: int,
        n_inverters: int,
    ) -> None:
        self._spec, self._n_loads, self._n_inverters = spec, n_loads, n_inverters
        low, high = spec.source_v_pu or (source_v_pu, source_v_pu)
        self._source_pu = low, high
        self._first, self.n_steps = begins_and_steps(scenario, spec)

    def draw(self, generator: np.random.Generator) -> Draw:
        """Draw an episode."""
        spec, std = self._spec, self._spec.load_diversity
        first = int(generator.integers(*self._first, endpoint=True))
        low, high = spec.load_scale
        scale = generator.uniform(low, high)
        # Log-normal of mean 1, as `grid_models.profiles.load_diversity`.
        factor = np.exp(std * generator.standard_normal(self._n_loads) - 0.5 * std**2)
        source_pu = generator.uniform(*self._source_pu)
        forged_pu = np.zeros(self._n_inverters)
        if spec.forged is not None:
            count = round(spec.forged.share * self._n_inverters)
            forged_pu[generator.permutation(self._n_inverters)[:count]] = spec.forged.bias_pu
        return Draw(first, scale * factor, source_pu, forged_pu)


def begins_and_steps(scenario: Scenario, spec: Environment) -> tuple[tuple[int, int], int]:
    """Return the run's first and last step at which an episode may begin, and its length in steps.

    Raises ScenarioError: An episode does not fit into the run.
    """
    dt_s, begin_s, last = scenario.time.step_s, scenario.time.start_s, scenario.n_steps - 1
    hours = spec.start_h or [begin_s / 3600.0] * 2
    rows = [(hour * 3600.0 - begin_s) / dt_s for hour in hours]
    earliest = int(np.ceil(rows[0] - _SAME_S))
    first = earliest, max(earliest, int(np.floor(rows[1] + _SAME_S)))
    left = last - first[1]
    n_steps = left if spec.episode_s is None else max(1, round(spec.episode_s / dt_s))
    if first[0] < 0 or not 1 <= n_steps <= left:
        key = "start_h" if spec.episode_s is None else "episode_s"
        run = f"{begin_s / 3600:g} h to {(begin_s + last * dt_s) / 3600:g} h"
        length = "" if spec.episode_s is None else f" of {spec.episode_s:g} s"
        raise ScenarioError(
            f"an episode{length} that begins from {hours[0]:g} to {hours[1]:g} h does not fit into "
            "the run",
            where=scenario.where("environment", key),
            expected=f"at least one step inside the run, {run} of the day "
            "(time.start_s, time.duration_s)",
        )
    return first, n_steps


def refuse_what_cannot_be(scenario: Scenario, site: GridSite) -> None:
    """Raise ScenarioError where a batch of episodes would differ from a run of the scenario."""
    section = None if site.plant is None else scenario.federates[site.plant]
    if not isinstance(section, FeederSection):
        count = len(scenario.plants)
        raise ScenarioError(
            f"the scenario has {count} plants" if count != 1 else "its plant is no single feeder",
            where=scenario.where("federates"),
            expected="one federate of kind 'feeder'",
        )
    name, grid = str(site.plant), site.grid
    curves = [der.name for der in site.feeder.ders if der.volt_var is not None]
    commanded = [der.name for der in site.feeder.ders if der.kind in INVERTERS]
    for place, wrong, expected in (
        (
            site.where("regulators"),
            site.regulators == "auto",
            "grid.regulators: fixed; a batch of power flows has given taps",
        ),
        (
            site.where("grid_forming"),
            grid.grid_forming is not None,
            "no island: the source of a batch of power flows has no limits",
        ),
        (
            site.where("ders"),
            bool(curves),
            f"DERs without a volt-var curve of their own; {', '.join(curves[:1])} has one",
        ),
        (
            site.where("ders"),
            not commanded,
            f"DERs to command, of kind {', '.join(INVERTERS)}",
        ),
        (
            scenario.where("federates", name),
            section.settle_s > 0.0 or bool(section.period_s or section.offset_s),
            "a feeder without settle_s, period_s and offset_s",
        ),
        (
            scenario.where("attack"),
            scenario.attack_spec is not None,
            "no attack (set attack to null); environment.forged forges what agents read",
        ),
    ):
        if wrong:
            raise ScenarioError(
                "not possible in a batch of episodes", where=place, expected=expected
            )
    for i, wire in enumerate(scenario.wires):
        federate, _, port = wire.target.partition(".")
        if federate == name and port not in _COMMANDED:
            raise ScenarioError(
                f"'{wire.target}' is fed, which no agent does",
                where=scenario.where("connections", i),
                expected=f"inputs {' and '.join(_COMMANDED)} of the feeder only",
            )
