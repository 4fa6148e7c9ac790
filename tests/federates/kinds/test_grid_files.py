"""The grid as tables in the run's folder: what another program needs to rebuild the power flow."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_array

from federates.core.signals import read_signal
from federates.runs.replay import compare_runs
from federates.runs.runner import run
from federates.scenario.schema import load_scenario
from grid_models.base.yaml_lines import yaml_text
from grid_models.catalog import open_circuit

DATA = {
    "time": {"duration_s": 60, "step_s": 60},
    "grid": {"model": "ieee13", "ders": []},
    "federates": {"feeder": {"kind": "feeder"}},
    "record": {"ports": ["*", "feeder.v_deg", "feeder.loading_pct"]},
}


def ran(folder: Path, name: str = "run", **changes: object) -> Path:
    path = folder / "grid.yaml"
    path.write_text(yaml_text(DATA | changes))
    return run(load_scenario(path), out=folder / name, placement="single").folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_admittance_and_voltages_give_the_current_of_every_load(tmp_path: Path) -> None:
    folder = ran(tmp_path)
    nodes = table(folder / "grid" / "nodes.csv")
    entries = pq.read_table(folder / "grid" / "admittance.parquet").to_pydict()
    values = np.array(entries["g_s"]) + 1j * np.array(entries["b_s"])
    y = coo_array((values, (entries["row"], entries["column"])), shape=(len(nodes), len(nodes)))
    _, labels, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    _, _, v_deg = read_signal(folder / "signals", "feeder.v_deg")
    base = {r["bus"]: float(r["base_kv_ln"]) * 1e3 for r in table(folder / "grid" / "buses.csv")}
    volts = {
        label: magnitude * base[label.rpartition(".")[0]] * np.exp(1j * np.radians(angle))
        for label, magnitude, angle in zip(labels, v_pu[-1], v_deg[-1], strict=True)
    }
    v = np.array([volts[node["label"]] for node in nodes])
    drawn_kva = -v * np.conj(y @ v) / 1e3
    at = {node["label"]: i for i, node in enumerate(nodes)}
    loads = table(folder / "grid" / "loads.csv")
    wye = [r for r in loads if r["bus"] == "634"]
    assert len(wye) == 3
    scale = drawn_kva[at["634.1"]].real / float(wye[0]["kw"])
    for row in wye:
        kva = complex(float(row["kw"]), float(row["kvar"])) * scale
        assert drawn_kva[at[f"634.{row['phases']}"]] == pytest.approx(kva, rel=2e-4)


def test_branches_have_their_ends_ratings_and_taps(tmp_path: Path) -> None:
    folder = ran(tmp_path)
    rows = {row["element"]: row for row in table(folder / "grid" / "branches.csv")}
    feeder = open_circuit("ieee13").feeder
    assert len(rows) == len(feeder.lines) + len(feeder.switches) + 4
    line = rows["line.line_632_645"]
    assert (line["from_bus"], line["to_bus"], line["phases"]) == ("632", "645", "2.3")
    assert float(line["length_m"]) == pytest.approx(500 * 0.3048)
    assert rows["transformer.rg1a"]["tap_step"] == "10"
    assert rows["transformer.xfm1"]["kv_to"] == "0.48"
    assert {row["kind"] for row in rows.values()} == {"line", "switch", "regulator", "transformer"}
    _, rated, _ = read_signal(folder / "signals", "feeder.loading_pct")
    assert set(rated) == {name for name, row in rows.items() if row["normal_a"]}


def test_several_feeders_have_a_folder_each(tmp_path: Path) -> None:
    federates = {"a": {"kind": "feeder"}, "b": {"kind": "feeder", "grid": {"model": "ieee13"}}}
    folder = ran(tmp_path, federates=federates, record={"ports": ["*"]})
    assert sorted(path.name for path in (folder / "grid").iterdir()) == ["a", "b"]
    assert (folder / "grid" / "b" / "buses.csv").exists()


def test_a_repeated_run_has_the_same_tables(tmp_path: Path) -> None:
    first, second = ran(tmp_path), ran(tmp_path, "again")
    files = sorted(path.name for path in (first / "grid").iterdir())
    assert len(files) == 7
    for name in files:
        assert (first / "grid" / name).read_bytes() == (second / "grid" / name).read_bytes()
    assert not compare_runs(first, second).differences
