"""Set-points of one device by hand: ``feederate device write``, ``feederate device watch --set``.

The device has the same guard and watchdog as in a run, and is made safe at the end.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from federates.errors import RunError, ScenarioError
from grid_models.base.errors import listed
from hil.adapter.adapter import Adapter
from hil.adapter.unsafe import unsafe_text
from hil.devices.points import Value
from hil.devices.spec import DeviceSpec

_WRITE_S = 10.0
_NOT_WRITTEN = ("refused", "failed", "fault", "safe", "delayed")


def number(text: str) -> float | str:
    """Return a value of the command line: a number, or the name of one, which the guard knows.

    Raises ScenarioError: Not a finite number.
    """
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        raise ScenarioError(
            "not a finite number", where=text, expected="a number, or a name of the point's enum"
        )
    return value


def assignments(texts: tuple[str, ...]) -> dict[str, Value]:
    """Return point -> value of ``POINT=VALUE`` texts.

    Raises ScenarioError.
    """
    found: dict[str, Value] = {}
    for text in texts:
        point, equals, value = text.partition("=")
        if not (point and equals and value):
            raise ScenarioError(f"found '{text}'", where="--set", expected="POINT=VALUE")
        found[point] = number(value)
    return found


@contextmanager
def commanding(
    spec: DeviceSpec, armed: tuple[str, ...], patience_s: float, console: Console
) -> Iterator[Adapter]:
    """Give an adapter that may write; at the end the device is safe.

    Raises RunError: It is not; the message says which point, and where it stands.
    """
    folder = Path(tempfile.mkdtemp(prefix="feederate-device-"))
    audit = folder / f"{spec.name}.audit.jsonl"
    adapter = Adapter([spec], armed=armed, audit=audit)
    try:
        adapter.start(wait_s=patience_s)
        yield adapter
    finally:
        with suppress(KeyboardInterrupt):  # a second Ctrl-C only ends the wait
            adapter.close()
        _tell(adapter, console)
        if not (text := unsafe_text(adapter.unsafe(), [spec])):
            shutil.rmtree(folder, ignore_errors=True)
        elif text:
            _fail(spec, f"{text}; a watchdog process goes on trying, its log is {audit}")


def _fail(spec: DeviceSpec, what: str) -> NoReturn:
    error = RunError(what, federate=spec.name)
    error.where = f"device '{spec.name}'"
    raise error


def _tell(adapter: Adapter, console: Console) -> list[str]:
    """Print what happened since the last call; return the kinds of it."""
    kinds = []
    for event in adapter.events():
        if event.kind not in ("quality", "left"):
            kinds.append(event.kind)
            console.print(f"{event.kind}: {event.text}", markup=False, soft_wrap=True)
    return kinds


def command(
    adapter: Adapter, spec: DeviceSpec, values: Mapping[str, Value], console: Console
) -> None:
    """Write set-points once, each of them verified.

    Raises GuardError, ScenarioError: The guard refused one: wrong input.
    Raises RunError: The device did not take it.
    """
    for point, value in values.items():
        adapter.command(spec.name, point, value)
    adapter.heartbeat()
    done = adapter.flush(timeout_s=_WRITE_S)
    kinds = _tell(adapter, console)
    if done and not set(kinds) & set(_NOT_WRITTEN):
        return
    what = f"{', '.join(values)}: not written"
    if set(kinds) & set(_NOT_WRITTEN) == {"refused"}:
        raise ScenarioError(what, where=spec.name, expected=_allowed(spec, values))
    _fail(spec, what if kinds else f"{what} within {_WRITE_S:g} s")


def _allowed(spec: DeviceSpec, points: Iterable[str]) -> str:
    """Return what the device file lets be written to points that it has."""
    names = {name: spec.points[name] for name in points}
    return "; ".join(
        f"{name} " + (listed(list(p.enum)) if p.enum else f"{p.min:g} to {p.max:g}")
        for name, p in names.items()
    )


def hold(
    adapter: Adapter,
    spec: DeviceSpec,
    values: Mapping[str, Value],
    hold_s: float,
    console: Console,
) -> None:
    """Repeat set-points for a while.

    Raises RunError: The device does not take them any more, and was made safe.
    """
    end_s = time.monotonic() + hold_s
    while True:
        _tell(adapter, console)
        if fault := adapter.faults().get(spec.name):
            _fail(spec, f"no longer held: {fault}")
        if (left_s := end_s - time.monotonic()) <= 0:
            return
        adapter.heartbeat()
        for point, value in values.items():
            adapter.command(spec.name, point, value)
        time.sleep(min(left_s, spec.guard.heartbeat_s / 4))


def standing(spec: DeviceSpec) -> str:
    """Return where a device stands once its safe state is verified."""
    values = []
    for name, point in spec.points.items():
        if point.writable:
            value = "handed back" if point.release else f"{point.safe_value:g} {point.unit}"
            values.append(f"{name} {value.strip()}")
    return f"{spec.name} is in its safe state: {', '.join(values)}"


def write(
    spec: DeviceSpec,
    values: Mapping[str, Value],
    armed: tuple[str, ...],
    hold_s: float,
    patience_s: float,
    console: Console,
    show: Callable[[Adapter], None],
) -> None:
    """Write set-points, show the device, hold them for a while, and make the device safe."""
    with commanding(spec, armed, patience_s, console) as adapter:
        adapter.poll(timeout_s=patience_s)
        command(adapter, spec, values, console)
        show(adapter)
        hold(adapter, spec, values, hold_s, console)
    console.print(standing(spec), markup=False, soft_wrap=True)
