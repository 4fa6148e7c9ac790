"""The transmission federate: machines and frequency of a system, feeders at its buses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from federates.attacks.physical.resolve import physical_plan
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.kinds.transmission.build import build
from federates.kinds.transmission.coupling import FeederDemand, doubtful_wires
from federates.kinds.transmission.disturbance import (
    INJECTION,
    LOAD_SET,
    Disturbances,
    elements_of,
)
from federates.kinds.transmission.metrics import TransmissionMetrics
from federates.kinds.transmission.section import TransmissionSection

if TYPE_CHECKING:
    from federates.core.run_store import RunStore

SYSTEM, TIE = ("system",), ("tie",)


class TransmissionFederate(Federate):
    """Advances a transmission system from one exchange to the next.

    Inputs, all optional, one label per bus: ``feeder_kw``, ``feeder_kvar`` (what the feeders at a
    bus draw), ``feeder_kw_per_pu``, ``feeder_kvar_per_pu`` (its slope by the voltage that they
    read), ``load_set_mw`` (controllable demand, added), and with model ``swing`` ``injection_mw``
    (in place of the tables' generation less demand; NaN: as in the tables). Outputs: ``v_pu``,
    ``v_deg``, ``v_rel_pu`` (over its value at time 0, what a feeder reads as its source),
    ``frequency_hz`` and ``load_mw`` per bus, ``coi_hz`` (centre of inertia), ``speed_hz``,
    ``p_mech_mw``, ``p_gen_mw`` per machine, ``flow_mw`` per branch (into its first end), and
    ``tie_mw``.

    What feeders published last acts in the time since the last step; set-points and attacks act
    from the step that reads them. A scenario whose attack has physical steps adds the inputs of
    `federates.attacks.physical.plan`. After a collapse voltages and powers are 0 and frequencies
    NaN.

    Attributes
    ----------
    physical : What the scenario's attack does to the system.
    """

    Section = TransmissionSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        section = context.section
        assert isinstance(section, TransmissionSection)
        model, load_mw = build(context, section)
        self._model, self._warm_up_s = model, context.warm_up_s
        self._v0_pu = np.abs(model.state.v)
        self._feeders = FeederDemand(context, model)
        self.physical = physical_plan(context.scenario, self.name, elements_of(model, load_mw))
        touched = {} if self.physical is None else self.physical.labels
        self._disturbances = Disturbances(model, touched)
        buses, branches, machines = model.buses, model.branches, model.machines
        self.inputs = (
            *self._feeders.ports,
            Port(LOAD_SET, "MW", buses, required=False),
        )
        if section.model == "swing":
            self.inputs += (Port(INJECTION, "MW", buses, np.nan, required=False),)
        if self.physical is not None:
            self.inputs += self.physical.ports()
        hz = partial(Port, unit="Hz", initial=np.nan)  # there is none after a collapse
        self.outputs = (
            Port("v_pu", "pu", buses, initial=1.0),
            Port("v_deg", "deg", buses),
            Port("v_rel_pu", "pu", buses, initial=1.0),
            hz("frequency_hz", labels=buses),
            hz("coi_hz", labels=SYSTEM),
            hz("speed_hz", labels=machines),
            Port("p_mech_mw", "MW", machines),
            Port("p_gen_mw", "MW", machines),
            Port("load_mw", "MW", buses),
            Port("flow_mw", "MW", branches),
            Port("tie_mw", "MW", TIE),
        )
        self.warnings = doubtful_wires(context, buses)
        self._metrics = TransmissionMetrics()
        self._done = self._disturbances.of(
            {port.name: np.full(len(port.labels), port.initial) for port in self.inputs}
        )

    def start(self, store: RunStore) -> None:
        """Let the system's events reach the run's list."""
        self._metrics.start(partial(store.event, self.name))

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Go on to `time_s` with the feeders' demand, then take set-points and attacks."""
        model = self._model
        state = model.advance(time_s, self._feeders.demand(time_s, inputs), self._done)
        self._done = self._disturbances.of(inputs)
        for event in model.take_events():
            self._metrics.note(event)
        v_pu = np.abs(state.v)
        v_rel_pu = v_pu / self._v0_pu
        self._feeders.publish(time_s, v_rel_pu)
        tie_mw = float(state.flow_mw[model.tie].sum())
        if time_s >= self._warm_up_s:
            self._metrics.add(state.coi_hz, state.frequency_hz, v_pu, tie_mw)
        return Step(
            {
                "v_pu": v_pu,
                "v_deg": np.degrees(np.angle(state.v)),
                "v_rel_pu": v_rel_pu,
                "frequency_hz": state.frequency_hz,
                "coi_hz": np.array([state.coi_hz]),
                "speed_hz": state.speed_hz,
                "p_mech_mw": state.p_mech_mw,
                "p_gen_mw": state.p_mw,
                "load_mw": state.load_mw,
                "flow_mw": state.flow_mw,
                "tie_mw": np.array([tie_mw]),
            }
        )

    def summary(self) -> dict[str, float]:
        """Return the run's metrics."""
        return self._metrics.totals()
