"""Mutual TLS against the man in the middle: he gets bytes that he can cut, and nothing else."""

from __future__ import annotations

import asyncio
import math
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.adapter.adapter import Adapter
from hil.devices.errors import GuardError
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec
from hil.emulators.background import background
from hil.emulators.inverter_plant import inverters
from hil.emulators.options import EmulatorOptions
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import (
    DelayRule,
    DropRule,
    ExceptionRule,
    FloodRule,
    RewriteRule,
    WriteRule,
    wire_points,
)

REVERT_S = 2.0
LIMIT_S = 120.0
BLIND = [
    RewriteRule(0, point="p_w", value=4321.0),
    RewriteRule(0, point="limit_pct", direction="write", value=5.0),
    ExceptionRule(0),
    WriteRule(0, point="limit_pct", value=5.0),
    FloodRule(0, requests_per_s=50.0),
    DelayRule(1, delay_s=0.05),
    DropRule(2),
]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, make_certificates: Callable[..., None]
) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    make_certificates(path, {"writer": "GridServiceSunSpec"})
    make_certificates(path / "attacker", {"writer": "GridServiceSunSpec"})
    return path


def spec_of(port: int, folder: Path) -> DeviceSpec:
    return DeviceSpec.model_validate(
        {
            "name": "inverter",
            "connection": {
                "port": port,
                "timeout_s": 1.0,
                "reconnect_max_s": 0.2,
                "tls": {
                    "ca": folder / "ca.pem",
                    "cert": folder / "writer.pem",
                    "key": folder / "writer.key",
                },
            },
            "poll_s": 0.2,
            "guard": {"heartbeat_s": 60.0, "max_bad_s": 0.5},
            "points": {
                "p_w": {"sunspec": "701.W", "unit": "W"},
                "limit_pct": {
                    "sunspec": "704.WMaxLimPct", "access": "rw", "min": 0, "max": 100,
                    "safe_value": 100, "readback": {"tolerance": 0.005},
                    "reversion": {
                        "point": "revert_s", "seconds": REVERT_S, "refresh_s": 0.5,
                        "before": [{"point": "revert_pct", "value": 100}],
                    },
                    "enable": [{"point": "limit_on", "value": 1}],
                },
                "limit_on": {"sunspec": "704.WMaxLimPctEna", "access": "guard"},
                "revert_s": {"sunspec": "704.WMaxLimPctRvrtTms", "access": "guard"},
                "revert_pct": {"sunspec": "704.WMaxLimPctRvrt", "access": "guard"},
            },
        }
    )  # fmt: skip


@pytest.fixture
def proxied(folder: Path, tmp_path: Path) -> Iterator[tuple[MitmProxy, Adapter, DeviceSpec]]:
    """A device with mutual TLS, a proxy before it, and an adapter that goes through the proxy."""
    options = EmulatorOptions(tls=str(folder))
    with background(inverters(1, 10.0), options) as devices:
        spec = spec_of(devices.ports[0], folder)
        target = MitmTarget("inverter", "127.0.0.1", devices.ports[0], 1, BLIND)
        with MitmProxy([target], n_steps=3) as proxy:
            adapter = Adapter(
                [spec], armed={"inverter"}, audit=tmp_path / "a.jsonl", via=proxy.places
            )
            adapter.start(wait_s=3.0)
            # He knows the register map as well as we do: it is public.
            found = adapter.sunspec_map("inverter")
            proxy.learn("inverter", wire_points(spec, ["p_w", "limit_pct"], found))
            yield proxy, adapter, spec
            proxy.set_active(np.full(3, math.nan))
            adapter.close()


def on(proxy: MitmProxy, step: int) -> None:
    proxy.set_active(np.where(np.arange(3) == step, 0.0, math.nan))


def test_with_mutual_tls_nothing_can_be_read_or_changed(
    proxied: tuple[MitmProxy, Adapter, DeviceSpec],
) -> None:
    proxy, adapter, _ = proxied
    on(proxy, 0)
    adapter.heartbeat()
    adapter.command("inverter", "limit_pct", 60.0)
    assert adapter.flush()
    readings = adapter.poll()["inverter"]
    assert readings["p_w"].quality is Quality.GOOD
    assert readings["p_w"].value != 4321.0
    assert readings["limit_pct"].value == 60.0
    assert adapter.faults() == {}
    assert adapter.stats["wrong_replies"] == adapter.stats["refused"] == 0
    assert proxy.drain() == []  # not one value was seen, so none was forged
    assert proxy.opaque() == ["inverter"]


