"""Who publishes the OEDI-SI messages and topologies that external programs read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from federates.core.federate import Federate
from federates.core.mail_routes import unknown_name
from federates.core.oedisi import Codec, Message, Topic
from federates.core.wiring import FederateWiring, Feed
from federates.errors import WiringError
from federates.kinds.external import ExternalFederate
from federates.scenario.schema import Scenario


def with_messages(
    scenario: Scenario,
    federates: Mapping[str, Any],
    wirings: Mapping[str, FederateWiring],
) -> dict[str, FederateWiring]:
    """Return the wirings with the messages and topologies that the federates publish.

    Raises WiringError: A message is fed in parts, with noise or by a program with other topics, a
    plant has no topology, or two publications have the same topic.
    """
    out, problems = dict(wirings), []
    having = [name for name, f in federates.items() if _has_topology(f)]
    taken = {f"{name}/topology" for name in having}
    taken |= {x for f in federates.values() for x in _own_topics(f, wirings[f.name])}
    sent: dict[str, tuple[str, str, str]] = {}
    for reader in (f for f in federates.values() if isinstance(f, ExternalFederate)):
        for port, feeds in wirings[reader.name].feeds.items():
            where = scenario.where("federates", reader.name, "inputs", port)
            topic = reader.messages.get(port)
            wrong = list(_unfit(feeds, topic, federates))
            problems += [f"{where}: {words}" for words in wrong]
            if topic is None or wrong or isinstance(federates[feeds[0].source], ExternalFederate):
                continue
            source, port, codec = feeds[0].source, feeds[0].port, _gathered(topic, feeds[0])
            # Several programs may read one topic, if it carries the same for all of them.
            content = source, port, codec.encode(np.arange(1.0, codec.n + 1.0), 0)
            if topic.name in taken or sent.get(topic.name, content) != content:
                problems.append(f"{where}: another publication has the topic '{topic.name}'")
            elif topic.name not in sent:
                sent[topic.name] = content
                messages = (*out[source].messages, Message(port, topic.name, codec))
                out[source] = replace(out[source], messages=messages)
        if reader.topology in having:
            out[reader.topology] = replace(out[reader.topology], topology=True)
        elif reader.topology is not None:
            where = scenario.where("federates", reader.name, "topology")
            problems.append(unknown_name(where, "plant with a feeder", reader.topology, having))
    if problems:
        raise WiringError(problems)
    return out


def _has_topology(federate: Any) -> bool:
    return isinstance(federate, Federate) and type(federate).topology is not Federate.topology


def _own_topics(federate: Any, wiring: FederateWiring) -> list[str]:
    if isinstance(federate, ExternalFederate):
        return [topic.name for topic in federate.topics.values()]
    return [f"{federate.name}/{port}" for port in wiring.published]


def _unfit(
    feeds: tuple[Feed, ...], topic: Topic | None, federates: Mapping[str, Any]
) -> Iterator[str]:
    """Say why feeds cannot give the messages, or the vectors, that an external program reads."""
    for feed in feeds:
        source = federates[feed.source]
        gives = source.topics[feed.port] if isinstance(source, ExternalFederate) else topic
        if (gives is None or gives.codec is None) != (topic is None):
            yield (
                f"one of this port and {feed.source}.{feed.port} carries OEDI-SI messages; "
                "expected both or none"
            )
        if topic is not None and feed.noise:
            yield "a message has no noise; expected a connection without noise"
    if topic is not None and len(feeds) > 1:
        yield f"fed by {len(feeds)} connections; expected one that feeds all labels of a message"


def _gathered(topic: Topic, feed: Feed) -> Codec:
    """Return the codec of what the producer publishes, in place of what the reader declares."""
    codec = topic.codec
    assert codec is not None
    source = np.arange(feed.source_size) if feed.source_index is None else feed.source_index
    target = np.arange(codec.n) if feed.target_index is None else feed.target_index
    of = np.empty(codec.n, dtype=np.int64)
    of[target] = source
    return replace(codec, n=feed.source_size, owner=of[codec.owner], gain=codec.gain * feed.scale)
