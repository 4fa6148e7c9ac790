"""What agents see of N episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federates.core.federate import FloatArray
from federates.environment.ders import BatchedDers, Rows
from federates.scenario.environment import Environment
from grid_models.feeder.model import Der

V_GAIN = 20.0
"""Observed voltages are deviations from 1 pu times this: the band of 0.95 to 1.05 is -1 to 1."""
Observation = NDArray[np.float32]


class Observer:
    """Observations of N episodes, float32 (N, n_inverters n_features + n_nodes if joint).

    The features of an inverter stand together: (voltage - 1) times `V_GAIN`, active power over its
    largest, headroom and reactive power over its kVA, and in a feeder with batteries the state of
    charge. The voltage of several phases is their mean.

    Parameters
    ----------
    ders : Those of the feeder, and as a batch.
    nodes : Labels of the voltages.

    Attributes
    ----------
    features : Their names.
    limit : Largest size of each number of an observation.
    """

    def __init__(
        self, spec: Environment, ders: Sequence[Der], batch: BatchedDers, nodes: Sequence[str]
    ) -> None:
        self._std, self._joint, self._batch = (
            spec.voltage_noise_pu,
            spec.observation == "joint",
            batch,
        )
        inverters = [ders[i] for i in batch.inverters]
        at = {label: i for i, label in enumerate(nodes)}
        own = [[at[label] for label in der.labels] for der in inverters]
        self._phases = np.array([len(x) for x in own])
        self._nodes = np.array([i for x in own for i in x], dtype=np.intp)
        self._begins = np.cumsum(self._phases) - self._phases
        self._batteries = np.flatnonzero([der.kind == "battery" for der in inverters])
        charge = ("soc",) if self._batteries.size else ()
        self.features = ("v", "p", "headroom", "q", *charge)
        limit = np.ones((len(inverters), len(self.features)), dtype=np.float32)
        limit[:, 0] = V_GAIN
        joint = len(nodes) if self._joint else 0
        self.limit = np.concatenate([limit.ravel(), np.full(joint, V_GAIN, dtype=np.float32)])
        p_kw = [max(abs(der.p_min_kw), abs(der.p_max_kw)) for der in inverters]
        # What can be 0 is then 0 in all cases.
        self._p_kw = np.maximum(p_kw, 1e-9)
        self._kva = np.maximum([der.kva for der in inverters], 1e-9)

    def __call__(
        self,
        v_pu: FloatArray,
        forged_pu: FloatArray,
        generators: Sequence[np.random.Generator],
        rows: Rows,
    ) -> Observation:
        """Return what is seen in some episodes.

        Parameters
        ----------
        v_pu : (n_rows, n_nodes)
        forged_pu : (n_rows, n_inverters). Added to the voltages at the terminals.
        generators : (n_rows,). For errors of measurement.
        rows : The episodes.
        """
        batch, inverters = self._batch, self._batch.inverters
        if self._std:
            shape = v_pu.shape[1]
            v_pu = v_pu + self._std * np.stack([g.standard_normal(shape) for g in generators])
        terminal_pu = v_pu[:, self._nodes]
        if len(self._nodes) > len(inverters):
            terminal_pu = np.add.reduceat(terminal_pu, self._begins, axis=1) / self._phases
        own = np.zeros((len(v_pu), len(inverters), len(self.features)), dtype=np.float32)
        own[..., 0] = V_GAIN * (terminal_pu + forged_pu - 1.0)
        own[..., 1] = batch.p_kw[rows][:, inverters] / self._p_kw
        own[..., 2] = batch.headroom_kvar[rows] / self._kva
        own[..., 3] = batch.q_kvar[rows][:, inverters] / self._kva
        if self._batteries.size:
            own[:, self._batteries, 4] = batch.soc_pu[rows]
        seen = own.reshape(len(v_pu), -1)
        if self._joint:
            seen = np.concatenate([seen, (V_GAIN * (v_pu - 1.0)).astype(np.float32)], axis=1)
        # A node without supply is NaN, which ends as the lower limit, 0 pu.
        return np.asarray(np.fmin(np.fmax(seen, -self.limit), self.limit))
