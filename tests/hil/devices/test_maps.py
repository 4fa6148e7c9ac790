"""Device files of other manufacturers against emulators that behave like the devices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hil.adapter.adapter import Adapter
from hil.devices.file import check_device_file, load_device_file
from hil.devices.points import Quality
from hil.emulators.background import background
from hil.emulators.options import EmulatorOptions, EmulatorRole
from hil.emulators.register_config import EmulatorConfig, load_emulator_config, shipped_configs
from hil.emulators.register_plant import RegisterPlant, RegisterUnit
from hil.modbus.pdu import Table


@dataclass(frozen=True)
class Command:
    """A set-point, the registers that it must leave, and what the device then does.

    Parameters
    ----------
    beyond : A value outside the limits of the file, and what is sent instead.
    words : Registers by address, written down from the manufacturer's document by hand.
    effect : Point and what it reads once the device has followed.
    safe : Registers after the adapter was closed.
    """

    point: str
    value: float
    beyond: tuple[float, float]
    words: dict[int, int]
    effect: tuple[str, float]
    safe: dict[int, int] = field(default_factory=dict)


CASES: dict[str, list[Command]] = {
    "solaredge": [
        # 25.0 is 0x41C80000, 100.0 is 0x42C80000; the low word comes first
        Command("w_limit_pct", 25, (120, 100), {0xF322: 0, 0xF323: 0x41C8, 0xF300: 1, 0xF310: 60,
                0xF311: 0}, ("p_w", 2500), {0xF322: 0, 0xF323: 0x42C8}),
        Command("var_set_pct", -44, (-60, -44), {0xF324: 0, 0xF325: 0xC230}, ("q_var", -4400),
                {0xF324: 0, 0xF325: 0}),
    ],
    "fronius": [
        # base 40000: model 103 at 40069, 120 at 40121, 121 at 40149,
        # 122 at 40181, 123 at 40227, 124 at 40253
        Command("w_limit_pct", 40, (-5, 0), {40232: 4000, 40234: 60, 40236: 1}, ("p_w", 3200),
                {40232: 10000}),
        Command("discharge_limit_pct", 30, (101, 100), {40265: 3000}, ("soc_pct", 50),
                {40265: 10000}),
    ],
    "sma": [
        Command("w_set_w", 1200, (-3000, -2500), {40149: 0, 40150: 1200, 40151: 0, 40152: 802},
                ("p_w", 1200), {40151: 0, 40152: 803}),
    ],
    "kostal": [  # -1500.0 is 0xC4BB8000
        Command("w_set_w", -1500, (9000, 5000), {1034: 0x8000, 1035: 0xC4BB}, ("p_w", -1500),
                {1034: 0, 1035: 0}),
    ],
    "huawei": [
        Command("w_limit_pct", 35.5, (-1, 0), {40125: 355}, ("p_w", 3550), {40125: 1000}),
        Command("var_set_pct", -20, (60, 44), {40123: 0x10000 - 200}, ("q_var", -2000), {40123: 0}),
    ],
    "goodwe": [
        Command("discharge_w", 1800, (7000, 5000), {47511: 12, 47512: 1800}, ("p_w", 1800),
                {47511: 1}),
    ],
    "growatt": [
        Command("w_limit_pct", 40, (140, 100), {2: 0, 3: 40}, ("p_w", 2400), {3: 100}),
    ],
    "sungrow": [  # one less than in the document
        Command("discharge_w", 2000, (-5, 0), {13049: 2, 13050: 0xBB, 13051: 2000}, ("p_w", 2000),
                {13049: 0, 13050: 0xCC}),
    ],
    "victron": [  # the set-point is an import: -1500 is 0xFFFFFA24
        Command("w_set_w", 1500, (-7000, -5000), {2716: 0xFFFF, 2717: 0xFA24}, ("p_w", 1500),
                {2716: 0, 2717: 0}),
    ],
    "daikin": [
        Command("cool_set_c", 21.5, (35, 30), {1: 2150}, ("cool_set_c", 21.5), {1: 2400}),
        Command("on", 0, (0, 0), {5: 0}, ("on", 0), {5: 1}),
    ],
}  # fmt: skip


def quick(name: str) -> EmulatorConfig:
    """Return a configuration whose device follows at once."""
    config = load_emulator_config(name)
    physics = config.physics.model_copy(update={"time_constant_s": 0.02})
    return config.model_copy(update={"physics": physics})


@contextmanager
def driven(
    name: str, tmp_path: Path, speed: float = 1.0, **changes: Any
) -> Iterator[tuple[Adapter, RegisterUnit]]:
    """Serve a device and connect an armed adapter with its shipped file."""
    config = quick(name)
    plant = RegisterPlant(config)
    options = EmulatorOptions(EmulatorRole.device, config=name, step_s=0.02 * speed, speed=speed)
    with background(plant, options) as devices:
        spec = load_device_file(config.device).model_copy(update={"poll_s": 0.1, **changes})
        spec = spec.at(name=name, host="127.0.0.1", port=devices.ports[0])
        adapter = Adapter([spec], armed={name}, audit=tmp_path / "audit.jsonl", watchdog=False)
        try:
            adapter.start(wait_s=5.0)
            yield adapter, plant.units[0]
        finally:
            adapter.close()


def holding(unit: RegisterUnit, addresses: dict[int, int]) -> dict[int, int]:
    return {a: unit.bank.word(Table.holding, a) for a in addresses}


def wait_for(adapter: Adapter, name: str, point: str, value: float) -> None:
    for _ in range(100):
        if abs(adapter.poll()[name][point].value - value) <= 1e-3 * max(1.0, abs(value)):
            return
        time.sleep(0.02)
    pytest.fail(f"{point} is {adapter.poll()[name][point]}, expected {value:g}")


@pytest.mark.parametrize("name", shipped_configs())
def test_map_is_driven_within_its_limits_and_ends_safe(name: str, tmp_path: Path) -> None:
    config = load_emulator_config(name)
    assert check_device_file(config.device) == []
    spec = load_device_file(config.device)
    assert "not tried on the device" in Path(config_file(config.device)).read_text("utf-8")
    with driven(name, tmp_path) as (adapter, unit):
        now = adapter.poll()[name]
        unread = {n for n, p in spec.points.items() if getattr(p, "write_only", False)}
        bad = {n: r for n, r in now.items() if r.quality is not Quality.GOOD and n not in unread}
        assert not bad
        for c in CASES[name]:
            beyond, sent = c.beyond
            for value in (beyond, c.value):
                adapter.command(name, c.point, value)
                assert adapter.flush(timeout_s=10.0)
                if value == beyond and c.point not in unread:
                    wait_for(adapter, name, c.point, sent)
            assert holding(unit, c.words) == c.words
            wait_for(adapter, name, *c.effect)
        assert not [e for e in adapter.events() if e.kind in ("fault", "failed", "refused")]
        assert adapter.close()
        for c in CASES[name]:
            assert holding(unit, c.safe) == c.safe


@pytest.mark.parametrize("name", ["kostal", "victron"])
def test_a_set_point_that_the_device_forgets_is_written_again(name: str, tmp_path: Path) -> None:
    """The device's minute passes in a second; so does the file's time to write again."""
    spec, speed = load_device_file(name), 60.0
    point = spec.points["w_set_w"]
    assert point.rewrite_s is not None
    points = spec.points | {"w_set_w": point.model_copy(update={"rewrite_s": 0.1})}
    with driven(name, tmp_path, speed, points=points) as (adapter, unit):
        held = next(r for r, s in unit.bank.config.registers.items() if s.reverts)
        adapter.command(name, "w_set_w", 1000)
        assert adapter.flush(timeout_s=10.0)
        began_s, values = unit.time_s, set()
        while unit.time_s - began_s < 90.0:
            values.add(abs(unit.bank.get(held)))
            adapter.heartbeat()
            time.sleep(0.01)
        assert values == {1000.0}
        assert not [e for e in adapter.events() if e.kind == "fault"]


def test_the_sign_of_a_power_comes_from_another_register(tmp_path: Path) -> None:
    with driven("sungrow", tmp_path) as (adapter, unit):
        for register, value in (("ems_mode", 2), ("command", 0xAA), ("forced_w", 1500)):
            unit.bank.put(register, value)
        wait_for(adapter, "sungrow", "p_w", -1500)
        assert unit.bank.word(Table.input, 13021) == pytest.approx(1500, abs=2)


def config_file(device: str) -> Path:
    from hil.devices.file import find_device_file

    return find_device_file(device)
