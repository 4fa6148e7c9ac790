"""A signal by the clock: an operator's word at a given minute, a price, a set-point as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

import numpy as np

from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step
from grid_models.base.errors import nearest_name


class SignalFederate(Federate):
    """Gives one value to all its labels, changing at given times.

    Parameters
    ----------
    context : FederateContext
    port, unit : str
        Name of the output port and its unit.
    values : sequence of (time_s, value)
        Simulation time from which a value holds, rising; before the first it is the first value.
    ders : sequence of str
        Names or globs of the DERs that are the port's labels.
    """

    def __init__(
        self,
        context: FederateContext,
        port: str,
        unit: str,
        values: Sequence[Sequence[float]],
        ders: Sequence[str] = ("*",),
    ) -> None:
        super().__init__(context)
        names = [der.name for der in context.site.feeder.ders]
        for i, glob in enumerate(ders):
            if not any(fnmatchcase(name, glob) for name in names):
                near = nearest_name(glob, names)
                raise context.error(
                    f"no DER is called '{glob}'",
                    "options",
                    "ders",
                    i,
                    expected=f"names or globs of DERs, such as '{near or next(iter(names), '')}'",
                )
        table = [tuple(row) for row in values]
        if not table or any(len(row) != 2 for row in table):
            raise context.error(
                "values is not a table", "options", "values", expected="[[time_s, value], ...]"
            )
        if any(b[0] <= a[0] for a, b in pairwise(table)):
            raise context.error("times do not rise", "options", "values", expected="rising times")
        labels = tuple(n for n in names if any(fnmatchcase(n, glob) for glob in ders))
        self._times_s = np.array([row[0] for row in table], dtype=np.float64)
        self._values = np.array([row[1] for row in table], dtype=np.float64)
        self.outputs = (Port(port, unit, labels),)

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Give the value that holds."""
        port = self.outputs[0]
        at = max(0, int(np.searchsorted(self._times_s, time_s, side="right")) - 1)
        return Step({port.name: np.full(len(port.labels), self._values[at])})
