"""The agent: registers, sensor, relay and watchdog in one loop.

Fails to off: without a fresh and believable temperature, without a valid set-point, at any exit,
the relays are open. The Modbus side is guarded by the heartbeat of the register map.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from grid_models.base.errors import FeederateError
from hil.modbus.tls import server_context
from hil.rpi.relay import RelayControl, Relays, RelayTiming, Use
from hil.rpi.sensor import (
    DEFAULT_PATTERN,
    NO_READING_YET,
    RoomTemperature,
    SensorLimits,
    W1Sensor,
)
from hil.servers.tcp import ModbusTcpServer
from hil.servers.thermostat import Thermostat

#: Of control, of the sensor and of the sign of life to systemd.
PERIOD_S = 1.0


def notify(state: str) -> bool:
    """Send systemd a state such as ``READY=1`` (sd_notify(3)), if it started us."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
        return True
    return False


@dataclass
class Agent:
    """One thermostat on hardware.

    Parameters
    ----------
    power_w : What the unit draws while it runs, for the register; there is no meter.
    limits : What is believed of the sensor; the relays open where nothing is.
    now : Monotonic clock, s.
    """

    sensor: W1Sensor
    relays: Relays
    timing: RelayTiming = field(default_factory=RelayTiming)
    power_w: float = 0.0
    limits: SensorLimits = field(default_factory=SensorLimits)
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.thermostat = Thermostat(gap_k=self.timing.band_k)
        self.control = RelayControl(self.timing, self.now())
        self.room = RoomTemperature(self.now, self.limits)
        self._told = ""
        self._last_s = self.now()
        self._energy_wh = 0.0
        self._using = Use.none

    def step(self) -> Use:
        """Decide and switch once; return what runs."""
        now_s = self.now()
        dt_s, self._last_s = now_s - self._last_s, now_s
        if self._using is not Use.none:
            self._energy_wh += self.power_w * dt_s / 3600.0
        self.thermostat.advance(dt_s)
        temp_c, fault = self.room.temp_c, self.room.fault
        if fault not in (self._told, NO_READING_YET):
            print(f"sensor: {fault or 'good again'}", file=sys.stderr, flush=True)
            self._told = fault
        use = self.control.step(now_s, temp_c, self.thermostat.targets)
        self._using = self.relays.apply(use)
        self.room.running = self._using is not Use.none
        self.thermostat.measured(
            temp_c,
            cooling=self._using is Use.cooling,
            heating=self._using is Use.heating,
            power_w=self.power_w if self._using is not Use.none else 0.0,
        )
        self.thermostat.waiting(self.control.waiting)
        self.thermostat.bank.values["energy_wh"] = self._energy_wh
        return self._using

    async def run(self, server: ModbusTcpServer, stop: asyncio.Event) -> None:
        """Serve and control until `stop`; the relays are open afterwards, whatever happens."""
        reader = threading.Thread(target=self._read_forever, args=(stop,), daemon=True)
        try:
            await server.start()
            print(f"listening: thermostat {server.host}:{server.port} unit 1", flush=True)
            reader.start()
            notify("READY=1")
            while not stop.is_set():
                self.step()
                notify("WATCHDOG=1")  # only after a whole pass
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), PERIOD_S)
        finally:
            self.relays.close()
            notify("STOPPING=1")
            stop.set()
            await server.close()

    def _read_forever(self, stop: asyncio.Event) -> None:
        """Read the sensor in a thread: a reading takes 0.75 s, and may hang in the kernel."""
        while not stop.is_set():
            self.room.take(self.sensor.read_c())
            time.sleep(PERIOD_S)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="feederate-thermostat",
        description="Thermostat on a Raspberry Pi: Modbus/TCP registers, relays, 1-wire sensor.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=1502)
    parser.add_argument("--tls", metavar="CERTDIR", help="ca.pem, server.pem and server.key")
    parser.add_argument("--cool-pin", type=int, help="BCM number of the cooling relay")
    parser.add_argument("--heat-pin", type=int, help="BCM number of the heating relay")
    parser.add_argument("--active-low", action="store_true", help="relays close at 0 V")
    parser.add_argument("--sensor", default=DEFAULT_PATTERN, help="path of w1_slave; may hold *")
    limits = SensorLimits()
    for option, default, about in (
        ("--stale", limits.stale_s, "s without a temperature that open the relays"),
        ("--room-min", limits.low_c, "lowest believable temperature, degC"),
        ("--room-max", limits.high_c, "highest believable temperature, degC"),
        ("--jump", limits.jump_k, "largest believable change between two readings, K"),
        ("--stuck", limits.stuck_s, "s with the same reading, while the unit runs"),
    ):
        parser.add_argument(option, type=float, default=default, help=f"{about} (%(default)g)")
    parser.add_argument("--band", type=float, default=1.0, help="width of the band, K")
    parser.add_argument("--least-on", type=float, default=60.0, help="s")
    parser.add_argument("--least-off", type=float, default=180.0, help="s")
    parser.add_argument(
        "--power", type=float, default=0.0, help="W while it runs, for the register"
    )
    parser.add_argument("--off", action="store_true", help="open the relays and leave")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; return the exit code: 0 fine, 2 wrong input."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.cool_pin is None and given.heat_pin is None:
        parser.error("give --cool-pin, --heat-pin or both")
    if given.cool_pin == given.heat_pin:
        parser.error("--cool-pin and --heat-pin are the same")
    if not (given.band >= 0.5 and min(given.least_on, given.least_off, given.stale) >= 0.0):
        parser.error("--band is at least 0.5 K; times are not negative")
    if not (given.room_min < given.room_max and given.jump > 0.0 and given.stuck > 0.0):
        parser.error("--room-min is below --room-max; --jump and --stuck are above 0")
    try:
        tls = server_context(given.tls) if given.tls else None
        relays = Relays(given.cool_pin, given.heat_pin, active_high=not given.active_low)
        if given.off:
            relays.close()
            return 0
        timing = RelayTiming(given.band, given.least_on, given.least_off)
        limits = SensorLimits(
            given.room_min, given.room_max, given.jump, stuck_s=given.stuck, stale_s=given.stale
        )
        agent = Agent(W1Sensor(given.sensor), relays, timing, given.power, limits)
        server = ModbusTcpServer({1: agent.thermostat.bank}, given.host, given.port, tls=tls)
        asyncio.run(_run(agent, server))
    except FeederateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(agent: Agent, server: ModbusTcpServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await agent.run(server, stop)
