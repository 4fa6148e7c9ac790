"""What feeders draw at the buses of a transmission system, with its slope by the voltage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federates.clock import Timing, to_ns
from federates.core.context import FederateContext
from federates.core.federate import FloatArray, Port
from grid_models.base.errors import listed
from grid_models.transmission.model import BusDemand, TransmissionModel

KW, KVAR = "feeder_kw", "feeder_kvar"
KW_SLOPE, KVAR_SLOPE = "feeder_kw_per_pu", "feeder_kvar_per_pu"


@dataclass(frozen=True)
class _Fed:
    """Buses whose feeders step at one timing; `bus`: bool (n_buses,)."""

    timing: Timing
    bus: NDArray[np.bool_]


class FeederDemand:
    """Makes the demand of the buses from what their feeders published last.

    A feeder solves at a voltage that it read before its step, and publishes its demand there and
    the slopes. Which voltage that was follows from the times of both federates' steps, so
    that any exchange step and any offset gives the same line through the same point.

    The first value of a bus is taken out of the tables' demand there: a system that starts in
    steady state stays in it.
    """

    def __init__(self, context: FederateContext, model: TransmissionModel) -> None:
        self._own, self._model = context.timing, model
        self._v0_pu = np.abs(model.state.v)
        self._fed = _feeders(context, model.buses)
        self._published: dict[int, FloatArray] = {}
        self._heard = {name: np.zeros(len(model.buses), bool) for name in (KW, KVAR)}
        self.ports = tuple(
            Port(name, unit, model.buses, initial, required=False)
            for name, unit, initial in (
                (KW, "kW", np.nan),
                (KVAR, "kvar", np.nan),
                (KW_SLOPE, "kW/pu", 0.0),
                (KVAR_SLOPE, "kvar/pu", 0.0),
            )
        )

    def demand(self, time_s: float, inputs: Mapping[str, FloatArray]) -> BusDemand:
        """Return the demand until `time_s`, from the inputs of that step."""
        v_pu = self._v0_pu * self._v_rel_read(to_ns(time_s))
        demand = BusDemand(
            1e-3 * np.nan_to_num(inputs[KW]),
            1e-3 * np.nan_to_num(inputs[KVAR]),
            1e-3 * inputs[KW_SLOPE] / self._v0_pu,
            1e-3 * inputs[KVAR_SLOPE] / self._v0_pu,
            v_pu,
        )
        fresh = {name: ~(heard | np.isnan(inputs[name])) for name, heard in self._heard.items()}
        if any(new.any() for new in fresh.values()):
            rise_pu = self._v0_pu - v_pu
            self._model.separate(
                np.where(fresh[KW], demand.p_mw + demand.p_slope_mw * rise_pu, 0.0),
                np.where(fresh[KVAR], demand.q_mvar + demand.q_slope_mvar * rise_pu, 0.0),
            )
            self._heard = {name: self._heard[name] | new for name, new in fresh.items()}
        return demand

    def publish(self, time_s: float, v_rel_pu: FloatArray) -> None:
        """Keep what the feeders read after `time_s`."""
        if self._fed:
            self._published[to_ns(time_s)] = v_rel_pu

    def _v_rel_read(self, now_ns: int) -> FloatArray:
        """Return the voltages that the feeders had read when they solved last before now."""
        out = np.ones_like(self._v0_pu)
        oldest_ns = now_ns
        for fed in self._fed:
            solved_ns = _last_before(fed.timing, now_ns)
            read_ns = None if solved_ns is None else _last_before(self._own, solved_ns)
            if read_ns in self._published:
                out[fed.bus] = self._published[read_ns][fed.bus]
            oldest_ns = min(oldest_ns, read_ns or 0)
        self._published = {t: v for t, v in self._published.items() if t >= oldest_ns}
        return out


def doubtful_wires(context: FederateContext, buses: Sequence[str]) -> tuple[str, ...]:
    """Return warnings of connections with feeders that are of no use, or lack another."""
    name, wires, notes = context.group, context.scenario.wires, list[str]()
    fed = {
        port: {bus for w in wires if w.target == f"{name}.{port}" for bus in (w.map or buses)}
        for port in (KW, KVAR, KW_SLOPE, KVAR_SLOPE)
    }
    for power, slope in ((KW, KW_SLOPE), (KVAR, KVAR_SLOPE)):
        held, unused = (
            [bus for bus in buses if bus in fed[a] - fed[b]]
            for a, b in ((power, slope), (slope, power))
        )
        if held:
            notes.append(
                f"{name}.{power} is fed and {slope} is not, at bus {listed(held, 4)}: between two "
                "exchanges the feeders draw the same power at any voltage, which may let the "
                "voltage collapse"
            )
        if unused:
            notes.append(f"{name}.{slope} has no {power} beside it at bus {listed(unused, 4)}")
    notes += [
        f"{w.target} reads {w.source}: the voltage over that at the start is {name}.v_rel_pu"
        for w in wires
        if w.source == f"{name}.v_pu" and w.target.endswith(".source_v_pu")
    ]
    return tuple(notes)


def _last_before(timing: Timing, now_ns: int) -> int | None:
    """Return the last step before a time; None where there is none."""
    k = timing.steps_before(now_ns) - 1
    return None if k < 0 else timing.offset_ns + k * timing.period_ns


def _feeders(context: FederateContext, buses: Sequence[str]) -> list[_Fed]:
    """Return which buses the scenario's connections feed, by the timing of who feeds them."""
    at, found = {bus: i for i, bus in enumerate(buses)}, dict[Timing, NDArray[np.bool_]]()
    scenario = context.scenario
    for wire in scenario.wires:
        source = wire.source.partition(".")[0]
        section = scenario.federates.get(source)
        if section is None or wire.target != f"{context.group}.{KW}":
            continue
        period_ns = scenario.step_ns if section.period_s is None else to_ns(section.period_s)
        offset_ns = 0 if section.is_plant else scenario.step_ns // 2
        if section.offset_s is not None:
            offset_ns = to_ns(section.offset_s)
        fed = found.setdefault(Timing(period_ns, offset_ns), np.zeros(len(buses), bool))
        # Without a map the labels are the same; the wiring refuses those that are no bus.
        fed[[at[bus] for bus in wire.map or buses if bus in at]] = True
    return [_Fed(timing, bus) for timing, bus in found.items()]