def test_encrypted_bytes_can_be_held_back(proxied: tuple[MitmProxy, Adapter, DeviceSpec]) -> None:
    proxy, adapter, _ = proxied
    on(proxy, 1)
    began = time.monotonic()
    assert adapter.poll()["inverter"]["p_w"].quality is Quality.GOOD
    assert time.monotonic() - began >= 0.05


def test_cut_off_the_device_goes_to_its_safe_state_by_itself(
    proxied: tuple[MitmProxy, Adapter, DeviceSpec], folder: Path, tmp_path: Path
) -> None:
    """All that is left to the attacker is the cable; the timer in the device needs none."""
    proxy, adapter, spec = proxied
    adapter.heartbeat()
    adapter.command("inverter", "limit_pct", 20.0)
    assert adapter.flush()
    on(proxy, 2)
    began = time.monotonic()
    with Adapter([spec], audit=tmp_path / "b.jsonl") as beside:  # past the proxy
        limit = beside.poll()["inverter"]["limit_pct"].value
        assert limit == 20.0
        while limit != 100.0 and time.monotonic() - began < LIMIT_S:
            adapter.heartbeat()  # the federation is alive, its commands go nowhere
            with suppress(GuardError):  # once a fault is latched
                adapter.command("inverter", "limit_pct", 20.0)
            time.sleep(0.1)
            limit = beside.poll()["inverter"]["limit_pct"].value
    assert limit == 100.0
    assert adapter.latest()["inverter"]["p_w"].quality is not Quality.GOOD
    assert any(e.kind == "safe" for e in adapter.events())


def test_through_a_proxy_the_certificate_is_still_that_of_the_device(
    proxied: tuple[MitmProxy, Adapter, DeviceSpec], tmp_path: Path
) -> None:
    """Behind the proxy is 127.0.0.1, with a certificate that says so; asked for is another."""
    proxy, _, spec = proxied
    other = spec.at(host="192.0.2.7")
    adapter = Adapter(
        [other], armed={"inverter"}, audit=tmp_path / "b.jsonl", via=proxy.places, watchdog=False
    )
    adapter.start(wait_s=1.0)
    assert adapter.stats["failed_connects"] > 0
    assert adapter.stats["connects"] == 0
    adapter.close(timeout_s=0.1)


def serve_forged(context: ssl.SSLContext) -> tuple[int, list[bytes], Callable[[], None]]:
    """Serve as somebody who ends TLS himself; return port, what he read, and how to stop."""
    heard: list[bytes] = []
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    async def main() -> None:
        state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()
        state["loop"].set_exception_handler(lambda *_: None)  # refused handshakes
        server = await asyncio.start_server(client, "127.0.0.1", 0, ssl=context)
        state["port"] = server.sockets[0].getsockname()[1]
        ready.set()
        await state["stop"].wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(5)

    def stop() -> None:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(5)

    return state["port"], heard, stop


def test_who_ends_tls_himself_is_refused(folder: Path, tmp_path: Path) -> None:
    """He can make a certificate with the device's name, but our authority did not sign it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "attacker" / "server.pem", folder / "attacker" / "server.key")
    port, heard, stop = serve_forged(context)
    try:
        spec = spec_of(1, folder)  # nobody is there; all goes to the proxy
        adapter = Adapter([spec], audit=tmp_path / "a.jsonl", via={"inverter": ("127.0.0.1", port)})
        adapter.start(wait_s=1.0)
        assert adapter.poll(timeout_s=1.0)["inverter"]["p_w"].quality is Quality.BAD
        assert adapter.stats["replies"] == adapter.stats["connects"] == 0
        assert adapter.stats["failed_connects"] > 0
        assert "certificate verify failed" in adapter.stats["last_errors"]["inverter"]
        adapter.close()
    finally:
        stop()
    assert b"".join(heard) == b""
