import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.catalog import load_feeder, shipped_folder
from grid_models.feeder.tables import NEAR_POINT, feeder_from_tables

FT_PER_MILE = 5280.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "mine"
    shutil.copytree(shipped_folder("ieee13"), target)
    return target


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_ieee123_totals_are_the_documents_totals() -> None:
    # IEEE 123-node document, "Spot Loads", total: 3490.0 kW, 1920.0 kvar; capacitors 750 kvar.
    feeder = load_feeder("ieee123")
    assert sum(load.kw for load in feeder.loads) == pytest.approx(3490.0)
    assert sum(load.kvar for load in feeder.loads) == pytest.approx(1920.0)
    assert sum(bank.kvar for bank in feeder.capacitors) == pytest.approx(750.0)
    assert len({load.bus for load in feeder.loads}) == 85
    assert len(feeder.lines) == 118
    assert {r.name: r.tap_step for r in feeder.regulators} == {
        "rg1": 7, "rg2a": -1, "rg3a": 0, "rg3c": -1, "rg4a": 8, "rg4b": 1, "rg4c": 5,
    }  # fmt: skip


def test_ieee13_totals_are_the_documents_totals() -> None:
    # IEEE 13-node document: spot loads 3266 kW, 1986 kvar, distributed load 200 kW, 116 kvar.
    feeder = load_feeder("ieee13")
    assert sum(load.kw for load in feeder.loads) == pytest.approx(3466.0)
    assert sum(load.kvar for load in feeder.loads) == pytest.approx(2102.0)
    near = [load for load in feeder.loads if load.bus == "632_671_mid"]
    assert sum(load.kw for load in near) == pytest.approx(200.0 * 2.0 / 3.0)


def test_cut_segment_keeps_its_impedance() -> None:
    lines = {line.name: line for line in load_feeder("ieee13").lines}
    near, far = lines["line_632_632_671_mid"], lines["line_632_671_mid_671"]
    assert near.length_ft == pytest.approx(2000.0 * NEAR_POINT)
    # 2000 ft of configuration 601, phase A-A 0.3465 + j1.0179 ohm per mile (IEEE document).
    whole = (0.3465 + 1.0179j) * 2000.0 / FT_PER_MILE
    assert near.z_ohm[0, 0] + far.z_ohm[0, 0] == pytest.approx(whole)


def test_line_matrix_takes_the_phases_of_its_configuration() -> None:
    line = next(line for line in load_feeder("ieee13").lines if line.name == "line_632_645")
    assert line.phases == (2, 3)
    # Configuration 603 B-C: 0.2066 + j0.4591 ohm per mile, 500 ft (IEEE document).
    assert line.z_ohm[0, 1] == pytest.approx((0.2066 + 0.4591j) * 500.0 / FT_PER_MILE)
    assert np.array_equal(line.z_ohm, line.z_ohm.T)


def test_every_element_of_a_shipped_feeder_is_on_a_bus_that_has_its_phases() -> None:
    for name in ("ieee13", "ieee123"):
        feeder = load_feeder(name)
        assert next(iter(feeder.buses)) == feeder.source.bus
        for edge in (*feeder.lines, *feeder.regulators):
            for bus in (edge.from_bus, edge.to_bus):
                assert set(edge.phases) <= set(feeder.buses[bus].phases)
        assert all(set(load.phases) <= set(feeder.buses[load.bus].phases) for load in feeder.loads)
        low = {"ieee13": "634", "ieee123": "610"}[name]
        assert feeder.buses[low].base_kv_ln == pytest.approx(0.48 / np.sqrt(3.0))


def test_open_stub_switches_are_left_out_and_ties_kept() -> None:
    feeder = load_feeder("ieee123")
    assert {s.name for s in feeder.switches if not s.closed} == {"sw7", "sw8"}
    assert not {"251", "451", "350"} & set(feeder.buses)


