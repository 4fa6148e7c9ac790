"""Adaptive attackers: programs that read signals and decide at every step what an attack does.

A user's own is named ``module:Class`` in the attack file, and looked up beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.named_classes import load_class
from federates.errors import ScenarioError
from federates.scenario.attack_actions import Action
from grid_models.base.errors import GridModelError
from grid_models.base.options import checked_number, checked_whole
from grid_models.base.sections import not_json


@dataclass(frozen=True)
class AttackSite:
    """What an attacker knows before the run.

    Attributes
    ----------
    targets : tuple of (port, label)
        What it may forge, in the order of every array; ports as ``federate.port``. On the physical
        layer the elements whose demand it may add to; the port is the feeder's input for that.
    units : Unit of each target.
    sees : What else it reads: labels by port.
    aim : The targets' port as the attack file names it: an input's name where only its reader is
        deceived.
    places : Physical layer: the node that each element stands at.
    where : Place of the action in the attack file.
    """

    targets: tuple[tuple[str, str], ...]
    units: tuple[str, ...]
    sees: Mapping[str, tuple[str, ...]]
    period_s: float
    seed: int
    aim: str = ""
    places: tuple[str, ...] = ()
    where: str = ""


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
        time_s : Simulated time of the values.
        elapsed_s : Time since the step began; None while it is not active: the result is not used.
        true : float64 (n_targets,)
            The targets' values (physical layer: nominal demand in kW); reused, copy what you keep.
        seen : Values by ``federate.port`` of the step's `sees`.
        """
        ...


class WeakestNodes:
    """Adds demand at the weakest nodes at the worst time, as a botnet of appliances could.

    It reads the nodes' voltages and keeps the lowest, from the start of the run until `learn_s`
    after the step's begin. Then it waits, at most `patience_s`, until the lowest node is within
    `margin_pu` of the lowest voltage so far, and switches on `kw` at the `count` targets whose
    nodes have the lowest voltage, in proportion to their nominal demand.

    After Shekari, Cardenas and Beyah, "MaDIoT 2.0: Modern High-Wattage IoT Botnet Attacks and
    Defenses", USENIX Security 2022: demand where and when the grid is weakest.
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
        checked_number("kw", kw, low=0.0)
        checked_whole("count", count, low=1)
        checked_number("learn_s", learn_s, low=0.0)
        checked_number("margin_pu", margin_pu, low=0.0)
        checked_number("patience_s", patience_s, low=0.0)
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
    """A bias that grows towards `goal` only as fast as a residual check lets pass.

    The attacker assumes that the defender compares the change between two samples with `threshold`,
    and keeps the change that is seen within ``margin * threshold``.
    """

    def __init__(
        self, site: AttackSite, goal: float, threshold: float, margin: float = 0.8
    ) -> None:
        checked_number("goal", goal)
        checked_number("threshold", threshold, low=0.0, open_low=True)
        checked_number("margin", margin, low=0.0, high=1.0, open_low=True)
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


SHIPPED: Mapping[str, str] = {
    "weakest-nodes": "federates.attacks.adaptive:WeakestNodes",
    "under-threshold": "federates.attacks.adaptive:UnderThreshold",
}


class CheckedAttacker:
    """An attacker whose errors name the place of its action in the attack file.

    Raises ScenarioError: It cannot be built or fails, or gives something else than a number for
    each target.
    """

    def __init__(self, cls: type[Attacker], site: AttackSite, options: Mapping[str, Any]) -> None:
        self._where, self._name = site.where, cls.__name__
        try:
            self._attacker = cls(site, **options)
        except GridModelError as error:
            raise ScenarioError(
                f"attacker {self._name}: {error.where}: {error.what}",
                where=self._where,
                expected=error.expected,
            ) from None
        except (Exception, SystemExit) as error:
            raise ScenarioError(
                f"cannot be built ({type(error).__name__}: {error})", where=self._where
            ) from error

    def decide(
        self,
        time_s: float,
        elapsed_s: float | None,
        true: FloatArray,
        seen: Mapping[str, FloatArray],
    ) -> FloatArray:
        """See `Attacker.decide`; returns an array of its own."""
        try:
            given = self._attacker.decide(time_s, elapsed_s, true, seen)
            wanted = np.array(given, dtype=np.float64)
        except Exception as error:
            raise ScenarioError(
                f"attacker {self._name} failed at {time_s:g} s, in decide "
                f"({type(error).__name__}: {error})",
                where=self._where,
            ) from error
        if wanted.shape != true.shape:
            raise ScenarioError(
                f"attacker {self._name} gave an array of shape {wanted.shape} at {time_s:g} s, in "
                "decide",
                where=self._where,
                expected=f"one number for each target, shape {true.shape}",
            )
        return wanted


class AdaptiveOptions(Action):
    """Options of an action that an attacker's program decides."""

    needs_all_targets = True
    attacker: str = Field(description="Name of a shipped attacker, or module:Class.")
    sees: list[str] = Field([], description="federate.port globs that the attacker reads, too.")
    options: dict[str, Any] = Field({}, description="Passed to the attacker.")

    def describe(self, unit: str = "") -> str:
        """See `Action`."""
        sees = f", seeing {', '.join(self.sees)}" if self.sees else ""
        return f"lets the attacker {self.attacker} decide{sees}"

    def reads(self) -> Sequence[str]:
        """See `Action`."""
        return self.sees

    def problems(self) -> Iterator[tuple[str, str]]:
        """See `Action`."""
        if wrong := not_json(self.options):
            yield "options", wrong

    def attacker_of(self, site: AttackSite) -> CheckedAttacker:
        """Return the attacker, built for `site`.

        Raises ScenarioError: Naming file, line and key, what was found and the nearest valid name.
        """
        try:
            cls: Any = load_class(self.attacker, SHIPPED, "attacker")
        except ControllerError as error:
            raise ScenarioError(
                f"{error.where}: {error.what}",
                where=site.where,
                expected=error.expected,
                nearest=error.nearest,
            ) from None
        if not callable(getattr(cls, "decide", None)):
            raise ScenarioError(f"'{self.attacker}' has no method 'decide'", where=site.where)
        return CheckedAttacker(cls, site, self.options)
