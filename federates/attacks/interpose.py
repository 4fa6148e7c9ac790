"""Attacks are wiring: feeds of attacked elements are led through attack federates.

`interpose` takes a federation that is wired and gives back the same federation with attack
federates in it. Producers and readers are not touched, only where the readers' values come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from controllers.core.mail import IntArray
from federates.attacks.director import director_of
from federates.attacks.link import resolve_link_steps
from federates.attacks.modbus import modbus_problems, past_forgery
from federates.attacks.overlaps import overlap_problems
from federates.attacks.physical import groundless_steps
from federates.attacks.plan import BEGINS, AttackPlan, SitePlan
from federates.attacks.sites import SiteBuilder
from federates.attacks.targets import choose_all, sees_problems, touched_by, watches_of
from federates.attacks.view import FederationView
from federates.attacks.windows import samples_of, window_problems
from federates.clock import to_ns
from federates.core.wiring import FederateWiring, Feed, Wirable
from federates.errors import WiringError
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import AttackSpec


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
    spec : AttackSpec
    federates : sequence of Wirable
        All federates of the scenario, built.
    group_of : mapping of instance to the scenario's federate name
    wirings : mapping of instance to FederateWiring
        Of the scenario without the attack.
    external : sequence of str
        Programs that are not ours; what they read cannot be rerouted.
    horizon_s : float
        End of the scenario; a run that is stopped sooner may end before a step begins.

    Returns
    -------
    AttackPlan, dict of FederateWiring
        The wirings of all federates, the plan's included.

    Raises
    ------
    WiringError
        Listing every problem found, each with file, line and key.
    """
    wirings = past_forgery(wirings, {f.name: f for f in federates})
    federation = FederationView({f.name: f for f in federates}, group_of, wirings, to_ns(horizon_s))
    schedule = Schedule.of(spec)
    problems: list[str] = []
    chosen = choose_all(spec, federation, external, problems)
    links, link_problems = resolve_link_steps(spec, {f.name: tuple(f.links_in) for f in federates})
    problems += link_problems
    physical = {
        f.name: plan for f in federates if (plan := getattr(f, "physical", None)) is not None
    }
    modbus = {f.name: plan for f in federates if (plan := getattr(f, "modbus", None)) is not None}
    problems += modbus_problems(spec, federates) + groundless_steps(spec, physical)
    watches = watches_of(spec, schedule, federation, problems)
    problems += overlap_problems(spec, schedule, touched_by(chosen, links, physical | modbus))
    problems += sees_problems(spec, federation)
    samples = samples_of(federation, chosen, links, physical, modbus)
    problems += window_problems(spec, schedule, federation, chosen, samples)
    if problems:
        raise WiringError(problems)
    build = SiteBuilder(spec, federation, schedule, chosen)
    sites = build.sites(physical)
    problems += build.problems
    director = director_of(spec, federation, schedule, watches, samples, problems)
    if problems:
        raise WiringError(problems)
    plan = AttackPlan(schedule, sites, director, links)
    return plan, _rewired(federation, plan, build)


def _rewired(
    federation: FederationView, plan: AttackPlan, build: SiteBuilder
) -> dict[str, FederateWiring]:
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
    needed: set[tuple[str, str]] = set()
    for site in plan.sites.values():
        feeds_of_site = dict(site.feeds)
        if any(p.name == BEGINS for p in site.inputs):
            feeds_of_site[BEGINS] = (_word_of_director(plan),)
        outputs = tuple(c.out for c in site.channels)
        if site.physical is not None:
            outputs += tuple(p.name for p in site.physical.ports())
            for name, federate in federation.by_name.items():
                read = {p.name for p in federate.inputs}
                out[name] = _with_grid_inputs(out[name], site, read)
        out[site.name] = FederateWiring(feeds=feeds_of_site, published=outputs)
    if plan.director is not None:
        out[plan.director.name] = FederateWiring(feeds=plan.director.feeds, published=(BEGINS,))
        word = _word_of_director(plan)
        for name, federate in federation.by_name.items():
            if any(p.name == BEGINS for p in federate.inputs):
                out[name] = replace(out[name], feeds={**out[name].feeds, BEGINS: (word,)})
            if plan.links.get(name) is not None:
                out[name] = replace(out[name], watch=word)
    for name, link_attack in plan.links.items():
        if link_attack is not None:
            out[name] = replace(out[name], link_attack=link_attack)
    for name in plan.names:
        needed |= {(f.source, f.port) for fs in out[name].feeds.values() for f in fs}
    return {name: _publishing(wiring, name, needed) for name, wiring in out.items()}


def _publishing(wiring: FederateWiring, name: str, needed: set[tuple[str, str]]) -> FederateWiring:
    more = sorted(p for n, p in needed if n == name and p not in wiring.published)
    return replace(wiring, published=(*wiring.published, *more)) if more else wiring


def _word_of_director(plan: AttackPlan) -> Feed:
    assert plan.director is not None
    return Feed(plan.director.name, BEGINS, len(plan.schedule.directed), None, None)


def _with_grid_inputs(wiring: FederateWiring, site: SitePlan, read: set[str]) -> FederateWiring:
    """Feed those inputs of the grid's, and of devices on it, that a federate has."""
    assert site.physical is not None
    feeds = {
        port.name: (Feed(site.name, port.name, len(port.labels), None, None),)
        for port in site.physical.ports()
        if port.name in read
    }
    return replace(wiring, feeds={**wiring.feeds, **feeds}) if feeds else wiring


def _reroute(
    federation: FederationView,
    build: SiteBuilder,
    name: str,
    port: str,
    feeds: tuple[Feed, ...],
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
    forged: dict[tuple[str, float], list[tuple[int, int, str]]] = {}
    for t in range(len(labels)):
        place = build.out_of.get((name, port, t))
        if place is not None:
            origin = federation.origin[name, port, t]
            forged.setdefault((place[0], origin.noise), []).append((place[1], t, origin.stream))
    for (out, noise), rows in forged.items():
        draft = build.drafts[out]
        kept.append(
            Feed(
                build.site_of[out],
                out,
                len(draft.labels),
                np.array([r[0] for r in rows], dtype=np.int64),
                np.array([r[1] for r in rows], dtype=np.int64),
                noise,
                tuple(r[2] for r in rows) if noise else (),
            )
        )
    return kept


def _index(index: IntArray | None, n: int) -> IntArray:
    return np.arange(n, dtype=np.int64) if index is None else index
