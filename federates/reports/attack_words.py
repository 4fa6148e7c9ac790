"""An attack's steps in plain words, for tables and pages."""

from __future__ import annotations

from federates.reports.format import clock
from federates.scenario import attack_schema as schema
from federates.scenario.attack_schema import AttackSpec, Step
from federates.scenario.attack_techniques import TECHNIQUES
from grid_models.base.sections import Section


def span(time_s: float) -> str:
    """Write a length of time: ``90 s``, ``15 min``, ``1.5 h``."""
    if time_s >= 3600.0 and not time_s % 360.0:
        return f"{time_s / 3600.0:g} h"
    if time_s >= 120.0 and not time_s % 60.0:
        return f"{time_s / 60.0:g} min"
    return f"{time_s:g} s"


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
    text = _does(step.action, unit)
    if step.probability < 1.0:
        text += f", each with probability {step.probability:g}"
    return text


def _does(action: object, unit: str) -> str:
    u = f" {unit}" if unit and unit != "1" else ""
    match action:
        case schema.Bias():
            return f"adds {action.value:g}{u}"
        case schema.Scale():
            return f"multiplies by {action.factor:g}"
        case schema.Set():
            return f"sets to {action.value:g}{u}"
        case schema.Ramp():
            most = "" if action.limit is None else f", at most {action.limit:g}{u}"
            return f"adds {action.rate_per_s:g}{u} per second{most}"
        case schema.Freeze():
            return "holds the last value before"
        case schema.Noise():
            return f"adds normal noise of {action.sigma:g}{u}"
        case schema.Drop():
            return "drops; nothing new arrives"
        case schema.Delay():
            return f"delivers {span(action.delay_s)} late"
        case schema.Replay():
            return f"plays {_source(action)} in its place"
        case schema.ReplayMail():
            return f"plays what was sent {span(action.lag_s)} ago"
        case schema.Swap():
            return "exchanges values in pairs"
        case schema.Adaptive():
            sees = f", seeing {', '.join(action.sees)}" if action.sees else ""
            return f"lets the attacker {action.attacker} decide{sees}"
        case _:
            return _does_not_to_signals(action)


def _does_not_to_signals(action: object) -> str:
    match action:
        case schema.Jam():
            late = f", up to {span(action.delay_s)} late" if action.delay_s else ""
            return f"jams: {action.loss:.0%} of messages lost{late}"
        case schema.Tamper():
            return f"sends {_formula(action.factor, action.bias, action.value, action.sigma)}"
        case schema.Impersonate():
            whose = f"the numbers of {action.agent}" if action.agent else f"{action.value:g}"
            return f"sends {whose} in the sender's name"
        case schema.Partition():
            return "cuts the agents off from all others"
        case schema.Rewrite():
            way = "what is read" if action.direction == "read" else "what is written"
            new = _formula(action.factor, action.bias, action.value, 0.0)
            hidden = ", and shows readers what was asked for" if action.hide else ""
            return f"rewrites {action.point} in {way}: {new}{hidden}"
        case schema.WritePoint():
            return f"writes {action.point} = {action.value:g}"
        case schema.ForgeException():
            return f"answers with Modbus exception {action.code}"
        case schema.Flood():
            return f"sends {action.requests_per_s:g} further requests per second"
        case schema.Trip():
            return "trips: disconnects or opens"
        case schema.CloseElement():
            return "closes"
        case schema.AlterLoad():
            return _load(action)
        case schema.Thermostat():
            return f"moves thermostats by {action.offset_k:+g} K"
        case Section():
            values = action.model_dump(exclude_none=True, exclude_defaults=True)
            more = ", ".join(f"{k} {v}" for k, v in values.items() if k != "kind")
            return f"{values.get('kind', '')} {more}".strip()
    return str(action)


def _source(action: schema.Replay) -> str:
    if action.window is not None:
        return f"the values of {action.window.from_s:g} to {action.window.to_s:g} s"
    rate = f" at {action.speed:g} times its speed" if action.speed != 1.0 else ""
    return f"the trace {action.file}{rate}"


def _formula(factor: float, bias: float, value: float | None, sigma: float) -> str:
    if value is not None:
        text = f"{value:g}"
    else:
        text = "x" if factor == 1.0 else f"{factor:g} x"
        text += f" {'+' if bias >= 0 else '-'} {abs(bias):g}" if bias else ""
    return text + (f" with noise of {sigma:g}" if sigma else "")


def _load(action: schema.AlterLoad) -> str:
    size = (
        f"adds {action.kw:g} kW of demand in all"
        if action.kw is not None
        else f"multiplies demand by {action.factor:g}"
    )
    if action.on_s is None or action.off_s is None:
        return size
    together = "at once" if action.synchrony == 1.0 else f"with synchrony {action.synchrony:g}"
    return f"{size}, {span(action.on_s)} on and {span(action.off_s)} off, {together}"


def shows(conceal: schema.Conceal) -> str:
    """Say what is shown instead of the truth."""
    show = conceal.show
    if show.freeze:
        return "its last value before"
    if show.window is not None:
        return f"its values of {show.window.from_s:g} to {show.window.to_s:g} s"
    return f"{show.value:g}"
