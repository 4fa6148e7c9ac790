"""Drives the federates of one process that share a HELICS federate. Used by both HELICS hosts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from federates.core.pacing import Pacer
from federates.core.shell import Shell
from federates.hosts.gate import Gate, check_topics
from federates.hosts.helics_bus import HelicsMember
from federates.hosts.loop import StepLoop
from federates.hosts.outcome import BusLostError, Control, Failure


def drive(
    shells: Mapping[str, Shell],
    member: HelicsMember,
    horizon_ns: int,
    control: Control,
    gate: Gate,
    pacer: Pacer | None = None,
) -> float:
    """Run all steps before `horizon_ns`; return the wall time they took.

    With a pacer the steps of the shells that keep the wall clock wait for it, and the federates
    that read from them wait, too.

    However it ends, the federation is left: with a global error when a federate failed, so that
    the others stop at once, and with a normal disconnect otherwise. The first failure of the run
    is kept in `control`.
    """
    loop = StepLoop(shells, member.buses, horizon_ns, control, pacer, member.advance)
    watched = [partner for shell in shells.values() for partner in shell.wiring.watched]
    began = time.perf_counter()
    try:
        loop.start()
        gate.wait()
        member.initialise()
        check_topics(member, watched)
        member.enter()
        began = time.perf_counter()
        loop.run()
        if watched and not control.stop.is_set():
            member.advance(horizon_ns)
            for name, shell in shells.items():
                shell.look_last(member.buses[name])
    except BusLostError as error:
        # The federate that failed first reports the cause within the time waited here.
        if not control.stop.wait(2.0):
            control.fail(Failure.heard(loop.current, str(error)))
    except BaseException as error:
        failure = Failure.of(loop.current, error)
        control.fail(failure)
        member.fail(f"federate '{failure.federate}': {failure.reason}")
    finally:
        member.leave()
    return time.perf_counter() - began
