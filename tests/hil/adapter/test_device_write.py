"""``feederate device write`` and ``device watch --set``, seen from the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from federates import cli
from hil.adapter.adapter import Adapter

FILE = """
name: bench
connection: {{port: {port}, timeout_s: 0.3}}
poll_s: 0.1
guard: {{heartbeat_s: 20}}
points:
  p_w: {{table: holding, address: 10, type: int16, unit: W, access: rw, min: -30, max: 30,
         safe_value: 0}}
  lamp: {{table: holding, address: 11, type: uint16, access: rw, min: 0, max: 9, safe_value: 3}}
"""


@pytest.fixture
def call(tmp_path: Path, raw_device: Any) -> Callable[..., int]:
    file = tmp_path / "bench.yaml"
    file.write_text(FILE.format(port=raw_device.port), encoding="utf-8")

    def run(command: str, *words: str) -> int:
        return cli.call(["device", command, str(file), *words])

    return run


def test_a_negative_set_point_is_written_and_then_the_safe_values(
    call: Any, raw_device: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("write", "p_w", "-20", "--arm", "bench") == 0
    assert raw_device.written(10) == [0x10000 - 20, 0]
    assert raw_device.written(11) == [3]
    out = capsys.readouterr().out
    assert "-20" in out
    assert "bench is in its safe state: p_w 0 W, lamp 3" in out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("p_w", "-20"), "expected --arm bench"),
        (("p_w", "nan", "--arm", "bench"), "nan: not a finite number"),
        (("p_x", "1", "--arm", "bench"), "did you mean 'p_w'?"),
        (("p_w", "much", "--arm", "bench"), "'much' is not a value of this point"),
    ],
)
def test_a_refused_write_writes_nothing(
    words: tuple[str, ...], why: str, call: Any, raw_device: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call("write", *words) == 2
    assert raw_device.writes == []
    assert why in capsys.readouterr().err


def test_a_device_that_is_not_safe_at_the_end_is_named(
    call: Any, raw_device: Any, capsys: pytest.CaptureFixture[str], until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It falls silent after the set-point; its watchdog makes it safe when it is back."""
    monkeypatch.setattr(Adapter, "close", partialmethod(Adapter.close, timeout_s=0.1))
    honest_ones: list[bytes] = []

    def falls_silent(tid: int, unit: int, pdu: bytes, honest: bytes) -> list[Any]:
        if raw_device.written(10) and honest_ones and honest_ones[-1][0] == 3:
            return []
        if raw_device.written(10):
            honest_ones.append(pdu)
        return [tid.to_bytes(2) + b"\0\0" + (len(honest) + 1).to_bytes(2) + bytes([unit]) + honest]

    raw_device.behaviour = falls_silent
    assert call("write", "p_w", "-20", "--arm", "bench", "--hold", "0.1") == 3
    error = capsys.readouterr().err
    assert "device 'bench': not safe: bench.p_w last stood at -20 W, should be 0 W" in error
    assert "lamp" in error
    raw_device.behaviour = None
    assert until(lambda: raw_device.written(10)[-1] == 0 and raw_device.written(11) == [3])


def test_watch_holds_set_points(
    call: Any, raw_device: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("watch", "--set", "p_w") == 2
    assert "expected POINT=VALUE" in capsys.readouterr().err
    assert call("watch", "--arm", "bench", "--count", "1") == 2
    assert "--arm without a set-point" in capsys.readouterr().err
    words = ("p_w", "--set", "p_w=7", "--arm", "bench", "--count", "2", "--period", "0.1")
    assert call("watch", *words) == 0
    assert raw_device.written(10) == [7, 0]
    assert capsys.readouterr().out.count(" 7 ") == 2
