"""Attacks are wiring: feeds of attacked elements are led through attack federates.

`interpose` takes a federation that is wired and returns the same federation with attack federates
in it. Producers and readers are not touched, only where the readers' values come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from controllers.core.mail import IntArray
from federates.attacks.director import director_of, watches_of
from federates.attacks.layer import AttackCase, AttackLayer
from federates.attacks.link.layer import LinkLayer
from federates.attacks.modbus.layer import ModbusLayer, true_injections
from federates.attacks.overlaps import overlap_problems
from federates.attacks.physical.action import UNITS
from federates.attacks.physical.layer import PhysicalLayer
from federates.attacks.plan import BEGINS, AttackPlan
from federates.attacks.selection import matching
from federates.attacks.signal.layer import SignalLayer
from federates.attacks.sites import SiteBuilder
from federates.attacks.view import FederationView
from federates.attacks.windows import window_problems
from federates.clock import Timing, to_ns
from federates.core.mail_routes import Wirable
from federates.core.wiring import FederateWiring, Feed
from federates.errors import WiringError
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec
from grid_models.base.errors import nothing_called


def interpose(
    spec: AttackSpec,
    federates: Sequence[Wirable],
    group_of: Mapping[str, str],
    wirings: Mapping[str, FederateWiring],
    external: Sequence[str],
    horizon_s: float,
) -> tuple[AttackPlan, dict[str, FederateWiring]]:
    """Lead the attacked elements through attack federates.

    Parameters
    ----------
    federates : All federates of the scenario, built.
    group_of : The scenario's federate name by instance.
    wirings : By instance, of the scenario without the attack.
    external : Programs that are not ours; what they read cannot be rerouted.
    horizon_s : End of the scenario; a run that is stopped sooner may end before a step begins.

    Returns
    -------
    AttackPlan, dict of FederateWiring
        The wirings of all federates, the plan's included.

    Raises WiringError: Listing every problem found, each with file, line and key.
    """
    by_name = {f.name: f for f in federates}
    wirings = true_injections(wirings, by_name)
    own_inputs = frozenset((*UNITS, BEGINS))
    federation = FederationView(by_name, group_of, wirings, to_ns(horizon_s), own_inputs)
    case = AttackCase(spec, AttackSchedule.of(spec), federation, external)
    signal, physical = SignalLayer(case), PhysicalLayer(case)
    layers: list[AttackLayer] = [signal, LinkLayer(case), ModbusLayer(case), physical]
    problems = [problem for layer in layers for problem in layer.problems]
    watches = watches_of(case, problems)
    problems += overlap_problems(spec, case.schedule, [layer.acts_on for layer in layers])
    problems += _reads_problems(spec, federation)
    samples: dict[int, tuple[Timing, ...]] = {}
    for layer in layers:
        samples |= {i: tuple(timings) for i, timings in layer.timings.items()}
    problems += window_problems(case, signal.chosen, samples)
    if problems:
        raise WiringError(problems)
    build = SiteBuilder(case, signal.chosen, physical.plans)
    problems += build.problems
    director = director_of(case, watches, samples, problems)
    if problems:
        raise WiringError(problems)
    touched = {part: found for layer in layers for part, found in layer.touched.items()}
    plan = AttackPlan(case.schedule, build.sites, director, touched)
    out = _rewired(federation, plan, build)
    for layer in layers:
        out = layer.rewire(out, plan)
    return plan, _published(out, plan)


def _reads_problems(spec: AttackSpec, federation: FederationView) -> list[str]:
    """Say which ports actions want to read that no federate publishes."""
    outputs = [word for word, _, _ in federation.ports("outputs")]
    return [
        nothing_called(spec.where("steps", i, "action", "sees", n), "output", glob, outputs)
        for i, step in enumerate(spec.steps)
        for n, glob in enumerate(step.action.reads())
        if not matching(outputs, [glob])
    ]


def _rewired(
    federation: FederationView, plan: AttackPlan, build: SiteBuilder
) -> dict[str, FederateWiring]:
    """Lead attacked elements through the sites, and the director's decisions to all who follow."""
    out = dict(federation.wirings)
    for name in {key[0] for key in build.out_of}:
        feeds = {
            port: tuple(_reroute(federation, build, name, port, port_feeds))
            for port, port_feeds in out[name].feeds.items()
        }
        for instance, port, _ in build.out_of:
            if instance == name and port not in feeds:
                feeds[port] = tuple(_reroute(federation, build, name, port, ()))
        out[name] = replace(out[name], feeds=feeds)
    begins = plan.begins()
    for site in plan.sites.values():
        feeds = dict(site.feeds)
        if any(p.name == BEGINS for p in site.inputs):
            feeds[BEGINS] = begins
        out[site.name] = FederateWiring(feeds, tuple(p.name for p in site.outputs))
    if plan.director is not None:
        out[plan.director.name] = FederateWiring(plan.director.feeds, (BEGINS,))
        for name, federate in federation.by_name.items():
            if any(p.name == BEGINS for p in federate.inputs):
                out[name] = replace(out[name], feeds={**out[name].feeds, BEGINS: begins})
    return out


def _published(
    wirings: Mapping[str, FederateWiring], plan: AttackPlan
) -> dict[str, FederateWiring]:
    """Return the wirings with everything published that attack federates read."""
    needed = {
        (feed.source, feed.port)
        for name in plan.names
        for feeds in wirings[name].feeds.values()
        for feed in feeds
    }
    out = {}
    for name, wiring in wirings.items():
        more = sorted(p for n, p in needed if n == name and p not in wiring.published)
        out[name] = replace(wiring, published=(*wiring.published, *more)) if more else wiring
    return out


def _reroute(
    federation: FederationView, build: SiteBuilder, name: str, port: str, feeds: tuple[Feed, ...]
) -> list[Feed]:
    """Return the feeds of an input with its attacked elements coming from attack federates."""
    kept: list[Feed] = []
    labels = federation.port(name, port, "inputs").labels
    for feed in feeds:
        source = _index(feed.source_index, feed.source_size)
        target = _index(feed.target_index, len(labels))
        clean = np.array([(name, port, t) not in build.out_of for t in target.tolist()])
        if clean.all():
            kept.append(feed)
        elif clean.any():
            streams = tuple(s for s, ok in zip(feed.noise_streams, clean, strict=False) if ok)
            kept.append(
                replace(
                    feed,
                    source_index=source[clean],
                    target_index=target[clean],
                    noise_streams=streams,
                )
            )
    forged: dict[tuple[str, float, float], list[tuple[int, int, str]]] = {}
    for t in range(len(labels)):
        place = build.out_of.get((name, port, t))
        if place is not None:
            origin = federation.origin[name, port, t]
            key = place[0], origin.noise, origin.scale
            forged.setdefault(key, []).append((place[1], t, origin.stream))
    for (out, noise, scale), rows in forged.items():
        kept.append(
            Feed(
                build.site_of[out],
                out,
                len(build.drafts[out].labels),
                np.array([r[0] for r in rows], dtype=np.int64),
                np.array([r[1] for r in rows], dtype=np.int64),
                noise,
                tuple(r[2] for r in rows) if noise else (),
                scale,
            )
        )
    return kept


def _index(index: IntArray | None, n: int) -> IntArray:
    return np.arange(n, dtype=np.int64) if index is None else index
