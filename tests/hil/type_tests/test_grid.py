"""Grid simulators: real commands, a real side channel, and what goes wrong with them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from hil.emulators.background import background
from hil.emulators.inverter_plant import inverters
from hil.emulators.options import Clock, EmulatorOptions
from hil.type_tests.grid import ChannelGrid, CommandGrid, GridError, open_grid


def command(body: str, *words: str) -> str:
    return shlex.join([sys.executable, "-c", body, *words])


def test_a_command_gets_voltage_frequency_and_power(tmp_path: Path) -> None:
    file = tmp_path / "seen"
    body = f"import sys; open({str(file)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    grid = open_grid(command(body, "{v_pu}", "{f_hz}", "{power_pu}"))
    assert isinstance(grid, CommandGrid)
    assert grid.has_power
    assert not grid.own_time
    grid.set(1.05, 60.036, 0.2)
    assert file.read_text() == "1.05000 60.0360 0.2000\n"


def test_a_command_without_power_says_so() -> None:
    assert not open_grid("set-grid {v_pu} {f_hz}").has_power


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("set-grid {v_pu}", "does not take {f_hz}"),
        ("set-grid {v_pu} {f_hz} {w}", "no value 'w'"),
        ("set-grid '{v_pu} {f_hz}", "not a command"),
        ("127.0.0.1:9", "grid simulator 127.0.0.1:9"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused(target: str, words: str) -> None:
    with pytest.raises(GridError, match=words):
        open_grid(target)


def test_a_command_that_fails_names_itself_and_what_it_said() -> None:
    body = "import sys; sys.exit('the source is off')"
    grid = open_grid(command(body, "{v_pu}", "{f_hz}"))
    with pytest.raises(GridError, match=r"exit code 1: the source is off"):
        grid.set(1.0, 60.0, 1.0)
    with pytest.raises(GridError, match="No such file"):
        open_grid("/no/such/program {v_pu} {f_hz}").set(1.0, 60.0, 1.0)


def test_time_of_the_side_channel_is_ours_or_the_wall_clock() -> None:
    for time, speed in ((Clock.grid, 1.0), (Clock.wall, 100.0)):
        options = EmulatorOptions(grid_port=0, time=time, speed=speed)
        with background(inverters(1, 10.0), options) as devices:
            grid = open_grid(f"127.0.0.1:{devices.grid_port}")
            assert isinstance(grid, ChannelGrid)
            assert grid.own_time == (time is Clock.grid)
            grid.set(1.05, 60.0, 0.5)
            begin = grid.now_s()
            grid.wait(20.0)
            assert grid.now_s() >= begin + 20.0
            with pytest.raises(GridError, match="v_pu"):
                grid.set(3.0, 60.0, 1.0)
            grid.close()
