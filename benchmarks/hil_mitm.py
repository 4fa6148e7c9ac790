"""What the man in the middle costs: a read straight, through him, and forged by him.

``python benchmarks/hil_mitm.py --reads 4000 --json`` reads 60 registers again and again, in turns
so that a busy machine disturbs all alike, and prints the median and the 99th percentile of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from hil_adapter import READ_COUNT, SERVER

from hil.devices.places import Place
from hil.devices.spec import ConnectionSpec
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import RewriteRule, WirePoint
from hil.modbus.client import ModbusClient

_BATCH = 50


async def times_s(places: dict[str, tuple[str, int]], n: int) -> dict[str, list[float]]:
    """Return the time of each read, by way."""
    links = {
        way: ModbusClient(ConnectionSpec(host=host, port=port, timeout_s=5.0))
        for way, (host, port) in places.items()
    }
    took: dict[str, list[float]] = {way: [] for way in links}
    for link in links.values():
        for _ in range(_BATCH):
            await link.read(1, "holding", 0, READ_COUNT)
    while len(took[next(iter(took))]) < n:
        for way, link in links.items():
            for _ in range(_BATCH):
                began = time.perf_counter()
                await link.read(1, "holding", 0, READ_COUNT)
                took[way].append(time.perf_counter() - began)
    for link in links.values():
        link.close()
    return took


def measure(n: int) -> dict[str, Any]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        point = {"p": WirePoint(Place("holding", 10, "int32", 2))}
        targets = [
            MitmTarget("through a quiet proxy", "127.0.0.1", port, 1, []),
            MitmTarget("forged", "127.0.0.1", port, 1, [RewriteRule(0, point="p", value=1.0)]),
        ]
        with MitmProxy(targets, n_steps=1) as proxy:
            proxy.learn("forged", point)
            proxy.set_active(np.zeros(1))
            took = asyncio.run(times_s({"straight": ("127.0.0.1", port), **proxy.places}, n))
            forged = len(proxy.drain())
    finally:
        server.kill()
        server.wait()
    p50, p99 = ({w: float(np.percentile(t, q)) * 1e3 for w, t in took.items()} for q in (50, 99))
    return {
        "reads": n,
        "registers": READ_COUNT,
        "forged": forged,
        "p50_ms": {w: round(t, 3) for w, t in p50.items()},
        "p99_ms": {w: round(t, 3) for w, t in p99.items()},
        "added_p50_ms": {w: round(t - p50["straight"], 3) for w, t in p50.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=4000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.reads)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['reads']} reads of {READ_COUNT} registers each")
    for way in found["p50_ms"]:
        added = found["added_p50_ms"][way]
        print(
            f"  {way:22} p50 {found['p50_ms'][way]:6.3f} ms   p99 {found['p99_ms'][way]:6.3f} ms"
            f"   {added:+.3f} ms"
        )


if __name__ == "__main__":
    main()
