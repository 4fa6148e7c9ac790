"""The circuit federate: circuit dynamics of lines and buses at milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from controllers.core.circuit_options import circuit_of
from controllers.core.errors import ControllerError
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from federates.scenario.kinds import FederateSection
from grid_models.base.errors import nearest_name
from grid_models.base.sections import Section
from grid_models.circuits.dynamics import TrapezoidalModel, steady_state

_SETTLED_PU = 0.005


class LoadStep(Section):
    """A load that lasts from a time on."""

    bus: str
    time_s: float
    load_pu: float = Field(description="Current it draws.")


class CircuitOptions(Section):
    """The circuit and its load steps."""

    circuit: str = Field("feeder24", description="feeder24, or chain:K for K clusters in a row.")
    loads: list[LoadStep] = Field([], description="Load steps: {bus, time_s, load_pu}.")


class CircuitSection(FederateSection):
    """A plant without a grid section: circuit dynamics of lines and buses at milliseconds."""

    is_plant: ClassVar[bool] = True

    kind: Literal["circuit"]
    options: CircuitOptions = CircuitOptions()


class CircuitFederate(Federate):
    """Integrates a circuit by the trapezoidal rule, one federate step per time step.

    Input: ``i_set_pu``, the current each inverter injects, clamped to its limit. Outputs: ``v_pu``
    per bus, ``i_pu`` per line, ``load_pu`` per bus (the load step that acted in the last time
    step) and ``i_inj_pu`` per inverter as it acts from now on. The circuit starts at rest; at
    time 0 the outputs are that state. Each later step covers the time since the last, under the
    set-points that were read then.
    """

    Section = CircuitSection

    def __init__(self, context: FederateContext) -> None:
        super().__init__(context)
        assert isinstance(context.section, CircuitSection)
        options = context.section.options
        with context.located(ControllerError, "options", "circuit"):
            net, _ = circuit_of(options.circuit)
        for i, load in enumerate(options.loads):
            if load.bus not in net.buses:
                raise context.error(
                    f"no bus is called '{load.bus}'",
                    "options",
                    "loads",
                    i,
                    "bus",
                    expected=f"one of {', '.join(net.buses[:8])} ...",
                    nearest=nearest_name(load.bus, net.buses),
                )
        self._circuit = net
        self._model = TrapezoidalModel(net, context.period_s)
        self._events = sorted((x.time_s, net.buses.index(x.bus), x.load_pu) for x in options.loads)
        self._x = steady_state(net)
        self._load = np.zeros(net.n_buses)
        self._set = np.zeros(net.n_inverters)
        self._now = -1
        self.inputs = (Port("i_set_pu", "pu", net.inverters, required=False),)
        self.outputs = (
            Port("v_pu", "pu", net.buses, initial=1.0),
            Port("i_pu", "pu", net.line_names),
            Port("load_pu", "pu", net.buses),
            Port("i_inj_pu", "pu", net.inverters),
        )
        band = context.scenario.band
        self._warm_up_s = context.warm_up_s
        self._metrics = _Transient(context.period_s, (band.v_min_pu, band.v_max_pu))

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Advance to `time_s` under the set-points of the last step, then take the new ones."""
        net, limit = self._circuit, self._circuit.inverter_limit_pu
        self._now += 1
        if self._now:
            self._load = np.zeros(net.n_buses)
            began = time_s - 0.5 * self._model.step_s
            for since_s, bus, size_pu in self._events:
                if since_s <= began:
                    self._load[bus] += size_pu
            self._x = self._model.step(self._x, self._set, self._load)
        # What is read now acts from now on; in the time that has passed the last set-points did.
        given = inputs["i_set_pu"]
        np.copyto(self._set, np.clip(given, -limit, limit), where=np.isfinite(given))
        v, i = self._x[net.n_lines :], self._x[: net.n_lines]
        if time_s >= self._warm_up_s:
            self._metrics.add(v, float(net.r_pu @ i**2))
        return Step(
            {
                "v_pu": v.copy(),
                "i_pu": i.copy(),
                "load_pu": self._load,
                "i_inj_pu": self._set.copy(),
            }
        )

    def summary(self) -> dict[str, float]:
        """Return the numbers of the transient, from the end of the warm-up."""
        return self._metrics.totals()


class _Transient:
    """Voltages of the run so far: one row per step, as runs of milliseconds are short."""

    def __init__(self, dt_s: float, band: tuple[float, float]) -> None:
        self._dt_ms, self._band = 1e3 * dt_s, band
        self._rows: list[FloatArray] = []
        self._losses = 0.0

    def add(self, v_pu: FloatArray, losses_pu: float) -> None:
        self._rows.append(v_pu.copy())
        self._losses += losses_pu

    def totals(self) -> dict[str, float]:
        v = np.array(self._rows)
        if not len(v):
            return {}
        outside = (v < self._band[0]) | (v > self._band[1])
        return {
            "v_min_pu": float(v.min()),
            "v_max_pu": float(v.max()),
            "settle_ms": self._last(np.abs(v - v[-1]) > _SETTLED_PU),
            "in_band_ms": self._last(outside),
            "mean_losses_pu": self._losses / len(v),
        }

    def _last(self, bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
        """Return the time until nothing is bad any more; inf when the run ends bad."""
        rows = np.flatnonzero(bad.any(axis=1))
        if not rows.size:
            return 0.0
        return float(np.inf) if rows[-1] == len(bad) - 1 else float((rows[-1] + 1) * self._dt_ms)
