"""Attacks are wiring: feeds of attacked elements are led through attack federates.

`interpose` takes a federation that is wired and gives back the same federation with attack
federates in it. Producers and readers are not touched, only where the readers' values come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd
from typing import Any

import numpy as np

from controllers.mail import IntArray
from controllers.ports import Port
from federates.attacks.link import resolve_link_steps
from federates.attacks.overlaps import overlap_problems
from federates.attacks.plan import (
    BEGINS,
    AttackPlan,
    Channel,
    DirectorPlan,
    Part,
    SitePlan,
)
from federates.attacks.schedule import Schedule
from federates.attacks.schema import Adaptive, AttackSpec, SignalStep, Target
from federates.attacks.selection import drawn, matching, nothing_called
from federates.clock import Timing
from federates.errors import WiringError
from federates.wiring import FederateWiring, Feed, Wirable

_Key = tuple[str, str, int]
"""An element of an input: instance, port, position."""


@dataclass(frozen=True)
class _Origin:
    """Where an input's element comes from; source is empty where nobody feeds it."""

    source: str
    port: str
    position: int
    noise: float = 0.0
    stream: str = ""


@dataclass
class _Federation:
    """The wired federation, looked at element by element."""

    by_name: Mapping[str, Wirable]
    group_of: Mapping[str, str]
    wirings: Mapping[str, FederateWiring]
    origin: dict[_Key, _Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, federate in self.by_name.items():
            for port in federate.inputs:
                for k in range(len(port.labels)):
                    self.origin[name, port.name, k] = _Origin("", "", -1)
                for feed in self.wirings[name].feeds.get(port.name, ()):
                    self._take(name, port, feed)

    def _take(self, name: str, port: Port, feed: Feed) -> None:
        source = (
            range(feed.source_size) if feed.source_index is None else feed.source_index.tolist()
        )
        target = (
            range(len(port.labels)) if feed.target_index is None else feed.target_index.tolist()
        )
        for n, (s, t) in enumerate(zip(source, target, strict=True)):
            stream = feed.noise_streams[n] if feed.noise_streams else ""
            self.origin[name, port.name, t] = _Origin(feed.source, feed.port, s, feed.noise, stream)

    def port(self, instance: str, name: str, side: str) -> Port:
        ports: Sequence[Port] = getattr(self.by_name[instance], side)
        return next(p for p in ports if p.name == name)

    def ports(self, side: str) -> list[tuple[str, str, Port]]:
        """Return (``federate.port`` in the scenario's words, instance, port) of one side."""
        return [
            (f"{self.group_of[name]}.{port.name}", name, port)
            for name, federate in self.by_name.items()
            for port in getattr(federate, side)
        ]

    def gap_ns(self, timing: Timing) -> int:
        """Return the time between a step of this timing and the next step of anybody."""
        return min(_lag_ns(timing, other.timing) for other in self.by_name.values())


def _lag_ns(first: Timing, then: Timing) -> int:
    every = gcd(first.period_ns, then.period_ns)
    return (then.offset_ns - first.offset_ns) % every or every


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
        End of the run.

    Returns
    -------
    AttackPlan, dict of FederateWiring
        The wirings of all federates, the plan's included.

    Raises
    ------
    WiringError
        Listing every problem found, each with file, line and key.
    """
    federation = _Federation({f.name: f for f in federates}, group_of, wirings)
    schedule = Schedule.of(spec)
    problems = [
        f"{spec.where('steps', i, 'trigger')}: begins at {begin:g} s, the run ends at "
        f"{horizon_s:g} s; expected an earlier time"
        for i, begin in enumerate(schedule.begin_s)
        if begin >= horizon_s
    ]
    chosen = _choose_all(spec, federation, external, problems)
    links, link_problems = resolve_link_steps(spec, {f.name: tuple(f.links_in) for f in federates})
    problems += link_problems
    physical = {
        f.name: plan for f in federates if (plan := getattr(f, "physical", None)) is not None
    }
    watches = _watches(spec, schedule, federation, problems)
    problems += overlap_problems(spec, schedule, _touched(chosen, links, physical))
    problems += _sees_problems(spec, federation)
    if problems:
        raise WiringError(problems)
    build = _Builder(spec, federation, schedule, chosen)
    sites = build.sites(physical)
    director = _director(spec, federation, schedule, watches, set(sites))
    plan = AttackPlan(schedule, sites, director, links)
    return plan, _rewired(federation, plan, build)


# -- what the steps mean ---------------------------------------------------------------------------

_Chosen = dict[tuple[int, int | None], list[_Key]]
"""Elements of inputs by (step, its concealment or None)."""


def _choose_all(
    spec: AttackSpec, federation: _Federation, external: Sequence[str], problems: list[str]
) -> _Chosen:
    chosen: _Chosen = {}
    for i, step in enumerate(spec.steps):
        if isinstance(step, SignalStep):
            where = ("steps", i, "target")
            chosen[i, None] = _choose(spec, i, step.target, where, federation, problems)
        for n, conceal in enumerate(step.conceal):
            target = Target(port=conceal.port, labels=conceal.labels)
            where_conceal = ("steps", i, "conceal", n)
            chosen[i, n] = _choose(spec, i, target, where_conceal, federation, problems)
    for (i, _), keys in chosen.items():
        foreign = next((name for name, _, _ in keys if name in external), None)
        if foreign is not None:
            problems.append(
                f"{spec.where('steps', i, 'target')}: the external federate '{foreign}' reads its "
                "topics by itself, nothing can stand in between; expected another reader"
            )
    return chosen


def _choose(
    spec: AttackSpec,
    i: int,
    target: Target,
    where: tuple[str | int, ...],
    federation: _Federation,
    problems: list[str],
) -> list[_Key]:
    """Return the input elements that a target means, drawn by label."""
    assert target.port is not None
    names: dict[str, dict[str, list[_Key]]] = {}
    for word, instance, port in federation.ports("inputs"):
        for key in ((instance, port.name, k) for k in range(len(port.labels))):
            label = port.labels[key[2]]
            names.setdefault(word, {}).setdefault(label, []).append(key)
            origin = federation.origin[key]
            if origin.source:
                out = f"{federation.group_of[origin.source]}.{origin.port}"
                source_label = federation.port(origin.source, origin.port, "outputs").labels
                names.setdefault(out, {}).setdefault(source_label[origin.position], []).append(key)
    ports = matching(names, [target.port])
    if not ports:
        problems.append(
            nothing_called(spec.where(*where, "port"), "port that is read", target.port, names)
        )
        return []
    labels = list(dict.fromkeys(label for port in ports for label in names[port]))
    for n, glob in enumerate(target.labels):
        if not matching(labels, [glob]):
            problems.append(
                nothing_called(
                    spec.where(*where, "labels", n), f"label of {ports[0]}", glob, labels
                )
            )
    kept = set(drawn(matching(labels, target.labels), target, spec, i))
    keys = [key for p in ports for label, ks in names[p].items() if label in kept for key in ks]
    return list(dict.fromkeys(keys))


def _touched(
    chosen: _Chosen, links: Mapping[str, Any], physical: Mapping[str, Any]
) -> dict[int, dict[str, frozenset[str]]]:
    """Return what each step acts on, by kind of thing."""
    found: dict[int, dict[str, set[str]]] = {}
    for (i, _), keys in chosen.items():
        names = (f"element {k} of {instance}.{port}" for instance, port, k in keys)
        found.setdefault(i, {}).setdefault("signal", set()).update(names)
    for plan in links.values():
        for step in plan.steps if plan is not None else ():
            found.setdefault(step.step, {}).setdefault("link", set()).update(step.links)
    for plan in physical.values():
        for i, names in plan.touched().items():
            found.setdefault(i, {}).setdefault("physical", set()).update(names)
    return {i: {k: frozenset(v) for k, v in kinds.items()} for i, kinds in found.items()}


def _watches(
    spec: AttackSpec, schedule: Schedule, federation: _Federation, problems: list[str]
) -> dict[int, list[tuple[str, Port]]]:
    """Return the output ports (of instances) that each directed step looks at."""
    found: dict[int, list[tuple[str, Port]]] = {}
    outputs = federation.ports("outputs")
    for i in schedule.directed:
        when = spec.steps[i].trigger.when
        if when is None:
            continue
        where = ("steps", i, "trigger", "when")
        ports = [(name, port) for word, name, port in outputs if word == when.signal]
        if not ports:
            problems.append(
                nothing_called(
                    spec.where(*where, "signal"), "output", when.signal, [w for w, _, _ in outputs]
                )
            )
            continue
        labels = [label for _, port in ports for label in port.labels]
        if not matching(labels, [when.label]):
            problems.append(
                nothing_called(
                    spec.where(*where, "label"), f"label of {when.signal}", when.label, labels
                )
            )
        found[i] = ports
    return found


def _sees_problems(spec: AttackSpec, federation: _Federation) -> list[str]:
    outputs = [word for word, _, _ in federation.ports("outputs")]
    return [
        nothing_called(spec.where("steps", i, "action", "sees", n), "output", glob, outputs)
        for i, step in spec.of_layer("signal")
        if isinstance(step.action, Adaptive)
        for n, glob in enumerate(step.action.sees)
        if not matching(outputs, [glob])
    ]


# -- from elements to attack federates ------------------------------------------------------------


@dataclass
class _Draft:
    """One channel while it is put together."""

    source: str
    port: str
    out: str
    timing: Timing
    keys: dict[Any, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    unit: str = ""
    initial: float = 0.0
    federate: str = ""


class _Builder:
    """Groups attacked elements into channels and channels into federates."""

    def __init__(
        self, spec: AttackSpec, federation: _Federation, schedule: Schedule, chosen: _Chosen
    ) -> None:
        self._spec, self._federation, self._schedule = spec, federation, schedule
        self._chosen = chosen
        self._parts_of: dict[_Key, tuple[tuple[int, int | None], ...]] = {}
        for part, keys in chosen.items():
            for key in keys:
                self._parts_of[key] = (*self._parts_of.get(key, ()), part)
        self.drafts: dict[str, _Draft] = {}
        self.out_of: dict[_Key, tuple[str, int]] = {}
        """Where each attacked input element now comes from: draft and position in it."""
        self.site_of: dict[str, str] = {}
        self._draft()

    def _draft(self) -> None:
        views: dict[tuple[str, str, int], list[tuple[tuple[int, int | None], ...]]] = {}
        for key in self._federation.origin:  # in the scenario's order
            parts = self._parts_of.get(key)
            if parts is None:
                continue
            origin = self._federation.origin[key]
            at = (origin.source, origin.port, origin.position) if origin.source else key
            seen = views.setdefault(at, [])
            if parts not in seen:
                seen.append(parts)
            self._add(key, origin, at, seen.index(parts))

    def _add(self, key: _Key, origin: _Origin, at: tuple[str, str, int], view: int) -> None:
        instance, port_name, position = at
        side = "outputs" if origin.source else "inputs"
        port = self._federation.port(instance, port_name, side)
        name = f"{instance}-{port_name}" + (f"-{view + 1}" if view else "")
        draft = self.drafts.get(name)
        if draft is None:
            draft = self.drafts[name] = _Draft(
                origin.source,
                port_name,
                name,
                self._timing(key, origin),
                unit=port.unit,
                initial=port.initial,
                federate=self._federation.group_of[instance],
            )
        if at not in draft.keys:
            draft.keys[at] = len(draft.labels)
            draft.labels.append(port.labels[position])
            draft.positions.append(position)
        self.out_of[key] = (name, draft.keys[at])

    def _timing(self, key: _Key, origin: _Origin) -> Timing:
        """Return when the values are produced: by their producer, or when their reader reads."""
        return self._federation.by_name[origin.source or key[0]].timing

    def sites(self, physical: Mapping[str, Any]) -> dict[str, SitePlan]:
        """Return the attack federates: one per timing of producers, and one before the grid."""
        groups: dict[tuple[Timing, bool], list[_Draft]] = {}
        for draft in self.drafts.values():
            groups.setdefault((draft.timing, bool(draft.source)), []).append(draft)
        for feeder in physical:
            groups.setdefault((self._federation.by_name[feeder].timing, False), [])
        names = [f"attack_{n + 1}" if len(groups) > 1 else "attack" for n in range(len(groups))]
        announced = self._announcers(groups)
        out: dict[str, SitePlan] = {}
        for name, ((timing, behind), drafts) in zip(names, groups.items(), strict=True):
            plans = [p for f, p in physical.items() if self._federation.by_name[f].timing == timing]
            plan = plans[0] if plans and not behind else None
            for draft in drafts:
                self.site_of[draft.out] = name
            out[name] = self._site(name, timing, behind, drafts, plan, announced[timing, behind])
        return out

    def _announcers(
        self, groups: Mapping[tuple[Timing, bool], list[_Draft]]
    ) -> dict[tuple[Timing, bool], tuple[int, ...]]:
        """Let the first federate that has a part in a step say when it begins and ends."""
        said: set[int] = set()
        out: dict[tuple[Timing, bool], tuple[int, ...]] = {}
        for group, drafts in groups.items():
            steps = {
                i
                for key, (name, _) in self.out_of.items()
                if any(d.out == name for d in drafts)
                for i, conceal in self._parts_of[key]
                if conceal is None
            }
            if not group[1]:
                steps |= {i for i, _ in self._spec.of_layer("physical")}
            out[group] = tuple(sorted(steps - said))
            said |= steps
        return out

    def _site(
        self,
        name: str,
        timing: Timing,
        behind: bool,
        drafts: list[_Draft],
        physical: Any,
        announces: tuple[int, ...],
    ) -> SitePlan:
        half = self._federation.gap_ns(timing) // 2
        if behind:
            own, shift = Timing(timing.period_ns, timing.offset_ns + half), -half
        else:
            # Before a reader's next step; the very first one is given to it as its initial values.
            offset = timing.offset_ns + timing.period_ns - half
            own, shift = Timing(timing.period_ns, offset), half
        channels = tuple(
            Channel(
                d.federate,
                d.port,
                d.unit,
                tuple(d.labels),
                f"{d.source}-{d.port}" if d.source else "",
                np.array(d.positions, dtype=np.int64),
                d.out,
                d.initial,
            )
            for d in drafts
        )
        inputs, feeds, channels = self._true_values(channels, drafts)
        sees, more, more_feeds = self._eyes({i for d in drafts for i in self._steps(d)})
        inputs += [p for p in more if p.name not in feeds]
        feeds = more_feeds | feeds
        if self._schedule.directed:
            ids = tuple(self._schedule.ids[i] for i in self._schedule.directed)
            inputs.append(Port(BEGINS, "s", ids, np.nan, required=False))
        parts = self._parts(drafts)
        return SitePlan(
            name, own, shift, channels, parts, tuple(inputs), feeds, sees, physical, announces
        )

    def _steps(self, draft: _Draft) -> set[int]:
        return {
            i
            for key, (name, _) in self.out_of.items()
            if name == draft.out
            for i, conceal in self._parts_of[key]
            if conceal is None
        }

    def _true_values(
        self, channels: tuple[Channel, ...], drafts: list[_Draft]
    ) -> tuple[list[Port], dict[str, tuple[Feed, ...]], tuple[Channel, ...]]:
        """Return the inputs that bring the true values: one whole port each."""
        ports: dict[str, Port] = {}
        feeds: dict[str, tuple[Feed, ...]] = {}
        for channel, draft in zip(channels, drafts, strict=True):
            if channel.source and channel.source not in ports:
                port = self._federation.port(draft.source, draft.port, "outputs")
                ports[channel.source] = Port(channel.source, port.unit, port.labels, port.initial)
                feeds[channel.source] = (
                    Feed(draft.source, draft.port, len(port.labels), None, None),
                )
        return list(ports.values()), feeds, channels

    def _eyes(
        self, steps: set[int]
    ) -> tuple[dict[int, dict[str, tuple[str, ...]]], list[Port], dict[str, tuple[Feed, ...]]]:
        """Return what adaptive attackers read besides their targets."""
        sees: dict[int, dict[str, tuple[str, ...]]] = {}
        ports: dict[str, Port] = {}
        feeds: dict[str, tuple[Feed, ...]] = {}
        for i in sorted(steps):
            action = self._spec.steps[i].action
            if not isinstance(action, Adaptive):
                continue
            sees[i] = {}
            for word, instance, port in self._federation.ports("outputs"):
                if matching([word], action.sees):
                    name = f"{instance}-{port.name}"
                    ports[name] = Port(name, port.unit, port.labels, port.initial)
                    feeds[name] = (Feed(instance, port.name, len(port.labels), None, None),)
                    sees[i][word] = (*sees[i].get(word, ()), name)
        return sees, list(ports.values()), feeds

    def _parts(self, drafts: list[_Draft]) -> tuple[Part, ...]:
        first, start = {}, 0
        for draft in drafts:
            first[draft.out] = start
            start += len(draft.labels)
        parts = []
        for part, keys in self._chosen.items():
            places = [self.out_of[key] for key in keys]
            at = dict.fromkeys(first[name] + k for name, k in places if name in first)
            if at:
                parts.append(Part(*part, np.array(list(at), dtype=np.int64)))
        return tuple(sorted(parts, key=lambda p: (p.step, p.conceal is not None, p.conceal or 0)))


def _director(
    spec: AttackSpec,
    federation: _Federation,
    schedule: Schedule,
    watches: Mapping[int, list[tuple[str, Port]]],
    taken: set[str],
) -> DirectorPlan | None:
    if not schedule.directed:
        return None
    ports: dict[str, Port] = {}
    feeds: dict[str, tuple[Feed, ...]] = {}
    for found in watches.values():
        for instance, port in found:
            name = f"{instance}-{port.name}"
            ports[name] = Port(name, port.unit, port.labels, port.initial)
            feeds[name] = (Feed(instance, port.name, len(port.labels), None, None),)
    timing = min(
        (
            federation.by_name[instance].timing
            for found in watches.values()
            for instance, _ in found
        ),
        key=lambda t: (t.period_ns, t.offset_ns),
    )
    # Half as late as those who forge the same producer's values, so that they know in time.
    quarter = federation.gap_ns(timing) // 4
    names = {i: tuple(f"{n}-{p.name}" for n, p in found) for i, found in watches.items()}
    own = Timing(timing.period_ns, timing.offset_ns + quarter)
    return DirectorPlan("attack_director", own, -quarter, tuple(ports.values()), feeds, names)


# -- the new wiring --------------------------------------------------------------------------------


def _rewired(
    federation: _Federation, plan: AttackPlan, build: _Builder
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
                if getattr(federate, "physical", None) is not None:
                    out[name] = _with_grid_inputs(out[name], site)
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


def _with_grid_inputs(wiring: FederateWiring, site: SitePlan) -> FederateWiring:
    feeds = dict(wiring.feeds)
    for port in site.physical.ports():
        feeds[port.name] = (Feed(site.name, port.name, len(port.labels), None, None),)
    return replace(wiring, feeds=feeds)


def _reroute(
    federation: _Federation,
    build: _Builder,
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
