"""Plans are radial, lose no supply on the way, and restore what brute force finds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.reconfiguration import plan as plan_module
from controllers.reconfiguration.check import Checked, Demand
from controllers.reconfiguration.plan import Planner
from controllers.reconfiguration.sections import MOST_SWITCHES, Sections
from grid_models.feeder.model import Bus, Feeder, Load, Source, Switch

KV = 2.4


def feeder(n: int, ends: list[tuple[int, int]], closed: list[bool], kw: list[float]) -> Feeder:
    """Return a feeder of `n` buses that switches join; the source is bus b0."""
    return Feeder(
        "graph",
        Source("b0", 4.16),
        {f"b{i}": Bus(f"b{i}", (1,), KV) for i in range(n)},
        switches=tuple(
            Switch(f"s{k}", f"b{a}", f"b{b}", (1,), closed[k]) for k, (a, b) in enumerate(ends)
        ),
        loads=tuple(Load(f"l{i}", f"b{i}", (1,), "wye", "PQ", kw[i], 0.0, KV) for i in range(1, n)),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Feeder, dict[str, bool], frozenset[str], float]:
    """Return a radial feeder, its states after a fault, the locked switches, and a capacity."""
    n = draw(st.integers(2, 6))
    tree = [(draw(st.integers(0, i - 1)), i) for i in range(1, n)]
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda x: x[0] != x[1])
    ties = draw(st.lists(pair, max_size=3))
    kw = [0.0, *draw(st.lists(st.integers(0, 5).map(float), min_size=n - 1, max_size=n - 1))]
    grid = feeder(n, tree + ties, [True] * len(tree) + [False] * len(ties), kw)
    lost = draw(st.sets(st.integers(0, len(tree) - 1), max_size=2))
    states = {s.name: s.closed for s in grid.switches} | {f"s{k}": False for k in lost}
    return grid, states, frozenset(f"s{k}" for k in lost), draw(st.floats(1.0, 20.0))


class _Capacity:
    """In place of the AC check: a limit of the load in all, losses that any number may be."""

    def __init__(self, grid: Feeder, capacity: float) -> None:
        self._grid, self._capacity = grid, capacity
        self._whole = Sections.of(grid, {}, [s.name for s in grid.switches])

    def state(self, closed: Mapping[str, bool]) -> Checked:
        on = frozenset(k for k, name in enumerate(self._whole.switches) if closed[name])
        live = self._whole.supplied(on)
        kw = sum(load.kw for load in self._grid.loads if self._whole.of_bus[load.bus] in live)
        beyond = "too much" if kw > self._capacity else ""
        return Checked(losses_kw=float(sum(on) % 5), violation=beyond)


@settings(max_examples=150, deadline=None)
@given(cases(), st.booleans())
def test_most_load_radial_and_no_supply_is_lost(
    case: tuple[Feeder, dict[str, bool], frozenset[str], float], transfers: bool
) -> None:
    grid, states, locked, capacity = case
    check = _Capacity(grid, capacity)
    operable = [s.name for s in grid.switches if s.name not in locked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "AcCheck", lambda *_: check)
        planner = Planner(
            grid,
            lambda closed: pytest.fail("no network is needed"),
            states,
            operable,
            Demand.nominal(grid),
            (0.95, 1.05),
            transfers=transfers,
        )
        found = planner.best()
    whole = Sections.of(grid, {}, [s.name for s in grid.switches])
    kw = whole.sums([load.bus for load in grid.loads], np.array([x.kw for x in grid.loads]))

    def closed(named: Mapping[str, bool]) -> frozenset[int]:
        return frozenset(k for k, name in enumerate(whole.switches) if named[name])

    now = dict(states)
    live = first = whole.supplied(closed(now))
    for operation in found.operations:
        assert not locked & set(operation)
        assert len(operation) == 1 or sorted(operation.values()) == [False, True]
        now |= operation
        after = whole.supplied(closed(now))
        assert live <= after, "something lost its supply"
        assert whole.loops(closed(now)) == 0
        assert not check.state(now).violation or after == first
        live = after
    best = kw[sorted(first)].sum()
    for chosen in chain.from_iterable(combinations(operable, r) for r in range(len(operable) + 1)):
        tried = {name: name in chosen for name in states}
        there = whole.supplied(closed(tried))
        if first <= there and whole.loops(closed(tried)) == 0 and not check.state(tried).violation:
            best = max(best, kw[sorted(there)].sum())
    assert found.supplied_kw == pytest.approx(best)
    assert found.restored_kw == pytest.approx(kw[sorted(live - first)].sum())
    assert found.supplied_kw + found.dark_kw == pytest.approx(kw.sum())


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_radial_configuration_is_listed_once(case: tuple[Feeder, Any, Any, Any]) -> None:
    grid = case[0]
    sections = Sections.of(grid, {}, [s.name for s in grid.switches])
    listed = list(sections.trees())
    assert len(set(listed)) == len(listed)
    n = len(sections.switches)
    expected = set()
    for r in range(n + 1):
        for chosen in map(frozenset, combinations(range(n), r)):
            live = sections.supplied(chosen)
            connected = all(sections.ends[k][0] in live for k in chosen)
            if connected and len(chosen) == len(live) - 1:
                expected.add((chosen, live))
    assert set(listed) == expected


def test_worth_decides_between_loads() -> None:
    """Two dark sections, capacity for one: the one of more worth is taken, although smaller."""
    grid = feeder(3, [(0, 1), (0, 2)], [False, False], [0.0, 5.0, 3.0])
    states = {"s0": False, "s1": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "AcCheck", lambda *_: _Capacity(grid, 6.0))
        for weights, operation in (([1.0, 1.0], {"s0": True}), ([1.0, 2.0], {"s1": True})):
            args: Any = (grid, None, states, ["s0", "s1"], Demand.nominal(grid), (0.9, 1.1))
            found = Planner(*args, np.array(weights)).best()
            assert found.operations == (operation,)
            assert set(found.dark.values()) == {"too much"}


def test_stubs_are_not_operated_and_too_many_switches_are_refused() -> None:
    n = MOST_SWITCHES + 2
    ends = [(0, i) for i in range(1, n)]
    grid = feeder(n, ends, [True] * (n - 1), [1.0] * n)
    sections = Sections.of(grid, {}, [s.name for s in grid.switches])
    with pytest.raises(ControllerError, match=f"{n - 1} switches are too many"):
        next(sections.trees())
    value = np.zeros(n)
    value[1] = 1.0
    assert sections.without_stubs(value).switches == ("s0",)
    with pytest.raises(ControllerError, match="'s99' is no line or switch"):
        Sections.of(SimpleNamespace(**vars(grid)), {}, ["s99"])  # type: ignore[arg-type]
