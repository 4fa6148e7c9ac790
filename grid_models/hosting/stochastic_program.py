"""Two-stage stochastic programme of hosting capacity at given tangents of the network.

    maximise  total PV - E[cost of energy]
    over      capacities x of a kind at a group of sites (first stage), and for each day n the
              columns y_n of the devices, with a copy x_n = x of the capacities (second stage)
    s.t.      low x_n <= y_n <= high x_n,  least x_n <= rows y_n <= most x_n    (`devices`)
              tangents of the limits at each step of each day                   (`network_rows`)
              l_n = curtailed energy - eps available energy
              E[l] <= 0, or CVaR_a[l] <= 0, or l_n <= 0 for all n

Paper 003, "2-SSP combined discrete problem" and "Two-stage stochastic program" for the value at
risk: ``CVaR_a[l] = min_t t + E[max(l - t, 0)] / (1 - a)``. The devices are in proportion to their
capacities, heat pumps too, so the programme is linear. Copies of the capacities keep columns short
and the days apart; powers in MW keep the numbers near 1. Both decide whether the interior-point
solver ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from grid_models.current_injection.model import FloatArray
from grid_models.hosting.devices import STORAGE, DeviceModel
from grid_models.hosting.interior_point import Program

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Risk = Literal["expected", "cvar", "every"]
IntArray = NDArray[np.intp]
_THERE_AND_BACK = STORAGE.charge_efficiency * STORAGE.discharge_efficiency
STORAGE_LOSS = 1.0 / _THERE_AND_BACK - 1.0
"""Energy lost there and back, over the energy that comes back."""


@dataclass(frozen=True)
class StackedDays:
    """Devices of N days side by side, with columns that count from their lower limit.

    ``y = kept @ z + low @ x``, and ``0 <= z <= wide @ x`` for columns in `bounded`, ``equal z +
    equal_x x = 0``, ``less z + less_x x <= 0``, injections ``kva z + kva_x x``, where x are the
    N U copies of the capacities.

    Attributes
    ----------
    days : N. n, n_x : Columns z, and copies.
    kva : complex (N T G, n). kva_x : complex (N T G, N U).
    curtailed : (N, n). available : (N, N U). Energy of PV over its power.
    """

    days: int
    n: int
    n_x: int
    less: csr_array
    less_x: csr_array
    equal: csr_array
    equal_x: csr_array
    kva: csr_array
    kva_x: csr_array
    curtailed: csr_array
    available: csr_array
    charged: IntArray
    discharged: IntArray

    @classmethod
    def of(cls, devices: Sequence[DeviceModel], step_h: float) -> StackedDays:
        """Stack the devices of the days, which are of the same kinds and groups."""
        from scipy.sparse import block_diag, csr_array, eye_array, kron, vstack

        days, units = len(devices), devices[0].kva_of_capacity.shape[1]
        whole = {
            name: np.concatenate([getattr(d, name) for d in devices])
            for name in ("low", "high", "least", "most", "curtailed", "charged", "discharged")
        }
        offset = units * np.arange(days)
        unit = np.concatenate([d.unit + k for d, k in zip(devices, offset, strict=True)])
        row_unit = np.concatenate([d.row_unit + k for d, k in zip(devices, offset, strict=True)])
        day = np.repeat(np.arange(days), [len(d.unit) for d in devices])
        rows = csr_array(block_diag([d.rows for d in devices], format="csr"))
        kva = csr_array(block_diag([d.kva for d in devices], format="csr"))
        kva_x = csr_array(block_diag([d.kva_of_capacity for d in devices], format="csr"))
        n_x = days * units

        def by_unit(value: FloatArray, unit: IntArray) -> csr_array:
            places = np.arange(len(value)), unit
            return csr_array((value, places), shape=(len(value), n_x))

        low, high = whole["low"], whole["high"]
        low_x = by_unit(low, unit)
        moves = np.flatnonzero(high > low)
        bounded = moves[~_implied(rows, whole["least"], whole["most"], low, high)[moves]]
        equal = whole["least"] == whole["most"]
        above = np.flatnonzero(~equal & np.isfinite(whole["most"]))
        below = np.flatnonzero(~equal & np.isfinite(whole["least"]))
        equal_at = np.flatnonzero(equal)
        of_low = csr_array(rows @ low_x)
        most_x, least_x = by_unit(whole["most"], row_unit), by_unit(whole["least"], row_unit)
        one = csr_array(eye_array(len(low), format="csr"))
        wide = by_unit(high - low, unit)
        less = vstack([one[bounded], rows[above], -rows[below]], format="csr")
        less_x = vstack(
            [-wide[bounded], (of_low - most_x)[above], (least_x - of_low)[below]], format="csr"
        )
        at = np.flatnonzero(whole["curtailed"])
        energy = csr_array((np.full(len(at), step_h), (day[at], at)), shape=(days, len(low)))
        position = np.full(len(low), -1)
        position[moves] = np.arange(len(moves))
        each = kva_x.shape[0] // days
        in_all = kron(eye_array(days), np.full((1, each), step_h), format="csr")
        both = whole["charged"].nonzero()[0], whole["discharged"].nonzero()[0]
        used = (position[both[0]] >= 0) & (position[both[1]] >= 0)
        return cls(
            days=days,
            n=len(moves),
            n_x=n_x,
            less=csr_array(less[:, moves]),
            less_x=csr_array(less_x),
            equal=csr_array(rows[equal_at][:, moves]),
            equal_x=csr_array((of_low - most_x)[equal_at]),
            kva=csr_array(kva[:, moves]),
            kva_x=csr_array(kva_x + kva @ low_x),
            curtailed=csr_array(energy[:, moves]),
            available=csr_array(in_all @ kva_x.real),
            charged=position[both[0][used]],
            discharged=position[both[1][used]],
        )

    def without_overlap(self, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return columns in which no storage charges and discharges at once, and the power it did.

        The power is in MW, one of each column in `discharged`. The stored energy
        stays. What was lost there and back is injected.
        """
        back = np.minimum(z[self.discharged], _THERE_AND_BACK * z[self.charged])
        z = z.copy()
        z[self.discharged] -= back
        z[self.charged] -= back / _THERE_AND_BACK
        return z, back


