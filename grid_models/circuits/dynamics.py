"""Electromagnetic dynamics of a network: line inductances and bus capacitances, one phase.

Continuous model (per unit; inductance and capacitance in per-unit seconds)::

    l_e di_e/dt = -r_e i_e + v_from(e) - v_to(e)
    c_b dv_b/dt = sum of currents into b - g_b v_b + u_b - w_b

with the slack at a fixed voltage, `u` the current that an inverter injects and `w` a load step.
Radial or meshed makes no difference. The trapezoidal rule

    (E - h/2 F) x[k+1] = (E + h/2 F) x[k] + h (B u[k] - D w[k] + s)

(u, w constant over a step) couples only buses that a line joins, unlike an exact zero-order hold,
so cutting the network into clusters with copies changes nothing (`circuit_dynamics_clusters`).
It is A-stable: a passive circuit stays stable at any step length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from grid_models.base.errors import FeederError, GridModelError

Array = NDArray[np.float64]
Index = NDArray[np.intp]
SLACK = -1
"""Stands for the slack in `RlcCircuit.line_from` and `RlcCircuit.line_to`."""


@dataclass(frozen=True, eq=False)
class RlcCircuit:
    """A network of buses with capacitance and lines with resistance and inductance.

    Attributes
    ----------
    buses : (n,)
    line_from, line_to : int (m,)
        Positions of the ends, `SLACK` for the slack; a current is positive from `line_from`.
    r_pu, l_pu_s : (m,). Series resistance [pu] and inductance [pu s].
    c_pu_s, g_pu : (n,). Capacitance [pu s] and load conductance [pu] of each bus.
    inverter_bus : (k,). Bus of each inverter.
    inverter_limit_pu : (k,). Largest current of each inverter in either direction.

    Raises FeederError: A shape, an end or a value is impossible, or a bus is not connected to the
    slack.
    """

    name: str
    buses: tuple[str, ...]
    line_from: Index
    line_to: Index
    r_pu: Array
    l_pu_s: Array
    c_pu_s: Array
    g_pu: Array
    inverter_bus: Index
    inverter_limit_pu: Array
    v_slack_pu: float = 1.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def n_lines(self) -> int:
        """Number of lines."""
        return len(self.r_pu)

    @property
    def n_buses(self) -> int:
        """Number of buses, the slack not counted."""
        return len(self.buses)

    @property
    def n_inverters(self) -> int:
        """Number of inverters."""
        return len(self.inverter_bus)

    @property
    def n_states(self) -> int:
        """Number of states: line currents, then bus voltages."""
        return self.n_lines + self.n_buses

    @property
    def inverters(self) -> tuple[str, ...]:
        """Names of the inverters, ``inv_BUS`` (numbered from the second at one bus on)."""
        seen: dict[str, int] = {}
        names = []
        for bus in self.inverter_bus:
            name = f"inv_{self.buses[bus]}"
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
        return tuple(names)

    @property
    def line_names(self) -> tuple[str, ...]:
        """Names of the lines, ``FROM-TO``."""
        names = (*self.buses, "slack")  # position -1 is the slack
        return tuple(
            f"{names[a]}-{names[b]}" for a, b in zip(self.line_from, self.line_to, strict=True)
        )

    def incidence(self) -> sparse.csr_array:
        """Return the (m, n) matrix with +1 where a line starts and -1 where it ends."""
        rows = np.arange(self.n_lines)
        parts = [
            sparse.coo_array(
                (np.full(int(inside.sum()), sign), (rows[inside], ends[inside])),
                shape=(self.n_lines, self.n_buses),
            )
            for ends, sign in ((self.line_from, 1.0), (self.line_to, -1.0))
            for inside in (ends != SLACK,)
        ]
        return sparse.csr_array(parts[0] + parts[1])

    def slack_drive(self) -> Array:
        """Return the slack's part of each line's equation, (m,)."""
        starts = (self.line_from == SLACK).astype(np.float64)
        drive: Array = self.v_slack_pu * (starts - (self.line_to == SLACK))
        return drive


@dataclass(frozen=True, eq=False)
class Descriptor:
    """``diag(e) dx/dt = f x + b u - d w + s`` with x = (currents, voltages).

    `e` (n_x,); `f` sparse (n_x, n_x); `b` sparse (n_x, inverters); `d` sparse (n_x, buses);
    `s` (n_x,), the slack.
    """

    e: Array
    f: sparse.csc_array
    b: sparse.csc_array
    d: sparse.csc_array
    s: Array


def descriptor(circuit: RlcCircuit) -> Descriptor:
    """Return the continuous model of a circuit; see the module's equations."""
    m, n, k = circuit.n_lines, circuit.n_buses, circuit.n_inverters
    a = circuit.incidence()
    f = sparse.block_array(
        [[-sparse.diags_array(circuit.r_pu), a], [-a.T, -sparse.diags_array(circuit.g_pu)]],
        format="csc",
    )
    at = m + circuit.inverter_bus
    b = sparse.csc_array((np.ones(k), (at, np.arange(k))), shape=(m + n, k))
    d = sparse.csc_array((np.ones(n), (m + np.arange(n), np.arange(n))), shape=(m + n, n))
    e = np.concatenate([circuit.l_pu_s, circuit.c_pu_s])
    return Descriptor(e, f, b, d, np.concatenate([circuit.slack_drive(), np.zeros(n)]))


