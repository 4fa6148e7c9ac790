"""Controller ``reconfiguration``: sees states of lines and switches, and operates the switches."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Link, Mail
from controllers.core.options import ControllerOptions, checked_number, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.reconfiguration.check import Demand
from controllers.reconfiguration.plan import Operation, Plan, Planner
from controllers.reconfiguration.sections import Sections
from grid_models.base.errors import nearest_name
from grid_models.feeder.energised import EnergisedNodes
from grid_models.feeder.model import Line, Switch, node_label

AGENT = "reconfiguration"
STATES = ("dark_kw", "operations")
_LEAST_KW = 1e-6


@dataclass(frozen=True, slots=True)
class ReconfigurationOptions(ControllerOptions):
    """Settings of the controller."""

    switches: Sequence[str] = option(
        ("*",), "Switches that it may operate, as names or globs.", shown="list of globs"
    )
    confirm_s: float = option(10.0, "A state that lasts so long is acted on.", low=0.0)
    interval_s: float = option(
        0.0, "Least time between two operations; 0: one operation per step.", low=0.0
    )
    priority: Mapping[str, float] = field(
        default_factory=dict,
        metadata={
            "meaning": "Worth of a restored kW by names or globs of loads and DERs; all others 1. "
            "The first that fits counts.",
            "choices": (),
            "shown": "",
        },
    )
    v_min_pu: float | None = option(
        None, "Lowest voltage of a configuration; default: the scenario's band.", above=0.0
    )
    v_max_pu: float | None = option(None, "Highest voltage, likewise.", above=0.0)
    transfers: bool = option(
        True,
        "Whether sections that are supplied may be supplied another way. A transfer opens one "
        "switch and closes another in one operation.",
    )
    restore_normal: bool = option(
        True, "Whether it goes back to the normal configuration when no line is faulted."
    )
    retry_s: float = option(
        300.0, "While load is without supply: time after which it plans again.", above=0.0
    )

    def check(self) -> None:
        """Check the worths."""
        if not isinstance(self.priority, Mapping):
            raise ControllerError(
                f"{self.priority!r} is not accepted",
                where="option 'priority'",
                expected="globs with numbers, such as {load_65*: 10}",
            )
        for glob, worth in self.priority.items():
            checked_number(f"priority: {glob}", worth, low=0.0)


class Reconfiguration:
    """One agent that restores load.

    Inputs: ``switch_closed`` and ``switch_locked`` per line and switch; optional ``load_p_kw`` per
    load, and ``p_kw``, ``q_kvar`` per DER: what is measured while it is supplied is the demand that
    it is planned with, nominal loads and idle DERs where nothing is connected. Outputs:
    ``switch_set`` per line and switch (NaN: never operated), ``state`` with the demand that is
    without supply, kW, and the number of operations so far.

    A line or switch that obeys no command and is not in its normal state is faulted, as an open
    line. It is commanded to what it is, so that it does not move by itself when it is repaired.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._options = o = parse_options(ReconfigurationOptions, options, AGENT)
        if tuple(hosted) != (AGENT,):
            raise ControllerError(f"hosts {hosted}", where=AGENT, expected=AGENT)
        self._switches = _operable(site, o.switches)
        if site.ports is None:
            raise ControllerError("there is no circuit to check", where=AGENT, expected="a grid")
        self._feeder, self._ports = site.feeder, site.ports
        self._band = (o.v_min_pu or site.v_min_pu, o.v_max_pu or site.v_max_pu)
        if not self._band[0] < self._band[1]:
            raise ControllerError(
                f"no band is left between {self._band[0]:g} and {self._band[1]:g} pu",
                where=f"{AGENT}: options 'v_min_pu', 'v_max_pu'",
                expected="v_min_pu below v_max_pu",
            )
        feeder = site.feeder
        branches: tuple[Line | Switch, ...] = (*feeder.lines, *feeder.switches)
        self._normal = {e.name: e.closed for e in branches}
        self._lines = tuple(self._normal)
        loads = tuple(load.name for load in feeder.all_loads)
        ders = tuple(der.name for der in feeder.ders)
        self._weights = _weights((*loads, *ders), o.priority)
        self._demand = Demand.nominal(feeder)
        self._nodes = EnergisedNodes(feeder)
        at = {label: i for i, label in enumerate(self._nodes.labels)}
        first = [node_label(x.bus, x.phases[0]) for x in feeder.all_loads]
        first += [node_label(x.bus, x.phases[0]) for x in feeder.ders]
        self._first = np.array([at.get(label, 0) for label in first], dtype=np.intp)
        _check_size(site, self._switches)
        self._declare(loads, ders)
        self.links_in: tuple[Link, ...] = ()
        self.links_out: tuple[Link, ...] = ()
        self._command = np.full(len(self._lines), np.nan)
        self._closed = np.array([self._normal[name] for name in self._lines], dtype=bool)
        self._locked = np.zeros(len(self._lines), dtype=bool)
        self._live = self._reached()
        self._expected, self._known = self._closed.copy(), self._locked.copy()
        self._odd_since_s: float | None = None
        self._next_s, self._retry_s = 0.0, np.inf
        self._queue: deque[Operation] = deque()
        self._operations = 0
        self._locked_out: set[str] = set()
        self._repaired: set[str] = set()
        self._restored_kw = self._most_dark_kw = 0.0
        self._events: list[dict[str, Any]] = []

    def _declare(self, loads: tuple[str, ...], ders: tuple[str, ...]) -> None:
        self.inputs = (
            Port("switch_closed", "1", self._lines, initial=np.nan),
            Port("switch_locked", "1", self._lines, initial=np.nan),
            Port("load_p_kw", "kW", loads, initial=np.nan, required=False),
            Port("p_kw", "kW", ders, initial=np.nan, required=False),
            Port("q_kvar", "kvar", ders, initial=np.nan, required=False),
        )
        self.outputs = (Port("switch_set", "1", self._lines, np.nan), Port("state", "", STATES))

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the one agent."""
        parse_options(ReconfigurationOptions, options, AGENT)
        return (AGENT,)

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return 0: it does nothing while all is well."""
        return 0.0

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, for the run's list of events."""
        events, self._events = self._events, []
        return events

    def summary(self) -> dict[str, float]:
        """Return the run's metrics."""
        return {
            "switching_operations": float(self._operations),
            "restored_kw": self._restored_kw,
        }

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Read the states; plan when they changed; do the next operation of the plan."""
        self._read(inputs)
        as_expected = (self._closed == self._expected).all() and (self._locked == self._known).all()
        if as_expected:
            self._odd_since_s = None
            if not self._queue and time_s >= self._retry_s:
                self._decide(time_s, again=True)
            if self._queue and time_s >= self._next_s:
                self._operate(self._queue.popleft(), time_s)
        elif self._odd_since_s is None:
            self._odd_since_s = time_s
        elif time_s - self._odd_since_s >= self._options.confirm_s:
            self._odd_since_s = None
            self._decide(time_s)
            if self._queue and time_s >= self._next_s:
                self._operate(self._queue.popleft(), time_s)
        state = np.array([self._dark_kw(), float(self._operations)])
        return ControllerStep({"switch_set": self._command.copy(), "state": state})

    def _read(self, inputs: Mapping[str, FloatArray]) -> None:
        closed, locked = inputs["switch_closed"], inputs["switch_locked"]
        closed = np.where(np.isnan(closed), self._closed, closed > 0.5).astype(bool)
        if (closed != self._closed).any():
            self._closed = closed
            self._live = self._reached()
        self._locked = np.where(np.isnan(locked), self._locked, locked > 0.5).astype(bool)
        n = len(self._demand.load_kw)
        measured = inputs["load_p_kw"]
        use = self._live[:n] & ~np.isnan(measured)
        load_kw = np.where(use, measured, self._demand.load_kw)
        der_kva = inputs["p_kw"] + 1j * np.nan_to_num(inputs["q_kvar"])
        use = self._live[n:] & ~np.isnan(inputs["p_kw"])
        self._demand = Demand(load_kw, np.where(use, der_kva, self._demand.der_kva))

    def _reached(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which loads and DERs are supplied, (n_loads + n_ders,)."""
        return self._nodes.reach(self._states())[self._first]

    def _states(self) -> dict[str, bool]:
        return dict(zip(self._lines, self._closed.tolist(), strict=True))

    def _dark_kw(self) -> float:
        return float(self._demand.consumed_kw()[~self._live].sum())

    def _tell(self, kind: str, **details: Any) -> None:
        self._events.append({"event": kind, **details})

    # --- planning --------------------------------------------------------------------------------

    def _decide(self, time_s: float, *, again: bool = False) -> None:
        """Take the present state as it is, and make a plan for it."""
        self._expected, self._known = self._closed.copy(), self._locked.copy()
        self._queue.clear()
        states = self._states()
        locked = {name for name, on in zip(self._lines, self._locked, strict=True) if on}
        held = {name for name in locked if self._normal[name] != states[name]}
        for name in sorted(self._locked_out - locked):
            self._tell("repaired", element=name)
        new = sorted(held - self._locked_out)
        # A repaired line is ours to close until it is closed, maybe not at the first attempt.
        self._repaired |= self._locked_out - locked
        self._repaired = {x for x in self._repaired - locked if states[x] != self._normal[x]}
        operable = (self._switches | self._repaired) - locked
        self._locked_out |= held
        self._locked_out &= locked
        if new:
            self._tell("fault_found", elements=new, dark_kw=round(self._dark_kw(), 3))
        planner = Planner(
            self._feeder,
            self._ports,
            states,
            operable,
            self._demand,
            self._band,
            self._weights,
            transfers=self._options.transfers,
        )
        if held or not self._go_normal(planner, operable):
            plan = planner.best()
            if plan.restored_kw < _LEAST_KW and not planner.sections.loops(planner.now):
                # Lower losses are no reason to switch in a fault.
                plan = replace(plan, operations=(), checked=planner.check(planner.now))
            self._plan(plan, again)
        if new:
            self._queue.appendleft({name: states[name] for name in new})
        self._retry_s = time_s + self._options.retry_s if self._dark_kw() else np.inf

    def _go_normal(self, planner: Planner, operable: set[str]) -> bool:
        """Queue the way back to the normal configuration; return whether there is one."""
        if not self._options.restore_normal:
            return False
        normal, states = {name: self._normal[name] for name in operable}, self._states()
        operations = planner.to(normal)
        if operations is None:
            reason = planner.check(planner.sections.closed_now(states | normal)).violation
            self._tell(
                "normal_not_allowed",
                reason=reason or "no allowed way leads there, or it has a loop",
            )
            return False
        if operations:
            self._tell("back_to_normal", operations=_words(operations))
        self._queue.extend(operations)
        return True

    def _plan(self, plan: Plan, again: bool) -> None:
        self._queue.extend(plan.operations)
        if again and not plan.operations:
            return
        self._tell(
            "plan",
            operations=_words(plan.operations),
            restored_kw=round(plan.restored_kw, 3),
            dark_kw=round(plan.dark_kw, 3),
            losses_kw=round(plan.checked.losses_kw, 3),
            v_min_pu=round(plan.checked.v_min_pu, 5),
            not_restored=dict(plan.dark),
        )
        self._restored_kw = max(self._restored_kw, plan.restored_kw)

    def _operate(self, operation: Operation, time_s: float) -> None:
        for name, closed in operation.items():
            at = self._lines.index(name)
            self._command[at] = float(closed)
            if not self._locked[at]:
                self._expected[at] = closed
        self._operations += 1
        self._next_s = time_s + self._options.interval_s
        self._tell("operation", switches=_words([operation]))


