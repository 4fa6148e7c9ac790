"""``feederate device``: one device outside of any scenario: check, scan, read, watch, write."""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federates.commands import device_write
from federates.commands.options import print_json
from federates.commands.terminal import output
from federates.errors import NoAnswerError, ScenarioError
from grid_models.base.errors import listed, nearest_name, reason_of
from hil.adapter import sunspec
from hil.adapter.adapter import Adapter
from hil.devices.errors import DeviceFileError, ExchangeError
from hil.devices.file import (
    check_device_file,
    device_hints,
    find_device_file,
    load_device_file,
    shipped_devices,
)
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec

_URL = re.compile(r"(?:(?:modbus|tcp)://)?[^\s/:]+:\d{1,5}(?:/\d+)?")
_AGAIN_S = 0.2
_LEFT = ("point", "model", "reason")
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
    for hint in device_hints(path):
        console.print(f"hint: {hint}", markup=False, soft_wrap=True)
    console.print(f"  {spec.name} at {at.address}", markup=False)
    console.print(
        f"  {len(spec.points)} points; SunSpec models {spec.sunspec or '-'}", markup=False
    )
    console.print(f"  may be written once armed: {', '.join(writable) or 'nothing'}", markup=False)


def import_file(registry: Path, out: Path | None) -> None:
    """Write the device file of a VOLTTRON registry; say on standard error what it cannot hold."""
    from hil.devices.volttron import import_registry

    made = import_registry(registry)
    if out is None:
        sys.stdout.write(made.text)
    else:
        if out.exists():
            raise ScenarioError(f"{out} is there already", expected="-o with another name")
        try:
            out.write_text(made.text, encoding="utf-8")
        except OSError as error:
            raise ScenarioError(f"cannot write {out}: {reason_of(error)}") from None
        output().print(f"wrote {out}", markup=False, soft_wrap=True)
    for note in made.notes:
        sys.stderr.write(f"note: {note}\n")


def scan_device(target: str) -> None:
    """Show the SunSpec models of a device."""
    spec = _spec(target)
    found = _scan(spec)
    console = output()
    who = " ".join(found.identity.get(k, "") for k in ("Mn", "Md", "Vr", "SN")).strip()
    console.print(f"{who or 'unnamed device'}, map at {found.base}", markup=False)
    table = _table("model", "address", "registers")
    for model in found.models:
        table.add_row(model.label, str(model.address), str(model.length))
    console.print(table)


class Row(NamedTuple):
    """One point as it is shown.

    Parameters
    ----------
    value : A number in `unit`, nan where there is none; or the text of a text point.
    symbol : The name of an enumeration's value, '' for none.
    reason : Why the quality is not good, '' where it is.
    """

    value: float | str
    symbol: str
    unit: str
    quality: Quality
    age_s: float
    reason: str = ""

    @property
    def there(self) -> bool:
        """Whether the device has, or once had, a value."""
        return bool(self.value) if isinstance(self.value, str) else math.isfinite(self.value)


def read(
    target: str, points: tuple[str, ...], *, every: bool = False, as_json: bool = False
) -> None:
    """Read a device once and show its points.

    `every`: Also the points of its SunSpec models that the device does not implement.

    Raises NoAnswerError: No point could be read.
    """
    spec = _readable(target)
    with _reader(spec) as adapter:
        found, stats = _read_patiently(adapter, spec, points), adapter.stats
    answers = stats["replies"] + stats["refused"]
    if not found:
        raise _no_answer(spec, stats["last_errors"].get(spec.name, "no point was read"))
    rows, hidden = _chosen(found, points, spec, every)
    failed = not any(row.there for row in rows.values())
    why = next((row.reason for row in rows.values() if row.reason), "no point was read")
    if failed and not answers:
        raise _no_answer(spec, why)
    if as_json:
        print_json({name: _as_json(row) for name, row in rows.items()})
    else:
        console = output()
        _show(console, rows)
        if hidden:
            console.print(f"{hidden} points that the device does not implement; --all shows them")
    if failed:
        raise NoAnswerError(f"no point could be read: {why}", where=spec.name)


