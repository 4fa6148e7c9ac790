"""The voltage of a circuit's source, per phase, from one solution to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grid_models.base.errors import FeederError
from grid_models.feeder.model import Feeder
from grid_models.opendss.engine import Engine

_BUS, _NAME = "feederate_source", "feederate_source_"
_STIFF_OHM = 1e-6


class SourceVoltage:
    """Single-phase sources in series with the circuit's own, whose impedance stays in place.

    The engine's source is balanced. Its second terminal moves from ground to a bus whose phases
    are held by one stiff source each, and its own voltage becomes 0. The single-phase sources are
    connected from ground to the bus, so that the engine counts their power as 0.

    Parameters
    ----------
    engine : Engine

    Raises FeederError: The source has fewer phases than its bus.
    """

    def __init__(self, engine: Engine, feeder: Feeder) -> None:
        self._engine = engine
        phases = source_phases(feeder)
        sources = engine.dss.Vsources
        sources.First()
        name, n_phases = str(sources.Name()), int(sources.Phases())
        if n_phases != len(phases):
            raise FeederError(
                f"its source has {n_phases} phases and its bus {len(phases)}",
                where=f"circuit '{feeder.name}'",
                expected="as many phases, for a source voltage that changes",
            )
        kv = float(sources.BasekV()) / (3.0**0.5 if n_phases > 1 else 1.0)
        angle_deg = float(sources.AngleDeg())
        self._v_pu: NDArray[np.float64] = np.full(len(phases), float(sources.PU()))
        self._deg = np.array([angle_deg - 120.0 * k for k in range(len(phases))])
        nodes = ".".join(str(phase) for phase in phases)
        engine.command(f'edit "vsource.{name}" bus2={_BUS}.{nodes} pu=0')
        for phase in phases:
            engine.command(
                f"new vsource.{_NAME}{phase} phases=1 bus1={_BUS}.0 bus2={_BUS}.{phase} "
                f"basekv={kv!r} pu=1 r1={_STIFF_OHM} x1={_STIFF_OHM} r0={_STIFF_OHM} "
                f"x0={_STIFF_OHM}"
            )
        self._phases = phases
        self._now = self._v_pu, self._deg
        # The engine leaves the voltages of a new bus unset; the next solution must not start there.
        engine.command("init")

    def set(self, v_pu: NDArray[np.float64], deg: NDArray[np.float64]) -> None:
        """Set magnitudes and angles, shape (n_phases,); NaN keeps the circuit's own."""
        v_pu = np.where(np.isnan(v_pu), self._v_pu, v_pu)
        deg = np.where(np.isnan(deg), self._deg, deg)
        self._now = v_pu, deg
        for phase, magnitude, angle in zip(self._phases, v_pu.tolist(), deg.tolist(), strict=True):
            # From ground to the bus, the engine's voltage has the opposite sign.
            self._engine.command(
                f"edit vsource.{_NAME}{phase} pu={magnitude!r} angle={angle + 180.0!r}"
            )

    def shift(self, dv_pu: float) -> None:
        """Change all magnitudes."""
        v_pu, deg = self._now
        self.set(v_pu + dv_pu, deg)


def source_phases(feeder: Feeder) -> tuple[int, ...]:
    """Return the phases of a feeder's source, in the order of their angles."""
    return feeder.source.phases or feeder.buses[feeder.source.bus].phases
