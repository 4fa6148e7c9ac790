"""One algorithm on one problem: its agents step, their mail passes the link model of scenarios."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controllers.core.mail import FloatArray, IntArray, Mail
from controllers.optimisation.method import Method, Problem
from controllers.optimisation.problems.result import Measure
from federates.clock import to_s
from federates.core.link_values import LinkQuality
from federates.core.links import Bundle, LinkInbox

StoppedBy = Literal["agents", "max_iterations", "silence", "divergence"]
_SILENT_STEPS = 3_000
"""Steps without a computation after which an algorithm is taken to wait for ever."""


@dataclass(frozen=True)
class Curve:
    """The way of an algorithm, one row per round.

    `iteration`, `time_s`, `gap`, `infeasibility`: (n_rounds,); see `Measure`.
    """

    iteration: IntArray
    time_s: FloatArray
    gap: FloatArray
    infeasibility: FloatArray

    def first_within(self, tolerance: float) -> int | None:
        """Return the first iteration with gap and infeasibility within a tolerance."""
        within = (self.gap <= tolerance) & (self.infeasibility <= tolerance)
        return int(self.iteration[np.argmax(within)]) if within.any() else None


@dataclass(frozen=True)
class Outcome:
    """What became of an algorithm.

    Attributes
    ----------
    iterations : Rounds of the agent that has computed most often.
    time_s : Simulated time of the last step.
    messages, n_bytes : Sent, whether they arrived or not.
    wall_s : Time that the agents took, without links and measures.
    stopped_by : The agents' own rule, the limit of iterations, or that nobody computes any more, or
        that numbers are infinite.
    """

    iterations: int
    time_s: float
    messages: int
    n_bytes: int
    wall_s: float
    stopped_by: StoppedBy
    measure: Measure
    curve: Curve


def drive(
    problem: Problem,
    method: Method,
    quality: Mapping[str, LinkQuality],
    *,
    period_ns: int,
    seed: int,
    max_iterations: int,
) -> Outcome:
    """Step an algorithm until it ends.

    Parameters
    ----------
    quality : Of links by key; others are perfect.
    period_ns : Time between two steps of all agents. Mail sent in a step is read in a later one.
    seed : Of the links' losses, delays and noise.
    """
    inbox = LinkInbox(method.links_in, quality, seed)
    place = {link.key: i for i, link in enumerate(method.links_in)}
    target = np.array([place[link.key] for link in method.links_out], dtype=np.int64)
    perfect = LinkQuality()
    size = np.array(
        [quality.get(link.key, perfect).message_bytes(link) for link in method.links_out],
        dtype=np.int64,
    )
    progress = _Progress(problem, method)
    messages, n_bytes, wall_s, step, last = 0, 0, 0.0, 0, 0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        while True:
            now_ns = step * period_ns
            began = time.perf_counter()
            sent = method.step(to_s(now_ns), {}, inbox.deliver(now_ns)).mail
            wall_s += time.perf_counter() - began
            if len(sent):
                messages += len(sent)
                n_bytes += int(size[sent.link].sum())
                inbox.accept(Bundle(now_ns, Mail(target[sent.link], sent.round, sent.values)))
            if progress.note(to_s(now_ns)):
                last = step
            stopped_by = progress.end(max_iterations, silent=step - last > _SILENT_STEPS)
            if stopped_by is not None:
                break
            step += 1
    return Outcome(
        progress.iterations, to_s(now_ns), messages, n_bytes, wall_s, stopped_by,
        progress.measure, progress.curve(),
    )  # fmt: skip


class _Progress:
    """Measures the answer whenever the agents have computed."""

    def __init__(self, problem: Problem, method: Method) -> None:
        self._problem, self._method = problem, method
        self.iterations = 0
        self._rows: list[tuple[float, float, float, float]] = []
        self._last: Measure | None = None

    def note(self, time_s: float) -> bool:
        """Measure after a step; return whether somebody has computed for one more time."""
        rounds = self._method.rounds
        if rounds == self.iterations and not self._method.stopped:
            return False
        self.iterations = rounds
        self._last = now = self._problem.measure(self._method.answer())
        self._rows.append((rounds, time_s, now.gap, now.infeasibility))
        return True

    def end(self, max_iterations: int, *, silent: bool) -> StoppedBy | None:
        """Say what ends the algorithm after this step, if anything."""
        if self._method.stopped:
            return "agents"
        now = self._last
        if now is not None and not np.isfinite([now.objective, now.infeasibility]).all():
            return "divergence"
        if self.iterations >= max_iterations:
            return "max_iterations"
        return "silence" if silent else None

    @property
    def measure(self) -> Measure:
        """The worth of the answer when the agents computed last."""
        return self._last or self._problem.measure(self._method.answer())

    def curve(self) -> Curve:
        """Return what was measured; of equal rounds the last."""
        rows = np.array(list({row[0]: row for row in self._rows}.values())).reshape(-1, 4)
        return Curve(rows[:, 0].astype(np.int64), rows[:, 1], rows[:, 2], rows[:, 3])
