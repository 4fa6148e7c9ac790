"""The DER-rich table against the thesis' numbers, and against its own generator."""

from collections import Counter
from importlib import resources

import numpy as np
import pytest
from _der_rich_table import SEED, generate, to_csv

from grid_models.catalog import load_feeder
from grid_models.ders.plant import DerFleet
from grid_models.ders.rich_feeder import TABLE, ders_from_table, shipped_ders
from grid_models.ders.rules import DerError, load_kw_by_node
from grid_models.profiles.table import Profiles


@pytest.fixture(scope="module")
def ieee123():
    return load_feeder("ieee123")


@pytest.fixture(scope="module")
def table():
    return shipped_ders()


def of(table, kind):
    return [d for d in table if d.kind == kind]


def test_generating_from_the_seed_gives_the_shipped_file(ieee123, table):
    made = generate(ieee123, SEED)
    shipped = resources.files("grid_models").joinpath("data", TABLE)
    assert to_csv(made) == shipped.read_text(encoding="utf-8")
    assert table == made


def test_numbers_of_the_thesis(table):
    # Thesis, "Our modified DER-rich 123-node system": number, capacity, primary feeder nodes.
    houses, tanks = of(table, "house"), of(table, "flexible_load")
    pv, batteries = of(table, "pv"), of(table, "battery")
    assert sum(d.count for d in houses) == 1008
    assert len({d.bus for d in houses}) == 85
    assert sum(d.count for d in tanks) == 348
    assert (len(pv), len({d.bus for d in pv})) == (207, 68)
    assert sum(d.kva for d in pv) == pytest.approx(880.84, abs=1e-9)
    assert (len(batteries), len({d.bus for d in batteries})) == (173, 63)
    assert sum(d.kva for d in batteries) == pytest.approx(865.0, abs=1e-9)
    assert len({d.bus for d in pv + batteries}) == 82
    # "~44%" of the spot loads' 3985.7 kVA: only totals give this.
    share = sum(d.kva for d in pv + batteries) / 3985.7
    assert share == pytest.approx(0.44, abs=0.005)


def test_units_stand_on_houses_that_exist(ieee123, table):
    homes = {(d.bus, d.phases): d.count for d in of(table, "house")}
    nodes = {(b, (p,)) for b, by in load_kw_by_node(ieee123).items() for p in by}
    assert set(homes) == nodes
    for kind in ("pv", "battery", "flexible_load"):
        held = Counter()
        for d in of(table, kind):
            held[d.bus, d.phases] += d.count
        assert all(n <= homes[place] for place, n in held.items())
    assert len({d.name.lower() for d in table}) == len(table)
    assert not any("." in d.name for d in table)


def test_sizes_are_those_of_homes(table):
    assert all(4.0 * d.count <= -d.p_min_kw <= 10.0 * d.count for d in of(table, "house"))
    assert all(2.0 < d.kva < 6.5 and d.p_max_kw < d.kva for d in of(table, "pv"))
    assert {(d.kva, d.energy_kwh) for d in of(table, "battery")} == {(5.0, 13.5)}


def test_houses_follow_the_load(ieee123, table):
    load = load_kw_by_node(ieee123)
    for d in of(table, "house"):
        assert d.count == pytest.approx(1008 * load[d.bus][d.phases[0]] / 3490.0, abs=1.0)


def test_another_seed_gives_another_table_of_the_same_proportions(ieee123, table):
    other = generate(ieee123, 7)
    assert other != table
    assert sum(d.kva for d in of(other, "pv")) == pytest.approx(880.84, abs=1e-9)
    assert len({d.bus for d in of(other, "pv") + of(other, "battery")}) == 82


def test_a_day_of_the_whole_feeder_is_plausible(table):
    day = Profiles.generate("clear", seed=1, step_s=300)
    fleet = DerFleet(table)
    total = np.zeros((len(day), 4))
    kinds = np.array([("house", "flexible_load", "pv", "battery").index(d.kind) for d in table])
    for k in range(len(day)):
        p, _ = fleet.step(
            300.0, day["irradiance_pu"][k], day["temp_c"][k], load_pu=day["load_pu"][k]
        )
        total[k] = np.bincount(kinds, p, 4)
    # 791 kW of PV (880.84 / 1.1136) at full sun; batteries idle without set-points.
    assert total[:, 2].max() == pytest.approx(880.84 / 1.11359, rel=0.01)
    assert (total[:, 3] == 0.0).all()
    # Demand stays below the 3490 kW that the spot loads draw, and is not nothing.
    assert 500.0 < -(total[:, 0] + total[:, 1]).min() < 3490.0
    assert ((fleet.temp_c > 17.0) & (fleet.temp_c < 27.0)).all()


def test_an_edited_copy_can_be_read_and_faults_are_placed(tmp_path, table):
    file = tmp_path / "mine.csv"
    file.write_text(to_csv(table[:3]))
    assert ders_from_table(file) == table[:3]
    good = file.read_text()
    for old, new, message in (
        ("house,1", "huose,1", r"row 2.*did you mean 'house'"),
        ("name,kind", "name,knd", r"'kind' is missing.*did you mean 'knd'"),
        ("-80.82", "much", r"row 2, column 'p_min_kw'.*'much'"),
        ("house_1_1,house,1,1,", "house_1_1,house,1,14,", r"'14' are no phases"),
    ):
        assert old in good
        file.write_text(good.replace(old, new))
        with pytest.raises(DerError, match=message):
            ders_from_table(file)
    with pytest.raises(DerError, match="does not exist"):
        ders_from_table(tmp_path / "none.csv")


def test_a_small_feeder_is_refused():
    with pytest.raises(DerError, match="at least 82"):
        generate(load_feeder("ieee13"))
