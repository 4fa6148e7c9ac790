"""The single host: no HELICS, one thread steps all federates in time order."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Mapping

from federates.core.interrupt import interrupt_main
from federates.core.pacing import Pacer
from federates.core.shell import Shell
from federates.hosts.loop import Memory, MemoryBus, StepLoop
from federates.hosts.outcome import Control, Failure, Outcome


def run_single(
    shells: Mapping[str, Shell], horizon_ns: int, control: Control, pacer: Pacer | None = None
) -> Outcome:
    """Step all shells in time order until `horizon_ns`; a pacer keeps the wall clock."""
    names = list(shells)
    memory = Memory(names)
    buses = {name: MemoryBus(name, memory) for name in names}
    loop = StepLoop(shells, buses, horizon_ns, control, pacer)
    outcome = Outcome()
    watchdog = _Watchdog(control, names)
    began = time.perf_counter()
    tell = control.on_progress

    def tell_steps() -> None:
        if tell is not None:
            tell(control.progress.steps(0))

    try:
        loop.start()
        began = time.perf_counter()
        loop.run(tell_steps)
    except KeyboardInterrupt:
        outcome.interrupted = control.failure is None
    except BaseException as error:  # a federate that calls sys.exit has failed, too
        control.fail(Failure.of(loop.current, error))
    finally:
        watchdog.close()
    outcome.stepping_s = time.perf_counter() - began
    outcome.failure = control.failure
    outcome.pacing = pacer.summary() if pacer is not None else None
    return outcome


class _Watchdog:
    """Interrupts the thread that it was made in when a step takes too long.

    A step of the main thread ends at once, also in a system call. In another thread it ends when it
    comes back to Python.
    """

    def __init__(self, control: Control, names: list[str]) -> None:
        self._control = control
        self._names = names
        self._done = threading.Event()
        self._watched = threading.current_thread()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        limit = self._control.step_timeout_s
        while not self._done.wait(min(0.5, limit / 4)):
            row = self._control.progress.hung(limit)
            if row is not None and not self._done.is_set():
                reason = f"one step took longer than step_timeout_s = {limit:g} s"
                self._control.fail(Failure(self._names[row], reason))
                self._interrupt()
                return

    def _interrupt(self) -> None:
        if self._watched is threading.main_thread():
            interrupt_main()
        else:  # a signal reaches the main thread only, which may do something else
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._watched.ident or 0), ctypes.py_object(KeyboardInterrupt)
            )

    def close(self) -> None:
        self._done.set()
        self._thread.join()
