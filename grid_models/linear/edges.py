"""The law of one tree edge: voltage ratios and series impedance of any bank of elements.

One row per line phase or transformer coil, ``B V_c = A V_p - Zr i`` with the row currents i and
``J_c = B^T i``; eliminating i gives ``V_c = T V_p - Z J_c``. In volts, amperes and ohms.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError, TopologyError
from grid_models.feeder.model import Line, Regulator, Transformer, Winding, phases_at
from grid_models.feeder.topology import BranchElement

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]
# Energised phases of a bus: phase -> column.
Columns = dict[int, int]

_RANK_TOLERANCE = 1e-9
_PHASES = 3


def edge_law(
    elements: Sequence[BranchElement],
    parent: str,
    child: str,
    parent_phases: tuple[int, ...],
    child_phases: tuple[int, ...],
    limit_ohm: float,
) -> tuple[Complex, Complex, Complex | None]:
    """Return T (child x parent) and Z (child x child, ohm) of one edge, and its parent shunt.

    The shunt (parent x parent, siemens) is what a grounded wye - delta bank draws from its
    primary to ground as zero-sequence current circulates in the delta; None for other edges.

    Parameters
    ----------
    elements : The closed elements between the two buses.
    parent, child : Bus names.
    parent_phases, child_phases : Energised phases: the columns of T, and its rows.
    limit_ohm : Lines below this count as zero impedance.

    Raises FeederError: If the elements leave a child voltage open.
    """
    if len(elements) == 1 and isinstance(elements[0], Line):
        return *_line_law(elements[0], parent, child, parent_phases, child_phases), None
    up = {p: i for i, p in enumerate(parent_phases)}
    down = {p: i for i, p in enumerate(child_phases)}
    parts = [_rows(e, parent, child, up, down, limit_ohm) for e in elements]
    a = np.vstack([p[0] for p in parts])
    b = np.vstack([p[1] for p in parts])
    zr = np.zeros((len(a), len(a)), dtype=np.complex128)
    at = 0
    for _, _, block in parts:
        zr[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    rank = int(np.linalg.matrix_rank(b, tol=_RANK_TOLERANCE))
    n = len(child_phases)
    if rank < n - 1:
        raise FeederError(
            f"{', '.join(e.name for e in elements)} leave voltages of bus '{child}' undetermined",
            expected=f"one line phase or transformer coil for each of its phases {child_phases}",
        )
    floating = rank == n - 1
    shunt = _circulating_shunt(a, b, zr) if floating and len(a) >= n else None
    return *_eliminate_rows(a, b, zr, floating=floating), shunt


def _line_law(
    line: Line,
    parent: str,
    child: str,
    parent_phases: tuple[int, ...],
    child_phases: tuple[int, ...],
) -> tuple[Complex, Complex]:
    above, below = phases_at(line, parent), phases_at(line, child)
    rows = [below.index(p) for p in child_phases]
    t = np.zeros((len(child_phases), len(parent_phases)), dtype=np.complex128)
    t[np.arange(len(rows)), [parent_phases.index(above[i]) for i in rows]] = 1.0
    return t, np.asarray(line.z_ohm, dtype=np.complex128)[np.ix_(rows, rows)]


def _eliminate_rows(a: Real, b: Real, zr: Complex, *, floating: bool) -> tuple[Complex, Complex]:
    """Eliminate the row currents of ``b V_c = a V_p - zr i``, ``J_c = b^T i``."""
    n = b.shape[1]
    if floating:
        # An ungrounded winding fixes line-to-line voltages only: let the phase voltages sum to
        # zero, as the capacitance to ground of a real winding does; unbalanced current to ground
        # sees the mean coil impedance.
        level = complex(np.trace(zr)) / len(zr) if len(zr) else 0j
        a = np.vstack([a, np.zeros((1, a.shape[1]))])
        b = np.vstack([b, np.full((1, n), 1.0 / n)])
        zr = np.block([[zr, np.zeros((len(zr), 1))], [np.zeros((1, len(zr))), level / n]])
    if len(b) == n:
        inverse = np.linalg.inv(b)
        return _complex(inverse @ a), _complex(inverse @ zr @ inverse.T)
    # More rows than voltages (closed delta, parallel units): weigh the rows by admittance.
    floor = 1e-9 * max(1.0, float(np.abs(zr).max()))
    y = np.linalg.inv(zr + floor * np.eye(len(zr)))
    z = np.linalg.inv(b.T @ y @ b)
    return _complex(z @ b.T @ y @ a), _complex(z)


def _circulating_shunt(a: Real, b: Real, zr: Complex) -> Complex:
    """Return the parent admittance left over when the child carries no current."""
    y = np.linalg.inv(zr)
    to_child = y @ b
    left = y - to_child @ np.linalg.pinv(b.T @ to_child) @ to_child.T
    return _complex(a.T @ left @ a)


def _complex(values: NDArray[Any]) -> Complex:
    return np.asarray(values, dtype=np.complex128)


def _rows(
    e: BranchElement, parent: str, child: str, up: Columns, down: Columns, limit_ohm: float
) -> tuple[Real, Real, Complex]:
    """Return a, b and zr of one element's rows ``b V_c = a V_p - zr i``."""
    if isinstance(e, Transformer):
        return _transformer_rows(e, parent, child, up, down)
    above, below = phases_at(e, parent), phases_at(e, child)
    used = [i for i in range(len(above)) if above[i] in up and below[i] in down]
    a, b = np.zeros((len(used), len(up))), np.zeros((len(used), len(down)))
    z = np.zeros((len(used), len(used)), dtype=np.complex128)
    ratio = 1.0
    if isinstance(e, Regulator):
        ratio = e.tap_pu if e.to_bus == child else 1.0 / e.tap_pu
    elif isinstance(e, Line) and np.abs(e.z_ohm).max() >= limit_ohm:
        z = np.asarray(e.z_ohm, dtype=np.complex128)[np.ix_(used, used)]
    for row, i in enumerate(used):
        a[row, up[above[i]]] = ratio
        b[row, down[below[i]]] = 1.0
    return a, b, z


