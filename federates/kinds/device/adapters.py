"""The adapters of a device federate, and the emulators that the run starts itself.

Real devices live in wall-clock time: a step takes the latest readings and never waits for a device.
Emulated ones live in simulated time: a step writes the set-points, waits until they have arrived,
lets the emulator pass the step, and reads it; so a run is as fast as it can be and gives the same
numbers each time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from federates.kinds.device.emulators import Emulator, rating_groups
from federates.kinds.device.live import is_emulated
from federates.kinds.device.models import Surroundings
from federates.kinds.device.roles import PortPoint
from federates.kinds.device.section import DeviceFederateSection
from federates.scenario.schema import shipped_dir
from grid_models.feeder.model import Der
from hil.adapter.adapter import Adapter
from hil.adapter.guard import check_arming
from hil.adapter.snapshot import Snapshot
from hil.adapter.unsafe import unsafe_text
from hil.devices.errors import NotSafeError
from hil.devices.file import load_device_file
from hil.devices.points import Quality
from hil.devices.spec import DeviceSpec

if TYPE_CHECKING:
    from federates.core.context import FederateContext
    from federates.core.run_store import RunStore
    from federates.kinds.device.live import DeviceGroup, Flags, Live

_START_S = 10.0
_UNFINISHED: list[Adapter] = []
_REPEATING = ("refused", "clamped", "limited")


class Pulse:
    """Sends heartbeats to an adapter as long as the federation's steps keep coming.

    A step may be longer than a device's heartbeat, so a thread sends heartbeats between the
    steps. It stops when the next step is overdue; the guard then makes the devices safe.

    Parameters
    ----------
    every_s : Wall time between two beats.
    patience_s : Longest wall time between two steps of a federation that is alive.
    repeat : Called with each beat between two steps: says the last commands again.
    """

    def __init__(
        self,
        adapter: Adapter,
        every_s: float,
        patience_s: float,
        repeat: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapter, self._every_s, self._patience_s = adapter, every_s, patience_s
        self._repeat, self._now = repeat, now
        self._last_s = now()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Note that a step came."""
        self._last_s = self._now()
        self._adapter.heartbeat()

    def _beat(self) -> None:
        while not self._end.wait(self._every_s):
            if self._now() - self._last_s < self._patience_s:
                self._adapter.heartbeat()
                self._repeat()

    def close(self) -> None:
        """Stop the heartbeats."""
        self._end.set()
        self._thread.join()