def _implied(
    rows: csr_array, least: FloatArray, most: FloatArray, low: FloatArray, high: FloatArray
) -> NDArray[np.bool_]:
    """Return whether a row keeps a column below its upper limit, (n,).

    It does where it has an upper limit only and no coefficient or lower limit below 0.
    """
    each = rows.tocoo()
    of_row = np.bincount(each.row, (each.data < 0.0) | (low[each.col] < 0.0), len(least))
    clear = np.isinf(least) & (of_row == 0)
    with np.errstate(divide="ignore"):
        keeps = clear[each.row] & (most[each.row] <= each.data * high[each.col] * (1.0 + 1e-9))
    return np.bincount(each.col[keeps], minlength=len(high)) > 0


@dataclass(frozen=True)
class FirstStage:
    """What a design may be: capacities x of U units, in the order of kinds, then of groups, in MW.

    Attributes
    ----------
    kinds : The first is PV.
    most : (U,). Largest capacities.
    total : (kinds - 1,). Of the kinds but PV: at most so much storage, and just so much demand.
    exact : (kinds - 1,). Whether the total has to be reached.
    curtailment : Largest share of PV energy that is curtailed, for the `risk`.
    level : Of the value at risk.
    """

    kinds: tuple[str, ...]
    most: FloatArray
    total: FloatArray
    exact: NDArray[np.bool_]
    risk: Risk
    curtailment: float
    level: float


@dataclass(frozen=True)
class Tangents:
    """Limits ``Re(by kva) <= most`` of R elements, by injections of N T G steps and groups in MVA.

    Attributes
    ----------
    by : complex (R, N T G). most : (R,). day : (R,).
    """

    by: csr_array
    most: FloatArray
    day: IntArray

    def joined(self, other: Tangents | None) -> Tangents:
        """Return these rows, then others."""
        from scipy.sparse import vstack

        if other is None:
            return self
        by = vstack([self.by, other.by], format="csr")
        most, day = (np.append(getattr(self, n), getattr(other, n)) for n in ("most", "day"))
        return Tangents(by, most, day)


