"""What the page's process is told of a run before its federates start; plain data, as JSON."""

from __future__ import annotations

import math
from typing import Any

from federates.kinds.external import ExternalFederate
from federates.runs.runner import Started
from federates.scenario.attack_schedule import begins_s
from federates.scenario.attack_schema import AttackSpec

HERE, EXTERNAL, ELSEWHERE = "here", "external", "elsewhere"


def roster_of(run: Started) -> dict[str, Any]:
    """Return the federates of a run, whom they read from, their signals, plants and devices."""
    scenario = run.assembly.scenario
    return {
        "folder": str(run.store.folder.resolve()),
        "name": scenario.name,
        "title": scenario.title or scenario.name,
        "seed": scenario.seed,
        "start_s": scenario.time.start_s,
        "band": [scenario.band.v_min_pu, scenario.band.v_max_pu],
        "horizon_ns": run.assembly.horizon_ns,
        "paced": scenario.time.real_time is not None,
        "one_loop": run.placement in ("single", "shared"),
        "spans_hosts": run.spans_hosts,
        "attack": _attack(scenario.attack_spec),
        "plants": [name for name in scenario.plants if name in run.federates],  # with a map
        "federates": [_federate(run, name) for name in _in_order(run)],
        "signals": {
            f"{name}.{port.name}": port.unit
            for name, federate in run.federates.items()
            for port in federate.outputs
        },
        "devices": {
            name: dict(zip(federate.names, federate.kinds_of, strict=True))
            for name, federate in run.federates.items()
            if hasattr(federate, "kinds_of") and hasattr(federate, "names")
        },
    }


def _attack(spec: AttackSpec | None) -> dict[str, Any] | None:
    """Return title and begin of an attack: None where it begins when a signal says so."""
    if spec is None:
        return None
    begin_s = min(begins_s(spec, lambda _: math.inf), default=math.inf)
    return {
        "title": spec.title or spec.id,
        "kind": spec.kind,
        "begin_s": begin_s if begin_s < math.inf else None,
    }


def _in_order(run: Started) -> list[str]:
    return [*run.here, *(name for name in run.federates if name not in run.here)]


def _federate(run: Started, name: str) -> dict[str, Any]:
    federate, wiring = run.federates[name], run.wirings.get(name)
    sources = set()
    if wiring is not None:
        sources = {feed.source for feeds in wiring.feeds.values() for feed in feeds}
        sources |= {feed.source for feed in (wiring.inbox.reads if wiring.inbox else ())}
    for other, its_wiring in run.wirings.items():
        if any(receiver == name for receiver, _ in its_wiring.mail_routes):
            sources.add(other)
    where = HERE if name in run.here else ELSEWHERE
    return {
        "name": name,
        "where": EXTERNAL if isinstance(federate, ExternalFederate) else where,
        "row": run.here.index(name) if name in run.here else None,
        "period_ns": federate.timing.period_ns,
        "offset_ns": federate.timing.offset_ns,
        "steps": federate.timing.steps_before(run.assembly.horizon_ns),
        "reads": sorted(sources - {name}),
    }
