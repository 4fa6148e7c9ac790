"""Mutual TLS with roles: who may read, who may write, and what a refusal looks like."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hil.adapter.adapter import Adapter
from hil.adapter.audit import read_audit
from hil.devices.errors import DeviceError
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec
from hil.modbus.tls import client_context, peer_role, role_of, server_context

WRITER = "GridServiceSunSpec"


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, make_certificates: Callable[..., None]
) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    make_certificates(path, {"writer": WRITER, "reader": "MonitorSunSpec", "plain": None})
    make_certificates(path / "other", {"writer": WRITER})
    return path


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_role_is_read_from_the_certificate(folder: Path) -> None:
    assert role_of(der(folder / "writer.pem")) == WRITER
    assert role_of(der(folder / "plain.pem")) is None
    assert role_of(der(folder / "ca.pem")) is None


def test_role_is_the_extension_that_cryptography_sees(folder: Path) -> None:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate((folder / "reader.pem").read_bytes())
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.50316.802.1")
    value = certificate.extensions.get_extension_for_oid(oid).value.value  # type: ignore[attr-defined]
    assert value[2:].decode() == role_of(der(folder / "reader.pem")) == "MonitorSunSpec"


@pytest.mark.parametrize("cut", [0, 1, 5, 50, 200, -1])
def test_a_torn_certificate_has_no_role(folder: Path, cut: int) -> None:
    assert role_of(der(folder / "writer.pem")[:cut]) is None


def test_unusable_files_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no such file"):
        client_context(tmp_path / "ca.pem", folder / "writer.pem", folder / "writer.key")
    with pytest.raises(DeviceError, match="cannot be used"):
        client_context(folder / "ca.pem", folder / "writer.pem", folder / "reader.key")


@pytest.fixture
def server(make_raw_device: Callable[..., Any], folder: Path) -> Any:
    """A device that lets only one role write, and answers others with exception 1."""
    context = server_context(folder)
    device = make_raw_device(ssl_context=context)
    device.holding[10] = 210

    def behave(tid: int, unit: int, asked: bytes, honest: bytes) -> list[Any]:
        if asked[0] == 6 and device.peers[-1] != WRITER:
            device.holding[10] = 210
            honest = bytes([asked[0] | 0x80, 1])
        return [struct.pack(">HHHB", tid, 0, len(honest) + 1, unit) + honest]

    device.behaviour = behave
    return device


def spec_of(port: int, folder: Path, client: str, **tls: Any) -> DeviceSpec:
    paths = {
        "ca": folder / "ca.pem", "cert": folder / f"{client}.pem", "key": folder / f"{client}.key",
    }  # fmt: skip
    return DeviceSpec.model_validate(
        {
            "name": "d",
            "connection": {"port": port, "timeout_s": 0.5, "tls": paths | tls},
            "poll_s": 0.2,
            "points": {
                "set_c": {
                    "table": "holding", "address": 10, "type": "int16", "scale": 0.1,
                    "access": "rw", "min": 10, "max": 30, "safe_value": 20,
                }
            },
        }
    )  # fmt: skip


def test_the_right_role_reads_writes_and_is_made_safe(
    server: Any, folder: Path, tmp_path: Path
) -> None:
    spec = spec_of(server.port, folder, "writer")
    with Adapter([spec], armed={"d"}, audit=tmp_path / "a.jsonl") as adapter:
        assert adapter.poll()["d"]["set_c"][:2] == (21.0, Quality.GOOD)
        adapter.heartbeat()
        adapter.command("d", "set_c", 25.0)
        assert adapter.flush()
        assert server.holding[10] == 250
    assert server.holding[10] == 200
    assert server.peers[-1] == WRITER


@pytest.mark.parametrize("client", ["reader", "plain"])
def test_the_wrong_role_is_refused_logged_and_visible(
    server: Any, folder: Path, tmp_path: Path, client: str
) -> None:
    spec = spec_of(server.port, folder, client)
    with Adapter([spec], armed={"d"}, audit=tmp_path / "a.jsonl", watchdog=False) as adapter:
        assert adapter.poll()["d"]["set_c"].quality is Quality.GOOD
        adapter.heartbeat()
        adapter.command("d", "set_c", 25.0)
        adapter.flush(timeout_s=0.5)
        assert "exception 1 (illegal function)" in adapter.faults()["d"]
        assert {"failed", "fault", "safe"} <= {e.kind for e in adapter.events()}
        adapter.close(timeout_s=0.2)
    assert server.holding[10] == 210
    verdicts = [r["verdict"] for r in read_audit(tmp_path / "a.jsonl")]
    assert verdicts[:3] == ["failed", "failed", "fault"]


@pytest.mark.parametrize("case", ["wrong authority", "wrong name", "plain text"])
def test_no_connection_to_whom_we_cannot_trust(
    server: Any, folder: Path, tmp_path: Path, case: str, until: Callable[..., bool]
) -> None:
    spec = spec_of(server.port, folder, "writer")
    if case == "wrong authority":  # theirs does not know us, ours does not know them
        spec = spec_of(server.port, folder / "other", "writer")
    elif case == "wrong name":
        spec = spec_of(server.port, folder, "writer", server_name="inverter.example.org")
    else:
        data = spec.model_dump()
        data["connection"]["tls"] = None
        spec = DeviceSpec.model_validate(data)
    with Adapter([spec], audit=tmp_path / "a.jsonl") as adapter:
        adapter.poll(timeout_s=1.0)
        assert adapter.poll(timeout_s=1.0)["d"]["set_c"].quality is Quality.BAD
        assert adapter.stats["replies"] == 0
        assert [e for e in adapter.events() if e.kind == "error"] == []
    assert server.requests == []


def test_the_device_refuses_a_client_it_does_not_know(
    server: Any, folder: Path, tmp_path: Path
) -> None:
    """TLS 1.3: the handshake looks fine to the client; the refusal comes with the first read."""
    stranger = {"cert": folder / "other" / "writer.pem", "key": folder / "other" / "writer.key"}
    spec = spec_of(server.port, folder, "writer", **stranger)
    with Adapter([spec], audit=tmp_path / "a.jsonl") as adapter:
        assert adapter.poll(timeout_s=2.0)["d"]["set_c"].quality is Quality.BAD
        assert adapter.stats["replies"] == 0
    assert server.requests == []


def test_the_watchdog_speaks_tls_too(
    server: Any, folder: Path, tmp_path: Path, until: Callable[..., bool]
) -> None:
    spec = spec_of(server.port, folder, "writer")
    adapter = Adapter([spec], armed={"d"}, audit=tmp_path / "a.jsonl")
    adapter.start(wait_s=2.0)
    adapter.heartbeat()
    adapter.command("d", "set_c", 25.0)
    assert adapter.flush()
    watchdog = adapter._core._watchdog
    assert watchdog is not None
    assert watchdog._writer is not None
    assert adapter._loop is not None
    adapter._loop.call_soon_threadsafe(watchdog._writer.close)  # as if we had died
    assert until(lambda: server.holding[10] == 200)
    adapter.close()
    assert "watchdog" in {r["by"] for r in read_audit(tmp_path / "a.jsonl")}


def test_peer_role_of_a_connection_without_certificate() -> None:
    class Bare:
        def getpeercert(self, binary_form: bool) -> None:
            return None

    assert peer_role(Bare()) is None
