"""The guard alone: what is written instead of what was asked."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.adapter.guard import Guard, check_arming
from hil.devices.errors import ArmingError, GuardError
from hil.devices.spec import DeviceSpec

POINT = {
    "table": "holding", "address": 0, "type": "int16", "scale": 0.1, "access": "rw",
    "min": 10, "max": 30, "safe_value": 20,
}  # fmt: skip


def spec_of(name: str = "t", host: str = "127.0.0.1", **point: Any) -> DeviceSpec:
    return DeviceSpec.model_validate(
        {
            "name": name,
            "connection": {"host": host},
            "guard": {"heartbeat_s": 2},
            "points": {
                "set_c": POINT | point,
                "temp_c": {"table": "input", "address": 0, "type": "int16"},
                "timer": {"table": "holding", "address": 1, "type": "uint16", "access": "guard"},
            },
        }
    )


def guard(**point: Any) -> Guard:
    return Guard(spec_of(**point), armed=True)


@pytest.mark.parametrize(
    ("point", "armed", "message"),
    [
        ("set_c", False, "not armed"),
        ("temp_c", True, "not in the allow-list"),
        ("timer", True, "not in the allow-list"),
        ("set_cc", True, "did you mean 'set_c'"),
    ],
)
def test_refused_before_anything_is_sent(point: str, armed: bool, message: str) -> None:
    with pytest.raises(GuardError, match=message):
        Guard(spec_of(), armed=armed).admit(point, 20.0)


def test_limits_clamp_or_refuse_as_the_file_says() -> None:
    decision = guard().decide("set_c", 99.0, 0.0, math.nan)
    assert (decision.verdict, decision.value) == ("clamped", 30.0)
    assert not guard(on_limit="refuse").decide("set_c", 99.0, 0.0, math.nan).writes
    assert not guard(on_limit="refuse", max_step=1).decide("set_c", 25.0, 0.0, 20.0).writes


def test_first_step_starts_from_the_reading_then_from_the_safe_value() -> None:
    assert guard(max_step=2).decide("set_c", 30.0, 0.0, 22.0).value == 24.0
    assert guard(max_step=2).decide("set_c", 30.0, 0.0, math.nan).value == 22.0


@pytest.mark.parametrize(("reading", "first"), [(500.0, 28.0), (-500.0, 12.0)])
def test_a_step_from_outside_the_limits_starts_at_the_limit(reading: float, first: float) -> None:
    """A device that stands at 500 is not told 498, which the file does not allow."""
    assert guard(max_step=2).decide("set_c", 20.0, 0.0, reading).value == first
    assert guard(max_rate=1).decide("set_c", 20.0, 0.0, reading).value in (26.0, 14.0)


def test_rate_counts_from_the_last_write_and_saves_up_two_heartbeats_at_most() -> None:
    g = guard(max_rate=1.0)
    g.sent("set_c", 20.0, 100.0)
    assert g.decide("set_c", 30.0, 100.5, 20.0).value == pytest.approx(20.5)
    assert g.decide("set_c", 30.0, 1000.0, 20.0).value == pytest.approx(24.0)
    assert g.decide("set_c", 30.0, 100.5, 20.0).verdict == "limited"


@given(
    commands=st.lists(st.tuples(st.floats(), st.floats(0.01, 10)), min_size=1, max_size=30),
    step=st.floats(0.1, 5),
    rate=st.floats(0.1, 5),
)
def test_law_no_command_ever_breaks_a_limit(
    commands: list[tuple[float, float]], step: float, rate: float
) -> None:
    g = guard(max_step=step, max_rate=rate)
    now, last = 0.0, 20.0
    g.sent("set_c", last, now)
    since = now
    for asked, pause in commands:
        now += pause
        decision = g.decide("set_c", asked, now, last)
        if not math.isfinite(asked):
            assert decision.verdict == "unsafe"
            assert not decision.writes
        if decision.writes:
            assert 10 <= decision.value <= 30
            assert abs(decision.value - last) <= min(step, rate * (now - since)) + 1e-9
            last, since = decision.value, now
            g.sent("set_c", last, now)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_makes_the_device_safe(value: float) -> None:
    assert guard().decide("set_c", value, 0.0, 20.0).verdict == "unsafe"


def test_the_same_value_is_sent_again_only_to_feed_the_reversion_timer() -> None:
    plain = guard()
    plain.sent("set_c", 25.0, 0.0)
    assert plain.decide("set_c", 25.0, 1000.0, 25.0).verdict == "unchanged"
    g = guard(reversion={"point": "timer", "seconds": 30})
    g.sent("set_c", 25.0, 0.0)
    assert g.decide("set_c", 25.0, 14.0, 25.0).verdict == "unchanged"
    assert g.decide("set_c", 25.0, 16.0, 25.0).writes


@given(
    rewrite_s=st.floats(0.1, 100),
    waits=st.lists(st.floats(0.01, 50), min_size=1, max_size=20),
)
def test_law_a_set_point_is_due_once_it_is_old_and_that_keeps_no_command_alive(
    rewrite_s: float, waits: list[float]
) -> None:
    g = guard(rewrite_s=rewrite_s)
    assert g.due(1e9) == []  # nothing was sent
    assert g.decide("set_c", 25.0, 0.0, 25.0).writes
    g.sent("set_c", 25.0, 0.0)
    now = written = 0.0
    for wait in waits:
        now += wait
        due = g.due(now)
        assert due == ([("set_c", 25.0)] if now - written >= rewrite_s else [])
        decision = g.decide("set_c", 25.0, now, 25.0, again=True)
        assert decision.writes is bool(due)
        if decision.writes:
            g.sent("set_c", decision.value, now)
            written = now
        assert bool(g.stale_input(now)) is (now > 10.0)  # the command is of time 0


def test_what_is_written_again_starts_from_where_the_device_is() -> None:
    g = guard(max_step=4)
    g.decide("set_c", 25.0, 0.0, 24.0)
    g.sent("set_c", 25.0, 0.0)
    asked = g.lost("set_c")
    assert asked == 25.0
    assert g.decide("set_c", asked, 1.0, 15.0, again=True).value == 19.0


def test_a_point_that_was_handed_over_is_refused_until_reset() -> None:
    g = guard()
    g.hand_over("set_c", "an operator")
    with pytest.raises(GuardError, match="handed over: an operator"):
        g.admit("set_c", 20.0)
    assert not g.decide("set_c", 20.0, 0.0, 20.0).writes
    assert g.safe_points() == []
    g.reset()
    assert g.admit("set_c", 20.0) == 20.0
    assert g.safe_points() == ["set_c"]


def test_failed_read_backs_latch_until_reset() -> None:
    g = guard()
    assert not g.failed("set_c", "read back 1")
    assert g.failed("set_c", "read back 1")
    with pytest.raises(GuardError, match="latched fault"):
        g.admit("set_c", 20.0)
    assert not g.decide("set_c", 20.0, 0.0, 20.0).writes
    g.reset()
    assert g.decide("set_c", 21.0, 0.0, 20.0).writes


def test_a_lost_reply_weighs_a_third_and_a_success_forgives() -> None:
    g = guard()
    for _ in range(5):
        assert not g.failed("set_c", "no reply", lost=True)
    g.sent("set_c", 20.0, 0.0)
    assert not g.failed("set_c", "no reply", lost=True)
    for _ in range(4):
        g.failed("set_c", "no reply", lost=True)
    assert g.failed("set_c", "no reply", lost=True)


def test_a_command_that_is_not_repeated_is_stale() -> None:
    g = guard()
    assert g.stale_input(1e6) == ""
    g.decide("set_c", 21.0, 100.0, 20.0)
    assert g.stale_input(109.0) == ""
    assert g.stale_input(111.0) == "set_c"  # five heartbeats of 2 s
    g.forget()
    assert g.stale_input(111.0) == ""


def test_enumerations_take_names_and_nothing_between() -> None:
    spec = {"enum": {"off": 0, "heat": 1, "cool": 4}, "min": None, "max": None}
    g = guard(**spec, scale=1.0, safe_value=0)
    assert g.admit("set_c", "cool") == 4.0
    with pytest.raises(GuardError, match="did you mean 'heat'"):
        g.admit("set_c", "heet")
    assert not g.decide("set_c", 2.0, 0.0, 0.0).writes
    assert g.decide("set_c", 4.0, 0.0, 0.0).value == 4.0


def test_devices_elsewhere_need_their_name() -> None:
    far = spec_of("far", host="192.0.2.7")
    with pytest.raises(ArmingError, match="--arm far"):
        check_arming([far, spec_of("near")], {"near"})
    check_arming([far], {"far"})
    check_arming([far], (), read_only=True)
    with pytest.raises(ArmingError, match="did you mean 'far'"):
        check_arming([far], {"fat"})
    with pytest.raises(ArmingError):
        check_arming([far], {"far"}, read_only=True)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True),
        ("localhost.example.org", False), ("0.0.0.0", False), ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_loopback_is_only_what_can_be_nothing_else(host: str, loopback: bool) -> None:
    assert spec_of(host=host).connection.is_loopback is loopback
