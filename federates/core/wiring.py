"""Wiring: every connection resolved and checked before anything starts.

`wire` takes federates that are built but not running and gives each of them a `FederateWiring`:
where every element of every input comes from (gather indices computed once), which ports must be
published, and where mail goes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Link
from controllers.core.ports import Port
from federates.core.links import Bundle, LinkInbox, LinkQuality
from federates.core.mail_routes import Wirable, mail_routes, unknown_name
from federates.core.oedisi import Message
from federates.core.record_globs import unmatched_records
from federates.core.watch import Partner
from federates.errors import WiringError
from federates.scenario.schema import Scenario
from federates.scenario.sections import Connection
from grid_models.base.errors import nearest_name

if TYPE_CHECKING:
    from federates.core.run_store import RunStore

_PORT_NAME = re.compile(r"[A-Za-z0-9_-]+")  # a file's name and a HELICS topic are made of it


@dataclass(frozen=True)
class Feed:
    """Elements of one source port that go to elements of one input port.

    ``input[target_index] = scale * source[source_index]``; None stands for all, in order.
    """

    source: str
    port: str
    source_size: int
    source_index: IntArray | None
    target_index: IntArray | None
    noise: float = 0.0
    noise_streams: tuple[str, ...] = ()
    scale: float = 1.0


LatestValues = Callable[[str, str], FloatArray | None]
"""Returns what a federate published last on a port; None for nothing."""


class InboxFactory(Protocol):
    """Makes the inbox of a federate in place of a `LinkInbox`; plain data that can be pickled.

    Attributes
    ----------
    reads : Outputs of other federates that the inbox reads.
    """

    @property
    def reads(self) -> tuple[Feed, ...]:
        """See above."""
        ...

    def open(
        self,
        federate: str,
        links_in: Sequence[Link],
        quality: Mapping[str, LinkQuality],
        seed: int,
        store: RunStore,
    ) -> LinkInbox:
        """Return the inbox of a federate; `store` is the run's folder."""
        ...


@dataclass(frozen=True)
class FederateWiring:
    """How one federate is connected to the federation."""

    feeds: Mapping[str, tuple[Feed, ...]] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    mail_routes: tuple[tuple[str, int], ...] = ()
    message_bytes: int = 0
    """Longest message that it sends in a step: a published port, or the mail to one federate."""
    link_quality: Mapping[str, LinkQuality] = field(default_factory=dict)
    first: tuple[tuple[str, Feed, FloatArray], ...] = ()
    """Initial values of inputs other than the port's own: port, feed, the source's values."""
    inbox: InboxFactory | None = None
    """What makes the federate's inbox; None: an `LinkInbox`."""
    messages: tuple[Message, ...] = ()
    """Output ports that external programs read as messages."""
    topology: bool = False
    """Whether external programs read the topology of the federate's grid."""
    watched: tuple[Partner, ...] = ()
    """The external federates that this one watches."""


def wire(
    scenario: Scenario,
    federates: Sequence[Wirable],
    groups: Mapping[str, Sequence[str]],
    external: Sequence[str] = (),
    messages: Collection[tuple[str, str]] = (),
) -> dict[str, FederateWiring]:
    """Resolve and check all connections.

    Parameters
    ----------
    federates : All federates, in the scenario's order.
    groups : mapping of a scenario's federate name to the names of its instances
    external : Federates that are other people's programs; every port they read is published.
    messages : Input ports of theirs, (federate, port), that read messages in place of vectors.

    Raises WiringError: Listing every problem found, each with file, line and key.
    """
    by_name = {federate.name: federate for federate in federates}
    problems = [text for federate in federates for text in _bad_ports(federate)]
    feeds: dict[str, dict[str, list[Feed]]] = {f.name: {} for f in federates}
    fed: dict[tuple[str, str], list[str | None]] = {
        (f.name, p.name): [None] * len(p.labels) for f in federates for p in f.inputs
    }
    for i, connection in enumerate(scenario.connections):
        assert isinstance(connection, Connection)
        where = scenario.where("connections", i)
        ends = [
            _ports(end, side, groups, by_name, where, problems)
            for end, side in ((connection.source, "outputs"), (connection.target, "inputs"))
        ]
        if all(ends):
            _connect(connection, ends[0], ends[1], where, feeds, fed, problems)
            for target, port in ends[1]:
                if target.name in external and (target.name, port.name) not in messages:
                    _check_foreign(connection, ends[0], target, port, where, problems)
    _check_fed(scenario, federates, fed, problems)
    shown = _shown(scenario, federates, problems)
    routes, quality = mail_routes(scenario, federates, problems)
    problems += unmatched_records(scenario, federates)
    if problems:
        raise WiringError(problems)
    consumed = {
        (feed.source, feed.port)
        for target, ports in feeds.items()
        for port_feeds in ports.values()
        for feed in port_feeds
        if target not in external or feed.source not in external
    }
    return {
        f.name: FederateWiring(
            feeds={name: tuple(port_feeds) for name, port_feeds in feeds[f.name].items()},
            published=tuple(p.name for p in f.outputs if (f.name, p.name) in consumed | shown),
            mail_routes=routes[f.name],
            message_bytes=_message_bytes(f, consumed | shown, routes[f.name]),
            link_quality=quality[f.name],
        )
        for f in federates
    }


