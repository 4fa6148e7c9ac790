"""Thermostats in the market: what the guard lets pass, and emulated ones beside simulated ones."""

from __future__ import annotations

import json
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario

pytestmark = pytest.mark.scenario

WILD = '''
import numpy as np
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep


class WildMarket:
    """Asks for 24 degrees, then for 60, NaN and 5, each for 40 s."""

    def __init__(self, site, hosted):
        self.inputs = self.links_in = self.links_out = ()
        self.outputs = (Port("cool_set_c", "degC", tuple(d.name for d in site.ders), np.nan),)

    @classmethod
    def agents(cls, site):
        return ("market",)

    def step(self, time_s, inputs, mail):
        asked_c = (24.0, 60.0, np.nan, 5.0)[min(int(time_s // 40.0), 3)]
        return ControllerStep({"cool_set_c": np.full(len(self.outputs[0].labels), asked_c)})
'''


def test_the_guard_holds_its_limits_whatever_the_market_says(tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(WILD, encoding="utf-8")
    shipped = Path(load_scenario("hil-thermostats-ieee123").given.path)
    path = tmp_path / "wild.yaml"
    path.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    market = "{kind: controller, controller: 'wild:WildMarket', ders: ['house_*']}"
    scenario = load_scenario(
        path,
        [
            f"federates.operator={market}",
            "time.duration_s=160",
            "connections=[operator.cool_set_c -> houses.cool_set_c, "
            "houses.p_kw -> feeder.p_meas_kw]",
        ],
    )
    result = run(scenario, out=tmp_path / "run", placement="single")
    log = (result.folder / "houses.audit.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines()]
    mine = [line for line in lines if line["point"] == "cool_set_c"]
    told = Counter(
        (str(x["asked"]), x["verdict"], x["sent"]) for x in mine if x["verdict"] != "safe"
    )
    assert told["24.0", "written", 24.0] == 20
    assert told["60.0", "clamped", 30.0] == 20, "the device file allows 18 to 30"
    assert told["nan", "refused", None] >= 20
    # 18 degrees, the limit, lie below the heating set-point: the thermostats themselves refuse.
    assert not [x for x in mine if x["asked"] == 5.0 and x["verdict"] in ("written", "clamped")]
    stood_c = [x["read_back"] for x in mine if x["verdict"] in ("written", "clamped", "safe")]
    assert set(stood_c) == {24.0, 30.0}
    # NaN ends in the safe state, and so does 5: the houses go on, cooled to 24 degrees.
    last = {x["device"]: x["read_back"] for x in mine}
    assert set(last.values()) == {24.0}
    _, labels, quality = read_signal(result.folder / "signals", "houses.quality")
    assert len(labels) == 20
    assert (quality == 0.0).all()


def attacked(tmp_path: Path, name: str, kind: str, defence: str | None) -> RunResult:
    """Run the shipped scenario with less before and after the attack."""
    scenario = load_scenario(
        "hil-market-ieee123",
        [
            f"federates.thermostats.devices={{'house_*_3_10': {kind}}}",
            "time.duration_s=600",
            "attack.steps.0.trigger.at_s=350",
        ],
        defence=defence,
    )
    return run(scenario, out=tmp_path / name, placement="single")


def test_thermostats_answer_attack_1a_through_the_market(tmp_path: Path) -> None:
    """Thesis, hardware test 1a: a set-point within the minute, 0.2 to 0.5 kW less per house."""
    alone = attacked(tmp_path, "alone", "simulated", None)
    helped = attacked(tmp_path, "helped", "emulated", "mitigated")
    kw = {
        port: [read_signal(r.folder / "signals", port)[2] for r in (alone, helped)]
        for port in ("thermostats.p_kw", "thermostats.temp_c", "feeder.import_kw", "feeder.p_kw")
    }
    log = (helped.folder / "events.jsonl").read_text(encoding="utf-8")
    said = [json.loads(line) for line in log.splitlines()]
    mine = {e["event"]: e["time_s"] for e in reversed(said) if e["federate"] == "resilience"}
    assert 350.0 <= mine["import_off_schedule"] <= 370.0
    order = int(mine["weights_committed"] // 10.0) + 1
    assert order < 47
    # Until the order emulated thermostats do what simulated ones do, but for their registers.
    for port, resolution in (("thermostats.p_kw", 0.5e-3), ("thermostats.temp_c", 0.05)):
        one, other = (values[:order] for values in kw[port])
        assert np.abs(one - other).max() <= resolution + 1e-9, port
    gave = kw["feeder.p_kw"][1] - kw["feeder.p_kw"][0]
    labels = read_signal(alone.folder / "signals", "feeder.p_kw")[1]
    thermostat = [fnmatchcase(x, "house_*_3_10") for x in labels]
    answers = np.flatnonzero(gave[order:, thermostat].max(axis=1) > 0.1)
    assert answers[0] <= 6, "within the minute"
    assert gave[order + 6 :, thermostat].mean() > 0.1
    fall = kw["feeder.import_kw"][0] - kw["feeder.import_kw"][1]
    # A meter that is off by 0.5 W moves its home's score by a thousandth, and with it what the
    # 94 homes that may be moved, by about 1 kW each, share.
    assert np.abs(fall[:order]).max() < (20 * 0.5e-3 + 94 * 1e-3) * 1.1
    assert fall[order + 6 :].mean() > 20.0
    # Neither guard nor thermostat was asked for what it refuses.
    assert helped.metrics["commands_refused_count"] == 0.0
