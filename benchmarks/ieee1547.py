"""Type tests of IEEE 1547.1 on the emulated inverter and on OpenDER, through the adapter.

``python benchmarks/ieee1547.py [--full]``. OpenDER (EPRI, BSD-3) is not a dependency: ``pip install
opender==2.2.0``; without it its columns are left out.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hil.devices.file import load_device_file
from hil.emulators.background import background
from hil.emulators.inverter import InverterFleet
from hil.emulators.inverter_plant import InverterPlant
from hil.emulators.options import Clock, EmulatorOptions
from hil.type_tests.grid import open_grid
from hil.type_tests.procedures import PROCEDURES
from hil.type_tests.run import Outcome, run_procedure

RATED_KW, RATED_KVA = 10.0, 11.136
#: Voltages (%) and clearing times (s) of under- and over-voltage trips by abnormal category.
TRIPS: dict[str, dict[int, tuple[list[float], list[float]]]] = {
    "I": {707: ([45, 70], [0.16, 2]), 708: ([110, 120], [2, 0.16])},
    "II": {707: ([45, 70], [0.16, 10]), 708: ([110, 120], [2, 0.16])},
    "III": {707: ([50, 88], [2, 21]), 708: ([110, 120], [13, 0.16])},
}


def emulator() -> InverterFleet:
    """Return the emulator's inverter."""
    return InverterFleet([RATED_KW], [RATED_KVA])


def opender(category: str = "II") -> InverterFleet:
    """Return OpenDER's inverter of an abnormal category."""
    from _opender_fleet import OpenDerFleet

    return OpenDerFleet(RATED_KW, RATED_KVA, category)


def plant_of(fleet: InverterFleet, category: str) -> InverterPlant:
    """Return an inverter with the default trip settings of an abnormal category."""
    plant = InverterPlant(fleet)
    unit = plant.units[0]
    for curve in unit.curves:
        if curve.model in TRIPS[category]:
            curve.put(unit.bank, 1, *TRIPS[category][curve.model])
    unit.bank.put(702, "AbnOpCatRtg", ["I", "II", "III"].index(category))
    unit._adopt_settings()
    return plant


def tested(
    make: Callable[[], InverterFleet], procedure: str, category: str, *, full: bool
) -> Outcome:
    """Run a procedure on a new inverter."""
    options = EmulatorOptions(grid_port=0, time=Clock.grid, step_s=1.0)
    plant = plant_of(make(), category)
    with background(plant, options) as devices, tempfile.TemporaryDirectory() as at:
        grid = open_grid(f"127.0.0.1:{devices.grid_port}")
        spec = load_device_file("sunspec-inverter-1547").at(port=devices.ports[0])
        try:
            return run_procedure(
                procedure, spec, grid, armed=[spec.name], audit=Path(at) / "audit.jsonl",
                watchdog=False, full=full,
            )  # fmt: skip
        finally:
            grid.close()


def main(words: list[str]) -> None:
    """Print the table."""
    full = "--full" in words
    chosen = [word for word in words if word in PROCEDURES] or list(PROCEDURES)
    devices: dict[str, tuple[str, Callable[[], InverterFleet]]] = {"emulator": ("II", emulator)}
    if importlib.util.find_spec("opender") is not None:
        devices["OpenDER"] = "II", opender
        for category in ("I", "III"):
            devices[f"OpenDER, {category}"] = category, partial(opender, category)
    print("| procedure | device | passed | steps | worst | error | accepted | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    failed: list[str] = []
    for procedure in chosen:
        for name, (category, make) in devices.items():
            if category != "II" and procedure != "ride-through":
                continue
            begin_s = time.monotonic()
            outcome = tested(make, procedure, category, full=full)
            bad = [r for r in outcome.results if not r.passed]
            worst = outcome.worst
            cells = (
                procedure, name, "yes" if outcome.passed else f"no: {len(bad)} fail",
                len(outcome.results), worst.get("what", "-"), worst.get("error", "-"),
                worst.get("accepted", "-"), f"{time.monotonic() - begin_s:.1f}",
            )  # fmt: skip
            print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)
            failed += [f"{procedure}, {name}, {r.step.name}: {r.why}" for r in bad]
    print(*failed, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