def _message_bytes(
    federate: Wirable, published: Collection[tuple[str, str]], routes: Sequence[tuple[str, int]]
) -> int:
    """Return the length of the longest message that a federate can send in a step."""
    ports = (8 * len(p.labels) for p in federate.outputs if (federate.name, p.name) in published)
    mail: dict[str, int] = {}
    for link, (peer, _) in zip(federate.links_out, routes, strict=True):
        mail[peer] = mail.get(peer, Bundle.HEAD_BYTES) + Bundle.LINK_BYTES + 8 * link.width
    return max((*ports, *mail.values()), default=0)


def _shown(
    scenario: Scenario, federates: Sequence[Wirable], problems: list[str]
) -> set[tuple[str, str]]:
    """Return the outputs, (federate, port), that are published for observers."""
    names = {f"{f.name}.{p.name}": (f.name, p.name) for f in federates for p in f.outputs}
    out: set[tuple[str, str]] = set()
    for i, glob in enumerate(scenario.publish):
        found = {end for name, end in names.items() if fnmatchcase(name, glob)}
        if not found:
            problems.append(unknown_name(scenario.where("publish", i), "output", glob, names))
        out |= found
    return out


def _bad_ports(federate: Wirable) -> Iterator[str]:
    """Say what is wrong with a federate's own ports, which a user's class may declare."""
    for side, ports in (("input", federate.inputs), ("output", federate.outputs)):
        for name, n in Counter(port.name for port in ports).items():
            if n > 1:
                yield f"{federate.name}: {n} {side} ports are called '{name}'; expected one"
            if not _PORT_NAME.fullmatch(name):
                yield (
                    f"{federate.name}: {side} port '{name}'; expected a name of letters, digits, "
                    "'_' and '-'"
                )
        for port in ports:
            label, n = next(iter(Counter(port.labels).most_common(1)), ("", 0))
            if n > 1:
                yield f"{federate.name}.{port.name}: {n} labels '{label}'; expected one"


def _check_foreign(
    connection: Connection,
    sources: list[tuple[Wirable, Port]],
    target: Wirable,
    port: Port,
    where: str,
    problems: list[str],
) -> None:
    """An external program reads the whole topic unchanged."""
    problems += [
        f"{where}: the external federate '{target.name}' reads the values as they are; expected a "
        f"connection without {key}"
        for key in ("noise", "map", "scale")
        if getattr(connection, key) != Connection.model_fields[key].default
    ]
    for source, source_port in sources:
        if source_port.labels != port.labels:
            labels = source_port.labels
            problems.append(
                f"{where}: the external federate '{target.name}' reads all {len(labels)} elements "
                f"of {source.name}.{source_port.name}; expected all labels in their order "
                f"({', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''})"
            )


def _ports(
    end: str,
    side: str,
    groups: Mapping[str, Sequence[str]],
    by_name: Mapping[str, Wirable],
    where: str,
    problems: list[str],
) -> list[tuple[Wirable, Port]]:
    """Return the instances and ports that ``federate.port`` stands for.

    Of a split federate an instance may lack a port: none of its agents has an element there.
    """
    federate, _, port_name = end.partition(".")
    if federate not in groups:
        problems.append(unknown_name(where, "federate", federate, groups))
        return []
    instances = [by_name[name] for name in groups[federate]]
    ports = [(instance, port) for instance in instances for port in getattr(instance, side)]
    found = [(instance, port) for instance, port in ports if port.name == port_name]
    if not found:
        names = [port.name for _, port in ports]
        names += [name for i in instances for name in getattr(i, f"optional_{side}", ())]
        kind = f"{side.removesuffix('s')} port of '{federate}'"
        problems.append(unknown_name(where, kind, port_name, list(dict.fromkeys(names))))
    return found


