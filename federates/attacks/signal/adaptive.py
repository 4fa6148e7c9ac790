"""An attacker of its own program decides what the targets shall be."""

from __future__ import annotations

from typing import Literal

from pydantic import PrivateAttr

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AdaptiveOptions, AttackSite, CheckedAttacker
from federates.attacks.signal.action import Sample, SignalAction, StepDraws


class AdaptiveForgery(AdaptiveOptions, SignalAction):
    """Asks an attacker at every step what the targets shall be."""

    kind: Literal["adaptive"]
    _attacker: CheckedAttacker = PrivateAttr()
    _decided: FloatArray = PrivateAttr()

    def prepare(self, site: AttackSite, draws: StepDraws) -> None:
        self._attacker = self.attacker_of(site)

    def observe(self, sample: Sample, true: FloatArray) -> None:
        self._decided = self._attacker.decide(sample.time_s, sample.elapsed_s, true, sample.sees)

    def apply(self, sample: Sample, true: FloatArray) -> FloatArray:
        return self._decided