def _as_json(row: Row) -> dict[str, Any]:
    value = row.value if row.there else None
    more = {"name": row.symbol, "reason": row.reason}
    return {"value": value, "unit": row.unit, "quality": str(row.quality)} | {
        key: text for key, text in more.items() if text
    }


def _no_answer(spec: DeviceSpec, why: str) -> NoAnswerError:
    at = spec.connection.address
    return NoAnswerError(f"nothing answered at {at}: {why}", where=spec.name)


def _read_patiently(adapter: Adapter, spec: DeviceSpec, points: tuple[str, ...]) -> dict[str, Row]:
    """Read a device; again for a while where it is busy or did not reply."""
    end_s = time.monotonic() + _patience_s(spec)
    while True:
        rows = _read(adapter, spec)
        awaited = adapter.awaited(spec.name)
        if (rows and not awaited & set(points or rows)) or time.monotonic() > end_s:
            return rows
        time.sleep(_AGAIN_S)


def write(file: str, point: str, value: str, armed: tuple[str, ...], hold_s: float = 0.0) -> None:
    """Write one point through the guard, show what was read back, and hold it for a while."""
    spec, console = _with_limits(file), output()

    def show(adapter: Adapter) -> None:
        rows = _read(adapter, spec)
        _show(console, {point: rows[point]} if point in rows else {})

    values = {point: device_write.number(value)}
    device_write.write(spec, values, armed, hold_s, _patience_s(spec), console, show)


def watch(
    target: str,
    points: tuple[str, ...],
    period_s: float,
    count: int | None,
    held: tuple[str, ...] = (),
    armed: tuple[str, ...] = (),
) -> None:
    """Show a device's points again and again until Ctrl-C; hold set-points meanwhile.

    Raises NoAnswerError: In none of `count` readings a point could be read.
    """
    values, console = device_write.assignments(held), output()
    if armed and not values:
        raise ScenarioError("--arm without a set-point", expected="--set POINT=VALUE")
    spec = _with_limits(target) if values else _readable(target)
    patience_s = _patience_s(spec)
    opened = device_write.commanding(spec, armed, patience_s, console) if values else _reader(spec)
    with opened as adapter:
        if values:
            device_write.command(adapter, spec, values, console)
        k, there = 0, False
        while count is None or k < count:
            if k and values:
                device_write.hold(adapter, spec, values, period_s, console)
            elif k:
                time.sleep(period_s)
            k += 1
            rows, _ = _chosen(_read(adapter, spec), points, spec)
            console.print(time.strftime("%H:%M:%S"), style="bold")
            _show(console, rows)
            there = there or any(row.there for row in rows.values())
    if not (there or values):
        why = next((row.reason for row in rows.values() if row.reason), "no point was read")
        raise NoAnswerError(f"no point could be read: {why}", where=spec.name)
    if values:
        console.print(device_write.standing(spec), markup=False, soft_wrap=True)


def _with_limits(target: str) -> DeviceSpec:
    """Return the device of a device file: without one nothing may be written."""
    if _is_url(target):
        raise ScenarioError(
            "an address has no limits", where=target, expected="a device file, which declares them"
        )
    return load_device_file(_existing(target))


def _is_url(target: str) -> bool:
    return _URL.fullmatch(target) is not None and not Path(target).exists()


def _existing(file: str, other: str = "") -> Path:
    path = find_device_file(file)
    if not path.is_file():
        shipped = shipped_devices()
        raise ScenarioError(
            "no such device file",
            where=file,
            expected=f"{other}a path, or one of {', '.join(shipped)}",
            nearest=nearest_name(file, shipped),
        )
    return path


