"""Where mail goes: each outgoing link joined to the federate that hosts its receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from controllers.core.mail import Link
from controllers.core.ports import Port
from federates.clock import Timing
from federates.core.links import LinkQuality
from federates.scenario.schema import Scenario
from federates.scenario.sections import LinkRule
from grid_models.base.errors import nearest_name, nothing_called


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
        joined, lost = list[tuple[str, int]](), list[Link]()
        for link in federate.links_out:
            receiver = receivers.get(link.key)
            if receiver is None:
                lost.append(link)
            elif receiver[2].width != link.width:
                problems.append(
                    f"{federate.name}: link {link.key} sends {link.width} numbers, "
                    f"{receiver[0]} expects {receiver[2].width}; options that both have must be "
                    "equal, such as a market's and its manager's 'clearing' and 'fixed_load_pu'"
                )
            else:
                joined.append(receiver[:2])
        routes[federate.name] = tuple(joined)
        problems += _unreceived(federate.name, lost, receivers)
    links = [link for f in federates for link in f.links_in]
    for i, rule in enumerate(scenario.links):
        problems += unmatched_globs(rule, links, partial(scenario.where, "links", i))
    return routes, {f.name: link_quality(f.links_in, scenario.links) for f in federates}


def link_quality(links: Iterable[Link], rules: Sequence[LinkRule]) -> dict[str, LinkQuality]:
    """Return the quality that rules give to links, by key; links that no rule names are left out.

    The last rule that matches a link applies.
    """
    if not rules:
        return {}
    last_first = [
        (rule, LinkQuality(**rule.model_dump(exclude={"source", "target"})))
        for rule in reversed(rules)
    ]
    found = ((link, next((q for r, q in last_first if _applies(r, link)), None)) for link in links)
    return {link.key: q for link, q in found if q is not None}


def _unreceived(name: str, lost: Sequence[Link], receivers: Mapping[str, object]) -> Iterator[str]:
    """Yield a problem for each receiving agent of links that end nowhere."""
    to_agent = attrgetter("target")
    for receiver, links in groupby(sorted(lost, key=to_agent), key=to_agent):
        first, *others = [link.key for link in links]
        near = nearest_name(first, receivers)
        more = f" and {len(others)} more to '{receiver}'" if others else ""
        hint = f"; did you mean '{near}'?" if near else ""
        yield f"{name}: no federate receives mail over link {first}{more}{hint}"


def unmatched_globs(
    rule: LinkRule, links: Sequence[Link], where: Callable[[str], str]
) -> Iterator[str]:
    """Say which glob of a rule matches no agent that sends, or receives, mail."""
    ends = {end: sorted({getattr(link, end) for link in links}) for end in ("source", "target")}
    unknown = [
        end
        for end, agents in ends.items()
        if (glob := getattr(rule, end)) != "*" and not any(fnmatchcase(a, glob) for a in agents)
    ]
    for end in unknown:
        what = f"agent that {'sends' if end == 'source' else 'receives'} mail"
        yield nothing_called(where(end), what, getattr(rule, end), ends[end])
    if not unknown and links and not any(_applies(rule, link) for link in links):
        sent = [k.target for k in links if fnmatchcase(k.source, rule.source)]
        what = f"agent that gets mail from '{rule.source}'"
        yield nothing_called(where("target"), what, rule.target, sorted(set(sent)))


def _applies(rule: LinkRule, link: Link) -> bool:
    return fnmatchcase(link.source, rule.source) and fnmatchcase(link.target, rule.target)
