"""Distributed MPC in whole co-simulations: the load step, the day, and what can go wrong."""

from __future__ import annotations

import filecmp
from pathlib import Path

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.core.sites import GridSite
from federates.errors import ScenarioError
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario
from grid_models.base.errors import FeederateError

pytestmark = pytest.mark.scenario

LIAR = '''
import numpy as np

from controllers.dmpc.circuit import CircuitDmpc
from controllers.core.mail import Mail
from controllers.core.protocol import ControllerStep


class Liar(CircuitDmpc):
    """Cluster c3 adds {lie} to all it says."""

    def step(self, time_s, inputs, mail):
        done = super().step(time_s, inputs, mail)
        if not len(done.mail):
            return done
        links = [self.links_out[i] for i in done.mail.link]
        false = np.repeat([link.source == "c3" for link in links], [link.width for link in links])
        values = done.mail.values + np.where(false, {lie}, 0.0)
        return ControllerStep(done.outputs, Mail(done.mail.link, done.mail.round, values))
'''


def circuit(tmp_path: Path, *overrides: str, placement: str = "single") -> RunResult:
    scenario = load_scenario("dmpc-circuit24", overrides)
    return run(scenario, out=tmp_path / "run", placement=placement)  # type: ignore[arg-type]


def test_load_step_over_mail(tmp_path: Path) -> None:
    # Asked for: settling <= 27 ms, in band <= 8 ms; 20 rounds of mail in each 2 ms sample.
    metrics = circuit(tmp_path).metrics
    assert metrics["settle_ms"] <= 27.0
    assert metrics["in_band_ms"] <= 8.0
    assert metrics["mail_delivered_count"] == 60 * 20 * 6
    assert metrics["local_mode_samples"] == 0.0
    _, _, u = read_signal(tmp_path / "run" / "signals", "plant.i_inj_pu")
    assert np.abs(u).max() <= 0.15


def test_without_control_the_band_is_never_held(tmp_path: Path) -> None:
    result = circuit(
        tmp_path,
        "federates.clusters.controller=averaging-pi",
        "federates.clusters.period_s=0.002",
        "federates.clusters.options={kp: 0, ki: 0}",
        "connections=[plant.v_pu -> clusters.v_pu, clusters.i_set_pu -> plant.i_set_pu]",
    )
    assert result.metrics["v_min_pu"] < 0.86
    assert result.metrics["in_band_ms"] is None


def test_averaging_pi_over_mail_is_slower(tmp_path: Path) -> None:
    connections = "connections=[plant.v_pu -> clusters.v_pu, clusters.i_set_pu -> plant.i_set_pu]"
    metrics = circuit(
        tmp_path,
        "federates.clusters.controller=averaging-pi",
        "federates.clusters.period_s=0.002",
        "federates.clusters.options={kp: 1, ki: 50, ka: 1}",
        connections,
    ).metrics
    assert metrics["settle_ms"] > 50.0
    assert metrics["in_band_ms"] > 12.0


def test_hosting_changes_no_bit(tmp_path: Path) -> None:
    ways = {
        "one": ("single", ()),
        "four": ("single", ("federates.clusters.split=agents",)),
        "threads": ("thread", ("federates.clusters.split=2",)),
    }
    for name, (placement, overrides) in ways.items():
        circuit(tmp_path / name, *overrides, "time.duration_s=0.012", placement=placement)
    signals = [tmp_path / name / "run" / "signals" for name in ways]
    names = [path.name for path in signals[0].iterdir()]
    assert len(names) == 4
    for other in signals[1:]:
        assert filecmp.cmpfiles(signals[0], other, names, shallow=False)[0] == names


