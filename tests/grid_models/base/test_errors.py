"""Reasons of failed calls, and nearest names."""

from __future__ import annotations

import ssl

import pytest

from grid_models.base.errors import nearest_name, reason_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(111, "Connect call failed ('127.0.0.1', 502)"), "Connection refused"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), "
                "[Errno 113] Connect call failed ('10.0.0.1', 1)"
            ),
            "Multiple exceptions: Connection refused, No route to host",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("[Errno None] Cannot open"), "Cannot open"),
        (
            ssl.SSLError(1, "[SSL: BAD] certificate verify failed (_ssl.c:1006)"),
            "certificate verify failed",
        ),
        (TimeoutError(), ""),
    ],
)
def test_the_reason_is_the_systems_without_its_numbers(error: OSError, words: str) -> None:
    assert reason_of(error) == words


@pytest.mark.parametrize(
    ("name", "near"), [("pw", "pv"), ("options", None), ("fedrates", "federates"), ("zz", None)]
)
def test_the_nearest_name(name: str, near: str | None) -> None:
    assert nearest_name(name, ["pv", "period_s", "federates"]) == near