def _spec(target: str) -> DeviceSpec:
    if not _is_url(target):
        return load_device_file(_existing(target, "HOST:PORT/UNIT, "))
    return DeviceSpec(name="device", connection=sunspec.parse_url(target))


def _readable(target: str) -> DeviceSpec:
    """Return a device with points; one that is only an address is scanned for them."""
    spec = _spec(target)
    if spec.points or spec.sunspec:
        return spec
    from hil.devices.sunspec_models import model_ids

    found = _scan(spec)
    models = sorted({block.model for block in found.models} & set(model_ids()))
    return spec.model_copy(update={"sunspec": models})


def _scan(spec: DeviceSpec) -> sunspec.SunSpecMap:
    try:
        return sunspec.scan_device(spec.connection)
    except ExchangeError as error:
        raise _no_answer(spec, error.what) from None


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


def _read(adapter: Adapter, spec: DeviceSpec) -> dict[str, Row]:
    """Read a device now; return all its points, those of its SunSpec models among them."""
    readings = adapter.poll(timeout_s=_patience_s(spec))[spec.name]
    reasons = adapter.reasons(spec.name)
    found = adapter.sunspec_map(spec.name)
    rows = {}
    for name, text in adapter.texts(spec.name).items():
        # The identity of a SunSpec device is in its common model, 1.
        rows[name if name in spec.points else f"1.{name}"] = Row(text, "", "", Quality.GOOD, 0.0)
    for name in spec.points.keys() & reasons.keys() - readings.keys() - rows.keys():  # texts
        rows[name] = Row("", "", "", Quality.BAD, math.inf, reasons[name])
    for name, reading in readings.items():
        point = spec.points.get(name)
        of_model = found.points.get((point and point.sunspec) or name) if found else None
        as_it_is = of_model is not None and (point is None or (point.scale, point.offset) == (1, 0))
        unit = (point.unit if point else "") or (of_model.unit if of_model and as_it_is else "")
        names = (point and point.enum) or (of_model.symbols if of_model else {})
        symbol = next((word for word, n in names.items() if n == reading.value), "")
        why = reasons.get(name, "") if reading.quality is not Quality.GOOD else ""
        rows[name] = Row(reading.value, symbol, unit, reading.quality, reading.age_s, why)
    in_file = {name: rows[name] for name in spec.points if name in rows}
    return in_file | rows


def _chosen(
    rows: Mapping[str, Row], points: tuple[str, ...], spec: DeviceSpec, every: bool = False
) -> tuple[dict[str, Row], int]:
    """Return the rows that are wanted, and how many are left out as not implemented."""
    for point in points:
        if point not in rows:
            raise ScenarioError(
                f"no point is called '{point}'",
                where=spec.name,
                expected=listed(list(rows)),
                nearest=nearest_name(point, rows),
            )
    if points:
        return {p: rows[p] for p in points}, 0
    shown = {n: row for n, row in rows.items() if every or n in spec.points or row.there}
    return shown, len(rows) - len(shown)


def _show(console: Console, rows: Mapping[str, Row]) -> None:
    explained = any(row.reason for row in rows.values())
    columns = ["point", "value", "unit", "quality", "age s", *["reason"] * explained]
    table = _table(*columns)
    for name, row in rows.items():
        age = f"{row.age_s:.1f}" if math.isfinite(row.age_s) else "-"
        words = f"{_digits(row)} {row.symbol}" if row.symbol else _digits(row)
        quality = Text(str(row.quality), _STYLES[row.quality])
        cells = [Text(name), Text(words), Text(row.unit), quality, Text(age)]
        table.add_row(*cells, *[Text(row.reason)] * explained)
    console.print(table)


def _digits(row: Row) -> str:
    """Return a value with every digit that the device gave."""
    value = row.value
    if isinstance(value, str) or not row.there:
        return str(value) if row.there else "-"
    if value.is_integer():
        return f"{value:.0f}"
    single = np.float32(value)
    return str(single) if float(single) == value else f"{value:.15g}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right")
    return table