class AdapterGroup:
    """Devices behind one adapter; a `federates.kinds.device.live.Live`.

    Parameters
    ----------
    specs : One per DER, named like it.
    patience_s : See `Pulse`.
    advance : Lets emulators pass the step; without it the devices live in wall-clock time.
    last : Called at the end, when the devices are safe.
    """

    def __init__(
        self,
        ders: Sequence[Der],
        specs: Sequence[DeviceSpec],
        inputs: Sequence[PortPoint],
        outputs: Sequence[PortPoint],
        adapter: Adapter,
        patience_s: float,
        advance: Callable[[Surroundings], None] | None = None,
        last: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._names, self._specs = [der.name for der in ders], specs
        self.connections = [spec.connection for spec in specs]
        self._adapter = adapter
        self._advance, self._last = advance, last
        self._timeout_s = 4.0 * max(spec.connection.timeout_s for spec in specs)
        self._inputs = [(p, _factors(p, ders, specs)) for p in inputs]
        self._outputs = [(p, _factors(p, ders, specs)) for p in outputs]
        self._commands: dict[str, dict[str, float]] = {}
        self._at: list[NDArray[np.intp]] = []
        self._generation = -1
        self._told: set[tuple[str, str, str]] = set()
        self._refused_count = 0
        shortest_s = min(spec.guard.heartbeat_s for spec in specs)
        self._pulse = Pulse(adapter, shortest_s / 4.0, patience_s, self._send)

    def exchange(
        self, around: Surroundings, asked: Mapping[str, tuple[FloatArray, Flags]]
    ) -> tuple[Mapping[str, FloatArray], FloatArray]:
        """Command and read; see `federates.kinds.device.live.Live`."""
        commands = {}
        for p, factor in self._inputs:
            array, given = asked[p.port]
            at = np.flatnonzero(given).tolist()
            values = (array / factor)[at].tolist()
            commands[p.point] = dict(zip([self._names[i] for i in at], values, strict=True))
        self._commands = commands
        self._pulse.step()
        self._send()
        asked_s = -np.inf
        if self._advance is not None:
            self._adapter.flush(timeout_s=self._timeout_s)
            self._advance(around)
            # In simulated time a value from before belongs to another step.
            asked_s = time.monotonic()
            self._adapter.refresh(timeout_s=self._timeout_s)
        return self._gather(self._adapter.snapshot(), asked_s)

    def pass_time(self, around: Surroundings) -> None:
        """Advance emulators by one period; see `federates.kinds.device.live.Live`."""
        self._pulse.step()
        if self._advance is not None:
            self._advance(around)

    def _send(self) -> None:
        for point, values in self._commands.items():
            # Refusals are recorded by the adapter, in its audit log and its events.
            self._refused_count += self._adapter.command_all(point, values)

    def _gather(self, view: Snapshot, asked_s: float) -> tuple[dict[str, FloatArray], FloatArray]:
        """Return values by port and the worst quality of each device's points."""
        if view.generation != self._generation:
            self._at = [view.find(self._names, p.point) for p, _ in self._outputs]
            self._generation = view.generation
        quality = np.zeros(len(self._names))
        values = {}
        oldest_s = time.monotonic() - asked_s
        for (p, factor), at in zip(self._outputs, self._at, strict=True):
            value, found, age_s = view.at(at)
            values[p.port] = value * factor
            late = np.where(age_s > oldest_s, float(Quality.STALE), 0.0)
            quality = np.maximum(quality, np.maximum(found, late))
        return values, quality

    def events(self) -> list[dict[str, Any]]:
        """Return and forget what happened."""
        out = []
        for event in self._adapter.events():
            if event.kind in _REPEATING:
                # The same event may come with each step; the audit log has all of them.
                key = (event.device, event.kind, event.text.partition(": ")[2])
                if key in self._told:
                    continue
                self._told.add(key)
            out.append({"device": event.device, "what": event.kind, "text": event.text})
        return out

    def summary(self) -> dict[str, float]:
        """Return counts of the adapter."""
        lost = float(self._adapter.stats["lost_polls"])
        return {"commands_refused_count": float(self._refused_count), "polls_lost_count": lost}

    def link_quality(self) -> dict[str, float]:
        """Return counts and lateness of the polls; see `federates.kinds.device.live.Live`."""
        stats = self._adapter.stats
        late = {f"lateness_{k}_ms": round(1e3 * v, 3) for k, v in stats["lateness_s"].items()}
        counts = ("devices", "polls", "lost_polls", "requests", "timeouts", "reconnects")
        return {**{key: stats[key] for key in counts if key in stats}, **late}

    def close(self) -> None:
        """Stop the heartbeats and bring the devices to their safe state.

        Raises NotSafeError: A real device is not.
        """
        with ExitStack() as stack:
            for callback in self._last:
                stack.callback(callback)
            stack.callback(self._close_adapter)
            self._pulse.close()

    def _close_adapter(self) -> None:
        safe = False
        with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait; what is said stays
            safe = self._adapter.close()
        if safe:
            return
        # Its watchdog still tries to reach a device, and is a child of this process.
        _UNFINISHED.append(self._adapter)
        text = unsafe_text(self._adapter.unsafe(), self._specs)
        if text and self._advance is None:  # emulated devices end with the run
            raise NotSafeError(f"{text}; a watchdog process goes on trying")


def _factors(port: PortPoint, ders: Sequence[Der], specs: Sequence[DeviceSpec]) -> FloatArray:
    """Return what each device's point is multiplied by."""
    return np.array([port.factor_in(spec, der) for der, spec in zip(ders, specs, strict=True)])


def connect(
    context: FederateContext, federate: DeviceGroup, store: RunStore
) -> list[tuple[list[int], Live]]:
    """Start emulators and adapters of a device federate; return groups by position.

    Raises
    ------
    DeviceFileError, ArmingError, ScenarioError
        A device file is wrong, a device elsewhere was not armed.
    """
    groups: list[tuple[list[int], Live]] = []
    with ExitStack() as undo:
        emulated = [i for i, kind in enumerate(federate.kinds_of) if is_emulated(kind)]
        if emulated:
            group = _emulated_group(context, federate, emulated, store)
            undo.callback(group.close)
            groups.append((emulated, group))
        real = [i for i, name in enumerate(federate.names) if name in federate.specs]
        if real:
            groups.append((real, _real_group(context, federate, real, store)))
        undo.pop_all()
    return groups


def _patience_s(context: FederateContext) -> float:
    """Longest wall time between two steps of a federation that is alive."""
    real_time = context.scenario.time.real_time
    if real_time is None:
        return context.scenario.time.step_timeout_s
    return 1.5 * context.period_s / real_time.factor


def _adapter(
    federate: DeviceGroup,
    specs: Sequence[DeviceSpec],
    store: RunStore,
    wait_s: float,
    *,
    armed: Sequence[str],
    watchdog: bool = True,
) -> Adapter:
    """Start an adapter, through the proxies of an attack where there are any.

    Raises DeviceError: Another run commands a device, or the watchdog does not start.
    """
    wire = federate.wire
    adapter = Adapter(
        specs,
        armed=armed,
        audit=store.folder / f"{federate.name}.audit.jsonl",
        watchdog=watchdog,
        via=wire.start_proxies(specs) if wire else None,
    )
    if wire:
        wire.use_scans_of(adapter, specs)
    adapter.start(wait_s=wait_s)
    return adapter


def _real_group(
    context: FederateContext, federate: DeviceGroup, index: list[int], store: RunStore
) -> Live:
    ders = [federate.ders[i] for i in index]
    specs = [federate.specs[der.name] for der in ders]
    armed = [name for name in context.armed if name in federate.specs]
    check_arming(specs, armed)  # before a proxy opens a way to them
    wait_s = max(s.connection.connect_timeout_s + s.poll_s for s in specs)
    adapter = _adapter(federate, specs, store, wait_s, armed=armed)
    ports = federate.set_points, federate.measured
    return AdapterGroup(ders, specs, *ports, adapter, _patience_s(context))


def _emulated_group(
    context: FederateContext, federate: DeviceGroup, index: list[int], store: RunStore
) -> Live:
    """Start emulators for some devices and an adapter that knows them; all are armed."""
    ders, role = [federate.ders[i] for i in index], federate.role.name
    plain = load_device_file(shipped_dir() / "devices" / f"emulated-{role}.yaml")
    section = context.section
    assert isinstance(section, DeviceFederateSection)
    houses = section.options.houses
    log = store.logs / f"{federate.name}-emulator.log"
    with ExitStack() as undo:
        emulators: list[tuple[list[int], Emulator]] = []
        known = federate.emulated_as
        configs = [known[d.name].config if d.name in known else "" for d in ders]
        for members in rating_groups(ders, configs):
            equal, config = [ders[i] for i in members], configs[members[0]]
            seed, dt_s = context.scenario.seed, context.period_s
            emulator = Emulator(role, equal, seed, dt_s, log, config, houses)
            undo.callback(emulator.close)
            emulators.append((members, emulator))
        places = {name: at for _, e in emulators for name, at in e.places.items()}
        specs = []
        for der in ders:
            host, port, unit = places[der.name]
            spec = known[der.name].spec if der.name in known else plain
            specs.append(spec.at(name=der.name, host=host, port=port, unit=unit))

        def advance(around: Surroundings) -> None:
            for members, emulator in emulators:
                emulator.send(around.at(members))
            for _, emulator in emulators:
                emulator.wait()

        # The run started these devices, and they end with it: no watchdog.
        names = [der.name for der in ders]
        adapter = _adapter(federate, specs, store, _START_S, armed=names, watchdog=False)
        undo.callback(adapter.close)
        ports, last = (federate.set_points, federate.measured), [e.close for _, e in emulators]
        group = AdapterGroup(ders, specs, *ports, adapter, _patience_s(context), advance, last)
        undo.pop_all()
    return group
