"""Who watches the external federates, and what is wired to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from federates.clock import to_ns
from federates.core.federate import Federate
from federates.core.watch import Partner
from federates.core.wiring import FederateWiring
from federates.kinds.external import ExternalFederate

AnyFederate = Federate | ExternalFederate


def with_watchers(
    federates: Mapping[str, AnyFederate],
    wirings: Mapping[str, FederateWiring],
    horizon_ns: int,
) -> dict[str, FederateWiring]:
    """Return the wirings in which each external federate is watched by one of ours.

    The watcher is the federate that reads from it most often; of one that nothing reads from, the
    first federate.
    """
    out = dict(wirings)
    ours = [f for f in federates.values() if isinstance(f, Federate)]
    for program in (f for f in federates.values() if isinstance(f, ExternalFederate)):
        readers = [f for f in ours if program.name in _sources(wirings[f.name])]
        if not ours:
            break
        watcher = min(readers, key=lambda f: f.timing.period_ns) if readers else ours[0]
        wiring, silence_s = out[watcher.name], program.max_silence_s
        partner = Partner(
            program.name,
            program.timing,
            tuple((port, program.topics[port.name]) for port in program.outputs),
            tuple(_topics_read(program, wirings[program.name])),
            None if silence_s is None else to_ns(silence_s),
            horizon_ns,
        )
        out[watcher.name] = replace(wiring, watched=(*wiring.watched, partner))
    return out


def _sources(wiring: FederateWiring) -> set[str]:
    reads = wiring.inbox.reads if wiring.inbox is not None else ()
    return {feed.source for feeds in (*wiring.feeds.values(), reads) for feed in feeds}


def _topics_read(program: ExternalFederate, wiring: FederateWiring) -> Iterator[str]:
    for port, feeds in wiring.feeds.items():
        if port in program.messages:
            yield program.messages[port].name
        else:
            yield from (f"{feed.source}/{feed.port}" for feed in feeds)


def unconnected(
    federates: Mapping[str, AnyFederate], wirings: Mapping[str, FederateWiring]
) -> Iterator[tuple[str, str]]:
    """Yield (federate, sentence) for what takes no part in the federation."""
    read = {
        (feed.source, feed.port)
        for wiring in wirings.values()
        for feeds in (*wiring.feeds.values(), wiring.inbox.reads if wiring.inbox else ())
        for feed in feeds
    }
    for name, federate in federates.items():
        alone = not wirings[name].feeds and not any(source == name for source, _ in read)
        if isinstance(federate, ExternalFederate):
            for port in federate.outputs:
                if (name, port.name) not in read:
                    yield name, f"nothing reads its output '{port.name}'; it is only recorded"
            if alone and not federate.outputs and federate.topology is None:
                yield name, "it has no connection and no output: it takes no part in the run"
        elif alone and len(federates) > 1 and not (federate.links_in or federate.links_out):
            yield name, "nothing is connected to it: it runs on its own"
