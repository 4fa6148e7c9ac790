"""An islanded feeder: its source is a grid-forming unit that stays within its limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from federates.core.federate import FloatArray
from federates.kinds.feeder.events import Tell
from federates.scenario.sections import GridForming
from grid_models.ders.plant import DerFleet
from grid_models.ders.shedding import Cuts, GridFormingUnit
from grid_models.opendss.circuit import Circuit

PowerFlow = Callable[[FloatArray, FloatArray], FloatArray]
"""Solves with what the DERs inject, kW and kvar; returns the reactive power as it became."""

SHED = ("source", "flexible", "critical")


class Island:
    """Holds the unit of an island within its limits in every step.

    What is cut is found anew in each step, from the set-points and the demand of that step, so it
    is released as these change. It acts within the step: houses, heaters, batteries and vehicles
    have the temperature and energy of what they asked for.

    Attributes
    ----------
    unit_kw : Power of the unit in the last step.
    shed_kw : (3,). Load that was shed then: all, flexible, critical.
    curtailed_kw : Generation that was curtailed then.
    """

    def __init__(self, section: GridForming, circuit: Circuit, fleet: DerFleet) -> None:
        self._unit = GridFormingUnit(section.p_min_kw, section.p_max_kw)
        self._circuit, self._fleet = circuit, fleet
        loads = [d.kind == "flexible_load" and not d.energy_kwh for d in fleet.ders]
        self._critical_pu = section.critical_load_pu * np.array(loads, dtype=np.float64)
        self._residual_kw = 0.0
        self.unit_kw, self.curtailed_kw = 0.0, 0.0
        self.shed_kw = np.zeros(len(SHED))
        self._peak_kw, self._least_kw = -np.inf, np.inf
        self._kwh = np.zeros(len(SHED) + 1)
        self._since: dict[str, float] = {}

    def hold(
        self,
        p_kw: FloatArray,
        q_kvar: FloatArray,
        load_kw: FloatArray,
        load_kvar: FloatArray,
        power_flow: PowerFlow,
    ) -> tuple[FloatArray, FloatArray]:
        """Solve the step within the unit's limits; return what the DERs then inject, kW and kvar.

        Parameters
        ----------
        p_kw, q_kvar : (n_ders,). What they would inject.
        load_kw, load_kvar : (n_loads,). Demand of the feeder's own loads.

        Raises PowerFlowError: The power flow does not converge, or nothing more can be cut.
        """
        fleet, circuit = self._fleet, self._circuit
        # What a set-point could not take away is critical, and what the scenario says.
        least_kw = np.maximum(-fleet.p_high_kw, -fleet.p_low_kw * self._critical_pu)
        cuts = Cuts.of(p_kw, least_kw, load_kw)
        net_kw = float(load_kw.sum() - p_kw.sum())
        after = p_kw, q_kvar

        def unit_kw(cut_kw: float) -> float:
            nonlocal after
            kept = 1.0 - cuts.shares(cut_kw)[1] * (load_kw > 0.0)
            circuit.set_loads(load_kw * kept, load_kvar * kept)
            p, q = cuts.after(cut_kw, p_kw, q_kvar)
            after = p, power_flow(p, q)
            return circuit.source_kw_kvar()[0]

        # Losses move little from step to step, so most steps need one power flow.
        expected_kw = net_kw + self._residual_kw
        start_kw = expected_kw - min(max(expected_kw, self._unit.p_min_kw), self._unit.p_max_kw)
        cut_kw = self._unit.cut(unit_kw, cuts.range_kw, start_kw)
        self.unit_kw = circuit.source_kw_kvar()[0]
        self._residual_kw = self.unit_kw - net_kw + cut_kw
        flexible, critical, curtailed = cuts.shares(cut_kw)
        flexible_kw = flexible * float(cuts.flexible_kw.sum())
        critical_kw = critical * float(cuts.critical_kw.sum() + cuts.own_kw.sum())
        self.shed_kw = np.array([flexible_kw + critical_kw, flexible_kw, critical_kw])
        self.curtailed_kw = curtailed * float(cuts.generation_kw.sum())
        return after

    def count(self, time_s: float, dt_s: float, tell: Tell) -> None:
        """Add the last step up, and tell where a cut begins or ends.

        `dt_s`: Time that counts; 0 in the warm-up.
        """
        if dt_s:
            self._peak_kw = max(self._peak_kw, self.unit_kw)
            self._least_kw = min(self._least_kw, self.unit_kw)
            self._kwh += np.append(self.shed_kw, self.curtailed_kw) * dt_s / 3600.0
        for kind, kw in (
            ("load_shedding", self.shed_kw[0]),
            ("critical_load_shedding", self.shed_kw[2]),
            ("generation_curtailment", self.curtailed_kw),
        ):
            if kw > 0.0 and kind not in self._since:
                self._since[kind] = time_s
                tell(f"{kind}_began", time_s, kw=round(float(kw), 3))
            elif kw == 0.0 and kind in self._since:
                lasted_s = time_s - self._since.pop(kind)
                tell(f"{kind}_ended", time_s, lasted_s=round(lasted_s, 6))

    def totals(self) -> dict[str, float]:
        """Return the metrics."""
        shed, _, critical, curtailed = self._kwh.tolist()
        return {
            "unit_peak_kw": self._peak_kw,
            "unit_least_kw": self._least_kw,
            "shed_kwh": shed,
            "critical_shed_kwh": critical,
            "curtailed_kwh": curtailed,
        }
