"""What holds for every test: repeatable, and away from the user's own files and settings."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

# A step under load can take long, so no deadline; CI draws the same examples every time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep caches of matplotlib, and folders of child processes, out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("mpl")))
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("NO_COLOR", "1")
        patch.delenv("PYTHONPATH", raising=False)
        yield


@pytest.fixture(scope="session")
def until() -> Callable[..., bool]:
    """Wait until a condition holds; False after two minutes, which no machine needs."""

    def wait(condition: Callable[[], bool], timeout_s: float = 120.0) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if condition():
                return True
            time.sleep(0.005)
        return condition()

    return wait