@pytest.mark.parametrize(
    ("table", "old", "new", "parts"),
    [
        ("lines", "633,ABC,500,602", "633,ABC,500,6O2", ["row 4", "config", "602"]),
        ("lines", "633,ABC,500,602", "633,ABC,nan,602", ["row 4", "length_ft", "at least 0"]),
        ("lines", "633,ABC,500,602", "633,ABC,-1,602", ["row 4", "length_ft"]),
        ("lines", "633,ABC,500,602", "633,ABX,500,602", ["row 4", "phases", "ABC"]),
        ("lines", "633,ABC,500,602", "633,ABC,500", ["row 4", "4 cells", "expected 5"]),
        ("lines", "650r,632", "650x,632", ["row 2", "'650x' is not connected", "mean '650'"]),
        ("lines", "645,646,BC,300,603", "632,645,BC,300,603", ["row 5", "twice", "row 3"]),
        ("lines", "645,646,BC,300,603", "645,646,AB,300,603", ["row 5", "phases", "phase A"]),
        ("lines", "645,646", "645,645", ["row 5", "its own start"]),
        ("lines", "length_ft", "length", ["row 1", "'length_ft' is missing", "mean 'length'"]),
        ("line_configs", "601,A,B,", "601,A,A,", ["row 3", "given twice"]),
        ("spot_loads", "652,Y,Z", "652,Y,ZZ", ["row 5", "model", "PQ, I, Z"]),
        ("spot_loads", "652,Y,Z", "6520,Y,Z", ["row 5", "bus '6520' is unknown", "mean '652'"]),
        ("spot_loads", "652,Y,Z", "611,Y,Z", ["row 5", "no phase A", "phases C"]),
        ("spot_loads", "128,86", "inf,86", ["row 5", "kw_a"]),
        ("spot_loads", "128,86", ",86", ["row 5", "kw_a", "empty"]),
        ("spot_loads", "652,Y,Z,128", "6 52,Y,Z,128", ["row 5", "not a usable name"]),
        ("regulators", "122,10", "122,17", ["published_tap_step", "-16 to 16"]),
        ("regulators", "122,10", "122,1.5", ["published_tap_step", "integer"]),
        ("regulators", "650-632,A,A", "650-632,A,B", ["monitored_phase"]),
        ("regulators", "rg1b", "rg1a", ["row 3", "'rg1a' is defined twice"]),
        ("transformers", ",3,500,", ",1,500,", ["row 3", "phases"]),
        ("transformers", ",0.48,", ",0,", ["row 3", "kv_ll_low", "over 0"]),
        ("capacitors", "611,", "612,", ["capacitors.csv, row 3", "'612' is unknown"]),
        ("switches", "closed", "shut", ["normal_state", "closed, open"]),
        ("distributed_loads", "632,671", "632,680", ["no line segment '632-680'", "'632-6"]),
        ("bus_coords", "646,", "645,", ["listed twice"]),
    ],
)  # fmt: skip
def test_bad_cell_is_named(folder: Path, table: str, old: str, new: str, parts: list[str]) -> None:
    edit(folder / f"{table}.csv", old, new)
    with pytest.raises(FeederError) as caught:
        feeder_from_tables(folder)
    for part in [f"{table}.csv", *parts]:
        assert part in str(caught.value)


def test_bad_files_are_named(folder: Path) -> None:
    with pytest.raises(FeederError, match=r"does not exist.*did you mean 'mine'"):
        feeder_from_tables(folder.parent / "mime")
    (folder / "switchs.csv").write_text("a\n")
    with pytest.raises(FeederError, match=r"switchs\.csv: no table.*did you mean 'switches'"):
        feeder_from_tables(folder)
    (folder / "switchs.csv").unlink()
    for content, words in ((b"", "is empty"), (b"\x00\xff\x00", "not text"), (b"\xff\xfe", "text")):
        (folder / "lines.csv").write_bytes(content)
        with pytest.raises(FeederError, match=rf"lines\.csv.*{words}"):
            feeder_from_tables(folder)
    (folder / "lines.csv").unlink()
    with pytest.raises(FeederError, match=r"lines\.csv: the file does not exist"):
        feeder_from_tables(folder)


def test_source_must_be_clear(folder: Path) -> None:
    (folder / "transformers.csv").write_text(
        "\n".join(
            row
            for row in (folder / "transformers.csv").read_text().splitlines()
            if not row.startswith("substation")
        )
    )
    with pytest.raises(FeederError, match="voltage of the source is not known"):
        feeder_from_tables(folder)
    assert feeder_from_tables(folder, source_kv_ll=4.16).source.bus == "650"
    with pytest.raises(FeederError, match="did you mean '650'"):
        feeder_from_tables(folder, source_kv_ll=4.16, source_bus="6500")
    edit(folder / "regulators.csv", "rg1b,650,", "rg1b,649,")
    with pytest.raises(FeederError, match="not clear from the tables"):
        feeder_from_tables(folder, source_kv_ll=4.16)


_NAME = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)


@settings(max_examples=25, deadline=None)
@given(names=st.lists(_NAME, min_size=2, max_size=12, unique=True), data=st.data())
def test_any_tree_of_segments_is_walked_from_its_source(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    rows = []
    for i, name in enumerate(names[1:], start=1):
        parent = names[data.draw(st.integers(0, i - 1))]
        ends = (parent, name) if data.draw(st.booleans()) else (name, parent)
        rows.append(f"{ends[0]},{ends[1]},ABC,100,1")
    order = data.draw(st.permutations(rows))
    (folder / "lines.csv").write_text(
        "from_bus,to_bus,phases,length_ft,config\n" + "\n".join(order) + "\n"
    )
    (folder / "line_configs.csv").write_text(
        "config,phase_i,phase_j,r_ohm_per_mile,x_ohm_per_mile,b_microsiemens_per_mile\n"
        "1,A,A,0.4,1,5\n1,B,B,0.4,1,5\n1,C,C,0.4,1,5\n"
    )
    (folder / "spot_loads.csv").write_text(
        "bus,connection,model,kw_a,kvar_a,kw_b,kvar_b,kw_c,kvar_c\n"
    )
    feeder = feeder_from_tables(folder, source_bus=names[0], source_kv_ll=4.16)
    assert next(iter(feeder.buses)) == names[0]
    assert set(feeder.buses) == set(names)
    assert len(feeder.lines) == len(names) - 1
