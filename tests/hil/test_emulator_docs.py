"""The pages on emulators say what the emulators serve."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


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
