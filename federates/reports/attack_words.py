"""An attack's steps in plain words, for tables and pages."""

from __future__ import annotations

from federates.reports.format import clock
from federates.scenario import attack_schema as schema
from federates.scenario.attack_schema import AttackSpec, Step
from federates.scenario.attack_techniques import TECHNIQUES
from federates.scenario.attack_wording import span


def techniques(spec: AttackSpec) -> list[str]:
    """Return ``T0856 Spoof Reporting Message`` for each technique of the attack."""
    return [f"{t} {TECHNIQUES.get(t, '')}".strip() for t in spec.techniques]


def when(step: Step, start_s: float = 0.0) -> str:
    """Say when a step begins; `start_s` is the time of day of the run's first step."""
    trigger = step.trigger
    wait = f", {span(trigger.delay_s)} later" if trigger.delay_s else ""
    if trigger.at_s is not None:
        at = trigger.at_s + trigger.delay_s
        return f"at {clock(start_s + at)} ({at:g} s)"
    if trigger.after is not None:
        return f"after step {trigger.after}{wait}"
    condition = trigger.when
    assert condition is not None
    which = "any label" if condition.label == "*" else condition.label
    held = f" for {span(condition.for_s)}" if condition.for_s else ""
    return f"when {which} of {condition.signal} is {_limits(condition)}{held}{wait}"


def _limits(condition: schema.When) -> str:
    if condition.above is not None:
        return f"above {condition.above:g}"
    if condition.below is not None:
        return f"below {condition.below:g}"
    low, high = condition.between or (0.0, 0.0)
    return f"between {low:g} and {high:g}"


def lasting(step: Step) -> str:
    """Say how long a step lasts and what is left of it."""
    if step.duration_s is None:
        return "to the end of the run"
    return f"for {span(step.duration_s)}" + ("; stays" if step.on_end == "leave" else "")


def does(step: Step, unit: str = "") -> str:
    """Say what a step does; `unit` is that of the ports it touches."""
    text = step.action.describe(unit)
    if step.probability < 1.0:
        text += f", each with probability {step.probability:g}"
    return text


def shows(conceal: schema.Conceal) -> str:
    """Say what is shown instead of the truth."""
    show = conceal.show
    if show.freeze:
        return "its last value before"
    if show.window is not None:
        return f"its values of {show.window.from_s:g} to {show.window.to_s:g} s"
    return f"{show.value:g}"
