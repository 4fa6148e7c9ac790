"""The start of a federation: who is there, who is missing, and whether all mean the same run.

HELICS waits for federates by number and without a word. Here each process holds its own federates
back until every name of the scenario is there, and says for whom it waits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from federates.core.watch import Partner
from federates.errors import PartnerError
from federates.hosts.outcome import BusLostError, Control
from grid_models.base.errors import nearest_hint, nearest_name

if TYPE_CHECKING:
    from federates.core.wiring import FederateWiring
    from federates.hosts.helics_broker import Core
    from federates.hosts.helics_bus import HelicsMember
    from federates.scenario.schema import Scenario

_LOOK_EVERY_S = 0.1
_FIRST_WORDS_S = 2.0
_SILENT_S = 5.0
_FAILED = "feederate/failed"
_TEXT = ("string", "char", "json")
# Ways of writing one unit; ours comes first.
_SAME_UNITS = (
    ("kvar", "kVAR", "kVAr", "kVar"),
    ("kW", "kw"),
    ("pu", "p.u.", "PU"),
    ("deg", "degree", "degrees"),
)


@dataclass(frozen=True)
class Guests:
    """Who takes part in a run; plain data for every process of it.

    Attributes
    ----------
    ours : Names of all our federates, on whatever host.
    programs : Names of the external federates.
    topics : Topics that the external federates publish.
    join_timeout_s : Longest wait for everybody.
    identity : What hosts compare before they start; None on one host.
    """

    ours: tuple[str, ...]
    programs: tuple[str, ...]
    topics: tuple[str, ...]
    join_timeout_s: float
    identity: dict[str, str] | None = None


def guests(
    scenario: Scenario,
    ours: Sequence[str],
    wirings: Mapping[str, FederateWiring],
    n_steps: int,
    spans_hosts: bool,
) -> Guests:
    """Return who takes part in a run."""
    partners = [partner for wiring in wirings.values() for partner in wiring.watched]
    return Guests(
        tuple(ours),
        tuple(partner.name for partner in partners),
        tuple(topic.name for partner in partners for _, topic in partner.outputs),
        scenario.time.join_timeout_s,
        _identity(scenario, n_steps) if spans_hosts else None,
    )


def _identity(scenario: Scenario, n_steps: int) -> dict[str, str]:
    """Return what two hosts of one run must have in common, each value short enough to print."""
    from federates.core.run_store import package_versions

    sections = scenario.resolved()
    seed = sections.pop("seed")
    return {
        "version": str(package_versions()["feederate"]),
        "seed": str(seed),
        "steps": str(n_steps),
        **{f"scenario's {key}": _digest(value) for key, value in sections.items()},
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def announced(say: Callable[[str], None], words: Callable[[], str]) -> Iterator[None]:
    """Say after 2, 4, 8 ... seconds, each minute at least, for what the body waits."""
    done = threading.Event()

    def speak() -> None:
        began, pause = time.monotonic(), _FIRST_WORDS_S
        while not done.wait(pause):
            waited = time.monotonic() - began
            pause = min(waited, 60.0)
            say(f"since {waited:.0f} s: {words()}")

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        done.set()
        speaker.join()


class Gate:
    """Holds back the federates of one process until everybody is there.

    Parameters
    ----------
    core : The process' core.
    here : Names of the federates that run on it.
    """

    def __init__(self, core: Core, guests: Guests, here: Sequence[str], control: Control) -> None:
        self._core = core
        self._guests = guests
        self._control = control
        self._lock = threading.Lock()
        self._open = False
        self._missing: list[str] = []
        self._half: list[str] = []
        self._answered = 0.0
        self._strangers: list[str] = []
        self._here = here
        if guests.identity is not None:
            self._compare(guests.identity)

    def _compare(self, mine: dict[str, str]) -> None:
        """Compare this host with the one that came first."""
        theirs = self._core.ask("global_value", "feederate")
        if theirs is None:
            self._core.set_global("feederate", json.dumps(mine))
            return
        keys = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
        if keys:
            values = [f"{key}: {theirs.get(key)} there, {mine.get(key)} here" for key in keys]
            raise self._refusal(
                PartnerError(
                    f"the hosts do not run the same: {'; '.join(values)}",
                    federate=", ".join(self._here),
                    expected="the same files and options on every host",
                )
            )

    def _refusal(self, error: PartnerError) -> PartnerError:
        """Tell the other processes why this one does not start."""
        self._core.set_global(_FAILED, f"federate '{error.federate}': {error}")
        self._core.ask("global_value", _FAILED)  # answered after it is known: this process may end
        return error

    def arrived(self, names: Iterable[str]) -> None:
        """Tell all processes that federates have registered."""
        for name in names:
            self._core.set_global(_flag(name), "here")

    def wait(self) -> None:
        """Return when everybody is there; the threads of a process wait together.

        Raises PartnerError: Somebody is missing after `join_timeout_s`.
        """
        with self._lock:
            if self._open:
                return
            if self._control.failure is not None:
                raise BusLostError("the run did not start")
            self._answered = time.monotonic()
            deadline = self._answered + self._guests.join_timeout_s
            with announced(self._control.say, self._words):
                while missing := self._look():
                    if self._control.stop.wait(_LOOK_EVERY_S):
                        raise BusLostError("the run was stopped while it waited")
                    if time.monotonic() > deadline:
                        raise self._refusal(self._too_late(missing))
            if self._guests.identity is not None:  # two hosts may have come at the same time
                self._compare(self._guests.identity)
            self._open = True
            self._core.learn_names()
            self._control.on_gathered()

    def _look(self) -> list[str]:
        """Return who is missing.

        Raises BusLostError: Another process does not start, or the broker has ended.
        """
        core, guests = self._core, self._guests
        failed, joined = core.ask("global_value", _FAILED), core.ask("root", "federates")
        if failed is not None:
            raise BusLostError(str(failed))
        if joined is not None:
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > _SILENT_S:  # a single query may fail
            raise BusLostError("the broker does not answer")
        joined = joined or []
        missing = [n for n in guests.ours if core.ask("global_value", _flag(n)) is None]
        self._strangers = [n for n in joined if n not in guests.ours and n not in guests.programs]
        missing += [n for n in guests.programs if n not in joined]
        # A program that has joined may still register its topics, or hang.
        setting_up = _setting_up(core.ask("root", "current_state") or {}) if guests.programs else []
        self._half = [n for n in guests.programs if n in setting_up]
        self._missing = missing + self._half
        return self._missing

    def _words(self) -> str:
        ends = f"the run ends at time.join_timeout_s = {self._guests.join_timeout_s:g} s"
        return f"waiting for {self._named()}; {ends}"

    def _named(self) -> str:
        endpoint = self._core.endpoint
        half = dict.fromkeys(self._half, " (it does not initialise)")
        missing = ", ".join(f"'{name}'{half.get(name, '')}" for name in self._missing)
        words = f"{missing} at broker {endpoint.address}, core type {endpoint.core_type}"
        if self._strangers:
            others = ", ".join(f"'{name}'" for name in self._strangers)
            near = next((n for n in self._missing if nearest_name(n, self._strangers)), None)
            words += f"; joined, but not in the scenario: {others}"
            words += f", instead of '{near}'?" if near else ""
        return words

    def _too_late(self, missing: list[str]) -> PartnerError:
        return PartnerError(
            f"not ready within time.join_timeout_s = {self._guests.join_timeout_s:g} s: "
            f"waited for {self._named()}",
            federate=", ".join(missing),
        )


def _flag(name: str) -> str:
    """Return the global value that says that one of our federates is there."""
    return f"feederate/{name}"


def _setting_up(state: Mapping[str, Any]) -> list[str]:
    """Return federates whose core has not yet asked to initialise, of HELICS' `current_state`."""
    cores = {c["attributes"]["id"]: c["state"] for c in state.get("cores", ())}
    return [
        f["attributes"]["name"]
        for f in state.get("federates", ())
        if cores.get(f["attributes"]["parent"]) == "connected"
    ]