class TrapezoidalModel:
    """The circuit in discrete time, by the trapezoidal rule; one sparse factorisation, kept.

    `step_s`: Length of a step.

    Raises GridModelError: `step_s` is not a positive number.
    """

    def __init__(self, circuit: RlcCircuit, step_s: float) -> None:
        check_step(step_s)
        self.circuit = circuit
        self.step_s = step_s
        self.model = descriptor(circuit)
        e = sparse.diags_array(self.model.e)
        self._lu = splu(sparse.csc_array(e - 0.5 * step_s * self.model.f))
        self._explicit = sparse.csr_array(e + 0.5 * step_s * self.model.f)

    def step(self, x: Array, u_pu: Array, w_pu: Array) -> Array:
        """Return the state after one step.

        Parameters
        ----------
        x : (n_x,). Line currents, then bus voltages.
        u_pu : (inverters,)
        w_pu : (buses,). Load step, positive when consumed.
        """
        h, model = self.step_s, self.model
        drive = model.b @ u_pu - model.d @ w_pu + model.s
        result: Array = self._lu.solve(self._explicit @ x + h * drive)
        return result

    def matrices(self) -> tuple[Array, Array, Array, Array]:
        """Return dense (A, B, D, s) of ``x[k+1] = A x + B u + D w + s`` (D holds the sign)."""
        h, model = self.step_s, self.model
        a = self._lu.solve(self._explicit.toarray())
        b = self._lu.solve(h * model.b.toarray())
        d = self._lu.solve(-h * model.d.toarray())
        s: Array = self._lu.solve(h * model.s)
        return a, b, d, s


def steady_state(
    circuit: RlcCircuit, u_pu: Array | None = None, w_pu: Array | None = None
) -> Array:
    """Return the state at rest under constant inputs and load step, (n_x,)."""
    model = descriptor(circuit)
    drive = model.s.copy()
    if u_pu is not None:
        drive += model.b @ u_pu
    if w_pu is not None:
        drive -= model.d @ w_pu
    result: Array = splu(model.f).solve(-drive)
    return result


def check_step(step_s: float) -> None:
    """Refuse a step that is no positive number."""
    if not (np.isfinite(step_s) and step_s > 0.0):
        raise GridModelError(f"step_s is {step_s}", where="circuit", expected="a positive number")


