"""The table of an attack's states, with a publication's figures in brackets."""

from __future__ import annotations

from pathlib import Path

import pytest

from federates.errors import ScenarioError
from federates.reports.market import market_head, market_rows
from federates.scenario.attack_files import load_attack, shipped_attacks
from federates.scenario.attack_schema import Published, PublishedState
from federates.scenario.schema import shipped_dir

STATES = {
    "pre": {"import_kw": 1000.0, "load_kw": 1100.0, "losses_kw": 12.25},
    "attacked": {"import_kw": 1037.5, "load_kw": 1137.0, "losses_kw": 13.0},
    "mitigated": {"import_kw": 906.25, "load_kw": 1000.0, "losses_kw": 11.0},
}


def test_figures_of_a_publication_stand_in_brackets_beside_ours() -> None:
    published = Published(
        source="a paper",
        pre=PublishedState(import_kw=998.5),
        attacked=PublishedState(import_change_kw=37),
        mitigated=PublishedState(import_change_kw=-94),
    )
    rows = {row[0]: row[2:] for row in market_rows(STATES, published)}
    assert market_head(list(STATES), published)[0] == "As metered on the feeder [a paper]"
    assert rows["Import"][0] == "1,000.00\n[998.50]"
    assert rows["Import"][1] == "1,037.50\n(+3.8 %)"
    assert rows["Import, less that before"] == ["0.00", "37.50\n[37.00]", "-93.75\n[-94.00]"]
    assert rows["Load"][0] == "1,100"


def test_without_a_publication_the_table_is_as_it_was() -> None:
    rows = {row[0]: row[2:] for row in market_rows(STATES)}
    assert list(rows) == ["Import", "Load", "Losses"]
    assert rows["Import"][2] == "906\n(-9.4 %)"


def test_a_figure_that_the_table_does_not_have_is_refused(tmp_path: Path) -> None:
    shipped = shipped_attacks(shipped_dir())["generator-shutdown-1b-market"]
    path = tmp_path / "attack.yaml"
    path.write_text(shipped.read_text().replace("load_kw: 1167.52", "lod_kw: 1167.52"))
    with pytest.raises(ScenarioError, match=r"published\.pre\.lod_kw.*did you mean 'load_kw'"):
        load_attack(path)
