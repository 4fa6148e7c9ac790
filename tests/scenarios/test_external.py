"""Federates that are not ours, a user's own, and federations that span hosts."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from partners import wait_for  # benchmarks/partners.py

pytestmark = pytest.mark.scenario


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_helics_player_feeds_a_port(ran, example, placement: str) -> None:
    p_kw = ran(example("helics_player.yaml"), placement=placement).values("feeder.p_kw")[:, 0]
    # The schedule: 400 kW from 590 s on, 900 kW from 1190 s on; steps are every 60 s.
    assert (p_kw[10:20] == 400.0).all()
    assert (p_kw[20:] == 900.0).all()
    assert (p_kw[:10] > 1000.0).all()


def test_single_cannot_host_a_foreign_program_and_says_so(ran, example) -> None:
    from federates.errors import ScenarioError

    with pytest.raises(ScenarioError, match=r"federates\.lab: 'lab' is a HELICS program"):
        ran(example("plain_pyhelics.yaml"), placement="single")


def test_a_users_federate_is_found_beside_the_scenario(ran, example) -> None:
    path = example("substation_meter.yaml")
    runs = [ran(path, placement=p) for p in ("single", "thread", "process")]
    assert runs[0].digests() == runs[1].digests() == runs[2].digests()
    import_kw = runs[0].values("feeder.import_kw")[:, 0]
    # Its energy is the sum of what the feeder imported, a minute each.
    metered = runs[0].result.metrics["metered_kwh"]
    assert metered == pytest.approx(import_kw.sum() / 60.0, rel=1e-12)


def test_a_users_option_error_names_the_line(ran, example) -> None:
    from federates.errors import ScenarioError

    path = example("substation_meter.yaml")
    path.write_text(path.read_text().replace("window_s: 900", "window_s: -1"))
    with pytest.raises(ScenarioError, match=r"substation_meter\.yaml:\d+: .*window_s"):
        ran(path)


@pytest.mark.parametrize("controller", ["my_droop:MyDroop", "my_fair_share:FairShare"])
def test_a_users_controller_is_found_beside_the_scenario(ran, example, controller: str) -> None:
    path = example("substation_meter.yaml").with_name("study.yaml")
    path.write_text(f"""\
time: {{start_s: 43200, duration_s: 600, step_s: 60}}
grid:
  model: ieee13
  ders: [{{kind: pv, at: load_phases, total_kw: 3000}}]
federates:
  feeder: {{kind: feeder}}
  mine: {{kind: controller, controller: "{controller}"}}
connections:
  - feeder.v_pu -> mine.v_pu
  - mine.q_set_kvar -> feeder.q_set_kvar
""")
    single = ran(path)
    assert np.abs(single.values("mine.q_set_kvar")[-1]).max() > 1.0
    assert ran(path, placement="process").digests() == single.digests()
    split = ran(path, "federates.mine.split=agents", placement="thread")
    assert split.by_label("v_pu") == single.by_label("v_pu")


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def test_two_hosts_share_one_federation(command_line, forwarded, ran, tmp_path: Path) -> None:
    # Two loopback addresses stand for two hosts; each side is a command line of its own. The second
    # joins over a forwarded port, as through an SSH tunnel.
    port = _free_port("127.0.0.2")
    common = ["run", "voltvar-ieee13", "--steps", "10", "--no-report", "--json"]
    there = command_line(
        [
            *common,
            "--listen",
            f"tcp://127.0.0.2:{port}",
            "--only",
            "feeder",
            "--out",
            str(tmp_path / "there"),
        ]
    )
    wait_for(port, "127.0.0.2")  # a tunnel accepts connections while nobody listens behind it
    with forwarded(port, "127.0.0.2") as near:
        url = f"tcp://127.0.0.1:{near}"
        here = command_line(
            [*common, "--join", url, "--only", "volt_var", "--out", str(tmp_path / "here")]
        )
        for process in (here, there):
            stdout, stderr = process.communicate(timeout=600)
            assert process.returncode == 0, stderr
            assert json.loads(stdout)["status"] == "finished"
    alone = ran("voltvar-ieee13", steps=10)
    for side, names in (("there", "feeder"), ("here", "volt_var")):
        signals = tmp_path / side / "signals"
        files = sorted(p.name for p in signals.iterdir())
        assert files == sorted(n for n in alone.digests() if n.startswith(f"{names}."))
        for name in files:
            assert (signals / name).read_bytes() == (alone.signals / name).read_bytes()


def test_a_host_that_nobody_joins_or_that_finds_no_broker_says_so(
    command_line, tmp_path: Path
) -> None:
    url = f"tcp://127.0.0.3:{_free_port('127.0.0.3')}"
    process = command_line(
        ["run", "voltvar-ieee13", "--steps", "5", "--no-report", "--join", url, "--only",
         "volt_var", "--set", "time.join_timeout_s=3", "--out", str(tmp_path / "lonely")]
    )  # fmt: skip
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 3, stderr
    assert re.search(rf"no HELICS broker answers at {url}", stderr)


def test_unknown_name_after_only(command_line, tmp_path: Path) -> None:
    process = command_line(
        ["run", "voltvar-ieee13", "--steps", "5", "--only", "voltvar", "--listen",
         "tcp://127.0.0.1:23456", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "no federate is called 'voltvar'" in stderr
