"""Adaptive attackers: programs that see what the attacker can see and decide at every step.

A user's own is named ``module:Class`` in the attack file, and looked up beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from controllers.mail import FloatArray
from federates.errors import ScenarioError
from grid_models.errors import nearest_name


@dataclass(frozen=True)
class AttackSite:
    """What an attacker knows before the run.

    Attributes
    ----------
    targets : tuple of (port, label)
        What it may forge, in the order of every array; ports as ``federate.port``.
    units : tuple of str
        Unit of each target.
    sees : mapping of port to tuple of labels
        What else it reads.
    period_s : float
    seed : int
    """

    targets: tuple[tuple[str, str], ...]
    units: tuple[str, ...]
    sees: Mapping[str, tuple[str, ...]]
    period_s: float
    seed: int


@runtime_checkable
class Attacker(Protocol):
    """An attacker that decides; constructed as ``cls(site, **options)``. Must be deterministic."""

    def __init__(self, site: AttackSite, **options: Any) -> None: ...

    def decide(
        self,
        time_s: float,
        elapsed_s: float | None,
        true: FloatArray,
        seen: Mapping[str, FloatArray],
    ) -> FloatArray:
        """Return what the targets shall be.

        Parameters
        ----------
        time_s : float
            Simulated time of the values.
        elapsed_s : float or None
            Time since the step began; None while it is not active (look, learn, change nothing:
            what is returned is not used).
        true : float64 (n_targets,)
            The targets' values; reused, copy what you keep.
        seen : mapping of ``federate.port`` to float64
            The ports of the step's `sees`.
        """
        ...


class WorstTime:
    """Waits for the worst moment, then pushes the most vulnerable targets (MaDIoT-like).

    While it waits it ranks the targets by how far the seen values already stray from their mean,
    and watches the spread of a seen port. Once the spread is the largest of `learn_s`, it pushes
    the `count` worst targets by `push`, away from their mean.

    Source of the idea: Shekari, Cardenas, Beyah: MaDIoT 2.0, USENIX Security 2022.
    """

    def __init__(
        self, site: AttackSite, push: float, learn_s: float = 600.0, count: int = 10
    ) -> None:
        self._push, self._learn_s, self._count = push, learn_s, count
        self._largest = -np.inf
        self._chosen: FloatArray | None = None

    def decide(
        self,
        time_s: float,
        elapsed_s: float | None,
        true: FloatArray,
        seen: Mapping[str, FloatArray],
    ) -> FloatArray:
        """See `Attacker.decide`."""
        watched = next(iter(seen.values()), true)
        stray = true - true.mean()
        spread = float(np.abs(watched - watched.mean()).max())
        worst_so_far = spread >= self._largest
        self._largest = max(self._largest, spread)
        if elapsed_s is None:
            return true
        if self._chosen is None and (worst_so_far or elapsed_s >= self._learn_s):
            order = np.argsort(-np.abs(stray), kind="stable")[: self._count]
            self._chosen = np.zeros(true.size)
            self._chosen[order] = np.where(stray[order] >= 0, self._push, -self._push)
        return true if self._chosen is None else true + self._chosen


class UnderThreshold:
    """A bias that grows only as fast as a residual check lets pass.

    The attacker models the defender's check as the change between two samples against `threshold`,
    and adds at most ``margin * threshold`` less what the true value changes by itself, towards
    `goal`.
    """

    def __init__(
        self, site: AttackSite, goal: float, threshold: float, margin: float = 0.8
    ) -> None:
        if not (threshold > 0 and 0 < margin <= 1):
            raise ValueError("threshold > 0 and 0 < margin <= 1")
        self._goal, self._room = goal, margin * threshold
        self._bias = np.zeros(len(site.targets))
        self._before: FloatArray | None = None

    def decide(
        self,
        time_s: float,
        elapsed_s: float | None,
        true: FloatArray,
        seen: Mapping[str, FloatArray],
    ) -> FloatArray:
        """See `Attacker.decide`."""
        before, self._before = self._before, true.copy()
        if elapsed_s is None or before is None:
            return true
        change = true - before
        left = self._goal - self._bias
        step = np.clip(left, -self._room - change, self._room - change)
        # Where the true change alone fills the room, the bias stays as it is.
        self._bias += np.where(np.sign(step) == np.sign(left), step, 0.0)
        return true + self._bias


SHIPPED: Mapping[str, type[Attacker]] = {
    "worst-time": WorstTime,
    "under-threshold": UnderThreshold,
}


def resolve(name: str, where: str) -> type[Attacker]:
    """Return an attacker class by shipped name or ``module:Class``.

    Raises
    ------
    ScenarioError
        Naming `where`, what was found and the nearest valid name.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    module, colon, cls_name = name.partition(":")
    if not colon:
        raise ScenarioError(
            f"no attacker is called '{name}'",
            where=where,
            expected=f"one of {', '.join(SHIPPED)}, or module:Class",
            nearest=nearest_name(name, SHIPPED),
        )
    try:
        cls = getattr(importlib.import_module(module), cls_name)
    except ImportError as error:
        raise ScenarioError(f"cannot import '{module}': {error}", where=where) from error
    except AttributeError:
        raise ScenarioError(f"module '{module}' has no '{cls_name}'", where=where) from None
    if not (isinstance(cls, type) and callable(getattr(cls, "decide", None))):
        raise ScenarioError(f"'{name}' has no method 'decide'", where=where)
    return cls


def build(
    cls: type[Attacker], site: AttackSite, options: Mapping[str, Any], where: str
) -> Attacker:
    """Construct an attacker; whatever it raises becomes a message that names `where`."""
    try:
        return cls(site, **options)
    except Exception as error:
        raise ScenarioError(
            f"cannot be built ({type(error).__name__}: {error})", where=where
        ) from error
