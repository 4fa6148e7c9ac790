"""The side channel: terminal conditions to an emulated plant, its injections back.

JSON lines over TCP, each with one line back; the keys: "The side channel" in docs/emulators.md. A
line with an error changes nothing. The channel is physics, not a fieldbus: it has no access
control and belongs on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grid_models.base.errors import FeederateError
from hil.devices.errors import ServerError, cannot_listen
from hil.emulators.plant import Plant
from hil.servers.faults import Faults

_MAX_LINE = 1 << 20
#: Longest advance in one line, s; a wrong unit must not block the process.
_MAX_ADVANCE_S = 86400.0


class GridChannel:
    """Serves the side channel of one plant.

    Parameters
    ----------
    faults : One per device.
    by_grid : Whether ``t`` advances the plant.
    step_s : Longest step of the plant inside one advance, s; inf for one step per line.
    to_present : Called before and after each line: what was written until now counts until now, and
        the answer is what the new inputs and commands make of it.
    """

    def __init__(
        self,
        plant: Plant,
        faults: Sequence[Faults],
        *,
        by_grid: bool,
        step_s: float,
        to_present: Callable[[], None] = lambda: None,
    ) -> None:
        self._to_present = to_present
        self.plant, self.faults, self.by_grid, self.step_s = plant, faults, by_grid, step_s
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` is the real one afterwards."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_LINE)
        except (OSError, OverflowError) as error:
            where = f"grid side channel {host}:{port}"
            raise cannot_listen(ServerError, error, where) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        # ValueError: the line is longer than any that makes sense.
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                writer.write(json.dumps(self.handle(line)).encode() + b"\n")
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def handle(self, line: bytes) -> dict[str, Any]:
        """Return the answer to one line."""
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ServerError("not an object", where="grid side channel", expected="{...}")
            self._apply(message)
        except (ValueError, RecursionError) as error:
            return {"error": f"not JSON: {error}"}
        except FeederateError as error:
            return {"error": str(error)}
        outputs = {name: array.tolist() for name, array in self.plant.outputs().items()}
        return {"t": self.plant.time_s, **outputs}

    def _apply(self, message: Mapping[str, Any]) -> None:
        inputs = {k: v for k, v in message.items() if k not in ("t", "fault", "device")}
        target_s = self._target_s(message["t"]) if "t" in message else self.plant.time_s
        fault = str(message.get("fault", "none"))
        chosen = self._chosen(message.get("device")) if "fault" in message else []
        Faults.parse(fault)
        self._to_present()
        self.plant.set_inputs(inputs)
        for faults in chosen:
            faults.set(fault)
        advance(self.plant, target_s - self.plant.time_s, self.step_s)
        self._to_present()

    def _target_s(self, value: object) -> float:
        now = self.plant.time_s
        if not self.by_grid:
            raise ServerError(
                "time is the wall clock here",
                where="grid side channel, t",
                expected="an emulator that was started with --time grid",
            )
        if isinstance(value, bool):
            value = None
        if isinstance(value, int | float) and now <= value <= now + _MAX_ADVANCE_S:
            return float(value)
        raise ServerError(
            f"t is {value}",
            where="grid side channel",
            expected=f"a time from {now:g} s to one day later",
        )

    def _chosen(self, device: object) -> list[Faults]:
        n = len(self.faults)
        if device is None:
            return list(self.faults)
        if isinstance(device, int) and 0 <= device < n:
            return [self.faults[device]]
        raise ServerError(
            f"device is {device}", where="grid side channel", expected=f"0 to {n - 1}"
        )


def advance(plant: Plant, dt_s: float, step_s: float) -> None:
    """Advance a plant in equal steps of at most `step_s`; not at all where no time passes."""
    if dt_s <= 1e-9:
        return
    steps = max(1, int(-(-dt_s // step_s))) if step_s < dt_s else 1
    for _ in range(steps):
        plant.advance(dt_s / steps)
