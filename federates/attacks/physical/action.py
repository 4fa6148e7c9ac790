"""What an action of the physical layer is: what an input of the plant says of each element."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from controllers.core.mail import FloatArray
from federates.attacks.adaptive import AttackSite, CheckedAttacker
from federates.attacks.physical.elements import PhysicalElements
from federates.scenario.attack_actions import Action

CONNECTED, LOAD_KW = "attack_connected", "attack_load_kw"
LOAD_FACTOR, THERMOSTAT_K = "attack_load_factor", "attack_thermostat_k"
SETTINGS = "attack_settings"
UNITS = {CONNECTED: "1", LOAD_KW: "kW", LOAD_FACTOR: "1", THERMOSTAT_K: "K", SETTINGS: "1"}
#: What an input says of an element that no step acts on.
IDLE = {CONNECTED: np.nan, LOAD_KW: 0.0, LOAD_FACTOR: 1.0, THERMOSTAT_K: 0.0, SETTINGS: 0.0}


class PhysicalAction(Action):
    """Base of the actions on the elements of a plant.

    A subclass says which elements it applies to (`kinds`, `on_devices`), through which input of the
    plant it acts (`port_name`), and what that input says of each element (`values`).
    """

    layer: ClassVar[str] = "physical"
    port_name: ClassVar[str] = CONNECTED
    """The plant's input that it acts through: one of `UNITS`."""
    kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of elements it applies to: line, switch, load, or a kind of DER. Empty: all."""
    kinds_text: ClassVar[str] = "any element"
    """What `kinds` means, for messages."""
    on_devices: ClassVar[bool] = True
    """Whether it applies to DERs that are devices, whose power the plant does not compute."""
    only_devices: ClassVar[bool] = False
    """Whether it applies to nothing else."""
    numbered: ClassVar[bool] = False
    """Whether its port says which step acts: `values` times the number of the step, from 1."""

    @property
    def port(self) -> str:
        """The plant's input that it acts through; `port_name` unless its options decide."""
        return self.port_name

    @abstractmethod
    def values(self, labels: Sequence[str], elements: PhysicalElements) -> FloatArray:
        """Return what the port says of each element while the step is active, (m,)."""

    def on(self, elapsed_s: float, draws: FloatArray) -> NDArray[np.bool_] | bool:
        """Return which elements are acted on now.

        Parameters
        ----------
        elapsed_s : Since the step's begin.
        draws : (m,). One number in (0, 1) per element, the same during the whole run.
        """
        return True

    def applies_to(self, elements: PhysicalElements) -> frozenset[str]:
        """Return the elements that it can act on."""
        fit = {x for x in elements.labels if not self.kinds or elements.kind[x] in self.kinds}
        if self.only_devices:
            return frozenset(fit & elements.on_devices)
        return frozenset(fit if self.on_devices else fit - elements.on_devices)

    def decider(self, site: AttackSite) -> CheckedAttacker | None:
        """Return who decides during the run what the port says; None for a fixed action."""
        return None
