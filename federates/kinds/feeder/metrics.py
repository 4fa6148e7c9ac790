"""Metrics of a feeder federate, added up while it steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.kinds.feeder.events import BoundedEvents, Tell
from federates.kinds.feeder.ports import Measured


class VoltageMetrics:
    """Voltages, energy and reactive energy over a run.

    Steps are kept in a block and added up a block at a time, which costs a tenth of adding up each
    step; nothing is read back from the recording.
    """

    _ROWS = 256

    def __init__(self, band: tuple[float, float], n_nodes: int, n_ders: int) -> None:
        self._band = band
        self._v_pu = np.empty((self._ROWS, n_nodes))
        self._q_kvar = np.empty((self._ROWS, n_ders))
        self._source = np.empty((self._ROWS, 2))
        self._filled = 0
        self._dt_h = 0.0
        self._v_max_pu, self._v_min_pu = -np.inf, np.inf
        self._import_peak_kw = -np.inf
        self._n_v, self._off_pu, self._off_sq_pu = 0, 0.0, 0.0
        self._out_h = self._losses_kwh = self._import_kwh = self._abs_q_kvarh = 0.0

    def add(
        self,
        dt_s: float,
        v_pu: FloatArray,
        import_kw: float,
        losses_kw: float,
        q_kvar: FloatArray,
    ) -> None:
        """Take in a step: voltages that count, (n_nodes,), and DERs' reactive power, (n_ders,)."""
        k = self._filled
        self._v_pu[k] = v_pu
        self._q_kvar[k] = q_kvar
        self._source[k] = import_kw, losses_kw
        self._dt_h = dt_s / 3600.0
        self._filled = k + 1
        if self._filled == self._ROWS:
            self._add_block()

    def _add_block(self) -> None:
        n, self._filled = self._filled, 0
        if not n:
            return
        v_pu, dt_h = self._v_pu[:n], self._dt_h
        # A node without voltage is NaN here: it is neither too high nor too low.
        self._v_max_pu = max(self._v_max_pu, float(np.fmax.reduce(v_pu, axis=None)))
        self._v_min_pu = min(self._v_min_pu, float(np.fmin.reduce(v_pu, axis=None)))
        # Deviations from 1 pu: sums of squares of the voltages themselves would cancel.
        off_pu = v_pu[~np.isnan(v_pu)] - 1.0
        self._n_v += off_pu.size
        self._off_pu += float(off_pu.sum())
        self._off_sq_pu += float(np.square(off_pu).sum())
        out = int(np.count_nonzero((v_pu < self._band[0]) | (v_pu > self._band[1])))
        self._out_h += out * dt_h
        import_kw, losses_kw = self._source[:n].sum(axis=0)
        self._import_kwh += float(import_kw) * dt_h
        self._import_peak_kw = max(self._import_peak_kw, float(self._source[:n, 0].max()))
        self._losses_kwh += float(losses_kw) * dt_h
        self._abs_q_kvarh += float(np.abs(self._q_kvar[:n]).sum()) * dt_h

    def totals(self) -> dict[str, float]:
        """Return the metrics of all steps."""
        self._add_block()
        n = max(self._n_v, 1)
        variance = self._off_sq_pu / n - (self._off_pu / n) ** 2
        return {
            "v_max_pu": self._v_max_pu,
            "v_min_pu": self._v_min_pu,
            "v_std_pu": max(variance, 0.0) ** 0.5,
            "out_of_band_node_hours": self._out_h,
            "losses_kwh": self._losses_kwh,
            "import_kwh": self._import_kwh,
            "import_peak_kw": self._import_peak_kw,
            "abs_q_kvarh": self._abs_q_kvarh,
        }


