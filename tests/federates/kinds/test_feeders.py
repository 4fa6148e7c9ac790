"""Many feeders as one federate: sums, the first feeder, groups, a dark source, orders in all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from federates.assembly.federation import Assembly
from federates.core.federate import FloatArray
from federates.core.signals import read_signal
from federates.errors import ScenarioError
from federates.kinds.feeder.federate import Applied
from federates.kinds.feeders.federate import FeedersFederate
from federates.kinds.feeders.fleet import Fleet, Scale, balanced_source
from federates.reports.blocks import Figures, TableBlock, Text
from federates.reports.feeders import feeders_sections
from federates.runs.data import RunData
from federates.runs.runner import RunResult, run
from federates.scenario.schema import Scenario, load_scenario
from grid_models.base.errors import FeederError, PowerFlowError
from grid_models.catalog import open_circuit

TEXT = """\
grid:
  model: ieee13
  tolerance_pu: 1e-9
  ders: [{kind: pv, at: load_phases, fraction: 0.5, kva: 50}]
time: {start_s: 43200, duration_s: 5, step_s: 1}
federates:
  grid: {kind: feeders, count: 6, MORE}
  source:
    kind: signal
    options: {port: volts, unit: pu, labels: ["1", "2", "3"], values: VALUES}
connections: [source.volts -> grid.source_v_pu]
"""
MORE = (
    "spread_pu: 0.2, der_spread_pu: 0.1, sample: [f1, f6], referee: 3, "
    "groups: [{count: 2, taps: {rg1a: 3}, load_scale: 0.5, der_scale: 0}]"
)


def scenario(folder: Path, more: str = "", values: str = "[[0, 1.0]]", *sets: str) -> Scenario:
    path = folder / "s.yaml"
    path.write_text(TEXT.replace("MORE", more).replace("VALUES", values))
    return load_scenario(path, sets)


def signal(result: RunResult, port: str) -> FloatArray:
    return read_signal(result.folder / "signals", f"grid.{port}")[2]


def events(result: RunResult, kind: str) -> list[dict[str, object]]:
    lines = (result.folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def built(folder: Path, more: str = "", *sets: str) -> FeedersFederate:
    federate = Assembly(scenario(folder, more, "[[0, 1.0]]", *sets)).build("grid")
    assert isinstance(federate, FeedersFederate)
    return federate


def stepped(federate: FeedersFederate, source_pu: float) -> dict[str, FloatArray]:
    """Step at the time 0 of the day, whenever it is called."""
    inputs = {port.name: np.full(len(port.labels), port.initial) for port in federate.inputs}
    inputs["source_v_pu"][:] = source_pu
    federate._k = 0
    return dict(federate.step(0.0, inputs, None).outputs)  # type: ignore[arg-type]


VALUES = "[[0, 0.97], [1, 0.1], [2, 1.02]]"
SOURCE_PU = (1.0, 0.97, 0.1, 1.02, 1.02)  # read half a step after


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("feeders")
    return run(scenario(folder, MORE, VALUES), out=folder / "run", placement="single")


def test_totals_are_sums_and_opendss_agrees(whole: RunResult) -> None:
    each = signal(whole, "feeder_import_kw")
    np.testing.assert_allclose(signal(whole, "total_kw")[:, 0], each.sum(axis=1), rtol=1e-12)
    # Demand differs by the seed; feeders of the group have half of it and no DERs.
    assert len(set(each[0].tolist())) == 6
    assert whole.metrics["referee_max_dev_pu"] < 3e-9
    assert not events(whole, "referee_deviation")
    assert whole.metrics["import_peak_mw"] == pytest.approx(1e-3 * each.sum(axis=1).max())
    mwh = 1e-3 * each.sum() / 3600.0
    assert whole.metrics["import_mwh"] == pytest.approx(mwh)
    lit = [k for k, v_pu in enumerate(SOURCE_PU) if v_pu > 0.3]
    assert whole.metrics["feeder_v_min_pu"] == signal(whole, "feeder_v_min_pu")[lit].min()
    assert whole.metrics["feeder_v_max_pu"] == signal(whole, "feeder_v_max_pu").max()


def test_the_first_feeder_is_a_feeder_federate_to_the_last_bit(
    whole: RunResult, tmp_path: Path
) -> None:
    own = scenario(tmp_path, "", VALUES, "federates.grid={kind: feeder}")
    alone = run(own, out=tmp_path / "run", placement="single")
    for port in ("v_pu", "p_kw", "import_kw", "losses_kw"):
        np.testing.assert_array_equal(signal(alone, port), signal(whole, port))
    first = signal(whole, "feeder_import_kw")[:, :1]
    np.testing.assert_array_equal(first, signal(alone, "import_kw"))
    assert whole.metrics["representative_v_min_pu"] == alone.metrics["v_min_pu"]


def test_sampled_voltages_span_the_extremes(whole: RunResult) -> None:
    _, labels, v_pu = read_signal(whole.folder / "signals", "grid.feeder_v_pu")
    for k, name in ((0, "f1/"), (5, "f6/")):
        own = v_pu[:, [label.startswith(name) for label in labels]]
        np.testing.assert_allclose(own.min(axis=1), signal(whole, "feeder_v_min_pu")[:, k])
        np.testing.assert_allclose(own.max(axis=1), signal(whole, "feeder_v_max_pu")[:, k])
    np.testing.assert_array_equal(v_pu[:, : len(labels) // 2], signal(whole, "v_pu"))


def test_below_a_third_of_the_voltage_all_is_dark_and_comes_back(whole: RunResult) -> None:
    (dark,) = (k for k, v_pu in enumerate(SOURCE_PU) if v_pu < 0.3)
    for port in ("v_pu", "p_kw", "import_kw", "total_kw", "total_kvar_per_pu", "feeder_v_pu"):
        assert not signal(whole, port)[dark].any()
    assert whole.metrics["feeders_dark_h"] == pytest.approx(1.0 / 3600.0)
    back, last = signal(whole, "total_kw")[dark + 1 :, 0]
    assert back == pytest.approx(last, rel=1e-3)
    assert [e["time_s"] for e in events(whole, "source_lost")] == [float(dark)]
    assert [e["time_s"] for e in events(whole, "source_back")] == [dark + 1.0]
    assert whole.metrics["representative_v_min_pu"] > 0.8
    assert whole.metrics["representative_energy_not_served_kwh"] > 0.1


def test_slopes_are_derivatives_by_the_source_voltage(tmp_path: Path) -> None:
    federate = built(tmp_path, MORE, "grid.source_v_pu=1.03")
    h = 1e-4
    now, up, down = (stepped(federate, 0.98 + d) for d in (0.0, h, -h))
    for port in ("total_kw", "total_kvar"):
        slope = (up[port] - down[port]) / (2.0 * h)
        assert now[f"{port}_per_pu"] == pytest.approx(slope, rel=1e-3)
        assert abs(slope[0]) > 100.0


def test_ten_feeders_are_twice_five(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scale = Scale(rng.uniform(0.3, 1.5, 10), rng.uniform(0.0, 2.0, 10))
    circuit = open_circuit("ieee13")
    nothing = np.zeros(0)
    applied = Applied(circuit.load_kw, circuit.load_kvar, nothing, nothing, dark=False)

    def solved(rows: slice) -> FloatArray:
        labels = [f"f{k}" for k in range(10)][rows]
        fleet = Fleet(labels, scale.at(rows), [len(labels)], lambda _: circuit)
        state = fleet.solve(applied, 0.99)
        return np.column_stack(
            [state.import_kva, state.slope_kva_per_pu, state.v_min_pu, state.v_max_pu]
        )

    parts = np.concatenate([solved(slice(0, 5)), solved(slice(5, 10))])
    np.testing.assert_allclose(parts, solved(slice(0, 10)), rtol=1e-7)


def test_orders_and_attacks_act_in_all_feeders(tmp_path: Path) -> None:
    attack = tmp_path / "attack.yaml"
    attack.write_text(
        "id: a\nsteps:\n"
        "  - {id: cut, layer: physical, trigger: {at_s: 0.5}, duration_s: 1,\n"
        "     action: {kind: trip}, target: {elements: [line.line_632_632_671_mid]}}\n"
        "  - {id: more, layer: physical, trigger: {at_s: 2.5}, duration_s: 1,\n"
        "     action: {kind: load, kw: 40}, target: {elements: [load.*]}}\n"
    )
    path = tmp_path / "s.yaml"
    scenario(tmp_path, "referee: 2")
    result = run(load_scenario(path, attack=str(attack)), out=tmp_path / "run", placement="single")
    each = signal(result, "feeder_import_kw")
    # All feeders are equal here: what the first one shows in OpenDSS, the others show in arrays.
    np.testing.assert_allclose(each, each[:, :1] * np.ones(6), rtol=1e-6)
    assert each[1, 0] < 0.7 * each[0, 0]
    assert each[3, 0] > each[2, 0] + 40.0
    assert result.metrics["referee_max_dev_pu"] < 3e-9


def test_taps_that_are_commanded_move_in_all_feeders(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    scenario(tmp_path)
    text = path.read_text().replace("port: volts, unit: pu", "port: tap_set, unit: step")
    text = text.replace('["1", "2", "3"]', "[rg1b]").replace("[[0, 1.0]]", "[[0, 0], [2, 5]]")
    path.write_text(
        text.replace("source.volts -> grid.source_v_pu", "source.tap_set -> grid.tap_set")
    )
    result = run(load_scenario(path), out=tmp_path / "run", placement="single")
    for port in ("feeder_import_kw", "feeder_v_min_pu", "feeder_v_max_pu"):
        each = signal(result, port)
        np.testing.assert_allclose(each, each[:, :1] * np.ones(6), rtol=1e-6)
    v_pu = signal(result, "v_pu")
    assert np.abs(v_pu[-1] - v_pu[1]).max() > 0.01


@pytest.mark.parametrize(
    ("more", "sets", "message"),
    [
        ("groups: [{count: 6}]", (), r"groups: 6 feeders in groups; .* less than count = 6"),
        ("groups: [{count: 2, taps: {rg9: 1}}]", (), r"taps\.rg9: no regulator .*mean 'rg1c'"),
        ("sample: [f3, f7]", (), r"sample\[1\]: no feeder is called 'f7'; expected f1 to f6"),
        (
            "",
            (
                "connections=[{source: source.volts, target: grid.source_v_pu, "
                'map: {"1": "1", "2": "2"}}]',
            ),
            r"connections.*: the map gives no phase 3 of the source; expected all phases, 1, 2, 3",
        ),
        ("", ("grid.regulators=auto",), "regulators=auto: not possible with kind 'feeders'"),
        ("", ("grid.grid_forming={p_max_kw: 9000}",), r"grid_forming=.*: not possible"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    tmp_path: Path, more: str, sets: tuple[str, ...], message: str
) -> None:
    with pytest.raises((ScenarioError, FeederError), match=message):
        built(tmp_path, more, *sets)


def test_a_feeder_without_a_solution_is_an_error_that_names_it() -> None:
    circuit, nothing = open_circuit("ieee13"), np.zeros(0)
    scale = Scale(np.array([1.0, 1.0, -20.0]), np.ones(3))  # one that feeds 70 MW back
    fleet = Fleet(("f1", "f2", "f3"), scale, [3], lambda _: circuit)
    applied = Applied(circuit.load_kw, circuit.load_kvar, nothing, nothing, dark=False)
    with pytest.raises(PowerFlowError, match=r"1 of 3 feeders did not converge: f3.*-20, of f3"):
        fleet.solve(applied, 1.0)


def test_slopes_hold_while_little_changes() -> None:
    circuit, nothing = open_circuit("ieee13"), np.zeros(0)
    scale = Scale(np.linspace(0.5, 1.0, 3), np.ones(3))
    fleet = Fleet(("f1", "f2", "f3"), scale, [3], lambda _: circuit)
    applied = Applied(circuit.load_kw, circuit.load_kvar, nothing, nothing, dark=False)
    slopes = [
        fleet.solve(applied, v_pu).slope_kva_per_pu.copy() for v_pu in (1.0, 1.001, 1.01, 1.0)
    ]
    np.testing.assert_array_equal(slopes[0], slopes[1])
    assert np.abs(slopes[2] / slopes[1] - 1.0).max() > 1e-3
    # Voltages are solved to 1e-8 pu and slopes in single precision.
    np.testing.assert_allclose(slopes[3], slopes[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("v_pu", "deg"),
    [
        ([1.0, 1.0, 0.9], [np.nan] * 3),
        ([1.0, np.nan, np.nan], [np.nan] * 3),
        ([1.0] * 3, [0.0] * 3),
    ],
)
def test_a_source_that_is_not_balanced_is_refused(v_pu: list[float], deg: list[float]) -> None:
    with pytest.raises(FeederError, match=r"grid: the phases of the source are not alike"):
        balanced_source(np.array(v_pu), np.array(deg), "grid")


def test_a_source_that_is_turned_as_a_whole_is_balanced() -> None:
    assert balanced_source(np.full(3, 0.98), np.array([10.0, -110.0, 130.0]), "grid") == 0.98
    assert np.isnan(balanced_source(np.full(3, np.nan), np.full(3, np.nan), "grid"))


def test_the_page_shows_how_feeders_differ(whole: RunResult) -> None:
    (section,) = feeders_sections(RunData(whole.folder))
    assert section.title == "All feeders"
    titles = [d.title for b in section.blocks if isinstance(b, Figures) for d in b.figures]
    assert titles == [
        "Import of all feeders",
        "Reactive import of all feeders",
        "Import per feeder",
        "Lowest voltage in each feeder",
        "Highest voltage in each feeder",
    ]
    (table,) = (block for block in section.blocks if isinstance(block, TableBlock))
    lowest = signal(whole, "feeder_v_min_pu")
    lit = np.where(lowest > 0.0, lowest, np.inf).min(axis=0)
    assert table.rows[0][:2] == (f"f{lit.argmin() + 1}", f"{lit.min():.4f}")
    assert len(table.rows) == 6


def test_what_opendss_finds_otherwise_is_told(whole: RunResult, tmp_path: Path) -> None:
    federate = built(tmp_path, "referee: 2")
    told: list[tuple[str, float, str]] = []
    federate._referee.tell = lambda kind, t, feeder, deviation_pu: told.append((kind, t, feeder))
    # Someone else changes a tap of the referee's circuit behind our back.
    federate._fleet_of.groups[0].circuit.set_taps({"rg1a": 0})
    stepped(federate, 1.0)
    assert told == [("referee_deviation", 0.0, "f2"), ("referee_deviation", 0.0, "f6")]
    assert federate.summary()["referee_max_dev_pu"] > 0.01
    # The page begins with it.
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    event = {"event": "referee_deviation", "federate": "grid", "time_s": 2.0, "feeder": "f2"}
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(event | {"deviation_pu": 0.02}) + "\n")
    (section,) = feeders_sections(RunData(folder))
    assert isinstance(section.blocks[0], Text)
    assert "by up to 0.02 pu in f2 at 12:00:02" in section.blocks[0].text