def _connect(
    connection: Connection,
    sources: list[tuple[Wirable, Port]],
    targets: list[tuple[Wirable, Port]],
    where: str,
    feeds: dict[str, dict[str, list[Feed]]],
    fed: dict[tuple[str, str], list[str | None]],
    problems: list[str],
) -> None:
    if connection.map and _bad_map(connection, sources, targets, where, problems):
        return
    joined = [
        any(paired_elements(connection.map, s.labels, t.labels) for _, s in sources)
        for _, t in targets
    ]
    for (target, target_port), matched in zip(targets, joined, strict=True):
        owner = fed[target.name, target_port.name]
        for source, source_port in sources:
            if source_port.unit != target_port.unit:
                problems.append(
                    f"{where}: {source.name}.{source_port.name} is in {source_port.unit}, "
                    f"{target.name}.{target_port.name} expects {target_port.unit}"
                )
                return
            pairs = paired_elements(connection.map, source_port.labels, target_port.labels)
            if not pairs:
                continue
            for _, t in pairs:
                if owner[t] is not None:
                    problems.append(
                        f"{where}: {target.name}.{target_port.name} '{target_port.labels[t]}' is "
                        f"fed by {owner[t]} and by {source.name}.{source_port.name}; "
                        "expected one producer"
                    )
                    return
                owner[t] = f"{source.name}.{source_port.name}"
            feeds[target.name].setdefault(target_port.name, []).append(
                _feed(connection, source.name, source_port, target_port, pairs)
            )
        # Of a split controller, a part may have no label, or none that an optional input gets.
        excused = not target_port.labels or (any(joined) and not target_port.required)
        if not matched and (len(targets) == 1 or not excused):
            example = sources[0][1].labels[:3]
            problems.append(
                f"{where}: no label of {target.name}.{target_port.name} "
                f"({', '.join(target_port.labels[:3])}, ...) is given by the source "
                f"({', '.join(example)}, ...); expected labels of the same name, or the key 'map'"
            )


def paired_elements(
    names: Mapping[str, str], source: Sequence[str], target: Sequence[str]
) -> list[tuple[int, int]]:
    """Return positions of the elements that a connection joins: in the source, in the target.

    Parameters
    ----------
    names : mapping of target label to source label
        Empty: labels of the same name are joined.
    source, target : Labels of the two ports.
    """
    if not names:
        position = {label: i for i, label in enumerate(target)}
        return [(s, position[x]) for s, x in enumerate(source) if x in position]
    position = {label: i for i, label in enumerate(source)}
    wanted = [(names.get(label), t) for t, label in enumerate(target)]
    return [(position[x], t) for x, t in wanted if x in position]


def _bad_map(
    connection: Connection,
    sources: list[tuple[Wirable, Port]],
    targets: list[tuple[Wirable, Port]],
    where: str,
    problems: list[str],
) -> bool:
    """Report labels of a connection's map that its ports do not have."""
    before = len(problems)
    for end, ports, names in (
        (connection.target, targets, connection.map.keys()),
        (connection.source, sources, connection.map.values()),
    ):
        known = [label for _, port in ports for label in port.labels]
        for name in dict.fromkeys(names):
            if name not in known:
                shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
                shown = f"one of {shown}" if known else "no map: the port has no labels"
                near = nearest_name(name, known)
                problems.append(
                    f"{where}.map: {end} has no label '{name}'; expected {shown}"
                    + (f"; did you mean '{near}'?" if near else "")
                )
    return len(problems) > before


def _feed(
    connection: Connection, source: str, port: Port, target: Port, pairs: list[tuple[int, int]]
) -> Feed:
    source_index = np.array([s for s, _ in pairs], dtype=np.int64)
    target_index = np.array([t for _, t in pairs], dtype=np.int64)
    streams: tuple[str, ...] = ()
    if connection.noise:
        # Keyed by the scenario's own words, not by instances: the same sensor, however hosted.
        name = f"{connection.source}->{connection.target}"
        streams = tuple(f"{name}:{target.labels[t]}" for _, t in pairs)
    return Feed(
        source,
        port.name,
        len(port.labels),
        None if _is_all(source_index, len(port.labels)) else source_index,
        None if _is_all(target_index, len(target.labels)) else target_index,
        connection.noise,
        streams,
        connection.scale,
    )


def _is_all(index: IntArray, n: int) -> bool:
    return index.size == n and bool((index == np.arange(n)).all())


def _check_fed(
    scenario: Scenario,
    federates: Sequence[Wirable],
    fed: dict[tuple[str, str], list[str | None]],
    problems: list[str],
) -> None:
    for federate in federates:
        for port in federate.inputs:
            owners = fed[federate.name, port.name]
            missing = [x for x, owner in zip(port.labels, owners, strict=True) if owner is None]
            if port.required and missing:
                some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
                problems.append(
                    f"{scenario.where('connections')}: nothing feeds "
                    f"{federate.name}.{port.name} for {len(missing)} of {len(owners)} labels "
                    f"({some}); expected a connection 'federate.port -> "
                    f"{federate.name}.{port.name}' in {port.unit}"
                )
