"""Comparison of algorithms: rows, links, failures, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import feederate
from controllers.core.graph import Graph
from controllers.core.mail import Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep
from controllers.optimisation.problems.consensus import Consensus, ring_consensus
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch
from federates.cli import call
from federates.errors import ScenarioError
from federates.optimise.compare import compare
from federates.optimise.loop import drive
from federates.optimise.settings import link_rules
from grid_models.base.errors import FeederateError

RELIED_ON = (
    "algorithm", "iterations", "gap", "infeasibility", "messages", "bytes", "seconds", "converged",
)  # fmt: skip


def test_the_command_gives_the_rows_that_others_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["optimise", "dispatch-20", "--algorithms", "dual", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert set(RELIED_ON) <= set(row)
    assert row["algorithm"] == "dual"
    assert row["converged"] is True
    assert max(row["gap"], row["infeasibility"]) < 1e-6
    assert 0 < row["iterations_to_tolerance"] <= row["iterations"]
    # One star of 20 members, messages of a number and a counter, 16 bytes of header each.
    assert row["bytes"] == row["messages"] * (16 + 2 * 8)


def test_the_python_call_gives_a_table_and_the_folder(tmp_path: Path) -> None:
    chosen = ["consensus", "consensus-metropolis"]
    out = tmp_path / "out"
    table = feederate.optimise("consensus-ring-8", chosen, links={"loss": 0.1}, out=out)
    assert set(RELIED_ON) <= set(table.columns)
    assert list(table["algorithm"]) == chosen
    with (out / "rows.csv").open() as file:
        assert [row["algorithm"] for row in csv.DictReader(file)] == list(table["algorithm"])
    page = (out / "report.html").read_text()
    assert "consensus-metropolis" in page
    assert page.count('class="chart sweep-chart"') == 1
    with (out / "curves.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert int(last["iteration"]) == table["iterations"].iloc[-1]
    assert float(last["gap"]) == table["gap"].iloc[-1]


def test_links_cost_time_and_not_the_answer() -> None:
    problem = ring_consensus(6)
    clean, bad = (
        compare(problem, ["consensus"], links=links, period_s=0.01).rows[0]
        for links in (None, "loss=0.3,latency_s=0.05")
    )
    assert (bad.seconds or 0.0) > 5.0 * (clean.seconds or 1.0)
    assert (bad.gap, bad.iterations) == (clean.gap, clean.iterations)


def test_the_default_period_is_a_tenth_of_the_longest_delay() -> None:
    links = [{"latency_s": 0.4, "jitter_s": 0.1}]
    assert compare(ring_consensus(4), ["consensus"], links=links).period_s == pytest.approx(0.05)
    assert compare(ring_consensus(4), ["consensus"]).period_s == 1e-3


def test_an_algorithm_that_fails_does_not_end_the_others() -> None:
    """Units without curvature: dual decomposition says why it refuses them."""
    n = 4
    flat = Dispatch.balance(np.zeros(n), np.arange(1.0, 5.0), np.zeros(n), np.ones(n), 2.0)
    found = compare(flat, ["dual", "dual-preconditioned"])
    assert [row.stopped_by for row in found.rows] == ["error", "error"]
    assert "quadratic cost of 'unit_0' is 0" in (found.rows[0].error or "")
    assert found.records()[0]["gap"] is None


def test_an_algorithm_that_hears_nothing_is_ended() -> None:
    row = compare(ring_consensus(4), ["consensus"], links={"loss": 1.0}).rows[0]
    assert (row.stopped_by, row.converged, row.iterations) == ("silence", False, 0)


def test_a_limit_of_iterations_is_kept() -> None:
    row = compare(ring_consensus(40), ["consensus"], max_iterations=7).rows[0]
    assert (row.stopped_by, row.iterations, row.iterations_to_tolerance) == (
        "max_iterations", 7, None,
    )  # fmt: skip


class _Growing:
    """One agent whose number squares at each step."""

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    links_in: tuple[Link, ...] = ()
    links_out: tuple[Link, ...] = ()
    stopped = False

    def __init__(self) -> None:
        self.x, self.rounds = np.array([3.0]), 0

    def step(self, time_s: float, inputs: Any, mail: Mail) -> ControllerStep:
        self.x, self.rounds = self.x**2, self.rounds + 1
        return ControllerStep({})

    def answer(self) -> dict[str, Any]:
        return {"x": self.x}


def test_an_algorithm_that_diverges_is_ended() -> None:
    problem = Consensus(np.ones(1), Graph(1, np.empty((0, 2), np.int64)))
    found = drive(problem, _Growing(), {}, period_ns=1, seed=0, max_iterations=1000)
    assert found.stopped_by == "divergence"
    assert found.iterations < 20


def test_links_are_those_of_a_scenario(tmp_path: Path) -> None:
    file = tmp_path / "links.yaml"
    file.write_text("title: a scenario\nlinks:\n- {loss: 0.2}\n- {source: 'unit_*', noise: 1.0}\n")
    assert link_rules([str(file), "latency_s=2,loss=0.5"]) == link_rules(
        [{"loss": 0.2}, {"source": "unit_*", "noise": 1.0}, {"latency_s": 2, "loss": 0.5}]
    )
    file.write_text("links:\n- {loss: 0.2}\n- {los: 0.2}\n")
    with pytest.raises(ScenarioError, match=r"links.yaml:3: links\[1\]\.los.* mean 'loss'"):
        link_rules(str(file))


def test_a_case_is_solved_by_its_areas_or_by_as_many_regions_as_wanted() -> None:
    """Gap 1e-8 in 16 iterations: a central interior point has 16 (published table)."""
    row = compare("case39", ["interior-point"]).rows[0]
    assert row.converged
    assert row.agents == 3 + 1
    assert (row.iterations or 99) <= 17
    assert (row.gap or 0.0) < 1e-8
    five = compare("case39", ["interior-point"], regions=5, max_iterations=2).rows[0]
    assert (five.agents, five.iterations, five.end) == (5 + 1, 2, "limit")


TWO_BUSES = """mpc.version = '2'; mpc.baseMVA = 100; mpc.genfuel = {'coal'};
mpc.bus = [1 3 0 0 0 0 1 1 0 110 1 1.1 0.9; 2 1 50 10 0 0 1 1 0 110 1 1.1 0.9];
mpc.gen = [1 50 0 50 -50 1 100 1 100 0];
mpc.branch = [1 2 0.01 0.1 0 0 0 0 0 0 1 -360 360];
mpc.gencost = [2 0 0 2 10 0];
"""


def test_what_a_case_file_holds_and_is_not_used_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.m"
    file.write_text(TWO_BUSES)
    words = [str(file), "--algorithms", "interior-point", "--regions", "2"]
    assert call(["optimise", *words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["converged"]
    assert "note: 'mpc.genfuel' is not used (line 1)" in said.err
    with pytest.warns(UserWarning, match=r"'mpc.genfuel' is not used"):
        feederate.optimise(str(file), ["interior-point"], regions=2)


def test_waiting_is_an_option_of_every_algorithm() -> None:
    loss = {"loss": 0.2}
    slow, fast = (
        compare("dispatch-9", ["admm-async"], links=loss, options={"admm-async": options}).rows[0]
        for options in ({"resend_after": 50}, {"resend_after": 1, "fraction": 0.2, "max_age": 9})
    )
    assert (slow.seconds or 0.0) > 2.0 * (fast.seconds or 0.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dispach-100"], "did you mean 'dispatch-100'"),
        (["consensus-grd-3x4"], "did you mean 'consensus-grid-3x4'"),
        (["dispatch-1"], "2 to 4000 agents"),
        (["dispatch-999999999"], "2 to 4000 agents"),
        (["case93"], "did you mean 'case39'"),
        (["none/case9.m"], "a MATPOWER file"),
        (["case39", "--regions", "40"], "40 regions of 39 buses"),
        (["dispatch-9", "--set", "dual.resend_after=0"], "resend_after"),
        (["dispatch-9", "--set", "dual.resend_after=yes"], "resend_after"),
        (["dispatch-9", "--algorithms", "dul"], "did you mean 'dual'"),
        (["dispatch-9", "--algorithms", "consensus"], "does not solve dispatch problems"),
        (["dispatch-9", "--links", "los=0.2"], "did you mean 'loss'"),
        (["dispatch-9", "--links", "loss=2"], "--links: loss"),
        (["dispatch-9", "--links", "nowhere.yaml"], "is no file"),
        (["dispatch-9", "--links", "source=unt_1"], "did you mean 'unit_1'"),
        (["dispatch-9", "--algorithms", "dual", "--set", "dual.stp=1"], "did you mean 'step'"),
        (["dispatch-9", "--algorithms", "dual", "--set", "dual.step=up"], "'curvature'"),
        (["dispatch-9", "--algorithms", "dual", "--set", "dul.step=up"], "did you mean 'dual'"),
        (["dispatch-9", "--set", "dual"], "key=value"),
        (["dispatch-9", "--period", "0"], "period_s"),
        (["dispatch-9", "--tolerance", "nan"], "tolerance"),
    ],
)
def test_wrong_input_is_named(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["optimise", *words]) == 2
    assert says in capsys.readouterr().err


def test_problems_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(FeederateError, match="have no path to agent 0"):
        Graph(4, np.array([[0, 1], [2, 3]]))
    one = np.ones(2)
    with pytest.raises(FeederateError, match="limits allow 0 to 2"):
        Dispatch.balance(one, one, 0.0 * one, one, 3.0)


def test_the_seed_is_of_problem_and_links() -> None:
    rows = [
        compare("dispatch-20", ["dual"], seed=seed, links={"loss": 0.3}).rows[0]
        for seed in (1, 1, 2)
    ]
    first, second, other = ((row.gap, row.messages, row.seconds) for row in rows)
    assert first == second != other
    assert (
        random_dispatch(20, seed=1).reference.objective != random_dispatch(20).reference.objective
    )
