"""OpenDSS as the referee of feeders that were solved in a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from federates.kinds.feeder.federate import Applied
from federates.kinds.feeders.fleet import Fleet

_STEPS = 20
_LIMIT_PU = 1e-6


class Referee:
    """Solves a sample of the feeders with OpenDSS, too, at some steps of a run.

    The largest deviation of a node's voltage is the metric ``referee_max_dev_pu``. One above 1e-6
    pu is the event ``referee_deviation``.

    Parameters
    ----------
    count : Feeders to check, evenly over all but the first, which is in OpenDSS anyway.
    n_steps : Of the run; it checks at the first, the last and others between.

    Attributes
    ----------
    tell : Where events go.
    """

    def __init__(self, fleet: Fleet, count: int, n_steps: int) -> None:
        self._fleet = fleet
        n = len(fleet.labels)
        found = np.linspace(1, n - 1, min(count, n - 1)).round().astype(int)
        self._sample = sorted(set(found.tolist()))
        steps = np.linspace(0, n_steps - 1, min(n_steps, _STEPS)).round().astype(int)
        self._steps = set(steps.tolist()) if self._sample else set()
        self._worst_pu = 0.0
        self.tell: Callable[..., None] = lambda *_, **__: None

    def judge(self, k: int, time_s: float, applied: Applied, source_pu: float) -> None:
        """Check the solution of step k where it is one of those to check.

        Raises PowerFlowError: OpenDSS finds no solution.
        """
        if k not in self._steps or applied.dark:
            return
        fleet = self._fleet
        for feeder in self._sample:
            group = fleet.groups[fleet.group_of(feeder)]
            circuit = group.circuit
            load, der = fleet.scale.load[feeder], fleet.scale.der[feeder]
            circuit.set_loads(load * applied.load_kw, load * applied.load_kvar)
            circuit.set_ders(der * applied.p_kw, der * applied.q_kvar)
            # Not by `set_source`, whose sources have an impedance of their own: 2e-7 pu.
            circuit.source_v_pu = group.own_pu if np.isnan(source_pu) else source_pu
            circuit.solve()
            off_pu = float(np.abs(circuit.v_pu() - fleet.v_pu(feeder)).max())
            self._worst_pu = max(self._worst_pu, off_pu)
            if off_pu > _LIMIT_PU:
                self.tell(
                    "referee_deviation", time_s, feeder=fleet.labels[feeder], deviation_pu=off_pu
                )

    def totals(self) -> dict[str, float]:
        """Return the metric, where feeders were checked."""
        return {"referee_max_dev_pu": self._worst_pu} if self._steps else {}
