"""What every volt/var controller measures and commands: the terminals of its hosted DERs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.ports import Port
from controllers.core.protocol import ControlSite, hosted_positions
from grid_models.feeder.model import Der


@dataclass(frozen=True, slots=True)
class DerMeasurements:
    """One step's measurements of the hosted agents, float (n,) where not said otherwise.

    `v_pu` is the mean of the agent's phase voltages; `q_max_kvar` its reactive headroom
    ``sqrt(kva^2 - p^2)``, which bounds both absorption and injection; `node_v_pu` the voltages
    in the order of the `v_pu` port; `p_kw` the injection.
    """

    v_pu: FloatArray
    q_max_kvar: FloatArray
    node_v_pu: FloatArray
    p_kw: FloatArray


def agent_names(site: ControlSite) -> tuple[str, ...]:
    """Return one agent per DER of the site, named as the DER.

    Raises ControllerError: There is no DER, or two share a name.
    """
    names = tuple(der.name for der in site.ders)
    if not names:
        raise ControllerError("no DER to command", expected="at least one DER in the site")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ControllerError(f"two DERs are named '{twice}'", expected="unique names")
    return names


class DerTerminals:
    """Ports and measurements of the hosted agents.

    A measurement that is not finite is replaced by the last good one of that element (1.0 pu and
    0 kW before the first) and counted in `held_values`, so nothing downstream meets a NaN.

    Parameters
    ----------
    site : Design-time knowledge.
    hosted : Names of the hosted agents.

    Raises ControllerError: A hosted name is no agent of the site, or a DER has no phase.
    """

    def __init__(self, site: ControlSite, hosted: Sequence[str]) -> None:
        chosen = hosted_positions(hosted, agent_names(site), "volt/var controller")
        self.ders: tuple[Der, ...] = tuple(site.ders[i] for i in chosen)
        self.names: tuple[str, ...] = tuple(hosted)
        for der in self.ders:
            if not der.phases or not (np.isfinite(der.kva) and der.kva >= 0):
                raise ControllerError(
                    "a DER needs phases and a finite rating", where=der.name, expected="kva >= 0"
                )
        # Agents may share a node, a port label is unique: gather through the first appearance.
        labels = list(dict.fromkeys(label for der in self.ders for label in der.labels))
        position = {label: i for i, label in enumerate(labels)}
        self._gather = np.array(
            [position[label] for der in self.ders for label in der.labels], dtype=np.int64
        )
        self._phases = np.array([len(der.phases) for der in self.ders], dtype=np.int64)
        self._owner = np.repeat(np.arange(len(self.ders)), self._phases)
        self._kva_sq: FloatArray = np.array([der.kva**2 for der in self.ders])
        self.inputs: tuple[Port, ...] = (
            Port("v_pu", "pu", tuple(labels), initial=1.0),
            Port("p_kw", "kW", self.names, required=False),
        )
        self.outputs: tuple[Port, ...] = (Port("q_set_kvar", "kvar", self.names),)
        self._last_v: FloatArray = np.ones(len(labels))
        self._last_p: FloatArray = np.zeros(len(self.ders))
        self.held_values = 0

    def read(self, inputs: Mapping[str, FloatArray]) -> DerMeasurements:
        """Return this step's measurements; `p_kw` may be missing (then 0 kW)."""
        self._last_v = self._hold(inputs["v_pu"], self._last_v)
        if "p_kw" in inputs:
            self._last_p = self._hold(inputs["p_kw"], self._last_p)
        # bincount adds in order, agent by agent: the same bits whatever else is hosted here.
        v_sum = np.bincount(self._owner, self._last_v[self._gather], minlength=len(self.ders))
        headroom = np.sqrt(np.maximum(self._kva_sq - self._last_p * self._last_p, 0.0))
        return DerMeasurements(v_sum / self._phases, headroom, self._last_v, self._last_p)

    def _hold(self, values: FloatArray, last: FloatArray) -> FloatArray:
        good = np.isfinite(values)
        if good.all():
            return np.array(values, dtype=np.float64)
        self.held_values += int(good.size - np.count_nonzero(good))
        return np.where(good, values, last)
