"""The operator's books: every schedule is settled for the time that it was in force.

A re-clearing within an interval ends the schedule before it, so an interval may settle several. The
quantities are those cleared; what devices did instead shows in the import, which the operator pays
for as metered, not here.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from controllers.core.mail import FloatArray
from controllers.market.agents.schedule import Schedule
from controllers.market.model.prices import PriceParts
from controllers.market.model.settlement import settle

ACCOUNT = (
    "load_pays",
    "generation_receives",
    "import_cost",
    "surplus",
    "loss_rent",
    "voltage_rent",
    "congestion_rent",
)
"""Of the operator: surplus = load_pays - generation_receives - import_cost, and its rents."""
PORT_ACCOUNT = (*ACCOUNT, "voltage_objective_rent")
"""The same of a three-phase market."""
SERVICES = tuple(f.name for f in fields(PriceParts))
"""Parts of a price, each a service that is paid for."""


class IntervalAccounts:
    """Accumulates what each SMO pays in the interval under way.

    Parameters
    ----------
    buses : tuple of str. Of the n SMOs.
    import_price : float or None. Money per MWh; None: that of each schedule's clearing.
    step_h : float. Time between two steps, hours.

    Attributes
    ----------
    net_pays : (n,); Money of the last interval that ended, of each SMO; negative where it received.
    services : (n,) of each of `SERVICES`; what `net_pays` is made of.
    account : ndarray, (len(PORT_ACCOUNT),). Money of the same interval.
    settled : int. Number of intervals that have ended.
    """

    def __init__(self, buses: tuple[str, ...], import_price: float | None, step_h: float) -> None:
        self._buses, self._import_price, self._step_h = buses, import_price, step_h
        self.settled = 0
        self._in_force: list[tuple[Schedule, int]] = []
        self.net_pays: FloatArray = np.zeros(len(buses))
        self.services = {name: np.zeros(len(buses)) for name in SERVICES}
        self.account: FloatArray = np.zeros(len(PORT_ACCOUNT))

    def note(self, schedule: Schedule | None) -> None:
        """Count one step under `schedule`; under none nobody pays."""
        if schedule is None:
            return
        if self._in_force and self._in_force[-1][0] is schedule:
            self._in_force[-1] = (schedule, self._in_force[-1][1] + 1)
        else:
            self._in_force.append((schedule, 1))

    def close(self) -> None:
        """End the interval."""
        self.settled += 1
        settled = [
            settle(
                self._buses,
                schedule.prices,
                schedule,
                import_price=(
                    float(schedule.prices.p.energy[0])
                    if self._import_price is None
                    else self._import_price
                ),
                hours=steps * self._step_h,
            )
            for schedule, steps in self._in_force
        ]
        self._in_force.clear()
        self.net_pays = np.zeros(len(self._buses))
        self.services = {name: np.zeros(len(self._buses)) for name in SERVICES}
        self.account = np.zeros(len(PORT_ACCOUNT))
        for one in settled:
            self.net_pays += one.money(one.net_pays)
            for name, units in one.services.items():
                self.services[name] += one.money(units)
            whole = [one.load_pays.sum(), one.generation_receives.sum(), one.import_cost]
            money = [float(one.money(int(amount))) for amount in (*whole, one.surplus)]
            rents = (one.loss_rent, one.voltage_rent, one.congestion_rent)
            self.account += [*money, *rents, one.voltage_objective_rent]
