"""``feederate attack mitm``: a man in the middle before one device, without a federation."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from federates.attacks.modbus.layer import resolve_modbus
from federates.commands.terminal import output
from federates.errors import RunError, ScenarioError
from federates.scenario.attack_files import find_attack, load_attack, shipped_attacks
from federates.scenario.attack_schedule import AttackSchedule
from federates.scenario.attack_schema import AttackSpec
from federates.scenario.schema import shipped_dir
from hil.adapter.guard import check_arming
from hil.adapter.sunspec import SunSpecMap, parse_url, scan
from hil.devices.file import find_device_file, load_device_file, shipped_devices
from hil.devices.spec import DeviceSpec
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import FrameRule, Unrestored, WirePoint, points_of, wire_points
from hil.modbus.client import ModbusClient

_TICK_S = 0.02


def mitm_command(
    file: str,
    *,
    listen: str,
    device: str,
    target: str | None = None,
    name: str | None = None,
    pcap: Path | None = None,
    armed: Sequence[str] = (),
    duration_s: float | None = None,
) -> None:
    """Carry out an attack's modbus steps before one device, by the wall clock.

    Times of the attack count from the start of the command. It ends at Ctrl-C, or after
    `duration_s`; what the attack wrote is undone then. The arguments are those of
    `federates.commands.attack_app.attack_mitm`.

    Raises
    ------
    ScenarioError, WiringError, DeviceError: The attack cannot be carried out on this device.
    ArmingError: The device is not on loopback, and not armed.
    RunError: The device did not take back what the attack had written.
    """
    attack = load_attack(find_attack(file, shipped_attacks(shipped_dir()), Path()))
    spec = _device(device, target, name)
    rules = _rules(attack, spec)
    here = _listening(listen)
    if pcap is not None and pcap.suffix != ".pcapng":
        raise ScenarioError(f"found '{pcap}'", where="--pcap", expected="a name ending in .pcapng")
    check_arming([spec], armed)
    points = _points(spec, rules)
    at = spec.connection
    proxy = MitmProxy(
        [MitmTarget(spec.name, at.host, at.port, at.unit, rules, here)],
        n_steps=len(attack.steps),
        seed=attack.seed,
        captures={spec.name: pcap} if pcap is not None else None,
    )
    console = output()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with proxy:
        proxy.learn(spec.name, points)
        place = ":".join(map(str, proxy.places[spec.name]))
        _say(console, f"listening: {place}, before {spec.name} at {at.address}; Ctrl-C ends it")
        _carry_out(attack, proxy, console, duration_s)
    _say_undone(console, spec.name, proxy.unrestored())


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _say_undone(console: Console, device: str, unrestored: Sequence[Unrestored]) -> None:
    """Say that what the attack wrote is undone, or fail with what is not."""
    if not unrestored:
        _say(console, "over; what the attack wrote itself is undone")
        return
    left = "; ".join(f"{o.point} should be {o.value:g} again" for o in unrestored)
    what = f"what the attack wrote is not undone, the device did not acknowledge it: {left}"
    error = RunError(what, federate=device)
    error.where = f"device '{device}'"
    raise error


def _device(device: str, target: str | None, name: str | None) -> DeviceSpec:
    path = find_device_file(device)
    if not path.exists():
        raise ScenarioError(
            f"no such device file: '{device}'",
            where="--device",
            expected="a path, or one of " + ", ".join(shipped_devices()),
        )
    spec = load_device_file(path)
    if target is not None:
        at = parse_url(target, tls=spec.connection.tls)
        spec = spec.at(host=at.host, port=at.port, unit=at.unit if "/" in target else None)
    return spec.at(name=name)


def _listening(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ScenarioError(
            f"'{text}' is not an address to listen at", where="--listen", expected="HOST:PORT"
        )
    return host, int(port)


def _rules(attack: AttackSpec, spec: DeviceSpec) -> Sequence[FrameRule]:
    """Return what the attack does to the device; refuse what needs a federation."""
    for i, step in attack.of_layer("modbus"):
        if np.isnan(AttackSchedule.of(attack).begin_s[i]):
            raise ScenarioError(
                f"step '{step.id}' waits for a signal, and here there are none",
                where=attack.where("steps", i, "trigger"),
                expected="at_s, or a scenario to run the attack on",
            )
    # An attack on several devices is carried out on this one, and only its steps.
    plan, problems = resolve_modbus(
        attack, {spec.name: "real"}, [spec.name], lambda _: spec, whole=False
    )
    mine = plan.rules[spec.name] if plan is not None else ()
    if problems:
        raise ScenarioError("\n  ".join(problems))
    if not mine:
        raise ScenarioError(
            f"the attack does nothing to '{spec.name}'",
            where=attack.where("steps"),
            expected="a modbus step whose target.devices match it, or another name with --as",
        )
    return mine


def _points(spec: DeviceSpec, rules: Sequence[FrameRule]) -> Mapping[str, WirePoint]:
    wanted = points_of(rules)
    models = {
        int(str(spec.points[p].sunspec).partition(".")[0].partition("#")[0])
        for p in wanted
        if spec.points[p].sunspec is not None
    }

    async def find() -> SunSpecMap:
        link = ModbusClient(spec.connection)
        try:
            limit = spec.connection.max_registers
            return await scan(link, spec.connection.unit, wanted=models, max_registers=limit)
        finally:
            link.close()
            await asyncio.sleep(0)

    return wire_points(spec, wanted, asyncio.run(find()) if models else None)


def _carry_out(
    attack: AttackSpec, proxy: MitmProxy, console: Console, duration_s: float | None
) -> None:
    """Let steps begin and end until Ctrl-C or the end of the duration."""
    clock = AttackSchedule.of(attack).clock()
    active = np.zeros(len(attack.steps), dtype=bool)
    over = threading.Event()
    began = time.monotonic()
    modbus = {i for i, _ in attack.of_layer("modbus")}
    try:
        while not over.wait(_TICK_S):
            now_s = time.monotonic() - began
            if duration_s is not None and now_s >= duration_s:
                break
            elapsed_s = clock.elapsed(now_s)
            proxy.set_active(elapsed_s, now_s)
            for i in np.flatnonzero(active != ~np.isnan(elapsed_s)).tolist():
                if i in modbus:
                    word = "ends" if active[i] else "begins"
                    frames = f"; frames: {proxy.acted().get(i, 0)}" if active[i] else ""
                    _say(console, f"{now_s:8.2f} s  {attack.steps[i].id} {word}{frames}")
            active = ~np.isnan(elapsed_s)
            for f in proxy.drain():
                step = attack.steps[f.step].id
                _say(console, f"{f.time_s:8.2f} s  {step}: {f.point} {f.true:g} -> {f.seen:g}")
    except KeyboardInterrupt:
        pass
    if proxy.opaque():
        _say(console, "what passed was not Modbus (TLS?): nothing could be read or changed")