@pytest.mark.parametrize(
    ("links", "settle_ms", "band_ms"),
    [
        # Stated degradation, measured 20.2, 43.4, 24.4 and 31.4 ms, in band 5.2 and 8.4 ms.
        ("[{loss: 0.2}]", 27.0, 8.0),
        ("[{latency_s: 0.004}]", 60.0, 10.0),
        ("[{source: c3, loss: 1.0}, {target: c3, loss: 1.0}]", 40.0, 10.0),
        ("[{loss: 1.0}]", 50.0, 10.0),
    ],
)
def test_bad_mail_degrades_and_does_not_diverge(
    tmp_path: Path, links: str, settle_ms: float, band_ms: float
) -> None:
    metrics = circuit(tmp_path, f"links={links}").metrics
    assert metrics["settle_ms"] <= settle_ms
    assert metrics["in_band_ms"] <= band_ms
    assert metrics["v_max_pu"] < 1.05


@pytest.mark.parametrize("lie", ["0.5", "-0.1", "1e9", "float('nan')"])
def test_a_lying_cluster_is_left_alone(tmp_path: Path, lie: str) -> None:
    module = "liar_" + "".join(c if c.isalnum() else "_" for c in lie)
    (tmp_path / f"{module}.py").write_text(LIAR.replace("{lie}", lie))
    source = load_scenario("dmpc-circuit24")._source
    assert source is not None
    scenario_file = tmp_path / "lying.yaml"
    text = Path(source.name).read_text(encoding="utf-8")
    scenario_file.write_text(text.replace("dmpc-circuit\n", f"{module}:Liar\n"))
    result = run(load_scenario(scenario_file), out=tmp_path / "run", placement="single")
    metrics = result.metrics
    # Measured: the band is held again after 71 ms at most, and the voltage never ran away.
    assert metrics["in_band_ms"] is not None
    assert metrics["in_band_ms"] < 90.0
    assert metrics["v_min_pu"] > 0.75
    assert metrics["v_max_pu"] < 1.1
    assert metrics["local_mode_samples"] > 0.0


# --- the feeder ------------------------------------------------------------------------------


def feeder(tmp_path: Path, name: str, *overrides: str, steps: int = 60) -> RunResult:
    scenario = load_scenario(name, ["time.start_s=43200", *overrides])
    return run(scenario, out=tmp_path / "run", placement="single", steps=steps)


def test_an_hour_at_noon(tmp_path: Path) -> None:
    held = feeder(tmp_path / "a", "dmpc-ieee123").metrics
    free = feeder(
        tmp_path / "b", "dmpc-ieee123", "federates={feeder: {kind: feeder}}", "connections=[]"
    ).metrics
    assert free["out_of_band_node_hours"] > 20.0
    assert held["out_of_band_node_hours"] < 0.1 * free["out_of_band_node_hours"]
    assert held["battery_throughput_kwh"] > 0.0


def test_energy_limits_are_kept_by_the_commands_themselves(tmp_path: Path) -> None:
    result = feeder(tmp_path, "dmpc-ieee123", steps=90)
    signals = result.folder / "signals"
    _, names, p = read_signal(signals, "feeder.p_kw")
    times, _, asked = read_signal(signals, "clusters.p_set_kw")
    pick = [i for i, name in enumerate(names) if name.startswith("battery")]
    _, set_names, _ = read_signal(signals, "clusters.p_set_kw")
    order = [list(set_names).index(names[i]) for i in pick]
    acted = asked[np.searchsorted(times, np.arange(1, len(p)) * 60.0) - 1][:, order]
    # What was asked is what the plant did: no clamp had to act, hence no limit was met.
    assert np.abs(acted - p[1:, pick]).max() < 1e-9
    ders = GridSite(load_scenario("dmpc-ieee123")).feeder.ders
    capacity = np.array([der.energy_kwh for der in ders if der.kind == "battery"])
    share = np.minimum(-p[:, pick] * 0.95, -p[:, pick] / 0.95) / 60.0 / capacity
    soc = 0.5 + np.cumsum(share, axis=0)
    assert soc.min() >= 0.1
    assert soc.max() <= 1.0 + 1e-9


@pytest.mark.parametrize("name", ["dmpc-ieee123-loss", "dmpc-ieee123-silent"])
def test_bad_mail_on_the_feeder(tmp_path: Path, name: str) -> None:
    result = feeder(tmp_path, name)
    # The first minutes at noon are far outside, since nothing acts before; then the band is held,
    # in local mode a fifth of the way each minute. Uncontrolled: more than 20 node-hours.
    assert result.metrics["out_of_band_node_hours"] < 15.0
    _, _, v = read_signal(result.folder / "signals", "feeder.v_pu")
    late = v[30:]
    assert ((late < 0.95) | (late > 1.05)).mean() < 0.02
    assert np.abs(np.diff(late, axis=0)).max() < 0.05


