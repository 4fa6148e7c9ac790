"""What holds for every test: repeatable, and away from the user's own files and settings."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import pytest

from grid_models.base.threads import use_one_thread

use_one_thread()
# Every worker and every child process would otherwise compile all that it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure() -> None:
    """Set hypothesis up; imported here, so that it is compiled once as well."""
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


# -- order and workers (pytest -n auto): two cores should both be busy until the end ---------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than cores: many tests wait for processes and sockets."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out runs of neighbouring tests, so that a module's fixtures are built once or twice."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every worker its share of the whole co-simulations, first; what is left is short.

    Modules stay whole: their fixtures are runs that many tests look at. The scheduler gives each
    worker as many neighbouring items at the start, and moves items from the end of a queue later.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    modules: dict[str, list[pytest.Item]] = {}
    short = []
    for item in items:
        if item.get_closest_marker("scenario") is None:
            short.append(item)
        else:
            modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for module in sorted(modules.values(), key=len, reverse=True):
        min(shares, key=len).extend(module)
    rest = iter(short)
    for share in shares:
        share.extend(islice(rest, max(0, len(items) // workers - len(share))))
    items[:] = [*chain.from_iterable(shares), *rest]


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
