"""The pages on emulators say what the emulators serve."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import hil
from grid_models.base.yaml_lines import parse_yaml
from hil.servers.thermostat_map import THERMOSTAT_MAP

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.skipif(not (DOCS / "emulators.md").exists(), reason="the sources are not here")
def test_register_maps_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("maps", DOCS / "generate_register_maps.py")
    assert spec is not None
    assert spec.loader is not None
    maps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maps)
    page = (DOCS / "emulators.md").read_text(encoding="utf-8")
    assert maps.updated(page) == page
    assert "`ControllerHb`" in page


def test_the_shipped_device_file_fits_the_thermostat() -> None:
    path = Path(hil.__file__).parent / "devices" / "thermostat.yaml"
    points = parse_yaml(path.read_text(encoding="utf-8"), text_keys=True)[0]["points"]
    served = {p.name: p for p in THERMOSTAT_MAP}
    for name, point in points.items():
        place = (point["table"], point["address"], point["type"], point.get("scale", 1.0))
        mine = served[name]
        assert place == (mine.table, mine.address, mine.kind, mine.scale), name
        if mine.choices and "enum" in point:
            assert point["enum"].items() <= mine.choices.items()
        if mine.low is not None and "min" in point:
            assert mine.low <= point["min"] <= point["max"] <= mine.high
