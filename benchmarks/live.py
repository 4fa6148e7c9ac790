"""What the live page costs a run: step time without a page, with one, and while one is looked at.

    python benchmarks/live.py [--json] [--slices N] [--browser]

IEEE 123 with 96 volt/var agents. One run goes through all variants in slices of 1.5 s, in an order
that changes, so that ratios hold when the machine's speed drifts. Figures are medians over the
slices, in microseconds per step; ratios are against the slice of ``none`` of the same round.

* ``none``: the page's process is stopped (SIGSTOP).
* ``page``: a page that nobody looks at.
* ``looked at``: a process asks as a browser does, for four curves and the map.
* ``browser`` (with ``--browser``): headless Chromium on the same machine shows it, and draws
  without a graphics card; what it takes of the machine is in the figure.

``page_cpu`` is the share of one core that the page's process takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from federates.core.interrupt import interrupt_main
from federates.core.progress import Progress
from federates.errors import RunInterruptedError
from federates.live.page import LivePage
from federates.runs.options import Placement
from federates.runs.runner import Started, run
from federates.scenario.schema import load_scenario

PLACEMENTS: tuple[Placement, ...] = ("shared", "process")
SLICE_S, SETTLE_S = 1.5, 0.3
CURVES = ("feeder.v_pu", "volt_var.q_set_kvar", "feeder.import_kw", "feeder.p_kw")
READER = """\
import sys, urllib.request
while True:
    with urllib.request.urlopen(sys.argv[1]) as answer:
        answer.read()
"""
TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def readers(url: str, folder: Path, browser: bool) -> Iterator[dict[str, int]]:
    """Yield the process groups that look at a page, by variant."""
    query = "&".join(f"curve={name}" for name in CURVES)
    commands = {"looked at": [sys.executable, "-c", READER, f"{url}state?{query}"]}
    if browser:
        name = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
        words = ["--headless", "--no-sandbox", "--remote-debugging-port=0"]
        commands["browser"] = [name, *words, f"--user-data-dir={folder / 'browser'}", url]
    started = {
        variant: subprocess.Popen(
            command,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for variant, command in commands.items()
    }
    try:
        yield {variant: process.pid for variant, process in started.items()}
    finally:
        for process in started.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Slices:
    """Measures a run that goes on, slice by slice, and ends it."""

    def __init__(self, page: LivePage, variants: Sequence[str], n: int, browser: bool) -> None:
        self.rows: list[tuple[str, float, float]] = []
        """(variant, us per step, share of a core)."""
        self._page, self._variants, self._n, self._browser = page, variants, n, browser

    def start(self, started: Started) -> None:
        """Start the page, and measure in a thread; for `on_start`."""
        self._page.start(started)
        urllib.request.urlopen(f"{self._page.url}run").close()  # it is up
        progress = Progress(len(started.here), started.store.heartbeat)
        arguments = progress, started.store.folder
        threading.Thread(target=self._measure, args=arguments, daemon=True).start()

    def _measure(self, progress: Progress, folder: Path) -> None:
        assert self._page._process is not None
        server = self._page._process.pid
        with readers(self._page.url, folder.parent, self._browser) as groups:
            time.sleep(4.0 if self._browser else 2.0)
            for k in range(self._n):
                turn = k % len(self._variants)
                for variant in (*self._variants[turn:], *self._variants[:turn]):
                    on = {server: variant != "none"}
                    on |= {group: name == variant for name, group in groups.items()}
                    for group, goes in on.items():
                        os.killpg(group, signal.SIGCONT if goes else signal.SIGSTOP)
                    time.sleep(SETTLE_S)
                    steps, began, cpu = progress.steps(0), time.perf_counter(), cpu_s(server)
                    time.sleep(SLICE_S)
                    took = time.perf_counter() - began
                    us = 1e6 * took / max(progress.steps(0) - steps, 1)
                    self.rows.append((variant, us, (cpu_s(server) - cpu) / took))
            os.killpg(server, signal.SIGCONT)
        interrupt_main()


def measure(n: int, browser: bool) -> list[dict[str, Any]]:
    """Return one row per placement and variant."""
    # Three days in small steps: the run is ended when everything has been measured.
    spec = load_scenario("voltvar-ieee123", ["time.step_s=1", "time.duration_s=259200"])
    variants = ["none", "page", "looked at", *(["browser"] if browser else [])]
    out = []
    for placement in PLACEMENTS:
        with tempfile.TemporaryDirectory() as name, LivePage("auto") as page:
            slices = Slices(page, variants, n, browser)
            with contextlib.suppress(RunInterruptedError):
                run(spec, out=Path(name) / "run", placement=placement, on_start=slices.start)
        per_round = [
            {variant: (us, cpu) for variant, us, cpu in slices.rows[i : i + len(variants)]}
            for i in range(0, len(slices.rows), len(variants))
        ]
        for variant in variants:
            found = [each[variant] for each in per_round]
            ratios = [each[variant][0] / each["none"][0] for each in per_round]
            out.append(
                {
                    "placement": placement,
                    "variant": variant,
                    "step_us": round(statistics.median(us for us, _ in found), 1),
                    "ratio": round(statistics.median(ratios), 3),
                    "page_cpu": round(statistics.median(cpu for _, cpu in found), 3),
                }
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--slices", type=int, default=9)
    parser.add_argument("--browser", action="store_true")
    args = parser.parse_args()
    rows = measure(args.slices, args.browser)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'placement':<10} {'variant':<10} {'us/step':>9} {'ratio':>7} {'page, core':>11}")
    for row in rows:
        print(
            f"{row['placement']:<10} {row['variant']:<10} {row['step_us']:9.1f} "
            f"{row['ratio']:7.3f} {row['page_cpu']:11.3f}"
        )


if __name__ == "__main__":
    main()
