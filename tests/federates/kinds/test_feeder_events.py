"""Events of a feeder are bounded, and say when controls do not settle."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from federates.kinds.feeder.events import BoundedEvents
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

# The bank lifts the voltage by more than the range in which it stays on.
HUNTING = """clear
new circuit.hunting basekv=11 bus1=s pu=1.0
new line.main bus1=s bus2=b r1=0.4 x1=0.5 r0=0.6 x0=1.2 length=6
new load.b bus1=b kv=11 kw=1500 kvar=600
new capacitor.bank bus1=b kv=11 kvar=2400 phases=3
new capcontrol.cc capacitor=bank element=line.main terminal=2 type=voltage ptratio=52.92
~ onsetting=119.5 offsetting=120 delay=0 delayoff=0 deadtime=0
set voltagebases=[11]
calcvoltagebases
solve
"""


@given(st.lists(st.sampled_from(["tap_changed", "controls_unsettled"]), max_size=1200))
def test_what_is_listed_and_what_is_counted_are_all_events(kinds: list[str]) -> None:
    told: list[tuple[str, float, dict[str, Any]]] = []
    events = BoundedEvents(lambda kind, time_s, **more: told.append((kind, time_s, more)))
    for k, kind in enumerate(kinds):
        events(kind, float(k), number=k)
    events.end()
    listed = Counter(kind for kind, _, _ in told)
    more = {e["of"]: (e["count"], at_s) for kind, at_s, e in told if kind == "events_not_listed"}
    for kind, count in Counter(kinds).items():
        most = 1 if kind == "controls_unsettled" else 500
        assert listed[kind] == min(count, most)
        assert more.get(kind, (0, 0))[0] == count - listed[kind]
        if kind in more:
            assert more[kind][1] == len(kinds) - 1 - kinds[::-1].index(kind)


def test_controls_that_do_not_settle_are_told_once_and_counted(tmp_path: Path) -> None:
    (tmp_path / "hunting.dss").write_text(HUNTING)
    (tmp_path / "day.csv").write_text("time_s,load_pu\n0,0\n60,1\n600,1\n")
    settings = [
        f"grid.model={tmp_path / 'hunting.dss'}",
        "grid.ders=[]",
        f"grid.profiles.path={tmp_path / 'day.csv'}",
        "time={start_s: 0, step_s: 60, duration_s: 600}",
    ]
    scenario = load_scenario("voltvar-ieee123-none", settings)
    run(scenario, out=tmp_path / "run", placement="single")
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    (first,) = [e for e in events if e["event"] == "controls_unsettled"]
    (rest,) = [e for e in events if e.get("of") == "controls_unsettled"]
    assert first["federate"] == rest["federate"] == "feeder"
    assert 0.0 <= first["time_s"] < rest["time_s"] <= 540.0
    assert 1 <= rest["count"] <= (rest["time_s"] - first["time_s"]) / 60.0
