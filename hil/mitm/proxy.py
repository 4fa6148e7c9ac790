"""A man in the middle on Modbus/TCP: real TCP proxies between clients and devices.

Each target gets a port of this machine; what connects there reaches the device, through the rules
of the steps that are active. All proxies live in one thread of their own::

    target = MitmTarget("inverter", "192.0.2.7", 502, 1, [RewriteRule(0, point="p_w", value=0.0)])
    with MitmProxy([target], n_steps=1) as proxy:
        proxy.learn("inverter", wire_points(spec, ["p_w"], found))
        host, port = proxy.places["inverter"]           # for the client to connect to
        proxy.set_active(np.array([0.0]), time_s=60.0)  # seconds since the step's begin; nan: off
        ...
        proxy.drain()                                   # what was true, what was seen
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grid_models.base.errors import nearest_name
from hil.devices.errors import DeviceError
from hil.mitm.rules import Forged, Unrestored, WirePoint
from hil.mitm.session import INTERFACES
from hil.mitm.target import MitmTarget, TargetProxy
from hil.modbus.pcapng import Address, Capture

__all__ = ["MitmProxy", "MitmTarget"]

FloatArray = npt.NDArray[np.float64]
_ANSWER_S = 5.0


class MitmProxy:
    """Proxies in a thread of their own.

    Parameters
    ----------
    n_steps : Steps of the attack: the length of what `set_active` is given.
    seed : Of the draws.
    captures : Capture of each target, by name.

    Raises DeviceError: A capture cannot be written.
    """

    def __init__(
        self,
        targets: Sequence[MitmTarget],
        *,
        n_steps: int,
        seed: int = 0,
        captures: Mapping[str, Path] | None = None,
    ) -> None:
        self.targets = tuple(targets)
        self.places: dict[str, Address] = {}
        self._captures = {
            name: Capture(path, INTERFACES) for name, path in (captures or {}).items()
        }
        self._at = {t.name: TargetProxy(t, seed, self._captures.get(t.name)) for t in targets}
        self._active = np.zeros(n_steps, dtype=bool)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen; `places` says where afterwards.

        Raises DeviceError: An address cannot be used.
        """
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name="modbus-mitm", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            self._end_captures()
            raise

    async def _main(self, started: concurrent.futures.Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            for name, target in self._at.items():
                self.places[name] = await target.listen()
        except DeviceError as error:
            started.set_exception(error)
            self._stop.set()
        else:
            started.set_result(None)
        await self._stop.wait()
        await asyncio.gather(*(target.close() for target in self._at.values()))
        await asyncio.sleep(0)  # let closed transports say goodbye

    def close(self) -> None:
        """End all steps, close all connections, restore what the steps wrote.

        Takes seconds where a device does not acknowledge it; then `unrestored` says what remains.
        """
        if self._thread is None or not self._thread.is_alive():
            self._end_captures()
            return
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_ANSWER_S * 2)
        self._end_captures()

    def _end_captures(self) -> None:
        for capture in self._captures.values():
            capture.close()

    def __enter__(self) -> MitmProxy:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- control ----------------------------------------------------------------------------------

    def learn(self, name: str, points: Mapping[str, WirePoint]) -> None:
        """Say where points of a device lie; rules about others do nothing.

        Raises DeviceError: There is no such target.
        """
        if name not in self._at:
            raise DeviceError(
                f"there is no target '{name}'",
                expected=", ".join(self._at) or "a target",
                nearest=nearest_name(name, self._at),
            )
        self._at[name].attack.points = dict(points)

    def knows(self, name: str) -> bool:
        """Return True where `learn` was told of a device."""
        return bool(self._at[name].attack.points)

    def set_active(self, elapsed_s: FloatArray, time_s: float = math.nan) -> None:
        """Say which steps are active; when it returns, frames are treated so.

        Parameters
        ----------
        elapsed_s : (n_steps,); Seconds since the begin of each step; nan where it is not active.
        time_s : Simulated time, for the records.
        """
        active = ~np.isnan(elapsed_s)
        for target in self._at.values():
            target.attack.time_s = time_s
        if np.array_equal(active, self._active):
            return
        self._active = active
        self._run(self._activate(active))
        for capture in self._captures.values():
            capture.flush()

    async def _activate(self, active: npt.NDArray[np.bool_]) -> None:
        await asyncio.gather(
            *(
                target.activate(
                    frozenset(i for i, r in enumerate(target.spec.rules) if active[r.step])
                )
                for target in self._at.values()
            )
        )

    def _run(self, work: Any) -> None:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            work.close()
            raise DeviceError("the proxy is not running", expected="start() before, not closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        # A device may not answer; the steps are switched all the same.
        with contextlib.suppress(concurrent.futures.TimeoutError):
            future.result(_ANSWER_S)

    # -- truth ------------------------------------------------------------------------------------

    def drain(self) -> list[Forged]:
        """Return and forget what was changed since the last call, in order."""
        out = []
        for target in self._at.values():
            records = target.attack.records
            while records:
                out.append(records.popleft())
        return out

    def true_values(self, name: str) -> dict[str, float]:
        """Return the points whose last reply was forged, with what the device had said."""
        return dict(self._at[name].attack.true)

    def acted(self) -> dict[int, int]:
        """Return how many frames each step has acted on, by its position."""
        out: dict[int, int] = {}
        for target in self._at.values():
            for step, n in dict(target.attack.acted).items():
                out[step] = out.get(step, 0) + n
        return out

    def unrestored(self) -> list[Unrestored]:
        """Return the points that ended steps wrote and that are not restored yet.

        It is tried again until it is, or the proxy has closed.
        """
        targets = self._at.values()
        return [point for target in targets for point in target.attack.all_unrestored()]

    def opaque(self) -> list[str]:
        """Return the targets with connections that did not carry Modbus."""
        return [
            name
            for name, t in self._at.items()
            if t.opaque_count or any(s.opaque for s in list(t.sessions))
        ]
