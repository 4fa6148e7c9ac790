"""Malformed replies to the adapter's client: is anything wrong ever marked good?

    python benchmarks/hil_fuzz_replies.py --framing rtu-over-tcp --frames 100000

Devices that answer most requests with a malformed frame, or late, are read through the client and
the reader of the adapter. Every forged frame carries forged registers, and a reply that is late
carries those of another address. Framing `serial` runs over pseudo-terminals. Devices answer in
order, as those on a line do.

Exit code 1 when a value that is not the device's own was ever good, when a malformed frame was
taken for a reply, or when a device that is honest again is not good again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pty
import random
import struct
import sys
import time
import tty
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from hil.adapter.reader import DeviceReader
from hil.devices.spec import DeviceSpec
from hil.modbus.client import ModbusClient
from hil.modbus.frames import frame
from hil.modbus.rtu import checksum, rtu_frame

FORGED = 0x5A5A
HONEST_SHARE = 0.6
RECOVERY_LIMIT_S = 60.0
#: Two blocks of one size, so that the reply of one could be taken for that of the other.
ADDRESSES = {"a": (10, 1), "b": (20, 1), "c": (30, 2), "d": (40, 2)}
Pdu = Callable[[random.Random, bytes, bytes], bytes]
Forge = Callable[[random.Random, int, int, bytes, bytes], bytes]


def register(address: int) -> int:
    return 7 * address + 1


def reply_to(request: bytes, mask: int = 0) -> bytes:
    """Return the reply PDU to a read; `mask` forges its registers."""
    function, address, count = struct.unpack(">BHH", request)
    values = (register(address + i) ^ mask for i in range(count))
    return struct.pack(f">BB{count}H", function, 2 * count, *values)


# -- PDUs: wrong in both framings; arguments are the request and a reply with forged registers -----


def short(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return forged[:1] + bytes((forged[1] - 2,)) + forged[2:-2]


def long(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return forged[:1] + bytes((forged[1] + 2,)) + forged[2:] + r.randbytes(2)


def byte_count(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return forged[:1] + bytes((forged[1] ^ r.randrange(1, 256),)) + forged[2:]


def other_function(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return bytes((r.choice([f for f in range(128) if f != asked[0]]),)) + forged[1:]


def long_exception(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return bytes((asked[0] | 0x80,)) + r.randbytes(r.choice((0, 2, 3, 20)))


def other_exception(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return bytes((r.choice([f for f in range(128, 256) if f != asked[0] | 0x80]), 2))


def echo(r: random.Random, asked: bytes, forged: bytes) -> bytes:
    return asked


PDUS: tuple[Pdu, ...] = (
    short, long, byte_count, other_function, long_exception, other_exception, echo,
)  # fmt: skip


# -- frames of Modbus/TCP; arguments are transaction id, unit, and the two PDUs --------------------


def mbap(tid: int, unit: int, pdu: bytes, length: int | None = None, protocol: int = 0) -> bytes:
    return struct.pack(">HHHB", tid, protocol, length or len(pdu) + 1, unit) + pdu


def tcp_transaction(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return mbap(tid + r.randrange(1, 1 << 16) & 0xFFFF, unit, forged)


def tcp_unit(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return mbap(tid, unit ^ r.randrange(1, 256), forged)


def tcp_protocol(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return mbap(tid, unit, forged, protocol=r.randrange(1, 1 << 16))


def tcp_length(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    right = len(forged) + 1
    wrong = [n for n in (0, 1, 2, 3, right - 1, right + 1, 254, 255, 65535) if n != right]
    return struct.pack(">HHHB", tid, 0, r.choice(wrong), unit) + forged


def tcp_cut(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    whole = mbap(tid, unit, forged)
    return whole[: r.randrange(1, len(whole))]


def tcp_behind_garbage(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return b"\xff" + r.randbytes(r.randrange(12)) + mbap(tid, unit, forged)


def tcp_rtu(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return rtu_frame(unit, forged)


def tcp_text(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return b"HTTP/1.1 400 Bad Request\r\n\r\n"


# -- frames of RTU ---------------------------------------------------------------------------------


def rtu_bits(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    """Up to three bits, which the checksum always shows."""
    sent = rtu_frame(unit, forged)
    return flipped(sent, sum(1 << bit for bit in r.sample(range(8 * len(sent)), r.randint(1, 3))))


def rtu_burst(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    """Up to 16 bits in a row, which the checksum always shows."""
    sent = rtu_frame(unit, forged)
    return flipped(sent, r.randrange(1, 1 << 16) << r.randrange(8 * len(sent) - 15))


def flipped(sent: bytes, bits: int) -> bytes:
    """Flip bits, counted as they are sent: the lowest of each byte first."""
    return (int.from_bytes(sent, "little") ^ bits).to_bytes(len(sent), "little")


def rtu_checksum(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    body = bytes((unit,)) + forged
    right = checksum(body)
    wrong = (right[::-1], bytes(2), bytes((right[0], right[1] ^ 1)), b"\xff\xff")
    return body + r.choice([end for end in wrong if end != right])


def rtu_unit(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return rtu_frame(unit ^ r.randrange(1, 256), forged)


def rtu_cut(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    whole = rtu_frame(unit, forged)
    return whole[: r.randrange(1, len(whole))]


def rtu_behind(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    """The registers are right, for the frame is whole where the rest comes later."""
    return rtu_frame(unit, reply_to(asked)) + r.randbytes(r.randint(1, 20))


def rtu_behind_garbage(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return r.randbytes(r.randint(1, 20)) + rtu_frame(unit, forged)


def rtu_twice(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return 2 * rtu_frame(unit, reply_to(asked))


def rtu_mbap(r: random.Random, tid: int, unit: int, asked: bytes, forged: bytes) -> bytes:
    return frame(tid, unit, forged)


TCP: tuple[Forge, ...] = (
    tcp_transaction, tcp_unit, tcp_protocol, tcp_length, tcp_cut, tcp_behind_garbage, tcp_rtu,
    tcp_text,
)  # fmt: skip
RTU: tuple[Forge, ...] = (
    rtu_bits, rtu_burst, rtu_checksum, rtu_unit, rtu_cut, rtu_behind, rtu_behind_garbage,
    rtu_twice, rtu_mbap,
)  # fmt: skip
LATE = ("late", "lost")


class Device:
    """Answers reads of one unit in order; most of its answers are malformed or late."""

    def __init__(self, framing: str, seed: int, timeout_s: float) -> None:
        self.rtu, self.timeout_s = framing != "tcp", timeout_s
        self.counts: Counter[str] = Counter()
        self.honest = False
        self._random = random.Random(seed)
        self._kinds: list[Any] = [*PDUS, *(RTU if self.rtu else TCP), *LATE]
        self._buffer = b""
        self._replies: deque[tuple[bytes, float]] = deque()
        self._busy = False
        self.send: Callable[[bytes], None] = lambda data: None

    def take(self, data: bytes) -> None:
        """Take what the client sends: whole requests to read."""
        self._buffer += data
        size = 8 if self.rtu else 12
        while len(self._buffer) >= size:
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            tid = 0 if self.rtu else int.from_bytes(request[:2], "big")
            unit, pdu = (request[0], request[1:-2]) if self.rtu else (request[6], request[7:])
            self._replies.append(self._answer(tid, unit, pdu))
        if not self._busy:
            self._send_next()

    def _send_next(self) -> None:
        """Send replies until one takes its time; no reply overtakes another."""
        self._busy = False
        while self._replies:
            data, wait_s = self._replies[0]
            if wait_s:
                self._replies[0] = data, 0.0
                self._busy = True
                asyncio.get_running_loop().call_later(wait_s, self._send_next)
                return
            self._replies.popleft()
            self.send(data)

    def _answer(self, tid: int, unit: int, asked: bytes) -> tuple[bytes, float]:
        r = self._random
        whole = self._whole(tid, unit, reply_to(asked))
        if self.honest or r.random() < HONEST_SHARE:
            return whole, 0.0
        # A checked frame that lies about its length and comes late cannot be told from another.
        kind = r.choice(self._kinds[len(PDUS) :] if self.rtu and self._busy else self._kinds)
        self.counts[kind if isinstance(kind, str) else kind.__name__] += 1
        if kind == "late":
            return whole, self.timeout_s * r.uniform(1.1, 4.5)
        if kind == "lost":
            return b"", 0.0
        forged = reply_to(asked, FORGED)
        if kind in PDUS:
            return self._whole(tid, unit, kind(r, asked, forged)), 0.0
        return kind(r, tid, unit, asked, forged), 0.0

    def _whole(self, tid: int, unit: int, pdu: bytes) -> bytes:
        return rtu_frame(unit, pdu) if self.rtu else frame(tid, unit, pdu)

    def serve_client(self) -> asyncio.Protocol:
        """Return the protocol of one TCP connection; late replies go to the newest one."""
        device = self

        class Client(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                device.send, device._buffer = transport.write, b""

            def data_received(self, data: bytes) -> None:
                device.take(data)

        return Client()


@contextlib.asynccontextmanager
async def served(device: Device, framing: str) -> Any:
    """Serve a device; give the keys of a connection to it."""
    loop = asyncio.get_running_loop()
    if framing != "serial":
        server = await loop.create_server(device.serve_client, "127.0.0.1", 0)
        try:
            yield {"framing": framing, "port": server.sockets[0].getsockname()[1]}
        finally:
            server.close()
        return
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    device.send = lambda data: os.write(master, data) and None if data else None
    loop.add_reader(master, lambda: device.take(os.read(master, 4096)))
    try:
        yield {"framing": framing, "serial": {"port": os.ttyname(slave), "baud": 115200}}
    finally:
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


def spec_of(name: str, timeout_s: float, keys: dict[str, Any]) -> DeviceSpec:
    limits = {"timeout_s": timeout_s, "connect_timeout_s": 5.0, "reconnect_max_s": 0.001}
    return DeviceSpec.model_validate(
        {
            "name": name,
            "connection": limits | keys,
            "stale_after_s": 3600,
            "bad_after_s": 3600,
            "points": {
                name: {
                    "table": "holding", "address": address,
                    "type": "uint16" if count == 1 else "uint32",
                }
                for name, (address, count) in ADDRESSES.items()
            },
        }
    )  # fmt: skip


TRUTH = {
    name: float(int.from_bytes(struct.pack(">2H", register(a), register(a + 1))[: 2 * n], "big"))
    for name, (a, n) in ADDRESSES.items()
}


class Result:
    """What all devices did, and what was made of it."""

    def __init__(self) -> None:
        self.polls = self.good_polls = self.wrong_values = self.not_recovered = 0
        self.counts: Counter[str] = Counter()
        self.stats: Counter[str] = Counter()


async def read_one(framing: str, seed: int, frames: int, timeout_s: float, out: Result) -> None:
    """Read one device until it has sent its share of malformed frames, then until it is good."""
    device = Device(framing, seed, timeout_s)
    async with served(device, framing) as keys:
        spec = spec_of(f"d{seed}", timeout_s, keys)
        reader = DeviceReader(spec, ModbusClient(spec.connection))
        truth = np.array([TRUTH[name] for name in reader.names])

        async def poll() -> bool:
            good = await reader.poll()
            values = reader.state()[0]
            out.wrong_values += int(np.count_nonzero((values != truth) & ~np.isnan(values)))
            await asyncio.sleep(0)
            return good

        while sum(device.counts.values()) < frames:
            out.polls += 1
            good = await poll()
            out.good_polls += good
        device.honest = True
        limit_s = time.monotonic() + RECOVERY_LIMIT_S
        while not await poll() and time.monotonic() < limit_s:
            await asyncio.sleep(0.01)
        out.not_recovered += int(np.any(reader.state()[2]))
        reader.link.close()
        await asyncio.sleep(0)
    out.counts.update(device.counts)
    for key, value in vars(reader.link.stats).items():
        if isinstance(value, int):
            out.stats[key] += value


async def fuzz(
    framing: str, frames: int, *, devices: int, seed: int, timeout_s: float
) -> dict[str, Any]:
    out, start_s = Result(), time.perf_counter()
    each = -(-frames // devices)
    await asyncio.gather(
        *(read_one(framing, seed * devices + i, each, timeout_s, out) for i in range(devices))
    )
    return {
        "framing": framing,
        "frames": sum(out.counts.values()),
        "kinds": dict(sorted(out.counts.items())),
        "seconds": round(time.perf_counter() - start_s, 1),
        "polls": out.polls,
        "good_polls": out.good_polls,
        "wrong_values": out.wrong_values,
        "not_recovered": out.not_recovered,
        "client": dict(out.stats),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framing", choices=("tcp", "rtu-over-tcp", "serial"), default="tcp")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=200, help="read side by side")
    parser.add_argument("--timeout", type=float, default=0.2, help="deadline of a request, s")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    result = asyncio.run(
        fuzz(
            given.framing, given.frames, devices=given.devices, seed=given.seed,
            timeout_s=given.timeout,
        )
    )  # fmt: skip
    print(json.dumps(result, indent=2))
    return 1 if result["wrong_values"] or result["not_recovered"] else 0


if __name__ == "__main__":
    sys.exit(main())
