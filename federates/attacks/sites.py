"""Attack federates of a plan: attacked elements grouped into channels, channels by timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from controllers.core.ports import Port
from federates.attacks.layer import AttackCase
from federates.attacks.physical.plan import PhysicalPlan
from federates.attacks.plan import BEGINS, PartPlan, SitePlan, begins_port
from federates.attacks.selection import matching
from federates.attacks.signal.forge import ForgedChannel, ForgePlan, ForgingStep
from federates.attacks.signal.layer import Chosen
from federates.attacks.view import Key, Names, Origin, every
from federates.clock import Timing
from federates.core.wiring import Feed

Parts = tuple[tuple[int, int | None], ...]
"""Steps, and their concealments, that act on one element."""


@dataclass
class Draft:
    """One channel while it is put together."""

    source: str
    port: str
    out: str
    timing: Timing
    positions_of: dict[Key, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    unit: str = ""
    initial: float = 0.0
    federate: str = ""


@dataclass
class Group:
    """The parts of one attack federate while they are put together.

    `behind` says that it steps after the producers of its values; else it steps before readers.
    """

    timing: Timing
    behind: bool
    drafts: list[Draft] = field(default_factory=list)
    physical: PhysicalPlan | None = None


class SiteBuilder:
    """Groups attacked elements into channels and channels into federates.

    Parameters
    ----------
    chosen : Elements that signal steps and concealments act on.
    physical : What is done to each plant, by instance.

    Attributes
    ----------
    problems : What no attack federate can do.
    out_of : Output port and position that each attacked input element now comes from.
    site_of : Attack federate by output port.
    sites : By name.
    """

    def __init__(
        self, case: AttackCase, chosen: Chosen, physical: Mapping[str, PhysicalPlan]
    ) -> None:
        self._case, self._chosen = case, chosen
        self._federation, self._spec = case.federation, case.spec
        self._parts_of: dict[Key, Parts] = {}
        for part, keys in chosen.items():
            for key in keys:
                self._parts_of[key] = (*self._parts_of.get(key, ()), part)
        self.drafts: dict[str, Draft] = {}
        self.problems: list[str] = []
        # `a-b.c` and `a.b-c` give the same name; the second gets a number.
        self._outs, self._ins = Names(), Names()
        self.out_of: dict[Key, tuple[str, int]] = {}
        self.site_of: dict[str, str] = {}
        self._first_of: dict[str, int] = {}  # of each channel, among those of its federate
        self._draft()
        self.sites = self._build(physical)
        self._refuse_parted()

    def _draft(self) -> None:
        views: dict[Key, list[Parts]] = {}
        for key, origin in self._federation.origin.items():  # in the scenario's order
            parts = self._parts_of.get(key)
            if parts is not None:
                at = origin.element if origin.source else key
                seen = views.setdefault(at, [])
                if parts not in seen:
                    seen.append(parts)
                self._add(key, origin, at, seen.index(parts))

    def _add(self, key: Key, origin: Origin, at: Key, view: int) -> None:
        """Add an element to the channel of its port; readers deceived apart have their own."""
        instance, port_name, position = at
        side = "outputs" if origin.source else "inputs"
        port = self._federation.port(instance, port_name, side)
        wanted = f"{instance}-{port_name}" + (f"-{view + 1}" if view else "")
        name = self._outs.of((side, instance, port_name, view), wanted)
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
        if at not in draft.positions_of:
            draft.positions_of[at] = len(draft.labels)
            draft.labels.append(port.labels[position])
            draft.positions.append(position)
        self.out_of[key] = (name, draft.positions_of[at])

    def _groups(self, physical: Mapping[str, PhysicalPlan]) -> list[Group]:
        """Return one group per timing of producers or readers; each plant has one of its own."""
        groups: list[Group] = []
        for draft in self.drafts.values():
            key = draft.timing, bool(draft.source)
            group = next((g for g in groups if (g.timing, g.behind) == key), None)
            if group is None:
                groups.append(group := Group(*key))
            group.drafts.append(draft)
        for instance, plan in physical.items():
            timing = self._federation.by_name[instance].timing
            free = (g for g in groups if (g.timing, g.behind) == (timing, False) and not g.physical)
            group = next(free, None)
            if group is None:
                groups.append(group := Group(timing, False))
            group.physical = plan
        return groups

    def _build(self, physical: Mapping[str, PhysicalPlan]) -> dict[str, SitePlan]:
        groups = self._groups(physical)
        free, several = self._federation.names(), len(groups) > 1
        names = [free.of(n, f"attack_{n + 1}" if several else "attack") for n in range(len(groups))]
        for name, group in zip(names, groups, strict=True):
            first = 0
            for draft in group.drafts:
                self.site_of[draft.out], self._first_of[draft.out] = name, first
                first += len(draft.labels)
        announced: set[int] = set()
        out: dict[str, SitePlan] = {}
        for name, group in zip(names, groups, strict=True):
            out[name] = self._site(name, group, announced)
            announced.update(out[name].announces)
        return out

    def _site(self, name: str, group: Group, announced: set[int]) -> SitePlan:
        timing, half = group.timing, self._federation.gap_ns(group.timing) // 2
        if group.behind:
            own, shift = Timing(timing.period_ns, timing.offset_ns + half), -half
        else:
            # Before a reader's next step; the very first one is given to it as its initial values.
            offset = timing.offset_ns + timing.period_ns - half
            own, shift = Timing(timing.period_ns, offset), half
        parts: list[PartPlan] = []
        inputs: dict[str, Port] = {}
        feeds: dict[str, tuple[Feed, ...]] = {}
        if group.drafts:
            channels = tuple(self._channel(draft, inputs, feeds) for draft in group.drafts)
            parts.append(ForgePlan(channels, self._forging(group)))
        if group.physical is not None:
            parts.append(group.physical)
        acting = {i for part in parts for i in part.steps()}
        self._refuse_tight(group, acting)
        sees = {i: found for i in sorted(acting) if (found := self._sees(i, inputs, feeds))}
        if self._case.schedule.directed:
            inputs[BEGINS] = begins_port(self._case.schedule)
        announces = tuple(sorted(acting - announced))
        return SitePlan(
            name, own, shift, tuple(inputs.values()), feeds, tuple(parts), sees, announces
        )

    def _channel(
        self, draft: Draft, inputs: dict[str, Port], feeds: dict[str, tuple[Feed, ...]]
    ) -> ForgedChannel:
        """Return a finished channel; its true values come by one whole port."""
        source = self._read(draft.source, draft.port, inputs, feeds) if draft.source else ""
        return ForgedChannel(
            draft.federate,
            draft.port,
            draft.unit,
            tuple(draft.labels),
            source,
            np.array(draft.positions, dtype=np.int64),
            draft.out,
            draft.initial,
        )

    def _read(
        self, instance: str, name: str, inputs: dict[str, Port], feeds: dict[str, tuple[Feed, ...]]
    ) -> str:
        """Return the input of an attack federate that brings an output; add it if it is new."""
        port = self._federation.port(instance, name, "outputs")
        into = self._ins.of((instance, name), f"{instance}-{name}")
        if into not in inputs:
            inputs[into] = Port(into, port.unit, port.labels, port.initial)
            feeds[into] = (Feed(instance, name, len(port.labels), None, None),)
        return into

    def _sees(
        self, i: int, inputs: dict[str, Port], feeds: dict[str, tuple[Feed, ...]]
    ) -> dict[str, tuple[str, ...]]:
        """Return the inputs that bring what a step's action reads besides its targets."""
        globs, out = self._spec.steps[i].action.reads(), dict[str, tuple[str, ...]]()
        for word, instance, port in self._federation.ports("outputs"):
            if matching([word], globs):
                out[word] = (*out.get(word, ()), self._read(instance, port.name, inputs, feeds))
        return out

    def _forging(self, group: Group) -> tuple[ForgingStep, ...]:
        """Return what each step does in a group, its elements in the scenario's order."""
        outs = {draft.out for draft in group.drafts}
        forging = []
        for part, keys in self._chosen.items():
            places = [self.out_of[key] for key in keys]
            at = dict.fromkeys(self._first_of[out] + k for out, k in places if out in outs)
            if at:
                forging.append(ForgingStep(*part, np.array(list(at), dtype=np.int64)))
        forging.sort(key=lambda p: (p.step, p.conceal is not None, p.conceal or 0))
        return tuple(forging)

    def _refuse_tight(self, group: Group, acting: set[int]) -> None:
        """Refuse a federate that does not fit between the steps of the others."""
        problem = self._federation.gap_problem(group.timing)
        if problem:
            outs = {draft.out for draft in group.drafts}
            shown = {
                i
                for k, (out, _) in self.out_of.items()
                if out in outs
                for i, _ in self._parts_of[k]
            }
            where = self._spec.where("steps", min(acting | shown), "target")
            self.problems.append(f"{where}: {problem}")

    def _refuse_parted(self) -> None:
        """Refuse steps whose action needs all targets, where not all pass one federate."""
        for (i, conceal), keys in self._chosen.items():
            action = self._spec.steps[i].action
            if conceal is not None or not action.needs_all_targets:
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
