"""The man in the middle of one device federate: its proxies, its active steps, its ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from controllers.core.mail import FloatArray
from federates.attacks.modbus.layer import ModbusPlan
from federates.attacks.plan import BEGINS
from hil.mitm.proxy import MitmProxy, MitmTarget
from hil.mitm.rules import Forged, Unrestored, points_of, wire_points

if TYPE_CHECKING:
    from federates.attacks.truth import TruthWriter
    from federates.core.run_store import RunStore
    from hil.adapter.adapter import Adapter
    from hil.devices.spec import DeviceSpec

PORT = "modbus"
"""What ground truth calls the wire; its labels are ``DEVICE.POINT``."""
CAPTURES = "pcap"


class ModbusWire:
    """Proxies before the devices of one federate.

    Parameters
    ----------
    federate : Name of the device federate.
    plan : None: nothing is attacked, traffic is only captured.
    pcap : Capture the traffic of all devices outside this process, attacked or not.
    """

    def __init__(
        self, federate: str, plan: ModbusPlan | None, store: RunStore, *, pcap: bool = False
    ) -> None:
        self._federate, self._plan, self._store = federate, plan, store
        self._captures = store.folder / CAPTURES if pcap else None
        self._ids = plan.schedule.ids if plan else ()
        self._clock = plan.schedule.clock() if plan else None
        self._active = np.zeros(len(self._ids), dtype=bool)
        self._proxies: list[tuple[MitmProxy, dict[str, DeviceSpec]]] = []
        self._adapters: dict[str, Adapter] = {}
        self._opaque: set[str] = set()
        self._waiting: dict[tuple[str, int, str], Unrestored] = {}
        self._truth: TruthWriter | None = None
        if plan is not None:
            from federates.attacks.truth import TruthWriter

            channel = (federate, PORT, plan.labels)
            self._truth = TruthWriter(store.folder, federate, [channel], self._ids)
            self._place = {label: i for i, label in enumerate(plan.labels)}

    def start_proxies(self, specs: Sequence[DeviceSpec]) -> dict[str, tuple[str, int]]:
        """Start proxies before devices; return the host and port of each.

        Raises DeviceError.
        """
        rules = self._plan.rules if self._plan else {}
        chosen = {s.name: s for s in specs if self._captures is not None or s.name in rules}
        if not chosen:
            return {}
        targets = [
            MitmTarget(
                name, s.connection.host, s.connection.port, s.connection.unit, rules.get(name, ())
            )
            for name, s in chosen.items()
        ]
        seed = self._plan.seed if self._plan else 0
        proxy = MitmProxy(
            targets, n_steps=len(self._ids), seed=seed, captures=self._captures_of(chosen)
        )
        proxy.start()
        self._proxies.append((proxy, chosen))
        return proxy.places

    def _captures_of(self, names: Iterable[str]) -> dict[str, Path]:
        folder = self._captures
        return {n: folder / f"{n}.pcapng" for n in names} if folder is not None else {}

    def use_scans_of(self, adapter: Adapter, specs: Sequence[DeviceSpec]) -> None:
        """Take the places of SunSpec points of some devices from the scans of their adapter."""
        self._adapters |= {s.name: adapter for s in specs}

    def begin_step(self, time_s: float, inputs: Mapping[str, FloatArray]) -> None:
        """Begin and end the steps that do so at `time_s`."""
        if self._clock is None:
            return
        self._learn()
        if BEGINS in inputs:
            self._clock.set_begins(inputs[BEGINS])
        elapsed_s = self._clock.elapsed(time_s)
        for proxy, _ in self._proxies:
            proxy.set_active(elapsed_s, time_s)
        self._announce(elapsed_s, time_s)

    def _learn(self) -> None:
        """Tell the proxies the places of points; SunSpec devices must have been scanned."""
        rules = self._plan.rules if self._plan else {}
        for proxy, specs in self._proxies:
            for name, spec in specs.items():
                wanted = points_of(rules.get(name, ()))
                if wanted and not proxy.knows(name) and name in self._adapters:
                    found = self._adapters[name].sunspec_map(name)
                    proxy.learn(name, wire_points(spec, wanted, found))

    def _announce(self, elapsed_s: FloatArray, time_s: float) -> None:
        active = ~np.isnan(elapsed_s)
        for i in self._plan.announces if self._plan else ():
            if active[i] and not self._active[i]:
                self._store.event(self._federate, "attack_began", time_s, step=self._ids[i])
            elif self._active[i] and not active[i]:
                self._report_end(i, time_s)
        self._active = active

    def _report_end(self, i: int, time_s: float) -> None:
        frames = sum(proxy.acted().get(i, 0) for proxy, _ in self._proxies)
        step = self._ids[i]
        self._store.event(self._federate, "attack_ended", time_s, step=step, frames=frames)

    def end_step(self, time_s: float) -> None:
        """Write the forged values into the ground truth; report what changed."""
        forged = [record for proxy, _ in self._proxies for record in proxy.drain()]
        if self._truth is not None:
            self._write(forged)
            self._report_opaque(time_s)
            self._report_pending(time_s)

    def _report_opaque(self, time_s: float) -> None:
        """Report devices whose traffic is not Modbus, once each."""
        for name in (name for proxy, _ in self._proxies for name in proxy.opaque()):
            if name not in self._opaque:
                self._opaque.add(name)
                text = "what passes is not Modbus (TLS?): it can only be delayed or cut"
                self._store.event(self._federate, "attack_blind", time_s, device=name, text=text)

    def _report_pending(self, time_s: float) -> None:
        """Report writes of ended steps that a device has not undone yet, and when it has."""
        before = self._waiting
        unrestored = [point for proxy, _ in self._proxies for point in proxy.unrestored()]
        self._waiting = {(o.device, o.step, o.point): o for o in unrestored}
        for key, o in self._waiting.items():
            if key not in before:
                self._report_undo("attack_undo_waits", o, time_s)
        for key, o in before.items():
            if key not in self._waiting:
                self._report_undo("attack_undone", o, time_s)

    def _report_undo(self, event: str, unrestored: Unrestored, time_s: float | None = None) -> None:
        self._store.event(
            self._federate,
            event,
            time_s,
            step=self._ids[unrestored.step],
            device=unrestored.device,
            point=unrestored.point,
            value=unrestored.value,
        )

    def _write(self, forged: Sequence[Forged]) -> None:
        assert self._truth is not None
        if not forged:
            return
        self._truth.add(
            np.array([f.time_s for f in forged]),
            0,
            np.array([self._place[f"{f.device}.{f.point}"] for f in forged], dtype=np.int64),
            np.array([f.true for f in forged]),
            np.array([f.seen for f in forged]),
            np.array([f.step for f in forged], dtype=np.int64),
        )

    def true_values(self, device: str) -> Mapping[str, float]:
        """Return the points of a device whose last reading was forged, with the truth."""
        for proxy, specs in self._proxies:
            if device in specs:
                return proxy.true_values(device)
        return {}

    def summary(self) -> dict[str, float]:
        """Return how much was forged."""
        if self._truth is None:
            return {}
        frames = sum(sum(proxy.acted().values()) for proxy, _ in self._proxies)
        return {
            "attacked_values_count": float(self._truth.count),
            "attacked_frames_count": float(frames),
        }

    def stop(self) -> None:
        """End all steps, before the devices are brought to their safe state."""
        nothing = np.full(len(self._ids), np.nan)
        for proxy, _ in self._proxies:
            proxy.set_active(nothing)

    def close(self) -> None:
        """End the proxies and close the ground truth; report writes that are not undone."""
        with ExitStack() as stack:
            if self._truth is not None:
                stack.callback(self._truth.close)
            for proxy, _ in self._proxies:
                stack.callback(self._end, proxy)

    def _end(self, proxy: MitmProxy) -> None:
        proxy.close()
        for unrestored in proxy.unrestored():
            self._report_undo("attack_not_undone", unrestored)
