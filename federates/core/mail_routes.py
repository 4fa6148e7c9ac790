"""Where mail goes: each outgoing link joined to the federate that hosts its receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from controllers.core.mail import Link
from controllers.core.ports import Port
from federates.clock import Timing
from federates.core.links import LinkQuality
from federates.scenario.schema import Scenario
from federates.scenario.sections import LinkRule
from grid_models.base.errors import nearest_name


class Wirable(Protocol):
    """What the wiring looks at in a federate."""

    name: str
    timing: Timing
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    links_in: tuple[Link, ...]
    links_out: tuple[Link, ...]


def unknown_name(
    where: str, what: str, name: str, valid: Sequence[str] | Mapping[str, object]
) -> str:
    """Say that nothing is called `name`, with the valid names and the nearest one."""
    near = nearest_name(name, valid)
    text = f"{where}: no {what} is called '{name}'; expected one of {', '.join(valid) or '(none)'}"
    return text + (f"; did you mean '{near}'?" if near else "")


def mail_routes(
    scenario: Scenario, federates: Sequence[Wirable], problems: list[str]
) -> tuple[dict[str, tuple[tuple[str, int], ...]], dict[str, dict[str, LinkQuality]]]:
    """Return for each federate where its mail goes, and the quality of the links that end there.

    Parameters
    ----------
    problems : What is wrong is appended, with file, line and key where the file is wrong.

    Returns
    -------
    routes : dict of str to tuple of (receiver, position in its ``links_in``), one per outgoing link
    quality : dict of str to dict of link key to LinkQuality
    """
    receivers: dict[str, tuple[str, int, Link]] = {}
    for federate in federates:
        for i, link in enumerate(federate.links_in):
            if link.key in receivers:
                problems.append(f"{federate.name}: two receivers of mail over link {link.key}")
            receivers[link.key] = (federate.name, i, link)
    routes: dict[str, tuple[tuple[str, int], ...]] = {}
    for federate in federates:
        joined = []
        for link in federate.links_out:
            receiver = receivers.get(link.key)
            if receiver is None:
                near = nearest_name(link.key, receivers)
                problems.append(
                    f"{federate.name}: no federate receives mail over link {link.key}"
                    + (f"; did you mean '{near}'?" if near else "")
                )
            elif receiver[2].width != link.width:
                problems.append(
                    f"{federate.name}: link {link.key} sends {link.width} numbers, "
                    f"{receiver[0]} expects {receiver[2].width}"
                )
            else:
                joined.append(receiver[:2])
        routes[federate.name] = tuple(joined)
    agents = {end for f in federates for link in f.links_in for end in (link.source, link.target)}
    for i, rule in enumerate(scenario.links):
        for end in ("source", "target"):
            glob = getattr(rule, end)
            if agents and not any(fnmatchcase(a, glob) for a in agents):
                where = scenario.where("links", i, end)
                problems.append(unknown_name(where, "agent", glob, sorted(agents)[:12]))
    quality = {
        f.name: {link.key: q for link in f.links_in if (q := _quality(link, scenario.links))}
        for f in federates
    }
    return routes, quality


def _quality(link: Link, rules: Sequence[LinkRule]) -> LinkQuality | None:
    for rule in reversed(rules):
        if fnmatchcase(link.source, rule.source) and fnmatchcase(link.target, rule.target):
            return LinkQuality(rule.latency_s, rule.jitter_s, rule.loss, rule.noise)
    return None
