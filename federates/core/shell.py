"""The shell: runs one federate's steps on a bus. The same code under every host.

One step: read what was published before now, take the mail that is due, let the federate step,
publish, post, record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import numpy as np

from controllers.core.mail import FloatArray, Mail
from federates.clock import to_s
from federates.core.federate import Federate
from federates.core.links import Bundle, LinkInbox, Outbox
from federates.core.progress import Progress
from federates.core.recorder import Recorder
from federates.core.run_store import RunStore
from federates.core.watch import PartnerBus, make_watch
from federates.core.wiring import FederateWiring, Feed
from grid_models.base import counter_rng

_NOISE_CHANNEL = 16


class SignalBus(Protocol):
    """What a shell needs from a host: values by port, bundles by peer."""

    def latest(self, source: str, port: str) -> FloatArray | None:
        """Return what `source` published last, as visible to this federate now; None if nothing."""
        ...

    def publish(self, port: str, values: FloatArray) -> None:
        """Publish one output port."""
        ...

    def send(self, peer: str, bundle: Bundle) -> None:
        """Send mail to a peer."""
        ...

    def receive(self) -> list[Bundle]:
        """Return the bundles that came in since the last call."""
        ...


class Shell:
    """Hosts one federate.

    Parameters
    ----------
    store : Where this federate's ports are recorded.
    progress, row
        The heartbeat table and this federate's row in it.

    Attributes
    ----------
    inputs, mail : What the federate has read for its next step.
    """

    def __init__(
        self,
        federate: Federate,
        wiring: FederateWiring,
        store: RunStore,
        seed: int,
        progress: Progress,
        row: int,
    ) -> None:
        self.federate = federate
        self.wiring = wiring
        self._seed = seed
        self._progress = progress
        self._row = row
        self.inputs = {p.name: np.full(len(p.labels), p.initial) for p in federate.inputs}
        for port, feed, values in wiring.first:
            _take(self.inputs[port], feed, values)
        self._readers: list[Callable[[SignalBus, int], None]] = [
            self._reader(self.inputs[port], feed)
            for port, feeds in wiring.feeds.items()
            for feed in feeds
        ]
        self._outbox = Outbox(federate.links_out, wiring.mail_routes)
        self._store = store
        links, quality = federate.links_in, wiring.link_quality
        self.inbox = (
            LinkInbox(links, quality, seed)
            if wiring.inbox is None
            else wiring.inbox.open(federate.name, links, quality, seed, store)
        )
        self._held: list[Bundle] = []
        self.mail = Mail.empty()
        self._published = wiring.published
        self._recorder = Recorder(federate.name, federate.outputs, store)
        self._say: Callable[[str], None] = _say_nothing
        self._watches = [make_watch(p, store, self._tell) for p in wiring.watched]

    def _reader(self, into: FloatArray, feed: Feed) -> Callable[[SignalBus, int], None]:
        source, port, at, scale = feed.source, feed.port, feed.source_index, feed.scale
        target = slice(None) if feed.target_index is None else feed.target_index
        if feed.noise:
            streams, sigma = counter_rng.stream_ids(feed.noise_streams), feed.noise

            def read_noisy(bus: SignalBus, now_ns: int) -> None:
                values = bus.latest(source, port)
                if values is not None:
                    error = counter_rng.normal(self._seed, streams, now_ns, _NOISE_CHANNEL)
                    into[target] = (values if at is None else values[at]) * scale + sigma * error

            return read_noisy

        def read(bus: SignalBus, now_ns: int) -> None:
            values = bus.latest(source, port)
            if values is not None:
                into[target] = values if at is None else values[at]
                if scale != 1.0:
                    into[target] *= scale

        return read

    def start(self, say: Callable[[str], None] | None = None) -> None:
        """Let the federate open what it needs; before the first step. `say` prints for the user."""
        self._say = say or self._say
        self.federate.start(self._store)

    def _tell(self, words: str) -> None:
        self._say(words)

    def look_last(self, bus: SignalBus) -> None:
        """Look at the external programs that this federate watches, at the end of the run."""
        for watch in self._watches:
            watch.look_last(cast(PartnerBus, bus))

    def read(self, bus: SignalBus, now_ns: int) -> None:
        """Take in the values and the mail that are visible at `now_ns`."""
        for watch in self._watches:
            watch.look(cast(PartnerBus, bus), now_ns)
        for reader in self._readers:
            reader(bus, now_ns)
        if self.federate.links_in:
            arrived = self._held + bus.receive() if self._held else bus.receive()
            self._held = [b for b in arrived if b.sent_ns >= now_ns]
            for bundle in arrived:
                if bundle.sent_ns < now_ns:
                    self.inbox.accept(bundle)
            self.inbox.read(bus.latest, now_ns)
            self.mail = self.inbox.deliver(now_ns)

    def step(self, bus: SignalBus, now_ns: int) -> None:
        """Let the federate step, then publish, post and record what it gives."""
        time_s = to_s(now_ns)
        self._progress.begin(self._row)
        result = self.federate.step(time_s, self.inputs, self.mail)
        outputs = result.outputs
        if not result.mail_only:
            self._recorder.take(time_s, outputs)
            for name in self._published:
                bus.publish(name, outputs[name])
        if len(result.mail):
            self._progress.sent(self._row, len(result.mail))
            for peer, bundle in self._outbox.bundles(result.mail, now_ns):
                if peer == self.federate.name:
                    self._held.append(bundle)
                else:
                    bus.send(peer, bundle)
        self._progress.end(self._row)

    def summary(self) -> dict[str, float]:
        """Return the federate's metrics and its mail counts."""
        metrics = dict(self.federate.summary())
        if self.federate.links_in:
            metrics |= self.inbox.summary()
        return metrics

    def close(self) -> None:
        """Close the federate and its recordings; the first error is raised after both are tried."""
        try:
            self.federate.close()
        finally:
            try:
                self._recorder.close()
            finally:
                self.inbox.close()
                for watch in self._watches:
                    watch.close()


def _say_nothing(_: str) -> None:
    """Where nobody listens."""


def _take(into: FloatArray, feed: Feed, values: FloatArray) -> None:
    """Write a source's values where its feed says."""
    target = slice(None) if feed.target_index is None else feed.target_index
    into[target] = values if feed.source_index is None else values[feed.source_index]
    into[target] *= feed.scale
