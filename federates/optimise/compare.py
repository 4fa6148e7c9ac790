"""Several algorithms on one problem: a row for each, with where it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from controllers.core.mail import Link
from controllers.optimisation.algorithms.catalog import build, check_options, names_for
from controllers.optimisation.method import Method, Problem
from controllers.optimisation.problems.catalog import load_problem
from federates.clock import to_ns
from federates.core.link_values import LinkQuality
from federates.core.mail_routes import link_quality, unmatched_globs
from federates.errors import ScenarioError
from federates.optimise.loop import Curve, Outcome, drive
from federates.optimise.settings import Links, algorithm_options, link_rules
from federates.scenario.sections import LinkRule
from grid_models.base.errors import FeederateError, described

_LEAST_PERIOD_S = 1e-3
_TOLERANCE = 1e-6
_ENDS = {
    "agents": "failed",
    "max_iterations": "limit",
    "silence": "waits",
    "divergence": "diverged",
}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """An algorithm in a comparison; None where it failed before there was such a number.

    Attributes
    ----------
    iterations : Rounds of the agent that has computed most often.
    iterations_to_tolerance : First of them with gap and infeasibility within the tolerance.
    gap, infeasibility, primal, dual, bound : See `controllers.optimisation.problems.result`.
    messages, bytes : Sent by all agents; with the header of each message.
    seconds : Simulated. wall_s : That the agents took on this machine.
    converged : The agents stopped by their own rule.
    stopped_by : "agents", "max_iterations", "silence", "divergence" or "error".
    error : Why the algorithm refuses the problem, or gave up.
    """

    algorithm: str
    agents: int = 0
    iterations: int | None = None
    iterations_to_tolerance: int | None = None
    gap: float | None = None
    infeasibility: float | None = None
    primal: float | None = None
    dual: float | None = None
    bound: float | None = None
    messages: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    wall_s: float | None = None
    converged: bool = False
    stopped_by: str = "error"
    error: str | None = None

    @property
    def end(self) -> str:
        """How it ended, in a word."""
        return "done" if self.converged else _ENDS.get(self.stopped_by, self.stopped_by)


@dataclass(frozen=True)
class Comparison:
    """What algorithms made of a problem.

    Attributes
    ----------
    problem : Its name. optimum : Cost of the central solution.
    curves : By algorithm, of those that ran.
    period_s : Time between two steps of the agents.
    notes : What of a case's file is not used.
    """

    problem: str
    optimum: float
    tolerance: float
    period_s: float
    rows: tuple[Row, ...]
    curves: Mapping[str, Curve]
    notes: tuple[str, ...] = ()

    def errors(self) -> dict[str, list[str]]:
        """Return the algorithms that failed, by reason."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.error is not None:
                found.setdefault(row.error, []).append(row.algorithm)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as plain data; infinite numbers and NaN are None."""
        return [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def compare(
    problem: str | Problem,
    algorithms: Sequence[str] | None = None,
    *,
    links: Links | None = None,
    tolerance: float | None = None,
    max_iterations: int | None = None,
    seed: int = 0,
    regions: int | Mapping[str, str] | None = None,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    period_s: float | None = None,
    report: Report | None = None,
) -> Comparison:
    """Let algorithms solve a problem one after the other; one that fails does not end the others.

    Parameters
    ----------
    problem : A name of `controllers.optimisation.problems.catalog`, or a problem.
    algorithms : Names of `controllers.optimisation.algorithms.catalog`. Default: all that can.
    links : See `link_rules`. Default: perfect.
    tolerance : Of the agents' residuals; default: that of the algorithm. And of
        `Row.iterations_to_tolerance`; default: 1e-6.
    max_iterations : Default: 10,000, for cases 2,000.
    seed : Of the problem's random numbers and of the links.
    regions : See `load_problem`.
    options : See `algorithm_options`.
    period_s : Time between two steps of the agents. Default: a tenth of the longest delay of a
        link, 1 ms at least.
    report : Called with each algorithm's name before it begins.

    Raises FeederateError: An unknown name, a link rule or a problem that cannot be used.
    """
    _check_numbers(tolerance, max_iterations, period_s)
    rules = link_rules(links)
    whole = load_problem(problem, seed, regions) if isinstance(problem, str) else problem
    names = list(names_for(whole) if algorithms is None else dict.fromkeys(algorithms))
    if not names:
        raise ScenarioError(
            "names no algorithm", where="algorithms", expected=", ".join(names_for(whole))
        )
    given = algorithm_options(options, names)
    for name in names:
        check_options(name, whole, given.get(name, {}))
    optimum = whole.reference.objective
    longest_s = max((rule.latency_s + rule.jitter_s for rule in rules), default=0.0)
    if period_s is None:
        period_s = max(_LEAST_PERIOD_S, longest_s / 10.0)
    common: dict[str, Any] = {} if tolerance is None else {"tolerance": tolerance}
    # An agent repeats its mail when an answer could have come.
    common["resend_after"] = 2 + 2 * math.ceil(longest_s / period_s)
    methods = {name: _built(name, whole, common, given.get(name, {})) for name in names}
    _check_globs(rules, [link for m in methods.values() for link in getattr(m, "links_in", ())])
    if max_iterations is None:
        max_iterations = 2_000 if whole.kind == "regions" else 10_000
    tolerance = _TOLERANCE if tolerance is None else tolerance
    run = partial(drive, whole, period_ns=to_ns(period_s), seed=seed, max_iterations=max_iterations)
    rows, curves = [], {}
    for name, method in methods.items():
        if report is not None:
            report(name)
        outcome = method if isinstance(method, str) else _outcome(run, method, rules)
        if isinstance(method, str) or isinstance(outcome, str):
            rows.append(Row(name, error=str(outcome)))
            continue
        curves[name] = outcome.curve
        rows.append(_row(name, method, outcome, tolerance))
    label = problem if isinstance(problem, str) else type(problem).__name__
    notes = getattr(getattr(whole, "case", None), "notes", ())
    return Comparison(label, optimum, tolerance, period_s, tuple(rows), curves, notes)


def _outcome(
    run: Callable[[Method, Mapping[str, LinkQuality]], Outcome],
    method: Method,
    rules: Sequence[LinkRule],
) -> Outcome | str:
    """Return what becomes of an algorithm, or why it cannot go on."""
    try:
        return run(method, link_quality(method.links_in, rules))
    except (FeederateError, ArithmeticError, ValueError) as error:  # LinAlgError is one
        return str(error) or type(error).__name__


def _check_numbers(
    tolerance: float | None, max_iterations: int | None, period_s: float | None
) -> None:
    for name, value, least in (
        ("tolerance", tolerance, 0.0),
        ("max_iterations", max_iterations, 1),
        ("period_s", period_s, 1e-9),
    ):
        if value is not None and not least <= value < math.inf:
            raise ScenarioError(f"is {value}", where=name, expected="a positive number")


def _built(
    name: str, problem: Problem, common: Mapping[str, Any], options: Mapping[str, Any]
) -> Method | str:
    """Return the agents, or why the algorithm refuses this problem; wrong options are raised.

    The reason is without the algorithm's name, so that equal ones can be told at once.
    """
    try:
        return build(name, problem, **{**common, **options})
    except FeederateError as error:
        if options:
            raise
        return described(error.what, error.expected, error.nearest)


def _check_globs(rules: Sequence[LinkRule], links: Sequence[Link]) -> None:
    """Refuse a rule that matches no link of any algorithm."""
    problems: list[str] = []
    for i, rule in enumerate(rules):
        problems += unmatched_globs(rule, links, f"links[{i}].{{}}".format)
    if problems:
        raise ScenarioError("\n".join(problems))


def _row(name: str, method: Method, outcome: Outcome, tolerance: float) -> Row:
    measure = outcome.measure
    # Agents of regions can also end because they know that they have failed.
    status = getattr(method, "status", "converged") if outcome.stopped_by == "agents" else None
    agents = {link.source for link in method.links_out} | {k.target for k in method.links_in}
    return Row(
        algorithm=name,
        agents=len(agents),
        iterations=outcome.iterations,
        iterations_to_tolerance=outcome.curve.first_within(tolerance),
        gap=measure.gap,
        infeasibility=measure.infeasibility,
        primal=measure.primal,
        dual=measure.dual,
        bound=measure.bound,
        messages=outcome.messages,
        bytes=outcome.n_bytes,
        seconds=outcome.time_s,
        wall_s=outcome.wall_s,
        converged=status == "converged",
        stopped_by=outcome.stopped_by,
        error=None if status in (None, "converged") else status,
    )
