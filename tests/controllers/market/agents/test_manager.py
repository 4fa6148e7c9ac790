"""The resilience manager with a market and a lossless five-bus grid, all in process.

The whole co-simulation is in ``tests/scenarios/test_attack_2b.py``; here are the manager's words,
what it cannot see, and how it behaves when something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Mail
from controllers.core.mail_loop import MailLoop, Post
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.manager import AGENT, ResilienceManager
from controllers.market.agents.mitigation import STATES
from controllers.market.agents.operator import COMMIT, TRIAL
from controllers.market.agents.primary import PrimaryMarket
from grid_models.feeder.model import Der

MARKET: dict[str, Any] = {
    "interval_s": 12.0, "generator_cost": {"*": 72.0, "gen_b2": 150.0}, "load_cost": [150.0, 300.0],
    "silent_after_s": 4.0, "manager": AGENT,
}  # fmt: skip
MANAGER: dict[str, Any] = {
    "interval_s": 12.0, "sample_s": 1.0, "sigma_kw": 2.0, "learn_s": 24.0, "settle_s": 6.0,
    "silent_after_s": 4.0, "score_priors": {"b2": 0.9},
}  # fmt: skip
BEGIN, END, STEPS = 48, 200, 330
Change = Callable[[FloatArray, np.random.Generator], FloatArray]


def attack_site() -> ControlSite:
    three = (1, 2, 3)
    ders = (
        Der("gen_b1", "inverter", "b1", three, 220.0, 200.0),
        Der("gen_b2", "inverter", "b2", three, 440.0, 400.0),
        Der("load_b3", "flexible_load", "b3", three, 330.0, -180.0, -300.0),
        Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0),
    )
    feeder = replace(sample_feeder(), ders=ders)
    return ControlSite(feeder, ders, 1.0, seed=3)


@dataclass(frozen=True)
class Cut(Post):
    """Mail that is cut where and when a rule says so."""

    rule: Callable[[str, int], bool] = field(default=lambda key, step: False)

    @property
    def perfect(self) -> bool:
        return False

    def draw(self, link_key: str, step: int, number: int) -> tuple[float, ...]:
        if self.rule(link_key, step):
            return (-1.0, 1.0, 0.0, 0.0)
        return super().draw(link_key, step, number)


class Trial:
    """Market, manager and grid; `tripped` are off the grid from BEGIN to END."""

    def __init__(
        self,
        tripped: tuple[str, ...] = (),
        post: Post | None = None,
        import_of: Callable[[int, float], float] = lambda k, p: p,
        meter: Callable[[Port, int, FloatArray], FloatArray] | None = None,
        **market: Any,
    ) -> None:
        site = attack_site()
        options = MARKET | market
        self.market = PrimaryMarket(site, PrimaryMarket.agents(site, **options), **options)
        self.manager = ResilienceManager(site, (AGENT,), **MANAGER)
        self._tripped = np.array([n in tripped for n in self.market.outputs[0].labels])
        self._import_of = import_of
        self._meter = meter
        self._loop = MailLoop([self.market, self.manager], post, self._measure, 1.0)
        self.import_kw: list[float] = []
        self.state: list[str] = []
        self.events: list[dict[str, Any]] = []

    def _p_kw(self, k: int) -> FloatArray:
        p_kw = self.market._smos.p_set_kw
        return np.where(self._tripped & (BEGIN <= k < END), 0.0, p_kw)

    def tamper(self, kind: str, steps: Sequence[int], change: Change) -> None:
        """Change what links of a kind deliver at some steps."""
        rng = np.random.default_rng(0)
        for host in (self.market, self.manager):
            host.step = self._tampered(host, kind, steps, change, rng)  # type: ignore[method-assign]

    @staticmethod
    def _tampered(
        host: Any, kind: str, steps: Sequence[int], change: Change, rng: np.random.Generator
    ) -> Callable[..., Any]:
        step, links = host.step, host.links_in

        def tampered(time_s: float, inputs: Any, mail: Mail) -> Any:
            values, at = mail.values.copy(), 0
            for i in mail.link.tolist():
                end = at + links[i].width
                if links[i].kind == kind and round(time_s) in steps:
                    values[at:end] = change(values[at:end], rng)
                at = end
            return step(time_s, inputs, Mail(mail.link, mail.round, values))

        return tampered

    def _measure(self, port: Port, k: int) -> FloatArray:
        if port.name == "p_kw" and self._meter is not None:
            return self._meter(port, k, self._p_kw(k))
        if port.name == "p_kw":
            return self._p_kw(k)
        if port.name == "import_kw":
            return np.array([self._import_of(k, 900.0 - float(self._p_kw(k).sum()))])
        return np.zeros(len(port.labels))

    def run(self, steps: int = STEPS) -> Trial:
        for k in range(self._loop.steps, self._loop.steps + steps):
            done = self._loop.step()
            assert all(np.isfinite(v).all() for step in done for v in step.outputs.values())
            self.import_kw.append(900.0 - float(self._p_kw(k).sum()))
            self.state.append(STATES[int(done[1].outputs["state"][0])])
            for host in (self.market, self.manager):
                self.events += [{"step": k, **event} for event in host.take_events()]
        return self

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]

    def first(self, kind: str) -> dict[str, Any]:
        return next(event for event in self.events if event["event"] == kind)


def partition(*buses: str) -> Callable[[str, int], bool]:
    def rule(key: str, step: int) -> bool:
        ends = key.split(":")[0].split(">")
        return BEGIN <= step < END and any(f"smo_{bus}" in ends for bus in buses)

    return rule


ATTACK: dict[str, Any] = {"tripped": ("gen_b1",), "post": Cut(rule=partition("b1"))}


def test_an_attack_is_found_mitigated_and_left_behind() -> None:
    trial = Trial(**ATTACK).run()
    pre = np.mean(trial.import_kw[36:BEGIN])
    assert trial.import_kw[BEGIN + 2] > pre + 100.0
    assert trial.import_kw[END - 1] == pytest.approx(pre, rel=0.01)
    assert trial.import_kw[-1] == pytest.approx(pre, rel=0.01)
    assert trial.state[BEGIN - 1] == trial.state[-1] == "watching"
    kinds = [k for k in trial.kinds() if not k.startswith(("smo", "search", "weights"))]
    assert kinds == ["import_off_schedule", "import_restored", "recovered"]
    assert trial.first("import_off_schedule")["step"] <= BEGIN + 2


def test_the_way_back_takes_several_steps_and_does_not_overshoot() -> None:
    trial = Trial(**ATTACK).run()
    pre = np.mean(trial.import_kw[36:BEGIN])
    after = np.array(trial.import_kw[END:])
    assert after.max() <= 1.02 * pre
    searches = [e for e in trial.events if e["event"] == "search" and e["step"] >= END]
    assert len(searches) >= 3


def test_without_an_attack_nothing_happens() -> None:
    trial = Trial().run()
    assert trial.events == []
    assert set(trial.state) == {"watching"}


def test_mitigation_works_over_links_that_lose_a_fifth() -> None:
    trial = Trial(("gen_b1",), Cut(loss=0.2, seed=4, rule=partition("b1"))).run()
    pre = np.mean(trial.import_kw[36:BEGIN])
    assert trial.import_kw[END - 1] == pytest.approx(pre, rel=0.01)


def test_a_target_out_of_reach_is_reported_with_its_floor_once() -> None:
    everything = ("gen_b1", "gen_b2", "load_b4")
    rule = partition("b1", "b2", "b4")
    trial = Trial(everything, Cut(rule=rule)).run(END)
    told = [e for e in trial.events if e["event"] == "target_unreachable"]
    assert len(told) == 1
    assert told[0]["floor_kw"] > told[0]["target_kw"]
    # All that answers is one load: 300 kW of which 120 can go; the import rests at that floor.
    assert trial.import_kw[-1] == pytest.approx(900.0 + 180.0, abs=15.0)
    assert trial.state[-1] == "holding"


def test_silence_of_all_operators_keeps_everything_where_it_is() -> None:
    trial = Trial(("gen_b1",), Cut(rule=partition("b1", "b2", "b3", "b4"))).run(END)
    kinds = trial.kinds()
    assert kinds.count("all_smos_silent") == 1
    assert trial.import_kw[-1] == pytest.approx(trial.import_kw[BEGIN + 1])
    # Nothing can be done, and that is what is said: once, and no word of a recovery.
    assert kinds.count("import_off_schedule") == kinds.count("target_unreachable") == 1
    assert "recovered" not in kinds
    assert trial.state[-1] == "holding"


def test_operators_that_come_back_are_used() -> None:
    def rule(key: str, step: int) -> bool:
        return step < 120 and partition("b2", "b3", "b4")(key, step)

    trial = Trial(("gen_b1",), Cut(rule=lambda key, k: rule(key, k) or partition("b1")(key, k)))
    trial.run()
    target = trial.first("import_off_schedule")["target_kw"]
    assert trial.import_kw[119] > target + 100.0
    assert trial.import_kw[END - 1] == pytest.approx(target, rel=0.01)
    assert trial.kinds().count("import_off_schedule") == 1
    assert trial.kinds()[-1] == "recovered"


@pytest.mark.parametrize("which", [TRIAL, COMMIT])
def test_a_clearing_that_fails_once_costs_some_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch, which: float
) -> None:
    trial = Trial(**ATTACK)
    operator: Any = trial.market._operator
    take, left = operator.take_weights, [1]

    def none(*_: object) -> None:
        raise ControllerError("no dispatch", where="test")

    def take_weights(message: FloatArray) -> None:
        fails = left[0] and round(message[1]) == which and round(message[0]) > operator._answered
        with monkeypatch.context() as patch:
            if fails:
                left[0] = 0
                patch.setattr(operator._scheduler, "clear", none)
            take(message)

    monkeypatch.setattr(operator, "take_weights", take_weights)
    trial.run(END)
    said = "commit_failed" if which == COMMIT else "no_dispatch_for_weights"
    assert trial.kinds().count(said) == trial.kinds().count("clearing_failed") == 1
    assert trial.kinds().count("import_off_schedule") == 1
    assert "recovered" not in trial.kinds()
    assert trial.import_kw[END - 1] == pytest.approx(np.mean(trial.import_kw[36:BEGIN]), rel=0.01)


@pytest.mark.parametrize("kind", ["weights", "answer"])
@pytest.mark.parametrize(
    "change",
    [
        lambda v, rng: np.full_like(v, 50.0),
        lambda v, rng: 1000.0 * v,
        lambda v, rng: v + 1.0,
        lambda v, rng: np.concatenate([[v[0] + 3.0], v[1:]]),
        lambda v, rng: rng.choice([0.0, 1.0, -1.0, v[0], v[0] + 1.0], size=v.size),
    ],
    ids=["set", "scale", "bias", "number", "shuffle"],
)
def test_mail_with_the_operator_that_is_changed_on_its_way_does_not_end_mitigation(
    kind: str, change: Change
) -> None:
    trial = Trial(**ATTACK)
    trial.tamper(kind, range(55, 75), change)
    trial.run()
    pre = np.mean(trial.import_kw[36:BEGIN])
    assert trial.import_kw[END - 1] == pytest.approx(pre, rel=0.01)
    assert trial.import_kw[-1] == pytest.approx(pre, rel=0.01)
    assert trial.state[-1] == "watching"
    assert trial.kinds()[-1] == "recovered"


def test_mitigation_works_over_noisy_links_to_and_from_the_operator() -> None:
    trial = Trial(**ATTACK)
    trial.tamper("weights", range(END), lambda v, rng: v + rng.normal(0.0, 0.01, v.size))
    # Import and promises are MW: a kilowatt. Counters and flags are off by much more.
    scale = np.where(np.arange(14) < 6, [0.1, 0.1, 0.001, 0.1, 0.001, 0.1] + 8 * [0.0], 0.001)
    trial.tamper("answer", range(END), lambda v, rng: v + scale * rng.normal(0.0, 1.0, v.size))
    trial.run(END)
    pre = np.mean(trial.import_kw[36:BEGIN])
    assert trial.import_kw[END - 1] == pytest.approx(pre, rel=0.02)
    assert "weights_refused" not in trial.kinds()


def test_a_market_operator_that_is_cut_off_from_the_manager_stops_nobody() -> None:
    def rule(key: str, step: int) -> bool:
        return step >= BEGIN and key.startswith((f"operator>{AGENT}", f"{AGENT}>operator"))

    trial = Trial(("gen_b1",), Cut(rule=rule)).run(END)
    assert trial.state[-1] == "searching"
    assert trial.first("import_off_schedule")


def test_a_missing_measurement_is_no_attack() -> None:
    trial = Trial(import_of=lambda k, p: float("nan") if 60 <= k < 90 else p).run(150)
    assert trial.events == []


def test_a_false_alarm_passes_without_a_trace() -> None:
    trial = Trial(import_of=lambda k, p: p + 40.0 * (k == 60)).run(150)
    assert "recovered" in trial.kinds()
    assert trial.state[-1] == "watching"
    assert trial.import_kw[-1] == pytest.approx(trial.import_kw[BEGIN], rel=1e-3)


def test_scores_of_who_lies_and_of_who_is_silent_fall() -> None:
    trial = Trial(**ATTACK, unfaithful={"b3": 0.0}, overstated={"b3": 2.0})
    names = trial.manager._names
    b1, b3, b4 = (names.index(f"smo_{bus}") for bus in ("b1", "b3", "b4"))
    trial.run(END)
    commitment, trust = trial.manager._commitment.value, trial.manager._trust.value
    prior = ResilienceManager(attack_site(), (AGENT,), **MANAGER).scores
    assert commitment[b3] < prior[b3] - 0.1
    assert commitment[b4] > prior[b4]
    assert trust[b1] < prior[b1]


def test_a_meter_without_a_number_is_no_perfect_delivery() -> None:
    def blind(port: Port, k: int, values: FloatArray) -> FloatArray:
        hit = port.name == "p_kw" and k >= BEGIN
        return np.where([hit and name == "gen_b1" for name in port.labels], np.nan, values)

    scores = {}
    for name, meter in (("shown", None), ("blind", blind)):
        trial = Trial(("gen_b1",), meter=meter).run(BEGIN + 1)
        i = trial.manager._names.index("smo_b1")
        before = trial.manager._commitment.value[i]
        trial.run(END - BEGIN - 1)
        after, trust = trial.manager._commitment.value[i], trial.manager._trust.value[i]
        scores[name] = after - before, trust
    assert scores["shown"][0] < -0.2
    assert scores["blind"][0] == 0.0  # nobody knows: the score is left alone
    assert scores["blind"][1] < scores["shown"][1] - 0.2  # but such mail is odd


def test_reports_from_the_future_are_odd() -> None:
    trust = []
    for ahead in (0.0, 1.0):
        trial = Trial()
        trial.tamper("report", range(200), lambda v, rng, a=ahead: v + np.array([a, 0.0]))
        trust.append(trial.run(120).manager._trust.value)
    assert (trust[1] < trust[0] - 0.2).all()


def test_the_manager_measures_the_import_and_hears_sums_nothing_else() -> None:
    manager = ResilienceManager(attack_site(), (AGENT,), **MANAGER)
    assert [(p.name, p.labels) for p in manager.inputs if p.required] == [
        ("import_kw", ("source",))
    ]
    # The optional input is a detector's alarm per operator, a statement of its own.
    assert [p.name for p in manager.inputs if not p.required] == ["alarm"]
    smos = [link for link in manager.links_in if link.source != "operator"]
    assert {(link.kind, link.width) for link in smos} == {("report", 2)}
    (answer,) = [link for link in manager.links_in if link.source == "operator"]
    # Six numbers of its own and two promised sums per operator; no resource, no status.
    assert answer.width == 6 + 2 * len(smos)
    assert [(link.target, link.kind) for link in manager.links_out] == [("operator", "weights")]


def test_attacks_that_look_the_same_at_the_substation_are_answered_the_same() -> None:
    """A generator that is lost, and as much load that nobody meters: the same first weights."""
    lost = Trial(("gen_b1",)).run(BEGIN + 7)
    at = lost.market.outputs[0].labels.index("gen_b1")
    kw = float(lost.market._smos.p_set_kw[at])
    unseen = Trial(import_of=lambda k, p: p + kw * (k >= BEGIN)).run(BEGIN + 7)
    for kind in ("import_off_schedule", "search"):
        assert lost.first(kind) == unseen.first(kind)
    orders = [trial.manager.mitigation.order for trial in (lost, unseen)]
    assert orders[0][:2] == orders[1][:2]
    # The two imports are sums in another order: equal but for the last bits.
    assert orders[0][2].alpha == pytest.approx(orders[1][2].alpha, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_s": 0.3}, "sample_s"),
        ({"score_priors": {"b9": 0.5}}, "no market operator at bus 'b9'"),
        ({"relax": 0.0}, "relax"),
        ({"score_prior": [0.4, 1.4]}, "score_prior"),
        ({"sigma": 2.0}, "sigma_kw"),
        ({"market": "markt"}, "market"),
        ({"market": "none"}, "controller 'none' has no market operators to watch"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ControllerError) as caught:
        ResilienceManager(attack_site(), (AGENT,), **(MANAGER | options))
    assert message in str(caught.value)


class TwoOperators(PrimaryMarket):
    """Another market with operators of its own."""

    @classmethod
    def smo_buses(cls, site: ControlSite, fixed_load_pu: float, clearing: str) -> tuple[str, ...]:
        return ("b3", "b4") if fixed_load_pu else ("b3",)


def test_it_watches_the_operators_of_any_market_that_names_them() -> None:
    mine = ResilienceManager(attack_site(), (AGENT,), **MANAGER)
    market = PrimaryMarket(attack_site(), PrimaryMarket.agents(attack_site(), **MARKET), **MARKET)
    reports = {link.key for link in market.links_out if link.kind == "report"}
    assert reports == {link.key for link in mine.links_in if link.kind == "report"}
    other = f"{__name__}:TwoOperators"
    for pu, names in ((1.0, ("smo_b3", "smo_b4")), (0.0, ("smo_b3",))):
        options = MANAGER | {"market": other, "score_priors": {}, "fixed_load_pu": pu}
        manager = ResilienceManager(attack_site(), (AGENT,), **options)
        assert manager.outputs[0].labels == names
        assert [link.source for link in manager.links_in] == [*names, "operator"]


def test_one_agent_only() -> None:
    with pytest.raises(ControllerError):
        ResilienceManager(attack_site(), ("resilience", "other"), **MANAGER)
