"""Ways to clear a market: one table, one function.

`CLEARINGS` names what ships; ``module:Class`` is anybody's own. A class is either an
`controllers.market.solvers.iteration.Iteration`, which also runs as agents over mail, or it is made
from a network and has ``clear(problem)``, like `controllers.market.solvers.central.CentralMarket`.
A class with ``three_phase = True`` is made from a `PortNetwork` and clears a `PortProblem`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from controllers.core.errors import ControllerError
from controllers.core.named_classes import load_class
from controllers.market.model.problem import ClearingProblem, Dispatch
from controllers.market.solvers.central import Clearing
from controllers.market.solvers.distributed import iterate
from controllers.market.solvers.iteration import Iteration
from controllers.market.solvers.stopping import DistributedClearing, Rule
from controllers.market.solvers.warm_start import Start
from grid_models.base.errors import nearest_name

CLEARINGS = {
    "central": "controllers.market.solvers.central:CentralMarket",
    "pac": "controllers.market.solvers.pac:Pac",
    "pac-anchored": "controllers.market.solvers.pac:AnchoredPac",
    "nst-pac": "controllers.market.solvers.nst_pac:NstPac",
    "admm": "controllers.market.solvers.admm:Admm",
    "three-phase": "controllers.market.three_phase.exact:ThreePhaseMarket",
    "three-phase-mccormick": "controllers.market.three_phase.mccormick:McCormickMarket",
    "three-phase-admm": "controllers.market.three_phase.areas:AreaMarket",
}


def clearing_class(name: str) -> type[Any]:
    """Return the class of a way to clear, by name or as ``module:Class``.

    Raises ControllerError: There is none.
    """
    found = load_class(name, CLEARINGS, "clearing")
    if not issubclass(found, Iteration) and not callable(getattr(found, "clear", None)):
        raise ControllerError(
            f"class '{found.__name__}' cannot clear a market",
            where=f"clearing '{name}'",
            expected="a subclass of controllers.market.solvers.iteration.Iteration, or a class "
            "with clear(problem)",
        )
    return found


def is_three_phase(algorithm: type[Any]) -> bool:
    """Whether a way to clear takes a `PortProblem`: its class has ``three_phase = True``."""
    return bool(getattr(algorithm, "three_phase", False))


def is_by_areas(algorithm: type[Any]) -> bool:
    """Whether areas of the feeder clear by mail: the class is `three_phase.areas.AreaMarket`."""
    return bool(getattr(algorithm, "by_areas", False))


def checked_options(algorithm: type[Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options of a class when its constructor has them as keywords.

    Raises ControllerError: It has no such option, or a number or a boolean is expected.
    """
    found = inspect.signature(algorithm).parameters.values()
    defaults = {p.name: p.default for p in found if p.kind is inspect.Parameter.KEYWORD_ONLY}
    known = list(defaults)
    for name, value in options.items():
        if name not in known:
            raise ControllerError(
                f"unknown option '{name}'",
                where=where,
                expected=f"some of {', '.join(known)}" if known else "no option",
                nearest=nearest_name(str(name), known),
            )
        _check_type(value, defaults[name], f"{where}: option '{name}'")
    return dict(options)


def _check_type(value: Any, default: Any, where: str) -> None:
    """Refuse a value that is of another type than an option's default."""
    if isinstance(default, bool):
        ok, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        ok, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(default, float):
        ok = isinstance(value, (int, float)) and not isinstance(value, bool)
        ok, expected = ok and math.isfinite(value), "a finite number"
    else:
        return
    if not ok:
        raise ControllerError(f"{value!r} is not accepted", where=where, expected=expected)


def clear(
    problem: ClearingProblem,
    clearing: str = "central",
    start: Dispatch | Start | None = None,
    *,
    max_iterations: int = 5000,
    tolerance: float = 1e-3,
    infeasibility_kw: float = 1.0,
    limits_pu: float = 1e-4,
    **options: Any,
) -> Clearing | DistributedClearing:
    """Clear one problem; a distributed algorithm runs with all its atoms in one loop.

    Parameters
    ----------
    clearing : str. A name of `CLEARINGS`, or ``module:Class``.
    start : Dispatch or Start, optional. Of a distributed algorithm; default `warm_start`.
    tolerance : Largest distance of the cost from the optimum and largest duality gap, relative to
        the cost; see `controllers.market.solvers.stopping`.
    infeasibility_kw : float. Largest error of a balance.
    limits_pu : Largest excess of a voltage limit, pu, or of a rating, relative, by the set-points
        carried by physics.
    **options. Of the algorithm, and `scales` and `seed`.

    Raises ControllerError: There is no such way to clear, the problem is none, or an option is out
    of range.
    """
    found = clearing_class(clearing)
    where = f"clearing '{clearing}'"
    rule = Rule(max_iterations, tolerance, infeasibility_kw, limits_pu)
    if issubclass(found, Iteration):
        loop: dict[str, Any] = {
            key: options.pop(key) for key in ("scales", "seed") if key in options
        }
        options = {**loop, **checked_options(found, options, where)}
        return iterate(found, problem, start, rule, **options)
    market: Any = found(problem.network, **checked_options(found, options, where))
    made: Clearing = market.clear(problem, rule) if is_by_areas(found) else market.clear(problem)
    return made
