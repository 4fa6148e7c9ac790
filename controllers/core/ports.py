"""Ports: typed vector signals with a unit and one label per element."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Port:
    """A vector signal.

    Attributes
    ----------
    name : Name with its unit, ``v_pu``, ``q_set_kvar``.
    unit : Unit symbol, ``pu``, ``kvar``; producer and consumer must agree.
    labels : One label per element: ``65.1`` (bus 65, phase 1) or a device's name.
    initial : What a consumer reads before the producer's first step.
    required : For inputs: whether a scenario must feed every label.
    """

    name: str
    unit: str
    labels: tuple[str, ...]
    initial: float = 0.0
    required: bool = True
