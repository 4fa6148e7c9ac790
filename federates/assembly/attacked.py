"""The federates of an attack: who carries it out, and what readers see before its first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controllers.core.mail import FloatArray
from federates.attacks.plan import AttackPlan
from federates.clock import Timing
from federates.core.context import FederateContext
from federates.core.wiring import FederateWiring
from federates.scenario.schema import Scenario

if TYPE_CHECKING:
    from federates.attacks.director import DirectorFederate
    from federates.attacks.federate import AttackFederate

ContextOf = Callable[[str, Timing], FederateContext]


def interposed(
    scenario: Scenario,
    federates: Mapping[str, Any],
    group_of: Mapping[str, str],
    wirings: Mapping[str, FederateWiring],
    external: Sequence[str],
) -> tuple[AttackPlan, dict[str, FederateWiring]]:
    """Lead the attacked elements through attack federates; see `federates.attacks.interpose`."""
    from federates.attacks.interpose import interpose

    assert scenario.attack_spec is not None
    horizon_s = scenario.n_steps * scenario.time.step_s
    return interpose(
        scenario.attack_spec, list(federates.values()), group_of, wirings, external, horizon_s
    )


def refuse_idle_steps(scenario: Scenario, plan: AttackPlan, federates: Mapping[str, Any]) -> None:
    """Refuse an attack with steps that cannot act within the scenario."""
    from federates.attacks.signal.trace_file import refuse_idle

    assert scenario.attack_spec is not None
    horizon_s = scenario.n_steps * scenario.time.step_s
    traces = [trace for name in plan.names for trace in getattr(federates[name], "traces", ())]
    refuse_idle(scenario.attack_spec, plan.schedule, horizon_s, traces)


def build(name: str, plan: AttackPlan, context_of: ContextOf) -> AttackFederate | DirectorFederate:
    """Build one federate of the attack."""
    from federates.attacks.director import DirectorFederate
    from federates.attacks.federate import AttackFederate

    site = plan.sites.get(name) or plan.director
    assert site is not None
    context = context_of(name, site.timing)
    spec = context.scenario.attack_spec
    assert spec is not None
    if name in plan.sites:
        return AttackFederate(context, spec, plan.sites[name], plan.schedule)
    assert plan.director is not None
    return DirectorFederate(context, spec, plan.director, plan.schedule)


def with_first_values(
    plan: AttackPlan, wirings: Mapping[str, FederateWiring], context_of: ContextOf
) -> dict[str, FederateWiring]:
    """Add the attacked values that a reader sees before its producer has stepped."""
    first: dict[tuple[str, str], FloatArray] = {}
    for name, site in plan.sites.items():
        if site.shift_ns > 0:
            # Built for this alone: the federate that runs must not have seen any values yet.
            values: Mapping[str, FloatArray] = getattr(
                build(name, plan, context_of), "first_values", dict
            )()
            first |= {(name, port): row for port, row in values.items()}
    out = dict(wirings)
    for name, wiring in wirings.items():
        begins = tuple(
            (port, feed, first[feed.source, feed.port])
            for port, feeds in wiring.feeds.items()
            for feed in feeds
            if (feed.source, feed.port) in first
        )
        if begins:
            out[name] = replace(wiring, first=begins)
    return out
