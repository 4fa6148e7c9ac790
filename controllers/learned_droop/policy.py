"""The local volt/var policy: for each DER a slope and a cubic over its own active power.

    q_i = h_i clip(b_i(p_i / p_max_i) - k_i (w_i - 1), -1, 1),   k_i > 0

h is the reactive headroom ``sqrt(kva^2 - p^2)``, b_i a cubic, and w the own voltage behind a filter
``w += filter_gain (v - w)``, once per step. No agent needs mail or another's measurement.

On a feeder whose voltages answer as ``v = v_0 + J q`` with J symmetric and positive definite, the
loop is a contraction in the norm of inv(J), whatever saturates, while

    filter_gain < 2 / (1 + L),   L = lambda_max(K^1/2 J K^1/2),   K = diag(k kva):

the clipped command has slopes S K with 0 <= S <= 1, so a step's Jacobian is similar to the
symmetric matrix ``(1 - g) I - g J^1/2 S K J^1/2`` with eigenvalues from 1 - g (1 + L) to 1 - g.
Of an untransposed feeder J is not symmetric; the bound takes its symmetric part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from controllers.core.mail import FloatArray
from grid_models.feeder.model import Der

CUBIC = 4
"""Coefficients of b, the constant first."""


@dataclass(frozen=True)
class Policy:
    """Parameters of every agent, and where they come from.

    Attributes
    ----------
    names : (n,). DERs.
    kva : (n,). Their ratings.
    k : (n,), > 0. Slope of q over the headroom by the voltage, per pu.
    b : (n, 4). Coefficients of the cubic, the constant first.
    filter_gain : Share of a voltage's change that the filter takes in a step, above 0 to 1.
    origin : What is known of the training, by name; the feeder's name and hash among it.
    """

    names: tuple[str, ...]
    kva: FloatArray
    k: FloatArray
    b: FloatArray
    filter_gain: float
    origin: Mapping[str, str] = field(default_factory=dict)

    def of(self, chosen: Sequence[int]) -> Policy:
        """Return the policy of some of the DERs."""
        at = list(chosen)
        names = tuple(self.names[i] for i in at)
        return Policy(names, self.kva[at], self.k[at], self.b[at], self.filter_gain, self.origin)

    def filtered(self, w_pu: FloatArray, v_pu: FloatArray) -> FloatArray:
        """Return the filtered voltages of the next step."""
        return w_pu + self.filter_gain * (v_pu - w_pu)

    def wanted_pu(self, w_pu: FloatArray, p_pu: FloatArray) -> FloatArray:
        """Return the command over the headroom before it is clipped, (..., n).

        `w_pu`: Filtered voltages. `p_pu`: Active power over its largest, `p_max_kw`.
        """
        b = self.b.T
        bias = b[0] + p_pu * (b[1] + p_pu * (b[2] + p_pu * b[3]))
        return np.asarray(bias - self.k * (w_pu - 1.0))

    def q_kvar(self, w_pu: FloatArray, p_pu: FloatArray, headroom_kvar: FloatArray) -> FloatArray:
        """Return the reactive powers, (..., n)."""
        return np.asarray(headroom_kvar * np.clip(self.wanted_pu(w_pu, p_pu), -1.0, 1.0))


def uniform_policy(ders: Sequence[Der], k: float, filter_gain: float) -> Policy:
    """Return a droop of one slope for all: full reactive power at 1 + 1/k pu."""
    n = len(ders)
    kva = np.array([der.kva for der in ders])
    names = tuple(der.name for der in ders)
    return Policy(names, kva, np.full(n, k), np.zeros((n, CUBIC)), filter_gain)


def p_max_kw(ders: Sequence[Der]) -> FloatArray:
    """Return what active power is measured by: the largest injection, or where that is 0 kva."""
    return np.array([der.p_max_kw if der.p_max_kw > 0.0 else der.kva for der in ders])


def loop_gain(k: FloatArray, kva: FloatArray, j_pu_per_kvar: FloatArray) -> float:
    """Return L, the largest eigenvalue of ``K^1/2 J K^1/2`` with J's symmetric part.

    `j_pu_per_kvar`: (n, n). Change of each agent's own voltage by each agent's reactive power.
    """
    root = np.sqrt(k * kva)
    symmetric = 0.5 * (j_pu_per_kvar + j_pu_per_kvar.T)
    return float(np.linalg.eigvalsh(root[:, None] * symmetric * root)[-1])
