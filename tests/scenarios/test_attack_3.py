"""Attack 3: an island loses most of its generation; the unit's relay alone, and with the market."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _der_rich_table import to_csv
from _island_cases import island_ders

from federates.core.federate import FloatArray
from federates.core.signals import read_signal
from federates.reports.market import market_head, market_rows
from federates.reports.market_states import metered_states
from federates.reports.run import write_report
from federates.runs.runner import run
from federates.scenario.schema import load_scenario, shipped_dir
from grid_models.catalog import load_feeder

pytestmark = pytest.mark.scenario

# The shipped attack begins at 480 s; here at 120 s, for a short run.
BEGIN_S, END_S, STEP_S = 120.0, 240.0, 4.0
CRITICAL_PU = 0.6943


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("island")
    attack = (shipped_dir() / "attacks" / "generator-shutdown-3.yaml").read_text("utf-8")
    (base / "early.yaml").write_text(attack.replace("at_s: 480", f"at_s: {BEGIN_S:g}"))
    for name, defence in (("attacked", None), ("mitigated", "mitigated")):
        changes = [f"time.duration_s={END_S:g}"]
        scenario = load_scenario(
            "attack-3-ieee123", changes, attack=str(base / "early.yaml"), defence=defence
        )
        run(scenario, out=base / name, placement="single")
    return {name: base / name for name in ("attacked", "mitigated")}


def signal(folder: Path, name: str) -> FloatArray:
    return read_signal(folder / "signals", name)[2]


def test_the_table_is_made_by_its_recipe() -> None:
    text = (shipped_dir() / "attack-3-ieee123.csv").read_text("utf-8")
    assert text == to_csv(island_ders(load_feeder("ieee123")))


def test_the_unit_is_never_beyond_its_limit_and_the_market_takes_over(
    runs: dict[str, Path],
) -> None:
    ders = island_ders(load_feeder("ieee123"))
    loads = np.array([der.kind == "flexible_load" for der in ders])
    least_kw = CRITICAL_PU * np.array([-der.p_min_kw for der in ders])[loads]
    for folder in runs.values():
        unit, shed = signal(folder, "feeder.unit_kw")[:, 0], signal(folder, "feeder.shed_kw")
        assert unit.min() >= 0.0
        assert unit.max() <= 1300.0
        # Critical load is shed only in steps in which no flexible load is left, and vice versa.
        load_kw = -signal(folder, "feeder.p_kw")[:, loads]
        critical = shed[:, 2] > 0.0
        assert critical.any()
        assert (load_kw[critical] <= least_kw + 1e-9).all()
        assert (load_kw[~critical] >= least_kw - 1e-9).all()
    attacked, mitigated = (signal(runs[name], "feeder.shed_kw")[:, 2] for name in runs)
    at = int(BEGIN_S / STEP_S)
    assert attacked[at:].min() > 400.0
    assert mitigated[at] == attacked[at]
    assert not mitigated[at + 8 :].any()  # silent after 12 s, cleared at once; the devices' 4 s


def test_the_table_of_the_attack(runs: dict[str, Path]) -> None:
    windows = (BEGIN_S - 40.0, BEGIN_S), (END_S - 60.0, END_S)
    states = metered_states(runs["attacked"], runs["mitigated"], *windows)
    pre, attacked, mitigated = states["pre"], states["attacked"], states["mitigated"]
    assert pre["shed_kw"] == mitigated["shed_kw"] == 0.0
    assert attacked["shed_kw"] == pytest.approx(432.0, abs=5.0)
    for state in (attacked, mitigated):
        assert state["unit_kw"] == state["import_kw"] == pytest.approx(1300.0, rel=3e-4)
    assert pre["cost"] < mitigated["cost"] < attacked["cost"]
    assert mitigated["nodes_curtailing"] > 90
    lost_kw = pre["generation_kw"] - attacked["generation_kw"]
    assert lost_kw == pytest.approx(2281.0, abs=20.0)
    head, rows = market_head(list(states)), market_rows(states)
    assert [row[0] for row in rows][1:3] == ["Grid-forming unit", "Critical load shed"]
    assert all(len(row) == len(head) for row in rows)


def test_the_page_of_a_run_shows_the_unit_and_what_was_cut(runs: dict[str, Path]) -> None:
    page = write_report(runs["mitigated"]).read_text("utf-8")
    for title in ("Grid-forming unit", "Load shed", "Critical load shed", "Generation curtailed"):
        assert page.count(f">{title}<") + page.count(f'"{title}"') > 0, title
