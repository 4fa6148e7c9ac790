"""Physical steps: which plants of a federation they act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from federates.attacks.layer import AttackLayer
from federates.attacks.physical.plan import PhysicalPlan
from federates.attacks.plan import AttackPlan, Touched
from federates.core.wiring import FederateWiring, Feed


class PhysicalLayer(AttackLayer):
    """Steps on the elements of plants; each plant has resolved its own when it was built.

    Attributes
    ----------
    plans : Of the plants, which carry theirs as the attribute `physical`.
    """

    name = "physical"

    def resolve(self) -> None:
        self.plans: dict[str, PhysicalPlan] = {}
        for name, federate in self.case.federation.by_name.items():
            plan = getattr(federate, "physical", None)
            if plan is not None:
                self.plans[name] = plan
        if self.steps and not self.plans:
            self.problems.append(
                f"{self.case.spec.where('steps', self.steps[0][0], 'target')}: the scenario has "
                "no grid to act on; expected a plant with elements, such as one of kind feeder"
            )
        for name, plan in self.plans.items():
            of = f" of {plan.plant}" if len(self.plans) > 1 else ""
            timing = self.case.federation.by_name[name].timing
            for a in plan.actions:
                names = [f"{label} ({a.action.port}){of}" for label in a.labels]
                self.add(a.step, names, [timing], [Touched(f"elements{of}", a.labels)])

    def rewire(
        self, wirings: Mapping[str, FederateWiring], plan: AttackPlan
    ) -> dict[str, FederateWiring]:
        """Feed the inputs for the attack of each plant, and of the devices on it."""
        out = dict(wirings)
        for site in plan.sites.values():
            for part in site.parts:
                if isinstance(part, PhysicalPlan):
                    feeds = {
                        p.name: (Feed(site.name, p.name, len(p.labels), None, None),)
                        for p in part.ports()
                    }
                    for name in self._told_of(part):
                        own = {p.name for p in self.case.federation.by_name[name].inputs}
                        mine = {port: feed for port, feed in feeds.items() if port in own}
                        out[name] = replace(out[name], feeds={**out[name].feeds, **mine})
        return out

    def _told_of(self, plan: PhysicalPlan) -> list[str]:
        """Return the federates that follow a plan: the plant, and the devices on it."""
        return [
            name
            for name, federate in self.case.federation.by_name.items()
            if self.plans.get(name) is plan
            or getattr(federate, "attacked_plant", None) == plan.plant
        ]
