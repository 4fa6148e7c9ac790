"""The controller federate: hosts some or all agents of a controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controllers.core.protocol import Controller, ControllerStep, ControlSite
from federates.core.context import FederateContext
from federates.core.federate import Federate, FloatArray, Mail

if TYPE_CHECKING:
    from federates.core.run_store import RunStore


class ControllerFederate(Federate):
    """A `controllers.core.protocol.Controller` on the federation's time.

    Parameters
    ----------
    context : FederateContext
    controller : type
        The controller class.
    site : ControlSite
    hosted : sequence of str
        The agents this federate hosts.
    options : mapping
        The scenario's options, passed on.
    """

    def __init__(
        self,
        context: FederateContext,
        controller: type[Controller],
        site: ControlSite,
        hosted: Sequence[str],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(context)
        self.controller = controller(site, tuple(hosted), **options)
        self.inputs = self.controller.inputs
        self.outputs = self.controller.outputs
        self.links_in = self.controller.links_in
        self.links_out = self.controller.links_out
        self._take_events = getattr(self.controller, "take_events", None)
        self._store: RunStore | None = None

    def start(self, store: RunStore) -> None:
        """Keep the run's list of events at hand for a controller that has some to tell."""
        self._store = store

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        """Let the agents step; write down what they have to tell."""
        result = self.controller.step(time_s, inputs, mail)
        if self._take_events is not None and self._store is not None:
            for event in self._take_events():
                details = {key: value for key, value in event.items() if key != "event"}
                self._store.event(self.name, event["event"], time_s, **details)
        return result

    def summary(self) -> dict[str, float]:
        """Return the controller's own metrics, if it has any."""
        own = getattr(self.controller, "summary", None)
        return dict(own()) if own is not None else {}