def check_topics(member: HelicsMember, watched: Sequence[Partner]) -> None:
    """Compare what external programs publish and read with the scenario; all are initialising.

    Raises PartnerError: For the first program with a fault, every fault of it.
    """
    if not watched:
        return
    state = member.ask("root", "unconnected_interfaces") or {}
    nobody = list(state.get("unknown_publications", ()))
    unread = _unread(state)
    published: list[str] = member.ask("root", "publications") or []
    for partner in watched:
        problems = []
        for port, topic in partner.outputs:
            unit, kind = member.published_as(partner.name, port.name)
            words = f"topic '{topic.name}' of its output '{port.name}'"
            if topic.name in nobody:
                foreign = [name for name in published if name != topic.name]
                problems.append(f"nobody publishes the {words}{nearest_hint(topic.name, foreign)}")
            elif (kind in _TEXT) != (topic.codec is not None):
                expected = "a string with JSON" if topic.codec else "a vector of numbers"
                problems.append(f"the {words} is published as {kind}; expected {expected}")
            elif topic.codec is None and unit and not _same_unit(unit, port.unit):
                problems.append(
                    f"the {words} is published in '{unit}'; the scenario says '{port.unit}'"
                )
        for name in partner.reads:
            if name in unread:
                near = nearest_name(name, [n for n in nobody if n not in published])
                instead = f"; somebody reads '{near}', which nobody publishes" if near else ""
                problems.append(f"nobody reads the topic '{name}' of its inputs{instead}")
        if problems:
            raise PartnerError("\n  ".join(problems), federate=partner.name)


def _unread(state: Mapping[str, Any]) -> set[str]:
    """Return the publications that nobody reads, of HELICS' `unconnected_interfaces`."""
    federates = [f for core in state.get("cores", ()) for f in core.get("federates", ())]
    return {name for f in federates for name in f.get("unconnected_publications", ())}


def _same_unit(one: str, other: str) -> bool:
    return one == other or any(one in names and other in names for names in _SAME_UNITS)
