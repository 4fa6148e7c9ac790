"""What is asked of HELICS before the first step, on a federation that is written down."""

from __future__ import annotations

from typing import Any, cast

import pytest

from controllers.core.ports import Port
from federates.clock import Timing
from federates.core.oedisi import Topic
from federates.core.progress import Progress
from federates.core.watch import Partner
from federates.errors import PartnerError
from federates.hosts import gate
from federates.hosts.gate import Gate, Guests, check_topics
from federates.hosts.helics_broker import Core, Endpoint
from federates.hosts.helics_bus import HelicsMember
from federates.hosts.outcome import BusLostError, Control

PORT = Port("q", "kvar", ("a",))


class _Core:
    """A core that knows global values, and federates that have joined."""

    endpoint = Endpoint("tcp_ss", "tcp://127.0.0.1:23500")

    def __init__(self, joined: list[str] | None, values: dict[str, Any], state: str = "") -> None:
        self.joined, self.values, self.state = joined, values, state

    def ask(self, target: str, question: str) -> Any:
        if target == "global_value":
            return self.values.get(question)
        if question == "current_state":
            names = enumerate(self.joined or ())
            return {
                "cores": [{"attributes": {"id": i}, "state": self.state} for i, _ in names],
                "federates": [
                    {"attributes": {"name": name, "parent": i}}
                    for i, name in enumerate(self.joined or ())
                ],
            }
        return self.joined

    def set_global(self, name: str, value: str) -> None:
        self.values[name] = value

    def learn_names(self) -> None:
        self.learnt = True


def _gate(core: _Core, guests: Guests) -> Gate:
    return Gate(cast(Core, core), guests, ["feeder"], Control(Progress(1), 1.0))


def _guests(**changes: Any) -> Guests:
    given = {"ours": ("feeder",), "programs": ("lab",), "topics": (), "join_timeout_s": 0.01}
    return Guests(**(given | changes))


def test_the_gate_opens_when_all_have_joined_and_initialise() -> None:
    core = _Core(["feeder", "lab"], {}, "init_requested")
    door = _gate(core, _guests())
    door.arrived(["feeder"])
    door.wait()
    assert core.learnt


@pytest.mark.parametrize(
    ("joined", "state", "words"),
    [
        (["feeder"], "init_requested", "waited for 'lab' at broker tcp://127.0.0.1:23500, core"),
        (["feeder", "lab"], "connected", r"'lab' \(it does not initialise\)"),
        (["feeder", "labb"], "init_requested", "not in the scenario: 'labb', instead of 'lab'"),
    ],
)
def test_who_is_missing_is_named(joined: list[str], state: str, words: str) -> None:
    core = _Core(joined, {}, state)
    door = _gate(core, _guests())
    door.arrived(["feeder"])
    with pytest.raises(PartnerError, match=words) as caught:
        door.wait()
    assert caught.value.federate == "lab"
    assert "federate 'lab': not ready" in core.values["feederate/failed"]  # for other processes


def test_what_another_process_found_ends_the_wait() -> None:
    door = _gate(_Core([], {"feederate/failed": "federate 'lab': no"}), _guests())
    with pytest.raises(BusLostError, match="federate 'lab': no"):
        door.wait()


def test_a_broker_that_does_not_answer_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_SILENT_S", 0.2)
    with pytest.raises(BusLostError, match="does not answer"):
        _gate(_Core(None, {}), _guests(join_timeout_s=60.0)).wait()


def test_two_hosts_with_different_seeds_are_named_with_both() -> None:
    values: dict[str, Any] = {"feederate": {"seed": "1", "steps": "30"}}
    _gate(_Core([], values), _guests(identity={"seed": "1", "steps": "30"}))
    with pytest.raises(PartnerError, match="seed: 1 there, 2 here; expected the same"):
        _gate(_Core([], values), _guests(identity={"seed": "2", "steps": "30"}))


class _Member:
    """A federation while it initialises: what is published, read, and by nobody."""

    def __init__(
        self, published: dict[str, tuple[str, str]], unread: list[str], unknown: list[str]
    ):
        self.published, self.unread, self.unknown = published, unread, unknown

    def ask(self, target: str, question: str) -> Any:
        if question == "publications":
            return list(self.published)
        federates = [{"unconnected_publications": self.unread}]
        return {"unknown_publications": self.unknown, "cores": [{"federates": federates}]}

    def published_as(self, source: str, port: str) -> tuple[str, str]:
        return self.published.get(f"{source}/{port}", ("", "any"))


def _check(member: _Member) -> None:
    outputs = ((PORT, Topic("lab/q")),)
    partner = Partner("lab", Timing(60), outputs, ("feeder/v_pu",), None, 600)
    check_topics(cast(HelicsMember, member), [partner])


@pytest.mark.parametrize("unit", ["kvar", "kVAR", ""])
def test_a_program_as_declared_passes(unit: str) -> None:
    _check(_Member({"lab/q": (unit, "double_vector")}, [], []))


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (_Member({"lab/q": ("kW", "double_vector")}, [], []), "published in 'kW'.*says 'kvar'"),
        (_Member({"lab/q": ("", "string")}, [], []), "as string; expected a vector"),
        (_Member({"lab/qq": ("", "double")}, [], ["lab/q"]), "nobody publishes.*'lab/qq'"),
        (
            _Member({"lab/q": ("", "double")}, ["feeder/v_pu"], ["feeder/vpu"]),
            "nobody reads the topic 'feeder/v_pu'.*somebody reads 'feeder/vpu'",
        ),
    ],
)
def test_what_a_program_does_not_do_as_declared(member: _Member, words: str) -> None:
    with pytest.raises(PartnerError, match=words) as caught:
        _check(member)
    assert caught.value.federate == "lab"
