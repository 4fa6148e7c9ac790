"""Emulators in a thread of this process, for tests and notebooks.

>>> with background(inverters(2, 10.0)) as devices:      # doctest: +SKIP
...     my_client(devices.ports[0])
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hil.emulators.host import EmulatorHost
from hil.emulators.options import EmulatorOptions
from hil.emulators.plant import Plant


@dataclass(frozen=True)
class Background:
    """Emulators that are served.

    Attributes
    ----------
    ports : One per device, or one for all with `EmulatorOptions.one_port`.
    grid_port : Of the side channel; 0 without one.
    host : Its plant belongs to the other thread; do not change it from here.
    """

    ports: list[int]
    grid_port: int
    host: EmulatorHost


@contextmanager
def background(plant: Plant, options: EmulatorOptions | None = None) -> Iterator[Background]:
    """Serve `plant` until the block ends.

    Raises ServerError: An address cannot be used.
    """
    lines: list[str] = []
    names = [f"device_{i + 1}" for i in range(len(plant.banks))]
    listening = threading.Event()
    problems: list[BaseException] = []
    host = EmulatorHost(plant, names, options or EmulatorOptions(), lines.append)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        task = asyncio.create_task(host.run())
        while len(lines) < len(names) + (host.options.grid_port is not None) and not task.done():
            await asyncio.sleep(0.005)
        listening.set()
        await task

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(main())
        except BaseException as error:
            problems.append(error)
        finally:
            listening.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    listening.wait()
    if problems:
        thread.join()
        raise problems[0]
    try:
        yield Background([s.port for s in host.servers], host.channel.port, host)
    finally:
        with suppress(RuntimeError):  # the loop has ended by itself; `problems` says why
            loop.call_soon_threadsafe(host.stopped.set)
        thread.join(10.0)
        if problems:
            raise problems[0]
