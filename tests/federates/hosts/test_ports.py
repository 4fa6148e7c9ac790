"""Blocks of free ports, which a federation on zmq needs."""

from __future__ import annotations

import contextlib
import socket

import pytest

from federates.hosts import helics_broker


def test_a_block_passes_over_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    first = helics_broker.free_block(16)
    other = helics_broker.free_block(8)
    draws = iter([first - helics_broker._FIRST_PORT, other - helics_broker._FIRST_PORT])
    monkeypatch.setattr(helics_broker.secrets, "randbelow", lambda _: next(draws))
    with contextlib.ExitStack() as stack:
        stack.enter_context(socket.socket()).bind(("127.0.0.1", first + 5))
        found = helics_broker.free_block(8)
        assert found == other
        for port in range(found, found + 8):
            stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        draws = iter([first - helics_broker._FIRST_PORT] * 100)
        with pytest.raises(OSError, match="no 8 free TCP ports in a row"):
            helics_broker.free_block(8)
