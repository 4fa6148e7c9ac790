"""What a run does to the process it is in."""

from __future__ import annotations

from pathlib import Path

from threadpoolctl import threadpool_info, threadpool_limits

from federates.runs.runner import run
from federates.scenario.schema import load_scenario


def test_linear_algebra_has_one_thread_in_a_run_and_as_many_as_before_after_it(
    tmp_path: Path,
) -> None:
    def threads() -> dict[str, int]:
        pools = (pool for pool in threadpool_info() if pool["user_api"] == "blas")
        return {pool["filepath"]: pool["num_threads"] for pool in pools}

    seen: set[int] = set()
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        run(
            load_scenario("voltvar-ieee13"),
            on_progress=lambda *_: seen.update(threads().values()),
            out=tmp_path / "run",
            steps=2,
            placement="single",
        )
        after = threads()
    assert seen == {1}
    # A library that was built without threads has one.
    assert {path: after[path] for path in before} == before
