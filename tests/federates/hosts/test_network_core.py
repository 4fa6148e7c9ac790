"""Which HELICS core a run over the network uses: one whose buffer holds its longest message."""

from __future__ import annotations

import pytest

from controllers.core.mail import Link
from controllers.core.ports import Port
from federates.core.links import Bundle
from federates.core.wiring import FederateWiring, _message_bytes
from federates.hosts.external import network_core
from federates.hosts.helics_broker import TCP_MESSAGE_BYTES


class Sender:
    name = "feeder"
    outputs = (Port("p_kw", "kW", tuple(map(str, range(1200)))), Port("v_pu", "pu", ("1",)))
    links_out = (Link("a", "b", "bid", 700), Link("a", "c", "bid", 600), Link("a", "d", "bid", 1))


@pytest.mark.parametrize(
    ("length", "core"), [(0, "tcp_ss"), (TCP_MESSAGE_BYTES, "tcp_ss"), (9600, "zmq_ss")]
)
def test_a_long_message_takes_a_core_without_a_limit(length: int, core: str) -> None:
    wirings = {"a": FederateWiring(message_bytes=length), "b": FederateWiring(message_bytes=8)}
    assert network_core([], wirings) == core


def test_the_longest_message_is_a_published_port_or_the_mail_to_one_federate() -> None:
    routes = [("smos", 0), ("smos", 1), ("homes", 0)]
    to_smos = Bundle.HEAD_BYTES + 2 * Bundle.LINK_BYTES + 8 * 1300
    sender: object = Sender()
    assert _message_bytes(sender, set(), routes) == to_smos  # type: ignore[arg-type]
    alone = _message_bytes(sender, {("feeder", "p_kw")}, [("a", 0), ("b", 0), ("c", 0)])  # type: ignore[arg-type]
    assert alone == 8 * 1200
