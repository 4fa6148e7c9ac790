"""The Modbus/TCP adapter: many devices, read in the background, written through the guard.

Sketch of use (every method may be called from any thread, none blocks longer than it says)::

    specs = [load_device_file("inverter.yaml"), load_device_file("thermostat.yaml")]
    with Adapter(specs, armed={"inverter"}, audit=Path("audit.jsonl")) as adapter:
        adapter.poll(timeout_s=2.0)                        # read everything once, now
        adapter.heartbeat()                                # once per step: "I am alive"
        adapter.command("inverter", "p_limit_pct", 80.0)   # queued; latest value per point wins
        adapter.flush(timeout_s=2.0)                       # optional: wait until it was written
        view = adapter.snapshot()                          # arrays over all devices and points
        reading = adapter.latest()["inverter"]["p_kw"]     # Reading(value, quality, age_s)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hil.device_file import DeviceSpec
from hil.points import Reading, Value


class Adapter:
    """Reads and commands devices from a thread of its own.

    Parameters
    ----------
    devices : sequence of DeviceSpec
        Names must be unique. A device that is not on loopback must be in `armed`, unless
        `read_only`.
    armed : collection of str
        Names of the devices that may be written; all others are read only.
    audit : Path
        Append-only audit log, one JSON object per line.
    read_only : bool
        Refuse every write; devices elsewhere may then be read without arming (bench use).
    watchdog : bool
        Start the independent watchdog process for the armed devices (tests may leave it out).

    Raises
    ------
    ArmingError
        A device is not on loopback and not armed, or `armed` has an unknown name.
    """

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        *,
        armed: Collection[str] = (),
        audit: Path,
        read_only: bool = False,
        watchdog: bool = True,
    ) -> None:
        raise NotImplementedError

    def start(self, *, wait_s: float = 0.0) -> None:
        """Start thread, watchdog and polling; wait up to `wait_s` for a first reading of all."""

    def poll(self, *, timeout_s: float = 5.0) -> dict[str, dict[str, Reading]]:
        """Read every point once, now, and return `latest`; what did not come keeps its age."""
        raise NotImplementedError

    def latest(self) -> dict[str, dict[str, Reading]]:
        """Return device -> point -> Reading, without any traffic."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """Return all readings as arrays, without any traffic."""
        raise NotImplementedError

    def points(self, device: str) -> list[str]:
        """Return the device's point names (SunSpec repeats are known after its first scan)."""
        raise NotImplementedError

    def command(self, device: str, point: str, value: Value) -> None:
        """Ask for a set-point; returns at once. The guard decides, the audit log says how.

        Raises
        ------
        GuardError
            Not armed, not in the allow-list, latched fault, unknown name: known at once. (Limits
            clamp or refuse later, in the background; see `events`.)
        """

    def adopt_curve(
        self, device: str, model: int, xy: Sequence[tuple[float, float]], **fields: Value
    ) -> None:
        """Write a SunSpec curve (705, 706, 712), adopt it and check the result; returns at once."""

    def flush(self, *, timeout_s: float = 5.0) -> bool:
        """Wait until every queued command was decided and written; False if time ran out."""
        raise NotImplementedError

    def heartbeat(self) -> None:
        """Say that the federation is alive; without it every armed device goes to safe state."""

    def safe_state(self, why: str, *, devices: Collection[str] | None = None) -> None:
        """Bring devices to their safe values; returns at once."""

    def reset_fault(self, device: str) -> None:
        """Forget a latched fault, after a person looked at the device."""

    def faults(self) -> dict[str, str]:
        """Return device -> reason, for devices with a latched fault."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """Return and forget what happened since the last call (refused, clamped, fault, ...)."""
        raise NotImplementedError

    @property
    def stats(self) -> Mapping[str, Any]:
        """Requests, timeouts, wrong replies, reconnects, lost polls, lateness percentiles."""
        raise NotImplementedError

    def close(self, *, timeout_s: float = 5.0) -> bool:
        """Bring armed devices to their safe values, stop; True if every one was verified."""
        raise NotImplementedError

    def __enter__(self) -> Adapter:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
