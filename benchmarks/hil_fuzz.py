"""Malformed frames on an emulator's port: is it still serving, does its memory grow?

    python benchmarks/hil_fuzz.py --frames 100000

Starts `feederate emulate inverter` as a process, sends frames of seven malformed kinds over many
connections, asks a good question in between, and reads the process's resident memory from /proc.
Exit code 1 when a good question was not answered rightly or memory grew by more than 1 MiB after
the first fifth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

GOOD = struct.pack(">HHHBBHH", 0x1234, 0, 6, 1, 3, 40000, 2)
ANSWER = struct.pack(">HHHBBB", 0x1234, 0, 7, 1, 3, 4) + b"SunS"
MAX_GROWTH_KIB = 1024


def header(length: int, transaction: int = 1, protocol: int = 0, unit: int = 1) -> bytes:
    return struct.pack(">HHHB", transaction, protocol, length, unit)


def random_bytes(r: random.Random) -> bytes:
    return r.randbytes(r.randint(1, 300))


def random_pdu(r: random.Random) -> bytes:
    pdu = r.randbytes(r.randint(1, 253))
    return header(len(pdu) + 1, r.randrange(1 << 16)) + pdu


def unknown_function(r: random.Random) -> bytes:
    pdu = bytes((r.choice((0, 7, 8, 20, 24, 43, 90, 100, 127, 128, 200, 255)),)) + r.randbytes(4)
    return header(len(pdu) + 1) + pdu


def wrong_length(r: random.Random) -> bytes:
    return header(r.choice((0, 1, 3, 5, 7, 200, 255, 300, 65535))) + b"\x03" + r.randbytes(4)


def wrong_protocol(r: random.Random) -> bytes:
    return header(6, protocol=r.randrange(1, 1 << 16)) + b"\x03" + r.randbytes(4)


def wrong_count(r: random.Random) -> bytes:
    count, size = r.choice((0, 1, 124, 200, 65535)), r.randrange(256)
    pdu = struct.pack(">BHHB", 16, r.randrange(1 << 16), count, size) + r.randbytes(
        r.randint(0, 200)
    )
    return header(len(pdu) + 1) + pdu


def truncated(r: random.Random) -> bytes:
    return GOOD[: r.randrange(1, len(GOOD))]


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    f.__name__: f
    for f in (
        random_bytes, random_pdu, unknown_function, wrong_length, wrong_protocol, wrong_count,
        truncated,
    )
}  # fmt: skip
#: After these the server knows where the next frame begins.
KEEP_FRAMING = ("random_pdu", "unknown_function", "wrong_count")


def resident_kib(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


def ask(port: int) -> float:
    """Ask a good question; return the latency, s, or infinity for a wrong answer."""
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(GOOD)
        got = b""
        with contextlib.suppress(OSError):
            while len(got) < len(ANSWER) and (more := sock.recv(64)):
                got += more
    return time.perf_counter() - start if got == ANSWER else float("inf")


def batch(port: int, r: random.Random, frames: int, counts: dict[str, int]) -> None:
    """Send frames over one connection, then wait until the server has dealt with all of them.

    A frame whose length cannot be right ends the connection, so none is sent behind it.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    with sock, contextlib.suppress(OSError):
        for _ in range(frames):
            name = r.choice(list(KINDS))
            counts[name] = counts.get(name, 0) + 1
            sock.sendall(KINDS[name](r))
            if name not in KEEP_FRAMING:
                break
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def fuzz(port: int, pid: int, frames: int, seed: int) -> dict[str, object]:
    r = random.Random(seed)
    counts: dict[str, int] = {}
    latencies: list[float] = []
    memory: list[tuple[int, int]] = []
    start = time.perf_counter()
    while (sent := sum(counts.values())) < frames:
        batch(port, r, min(20, frames - sent), counts)
        if sent >= len(latencies) * max(frames // 100, 1):
            latencies.append(ask(port))
            memory.append((sent, resident_kib(pid)))
    memory.append((frames, resident_kib(pid)))
    warm = [kib for at, kib in memory if at >= frames // 5]
    return {
        "frames": sum(counts.values()),
        "kinds": counts,
        "seconds": round(time.perf_counter() - start, 1),
        "good_questions": len(latencies),
        "wrong_or_no_answers": sum(latency == float("inf") for latency in latencies),
        "slowest_answer_ms": round(1e3 * max(latencies), 1),
        "resident_kib_first": memory[0][1],
        "resident_kib_after_a_fifth": warm[0],
        "resident_kib_last": memory[-1][1],
        "growth_kib": memory[-1][1] - warm[0],
        "open_files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    code = "from federates.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, "emulate", "inverter"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[2].rpartition(":")[2])
        result = fuzz(port, process.pid, given.frames, given.seed)
        alive = process.poll() is None
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    result |= {"alive": alive, "exit_code": process.returncode, "stderr": errors}
    print(json.dumps(result, indent=2))
    fine = alive and not errors and process.returncode == 0 and not result["wrong_or_no_answers"]
    growth = result["growth_kib"]
    assert isinstance(growth, int)
    return 0 if fine and growth <= MAX_GROWTH_KIB else 1


if __name__ == "__main__":
    sys.exit(main())
