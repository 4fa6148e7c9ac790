"""A handful of the fault matrix of benchmarks/faults.py, which measures all of it."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.scenario


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "faults.py"
    spec = importlib.util.spec_from_file_location("fault_matrix", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


faults = _load()
CASES = {case.key: case for case in faults.cases()}
HANDFUL = [
    "kill -9 of feeder (process)",
    "kill -9 of broker (process)",
    "kill -9 of the whole run's parent (process)",
    "sys.exit(0) in a federate (single)",
    "hang: sleeps (thread)",
    "hang: busy loop (single)",
    "Ctrl-C (process)",
    "Ctrl-C (thread)",
    "file size limit (thread)",
    "NaN from a controller (thread)",
    "NaN in a profile (single)",
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("key", HANDFUL)
def test_fault(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What must happen, not how fast: the seconds are the benchmark's subject.
    monkeypatch.setattr(faults, "PATIENCE_S", 600.0)
    monkeypatch.setattr(faults, "GONE_S", 60.0)
    result = faults.measure(replace(CASES[key], limit_s=math.inf), tmp_path)
    assert result.problems == []
