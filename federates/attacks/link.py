"""Attacks on mail between agents: which messages a step acts on, worked out before the run.

Every receiver acts on its own mail, where the link model is. Targets are drawn among the links or
agents of the whole federation, so how agents are hosted changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controllers.core.mail import Link
from federates.attacks.selection import drawn, matching, nothing_called
from federates.errors import WiringError
from federates.scenario.attack_schedule import Schedule
from federates.scenario.attack_schema import (
    AttackSpec,
    Impersonate,
    LinkAction,
    LinkStep,
    Partition,
)
from grid_models.base.errors import nearest_name

_SHOWN = 12


@dataclass(frozen=True)
class LinkStepPlan:
    """What one step does to the mail of one federate.

    Attributes
    ----------
    step : int
        Position in the attack's steps.
    id : str
    action : LinkAction
    probability : float
    links : tuple of str
        Keys of the attacked links.
    donors : tuple of str
        Impersonation: keys of the links whose numbers are taken, one for each of `links`.
    """

    step: int
    id: str
    action: LinkAction
    probability: float
    links: tuple[str, ...]
    donors: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinkAttackPlan:
    """What an attack does to the mail of one federate; plain data.

    Attributes
    ----------
    seed : int
    schedule : Schedule
    steps : tuple of LinkStepPlan
        In the order of the file, in which they act on a message.
    announces : tuple of int
        Positions of the steps whose begin and end this federate reports for all.
    """

    seed: int
    schedule: Schedule
    steps: tuple[LinkStepPlan, ...]
    announces: tuple[int, ...]


def resolve_link_steps(
    spec: AttackSpec, links: Mapping[str, Sequence[Link]]
) -> tuple[dict[str, LinkAttackPlan | None], list[str]]:
    """Work out what each federate does to its mail.

    Parameters
    ----------
    spec : AttackSpec
    links : mapping of federate name to its `links_in`
        All federates of the federation.

    Returns
    -------
    plans : mapping of federate name to LinkAttackPlan
        None where nothing is attacked.
    problems : list of str
        What is wrong with the steps, each with file, line and key.
    """
    network = sorted((link for each in links.values() for link in each), key=lambda k: k.key)
    problems: list[str] = []
    steps: dict[str, list[LinkStepPlan]] = {name: [] for name in sorted(links)}
    announces: dict[str, list[int]] = {name: [] for name in links}
    for i, step in spec.of_layer("link"):
        assert isinstance(step, LinkStep)
        targets = _Targets(spec, i, step, network, problems)
        chosen = targets.links()
        donors = targets.donors(chosen)
        announced = False
        for name, mine in steps.items():
            hosted = {link.key for link in links[name]}
            keys = tuple(link.key for link in chosen if link.key in hosted)
            if not keys:
                continue
            taken = tuple(donors[key] for key in keys if key in donors)
            mine.append(LinkStepPlan(i, step.id, step.action, step.probability, keys, taken))
            if not announced:
                announces[name].append(i)
                announced = True
    schedule = Schedule.of(spec)
    plans = {
        name: LinkAttackPlan(spec.seed, schedule, tuple(steps[name]), tuple(announces[name]))
        if steps[name]
        else None
        for name in links
    }
    return plans, problems


class _Targets:
    """The targets of one step among all links of the federation."""

    def __init__(
        self,
        spec: AttackSpec,
        position: int,
        step: LinkStep,
        network: Sequence[Link],
        problems: list[str],
    ) -> None:
        self._spec = spec
        self._position = position
        self._step = step
        self._network = network
        self._agents = sorted({end for link in network for end in (link.source, link.target)})
        self._problems = problems

    def links(self) -> list[Link]:
        """Return the attacked links, ordered by key."""
        target, action = self._step.target, self._step.action
        if not self._network:
            self._problem(
                "no agent of this scenario writes mail",
                "target",
                expected="a controller whose agents talk to each other",
            )
            return []
        if target.agents is not None:
            found = self._of_agents(target.agents)
        elif target.links is not None and not isinstance(action, Partition):
            found = self._of_links(target.links)
        else:
            kind = "agents" if isinstance(action, Partition) else "links or agents"
            what = f"a link step with the action '{action.kind}' needs {kind} as its target"
            self._problem(what, "target", expected=f"the key {kind}")
            return []
        if not isinstance(action, Impersonate) or action.agent is None:
            return found
        others = [link for link in found if link.source != action.agent]
        if found and not others:
            what = f"'{action.agent}' is the only sender in the target, and writes in its own name"
            self._problem(what, "action", "agent", expected="another agent, or another target")
        return others

    def donors(self, chosen: Sequence[Link]) -> dict[str, str]:
        """Return by link the link whose numbers are written in its sender's name."""
        agent = self._step.action.agent if isinstance(self._step.action, Impersonate) else None
        if agent is None:
            return {}
        if agent not in self._agents:
            self._problem(
                f"no agent is called '{agent}'",
                "action",
                "agent",
                expected="one of " + ", ".join(self._agents[:_SHOWN]),
                nearest=nearest_name(agent, self._agents),
            )
            return {}
        lines = {(*_line(link), link.source): link.key for link in self._network}
        out = {link.key: lines.get((*_line(link), agent)) for link in chosen}
        for link in chosen:
            if out[link.key] is None:
                writers = [x.source for x in self._network if _line(x) == _line(link)]
                self._problem(
                    f"'{agent}' writes no mail like that of {link.key} to '{link.target}'",
                    "action",
                    "agent",
                    expected=f"an agent that does ({', '.join(writers)}), or another target",
                )
                break
        return {key: donor for key, donor in out.items() if donor is not None}

    def _of_agents(self, globs: Sequence[str]) -> list[Link]:
        names = self._meant("agents", globs, {name: (name,) for name in self._agents})
        if not isinstance(self._step.action, Partition):
            return [x for x in self._network if x.source in names or x.target in names]
        cut = [x for x in self._network if (x.source in names) != (x.target in names)]
        if names and not cut:
            self._problem(
                "nothing to cut: no mail passes between these agents and others",
                "target",
                "agents",
                expected="some of " + ", ".join(self._agents[:_SHOWN]),
            )
        return cut

    def _of_links(self, globs: Sequence[str]) -> list[Link]:
        names = self._meant(
            "links", globs, {x.key: (f"{x.source}>{x.target}", x.key) for x in self._network}
        )
        return [x for x in self._network if x.key in names]

    def _meant(
        self, key: str, globs: Sequence[str], names: Mapping[str, tuple[str, ...]]
    ) -> set[str]:
        """Return what the globs mean and the draw leaves; `names` holds the spellings of each."""
        for k, glob in enumerate(globs):
            if not any(matching(words, [glob]) for words in names.values()):
                where = self._spec.where("steps", self._position, "target", key, k)
                spellings = [words[0] for words in names.values()]
                self._problems.append(nothing_called(where, key.removesuffix("s"), glob, spellings))
        found = sorted(name for name, words in names.items() if matching(words, globs))
        return set(drawn(found, self._step.target, self._spec, self._position))

    def _problem(
        self, what: str, *key: str | int, expected: str | None = None, nearest: str | None = None
    ) -> None:
        where = self._spec.where("steps", self._position, *key)
        problem = WiringError([what], where=where)
        problem.expected, problem.nearest = expected, nearest
        self._problems.append(str(problem))


def _line(link: Link) -> tuple[str, str, int]:
    """Return what two links share whose messages can stand for each other."""
    return link.target, link.kind, link.width
