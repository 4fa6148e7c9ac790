"""Algorithms by name: what each does, and the function that builds it for a kind of problem."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from controllers.core.errors import ControllerError
from controllers.core.waiting import Asynchronous, Barrier, Waiting
from controllers.optimisation.method import Method, Problem
from grid_models.base.errors import nearest_name

_COMMON = ("problem", "waiting", "tolerance", "hosted")


@dataclass(frozen=True)
class Algorithm:
    """An algorithm.

    Attributes
    ----------
    about : One line for lists.
    builders : Kind of problem to ``module:function`` within this package. The function is called
        with the problem, ``tolerance``, ``waiting``, ``hosted`` and the algorithm's options.
    options : Fixed options of a variant.
    waiting : How its agents wait for mail.
    """

    about: str
    builders: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    waiting: type[Waiting] = Barrier


def _coordinated(module: str) -> dict[str, str]:
    """Return the builders of an algorithm with a coordinator, which takes inequality rows too."""
    return dict.fromkeys(("dispatch", "inequality dispatch"), f"{module}:build")


def _peers(module: str) -> dict[str, str]:
    """Return the builders of an algorithm without a coordinator."""
    return dict.fromkeys(("consensus", "dispatch"), f"{module}:build")


ALGORITHMS: dict[str, Algorithm] = {
    "dual": Algorithm(
        "dual decomposition: a coordinator's price, constant step",
        _coordinated("dual"),
    ),
    "dual-conservative": Algorithm(
        "dual decomposition with the step q_min / n, known without all costs",
        _coordinated("dual"),
        {"step": "conservative"},
    ),
    "dual-diminishing": Algorithm(
        "dual decomposition, step falling with the square root of the round",
        _coordinated("dual"),
        {"step": "diminishing"},
    ),
    "dual-preconditioned": Algorithm(
        "dual decomposition, a step of its own for each row (Jacobi)",
        _coordinated("dual"),
        {"step": "preconditioned"},
    ),
    "dual-nesterov": Algorithm(
        "dual decomposition with Nesterov's momentum and restart",
        _coordinated("dual_nesterov"),
    ),
    "admm": Algorithm(
        "dispatch: sharing ADMM of members and a coordinator; consensus: ADMM of peers; regions: "
        "ADMM of neighbours, penalties that follow the residuals",
        _coordinated("admm")
        | {
            "consensus": "admm_consensus:build",
            "regions": "admm_regions:build",
            "branch flow": "branch_flow:build",
        },
    ),
    "admm-preconditioned": Algorithm(
        "sharing ADMM, penalties scaled by each member's curvature",
        _coordinated("admm"),
        {"penalty": "scaled"},
    ),
    "admm-over-relaxed": Algorithm(
        "sharing ADMM, over-relaxed by 1.6",
        _coordinated("admm"),
        {"relaxation": 1.6},
    ),
    "admm-nesterov": Algorithm(
        "sharing ADMM with Nesterov's momentum and restart",
        _coordinated("admm_nesterov"),
    ),
    "admm-anderson": Algorithm(
        "sharing ADMM, Anderson acceleration over five rounds, safeguarded",
        _coordinated("admm_anderson"),
    ),
    "admm-adaptive": Algorithm(
        "sharing ADMM, penalty adapted by residual balancing",
        _coordinated("admm_adaptive"),
    ),
    "admm-least-squares": Algorithm(
        "ADMM of variables and rows that a coordinator joins by least squares; may start warm",
        _coordinated("admm_least_squares"),
    ),
    "admm-proximal-jacobian": Algorithm(
        "Jacobian ADMM held back by a proximal term",
        _coordinated("admm_proximal_jacobian"),
    ),
    "admm-async": Algorithm(
        "ADMM where the coordinator, or each peer, waits for a fraction of the others",
        _coordinated("admm") | {"consensus": "admm_consensus:build"},
        waiting=Asynchronous,
    ),
    "admm-consensus": Algorithm(
        "ADMM of peers: agreement on each edge, of a dispatch on the price (dual consensus ADMM)",
        _peers("admm_consensus"),
    ),
    "admm-consensus-async": Algorithm(
        "ADMM of peers that wait for a fraction of their neighbours",
        _peers("admm_consensus"),
        waiting=Asynchronous,
    ),
    "admm-consensus-over-relaxed": Algorithm(
        "ADMM of peers, over-relaxed by 1.8",
        _peers("admm_consensus"),
        {"relaxation": 0.9},
    ),
    "dgd": Algorithm(
        "distributed gradient descent, constant step: keeps a bias",
        _peers("dgd"),
    ),
    "dgd-diminishing": Algorithm(
        "distributed gradient descent, step falling with the square root of the round",
        _peers("dgd"),
        {"decay": 0.5},
    ),
    "extra": Algorithm(
        "gradient descent with neighbours, exact by a correction from the round before",
        _peers("extra"),
    ),
    "gradient-tracking": Algorithm(
        "gradient descent with neighbours along a tracked mean gradient, with momentum",
        _peers("gradient_tracking"),
    ),
    "gradient-tracking-plain": Algorithm(
        "gradient tracking without momentum (DIGing)",
        _peers("gradient_tracking"),
        {"momentum": False},
    ),
    "ratio-consensus": Algorithm(
        "quotient of two averages by running sums, which lose nothing with lost messages",
        _peers("ratio_consensus"),
    ),
    "ratio-consensus-momentum": Algorithm(
        "quotient of two averages, with momentum of the mixing",
        _peers("ratio_consensus"),
        {"momentum": True},
    ),
    "consensus": Algorithm(
        "averaging with neighbours, optimal constant weight",
        {"consensus": "consensus:build"},
    ),
    "consensus-metropolis": Algorithm(
        "averaging with neighbours, Metropolis weights",
        {"consensus": "consensus:build"},
        {"weights": "metropolis"},
    ),
    "consensus-momentum": Algorithm(
        "averaging with neighbours, two-step momentum",
        {"consensus": "consensus:build"},
        {"momentum": True},
    ),
    "admm-fixed": Algorithm(
        "ADMM of neighbouring regions, fixed penalties",
        {"regions": "admm_regions:build"},
        {"adaptive": False},
    ),
    "atc": Algorithm(
        "analytical target cascading: neighbouring regions, growing penalties",
        {"regions": "atc:build"},
    ),
    "app": Algorithm(
        "auxiliary problem principle: neighbouring regions, linearised penalties",
        {"regions": "app:build"},
    ),
    "aladin": Algorithm(
        "regions solve their own problems, a coordinator takes a Newton step of the whole",
        {"regions": "aladin:build"},
    ),
    "pac": Algorithm(
        "proximal atomic coordination: buses of a feeder agree along its lines",
        {"branch flow": "branch_flow:build"},
        {"iteration": "pac"},
    ),
    "pac-anchored": Algorithm(
        "the same, reflected and drawn to the state of the last restart",
        {"branch flow": "branch_flow:build"},
        {"iteration": "pac-anchored"},
    ),
    "nst-pac": Algorithm(
        "the same with quadratic penalties and Nesterov steps",
        {"branch flow": "branch_flow:build"},
        {"iteration": "nst-pac"},
    ),
    "interior-point": Algorithm(
        "interior point: regions eliminate their part of Newton steps, a coordinator joins them",
        {"regions": "interior_point:build"},
    ),
}


def names_for(problem: Problem) -> tuple[str, ...]:
    """Return the algorithms that can solve a problem."""
    return tuple(name for name, a in ALGORITHMS.items() if problem.kind in a.builders)


def check_options(name: str, problem: Problem, options: Mapping[str, Any]) -> None:
    """Check an algorithm's name and the names and types of its options.

    Raises ControllerError: There is no such algorithm, it does not solve such problems, it has no
    such option, or a value is of another type.
    """
    known = _options(name, problem)
    for option, value in options.items():
        where = f"option '{option}' of algorithm '{name}'"
        if option not in known:
            raise ControllerError(
                "there is no such option",
                where=where,
                expected="one of " + ", ".join(known),
                nearest=nearest_name(option, known),
            )
        try:
            TypeAdapter(known[option]).validate_python(value, strict=True)
        except PydanticSchemaGenerationError:  # an array: the builder looks at it
            continue
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise ControllerError(f"{value!r}: {what}", where=where) from None


def build(name: str, problem: Problem, **options: Any) -> Method:
    """Return an algorithm at work on a problem.

    options : Those of its builder, and in place of ``waiting`` also the fields of its waiting
        policy (`controllers.core.waiting`): ``resend_after``, ``fraction``, ``max_age``.

    Raises ControllerError: As `check_options`, or the algorithm refuses the problem.
    """
    check_options(name, problem, {k: v for k, v in options.items() if k not in _COMMON})
    algorithm, builder = ALGORITHMS[name], _builder(name, problem)
    fields = get_type_hints(algorithm.waiting)
    chosen = {key: options.pop(key) for key in list(options) if key in fields}
    options.setdefault("waiting", algorithm.waiting(**chosen))
    return builder(problem, **{**algorithm.options, **options})


def _options(name: str, problem: Problem) -> dict[str, Any]:
    """Return the types of an algorithm's own options and of its waiting policy."""
    parameters = inspect.signature(_builder(name, problem), eval_str=True).parameters.values()
    own = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _COMMON]
    return {p.name: p.annotation for p in own} | get_type_hints(ALGORITHMS[name].waiting)


def _builder(name: str, problem: Problem) -> Callable[..., Method]:
    if name not in ALGORITHMS:
        raise ControllerError(
            f"no algorithm is called '{name}'",
            where="algorithms",
            expected="one of " + ", ".join(names_for(problem)),
            nearest=nearest_name(name, ALGORITHMS),
        )
    builders = ALGORITHMS[name].builders
    if problem.kind not in builders:
        raise ControllerError(
            f"algorithm '{name}' does not solve {problem.kind} problems",
            where="algorithms",
            expected="one of " + ", ".join(names_for(problem)),
        )
    module, _, function = builders[problem.kind].partition(":")
    found: Callable[..., Method] = getattr(
        import_module(f"controllers.optimisation.algorithms.{module}"), function
    )
    return found
