"""What the grid's measurements should be, as a linear function of loads, DERs and source."""

from __future__ import annotations

import numpy as np

from controllers.core.mail import FloatArray, IntArray
from controllers.detection.protocol import Forecast
from grid_models.feeder.model import Feeder
from grid_models.linear.lindistflow import LinDistFlow


class GridResponse:
    """The tangent power-flow model around the forecast's mean, with loads and DERs apart.

    `feeder`: Radial.

    Attributes
    ----------
    nodes : Labels, (n,).
    load_kva : float64 (2 l,)
        Size of the active and of the reactive power of every node with load, at the mean forecast.
    der_kva : (d,)
    size_kva : All loads and DER ratings together.
    """

    def __init__(self, feeder: Feeder, forecast: Forecast) -> None:
        flat = LinDistFlow.from_feeder(feeder)
        self.nodes, self.index = flat.nodes, flat.index
        self._load_p, self._load_q = flat.nominal_injection()
        self._der_nodes = np.zeros((len(self.nodes), len(feeder.ders)))
        for j, der in enumerate(feeder.ders):
            labels = flat.labels_of(der)
            self._der_nodes[[self.index[x] for x in labels], j] = 1.0 / len(labels)
        self.der_kva = np.array([der.kva for der in feeder.ders], dtype=np.float64)
        self._pv_kw = np.array([der.p_max_kw * (der.kind == "pv") for der in feeder.ders])
        self._mean_load = mean_load = float(forecast.load_pu.mean())
        pv_kw = self._pv_kw * float(forecast.irradiance_pu.mean())
        self._model = flat.linearised_at(
            mean_load * self._load_p + self._der_nodes @ pv_kw, mean_load * self._load_q
        )
        loaded = np.flatnonzero((self._load_p != 0) | (self._load_q != 0))
        self._load_nodes = loaded
        both = np.concatenate([self._load_p[loaded], self._load_q[loaded]])
        self.load_kva: FloatArray = mean_load * np.abs(both)
        size_kva = np.abs(self._load_p.sum()) + self.der_kva.sum()
        self.size_kva = float(size_kva)
        zero = np.zeros(len(self.nodes))
        self._no_load_v2 = self._model.v_squared_pu(zero, zero)
        self._reduce()
        # Capacitors and charging of lines, at nominal voltage.
        self._shunt_kvar = sum(c.kvar for c in feeder.capacitors if c.closed) + sum(
            1e-3 * float(np.diag(line.b_us).sum()) * feeder.buses[line.from_bus].base_kv_ln ** 2
            for line in feeder.lines
            if line.closed and line.from_bus in feeder.buses
        )
        self._phase = flat.node_phase

    def load_variance(self, load_pu: FloatArray) -> FloatArray:
        """Return the loads' variance, (k,), as a multiple of that at the mean forecast."""
        if not self._mean_load:
            return np.ones_like(load_pu)  # nothing there to deviate
        return np.asarray((load_pu / self._mean_load) ** 2)

    def expected_der(self, time_s: FloatArray, forecast: Forecast) -> tuple[FloatArray, FloatArray]:
        """Return p_kw and q_kvar of the DERs by forecast, each (k, d)."""
        row = np.searchsorted(forecast.time_s, time_s, side="right") - 1
        sun = forecast.irradiance_pu[np.clip(row, 0, len(forecast.time_s) - 1)]
        p = sun[:, None] * self._pv_kw
        return p, np.zeros_like(p)

    def expected(
        self, load_pu: FloatArray, p_kw: FloatArray, q_kvar: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return squared voltages (k, n) and the import (k,) in kW and in kvar.

        Losses follow from the same model: with ``d(v^2)/dp = 2 R`` in per unit, ``I' R I`` is
        half of ``p . d(v^2)/dp p + q . d(v^2)/dp q`` at nominal voltage.

        Parameters
        ----------
        load_pu : (k,)
        p_kw, q_kvar : (k, d). Injections of the DERs.
        """
        p, q = np.column_stack([load_pu, p_kw]), np.column_stack([load_pu, q_kvar])
        v2 = self._no_load_v2 + p @ self._v2_by_p + q @ self._v2_by_q
        by_p, by_q = self._loss_by_p, self._loss_by_q
        loss_kw, loss_kvar = (
            np.einsum("ki,ki->k", p @ by_p[i], p) + np.einsum("ki,ki->k", q @ by_q[i], q)
            for i in range(2)
        )
        import_kw = loss_kw - load_pu * self._load_p.sum() - p_kw.sum(axis=1)
        import_kvar = loss_kvar - load_pu * self._load_q.sum() - q_kvar.sum(axis=1)
        return v2, import_kw, import_kvar - self._shunt_kvar

    def _reduce(self) -> None:
        """Write the model in the common load factor and the DERs' injections, 1 + d numbers each.

        Sets `_v2_by_p`, `_v2_by_q`, (1 + d, n), and `_loss_by_p`, `_loss_by_q`, each two
        quadratic forms (1 + d, 1 + d), of the losses in kW and in kvar.
        """
        p = np.column_stack([self._load_p, self._der_nodes])
        q = np.column_stack([self._load_q, self._der_nodes])
        none, base = np.zeros_like(p), self._no_load_v2[:, None]
        rp, rq = (self._model.v_squared_pu(x, none) - base for x in (p, q))
        xp, xq = (self._model.v_squared_pu(none, x) - base for x in (p, q))
        self._v2_by_p, self._v2_by_q = rp.T, xq.T
        self._loss_by_p = (0.5 * p.T @ rp, 0.5 * p.T @ xp)
        self._loss_by_q = (0.5 * q.T @ rq, 0.5 * q.T @ xq)

    def sensitivity(self, rows: IntArray) -> FloatArray:
        """Return the derivative of what is measured by the states, (len(rows) + 2, states).

        Measured: squared voltages of the nodes `rows`, import in kW, import in kvar. States:
        squared source voltage of phases 1 to 3; p, then q of the nodes with load; p, then q of
        the DERs.
        """
        n, n_loads, n_ders = len(self.nodes), len(self._load_nodes), len(self.der_kva)
        inject = np.zeros((n, n_loads + n_ders))
        inject[self._load_nodes, np.arange(n_loads)] = 1.0
        inject[:, n_loads:] = self._der_nodes
        none = np.zeros_like(inject)
        v2 = self._model.v_squared_pu(
            np.concatenate([inject, none], axis=1), np.concatenate([none, inject], axis=1)
        )
        by_power = v2[rows] - self._no_load_v2[rows, None]
        by_p, by_q = np.split(by_power, 2, axis=1)
        phases = (self._phase[rows, None] == np.array([1, 2, 3])).astype(np.float64)
        voltages = np.concatenate(
            [phases, by_p[:, :n_loads], by_q[:, :n_loads], by_p[:, n_loads:], by_q[:, n_loads:]],
            axis=1,
        )
        imports = np.zeros((2, voltages.shape[1]))
        imports[0, 3 : 3 + n_loads] = imports[1, 3 + n_loads : 3 + 2 * n_loads] = -1.0
        at = 3 + 2 * n_loads
        imports[0, at : at + n_ders] = imports[1, at + n_ders :] = -1.0
        return np.concatenate([voltages, imports])
