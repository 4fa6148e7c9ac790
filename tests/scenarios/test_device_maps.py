"""The scenario `device-maps`: devices of ten manufacturers, each driven and left safe."""

from __future__ import annotations

import json

import numpy as np
import pytest

from federates.core.signals import read_signal
from federates.runs.runner import RunResult, run
from federates.scenario.schema import load_scenario
from hil.emulators.register_config import shipped_configs

pytestmark = pytest.mark.scenario
FEDERATES = ("reactive", "limited", "batteries", "forced", "rooms")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run(load_scenario("device-maps"), out=tmp_path_factory.mktemp("maps") / "run")


def last(result: RunResult, name: str) -> dict[str, float]:
    _, labels, values = read_signal(result.folder / "signals", name)
    return dict(zip((label.partition("_")[0] for label in labels), values[-1], strict=True))


def test_every_map_is_in_it_and_always_good(result: RunResult) -> None:
    found = set()
    for federate in FEDERATES:
        _, labels, quality = read_signal(result.folder / "signals", f"{federate}.quality")
        assert not np.any(quality), federate
        found |= {label.partition("_")[0] for label in labels}
    assert found == set(shipped_configs())


def test_the_devices_do_what_they_are_told(result: RunResult) -> None:
    p = {k: v for f in FEDERATES for k, v in last(result, f"{f}.p_kw").items()}
    limited = {"fronius": 3.0, "growatt": 3.0}
    charging = {"sma": -2.0, "kostal": -2.0, "victron": -2.0}
    discharging = {"goodwe": 3.0, "sungrow": 3.0}
    for name, expected in (limited | charging | discharging).items():
        assert p[name] == pytest.approx(expected, abs=0.1), name
    wanted = last(result, "volt_var.q_set_kvar")
    for name, q_kvar in last(result, "reactive.q_kvar").items():
        assert wanted[name] < -0.5
        assert q_kvar == pytest.approx(wanted[name], abs=0.1), name
    _, _, temp_c = read_signal(result.folder / "signals", "rooms.temp_c")
    assert temp_c[11, 0] < temp_c[0, 0]  # cooled, until the set-back at second 12


def test_every_device_ends_safe(result: RunResult) -> None:
    ended = {}
    for federate in FEDERATES:
        for line in (result.folder / f"{federate}.audit.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            assert entry["verdict"] not in ("fault", "failed"), line
            if entry["point"]:
                ended[entry["device"].partition("_")[0]] = entry["verdict"]
    assert ended == dict.fromkeys(shipped_configs(), "safe")
