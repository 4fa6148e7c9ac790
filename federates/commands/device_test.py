"""``feederate device test``: a type test of IEEE Std 1547.1-2020 on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from federates.commands.terminal import messages, output
from federates.core.run_store import new_run_dir
from federates.errors import NoAnswerError, RunError, ScenarioError
from federates.reports.type_test import PAGE, TABLE, write_type_test
from grid_models.base.errors import nearest_name
from hil.devices.errors import ExchangeError
from hil.devices.file import find_device_file, load_device_file, shipped_devices
from hil.devices.spec import DeviceSpec
from hil.type_tests.engine import StepResult
from hil.type_tests.grid import ChannelGrid, GridError, GridSimulator, open_grid
from hil.type_tests.procedures import PROCEDURES
from hil.type_tests.run import Outcome, needs, run_procedure

_EMULATED = "emulated inverter, started for this test"


def run_test(
    file: str,
    procedure: str,
    *,
    grid: str | None,
    armed: Sequence[str],
    out: Path | None,
    as_json: bool,
    full: bool,
    response_s: float | None,
    normal: str,
    abnormal: str,
) -> dict[str, Any]:
    """Run a procedure, write page and table, and return the outcome as plain data.

    Raises
    ------
    ScenarioError, DeviceError, GridError: Wrong input: the file, its points, the grid simulator.
    RunError: The device or the grid simulator did not answer any more.
    """
    if procedure not in PROCEDURES:
        raise ScenarioError(
            f"no procedure is called '{procedure}'", where="--procedure",
            expected=", ".join(PROCEDURES), nearest=nearest_name(procedure, PROCEDURES),
        )  # fmt: skip
    spec = _device(file)
    console = messages() if as_json else output()
    with _bench(file, spec, grid) as (spec, simulator, tested):
        own = tested == _EMULATED
        if not own and spec.name not in armed:
            raise ScenarioError(
                "a test writes settings, and the device was not armed by name",
                where=f"device '{spec.name}'", expected=f"--arm {spec.name}",
            )  # fmt: skip
        needs(procedure, spec)  # before there is a folder
        folder = new_run_dir(f"test-{spec.name}-{procedure}", out)
        _say(console, f"{procedure} on {spec.name}: {tested}")
        outcome = _run(
            procedure, spec, simulator, folder, console, full=full, response_s=response_s,
            normal=normal, abnormal=abnormal,
        )  # fmt: skip
    write_type_test(folder, outcome, tested)
    if not as_json:
        _summary(console, outcome, folder)
    return outcome.as_dict() | {"tested": tested, "folder": str(folder)}


def _run(
    procedure: str,
    spec: DeviceSpec,
    grid: GridSimulator,
    folder: Path,
    console: Console,
    **options: Any,
) -> Outcome:
    def each(result: StepResult) -> None:
        _say(console, _line(result))

    try:
        return run_procedure(
            procedure, spec, grid, armed=[spec.name], audit=folder / "audit.jsonl", each=each,
            **options,
        )  # fmt: skip
    except (ExchangeError, GridError) as error:
        failed = RunError(error.what, federate=spec.name)
        failed.where = error.where
        raise failed from None


@contextlib.contextmanager
def _bench(
    file: str, spec: DeviceSpec, grid: str | None
) -> Iterator[tuple[DeviceSpec, GridSimulator, str]]:
    """Give the device, its grid simulator, and what is tested in words."""
    if grid is None and (Path(file).exists() or file not in shipped_devices()):
        raise ScenarioError(
            "a test needs a grid simulator", where="--grid",
            expected="HOST:PORT of an emulator's side channel, or 'CMD {v_pu} {f_hz}'",
        )  # fmt: skip
    if grid is not None:
        try:
            simulator = open_grid(grid)
        except GridError as error:
            if error.where == "--grid":  # the command, as it was given
                raise
            raise NoAnswerError(f"nothing answers: {error.what}", where=error.where) from None
        at = spec.connection
        with contextlib.closing(simulator):
            yield spec, simulator, f"{at.address}; grid simulator {grid}"
        return
    # The address of a shipped file stands for any; an emulator takes its place.
    from hil.emulators.options import Clock, EmulatorOptions
    from hil.emulators.process import EmulatorProcess

    process = EmulatorProcess(EmulatorOptions(grid_port=0, time=Clock.grid, step_s=1.0))
    try:
        host, port, unit = next(iter(process.places.values()))
        yield (
            spec.at(host=host, port=port, unit=unit),
            ChannelGrid(process.ask, _nothing),
            _EMULATED,
        )
    finally:
        process.close()


def _nothing() -> None:
    """Leave the side channel to its process."""


def _device(file: str) -> DeviceSpec:
    path = find_device_file(file)
    if not path.is_file():
        raise ScenarioError(
            "no such device file", where=file,
            expected=f"a path, or one of {', '.join(shipped_devices())}",
            nearest=nearest_name(file, shipped_devices()),
        )  # fmt: skip
    return load_device_file(path)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _line(result: StepResult) -> str:
    m = result.measured
    words = result.why or result.note
    verdict = "passed" if result.passed else "FAILED"
    text = f"  {verdict}  {result.step.name}: p {m.p:.3f} pu, q {m.q:+.3f} pu"
    return f"{text}; {words}" if words else text


def _summary(console: Console, outcome: Outcome, folder: Path) -> None:
    n = sum(not result.passed for result in outcome.results)
    total = len(outcome.results)
    _say(
        console, f"passed: all {total} steps" if outcome.passed else f"FAILED: {n} of {total} steps"
    )
    if worst := outcome.worst:
        _say(console, f"  nearest to its limit: {worst['what']} in '{worst['step']}', off by "
                      f"{worst['error']:g} of {worst['accepted']:g}")  # fmt: skip
    for words in outcome.not_run:
        _say(console, f"  not run: {words}")
    _say(console, f"  {folder / PAGE}, {TABLE}")
