"""What an operator reads: a federate that publishes its inputs, forged and noisy as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail, Port, Step

KIND = "federates.kinds.operator:Operator"


class Operator(Federate):
    """Reads ports and publishes what it read under the same names.

    What the federation shows to a reader passes attacks and the noise of its connections; the
    recorded outputs of this federate are therefore what an operator can know.

    Parameters
    ----------
    ports : By name: unit and labels.
    """

    def __init__(
        self, context: FederateContext, ports: Mapping[str, tuple[str, Sequence[str]]]
    ) -> None:
        super().__init__(context)
        # NaN is what was not read yet.
        self.inputs = tuple(
            Port(name, unit, tuple(labels), initial=np.nan)
            for name, (unit, labels) in ports.items()
        )
        self.outputs = self.inputs

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> Step:
        """Publish what is read."""
        return Step({name: values.copy() for name, values in inputs.items()})
