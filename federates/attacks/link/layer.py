"""Steps on mail: which links each receiver acts on, worked out before the run.

Every receiver acts on its own mail, before the link model does. Targets are drawn among the links
of the whole federation, so they do not depend on how agents are hosted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from controllers.core.mail import Link
from federates.attacks.layer import AttackLayer
from federates.attacks.link.action import LinkAction
from federates.attacks.link.inbox import LinkStep, MailAttack
from federates.attacks.link.targets import LinkTargets
from federates.attacks.plan import AttackPlan, Touched
from federates.core.wiring import FederateWiring
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec

if TYPE_CHECKING:
    pass


class LinkLayer(AttackLayer):
    """Steps on mail.

    Attributes
    ----------
    attacks : Of the federates whose mail is attacked.
    """

    name = "link"

    def resolve(self) -> None:
        by_name = self.case.federation.by_name
        links = {name: tuple(f.links_in) for name, f in by_name.items()}
        self.attacks, problems = resolve_link_steps(self.case.spec, links)
        self.problems += problems
        sender = {link.key: f.timing for f in by_name.values() for link in f.links_out}
        attacked: dict[int, set[str]] = {}
        for attack in self.attacks.values():
            for step in attack.steps:
                attacked.setdefault(step.step, set()).update(step.links)
        for i, keys in attacked.items():
            # Mail comes when its sender steps.
            timings = [sender[key] for key in sorted(keys) if key in sender]
            self.add(i, keys, timings, [Touched("links", tuple(sorted(keys)))])

    def rewire(
        self, wirings: Mapping[str, FederateWiring], plan: AttackPlan
    ) -> dict[str, FederateWiring]:
        """Give the attacked federates their inboxes."""
        reads = plan.begins()
        return {
            name: replace(wiring, inbox=replace(self.attacks[name], reads=reads))
            if name in self.attacks
            else wiring
            for name, wiring in wirings.items()
        }


def resolve_link_steps(
    spec: AttackSpec, links: Mapping[str, Sequence[Link]]
) -> tuple[dict[str, MailAttack], list[str]]:
    """Work out what each federate does to its mail.

    Parameters
    ----------
    links : All federates of the federation.

    Returns
    -------
    attacks : mapping of federate name to MailAttack
        Of the federates whose mail is attacked.
    problems : list of str
        What is wrong with the steps, each with file, line and key.
    """
    network = sorted((link for each in links.values() for link in each), key=lambda k: k.key)
    problems: list[str] = []
    steps: dict[str, list[LinkStep]] = {name: [] for name in sorted(links)}
    announces: dict[str, list[int]] = {name: [] for name in links}
    for i, step in spec.of_layer("link"):
        action = step.action
        assert isinstance(action, LinkAction)
        targets = LinkTargets(spec, i, network, problems)
        chosen = action.links(targets)
        donors = action.donors(targets, chosen)
        announced = False
        for name, mine in steps.items():
            hosted = {link.key for link in links[name]}
            keys = tuple(link.key for link in chosen if link.key in hosted)
            if not keys:
                continue
            taken = {key: donors[key] for key in keys if key in donors}
            mine.append(LinkStep(i, step.id, action, step.probability, keys, taken))
            if not announced:
                announces[name].append(i)
                announced = True
    schedule = AttackSchedule.of(spec)
    return {
        name: MailAttack(spec.seed, schedule, tuple(steps[name]), tuple(announces[name]))
        for name in links
        if steps[name]
    }, problems
