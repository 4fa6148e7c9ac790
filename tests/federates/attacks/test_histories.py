"""Traces: tables that are none, and traces of which nothing would be played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.attacks.signal.trace_file import read_trace
from federates.cli import call
from federates.errors import ScenarioError
from federates.scenario.schema import load_scenario


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", b"time_s,port,label,value,value\n0,a.b,c,1,2\n", ["has 2 columns 'value'"]),
        ("t.csv", b"time_s,time_s,port,label,value\n0,0,a.b,c,1\n", ["has 2 columns 'time_s'"]),
        ("t.csv", "time_s,pört,label,value\n0,a,b,1\n".encode("latin-1"), ["row 1", "not UTF-8"]),
        ("t.csv", "time_s,port,label,value\n0,ö,b,1\n".encode("latin-1"), ["UTF-8"]),
        ("t.csv", b"time_s,port,label,value\n0,a.b,c,1\n5,a.b,c,inf\n", ["row 3, column 'value'"]),
        ("t.csv", b"time_s,port,label,value\nnan,a.b,c,1\n", ["row 2, column 'time_s'", "nan"]),
        ("a.b.csv", b"time_s,c,d\n0,1,abc\n", ["column 'd' is not of numbers"]),
        ("a.b.csv", b"time_s,c,d\n0,1,2\n1,-inf,2\n", ["row 3, column 'c'", "found -inf"]),
        ("a.b.csv", b"time_s,c,d\n,1,2\n", ["row 2, column 'time_s'", "found nan"]),
        ("a.b.csv", b"time_s,c,c\n0,1,2\n", ["has 2 columns 'c'"]),
    ],
)
def test_a_table_that_cannot_be_a_trace_says_where(
    tmp_path: Path, name: str, text: bytes, words: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(text)
    with pytest.raises(ScenarioError) as caught:
        read_trace(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_column_that_is_not_asked_for_may_be_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time_s,port,label,value,note,note\n0,a.b,c,1,x,y\n1,a.b,c,nan,x,y\n")
    times, ports, labels, values = read_trace(path)
    assert (times.tolist(), ports, labels, values.tolist()) == ([0.0], ["a.b"], ["c"], [1.0])


# -- in attack files -------------------------------------------------------------------------------

PLAYED = """\
id: a
steps:
  - id: s
    layer: signal
    trigger: {at_s: 60}
    duration_s: 120
    target: {port: volt_var.v_pu, labels: ["671.*"]}
    action: {kind: replay, file: trace.csv, MORE}
"""
HEADER = "time,port,label,value\n"


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ("", "speed: 1", ["it holds no value"]),
        ("0,volt_var.v_pu,671.1,nan\n", "speed: 1", ["it holds no value", "not NaN"]),
        (
            "0,volt_var.v_pu,672.1,1\n",
            "speed: 1",
            ["is of volt_var.v_pu 672.1", "did you mean 'volt_var.v_pu 671.1'?"],
        ),
        ("0,feeder.p_kw,671.1,1\n", "speed: 1", ["first is of feeder.p_kw 671.1"]),
        ("0,volt_var.v_pu,632.1,1\n", "speed: 1", ["expected rows of volt_var.v_pu 671.1"]),
        (
            "1704067200.5,volt_var.v_pu,671.1,1\n",
            "speed: 2",
            ["852033600.2 s after the step's begin", "less than 120 s", "offset_s: -852033600.25 "],
        ),
        ("0,volt_var.v_pu,671.1,1\n", "offset_s: 120", ["would come 120 s after"]),
    ],
)
def test_a_trace_of_which_nothing_would_be_played_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: str,
    more: str,
    words: list[str],
) -> None:
    (tmp_path / "trace.csv").write_text(HEADER + rows)
    (tmp_path / "a.yaml").write_text(PLAYED.replace("MORE", more))
    assert call(["attack", "check", str(tmp_path / "a.yaml"), "voltvar-ieee13"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    for word in ("a.yaml:8: steps[0].action.file", "trace.csv would be played", *words):
        assert word in said


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        ("0,feeder.v_pu,671.3,1\n", "speed: 1"),  # by the output's name
        ("1,volt_var.v_pu,671.1,1\n0,volt_var.v_pu,9.1,1\n", "speed: 1"),  # one of the targets
        ("60,volt_var.v_pu,671.1,1\n", "offset_s: 59"),  # at its last second
        ("1704067200.5,volt_var.v_pu,671.1,1\n", "speed: 2, offset_s: -852033600.25"),
    ],
)
def test_a_trace_of_which_something_would_be_played_fits(
    tmp_path: Path, rows: str, more: str
) -> None:
    (tmp_path / "trace.csv").write_text(HEADER + rows)
    (tmp_path / "a.yaml").write_text(PLAYED.replace("MORE", more))
    assert call(["attack", "check", str(tmp_path / "a.yaml"), "voltvar-ieee13"]) == 0


def test_a_step_of_several_parts_needs_rows_for_one_of_them(tmp_path: Path) -> None:
    """Ports of producers that step at other times pass other attack federates."""
    (tmp_path / "trace.csv").write_text(HEADER + "0,feeder.v_pu,671.1,1\n")
    text = PLAYED.replace("MORE", "speed: 1").replace("volt_var.v_pu", '"*"').replace("671.*", "*")
    (tmp_path / "a.yaml").write_text(text)
    scenario = load_scenario("voltvar-ieee13", attack=str(tmp_path / "a.yaml"))
    assembly = Assembly(scenario)
    federates, _ = assembly.assemble()
    traces = [t for f in federates.values() for _, t in getattr(f, "traces", ())]
    assert len(traces) > 1
    assert [np.isfinite(t.begins_s) for t in traces].count(True) == 1
