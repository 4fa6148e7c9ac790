"""A load step in closed loop, in process: what a planner is worth, in a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.dmpc.condensed import CircuitWeights
from grid_models.circuits.dynamics import Array, RlcCircuit, TrapezoidalModel, steady_state

Policy = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""(state, last input, known load) -> input (inverters,)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Numbers of a load step.

    `settle_ms`: from then on every bus stays within 0.005 pu of its final value; `band_ms`: from
    then on every bus stays inside 0.95 to 1.05 pu (inf when it does not); `losses` is the mean of
    sum(r i^2); `cost` the sum of the MPC's stage cost over the samples.
    """

    settle_ms: float
    band_ms: float
    v_min: float
    v_max: float
    losses: float
    cost: float
    v: FloatArray
    u: FloatArray


def load_step_trial(
    circuit: RlcCircuit,
    policy: Policy,
    load: FloatArray,
    sample_s: float = 2e-3,
    *,
    duration_s: float = 0.12,
    substeps: int = 10,
    weights: CircuitWeights | None = None,
) -> Trial:
    """Close the loop over a load step at time 0, from rest.

    The plant runs at ``sample_s / substeps``; the load is known one sample late, so the first
    input is chosen without it.
    """
    weigh = weights or CircuitWeights()
    fine = TrapezoidalModel(circuit, sample_s / substeps)
    m = circuit.n_lines
    x, u = steady_state(circuit), np.zeros(circuit.n_inverters)
    v_rows, u_rows, cost, losses = [x[m:]], [], 0.0, 0.0
    for k in range(round(duration_s / sample_s)):
        new = np.clip(
            policy(x, u, load if k else np.zeros_like(load)),
            -circuit.inverter_limit_pu,
            circuit.inverter_limit_pu,
        )
        for _ in range(substeps):
            x = fine.step(x, new, load)
            v_rows.append(x[m:])
            losses += float(circuit.r_pu @ x[:m] ** 2)
        cost += weigh.voltage * float(((x[m:] - 1.0) ** 2).sum())
        cost += weigh.losses * float(circuit.r_pu @ x[:m] ** 2)
        cost += weigh.effort * float(new @ new) + weigh.change * float(((new - u) ** 2).sum())
        u = new
        u_rows.append(u)
    v = np.array(v_rows)
    dt_ms = 1e3 * fine.step_s
    return Trial(
        settle_ms=_last(np.abs(v - v[-1]) > 0.005) * dt_ms,
        band_ms=_last((v < 0.95) | (v > 1.05)) * dt_ms,
        v_min=float(v.min()),
        v_max=float(v.max()),
        losses=losses / (len(v) - 1),
        cost=cost,
        v=v,
        u=np.array(u_rows),
    )


def load_step(circuit: RlcCircuit, size_pu: float = 0.6, bus: str | None = None) -> Array:
    """Return the load (buses,) of a step at one bus, the last trunk bus by default."""
    w = np.zeros(circuit.n_buses)
    at = circuit.n_buses - 1 if bus is None else circuit.buses.index(bus)
    w[at] = size_pu
    return w


def _last(bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Return the number of steps until nothing is bad any more, inf when that never comes."""
    rows = np.flatnonzero(bad.any(axis=1))
    if not rows.size:
        return 0.0
    return float(np.inf) if rows[-1] == len(bad) - 1 else float(rows[-1] + 1)
