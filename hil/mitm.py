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

It can read and change plain Modbus only. TLS passes through it as bytes that it can hold back or
cut, and nothing else.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from grid_models.errors import nearest_name
from hil.errors import DeviceError
from hil.mitm_attack import DeviceAttack, undo
from hil.mitm_client import OwnClient, flood
from hil.mitm_frames import read_payload, write_request
from hil.mitm_rules import FloodRule, Forged, RewriteRule, Rule, WirePoint, WriteRule
from hil.mitm_session import INTERFACES, Session
from hil.pcapng import Address, Capture

FloatArray = npt.NDArray[np.float64]
_ANSWER_S = 5.0


@dataclass(frozen=True)
class MitmTarget:
    """One device to stand in front of.

    Parameters
    ----------
    name : str
    host, port, unit : str, int, int
        Where it really is. Frames of other unit ids pass untouched.
    rules : sequence of Rule
    listen : (str, int)
        Where clients reach it; port 0 takes a free one.
    """

    name: str
    host: str
    port: int
    unit: int
    rules: Sequence[Rule] = ()
    listen: Address = ("127.0.0.1", 0)


class _Target:
    """A target at work, inside the loop."""

    def __init__(self, spec: MitmTarget, seed: int, capture: Capture | None) -> None:
        self.spec = spec
        self.attack = DeviceAttack(spec.name, spec.unit, spec.rules, seed)
        self.capture = capture
        self.sessions: set[Session] = set()
        self.opaque_count = 0
        self.own = OwnClient((spec.host, spec.port), spec.unit, capture)
        self._floods: dict[int, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def listen(self) -> Address:
        loop = asyncio.get_running_loop()
        at = self.spec.listen
        try:
            self._server = await loop.create_server(self._admit, *at)
        except (OSError, OverflowError) as error:
            raise DeviceError(
                f"cannot listen: {error}",
                where=f"{at[0]}:{at[1]}",
                expected="a free port of this machine",
            ) from None
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    def _admit(self) -> asyncio.Protocol:
        target = self.spec.host, self.spec.port
        session = Session(self.attack, target, self.capture, self._forget)
        self.sessions.add(session)
        return session.client

    def _forget(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.discard(session)
            self.opaque_count += session.opaque

    async def activate(self, active: frozenset[int]) -> None:
        """Let the active rules begin and the others end, and undo what those did."""
        before, self.attack.active = self.attack.active, active
        for i in sorted(before - active):
            await self._end(i, self.attack.rules[i])
        for i in sorted(active - before):
            await self._begin(i, self.attack.rules[i])

    async def _begin(self, i: int, rule: Rule) -> None:
        if isinstance(rule, FloodRule):
            work = flood((self.spec.host, self.spec.port), self.spec.unit, self.attack, rule)
            self._floods[i] = asyncio.get_running_loop().create_task(work)
        elif isinstance(rule, WriteRule):
            await self._write_self(i, rule)

    async def _end(self, i: int, rule: Rule) -> None:
        task = self._floods.pop(i, None)
        if task is not None:
            task.cancel()
        written = self.attack.written.pop(i, None)
        if written is not None and isinstance(rule, RewriteRule | WriteRule):
            await self.own.exchange(undo(*written), f"{rule.label} ends: {rule.point} restored")

    async def _write_self(self, i: int, rule: WriteRule) -> None:
        """Read what is there, to give it back at the end; then write."""
        attack = self.attack
        point = attack.points.get(rule.point)
        if point is None or not attack.acts(i):
            return
        place = point.place
        function = {"coil": 1, "holding": 3}[place.table]
        request = bytes([function, *divmod(place.address, 256), *divmod(place.words, 256)])
        payload = None
        reply = await self.own.exchange(request, f"{rule.label}: reads {rule.point}")
        if reply and not reply[0] & 0x80:
            payload = read_payload((place.table, place.address, place.words), reply)
        found = point.words(rule.value, point.sf)
        if payload is None or found is None:
            return
        words, seen = found
        before = payload.get(place)
        note = f"{rule.label}: writes {rule.point} = {seen:g}"
        reply = await self.own.exchange(write_request(place, words, point.function), note)
        if reply and not reply[0] & 0x80:
            attack.written[i] = point, before
            attack.record(rule.point, point.value(before, point.sf), seen, rule.step)

    async def close(self) -> None:
        """Undo, hang up on everybody, stop listening."""
        await self.activate(frozenset())
        if self._server is not None:
            self._server.close()
        for session in list(self.sessions):
            session.close()
        if self._server is not None:
            await self._server.wait_closed()


class MitmProxy:
    """Proxies in a thread of their own.

    Parameters
    ----------
    targets : sequence of MitmTarget
    n_steps : int
        Steps of the attack: the length of what `set_active` is given.
    seed : int
        Of the draws.
    captures : mapping of str to Path, optional
        Capture of each target, by name.

    Raises
    ------
    DeviceError
        A capture cannot be written.
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
        self._at = {t.name: _Target(t, seed, self._captures.get(t.name)) for t in targets}
        self._active = np.zeros(n_steps, dtype=bool)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen; `places` says where afterwards.

        Raises
        ------
        DeviceError
            An address cannot be used.
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
        """End all steps, give back what they wrote, hang up on everybody."""
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- control ----------------------------------------------------------------------------------

    def learn(self, name: str, points: Mapping[str, WirePoint]) -> None:
        """Say where points of a device lie; rules about others do nothing.

        Raises
        ------
        DeviceError
            There is no such target.
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
        elapsed_s : ndarray, shape (n_steps,)
            Seconds since the begin of each step; nan where it is not active.
        time_s : float
            Simulated time, for the records.
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
        try:
            future.result(_ANSWER_S)
        except concurrent.futures.TimeoutError:
            future.cancel()  # a device that does not answer; its steps are on or off all the same

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

    def opaque(self) -> list[str]:
        """Return the targets on whose connections something else than Modbus was spoken."""
        return [
            name
            for name, t in self._at.items()
            if t.opaque_count or any(s.opaque for s in list(t.sessions))
        ]
