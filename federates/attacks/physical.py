"""Physical steps: which elements of the grid they touch, and what the grid federate is told.

The attack does not reach into the feeder's model. A federate in front of the feeder publishes what
is done to the grid on ports of its own (`PhysicalPlan.ports`), and the feeder has inputs of these
names only in a scenario whose attack has physical steps.

| port | unit | inactive | meaning, one label per element |
| --- | --- | --- | --- |
| attack_connected | 1 | NaN: as the model says | 0 off the grid, or open; 1 on it, or closed |
| attack_load_kw | kW | 0 | further demand |
| attack_load_factor | 1 | 1 | times the demand |
| attack_thermostat_k | K | 0 | added to both set-points of a house |

What a step asks for is not always what the grid gives: see `grid_models.ders.disturbances`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray, IntArray
from controllers.core.ports import Port
from federates.attacks.elements import PhysicalElements, elements_of, targets_of
from federates.errors import WiringError
from federates.scenario.attack_schema import (
    Adaptive,
    AlterLoad,
    AttackSpec,
    CloseElement,
    PhysicalStep,
    Thermostat,
)
from federates.scenario.schema import Scenario
from grid_models.base.counter_rng import stream_ids, uniform
from grid_models.feeder.model import Feeder

CONNECTED, LOAD_KW = "attack_connected", "attack_load_kw"
LOAD_FACTOR, THERMOSTAT_K = "attack_load_factor", "attack_thermostat_k"
_UNITS = {CONNECTED: "1", LOAD_KW: "kW", LOAD_FACTOR: "1", THERMOSTAT_K: "K"}
#: What a port says where nothing is done.
IDLE = {CONNECTED: np.nan, LOAD_KW: 0.0, LOAD_FACTOR: 1.0, THERMOSTAT_K: 0.0}
# Random numbers of one step and element: does it obey, when does it switch; whether it is among
# those drawn comes first, see `elements`.
_OBEY, _PHASE = 1, 2
# A step that leaves its work behind has the state of just before its end.
_BEFORE_END_S = 1e-6
_NOTHING: Mapping[int, FloatArray] = MappingProxyType({})


@dataclass(frozen=True)
class PhysicalAction:
    """What one step does.

    Attributes
    ----------
    step : int
        Position in the attack.
    port : str
        Port it acts through.
    labels : tuple of str
        Elements it means.
    index : ndarray of int, shape (m,)
        Their positions in the port's labels.
    obeys : ndarray of bool, shape (m,)
        Elements that the step's probability leaves; the port stays idle for all others.
    value : ndarray, shape (m,)
        What the port says while the step is active.
    last_s : float
        Time since the step's begin that on and off are taken at afterwards, if it is left.
    on_s, cycle_s : float
        On and off in turn; `cycle_s` 0: on all the time.
    phase_s : ndarray, shape (m,)
        By how much each element is late in its cycle.
    """

    step: int
    port: str
    labels: tuple[str, ...]
    index: IntArray
    obeys: NDArray[np.bool_]
    value: FloatArray
    last_s: float
    on_s: float
    cycle_s: float
    phase_s: FloatArray

    def now(self, elapsed_s: float, decided: FloatArray | None = None) -> FloatArray:
        """Return what the step says at a time since its begin, shape (m,).

        `decided`, of the same shape, is what an adaptive attacker asks for in place of `value`.
        """
        on = self.obeys
        if self.cycle_s:
            at = np.mod(min(elapsed_s, self.last_s) - self.phase_s, self.cycle_s)
            on = on & (at < self.on_s)
        return np.where(on, self.value if decided is None else decided, IDLE[self.port])


class Affected(NamedTuple):
    """What one step changed in one time step, for the ground truth.

    Attributes
    ----------
    port : int
        Position in `PhysicalPlan.ports`.
    elements : ndarray of int, shape (m,)
        Positions in the port's labels.
    true, seen : ndarray, shape (m,)
        What would have held (connected as the model says, no further demand, demand times one,
        set-points unmoved), and what the grid is told instead.
    step : int
        Position in the attack.
    """

    port: int
    elements: IntArray
    true: FloatArray
    seen: FloatArray
    step: int


class PhysicalPlan:
    """All physical steps of an attack, resolved on a feeder.

    Parameters
    ----------
    actions : sequence of PhysicalAction
    labels : mapping of str to tuple of str
        Touched elements by port.
    elements : PhysicalElements
    """

    def __init__(
        self,
        actions: Sequence[PhysicalAction],
        labels: dict[str, tuple[str, ...]],
        elements: PhysicalElements,
    ) -> None:
        self.actions = tuple(actions)
        self.labels = labels
        self.places = {
            a.step: tuple(elements.node.get(x, "") for x in a.labels) for a in self.actions
        }
        """Node of each element that a step means; empty for lines and switches."""
        self.nominal_kw = {
            a.step: np.array([elements.nominal_kw[x] for x in a.labels]) for a in self.actions
        }
        connected = [float(elements.closed[x]) for x in labels.get(CONNECTED, ())]
        self._true = {port: np.full(len(names), IDLE[port]) for port, names in labels.items()} | {
            CONNECTED: np.array(connected)
        }

    def __bool__(self) -> bool:
        """Whether anything can be touched at all."""
        return bool(self.labels)

    def touched(self) -> dict[int, tuple[str, ...]]:
        """Return the elements that each step means, with the port it acts through."""
        return {a.step: tuple(f"{x} ({a.port})" for x in a.labels) for a in self.actions}

    def ports(self) -> tuple[Port, ...]:
        """Return the feeder's further inputs, which are the attack federate's outputs."""
        return tuple(
            Port(name, _UNITS[name], labels, IDLE[name], required=False)
            for name, labels in self.labels.items()
        )

    def values(
        self,
        elapsed_s: FloatArray,
        time_s: float = 0.0,
        decided: Mapping[int, FloatArray] = _NOTHING,
    ) -> dict[str, FloatArray]:
        """Return what each port says.

        Parameters
        ----------
        elapsed_s : ndarray, shape (n_steps,)
            Time since the begin of each step of the attack, of all layers; NaN: not active. A
            step that leaves its work behind stays at its length.
        time_s : float
            Of the values; what a step does depends on the time since its begin alone.
        decided : mapping of step to ndarray, shape (m,)
            What adaptive attackers ask of the elements that their steps mean.

        Returns
        -------
        dict of str to ndarray
            By port, shape (n_labels,). Where steps meet on one element, the later of the attack
            decides on a connection, demands and offsets add up, factors multiply.
        """
        out = {port: np.full(len(names), IDLE[port]) for port, names in self.labels.items()}
        for action in self.actions:
            since = float(elapsed_s[action.step])
            if np.isnan(since):
                continue
            now, values = action.now(since, decided.get(action.step)), out[action.port]
            if action.port == CONNECTED:
                values[action.index] = np.where(np.isnan(now), values[action.index], now)
            elif action.port == LOAD_FACTOR:
                values[action.index] *= now
            else:
                values[action.index] += now
        return out

    def affected(
        self,
        values: dict[str, FloatArray],
        elapsed_s: FloatArray,
        decided: Mapping[int, FloatArray] = _NOTHING,
    ) -> list[Affected]:
        """Return what the active steps changed: elements of which another value is seen.

        Parameters
        ----------
        values : dict of str to ndarray
            As `values` gave them.
        elapsed_s : ndarray, shape (n_steps,)
        decided : mapping of step to ndarray, shape (m,)
            As `values` was given.
        """
        out = []
        for action in self.actions:
            since = float(elapsed_s[action.step])
            if np.isnan(since):
                continue
            now = action.now(since, decided.get(action.step))
            idle = np.isnan(now) if action.port == CONNECTED else now == IDLE[action.port]
            index = action.index[~idle]
            true, seen = self._true[action.port][index], values[action.port][index]
            other = true != seen
            if other.any():
                place = list(self.labels).index(action.port)
                out.append(Affected(place, index[other], true[other], seen[other], action.step))
        return out


def physical_plan(scenario: Scenario, feeder: Feeder) -> PhysicalPlan | None:
    """Return what a scenario's attack does to the grid; None where it does nothing to it.

    Raises
    ------
    WiringError
        Listing every step that names what is not there or cannot be done.
    """
    spec = scenario.attack_spec
    if spec is None or not spec.of_layer("physical"):
        return None
    plan, problems = resolve_physical(spec, elements_of(scenario, feeder))
    if problems:
        raise WiringError(problems, where="")  # each says where it is
    return plan


def groundless_steps(spec: AttackSpec, grids: Collection[str]) -> list[str]:
    """Say that an attack has physical steps and the scenario no grid they could act on."""
    steps = spec.of_layer("physical")
    if not steps or grids:
        return []
    return [
        f"{spec.where('steps', steps[0][0], 'target')}: the scenario has no grid to act on; "
        "expected a federate of kind feeder"
    ]


def resolve_physical(
    spec: AttackSpec, elements: PhysicalElements
) -> tuple[PhysicalPlan, list[str]]:
    """Find the elements that an attack's physical steps touch.

    Parameters
    ----------
    spec : AttackSpec
    elements : PhysicalElements

    Returns
    -------
    plan : PhysicalPlan
        Of the steps without problems.
    problems : list of str
        Each with file, line and key, what was expected, and the nearest name.
    """
    problems: list[str] = []
    found: list[tuple[int, PhysicalStep, tuple[str, ...]]] = []
    for i, step in spec.of_layer("physical"):
        assert isinstance(step, PhysicalStep)
        labels = targets_of(spec, i, step, elements, problems)
        if labels:
            found.append((i, step, labels))
    touched: dict[str, set[str]] = {}
    for _, step, labels in found:
        touched.setdefault(_port_of(step), set()).update(labels)
    by_port = {
        port: tuple(x for x in elements.labels if x in touched[port])
        for port in _UNITS
        if port in touched
    }
    actions = [_action(spec, i, step, labels, by_port, elements) for i, step, labels in found]
    return PhysicalPlan(actions, by_port, elements), problems


def _port_of(step: PhysicalStep) -> str:
    action = step.action
    if isinstance(action, Adaptive):
        return LOAD_KW
    if isinstance(action, AlterLoad):
        return LOAD_FACTOR if action.kw is None else LOAD_KW
    return THERMOSTAT_K if isinstance(action, Thermostat) else CONNECTED


def _numbers(
    spec: AttackSpec, step: PhysicalStep, labels: Sequence[str], channel: int
) -> FloatArray:
    """Return one number in (0, 1) per element, which no other step or element has part in."""
    return uniform(spec.seed, stream_ids(f"{step.id}/{x}" for x in labels), 0, channel)


def _action(
    spec: AttackSpec,
    i: int,
    step: PhysicalStep,
    labels: tuple[str, ...],
    by_port: dict[str, tuple[str, ...]],
    elements: PhysicalElements,
) -> PhysicalAction:
    port, does = _port_of(step), step.action
    place = {x: n for n, x in enumerate(by_port[port])}
    cycle_s, on_s, spread = 0.0, 0.0, 0.0
    if isinstance(does, AlterLoad) and does.on_s is not None and does.off_s is not None:
        cycle_s, on_s, spread = does.on_s + does.off_s, does.on_s, 1.0 - does.synchrony
    ends = step.duration_s is not None and step.on_end == "leave"
    return PhysicalAction(
        step=i,
        port=port,
        labels=labels,
        index=np.array([place[x] for x in labels], dtype=np.int64),
        obeys=_numbers(spec, step, labels, _OBEY) < step.probability,
        value=_asked(does, labels, elements),
        last_s=(step.duration_s or 0.0) - _BEFORE_END_S if ends else np.inf,
        on_s=on_s,
        cycle_s=cycle_s,
        phase_s=_numbers(spec, step, labels, _PHASE) * spread * cycle_s,
    )


def _asked(
    does: object, labels: tuple[str, ...], elements: PhysicalElements
) -> NDArray[np.float64]:
    """Return what a port says of each element when the step acts on it."""
    n = len(labels)
    if isinstance(does, AlterLoad):
        if does.kw is None:
            return np.full(n, does.factor)
        nominal = np.array([elements.nominal_kw[x] for x in labels])
        if not nominal.sum() > 0.0:
            nominal = np.ones(n)
        share: NDArray[np.float64] = does.kw * (nominal / nominal.sum())
        return share
    if isinstance(does, Thermostat):
        return np.full(n, does.offset_k)
    if isinstance(does, Adaptive):
        return np.zeros(n)  # until the attacker decides
    return np.full(n, 1.0 if isinstance(does, CloseElement) else 0.0)