def _words(operations: Sequence[Operation]) -> list[str]:
    """Return operations in words, 'open sw4', 'open sw5 and close sw7'."""
    one = {True: "close", False: "open"}
    return [" and ".join(f"{one[on]} {name}" for name, on in op.items()) for op in operations]


def _operable(site: ControlSite, globs: Sequence[str]) -> set[str]:
    """Return the switches that the controller may operate."""
    names = [switch.name for switch in site.feeder.switches]
    if not names:
        raise ControllerError(
            f"feeder '{site.feeder.name}' has no switch",
            where=AGENT,
            expected="a feeder with switches (switches.csv, or lines with switch=yes)",
        )
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise ControllerError(
                f"'{glob}' fits no switch",
                where=f"{AGENT}: option 'switches'",
                expected=", ".join(names),
                nearest=nearest_name(glob, names),
            )
    return {name for name in names if any(fnmatchcase(name, glob) for glob in globs)}


def _check_size(site: ControlSite, switches: set[str]) -> None:
    """Refuse a feeder with more switches than can be enumerated."""
    sections = Sections.of(site.feeder, {}, switches)
    next(sections.without_stubs(np.ones(sections.size)).trees())


def _weights(names: Sequence[str], priority: Mapping[str, float]) -> FloatArray:
    weights = np.ones(len(names))
    for i, name in enumerate(names):
        for glob, worth in priority.items():
            if fnmatchcase(name, glob):
                weights[i] = worth
                break
    for glob in priority:
        if not any(fnmatchcase(name, glob) for name in names):
            raise ControllerError(
                f"'{glob}' fits no load or DER",
                where=f"{AGENT}: option 'priority'",
                nearest=nearest_name(glob, names),
            )
    return weights