def _transformer_rows(
    t: Transformer, parent: str, child: str, up: Columns, down: Columns
) -> tuple[Real, Real, Complex]:
    """One row per child coil: ``e_c = n (e_p) - z i`` with leakage from the star equivalent."""
    sending = next((i for i, w in enumerate(t.windings) if w.bus == parent), None)
    if sending is None:
        # Two secondaries on different buses: both are fed from winding 1 through the tree edge.
        sending = 0
    receiving = [i for i, w in enumerate(t.windings) if w.bus == child and i != sending]
    star = star_impedances_pu(t)
    base_va = 1e3 * t.windings[0].kva / t.n_phases
    p = t.windings[sending]
    coils_p = _coils(t, p)
    size = t.n_phases * len(receiving)
    a, b = np.zeros((size, len(up))), np.zeros((size, len(down)))
    zr = np.zeros((size, size), dtype=np.complex128)
    for k in range(t.n_phases):
        rows = [j * t.n_phases + k for j in range(len(receiving))]
        volts = np.array([_coil_v(t, t.windings[w]) for w in receiving])
        own = np.diag([star[w] for w in receiving])
        zr[np.ix_(rows, rows)] = (own + star[sending]) * np.outer(volts, volts) / base_va
        for row, w, volt in zip(rows, receiving, volts, strict=True):
            _put(b, row, _coils(t, t.windings[w])[k], down, 1.0, t.name)
            _put(a, row, coils_p[k], up, float(volt) / _coil_v(t, p), t.name)
    return a, b, zr


def _put(
    m: Real, row: int, coil: tuple[int, int], columns: Columns, value: float, name: str
) -> None:
    for node, sign in zip(coil, (1.0, -1.0), strict=True):
        if node in columns:
            m[row, columns[node]] += sign * value
        elif 0 < node <= _PHASES:  # a higher one is a star point: taken as ground
            raise TopologyError(
                f"transformer '{name}' connects to phase {node}, which is not fed",
                expected=f"phases {tuple(columns)}",
            )


def _coil_v(t: Transformer, w: Winding) -> float:
    """Return the coil's rated voltage at its tap, in volt."""
    across_neutral = t.n_phases > 1 and w.connection == "wye"
    return 1e3 * w.kv * w.tap_pu / (sqrt(3) if across_neutral else 1.0)


def _coils(t: Transformer, w: Winding) -> list[tuple[int, int]]:
    """Return the (from, to) nodes of each coil of a winding; 0 is ground."""
    n, nodes = t.n_phases, w.nodes
    if n == 1:
        return [(nodes[0], nodes[1] if len(nodes) > 1 else 0)]
    if w.connection == "wye":
        neutral = nodes[n] if len(nodes) > n else 0
        return [(nodes[k], neutral) for k in range(n)]
    step = _delta_step(t)
    if n == 2:
        return [(nodes[k], nodes[(k + 1) % len(nodes)]) for k in range(2)]
    return [(nodes[k], nodes[(k + step) % 3]) for k in range(3)]


def _delta_step(t: Transformer) -> int:
    """Return +1 or -1: the node at a delta coil's far end, so that low lags high by 30 degrees.

    The ANSI rule, OpenDSS's default; like connections shift nothing.
    """
    kinds = {w.connection for w in t.windings}
    if len(kinds) == 1:
        return 1
    high = max(t.windings, key=lambda w: w.kv)
    return -1 if high.connection == "delta" else 1


def star_impedances_pu(t: Transformer) -> list[complex]:
    """Return each winding's branch of the star equivalent, in pu on winding 1's rating.

    Two windings: half of the leakage each. Three: xh = (xhl + xht - xlt) / 2 and so on.
    """
    base = t.windings[0].kva
    r = [w.r_pct / 100.0 * base / w.kva for w in t.windings]
    if len(t.windings) == 2:
        x = [t.x_pct[0] / 200.0] * 2
    else:
        hl, ht, lt = t.x_pct
        x = [(hl + ht - lt) / 200.0, (hl + lt - ht) / 200.0, (ht + lt - hl) / 200.0]
    return [complex(a, b) for a, b in zip(r, x, strict=True)]
