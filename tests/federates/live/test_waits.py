"""Who waits for whom follows from heartbeats and timings."""

from __future__ import annotations

from typing import Any

from federates.live.waits import who_waits

S = 1_000_000_000
FEEDER = {"name": "feeder", "where": "here", "row": 0, "period_ns": S, "offset_ns": 0, "steps": 5}
AGENTS = {"name": "agents", "where": "here", "row": 1, "period_ns": S, "offset_ns": S // 2}
AGENTS |= {"steps": 5, "reads": ["feeder"]}
FEEDER["reads"] = ["agents"]
LAB = {"name": "lab", "where": "external", "row": None, "period_ns": S, "offset_ns": 0, "steps": 5}
LAB["reads"] = []


def found(beats: list[list[int]], *more: Any, **how: bool) -> dict[str, dict[str, Any]]:
    how = {"paused": False, "paced": False} | how
    rows = who_waits([FEEDER, AGENTS, *more], beats, 10 * S, **how)
    return {row["name"]: row for row in rows}


def test_a_federate_waits_for_those_whose_next_step_is_earlier() -> None:
    # The feeder has done its step at 1 s, the agents theirs at 0.5 s and not yet at 1.5 s.
    rows = found([[0, 2, 0], [0, 1, 7]])
    assert (rows["feeder"]["does"], rows["feeder"]["for"]) == ("waits", ["agents"])
    assert (rows["agents"]["does"], rows["agents"]["for"]) == ("waits", [])  # its turn
    assert [rows["feeder"][k] for k in ("granted_s", "next_s")] == [1.0, 2.0]
    assert rows["agents"]["messages"] == 7


def test_a_federate_that_computes_says_since_when() -> None:
    rows = found([[7 * S, 2, 0], [0, 2, 0]])
    assert (rows["feeder"]["does"], rows["feeder"]["busy_s"]) == ("steps", 3.0)
    assert rows["feeder"]["granted_s"] == 2.0
    assert rows["agents"]["for"] == ["feeder"]


def test_nobody_waits_for_a_federate_that_has_done_all_its_steps() -> None:
    rows = found([[0, 5, 0], [0, 4, 0]])
    assert (rows["feeder"]["does"], rows["feeder"]["next_s"]) == ("done", None)
    assert rows["agents"]["for"] == []


def test_before_the_first_step_all_wait_for_the_program_that_has_not_joined() -> None:
    rows = found([[0, 0, 0], [0, 0, 0]], LAB)
    assert rows["feeder"]["for"] == rows["agents"]["for"] == ["lab"]
    assert rows["feeder"]["granted_s"] is None
    assert rows["lab"]["does"] == "unseen"


def test_pause_and_wall_clock_are_named() -> None:
    assert found([[0, 1, 0], [0, 1, 0]], paused=True)["agents"]["held_by"] == "pause"
    rows = found([[0, 1, 0], [0, 1, 0]], paced=True)
    assert (rows["feeder"]["held_by"], rows["agents"]["held_by"]) == ("wall clock", None)