def design_program(
    stacked: StackedDays,
    weight: FloatArray,
    first: FirstStage,
    tangents: Tangents,
    cost_kva: FloatArray,
    cost_z: FloatArray,
    pv_most: float,
) -> Program:
    """Return the programme of both stages; variables z, copies of x, x, l, t, s.

    Parameters
    ----------
    weight : (N,). Probabilities.
    cost_kva : (N T G,). Per MW injected. cost_z : (n,). Per column.
    pv_most : Largest PV in all.
    """
    days, units = stacked.days, len(first.most)
    groups = units // len(first.kinds)
    exact = np.append(False, first.exact)
    total = np.append(pv_most, first.total)
    tail = days if first.risk == "cvar" else 0
    widths = stacked.n, stacked.n_x, units, days, min(tail, 1), tail
    risk = _risk_rows(first, weight)
    equal, less = _design_rows(stacked, first, tangents, widths, risk)
    n_equal = equal.shape[0] - np.count_nonzero(exact)
    cost_of_x = np.zeros(units)
    cost_of_x[:groups] = -1.0
    cost = np.concatenate(
        [
            cost_z + (stacked.kva.real.T @ cost_kva),
            stacked.kva_x.real.T @ cost_kva,
            cost_of_x,
            np.zeros(sum(widths[3:])),
        ]
    )
    low, high = np.zeros(len(cost)), np.full(len(cost), np.inf)
    at = stacked.n + stacked.n_x
    high[at : at + units] = first.most
    low[at + units : at + units + widths[3] + widths[4]] = -np.inf
    return Program(
        cost=cost,
        equal=equal,
        right=np.append(np.zeros(n_equal), total[exact]),
        less=less,
        most=np.concatenate(
            [
                np.zeros(len(stacked.less_x.indptr) - 1),
                tangents.most,
                total[~exact],
                np.zeros(risk[0].shape[0]),
            ]
        ),
        low=low,
        high=high,
    )


def _design_rows(
    stacked: StackedDays,
    first: FirstStage,
    tangents: Tangents,
    widths: tuple[int, ...],
    risk: list[Any],
) -> tuple[Any, Any]:
    """Return the rows of equalities and of upper limits. `widths`: Columns of each variable."""
    from scipy.sparse import block_array, csr_array, eye_array, kron

    days, units = stacked.days, len(first.most)
    one = eye_array(days)
    per_kind = np.ones((1, units // len(first.kinds)))
    in_kind = kron(eye_array(len(first.kinds)), per_kind, format="csr")
    exact = np.append(False, first.exact)
    copies = kron(np.ones((days, 1)), eye_array(units))
    by_z, by_x = (tangents.by @ stacked.kva).real, (tangents.by @ stacked.kva_x).real
    none = [csr_array((0, w)) for w in widths]
    equal_rows: list[list[Any]] = [
        none,
        [stacked.equal, stacked.equal_x, None, None, None, None],
        [None, eye_array(stacked.n_x), -copies, None, None, None],
        [stacked.curtailed, -first.curtailment * stacked.available, None, -one, None, None],
        [None, None, in_kind[exact], None, None, None],
    ]
    less_rows: list[list[Any]] = [
        none,
        [stacked.less, stacked.less_x, None, None, None, None],
        [by_z, by_x, None, None, None, None],
        [None, None, in_kind[~exact], None, None, None],
        [None, None, None, *risk],
    ]
    return block_array(equal_rows, format="csc"), block_array(less_rows, format="csc")


def _risk_rows(first: FirstStage, weight: FloatArray) -> list[Any]:
    """Return the rows that limit the risk, of l, t and s; None where there are none."""
    from scipy.sparse import csr_array, eye_array, vstack

    days = len(weight)
    one, of_day = eye_array(days), csr_array(weight[None])
    if first.risk != "cvar":
        return [one if first.risk == "every" else of_day, None, None]
    return [
        vstack([one, csr_array((1, days))]),
        csr_array(np.append(np.full(days, -1.0), 1.0)[:, None]),
        vstack([-one, of_day / (1.0 - first.level)]),
    ]


def dispatch_program(
    stacked: StackedDays,
    capacity: FloatArray,
    tangents: Tangents,
    cost_kva: FloatArray,
    cost_z: FloatArray,
    penalty: float,
) -> Program:
    """Return the second stage alone: least curtailment with a design, variables z and o (N,).

    `o` is by how much the limits of a day are passed, at a `penalty`.

    `capacity`: (U,). Of the design, MW.
    """
    from scipy.sparse import block_array, csr_array, hstack

    x, rows = np.tile(capacity, stacked.days), len(tangents.most)
    places = np.arange(rows), tangents.day
    passed = csr_array((np.full(rows, -1e-3), places), shape=(rows, stacked.days))
    by_z, by_x = (tangents.by @ stacked.kva).real, (tangents.by @ stacked.kva_x).real
    own = np.asarray(stacked.curtailed.sum(axis=0)).ravel()
    cost = own + cost_z + stacked.kva.real.T @ cost_kva
    less = block_array([[stacked.less, None], [by_z, passed]], format="csc")
    equal = hstack([stacked.equal, csr_array((stacked.equal.shape[0], stacked.days))], format="csc")
    n = less.shape[1]
    return Program(
        cost=np.append(cost, np.full(stacked.days, penalty)),
        equal=equal,
        right=-(stacked.equal_x @ x),
        less=less,
        most=np.append(-(stacked.less_x @ x), tangents.most - by_x @ x),
        low=np.zeros(n),
        high=np.full(n, np.inf),
    )
