"""Controllers by name, and a user's own class by ``module:Class``."""

from __future__ import annotations

import inspect
from typing import cast

from controllers.core.errors import ControllerError
from controllers.core.named_classes import load_class
from controllers.core.protocol import Controller

_SHIPPED: dict[str, tuple[str, str]] = {
    "none": (
        "controllers.baselines.no_control:NoControl",
        "no control: reactive power stays at zero",
    ),
    "volt-var-1547": (
        "controllers.baselines.volt_var_1547:VoltVar1547",
        "local droop of IEEE 1547-2018, category A or B, with its open-loop response time",
    ),
    "optdist-vc": (
        "controllers.optdist.controller:OptdistVc",
        "distributed optimal voltage control by feedback and neighbour messages (OPTDIST-VC)",
    ),
    "dmpc": (
        "controllers.dmpc.feeder:FeederDmpc",
        "distributed MPC of PV and batteries in clusters: voltage, energy, forecast, by mail",
    ),
    "dmpc-circuit": (
        "controllers.dmpc.circuit:CircuitDmpc",
        "distributed MPC of circuit dynamics: clusters of inverters, edge-wise ADMM by mail",
    ),
    "market": (
        "controllers.market.agents.primary:PrimaryMarket",
        "primary market: an operator and a market operator per load node, bids and awards by mail",
    ),
    "resilience-manager": (
        "controllers.market.agents.manager:ResilienceManager",
        "brings the import back after an attack by bending the market's prices, by mail",
    ),
    "market-pac": (
        "controllers.market.agents.pac_agents:MarketPac",
        "primary market without an operator: proximal atomic coordination, one atom per bus",
    ),
    "averaging-pi": (
        "controllers.baselines.averaging_pi:AveragingPi",
        "distributed-averaging PI voltage control of circuit dynamics, the DMPC's baseline",
    ),
    "optimum": (
        "controllers.baselines.optimum:Optimum",
        "centralised optimum: one quadratic programme with all measurements, as a benchmark",
    ),
}


def descriptions() -> dict[str, str]:
    """Return the name of every shipped controller with a one-line description."""
    return {name: text for name, (_, text) in _SHIPPED.items()}


def resolve(name: str) -> type[Controller]:
    """Return a controller class by its shipped name or as ``module:Class``; imports only that one.

    Raises
    ------
    ControllerError
        The name is unknown, the module cannot be imported, it has no such class, or the class
        does not follow `controllers.core.protocol.Controller`; the message says what is missing.
    """
    shipped = {known: target for known, (target, _) in _SHIPPED.items()}
    return _checked(load_class(name, shipped, "controller"), f"controller '{name}'")


def _checked(candidate: type, where: str) -> type[Controller]:
    """Return `candidate` when it has the methods of the protocol (ports appear on instances)."""
    missing = [
        f"{name}{signature}"
        for name, signature in (("agents", "(site, **options)"), ("step", "(time_s, inputs, mail)"))
        if not callable(getattr(candidate, name, None))
    ]
    if missing:
        raise ControllerError(
            f"'{candidate.__name__}' is no controller: it lacks " + " and ".join(missing),
            where=where,
            expected="a class that follows controllers.core.protocol.Controller",
        )
    if not isinstance(inspect.getattr_static(candidate, "agents"), (classmethod, staticmethod)):
        raise ControllerError(
            f"'{candidate.__name__}.agents' needs an instance",
            where=where,
            expected="a classmethod: it is called before any instance exists",
        )
    for name, count in (("step", 4), ("__init__", 3)):
        _check_arity(candidate, name, count, where)
    return cast(type[Controller], candidate)


def _check_arity(candidate: type, method: str, count: int, where: str) -> None:
    """Check that `method` can be called with `count` positional arguments (self included)."""
    try:
        inspect.signature(getattr(candidate, method)).bind(*[None] * count)
    except TypeError as error:
        expected = {"step": "(self, time_s, inputs, mail)"}.get(
            method, "(self, site, hosted, **options)"
        )
        raise ControllerError(
            f"'{candidate.__name__}.{method}' has another signature ({error})",
            where=where,
            expected=f"{method}{expected}",
        ) from None