@pytest.mark.parametrize("soc", [0.0, 1.0])
def test_a_start_outside_the_energy_limits_only_moves_back(tmp_path: Path, soc: float) -> None:
    # An infeasible start: the controller believes its batteries are outside 0.1 .. 0.9.
    options = "federates.clusters.options"
    result = feeder(
        tmp_path, "dmpc-ieee123", f"{options}.soc_start={soc}", f"{options}.soc_max=0.9", steps=5
    )
    _, names, asked = read_signal(result.folder / "signals", "clusters.p_set_kw")
    p = asked[:, [i for i, name in enumerate(names) if name.startswith("battery")]]
    assert (p <= 1e-9).all() if soc == 0.0 else (p >= -1e-9).all()


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("federates.clusters.options.clusters={x: [c2_0]}", "in no cluster"),
        ("federates.clusters.options.iterations=201", "do not fit"),
        ("federates.plant.options.circuit=feeder25", "did you mean 'feeder24'"),
        ("federates.plant.options.loads=[{bus: c9_9, time_s: 0, load_pu: 1}]", "c9_9"),
        ("federates.plant.options.loads=[{bus: c3_5}]", "loads.*time_s: required key is missing"),
    ],
)
def test_wrong_scenarios(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises((FeederateError, ScenarioError), match=words):
        circuit(tmp_path, override)
    assert not (tmp_path / "run").exists()


MASTER = """
clear
new circuit.village basekv=4.16 pu=1.02 bus1=head
new linecode.main nphases=3 r1=0.2 x1=0.4 r0=0.5 x0=1.0 units=km
new linecode.spur nphases=1 r1=0.3 x1=0.4 units=km
new line.l1 bus1=head bus2=mill linecode=main length=0.5 units=km
new line.l2 bus1=mill bus2=green linecode=main length=0.7 units=km
new line.l3 bus1=green.2 bus2=farm.2 linecode=spur length=0.3 units=km
new transformer.shop phases=3 windings=2 buses=(green shop) conns=(delta wye) kvs=(4.16 0.48)
~ kvas=(150 150) xhl=4
new transformer.house phases=1 windings=3 buses=(farm.2 house.1.0 house.0.2) kvs=(2.4 0.12 0.12)
~ kvas=(25 25 25) xhl=2 xht=2 xlt=1.4
new load.mill bus1=mill kv=4.16 kw=300 kvar=100
new load.shop bus1=shop kv=0.48 kw=60 kvar=20
new load.house1 bus1=house.1 phases=1 kv=0.12 kw=5 kvar=1
new load.house2 bus1=house.2 phases=1 kv=0.12 kw=3 kvar=1
set voltagebases=[4.16 0.48 0.208]
calcvoltagebases
"""


@pytest.mark.parametrize("name", ["dmpc-ieee123", "dmpc-ieee123-loss", "dmpc-ieee123-silent"])
def test_the_scenarios_run_on_a_users_feeder(name: str, tmp_path: Path) -> None:
    # Among others a delta-wye and a split-phase transformer between clusters.
    master = tmp_path / "Master.dss"
    master.write_text(MASTER)
    size = "grid.ders=[{kind: pv, at: load_phases, kw_per_load_kw: 0.8}, {kind: battery, "
    size += "at: load_buses, fraction: 0.5, kw_per_load_kw: 0.2, hours: 2}]"
    scenario = load_scenario(name, [f"grid.model={master}", size])
    result = run(scenario, out=tmp_path / "run", placement="single", steps=4)
    assert result.summary["status"] == "finished"
    _, labels, q = read_signal(tmp_path / "run" / "signals", "clusters.q_set_kvar")
    assert len(labels) == 8 + 2
    assert np.isfinite(q).all()
    assert np.abs(q[-1]).max() > 0.0
