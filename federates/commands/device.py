"""``feederate device``: one device outside of any scenario: check, scan, read, watch, write."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from federates.commands.terminal import output
from federates.errors import ScenarioError
from hil.adapter import sunspec
from hil.adapter.adapter import Adapter
from hil.devices.errors import DeviceFileError
from hil.devices.file import check_device_file, find_device_file, load_device_file, shipped_devices
from hil.devices.points import Quality, Reading, Value
from hil.devices.spec import DeviceSpec

_URL = re.compile(r"(?:(?:modbus|tcp)://)?[^\s/:]+:\d{1,5}(?:/\d+)?")
_WRITE_S = 10.0
_STYLES = {Quality.GOOD: "green", Quality.STALE: "yellow", Quality.BAD: "red"}


def check(file: str) -> None:
    """Say that a device file is in order, or everything that is wrong with it."""
    path = _existing(file)
    problems = check_device_file(path)
    if problems:
        raise DeviceFileError(problems)
    spec = load_device_file(path)
    writable = [name for name, point in spec.points.items() if point.writable]
    console = output()
    at = spec.connection
    console.print(f"{path}: in order", markup=False, soft_wrap=True)
    console.print(f"  {spec.name} at {at.host}:{at.port}, unit {at.unit}", markup=False)
    console.print(
        f"  {len(spec.points)} points; SunSpec models {spec.sunspec or '-'}", markup=False
    )
    console.print(f"  may be written once armed: {', '.join(writable) or 'nothing'}", markup=False)


def scan_device(target: str) -> None:
    """Show the SunSpec models of a device."""
    spec = _spec(target)
    found = sunspec.scan_device(spec.connection)
    console = output()
    who = " ".join(found.identity.get(k, "") for k in ("Mn", "Md", "Vr", "SN")).strip()
    console.print(f"{who or 'unnamed device'}, map at {found.base}", markup=False)
    table = _table("model", "address", "registers")
    for model in found.models:
        table.add_row(model.label, str(model.address), str(model.length))
    console.print(table)


def read(target: str, points: tuple[str, ...], *, as_json: bool = False) -> dict[str, Any] | None:
    """Read a device once and show its points; with `as_json` return them."""
    spec = _readable(target)
    with _reader(spec) as adapter:
        readings = _chosen(adapter.poll(timeout_s=_patience_s(spec))[spec.name], points, spec)
    if as_json:
        return {
            name: {
                "value": r.value if math.isfinite(r.value) else None,
                "unit": _unit(spec, name),
                "quality": str(r.quality),
            }
            for name, r in readings.items()
        }
    _show(output(), spec, readings)
    return None


def write(file: str, point: str, value: str, armed: tuple[str, ...], hold_s: float = 0.0) -> None:
    """Write one point through the guard, show what was read back, and hold it for a while."""
    if _is_url(file):
        raise ScenarioError(
            "an address has no limits", where=file, expected="a device file, which declares them"
        )
    spec = load_device_file(_existing(file))
    with tempfile.TemporaryDirectory() as folder:
        audit = Path(folder) / "audit.jsonl"
        adapter = Adapter([spec], armed=armed, audit=audit, watchdog=False)
        adapter.start(wait_s=_patience_s(spec))
        try:
            adapter.poll(timeout_s=_patience_s(spec))
            adapter.command(spec.name, point, _number(value))
            adapter.heartbeat()
            done = adapter.flush(timeout_s=_WRITE_S)
            problems = [e for e in adapter.events() if e.kind != "quality"]
            reading = adapter.poll(timeout_s=_patience_s(spec))[spec.name].get(point)
            _hold(adapter, spec, point, _number(value), hold_s)
        finally:
            adapter.close()
    console = output()
    for event in problems:
        console.print(f"{event.kind}: {event.text}", markup=False, soft_wrap=True)
    if not done or any(e.kind in ("refused", "failed", "fault", "safe") for e in problems):
        raise ScenarioError(f"{point} was not written", where=spec.name)
    if reading is not None:
        _show(console, spec, {point: reading})
    console.print("the device goes back to its safe state now, as when a run ends")


def watch(target: str, points: tuple[str, ...], period_s: float, count: int | None) -> None:
    """Show a device's points again and again until Ctrl-C."""
    spec = _readable(target)
    console = output()
    with _reader(spec) as adapter:
        k = 0
        while count is None or k < count:
            if k:
                time.sleep(period_s)
            k += 1
            readings = _chosen(adapter.poll(timeout_s=_patience_s(spec))[spec.name], points, spec)
            console.print(time.strftime("%H:%M:%S"), style="bold")
            _show(console, spec, readings)


