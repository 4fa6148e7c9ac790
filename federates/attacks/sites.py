"""Attacked elements grouped into channels, and channels into attack federates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from controllers.core.ports import Port
from federates.attacks.plan import BEGINS, Channel, Part, SitePlan
from federates.attacks.selection import matching
from federates.attacks.targets import Chosen
from federates.attacks.view import FederationView, Key, Names, Origin, every
from federates.clock import Timing
from federates.core.wiring import Feed
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import Adaptive, AttackSpec, Swap


@dataclass
class Draft:
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


class SiteBuilder:
    """Groups attacked elements into channels and channels into federates.

    `problems` says what cannot be carried out so, once `sites` was asked for.
    """

    def __init__(
        self, spec: AttackSpec, federation: FederationView, schedule: Schedule, chosen: Chosen
    ) -> None:
        self._spec, self._federation, self._schedule = spec, federation, schedule
        self._chosen = chosen
        self._parts_of: dict[Key, tuple[tuple[int, int | None], ...]] = {}
        for part, keys in chosen.items():
            for key in keys:
                self._parts_of[key] = (*self._parts_of.get(key, ()), part)
        self.drafts: dict[str, Draft] = {}
        self.problems: list[str] = []
        # Names are for the eye: `a-b.c` and `a.b-c` look alike, and what is alike gets a number.
        self._outs, self._ins = Names(), Names()
        self.out_of: dict[Key, tuple[str, int]] = {}
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

    def _add(self, key: Key, origin: Origin, at: tuple[str, str, int], view: int) -> None:
        instance, port_name, position = at
        side = "outputs" if origin.source else "inputs"
        port = self._federation.port(instance, port_name, side)
        wish = f"{instance}-{port_name}" + (f"-{view + 1}" if view else "")
        name = self._outs.of((side, instance, port_name, view), wish)
        draft = self.drafts.get(name)
        if draft is None:
            draft = self.drafts[name] = Draft(
                origin.source,
                port_name,
                name,
                self._federation.timing_of(key),
                unit=port.unit,
                initial=port.initial,
                federate=self._federation.group_of[instance],
            )
        if at not in draft.keys:
            draft.keys[at] = len(draft.labels)
            draft.labels.append(port.labels[position])
            draft.positions.append(position)
        self.out_of[key] = (name, draft.keys[at])

    def sites(self, physical: Mapping[str, Any]) -> dict[str, SitePlan]:
        """Return the attack federates: one per timing of producers, and one before the grid."""
        groups: dict[tuple[Timing, bool], list[Draft]] = {}
        for draft in self.drafts.values():
            groups.setdefault((draft.timing, bool(draft.source)), []).append(draft)
        for feeder in physical:
            groups.setdefault((self._federation.by_name[feeder].timing, False), [])
        free, several = self._federation.names(), len(groups) > 1
        names = [free.of(n, f"attack_{n + 1}" if several else "attack") for n in range(len(groups))]
        announced = self._announcers(groups)
        out: dict[str, SitePlan] = {}
        for name, ((timing, behind), drafts) in zip(names, groups.items(), strict=True):
            plans = [p for f, p in physical.items() if self._federation.by_name[f].timing == timing]
            plan = plans[0] if plans and not behind else None
            for draft in drafts:
                self.site_of[draft.out] = name
            site = self._site(name, timing, behind, drafts, plan, announced[timing, behind])
            grids = [self._federation.group_of[f] for f, p in physical.items() if p is plan]
            out[name] = replace(site, grid=grids[0]) if grids else site
        self._refuse_parted()
        return out

    def _refuse_parted(self) -> None:
        """Refuse steps whose targets belong together and do not all pass one federate."""
        for (i, conceal), keys in self._chosen.items():
            action = self._spec.steps[i].action
            if conceal is not None or not isinstance(action, Swap | Adaptive):
                continue
            by_site = {self.site_of[self.out_of[key][0]]: key for key in reversed(keys)}
            if len(by_site) > 1:
                ways = [self._way(by_site[name]) for name in sorted(by_site)]
                self.problems.append(
                    f"{self._spec.where('steps', i, 'target')}: '{action.kind}' needs all its "
                    f"targets at one moment, and these pass at different ones: {'; '.join(ways)}; "
                    "expected targets of one timing, or a step for each timing"
                )

    def _way(self, key: Key) -> str:
        """Say when an element passes."""
        origin, when = self._federation.origin[key], every(self._federation.timing_of(key))
        if not origin.source:
            return f"{key[0]}.{key[1]}, which nobody feeds, before it is read {when}"
        return f"{origin.source}.{origin.port} {when}"

    def _announcers(
        self, groups: Mapping[tuple[Timing, bool], list[Draft]]
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
        drafts: list[Draft],
        physical: Any,
        announces: tuple[int, ...],
    ) -> SitePlan:
        half = self._federation.gap_ns(timing) // 2
        self._refuse_tight(timing, drafts, physical)
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
                self._in(d.source, d.port) if d.source else "",
                np.array(d.positions, dtype=np.int64),
                d.out,
                d.initial,
            )
            for d in drafts
        )
        inputs, feeds = self._true_values(channels, drafts)
        acting = {i for d in drafts for i in self._steps(d)}
        acting |= {action.step for action in physical.actions} if physical is not None else set()
        sees, more, more_feeds = self._eyes(acting)
        inputs += [p for p in more if p.name not in feeds]
        feeds = more_feeds | feeds
        if self._schedule.directed:
            ids = tuple(self._schedule.ids[i] for i in self._schedule.directed)
            inputs.append(Port(BEGINS, "s", ids, np.nan, required=False))
        parts = self._parts(drafts)
        return SitePlan(
            name, own, shift, channels, parts, tuple(inputs), feeds, sees, physical, announces
        )

    def _refuse_tight(self, timing: Timing, drafts: list[Draft], physical: Any) -> None:
        problem = self._federation.gap_problem(timing)
        if not problem:
            return
        outs = {d.out for d in drafts}
        acting = {
            i for k, (out, _) in self.out_of.items() if out in outs for i, _ in self._parts_of[k]
        }
        acting |= {action.step for action in physical.actions} if physical is not None else set()
        self.problems.append(f"{self._spec.where('steps', min(acting), 'target')}: {problem}")

    def _in(self, instance: str, port: str) -> str:
        """Return the input of attack federates that brings an output port."""
        return self._ins.of((instance, port), f"{instance}-{port}")

    def _steps(self, draft: Draft) -> set[int]:
        return {
            i
            for key, (name, _) in self.out_of.items()
            if name == draft.out
            for i, conceal in self._parts_of[key]
            if conceal is None
        }

    def _true_values(
        self, channels: tuple[Channel, ...], drafts: list[Draft]
    ) -> tuple[list[Port], dict[str, tuple[Feed, ...]]]:
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
        return list(ports.values()), feeds

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
                    name = self._in(instance, port.name)
                    ports[name] = Port(name, port.unit, port.labels, port.initial)
                    feeds[name] = (Feed(instance, port.name, len(port.labels), None, None),)
                    sees[i][word] = (*sees[i].get(word, ()), name)
        return sees, list(ports.values()), feeds

    def _parts(self, drafts: list[Draft]) -> tuple[Part, ...]:
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
