"""Objective terms, each an equation with its gradient; the options weigh and add them.

Powers are per unit of `S_BASE_KW`, voltages squared magnitudes per unit. A term is a function

* of a DER's own injection (p_j, q_j), with its rating S_j and the power p_ref,j that it gives while
  nothing asks for less: what is available of PV, 0 of a battery; or
* of a measured quantity y: its derivative by y is a price, which the sensitivities dy/dx turn into
  a gradient by the injections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.options import ControllerOptions, option

S_BASE_KW = 1000.0


@dataclass(frozen=True, slots=True)
class Weights(ControllerOptions):
    """Weights of the objective terms."""

    curtailment: float = option(
        3.0, "Of sum_j (p_ref - p)^2 / (2 S): power that is not taken.", above=0.0, high=1e6
    )
    reactive: float = option(1.0, "Of sum_j q^2 / (2 S): reactive power.", above=0.0, high=1e6)
    damping: float = option(
        0.0, "Of sum_j (q - q_mean)^2 / (2 S): moves of reactive power.", low=0.0, high=1e6
    )
    damping_s: float = option(
        30.0, "Time in which q_mean follows q, so that damping moves no optimum.", above=0.0
    )
    energy: float = option(
        0.0, "Of sum_j (p_ref - p) over PV: energy that is not taken.", low=0.0, high=1e6
    )
    cvr: float = option(
        0.0, "Of the mean of v^2: conservation voltage reduction.", low=0.0, high=1e6
    )
    voltage: float = option(
        0.0, "Of the mean of (v^2 - v_ref^2)^2 / 2: a flat profile.", low=0.0, high=1e6
    )
    load: float = option(
        0.0, "Of the power of the feeder's own loads as it depends on v.", low=0.0, high=1e6
    )
    losses: float = option(0.0, "Of the losses of lines; needs `v_deg`.", low=0.0, high=1e6)
    v_ref_pu: float = option(1.0, "Voltage that the term `voltage` aims at.", above=0.5, high=1.5)

    @property
    def curvatures(self) -> tuple[float, float]:
        """Curvature of a DER's own terms by p and by q, times its rating."""
        return self.curtailment, self.reactive + self.damping


def own_gradient(
    p: FloatArray,
    q: FloatArray,
    p_ref: FloatArray,
    q_mean: FloatArray,
    rating: FloatArray,
    pv: FloatArray,
    w: Weights,
) -> tuple[FloatArray, FloatArray]:
    """Return the derivatives by p and q of the terms in a DER's own injection, each (n,).

    | term | equation |
    | --- | --- |
    | curtailment | (p_ref - p)^2 / (2 S) |
    | energy | p_ref - p, where `pv` is 1 |
    | reactive | q^2 / (2 S) |
    | damping | (q - q_mean)^2 / (2 S), with q_mean the mean of q over about `damping_s` |
    """
    by_q = w.reactive * q + w.damping * (q - q_mean)
    return w.curtailment * (p - p_ref) / rating - w.energy * pv, by_q / rating


def voltage_price(v_sq: FloatArray, nodes: int, w: Weights) -> FloatArray:
    """Return the derivative by v^2 of the terms in the voltages of `nodes` nodes in all.

    | term | equation |
    | --- | --- |
    | cvr | mean of v^2 |
    | voltage | mean of (v^2 - v_ref^2)^2 / 2 |
    """
    return np.asarray((w.cvr + w.voltage * (v_sq - w.v_ref_pu**2)) / nodes)
