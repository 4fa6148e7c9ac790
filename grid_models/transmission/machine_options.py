"""Options of the machines' controls and of loads, with their defaults and limits.

The defaults of exciter, stabiliser and governor are those of Kundur, Power System Stability and
Control (1994), example 12.6 (thyristor exciter with stabiliser), and the model TGOV1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from grid_models.base.options import Options, option
from grid_models.transmission.model import TransmissionError


@dataclass(frozen=True)
class Avr(Options):
    """A thyristor exciter: field voltage by the measured bus voltage, without delay."""

    error = TransmissionError
    gain: float = option(200.0, "gain K_A, per unit of field voltage by per unit", low=0.0)
    measuring_s: float = option(0.01, "time constant T_R of the voltage's measurement", above=0.0)
    limit_pu: float = option(6.4, "largest field voltage, of either sign", above=0.0)


@dataclass(frozen=True)
class Stabiliser(Options):
    """A power system stabiliser (PSS) on the machine's speed: washout and two lead-lag blocks."""

    error = TransmissionError
    gain: float = option(20.0, "gain, per unit of voltage by per unit of speed; 0: none", low=0.0)
    washout_s: float = option(10.0, "time constant of the washout", above=0.0)
    lead_1_s: float = option(0.05, "lead of the first block", low=0.0)
    lag_1_s: float = option(0.02, "lag of the first block", above=0.0)
    lead_2_s: float = option(3.0, "lead of the second block", low=0.0)
    lag_2_s: float = option(5.4, "lag of the second block", above=0.0)
    limit_pu: float = option(0.2, "largest signal, of either sign", above=0.0)


@dataclass(frozen=True)
class Governor(Options):
    """A steam turbine with governor, TGOV1, on the turbine's largest power.

    A machine that starts above its largest power stays there.
    """

    error = TransmissionError
    droop_pu: float = option(0.05, "speed by power at steady state, per unit", above=0.0)
    valve_s: float = option(0.5, "time constant T_1 of the valve", above=0.0)
    lead_s: float = option(2.1, "lead T_2 of the turbine", low=0.0)
    lag_s: float = option(7.0, "lag T_3 of the turbine", above=0.0)


@dataclass(frozen=True)
class LoadModel(Options):
    """Loads of the tables: P (v / v0)^p_exponent (1 + p_by_frequency df), and likewise Q."""

    error = TransmissionError
    p_exponent: float = option(1.0, "0: constant power, 1: current, 2: impedance", low=0.0)
    q_exponent: float = option(2.0, "the same of reactive power", low=0.0)
    p_by_frequency: float = option(1.5, "per unit of power by per unit of frequency")
    q_by_frequency: float = option(0.0, "per unit of reactive power by per unit of frequency")


@dataclass(frozen=True)
class Controls:
    """Controls of all machines; None: manual excitation, or constant torque."""

    avr: Avr | None = field(default_factory=Avr)
    stabiliser: Stabiliser | None = field(default_factory=Stabiliser)
    governor: Governor | None = field(default_factory=Governor)
