"""One short run that many tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

import feederate
from feederate import RunFolder


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out: Path = tmp_path_factory.mktemp("python") / "run"
    return feederate.run(
        "voltvar-ieee13",
        set={"time": {"start_s": 43200}, "grid.ders.0.total_kw": 3000},
        steps=30,
        seed=7,
        placement="single",
        out=out,
    )
