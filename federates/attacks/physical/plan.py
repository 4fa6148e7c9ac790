"""What the physical steps of an attack do to one plant, and how the plant is told.

The attack does not change the plant's model. An attack federate that steps before the plant
publishes what is done to its elements, and the plant has inputs of these names only where an attack
has physical steps for it.

| port | unit | inactive | meaning, one label per element |
| --- | --- | --- | --- |
| attack_connected | 1 | NaN: as the model says | 0 off the grid, or open; 1 on it, or closed |
| attack_load_kw | kW | 0 | further demand |
| attack_load_factor | 1 | 1 | times the demand |
| attack_thermostat_k | K | 0 | added to both set-points of a house |
| attack_settings | 1 | 0 | number of the step, from 1, whose settings an inverter has |

The plant may give less than a step asks for: see `grid_models.ders.disturbances`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.core.ports import Port
from federates.attacks.adaptive import CheckedAttacker
from federates.attacks.physical.action import CONNECTED, IDLE, LOAD_FACTOR, UNITS, PhysicalAction
from federates.attacks.physical.elements import PhysicalElements
from federates.attacks.plan import PartPlan, SitePart, SitePlan
from federates.core.context import FederateContext
from federates.scenario.attack_schema import AttackSpec

if TYPE_CHECKING:
    from federates.attacks.truth import TruthWriter

_NONE_DECIDED: Mapping[int, FloatArray] = MappingProxyType({})


@dataclass(frozen=True)
class ElementStep:
    """One physical step on the elements of one plant.

    Attributes
    ----------
    step : Position in the attack.
    labels : Elements it acts on.
    index : (m,). Their positions in the labels of the action's port.
    value : (m,). What the port says of them while the step is active.
    obeys : (m,). Elements that the step's probability leaves; the port stays idle for all others.
    draws : (m,). For `PhysicalAction.on`.
    last_s : Time since the step's begin that holds afterwards, where the step leaves its changes.
    nodes : Node of each element; '' for lines and switches.
    nominal_kw : (m,)
    """

    step: int
    action: PhysicalAction
    labels: tuple[str, ...]
    index: IntArray
    value: FloatArray
    obeys: NDArray[np.bool_]
    draws: FloatArray
    last_s: float
    nodes: tuple[str, ...]
    nominal_kw: FloatArray

    def now(self, elapsed_s: float, decided: FloatArray | None = None) -> FloatArray:
        """Return what the port says at a time since the step's begin, (m,).

        `decided`, of the same shape, is what an adaptive attacker asks for in place of `value`.
        """
        on = self.obeys & self.action.on(min(elapsed_s, self.last_s), self.draws)
        return np.where(on, self.value if decided is None else decided, IDLE[self.action.port])


class Affected(NamedTuple):
    """What one step changed in one time step, for the ground truth.

    `true` is what would have held, `seen` what the plant is told instead, (m,) each; `port` is a
    position in `PhysicalPlan.ports`, `elements` (m,) are positions in its labels.
    """

    port: int
    elements: IntArray
    true: FloatArray
    seen: FloatArray
    step: int


class PhysicalPlan(PartPlan):
    """All physical steps of an attack on one plant.

    Attributes
    ----------
    plant : Name of the plant's federate.
    labels : Touched elements; ports without any do not exist.
    """

    def __init__(
        self,
        plant: str,
        actions: Sequence[ElementStep],
        labels: dict[str, tuple[str, ...]],
        elements: PhysicalElements,
    ) -> None:
        self.plant, self.actions, self.labels = plant, tuple(actions), labels
        connected = [float(elements.closed[x]) for x in labels.get(CONNECTED, ())]
        self._true = {port: np.full(len(names), IDLE[port]) for port, names in labels.items()} | {
            CONNECTED: np.array(connected)
        }

    def __bool__(self) -> bool:
        """Whether any element can be touched at all."""
        return bool(self.labels)

    def ports(self) -> tuple[Port, ...]:
        """Return the plant's further inputs, which are the attack federate's outputs."""
        return tuple(
            Port(name, UNITS[name], labels, IDLE[name], required=False)
            for name, labels in self.labels.items()
        )

    def books(self) -> list[tuple[str, str, tuple[str, ...]]]:
        return [(self.plant, port, labels) for port, labels in self.labels.items()]

    def steps(self) -> set[int]:
        return {action.step for action in self.actions}

    def build(
        self, spec: AttackSpec, site: SitePlan, context: FederateContext, first_channel: int
    ) -> ElementChanges:
        return ElementChanges(self, spec, site, context.period_s, first_channel)

    def values(
        self, elapsed_s: FloatArray, decided: Mapping[int, FloatArray] = _NONE_DECIDED
    ) -> dict[str, FloatArray]:
        """Return what each port says.

        Parameters
        ----------
        elapsed_s : (n_steps,). Time since the begin of each step of the attack, of all layers; NaN:
            not active. A step that leaves its changes behind stays at its length.
        decided : (m,). What adaptive attackers ask of the elements of their steps.

        Returns
        -------
        dict of str to float64 (n_labels,)
            By port. Where several steps act on one element, the last in the file decides on a
            connection, demands and offsets add up, factors multiply.
        """
        out = {port: np.full(len(names), IDLE[port]) for port, names in self.labels.items()}
        for action, now in self._active(elapsed_s, decided):
            values = out[action.action.port]
            if action.action.port == CONNECTED:
                values[action.index] = np.where(np.isnan(now), values[action.index], now)
            elif action.action.port == LOAD_FACTOR:
                values[action.index] *= now
            else:
                values[action.index] += now
        return out

    def affected(
        self,
        values: dict[str, FloatArray],
        elapsed_s: FloatArray,
        decided: Mapping[int, FloatArray] = _NONE_DECIDED,
    ) -> list[Affected]:
        """Return what the active steps changed; arguments as `values` was given, and its result."""
        out = []
        for action, now in self._active(elapsed_s, decided):
            port = action.action.port
            idle = np.isnan(now) if port == CONNECTED else now == IDLE[port]
            index = action.index[~idle]
            true, seen = self._true[port][index], values[port][index]
            other = true != seen
            if other.any():
                place = list(self.labels).index(port)
                out.append(Affected(place, index[other], true[other], seen[other], action.step))
        return out

    def _active(
        self, elapsed_s: FloatArray, decided: Mapping[int, FloatArray]
    ) -> Iterator[tuple[ElementStep, FloatArray]]:
        """Yield the active steps with what they say of their elements."""
        for action in self.actions:
            since = float(elapsed_s[action.step])
            if since == since:
                yield action, action.now(since, decided.get(action.step))


class ElementChanges(SitePart):
    """Publishes what the active steps do to the elements of a plant."""

    def __init__(
        self,
        plan: PhysicalPlan,
        spec: AttackSpec,
        site: SitePlan,
        period_s: float,
        first_channel: int,
    ) -> None:
        self._plan, self._first_channel = plan, first_channel
        self._deciders: list[tuple[ElementStep, CheckedAttacker]] = []
        for action in plan.actions:
            targets = [(f"{plan.plant}.{action.action.port}", label) for label in action.labels]
            units = [UNITS[action.action.port]] * len(targets)
            at = site.attack_site(spec, action.step, targets, units, period_s, action.nodes)
            decider = action.action.decider(at)
            if decider is not None:
                self._deciders.append((action, decider))
        self._sees = site.sees

    def outputs(
        self,
        sample_s: float,
        elapsed_s: FloatArray,
        inputs: Mapping[str, FloatArray],
        truth: TruthWriter | None,
    ) -> dict[str, FloatArray]:
        decided: dict[int, FloatArray] = {}
        for action, decider in self._deciders:
            sees = self._sees.get(action.step, {})
            seen = {port: np.concatenate([inputs[n] for n in ns]) for port, ns in sees.items()}
            since = float(elapsed_s[action.step])
            active = since if since == since else None
            decided[action.step] = decider.decide(sample_s, active, action.nominal_kw, seen)
        values = self._plan.values(elapsed_s, decided)
        if truth is not None:
            for port, element, true, now, step in self._plan.affected(values, elapsed_s, decided):
                truth.add(sample_s, self._first_channel + port, element, true, now, step)
        return values
