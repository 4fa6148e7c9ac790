"""The loop of one federate on HELICS: wait for the grant, read, step. Shared by both hosts."""

from __future__ import annotations

import time

from federates.core.pacing import Pacer
from federates.core.shell import Shell
from federates.hosts.helics_bus import HelicsBus
from federates.hosts.outcome import BusLostError, Control, Failure


def drive(
    shell: Shell, bus: HelicsBus, horizon_ns: int, control: Control, pacer: Pacer | None = None
) -> float:
    """Run all steps before `horizon_ns`; return the wall time they took.

    With a pacer each step waits for the wall clock, and the federates that read from this one wait
    with it.

    However it ends, the federation is left: with a global error when this federate failed, so that
    the others stop at once, and with a normal disconnect otherwise. The first failure of the run
    is kept in `control`.
    """
    name = shell.federate.name
    timing = shell.federate.timing
    began = time.perf_counter()
    try:
        shell.start()
        bus.enter()
        began = time.perf_counter()
        for k in range(timing.steps_before(horizon_ns)):
            now_ns = timing.offset_ns + k * timing.period_ns
            bus.advance(now_ns)
            if pacer is not None:
                pacer.wait(now_ns, control.stop)
            if control.stop.is_set():
                break
            shell.read(bus, now_ns)
            shell.step(bus, now_ns)
    except BusLostError as error:
        # The federate that failed first reports the cause within the time waited here.
        if not control.stop.wait(2.0):
            control.fail(Failure(name, f"lost the federation: {error}"))
    except BaseException as error:
        failure = Failure.of(name, error)
        control.fail(failure)
        bus.fail(f"{name}: {failure.reason}")
    finally:
        bus.leave()
    return time.perf_counter() - began
