"""Demand that an attacker of its own program decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AdaptiveOptions, AttackSite, CheckedAttacker
from federates.attacks.physical.actions import DemandAction
from federates.attacks.physical.elements import PhysicalElements


class AdaptiveLoad(AdaptiveOptions, DemandAction):
    """Asks an attacker at every step which demand it adds to loads and houses."""

    kind: Literal["adaptive"]

    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        return np.zeros(len(labels))  # until the attacker decides

    def decider(self, site: AttackSite) -> CheckedAttacker | None:
        return self.attacker_of(site)
