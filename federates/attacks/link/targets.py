"""The links that a step on mail means, among all links of the federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controllers.core.mail import Link
from federates.attacks.selection import drawn, matching
from federates.errors import WiringError
from federates.scenario.attack_schema import AttackSpec, Step
from grid_models.base.errors import nearest_name, nothing_called

_SHOWN = 12


class LinkTargets:
    """The target of one step; targets are drawn among the links or agents of the federation.

    Parameters
    ----------
    position : Of the step in the attack.
    network : All links, ordered by key.
    problems : What is wrong is appended, with file, line and key.
    """

    def __init__(
        self, spec: AttackSpec, position: int, network: Sequence[Link], problems: list[str]
    ) -> None:
        self._spec, self._position, self._problems = spec, position, problems
        self._step: Step = spec.steps[position]
        self._network = network
        self._agents = sorted({end for link in network for end in (link.source, link.target)})

    def matched(self) -> list[Link]:
        """Return the links that the target names, or all of the agents that it names."""
        target = self._step.target
        if not self._any_mail():
            return []
        if target.agents is not None:
            names = self._agents_meant(target.agents)
            return [x for x in self._network if x.source in names or x.target in names]
        if target.links is None:
            self._wrong_key("links or agents")
            return []
        spellings = {x.key: (f"{x.source}>{x.target}", x.key) for x in self._network}
        keys = self._meant("links", target.links, spellings)
        return [x for x in self._network if x.key in keys]

    def between_agents_and_others(self) -> list[Link]:
        """Return the links between the agents that the target names and all others."""
        target = self._step.target
        if not self._any_mail():
            return []
        if target.agents is None:
            self._wrong_key("agents")
            return []
        names = self._agents_meant(target.agents)
        cut = [x for x in self._network if (x.source in names) != (x.target in names)]
        if names and not cut:
            self.problem(
                "nothing to cut: no mail passes between these agents and others",
                "target",
                "agents",
                expected="some of " + ", ".join(self._agents[:_SHOWN]),
            )
        return cut

    def mail_of(self, agent: str, chosen: Sequence[Link]) -> dict[str, str]:
        """Return by link key the link by which `agent` writes the same mail to the receiver."""
        if agent not in self._agents:
            self.problem(
                f"no agent is called '{agent}'",
                "action",
                "agent",
                expected="one of " + ", ".join(self._agents[:_SHOWN]),
                nearest=nearest_name(agent, self._agents),
            )
            return {}
        same = {(*_mail_kind(link), link.source): link.key for link in self._network}
        out = {link.key: same.get((*_mail_kind(link), agent)) for link in chosen}
        missing = next((link for link in chosen if out[link.key] is None), None)
        if missing is not None:
            kind = _mail_kind(missing)
            writers = [x.source for x in self._network if _mail_kind(x) == kind]
            self.problem(
                f"'{agent}' writes no mail like that of {missing.key} to '{missing.target}'",
                "action",
                "agent",
                expected=f"an agent that does ({', '.join(writers)}), or another target",
            )
        return {key: donor for key, donor in out.items() if donor is not None}

    def problem(
        self, what: str, *key: str | int, expected: str | None = None, nearest: str | None = None
    ) -> None:
        """Say what is wrong at a key of the step."""
        problem = WiringError([what], where=self._spec.where("steps", self._position, *key))
        problem.expected, problem.nearest = expected, nearest
        self._problems.append(str(problem))

    def _any_mail(self) -> bool:
        if not self._network:
            self.problem(
                "no agent of this scenario writes mail",
                "target",
                expected="a controller whose agents talk to each other",
            )
        return bool(self._network)

    def _wrong_key(self, keys: str) -> None:
        what = f"a link step with the action '{self._step.action.kind}' needs {keys} as its target"
        self.problem(what, "target", expected=f"the key {keys}")

    def _agents_meant(self, globs: Sequence[str]) -> set[str]:
        return self._meant("agents", globs, {name: (name,) for name in self._agents})

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


def _mail_kind(link: Link) -> tuple[str, str, int]:
    """Return what two links have in common whose messages can replace each other."""
    return link.target, link.kind, link.width
