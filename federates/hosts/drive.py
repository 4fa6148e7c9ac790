"""Drives the federates of one process that share a HELICS federate. Used by both HELICS hosts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from federates.core.pacing import Pacer
from federates.core.shell import Shell
from federates.hosts.helics_bus import HelicsMember
from federates.hosts.loop import StepLoop
from federates.hosts.outcome import BusLostError, Control, Failure


def drive(
    shells: Mapping[str, Shell],
    member: HelicsMember,
    horizon_ns: int,
    control: Control,
    pacer: Pacer | None = None,
) -> float:
    """Run all steps before `horizon_ns`; return the wall time they took.

    With a pacer each step of the first shell waits for the wall clock, and the federates that read
    from it wait with it.

    However it ends, the federation is left: with a global error when a federate failed, so that
    the others stop at once, and with a normal disconnect otherwise. The first failure of the run
    is kept in `control`.
    """
    loop = StepLoop(shells, member.buses, horizon_ns, control, pacer, member.advance)
    began = time.perf_counter()
    try:
        loop.start()
        member.enter()
        began = time.perf_counter()
        loop.run()
    except BusLostError as error:
        # The federate that failed first reports the cause within the time waited here.
        if not control.stop.wait(2.0):
            control.fail(Failure(loop.current, f"lost the federation: {error}"))
    except BaseException as error:
        failure = Failure.of(loop.current, error)
        control.fail(failure)
        member.fail(f"{failure.federate}: {failure.reason}")
    finally:
        member.leave()
    return time.perf_counter() - began
