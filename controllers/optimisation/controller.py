"""Controller `optimisation`: the agents of one algorithm at work on one problem.

It measures nothing: the problem is part of the design, mail is all that agents need. What they have
found so far is the output; `feederate optimise` compares algorithms without a federation.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, Mail
from controllers.core.options import ControllerOptions, option, parse_options
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.market.solvers.atoms import KINDS
from controllers.optimisation.algorithms.catalog import build
from controllers.optimisation.method import Method
from controllers.optimisation.problems.catalog import Problem as AnyProblem
from controllers.optimisation.problems.catalog import load_problem
from controllers.optimisation.problems.feeder_socp import FeederSocp
from controllers.optimisation.problems.opf_regions import RegionOpf
from grid_models.base.errors import FeederateError

_WHERE = "optimisation"


@dataclass(frozen=True, slots=True)
class OptimisationOptions(ControllerOptions):
    """Options of the controller."""

    problem: str = option("dispatch-20", "A problem of `feederate list`, or a MATPOWER file.")
    algorithm: str = option("dual", "An algorithm of `feederate list`.")
    algorithm_options: Mapping[str, Any] = option(
        None, "Options of the algorithm, and `resend_after` of its agents.", shown="mapping"
    )
    tolerance: float | None = option(
        None,
        "Residual at which agents stop, relative; 0: never. Default: the algorithm's.",
        low=0.0,
    )
    regions: int | None = option(None, "Of a case: how many. Default: its areas, or three.")
    rounds: int = option(1, "Steps of the agents in a period.")

    def check(self) -> None:
        """Check the mapping of options and the number of rounds."""
        if not isinstance(self.algorithm_options, Mapping | None):
            raise ControllerError(
                f"{self.algorithm_options!r} is not accepted",
                where="option 'algorithm_options'",
                expected="a mapping, such as {relaxation: 1.6}",
            )
        if self.rounds < 1:
            raise ControllerError(
                f"{self.rounds} is not accepted", where="option 'rounds'", expected="at least 1"
            )


class Optimisation:
    """Agents of a distributed optimisation.

    Parameters
    ----------
    site : Its seed is that of a problem with random numbers.
    hosted : Agents of this instance.
    **options : See `OptimisationOptions`.

    Raises ControllerError: An option is not accepted, or the algorithm refuses the problem.
    """

    inputs: tuple[Port, ...] = ()

    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        self._problem, self._method = _made(site, tuple(hosted), options)
        self.links_in, self.links_out = self._method.links_in, self._method.links_out
        mine = set(hosted)
        labels = [x for name, of in _labels(self._problem).items() if name in mine for x in of]
        self.outputs: tuple[Port, ...] = (Port("x", "", tuple(labels)),) if labels else ()
        self._whole = set(_labels(self._problem)) <= mine

    @classmethod
    def agents(cls, site: ControlSite, **options: Any) -> tuple[str, ...]:
        """Return the algorithm's agents: those of the problem, and a coordinator if it has one."""
        return _agents(_made(site, None, options)[1])

    @classmethod
    def steps_per_period(cls, **options: Any) -> int:
        """Return the option `rounds`."""
        return parse_options(OptimisationOptions, options, _WHERE).rounds

    @classmethod
    def settling_s(cls, period_s: float, **options: Any) -> float:
        """Return 0: nothing of it is a plant's."""
        return 0.0

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Let the agents compute; say what they have found so far."""
        sent = self._method.step(time_s, inputs, mail).mail
        if not self.outputs:
            return ControllerStep({}, sent)
        return ControllerStep({"x": np.ravel(self._method.answer()["x"]).copy()}, sent)

    def summary(self) -> dict[str, float]:
        """Return gap and infeasibility where all agents are hosted here."""
        if not self._whole:
            return {}
        measure = self._problem.measure(self._method.answer())
        found = {
            "optimality_gap": measure.gap,
            "infeasibility": measure.infeasibility,
            "iterations_count": float(self._method.rounds),
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _made(
    site: ControlSite, hosted: tuple[str, ...] | None, options: Mapping[str, Any]
) -> tuple[AnyProblem, Method]:
    settings = parse_options(OptimisationOptions, options, _WHERE)
    problem = _problem(site, settings)
    given = dict(settings.algorithm_options or {})
    if settings.tolerance is not None:
        given["tolerance"] = settings.tolerance
    return problem, build(settings.algorithm, problem, hosted=hosted, **given)


_CACHE: dict[tuple[Any, ...], tuple[weakref.ref[object], AnyProblem]] = {}


def _problem(site: ControlSite, settings: OptimisationOptions) -> AnyProblem:
    """Return the problem; instances of one site share it."""
    key = id(site.feeder), site.seed, settings.problem, settings.regions
    hit = _CACHE.get(key)
    if hit is not None and hit[0]() is site.feeder:
        return hit[1]
    try:
        found = load_problem(settings.problem, site.seed, settings.regions)
    except ControllerError:
        raise
    except FeederateError as error:
        raise ControllerError(
            error.what, where=error.where, expected=error.expected, nearest=error.nearest
        ) from error
    _CACHE[key] = weakref.ref(site.feeder, lambda _: _CACHE.pop(key, None)), found
    return found


def _agents(method: Method) -> tuple[str, ...]:
    return tuple(dict.fromkeys(link.target for link in method.links_in))


def _labels(problem: AnyProblem) -> dict[str, list[str]]:
    """Return the labels of the numbers that each agent of a problem finds."""
    if isinstance(problem, RegionOpf):
        sizes = zip(problem.names, (region.n for region in problem.regions), strict=True)
        return {name: [f"{name}.{i}" for i in range(n)] for name, n in sizes}
    if isinstance(problem, FeederSocp):
        return {name: [f"{name}.{kind}" for kind in KINDS] for name in problem.names}
    return {name: [name] for name in problem.names}
