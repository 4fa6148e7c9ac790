"""Attacks on the three-phase market, on the unbalanced feeder, beside the figures of the slides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _der_rich_table import to_csv
from _three_phase_ders import ATTACKED, FLEXIBLE, SET_UPS, homes_1c, three_phase_ders

from federates.core.signals import read_signal
from federates.reports.market_states import metered_states, node_roles
from federates.runs.runner import run
from federates.scenario.schema import load_scenario, shipped_dir
from grid_models.catalog import load_feeder

pytestmark = pytest.mark.scenario

BEGIN_S, STEPS = 180, 120


def short(base: Path, attack: str, defence: str | None, n_steps: int) -> Path:
    """Run a scenario with its attack at three minutes, to eight."""
    begins = [f"attack.steps.{i}.trigger.at_s={BEGIN_S}" for i in range(n_steps)]
    scenario = load_scenario(f"attack-{attack}-ieee123", begins, defence=defence)
    out = base / f"{attack}-{defence}"
    run(scenario, out=out, placement="single", steps=STEPS)
    return out


def events(out: Path) -> dict[str, dict[str, Any]]:
    """Return the first event of each kind."""
    lines = (out / "events.jsonl").read_text("utf-8").splitlines()
    found: dict[str, dict[str, Any]] = {}
    for event in map(json.loads, lines):
        found.setdefault(event["event"], event)
    return found


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short(tmp_path_factory.mktemp("1b"), "1b", None, 3)


@pytest.fixture(scope="module")
def mitigated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short(tmp_path_factory.mktemp("1b"), "1b", "mitigated", 3)


def test_attack_1b_is_that_of_the_slides(attacked: Path, mitigated: Path) -> None:
    states = metered_states(attacked, mitigated)
    pre, post, after = states["pre"], states["attacked"], states["mitigated"]
    assert [s["load_kw"] for s in (pre, post, after)] == pytest.approx(
        [1167.52, 1190.44, 1123.31], abs=4.0
    )
    assert [s["import_kw"] for s in (pre, post, after)] == pytest.approx(
        [1125.91, 1193.87, 1126.35], abs=4.0
    )
    assert after["import_kw"] == pytest.approx(pre["import_kw"], rel=0.0025)
    assert after["nodes_curtailing"] == len(FLEXIBLE)
    assert after["curtailed_min_kw"] == pytest.approx(0.12, abs=0.03)
    assert after["curtailed_max_kw"] == pytest.approx(4.77, abs=0.1)
    assert after["node_minutes_out_of_band"] == 0.0
    assert pre["cost"] < post["cost"] < after["cost"]
    roles = node_roles(attacked, mitigated)
    assert set(roles["out"]) == set(ATTACKED)
    assert set(roles["curtailing"]) == set(FLEXIBLE)


def test_higher_scores_give_more_of_their_flexibility(mitigated: Path) -> None:
    ders = {d.name: d for d in three_phase_ders(load_feeder("ieee123"), SET_UPS["1b"])}
    time_s, labels, p_kw = read_signal(mitigated / "signals", "feeder.p_kw")
    names = [f"load_{bus}" for bus in FLEXIBLE]
    at = [labels.index(name) for name in names]
    before = p_kw[(time_s >= 100) & (time_s < BEGIN_S)][:, at].mean(axis=0)
    given = p_kw[time_s >= 400][:, at].mean(axis=0) - before
    room = np.array([ders[name].p_max_kw - ders[name].p_min_kw for name in names])
    _, smos, scores = read_signal(mitigated / "signals", "resilience.resilience")
    # Bus 48 has loads per phase in the feeder, so its three-phase load is at smo_48.1.2.3.
    smo = {label.removeprefix("smo_").removesuffix(".1.2.3"): i for i, label in enumerate(smos)}
    score = scores[-1][[smo[bus] for bus in FLEXIBLE]]
    assert np.corrcoef(given / room, score)[0, 1] > 0.5


def test_attack_1a_takes_the_import_below_what_it_was_before(tmp_path: Path) -> None:
    out = short(tmp_path, "1a", "mitigated", 2)
    time_s, _, values = read_signal(out / "signals", "feeder.import_kw")
    kw = values[:, 0]
    pre = kw[(time_s >= 100) & (time_s < BEGIN_S)].mean()
    first = kw[(time_s >= BEGIN_S) & (time_s < BEGIN_S + 16)].mean()
    last = kw[time_s >= 420].mean()
    assert first - pre == pytest.approx(37.0, abs=1.0)
    assert last - pre == pytest.approx(-94.0, abs=4.0)
    told = events(out)
    assert told["import_off_schedule"]["time_s"] - BEGIN_S < 4.0
    assert told["import_restored"]["target_kw"] == pytest.approx(pre - 94.0, abs=1.0)
    assert "target_unreachable" not in told


def test_attack_1c_is_answered_by_the_operators_agents_and_then_by_the_primary_market(
    tmp_path: Path,
) -> None:
    """Attack at 420 s; the manager waits until the secondary markets have done what they can."""
    begin_s = 420.0
    changes = (f"attack.steps.0.trigger.at_s={begin_s}", "federates.resilience.options.learn_s=240")
    scenario = load_scenario("attack-1c-ieee123", changes, defence="mitigated")
    out = tmp_path / "1c"
    run(scenario, out=out, placement="single", steps=78)
    time_s, _, values = read_signal(out / "signals", "feeder.import_kw")

    def mean_kw(begin: float, end: float) -> float:
        return float(values[(time_s >= begin) & (time_s < end), 0].mean())

    told = events(out)
    order_s = told["weights_committed"]["time_s"]
    pre, attacked = mean_kw(360.0, begin_s), mean_kw(begin_s, begin_s + 60.0)
    secondary, last = mean_kw(begin_s + 120.0, order_s), mean_kw(720.0, 780.0)
    assert attacked - pre == pytest.approx(159.0, abs=4.0)
    assert 30.0 < attacked - secondary < 70.0
    assert last == pytest.approx(pre, rel=0.01)
    assert told["search"]["time_s"] - begin_s > 150.0
    states = metered_states(out, out)
    assert list(states) == ["pre", "attacked", "secondary", "mitigated"]
    assert states["attacked"]["import_kw"] == pytest.approx(attacked, abs=1e-6)
    assert states["attacked"]["generation_kw"] == pytest.approx(163.0, abs=0.5)
    assert states["attacked"]["nodes_curtailing"] == 0
    assert states["mitigated"]["nodes_curtailing"] > 80
    assert states["pre"]["cost"] < states["mitigated"]["cost"]


def test_the_tables_of_resources_are_what_their_recipe_gives() -> None:
    for attack, set_up in SET_UPS.items():
        text = (shipped_dir() / f"attack-{attack}-ieee123.csv").read_text("utf-8")
        assert text == to_csv(three_phase_ders(load_feeder("ieee123"), set_up))
    text = (shipped_dir() / "attack-1c-ieee123.csv").read_text("utf-8")
    assert text == to_csv(homes_1c(load_feeder("ieee123")))
