"""The process that serves emulated devices: sockets, clock, side channel, end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from grid_models.base.parent import watch_parent
from hil.devices.errors import ServerError
from hil.emulators.grid_channel import GridChannel, advance
from hil.emulators.options import Clock, EmulatorOptions
from hil.emulators.plant import Plant
from hil.modbus.tls import server_context
from hil.servers.faults import Faults, FaultyBank
from hil.servers.pdu import Bank
from hil.servers.tcp import ModbusTcpServer

#: Longest jump of the wall clock that is simulated, s; a longer suspension is skipped.
_MAX_LAG_S = 60.0


@dataclass
class EmulatorHost:
    """Serves one plant.

    Parameters
    ----------
    names : One per device.
    say : Takes each line when everything listens.
    """

    plant: Plant
    names: Sequence[str]
    options: EmulatorOptions = field(default_factory=EmulatorOptions)
    say: Callable[[str], None] = lambda line: print(line, flush=True)

    def __post_init__(self) -> None:
        options, banks = self.options, self.plant.banks
        self._tls = None if options.tls is None else server_context(options.tls)
        self._step_s = options.step_s or 0.1
        self.by_grid = options.time is Clock.grid
        now = (lambda: self.plant.time_s) if self.by_grid else time.monotonic
        self.faults = [Faults.parse(options.fault, now) for _ in banks]
        faulty = [FaultyBank(b, faults) for b, faults in zip(banks, self.faults, strict=True)]
        self._check_room(len(banks))
        if options.one_port:
            # The server's own faults (silence, lateness) are those of the first device.
            units = {options.first_unit + i: bank for i, bank in enumerate(faulty)}
            self.servers = [self._server(units, options.port, self.faults[0])]
            self.faults = [self.faults[0]] * len(banks)
            for bank in faulty:
                bank.faults = self.faults[0]
        else:
            ports = [options.port + i if options.port else 0 for i in range(len(banks))]
            self.servers = [
                self._server({options.first_unit: bank}, port, faults)
                for bank, port, faults in zip(faulty, ports, self.faults, strict=True)
            ]
        step_s = self._step_s if self.by_grid else float("inf")
        self.channel = GridChannel(
            self.plant, self.faults, by_grid=self.by_grid, step_s=step_s, to_present=self._catch_up
        )
        self.stopped = asyncio.Event()
        self._last_s = time.monotonic()

    def _check_room(self, n: int) -> None:
        options = self.options
        last_unit = options.first_unit + (n - 1 if options.one_port else 0)
        last_port = options.port + (0 if options.one_port or not options.port else n - 1)
        if not 0 <= options.first_unit <= last_unit <= 247 or last_port > 65535:
            raise ServerError(
                f"no room for {n} devices from port {options.port}, unit {options.first_unit}",
                where="emulator",
                expected="unit ids up to 247 and ports up to 65535",
            )

    def _server(self, units: Mapping[int, Bank], port: int, faults: Faults) -> ModbusTcpServer:
        habits = self.plant.habits
        return ModbusTcpServer(
            units, self.options.host, port, tls=self._tls, faults=faults, habits=habits
        )

    async def start(self) -> None:
        """Listen on every port, then say so."""
        for server in self.servers:
            await server.start()
        if self.options.grid_port is not None:
            await self.channel.start(self.options.host, self.options.grid_port)
        kind = " (tls)" if self.options.tls else ""
        for i, name in enumerate(self.names):
            server = self.servers[0 if self.options.one_port else i]
            unit = self.options.first_unit + (i if self.options.one_port else 0)
            self.say(f"listening: {name} {server.host}:{server.port} unit {unit}{kind}")
        if self.options.grid_port is not None:
            self.say(f"listening: grid {self.options.host}:{self.channel.port}")

    async def close(self) -> None:
        """Stop serving."""
        await self.channel.close()
        for server in self.servers:
            await server.close()

    async def run(self) -> None:
        """Serve until `stopped`."""
        await self.start()
        # What was built so far stays; garbage collection of it would delay answers.
        gc.freeze()
        clock = asyncio.create_task(self._tick())
        end = asyncio.create_task(self.stopped.wait())
        try:
            # The clock task ends by a defect only; serving must not go on with frozen physics.
            await asyncio.wait((clock, end), return_when=asyncio.FIRST_COMPLETED)
            if clock.done():
                clock.result()
        finally:
            for task in (clock, end):
                task.cancel()
            await asyncio.gather(clock, end, return_exceptions=True)
            await self.close()

    async def _tick(self) -> None:
        """Advance with the wall clock."""
        options = self.options
        pace_s = 0.1 if self.by_grid else self._step_s / options.speed
        due_s = self._last_s = time.monotonic()
        while True:
            due_s = max(due_s + pace_s, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
            self._catch_up()

    def _catch_up(self) -> None:
        """Bring the plant to the present, where the wall clock rules; apply drift."""
        now_s = time.monotonic()
        if not self.by_grid:
            lag_s = min((now_s - self._last_s) * self.options.speed, _MAX_LAG_S)
            advance(self.plant, lag_s, float("inf"))
        self._last_s = now_s
        self.plant.set_reading_factors([f.reading_factor for f in self.faults])


def serve(
    plant: Plant, names: Sequence[str], options: EmulatorOptions, *, end_with_parent: bool = False
) -> None:
    """Serve a plant in this process until SIGTERM, SIGINT, or the end of the parent if asked.

    Raises ServerError: An address cannot be used, or there is no room for so many devices.
    """

    async def main() -> None:
        host, loop = EmulatorHost(plant, names, options), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, host.stopped.set)

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(host.stopped.set)

        if end_with_parent or options.end_with_parent:
            watch_parent(stop)
        await host.run()

    asyncio.run(main())
