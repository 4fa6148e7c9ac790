"""Write the register maps of docs/emulators.md: ``python docs/generate_register_maps.py``.

The tables come from what the emulators serve; a test compares the page with `updated()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hil.emulators.inverter_plant import batteries, inverters
from hil.emulators.sunspec_image import SunSpecImage
from hil.servers.faults import FaultMode
from hil.servers.point_map import markdown_table
from hil.servers.thermostat_map import THERMOSTAT_MAP

PAGE = Path(__file__).resolve().parent / "emulators.md"


def thermostat() -> str:
    """Return the register map of the thermostat."""
    return markdown_table(THERMOSTAT_MAP)


def sunspec() -> str:
    """Return what the inverter and the battery implement, model by model."""
    inverter, battery = (plant.banks[0] for plant in (inverters(1, 10.0), batteries(1, 5.0, 13.5)))
    assert isinstance(inverter, SunSpecImage)
    assert isinstance(battery, SunSpecImage)
    for bank in (inverter, battery):
        bank.refresh()
    lines = ["| model | address | length | read | written |", "| --- | --- | --- | --- | --- |"]
    for model, _ in inverter.models:
        names = [name for m, name in inverter.points if m == model]
        shown = [n for n in names if inverter.has(model, n) or battery.has(model, n)]
        writable = [n for n in shown if battery.may_write(model, n)]
        read = [n for n in shown if n not in writable and n not in ("ID", "L")]
        length = int(inverter.get(model, "L")) + 2
        address = inverter.points[model, "ID"].place.address
        cells = (model, address, length, _names(read), _names(writable))
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines)


def _names(points: list[str]) -> str:
    """Return names, each of a repeated group once."""
    names = dict.fromkeys(re.sub(r"\[\d+\]", "", name) for name in points)
    return ", ".join(f"`{n}`" for n in names if not n.endswith("_SF"))


def faults() -> str:
    """Return the fault modes."""
    return ", ".join(f"`{mode}`" for mode in FaultMode if mode is not FaultMode.none)


SECTIONS: dict[str, Callable[[], str]] = {
    "thermostat": thermostat,
    "sunspec": sunspec,
    "faults": faults,
}


def updated(page: str) -> str:
    """Return the page with its tables made anew."""
    for name, make in SECTIONS.items():
        begin = f"<!-- {name}: written by docs/generate_register_maps.py -->\n"
        end = f"\n<!-- /{name} -->"
        head, found, rest = page.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{PAGE.name} has no section '{name}'")
        page = head + begin + make() + end + tail
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
