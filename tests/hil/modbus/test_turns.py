"""Whose turn it is: writes before reads, each in order; a cancelled one passes it on."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from hil.modbus.turns import Turns


@given(st.lists(st.booleans(), max_size=12), st.sets(st.integers(0, 11)))
def test_the_first_go_before_the_others_and_nobody_is_forgotten(
    first: list[bool], cancelled: set[int]
) -> None:
    async def work() -> None:
        turns, order = Turns(), []

        async def one(i: int) -> None:
            await turns.take(first=first[i])
            order.append(i)
            await asyncio.sleep(0)
            turns.give()

        await turns.take(first=False)
        assert turns.busy
        tasks = [asyncio.create_task(one(i)) for i in range(len(first))]
        await asyncio.sleep(0)
        for i in cancelled & set(range(len(first))):
            tasks[i].cancel()
        turns.give()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = [i for i in range(len(first)) if i not in cancelled]
        assert order == sorted(left, key=lambda i: (not first[i], i))
        assert not turns.busy

    asyncio.run(work())


def test_a_turn_that_was_given_is_passed_on_when_its_taker_is_cancelled() -> None:
    async def work() -> None:
        turns = Turns()

        async def hold() -> None:
            await turns.take(first=False)
            turns.give()

        await turns.take(first=False)
        gone, next_one = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0)
        turns.give()
        gone.cancel()  # its turn is given, but it has not run since
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        await asyncio.wait_for(next_one, 10)
        assert not turns.busy

    asyncio.run(work())
