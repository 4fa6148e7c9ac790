"""What an attack would touch in a scenario, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from federates.assembly.federation import Assembly
from federates.attacks.plan import Touched, TouchedByStep
from federates.core.federate import Federate
from federates.reports import attack_words as words
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import Scenario


@dataclass(frozen=True)
class StepExplained:
    """One step in words, with what it touches in the scenario at hand."""

    id: str
    title: str
    layer: str
    when: str
    lasting: str
    does: str
    touches: tuple[Touched, ...]
    shows: tuple[tuple[Touched, str], ...]
    """Where something else than the truth is shown, and what."""


@dataclass(frozen=True)
class AttackExplained:
    """A whole attack on a scenario that it fits."""

    spec: AttackSpec
    scenario: str
    steps: tuple[StepExplained, ...]


def explain_attack(scenario: Scenario, steps: int | None = None) -> AttackExplained:
    """Build and wire the attacked scenario, start nothing, and say what the attack would do.

    Parameters
    ----------
    scenario : With an attack.
    steps : Number of feeder steps that the run would have.

    Raises FeederateError: What `run` would refuse; a `WiringError` lists every problem.
    """
    spec = scenario.attack_spec
    assert spec is not None
    assembly = Assembly(scenario, None if steps is None else min(steps, scenario.n_steps))
    built, _ = assembly.assemble()
    try:
        assert assembly.attack_plan is not None
        explained = tuple(
            _step(spec, i, assembly.attack_plan.touched, scenario.time.start_s)
            for i in range(len(spec.steps))
        )
        return AttackExplained(spec, scenario.name, explained)
    finally:
        for federate in built.values():
            if isinstance(federate, Federate):
                federate.close()


def _step(spec: AttackSpec, i: int, touched: TouchedByStep, start_s: float) -> StepExplained:
    step, touches = spec.steps[i], tuple(touched.get((i, None), ()))
    units = {t.unit for t in touches}
    unit = units.pop() if len(units) == 1 else ""
    shows = tuple(
        (t, words.shows(conceal))
        for n, conceal in enumerate(step.conceal)
        for t in touched.get((i, n), ())
    )
    return StepExplained(
        step.id,
        step.title,
        step.layer,
        words.when(step, start_s),
        words.lasting(step),
        words.does(step, unit),
        touches,
        shows,
    )