class EquipmentMetrics:
    """Loadings, losses by what causes them, switching, energy not served, and the power balance.

    Currents are read at the first step in every five minutes of simulated time, and after every
    switching: a reading costs a third of a power flow of 100 nodes, and ratings of lines and
    transformers are meant for longer times. Between two readings the loadings and the shares of the
    losses hold. Taps, capacitors and the balance are read at every step.

    Parameters
    ----------
    dt_s : Time between two steps.
    switches : Whether taps and capacitors can move in this run.
    every_step : Whether currents are read at every step, as where they are published anyway.

    Attributes
    ----------
    tell : Where events go; nowhere before a run has begun.
    """

    _EVERY_S = 300.0
    _OVERLOAD_PCT = 100.0

    def __init__(
        self, measured: Measured, dt_s: float, *, switches: bool, every_step: bool
    ) -> None:
        self._measured = measured
        self._dt_h = dt_s / 3600.0
        self._switches = switches
        self.tell = BoundedEvents(lambda *_, **__: None)
        self._every_s = 0.0 if every_step else self._EVERY_S
        self._warming_up = True
        self._bindings = -1
        self._overloaded = False
        self._shares = (0.0, 0.0)
        self._dead: NDArray[np.bool_] | None = None
        self._taps: FloatArray | None = None
        self._steps: FloatArray | None = None
        self._begin()
        self._balance = BalanceCheck(measured)

    def _begin(self) -> None:
        """Count from here, with a new reading of the currents."""
        self._next_s = -np.inf
        self._loading_max_pct, self._loading_max_at = 0.0, ("", 0.0)
        self._overload_h = self._line_kwh = self._transformer_kwh = self._unserved_kwh = 0.0
        self._tap_changes = self._cap_switchings = 0.0

    def start(self, tell: Tell) -> None:
        """Bind to the engine before the first step, and send events to `tell`."""
        self.tell = BoundedEvents(tell)
        _ = self._measured.elements

    def add(
        self,
        time_s: float,
        import_kw: float,
        losses_kw: float,
        der_kw: FloatArray,
        demand_kw: FloatArray,
        cut: NDArray[np.bool_] | None = None,
        counts: bool = True,
    ) -> None:
        """Take in the step at `time_s`.

        Parameters
        ----------
        der_kw : (n_ders,). What the DERs were told to inject.
        demand_kw : (n_loads,). What the loads would draw if they all were served.
        cut : (n_loads,). Loads that are disconnected.
        counts : False in the warm-up: nothing is counted then, but events and the balance are.
        """
        circuit = self._measured.circuit
        if not circuit.controls_settled:
            self.tell("controls_unsettled", time_s)
        if counts and self._warming_up:
            self._warming_up = False
            self._begin()
        if time_s >= self._next_s or self._bindings != circuit.bindings:
            self._bindings = circuit.bindings
            self._next_s = self._every_s and self._every_s * (time_s // self._every_s + 1.0)
            self._read(time_s, losses_kw)
        self._overload_h += self._dt_h * self._overloaded
        self._line_kwh += self._shares[0] * losses_kw * self._dt_h
        self._transformer_kwh += self._shares[1] * losses_kw * self._dt_h
        dead = self._dead
        if cut is not None and cut.any():
            dead = cut if dead is None else dead | cut
        if dead is not None:
            self._unserved_kwh += float(demand_kw[dead].sum()) * self._dt_h
        if self._switches:
            self._count_switching(time_s)
        self._balance.add(time_s, import_kw, losses_kw, der_kw, self.tell)

    def _read(self, time_s: float, losses_kw: float) -> None:
        elements = self._measured.elements
        loading = elements.loading_pct()
        if loading.size:
            at = int(loading.argmax())
            self._overloaded = bool(loading[at] > self._OVERLOAD_PCT)
            if loading[at] > self._loading_max_pct:
                self._loading_max_pct = float(loading[at])
                self._loading_max_at = elements.rated[at], time_s
        lines_kw, transformers_kw = elements.losses_kw()
        whole = losses_kw or 1.0
        self._shares = lines_kw / whole, transformers_kw / whole
        dead = elements.dead_loads()
        self._dead = dead if dead.any() else None

    def _count_switching(self, time_s: float) -> None:
        measured = self._measured
        taps, steps = measured.taps.steps(), measured.capacitors.steps()
        if self._taps is not None and self._steps is not None:
            self._tap_changes += self._changes(
                "tap_changed", time_s, measured.taps.names, self._taps, taps
            )
            self._cap_switchings += self._changes(
                "capacitor_switched", time_s, measured.capacitors.names, self._steps, steps
            )
        self._taps, self._steps = taps, steps

    def _changes(
        self,
        kind: str,
        time_s: float,
        names: tuple[str, ...],
        before: FloatArray,
        after: FloatArray,
    ) -> float:
        """Tell of each position that changed; return how many steps that is in all."""
        for i in np.flatnonzero(before != after):
            self.tell(kind, time_s, element=names[i], before=int(before[i]), after=int(after[i]))
        return float(np.abs(after - before).sum())

    def totals(self) -> dict[str, float]:
        """Return the metrics, and tell where the highest loading was."""
        if self._loading_max_at[0]:
            element, time_s = self._loading_max_at
            percent = round(self._loading_max_pct, 3)
            self.tell("highest_loading", time_s, element=element, loading_pct=percent)
        balance_ppm = self._balance.total(self.tell)
        self.tell.end()
        return {
            "loading_max_pct": self._loading_max_pct,
            "overload_h": self._overload_h,
            "line_losses_kwh": self._line_kwh,
            "transformer_losses_kwh": self._transformer_kwh,
            "tap_changes": self._tap_changes,
            "cap_switchings": self._cap_switchings,
            "energy_not_served_kwh": self._unserved_kwh,
            "balance_error_max_ppm": balance_ppm,
        }


class BalanceCheck:
    """Checks of every step that what comes in goes out; added up a block of steps at a time.

    A residual above 1e-6 of the apparent power of all loads, DERs and capacitors (above ten times
    the tolerance of the solution where that is looser than 1e-7) is an event where it begins.
    """

    _LIMIT = 1e-6
    _TOLERANCES = 10.0
    _VALUES = 1 << 14

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._rows: list[tuple[float, float, float]] = []
        self._current = self._voltage = np.empty((0, 0), dtype=np.complex128)
        self._der_kw = np.empty((0, 0))
        self._worst = 0.0
        self._failing = False

    def add(
        self, time_s: float, import_kw: float, losses_kw: float, der_kw: FloatArray, tell: Tell
    ) -> None:
        """Take in a step; see `Readings.balance`."""
        current, voltage = self._measured.elements.injections()
        k = len(self._rows)
        if k == len(self._current) or current.size != self._current.shape[1]:
            self._add_block(tell)
            k, n = 0, max(1, min(64, self._VALUES // max(1, current.size)))
            if self._current.shape != (n, current.size):
                self._current = np.empty((n, current.size), dtype=np.complex128)
                self._voltage = np.empty_like(self._current)
                self._der_kw = np.empty((n, der_kw.size))
        self._current[k], self._voltage[k], self._der_kw[k] = current, voltage, der_kw
        self._rows.append((time_s, import_kw, losses_kw))

    def _add_block(self, tell: Tell) -> None:
        n = len(self._rows)
        if not n:
            return
        time_s, import_kw, losses_kw = np.array(self._rows).T
        self._rows.clear()
        elements, circuit = self._measured.elements, self._measured.circuit
        residual_kw, total_kva = elements.balance(
            import_kw, losses_kw, self._der_kw[:n], self._current[:n], self._voltage[:n]
        )
        # At no load at all there is nothing to compare with.
        error = np.abs(residual_kw) / np.maximum(total_kva, 1e-3)
        self._worst = max(self._worst, float(error.max()))
        bad = error > max(self._LIMIT, self._TOLERANCES * circuit.tolerance_pu)
        begins = bad & ~np.concatenate([[self._failing], bad[:-1]])
        self._failing = bool(bad[-1])
        for k in np.flatnonzero(begins):
            tell(
                "power_balance_failed",
                float(time_s[k]),
                residual_kw=float(residual_kw[k]),
                total_kva=float(total_kva[k]),
            )

    def total(self, tell: Tell) -> float:
        """Return the largest residual so far, in millionths of the total."""
        self._add_block(tell)
        return 1e6 * self._worst
