"""The controller against a feeder that answers one step later: outage, restoration, repair."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_site
from controllers.reconfiguration import plan as plan_module
from controllers.reconfiguration.check import Checked
from controllers.reconfiguration.controller import AGENT, Reconfiguration
from controllers.reconfiguration.sections import Sections
from grid_models.feeder.model import Bus, Feeder, Load, Source, Switch

PERIOD_S = 4.0
NAMES = ("line", "middle", "end", "tie")


def ring() -> Feeder:
    """Return b0 -line- b1 -middle- b2 -end- b3 and a tie from b3 to b0; 10, 20 and 5 kW."""
    ends = (("b0", "b1"), ("b1", "b2"), ("b2", "b3"), ("b3", "b0"))
    return Feeder(
        "ring",
        Source("b0", 4.16),
        {name: Bus(name, (1,), 2.4) for name in ("b0", "b1", "b2", "b3")},
        switches=tuple(
            Switch(name, a, b, (1,), name != "tie")
            for name, (a, b) in zip(NAMES, ends, strict=True)
        ),
        loads=tuple(
            Load(f"l{i}", f"b{i}", (1,), "wye", "PQ", kw, 0.0, 2.4)
            for i, kw in ((1, 10.0), (2, 20.0), (3, 5.0))
        ),
    )


class _Capacity:
    """In place of the AC check: the tie carries no more than `most_kw`."""

    most_kw = 100.0

    def __init__(self, grid: Feeder, *_: Any) -> None:
        self._sections = Sections.of(grid, {}, NAMES)
        self._kw = self._sections.sums([x.bus for x in grid.loads], np.array([10.0, 20.0, 5.0]))

    def state(self, closed: Mapping[str, bool]) -> Checked:
        on = frozenset(k for k, name in enumerate(NAMES) if closed[name])
        live = self._sections.supplied(on)
        behind = live - self._sections.supplied(on - {NAMES.index("tie")})
        over = self._kw[sorted(behind)].sum() > self.most_kw
        return Checked(1.0, violation="too much" if over else "")


@pytest.fixture(params=[100.0, 25.0], ids=["all", "part"])
def most_kw(request: pytest.FixtureRequest) -> Iterator[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "AcCheck", _Capacity)
        patch.setattr(_Capacity, "most_kw", request.param)
        yield request.param


def play(
    agent: Reconfiguration,
    until_s: float,
    lost_s: tuple[float, float],
    name: str = "line",
    looped_steps: int = 0,
) -> list[Any]:
    """Return per step: time, states, supplied kW, and the events.

    For a time one line or switch is held: `name` is open, the tie is closed. There is a loop in
    `looped_steps` steps.
    """
    grid = ring()
    sections = Sections.of(grid, {}, NAMES)
    kw = sections.sums([x.bus for x in grid.loads], np.array([10.0, 20.0, 5.0]))
    command = np.array([1.0, 1.0, 1.0, 0.0])
    rows = []
    for time_s in np.arange(0.0, until_s, PERIOD_S).tolist():
        locked = np.array([float(x == name and lost_s[0] <= time_s < lost_s[1]) for x in NAMES])
        closed = np.where(locked > 0.0, float(name == "tie"), command)
        on = frozenset(np.flatnonzero(closed).tolist())
        live = sections.supplied(on)
        looped_steps -= sections.loops(on)
        place = [sections.of_bus[load.bus] for load in grid.loads]
        load_kw = np.array([kw[s] if s in live else 0.0 for s in place])
        unknown = np.empty(0)
        inputs = {"switch_closed": closed, "switch_locked": locked, "load_p_kw": load_kw}
        inputs |= {"p_kw": unknown, "q_kvar": unknown}
        found = agent.step(time_s, inputs, Mail.empty())
        asked = found.outputs["switch_set"]
        command = np.where(np.isnan(asked), command, asked)
        events = [event["event"] for event in agent.take_events()]
        rows.append((time_s, closed, load_kw.sum(), found.outputs["state"][0], events))
    assert looped_steps == 0
    return rows


def test_load_is_restored_and_the_normal_state_comes_back(most_kw: float) -> None:
    site = ControlSite(ring(), (), PERIOD_S, ports=lambda closed: pytest.fail("not needed"))
    agent = Reconfiguration(site, [AGENT], confirm_s=8)
    rows = play(agent, 160.0, (40.0, 100.0))
    supplied = {time_s: kw for time_s, _, kw, _, _ in rows}
    best = 35.0 if most_kw > 35.0 else 25.0
    assert supplied[36.0] == 35.0
    assert supplied[40.0] == 0.0
    assert supplied[96.0] == best
    assert supplied[156.0] == 35.0
    for (_, _, before, _, _), (time_s, _, after, dark, _) in itertools.pairwise(rows):
        assert after >= before or time_s == 40.0, "something lost its supply"
        assert dark == pytest.approx(35.0 - after)
    assert (rows[-1][1] == [1.0, 1.0, 1.0, 0.0]).all()
    told = [kind for *_, events in rows for kind in events]
    expected = ["fault_found", "plan", "repaired", "back_to_normal"]
    assert [kind for kind in told if kind != "operation"] == expected
    operations = told.count("operation")
    assert agent.summary() == {"switching_operations": operations, "restored_kw": best}


def test_a_loop_that_a_held_tie_closes_is_opened() -> None:
    site = ControlSite(ring(), (), PERIOD_S, ports=lambda closed: pytest.fail("not needed"))
    agent = Reconfiguration(site, [AGENT], confirm_s=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "AcCheck", _Capacity)
        # Three steps until it is sure and commands the tie, one until another switch is open.
        rows = play(agent, 160.0, (40.0, 100.0), "tie", looped_steps=4)
    assert all(kw == 35.0 for _, _, kw, _, _ in rows)
    assert (rows[-1][1] == [1.0, 1.0, 1.0, 0.0]).all()


def test_a_repaired_line_that_may_not_be_closed_yet_is_closed_later() -> None:
    now_s = 0.0

    class Late(_Capacity):
        most_kw = 25.0

        def state(self, closed: Mapping[str, bool]) -> Checked:
            found = super().state(closed)
            return replace(found, violation="high") if closed["line"] and now_s < 200.0 else found

    class Agent(Reconfiguration):
        def step(self, time_s: float, *rest: Any) -> Any:
            nonlocal now_s
            now_s = time_s
            return super().step(time_s, *rest)

    site = ControlSite(ring(), (), PERIOD_S, ports=lambda closed: pytest.fail("not needed"))
    # As with a line: nothing that may be operated but because it was faulted.
    agent = Agent(site, [AGENT], switches=["middle", "end", "tie"], confirm_s=8, retry_s=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "AcCheck", Late)
        rows = play(agent, 280.0, (20.0, 100.0))
    assert {time_s: kw for time_s, _, kw, _, _ in rows}[196.0] == 25.0
    assert (rows[-1][1] == [1.0, 1.0, 1.0, 0.0]).all()


def test_lower_losses_are_no_reason_to_switch_in_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def best(planner: plan_module.Planner) -> plan_module.Plan:
        return replace(planned(planner), operations=({"tie": True},))

    planned = plan_module.Planner.best
    monkeypatch.setattr(plan_module, "AcCheck", _Capacity)
    monkeypatch.setattr(_Capacity, "most_kw", 0.0)
    monkeypatch.setattr(plan_module.Planner, "best", best)
    site = ControlSite(ring(), (), PERIOD_S, ports=lambda closed: pytest.fail("not needed"))
    agent = Reconfiguration(site, [AGENT], confirm_s=8)
    rows = play(agent, 120.0, (40.0, 100.0))
    assert any("plan" in row[4] for row in rows)
    assert not any(row[1][NAMES.index("tie")] for row in rows)


def test_it_may_stay_in_the_restored_configuration(most_kw: float) -> None:
    site = ControlSite(ring(), (), PERIOD_S, ports=lambda closed: pytest.fail("not needed"))
    agent = Reconfiguration(site, [AGENT], confirm_s=8, restore_normal=False, transfers=False)
    last = play(agent, 160.0, (40.0, 100.0))[-1]
    assert last[2] == 35.0
    assert last[1][NAMES.index("tie")] == 1.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"switches": ["ti"]}, "'ti' fits no switch.*did you mean 'tie'"),
        ({"priority": {"l9": 2.0}}, "'l9' fits no load or DER"),
        ({"priority": {"l1": -1}}, "priority: l1"),
        ({"priority": [1]}, "globs with numbers"),
        ({"v_min_pu": 1.1}, "no band is left"),
        ({"confirm": 3}, "did you mean 'confirm_s'"),
    ],
)
def test_wrong_options(options: dict[str, Any], match: str) -> None:
    site = ControlSite(ring(), (), PERIOD_S, ports=lambda closed: pytest.fail("not needed"))
    with pytest.raises(ControllerError, match=match):
        Reconfiguration(site, [AGENT], **options)


def test_a_feeder_without_switches_or_circuit_is_refused() -> None:
    with pytest.raises(ControllerError, match="has no switch"):
        Reconfiguration(sample_site(), [AGENT])
    with pytest.raises(ControllerError, match="no circuit"):
        Reconfiguration(replace(sample_site(), feeder=ring(), ders=()), [AGENT])