def _check(circuit: RlcCircuit) -> None:
    n, m = circuit.n_buses, circuit.n_lines
    if len(set(circuit.buses)) != n or n == 0:
        raise _bad(circuit, f"{n} bus names, {len(set(circuit.buses))} of them different")
    for name, array, size in (
        ("line_from", circuit.line_from, m),
        ("line_to", circuit.line_to, m),
        ("l_pu_s", circuit.l_pu_s, m),
        ("c_pu_s", circuit.c_pu_s, n),
        ("g_pu", circuit.g_pu, n),
        ("inverter_limit_pu", circuit.inverter_limit_pu, circuit.n_inverters),
    ):
        if array.shape != (size,):
            raise _bad(circuit, f"{name} has shape {array.shape}", f"({size},)")
    for name, values, strict in (
        ("r_pu", circuit.r_pu, False),
        ("l_pu_s", circuit.l_pu_s, True),
        ("c_pu_s", circuit.c_pu_s, True),
        ("g_pu", circuit.g_pu, False),
        ("inverter_limit_pu", circuit.inverter_limit_pu, False),
    ):
        good = np.isfinite(values) & ((values > 0.0) if strict else (values >= 0.0))
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            sign = "a positive number" if strict else "a number of at least 0"
            raise _bad(circuit, f"{name}[{at}] is {values[at]}", sign)
    ends = np.concatenate([circuit.line_from, circuit.line_to])
    if (ends < SLACK).any() or (ends >= n).any() or (circuit.line_from == circuit.line_to).any():
        raise _bad(circuit, "a line ends at no bus, or where it starts", f"ends -1 to {n - 1}")
    if (circuit.inverter_bus < 0).any() or (circuit.inverter_bus >= n).any():
        raise _bad(circuit, "an inverter stands at no bus", f"0 to {n - 1}")
    _check_connected(circuit)


def _check_connected(circuit: RlcCircuit) -> None:
    n = circuit.n_buses
    ends = np.stack([circuit.line_from, circuit.line_to])
    ends = np.where(ends == SLACK, n, ends)
    graph = sparse.csr_array((np.ones(circuit.n_lines), tuple(ends)), shape=(n + 1, n + 1))
    _, part = sparse.csgraph.connected_components(graph, directed=False)
    lost = [bus for bus, p in zip(circuit.buses, part[:n], strict=True) if p != part[n]]
    if lost:
        raise _bad(circuit, f"no line leads from the slack to bus(es) {', '.join(lost[:8])}")


def _bad(circuit: RlcCircuit, what: str, expected: str | None = None) -> FeederError:
    return FeederError(what, where=f"circuit '{circuit.name}'", expected=expected)


def circuit_from_lines(
    name: str,
    buses: Sequence[str],
    lines: Sequence[tuple[str | None, str, float, float]],
    *,
    c_pu_s: Array | float,
    g_pu: Array | float = 0.0,
    inverters: Sequence[str] = (),
    inverter_limit_pu: float = 0.15,
) -> RlcCircuit:
    """Return a circuit from named lines ``(from, to, r_pu, l_pu_s)``; None is the slack.

    Raises FeederError: A line or an inverter names an unknown bus; or see `RlcCircuit`.
    """
    at: dict[str | None, int] = {bus: i for i, bus in enumerate(buses)}
    at[None] = SLACK
    for bus in [bus for line in lines for bus in line[:2]] + list(inverters):
        if bus not in at:
            raise FeederError(f"no bus is called '{bus}'", where=f"circuit '{name}'")
    n = len(buses)
    return RlcCircuit(
        name,
        tuple(buses),
        np.array([at[line[0]] for line in lines], dtype=np.intp),
        np.array([at[line[1]] for line in lines], dtype=np.intp),
        np.array([line[2] for line in lines], dtype=np.float64),
        np.array([line[3] for line in lines], dtype=np.float64),
        np.broadcast_to(np.asarray(c_pu_s, dtype=np.float64), (n,)).copy(),
        np.broadcast_to(np.asarray(g_pu, dtype=np.float64), (n,)).copy(),
        np.array([at[bus] for bus in inverters], dtype=np.intp),
        np.full(len(inverters), inverter_limit_pu),
    )
