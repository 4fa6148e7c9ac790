"""What a device holds against what was sent: no difference passes in silence."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.adapter.held import HeldValues
from hil.adapter.orders import Order, Orders
from hil.adapter.safe import MOST_RETRY_S
from hil.devices.spec import DeviceSpec

SET: dict[str, Any] = {
    "table": "holding", "address": 0, "type": "int16", "access": "rw", "min": -100, "max": 100,
    "safe_value": 0, "enable": [{"point": "on", "value": 1}],
}  # fmt: skip
POLL_S = 1.0


def held_of(**point: Any) -> HeldValues:
    spec = DeviceSpec.model_validate(
        {
            "name": "d",
            "poll_s": POLL_S,
            "points": {
                "set_w": SET | point,
                "on": {"table": "holding", "address": 1, "type": "uint16", "access": "guard"},
                "back_w": {"table": "input", "address": 0, "type": "int16"},
            },
        }
    )
    return HeldValues(spec)


def polled(held: HeldValues, asked_s: float, **values: float) -> list[str]:
    found = held.changes(lambda name: values.get(name, math.nan), asked_s)
    return [str(change) for change in found]


@given(
    on_change=st.sampled_from(["rewrite", "hand_over", "fault"]),
    polls=st.lists(
        st.tuples(st.floats(0.01, 20.0), st.integers(-100, 100), st.booleans()), max_size=40
    ),
)
def test_law_every_sequence_of_changes_ends_in_rewrite_hand_over_or_fault(
    on_change: str, polls: list[tuple[float, int, bool]]
) -> None:
    """A poll that finds the value says nothing; one that does not has a consequence."""
    held = held_of(on_change=on_change)
    now, sent, times = 0.0, 50.0, []
    held.hold("set_w", {"set_w": sent, "on": 1.0}, now)
    for pause, found, enabled in polls:
        now += pause
        values = {"set_w": float(found), "on": float(enabled)}
        changes = held.changes(lambda name, values=values: values[name], now)
        wrong = float(found) != sent
        if wrong:
            assert [c.point for c in changes] == ["set_w"]
        if not changes:
            continue
        times.append(now)
        reaction, why = held.react(changes[0], now)
        assert why
        crowd = len(times) > 3 and times[-1] - times[-4] <= 10 * POLL_S
        expected = {"rewrite": "fault" if crowd else "rewrite"}.get(on_change, on_change)
        assert reaction == expected
        held.forget("set_w")
        assert polled(held, now, set_w=7.0) == []  # until it is written again
        sent = float(found)
        held.hold("set_w", {"set_w": sent, "on": 1.0}, now)


def test_a_poll_that_began_before_the_write_and_one_without_a_value_say_nothing() -> None:
    held = held_of()
    held.hold("set_w", {"set_w": 50.0}, 10.0)
    assert polled(held, 9.9, set_w=0.0) == []
    assert polled(held, 10.1) == []
    assert polled(held, 10.1, set_w=0.0) == ["set_w reads 0, sent was 50"]


def test_what_is_around_a_set_point_is_compared_once_it_was_seen() -> None:
    held = held_of()
    held.hold("set_w", {"set_w": 50.0, "on": 1.0}, 0.0)
    assert polled(held, 1.0, set_w=50.0, on=0.0) == []  # a trigger that falls back at once
    assert polled(held, 2.0, set_w=50.0, on=1.0) == []
    assert polled(held, 3.0, set_w=50.0, on=0.0) == ["on (of set_w) reads 0, sent was 1"]


def test_the_read_back_point_and_its_tolerance_count() -> None:
    held = held_of(readback={"point": "back_w", "tolerance": 2})
    held.hold("set_w", {"set_w": 50.0}, 0.0)
    assert polled(held, 1.0, set_w=0.0, back_w=48.0) == []
    assert polled(held, 1.0, set_w=50.0, back_w=47.0) == ["back_w (of set_w) reads 47, sent was 50"]


@pytest.mark.parametrize("point", [{"readback": False}, {"write_only": True}])
def test_what_cannot_be_read_back_is_not_compared(point: dict[str, Any]) -> None:
    held = held_of(**point)
    held.hold("set_w", {"set_w": 50.0}, 0.0)
    assert held.points == []


def test_a_moving_scale_factor_moves_the_value_by_at_most_its_step() -> None:
    held = held_of()
    held.hold("set_w", {"set_w": 33.4}, 0.0)

    def changed(found: float, step: float) -> bool:
        return bool(held.changes(lambda _: found, 1.0, lambda _: step))

    assert not changed(33.0, 1.0)
    assert changed(33.0, 0.0)
    assert changed(31.0, 1.0)


@given(tries=st.integers(1, 20), most_s=st.floats(0.5, 10))
def test_law_pauses_double_up_to_the_most_and_no_command_shortens_them(
    tries: int, most_s: float
) -> None:
    orders, now, pauses = Orders(most_s), 0.0, []
    for i in range(tries):
        assert orders.delay("a", Order(1.0), "busy", now) is (i == 0)
        orders.waiting["a"] = Order(float(i))  # a newer command
        pauses.append(orders.pause_s(now))
        assert orders.take(now + 0.99 * pauses[-1]) is None
        now += pauses[-1] + 1e-9
        assert orders.take(now) == ("a", Order(float(i)))
    assert pauses[0] == pytest.approx(0.25)
    longest = min(most_s, MOST_RETRY_S)
    assert all(b == pytest.approx(min(2 * a, longest)) for a, b in pairwise(pauses))
    assert orders.pause_s(now) == math.inf
