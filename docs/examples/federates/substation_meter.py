"""A user's own federate: a substation meter that counts energy and finds the peak of its window.

Put it beside your scenario file and name it as ``kind: substation_meter:SubstationMeter``. The
same class runs in a thread, in a process of its own or in the single-threaded host.

Try it:  feederate run substation_meter.yaml
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feederate import Federate, FederateContext, FloatArray, Mail, Port, Step


class SubstationMeter(Federate):
    """Reads the feeder's import and publishes energy and demand.

    Parameters
    ----------
    context : FederateContext
        Name, timing, scenario and grid: given to every federate.
    window_s : float
        Length of the demand window, s: the ``options`` of the scenario arrive as keywords.
    """

    def __init__(self, context: FederateContext, window_s: float = 900.0) -> None:
        super().__init__(context)
        if window_s <= 0.0:
            # An error that names file, line and key of this federate's section.
            raise context.error("window_s is not positive", "options", "window_s", expected="900")
        # Names and units of the ports; the scenario connects them, `feederate check` shows them.
        self.inputs = (Port("import_kw", "kW", ("source",)),)
        self.outputs = (
            Port("energy_kwh", "kWh", ("source",)),
            Port("demand_kw", "kW", ("source",)),
        )
        self._hours = context.period_s / 3600.0
        self._window = np.zeros(max(1, round(window_s / context.period_s)))
        self._k = 0
        self._energy_kwh = self._peak_kw = 0.0

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Count what flowed since the last step; never call HELICS, never look at a clock."""
        import_kw = inputs["import_kw"]
        self._energy_kwh += float(import_kw[0]) * self._hours
        self._window[self._k % self._window.size] = import_kw[0]
        self._k += 1
        demand_kw = self._window[: self._k].mean()
        self._peak_kw = max(self._peak_kw, float(demand_kw))
        return Step(
            {"energy_kwh": np.array([self._energy_kwh]), "demand_kw": np.array([demand_kw])}
        )

    def summary(self) -> dict[str, float]:
        """Return metrics for ``summary.json``; the keys carry units."""
        return {"metered_kwh": self._energy_kwh, "peak_demand_kw": self._peak_kw}
