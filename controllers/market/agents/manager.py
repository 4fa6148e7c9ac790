"""The resilience manager (PRM): sees the import at the substation and mail, and nothing else.

Its ports and links say what it may know. It measures one number, the import. From the market
operator it hears what import is scheduled, what would come of a trial, and what each SMO promised;
from each SMO what it meters as its own net injection. Which nodes are attacked is in none of them.

It watches (`detection`), keeps scores (`scores`), and when the import leaves its schedule it puts
weights on the market's coefficients (`reweighing`, `mitigation`) until the import is back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.core import registry
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.core.options import parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.market.agents.bid_receiver import NUMBER_MAX
from controllers.market.agents.detection import ImportDetector, Thresholds
from controllers.market.agents.mail_tables import Latest, Sorter, messages
from controllers.market.agents.mitigation import STATES, Answer, Mitigation, MitigationSettings
from controllers.market.agents.operator import (
    ANSWER_HEAD,
    manager_links,
    report_links,
    weights_message,
)
from controllers.market.agents.options import ManagerOptions, whole_steps
from controllers.market.agents.scores import (
    BetaScore,
    commitment_evidence,
    resilience_score,
    trust_evidence,
)
from controllers.market.agents.smo import by_bus
from controllers.market.model.participants import draw, smo_names

AGENT = "resilience"


class ResilienceManager:
    """Controller ``resilience-manager``; its options are `options.ManagerOptions`.

    Inputs: ``import_kw`` at the substation; optional ``alarm`` per SMO, 0 to 1, of a detector.
    Outputs: ``commitment``, ``trustability``, ``resilience`` per SMO (0 to 1), ``state`` (0
    watching, 1 searching, 2 settling, 3 holding), ``delta_kw``, ``target_kw``, ``floor_kw`` (0: not
    asked for), ``strength`` of the weights in force (0: original coefficients).
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._options = o = parse_options(ManagerOptions, options, "resilience-manager")
        if tuple(hosted) != (AGENT,):
            raise ControllerError(f"hosts {hosted}", where="resilience-manager", expected=AGENT)
        # The market's public register: which operators there are. Nothing of it moves with time.
        buses = smo_buses(site, o)
        self._names, self._n = smo_names(buses), len(buses)
        period = site.period_s
        self._per_sample = whole_steps("sample_s", o.sample_s, period)
        self._per_interval = whole_steps("interval_s", o.interval_s, period, 4)
        self._learn_steps = round(o.learn_s / period)
        self._settle_steps = round(o.settle_s / period)
        self._silent_steps = max(2, round(o.silent_after_s / period))
        thresholds = Thresholds.for_rate(o.false_alarm_days, o.sample_s, o.interval_s)
        self.detector = ImportDetector(o.sigma_kw, thresholds)
        self.mitigation = Mitigation(
            self._n,
            MitigationSettings(
                tolerance=o.tolerance,
                mu_kw=o.mu_mw * 1000.0,
                max_clearings=int(o.max_clearings),
                relax=o.relax,
                settle_samples=max(1, round(o.settle_s / o.sample_s)),
                # By then it is known who fell silent with the attack.
                confirm_samples=1 + math.ceil(max(o.silent_after_s, o.confirm_s) / o.sample_s),
                noise_kw=o.sigma_kw,
                target_offset_kw=o.target_offset_kw,
            ),
        )
        self._start_scores(buses, site.seed)
        self._declare(o.operator)
        self._step = 0
        self._bias_kw, self._bias_weight = 0.0, 0.0
        self._schedule_kw = np.nan
        self._changed_at = 0
        self._events: list[dict[str, Any]] = []
        self._alarms = 0

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the one agent."""
        parse_options(ManagerOptions, options, "resilience-manager")
        return (AGENT,)

    def _start_scores(self, buses: Sequence[str], seed: int) -> None:
        o = self._options
        prior = draw(seed, "prior score", buses, o.score_prior[0], o.score_prior[1])
        known = by_bus(buses, o.score_priors, "score_priors", np.nan)
        prior = np.where(np.isfinite(known), known, prior)
        self._commitment = BetaScore(prior, o.prior_weight, o.memory)
        self._trust = BetaScore(prior, o.prior_weight, o.memory)
        self._received = np.zeros(self._n)
        self._odd = np.zeros(self._n)
        # Step of each SMO's last report with a number in it.
        self._metered_at = np.full(self._n, -1, dtype=np.int64)

    def _declare(self, operator: str) -> None:
        self.inputs = (
            Port("import_kw", "kW", ("source",)),
            Port("alarm", "1", self._names, required=False),
        )
        per_smo = ("commitment", "trustability", "resilience")
        own = (("state", ""), ("delta_kw", "kW"), ("target_kw", "kW"), ("floor_kw", "kW"),
               ("strength", ""))  # fmt: skip
        self.outputs = tuple(Port(name, "", self._names) for name in per_smo) + tuple(
            Port(name, unit, (AGENT,)) for name, unit in own
        )
        answer, weights = manager_links(self._n, operator, AGENT)
        self.links_in = (*report_links(self._names, AGENT), answer)
        self.links_out = (weights,)
        self._report_mail = Sorter(self.links_in, "report")
        self._answer_mail = Sorter(self.links_in, "answer")
        self._reports = Latest(self._n, self._report_mail.width)
        self._answers = Latest(1, self._answer_mail.width)
        # The operator's newest word that can be meant; None before its first schedule.
        self._answer: Answer | None = None
        self._promised, self._owed = np.zeros((2, self._n))

    # --- a step ----------------------------------------------------------------------------------

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Read the mail and the import; watch, or go on with the mitigation."""
        k = self._step
        self._step += 1
        self._read(mail, k)
        if k and k % self._per_interval == 0:
            self._score(inputs["alarm"])
        measured = float(inputs["import_kw"][0])
        if self._answer is not None:
            self._act(k, measured, self._answer)
        return ControllerStep(self._outputs(), self._messages(k))

    def _read(self, mail: Mail, k: int) -> None:
        sender, rounds, rows = self._report_mail.rows(mail)
        rows = np.where(np.abs(rows) <= NUMBER_MAX, rows, np.nan)
        early = np.rint(rows[:, 0]) > k // self._per_interval
        before = self._reports.round.copy()
        strange = ~np.isfinite(rows).all(axis=1) | early | (rounds <= before[sender])
        np.add.at(self._received, sender, 1.0)
        np.add.at(self._odd, sender[strange], 1.0)
        self._reports.absorb(sender, rounds, rows, k)
        self._metered_at[self._reports.round > before] = k
        last = self._answers.round[0]
        self._answers.absorb(*self._answer_mail.rows(mail), k)
        said = Answer.read(self._answers.values[0]) if self._answers.round[0] > last else None
        if said is not None:
            self._answer = said
            promises = self._answers.values[0, len(ANSWER_HEAD) :]
            self._promised, self._owed = promises.reshape(2, self._n).copy()

    def _lately(self, steps: IntArray) -> NDArray[np.bool_]:
        """Return which of `steps` are no longer ago than a silence is, (n,); -1 is never."""
        lately: NDArray[np.bool_] = (steps >= 0) & (self._step - 1 - steps <= self._silent_steps)
        return lately

    @property
    def answering(self) -> NDArray[np.bool_]:
        """Which SMOs were heard lately, (n,)."""
        return self._lately(self._reports.heard)

    def _act(self, k: int, measured_kw: float, answer: Answer) -> None:
        if not abs(answer.schedule_kw - self._schedule_kw) <= self._options.sigma_kw:
            self._changed_at = k
        self._schedule_kw = answer.schedule_kw
        mitigation, scores = self.mitigation, self.scores
        mitigation.hear(answer, scores, self.answering)
        if k % self._per_sample or not np.isfinite(measured_kw):
            return
        if mitigation.state == "watching":
            self._watch(k, measured_kw, answer)
        else:
            mitigation.observe(measured_kw, answer, scores, self.answering)
            if mitigation.ended:
                self._gather_events()
                self._say("recovered", import_kw=round(measured_kw, 3))
                mitigation.state = "watching"
                self.detector.reset()
                self._changed_at = k
        self._gather_events()

    def _watch(self, k: int, measured_kw: float, answer: Answer) -> None:
        """Learn the schedule's constant error while all is well; raise the alarm when it is not."""
        o = self._options
        # Devices are on their way to a new schedule. A memory no longer than that goes with them.
        settling = k - self._changed_at < self._settle_steps
        if 2 * k < self._learn_steps or (settling and o.bias_samples * o.sample_s > o.settle_s):
            return
        error = measured_kw - answer.schedule_kw
        if k >= self._learn_steps and self._bias_weight > 0.0 and not settling:
            found = self.detector.add(error - self._bias_kw)
            if k % self._per_interval >= self._per_interval - self._per_sample:
                found = found or self.detector.end_interval()
            if found is not None:
                self._alarm(found, measured_kw, answer.schedule_kw)
                return
            if self.detector.level > 0.5 * self.detector.thresholds.drift:
                return  # do not learn from what may be an attack
        self._bias_weight = min(self._bias_weight + 1.0, o.bias_samples)
        self._bias_kw += (error - self._bias_kw) / self._bias_weight

    def _alarm(self, found: str, measured_kw: float, schedule_kw: float) -> None:
        self._alarms += 1
        self.detector.reset()
        self.mitigation.alarm(schedule_kw + self._bias_kw, self._bias_kw)
        target_kw = self.mitigation.target_kw
        numbers = {"import_kw": round(measured_kw, 3), "target_kw": round(target_kw, 3)}
        self._say("import_off_schedule", test=found, **numbers)

    # --- scores ----------------------------------------------------------------------------------

    def _score(self, alarm: FloatArray) -> None:
        """Once per interval: evidence from mail and from what was promised and metered."""
        expected = float(self._per_interval - 1)
        trust = trust_evidence(self._received, expected, self._odd, alarm)
        self._trust.add(trust)
        self._received[:] = 0.0
        self._odd[:] = 0.0
        if self._answer is None:
            return
        kept = commitment_evidence(self._promised, self._reports.values[:, 1], self._owed)
        # Silence and meters without a number are trustability's business: nobody knows what was
        # delivered. The first interval's awards are still on their way.
        metered = self._lately(self._metered_at)
        self._commitment.add(kept, metered & (self._step > 2 * self._per_interval))

    @property
    def scores(self) -> FloatArray:
        """Resilience score of each SMO, (n,)."""
        return resilience_score(self._commitment.value, self._trust.value)

    # --- outputs ---------------------------------------------------------------------------------

    def _outputs(self) -> dict[str, FloatArray]:
        c = self.mitigation
        single = {
            "state": float(STATES.index(c.state)),
            "delta_kw": c.delta_kw,
            "target_kw": c.target_kw,
            "floor_kw": c.floor_kw or 0.0,
            "strength": c.in_force.strength,
        }
        return {
            "commitment": self._commitment.value,
            "trustability": self._trust.value,
            "resilience": self.scores,
            **{name: np.array([value]) for name, value in single.items()},
        }

    def _messages(self, k: int) -> Mail:
        number, order, weights = self.mitigation.order
        if number == 0:
            return Mail.empty()
        return messages([0], k, weights_message(number, order, weights))

    def _say(self, event: str, **details: Any) -> None:
        self._events.append({"event": event, **details})

    def _gather_events(self) -> None:
        self._events += self.mitigation.events
        self.mitigation.events = []

    def take_events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, for the run's list of events."""
        self._gather_events()
        events, self._events = self._events, []
        return events

    def summary(self) -> dict[str, float]:
        """Return the manager's counts."""
        return {
            "alarms_count": float(self._alarms),
            "mitigation_rounds_count": float(self.mitigation.rounds),
        }


def smo_buses(site: ControlSite, options: ManagerOptions) -> tuple[str, ...]:
    """Return the buses of the operators of the market that the manager watches.

    Any controller is such a market that has links to and from the manager (`report_links`,
    `manager_links`) and a class method ``smo_buses(site, fixed_load_pu, clearing)`` that gives
    these buses.

    Raises ControllerError: There is no such controller, or it has no operators to watch.
    """
    found: Any = registry.resolve(options.market)
    if not callable(getattr(found, "smo_buses", None)):
        raise ControllerError(
            f"controller '{options.market}' has no market operators to watch",
            where="option market",
            expected="market, or a controller with the class method "
            "smo_buses(site, fixed_load_pu, clearing)",
        )
    buses: tuple[str, ...] = found.smo_buses(site, options.fixed_load_pu, options.clearing)
    return buses