def _is_url(target: str) -> bool:
    return _URL.fullmatch(target) is not None and not Path(target).exists()


def _existing(file: str) -> Path:
    path = find_device_file(file)
    if not path.is_file():
        raise ScenarioError(
            "no such device file",
            where=file,
            expected=f"a path, HOST:PORT/UNIT, or one of {', '.join(shipped_devices())}",
        )
    return path


def _spec(target: str) -> DeviceSpec:
    if not _is_url(target):
        return load_device_file(_existing(target))
    return DeviceSpec(name="device", connection=sunspec.parse_url(target))


def _readable(target: str) -> DeviceSpec:
    """Return a device with points; one that is only an address is scanned for them."""
    spec = _spec(target)
    if spec.points or spec.sunspec:
        return spec
    from hil.devices.sunspec_models import model_ids

    found = sunspec.scan_device(spec.connection)
    models = sorted({block.model for block in found.models} & set(model_ids()))
    return spec.model_copy(update={"sunspec": models})


def _hold(adapter: Adapter, spec: DeviceSpec, point: str, value: Value, hold_s: float) -> None:
    end_s = time.monotonic() + hold_s
    while (left_s := end_s - time.monotonic()) > 0:
        adapter.heartbeat()
        adapter.command(spec.name, point, value)
        time.sleep(min(left_s, spec.guard.heartbeat_s / 4))


@contextmanager
def _reader(spec: DeviceSpec) -> Iterator[Adapter]:
    """Give a read-only adapter on one device."""
    with tempfile.TemporaryDirectory() as folder:
        audit = Path(folder) / "audit.jsonl"
        adapter = Adapter([spec], audit=audit, read_only=True, watchdog=False)
        adapter.start(wait_s=_patience_s(spec))
        try:
            yield adapter
        finally:
            adapter.close()


def _patience_s(spec: DeviceSpec) -> float:
    return spec.connection.connect_timeout_s + 4.0 * spec.connection.timeout_s


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the name of a value; the guard knows them


def _chosen(
    readings: Mapping[str, Reading], points: tuple[str, ...], spec: DeviceSpec
) -> dict[str, Reading]:
    for point in points:
        if point not in readings:
            from grid_models.base.errors import nearest_name

            raise ScenarioError(
                f"no point is called '{point}'",
                where=spec.name,
                nearest=nearest_name(point, readings),
            )
    return {p: readings[p] for p in points} if points else dict(readings)


def _unit(spec: DeviceSpec, name: str) -> str:
    point = spec.points.get(name)
    return point.unit if point is not None else ""


def _show(console: Console, spec: DeviceSpec, readings: Mapping[str, Reading]) -> None:
    table = _table("point", "value", "unit", "quality", "age s")
    for name, r in readings.items():
        value = "-" if math.isnan(r.value) else f"{r.value:g}"
        age = f"{r.age_s:.1f}" if math.isfinite(r.age_s) else "-"
        quality = f"[{_STYLES[r.quality]}]{r.quality}[/]"
        table.add_row(name.replace("[", r"\["), value, _unit(spec, name), quality, age)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in ("point", "model") else "right")
    return table
