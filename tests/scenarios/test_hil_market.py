"""Thermostats in the market: what the guard lets pass, and emulated ones beside simulated ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from federates.core.signals import read_signal
from federates.runs.runner import run
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
