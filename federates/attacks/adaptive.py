"""Adaptive attackers: programs that see what the attacker can see and decide at every step.

A user's own is named ``module:Class`` in the attack file, and looked up beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.named_classes import load_class
from federates.errors import ScenarioError


@dataclass(frozen=True)
class AttackSite:
    """What an attacker knows before the run.

    Attributes
    ----------
    targets : tuple of (port, label)
        What it may forge, in the order of every array; ports as ``federate.port``. On the physical
        layer the elements whose demand it may add to; the port is the feeder's input for that.
    units : tuple of str
        Unit of each target.
    sees : mapping of port to tuple of labels
        What else it reads.
    period_s : float
    seed : int
    aim : str
        The targets' port as the attack file names it: an input's name where only its reader is
        deceived.
    """

    targets: tuple[tuple[str, str], ...]
    units: tuple[str, ...]
    sees: Mapping[str, tuple[str, ...]]
    period_s: float
    seed: int
    aim: str = ""
    places: tuple[str, ...] = ()
    """Physical layer: the node that each element stands at."""


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
            The targets' values (physical layer: nominal demand in kW); reused, copy what you keep.
        seen : mapping of ``federate.port`` to float64
            The ports of the step's `sees`.
        """
        ...


class WeakestNodes:
    """Adds demand at the weakest nodes at the worst time, as botnets of appliances could.

    It reads the nodes' voltages. While the step is not active, and for `learn_s` after its begin,
    it learns how low they get; then it waits for the lowest node to come within `margin_pu` of the
    lowest voltage seen so far (at most `patience_s`), chooses the `count` targets at the nodes with
    the lowest voltage, and switches on `kw` in all, in proportion to their nominal demand.

    The idea, demand where and when the grid is weakest instead of everywhere at once: Shekari,
    Cardenas and Beyah, "MaDIoT 2.0: Modern High-Wattage IoT Botnet Attacks and Defenses", USENIX
    Security 2022.
    """

    def __init__(
        self,
        site: AttackSite,
        kw: float,
        count: int = 10,
        learn_s: float = 600.0,
        margin_pu: float = 0.001,
        patience_s: float = 3600.0,
    ) -> None:
        if not site.places:
            raise ValueError("it adds demand: expected a step of the physical layer")
        if len(site.sees) != 1:
            raise ValueError("expected sees: [feeder.v_pu] and nothing else")
        row = {label: k for k, label in enumerate(next(iter(site.sees.values())))}
        strange = [place for place in site.places if place not in row]
        if strange:
            raise ValueError(
                f"sees no voltage of node '{strange[0]}'; expected sees: [feeder.v_pu]"
            )
        self._row = np.array([row[place] for place in site.places], dtype=np.intp)
        self._kw, self._count = kw, count
        self._learn_s, self._margin_pu, self._patience_s = learn_s, margin_pu, patience_s
        self._lowest = np.inf
        self._added: FloatArray | None = None

    def decide(
        self,
        time_s: float,
        elapsed_s: float | None,
        true: FloatArray,
        seen: Mapping[str, FloatArray],
    ) -> FloatArray:
        """See `Attacker.decide`."""
        v_pu = next(iter(seen.values()))[self._row]
        now = float(v_pu.min())
        worst = now <= self._lowest + self._margin_pu
        self._lowest = min(self._lowest, now)
        if elapsed_s is None or elapsed_s < self._learn_s:
            return np.zeros(true.size)
        if self._added is None and (worst or elapsed_s >= self._learn_s + self._patience_s):
            weakest = np.argsort(v_pu, kind="stable")[: self._count]
            self._added = np.zeros(true.size)
            self._added[weakest] = self._kw * true[weakest] / true[weakest].sum()
        return np.zeros(true.size) if self._added is None else self._added


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
    "weakest-nodes": WeakestNodes,
    "under-threshold": UnderThreshold,
}


def resolve(name: str, where: str) -> type[Attacker]:
    """Return an attacker class by shipped name or ``module:Class``.

    Raises
    ------
    ScenarioError
        Naming `where`, what was found and the nearest valid name.
    """
    shipped = {known: f"{cls.__module__}:{cls.__name__}" for known, cls in SHIPPED.items()}
    try:
        cls: Any = load_class(name, shipped, "attacker")
    except ControllerError as error:
        # Not a controller's fault here, but the attack file's; and it has a place there.
        raise ScenarioError(
            f"{error.where}: {error.what}",
            where=where,
            expected=error.expected,
            nearest=error.nearest,
        ) from None
    if not callable(getattr(cls, "decide", None)):
        raise ScenarioError(f"'{name}' has no method 'decide'", where=where)
    found: type[Attacker] = cls
    return found


class _Watched:
    """An attacker whose faults have a place in the user's file."""

    def __init__(self, attacker: Attacker, where: str) -> None:
        self._attacker, self._where = attacker, where

    def decide(
        self,
        time_s: float,
        elapsed_s: float | None,
        true: FloatArray,
        seen: Mapping[str, FloatArray],
    ) -> FloatArray:
        """See `Attacker.decide`.

        Raises
        ------
        ScenarioError
            The attacker failed, or gave something else than a number for each target.
        """
        name = type(self._attacker).__name__
        try:
            given = self._attacker.decide(time_s, elapsed_s, true, seen)
            wanted = np.asarray(given, dtype=np.float64)
        except Exception as error:
            raise ScenarioError(
                f"attacker {name} failed at {time_s:g} s, in decide "
                f"({type(error).__name__}: {error})",
                where=self._where,
            ) from error
        if wanted.shape != true.shape:
            raise ScenarioError(
                f"attacker {name} gave an array of shape {wanted.shape} at {time_s:g} s, in decide",
                where=self._where,
                expected=f"one number for each target, shape {true.shape}",
            )
        return wanted


def build(
    cls: type[Attacker], site: AttackSite, options: Mapping[str, Any], where: str
) -> Attacker:
    """Construct an attacker; whatever it raises, now or later, names `where`."""
    try:
        return _Watched(cls(site, **options), where)
    except Exception as error:
        raise ScenarioError(
            f"cannot be built ({type(error).__name__}: {error})", where=where
        ) from error
