"""Days in closed loop: controllers step by step, many days at once in the batched power flow.

The order is that of ``feederate run``: a step applies the set-points of the step before, solves,
and lets the controller read these voltages. Every row has a controller of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core.mail import FloatArray
from controllers.core.mail_loop import MailLoop
from controllers.core.ports import Port
from controllers.core.protocol import Controller, ControlSite
from controllers.core.registry import resolve
from federates.kinds.feeder.metrics import VoltageMetrics
from federates.training.days import Day
from grid_models.base.errors import PowerFlowError
from grid_models.batched.power_flow import BatchedFeeder, BatchFlow

SETTLING_STEPS = 10
"""Steps that metrics leave out, as in a run with a controller that does not say."""
_TOLERANCE_PU = 1e-7
_PIECE_STEPS, _LEAD_STEPS = 1800, 360
"""A day is simulated in pieces side by side. Each begins with steps that do not count, in which a
controller that contracts by 5 % a step forgets its start to 1e-8."""


@dataclass(frozen=True)
class Row:
    """A day under a controller: a shipped name and its options."""

    day: Day
    controller: str
    options: dict[str, Any]

    def built(self, site: ControlSite) -> Controller:
        """Return the controller with all of its agents."""
        kind = resolve(self.controller)
        return kind(site, kind.agents(site, **self.options), **self.options)


def simulate(
    feeder: BatchedFeeder,
    site: ControlSite,
    rows: Sequence[Row],
    steps: range | None = None,
    report: Callable[[int, int], None] | None = None,
) -> list[dict[str, float]]:
    """Simulate the rows over the steps of their days; return each one's metrics as a run's.

    Parameters
    ----------
    feeder : At the taps of all rows.
    site : DERs and band of the controllers; `period_s` is the length of a step.
    steps : Default: all.
    report : Called with the number of steps done and of all, now and then.

    Raises PowerFlowError: A power flow has no solution.
    """
    steps = range(len(rows[0].day)) if steps is None else steps
    loop = _Loop(feeder, site, rows, steps, max(1, len(steps) // _PIECE_STEPS))
    for i in range(loop.n_steps):
        loop.step(i)
        if report is not None and i % 100 == 0:
            report(i, loop.n_steps)
    return [metrics.totals() for metrics in loop.metrics]


class _Loop:
    """The state of the rows, each in pieces: last flow, set-points, what the controllers read.

    All pieces make as many steps, `n_steps`. A piece counts what comes after its lead, the first
    one what comes after the settling.
    """

    def __init__(
        self,
        feeder: BatchedFeeder,
        site: ControlSite,
        rows: Sequence[Row],
        steps: range,
        pieces: int,
    ) -> None:
        lead = 0 if pieces == 1 else _LEAD_STEPS
        own = -(-(len(steps) - lead) // pieces)
        self.n_steps, self._stop = own + lead, steps.stop
        self._first = np.tile(steps.start + own * np.arange(pieces), len(rows))
        self._counted = np.tile([SETTLING_STEPS, *[lead] * (pieces - 1)], len(rows))
        band = site.v_min_pu, site.v_max_pu
        nodes, names = feeder.network.nodes, feeder.der_names
        self.metrics = [VoltageMetrics(band, len(nodes), len(names)) for _ in rows]
        self._metrics = [metrics for metrics in self.metrics for _ in range(pieces)]
        rows = [row for row in rows for _ in range(pieces)]
        self._feeder, self._rows, self._dt_s = feeder, rows, site.period_s
        labels = {"v_pu": nodes, "p_kw": names}
        self._place = {port: {x: i for i, x in enumerate(of)} for port, of in labels.items()}
        self._commanded = np.array([names.index(der.name) for der in site.ders])
        self._kva = np.array([der.kva for der in site.ders])
        self._read: dict[str, FloatArray] = {
            "v_pu": np.ones((len(rows), len(nodes))),
            "p_kw": np.zeros((len(rows), len(names))),
        }
        self._gather: dict[tuple[str, tuple[str, ...]], FloatArray] = {}
        self._mail = [
            MailLoop([row.built(site)], measure=self._measure_of(i), period_s=site.period_s)
            for i, row in enumerate(rows)
        ]
        self._q_set = np.zeros((len(rows), len(site.ders)))
        self._source = np.array([row.day.source_pu for row in rows])
        self._flow: BatchFlow | None = None

    def _measure_of(self, row: int) -> Callable[[Port, int], FloatArray]:
        def measure(port: Port, _: int) -> FloatArray:
            key = port.name, port.labels
            if key not in self._gather:
                place = self._place[port.name]
                self._gather[key] = np.array([place[label] for label in port.labels])
            return np.asarray(self._read[port.name][row, self._gather[key]])

        return measure

    def step(self, i: int) -> None:
        """Apply the set-points of step i of each piece, solve, measure, let the controllers act."""
        rows, at = self._rows, self._commanded
        steps = np.minimum(self._first + i, self._stop - 1).tolist()
        load_kva = np.stack([row.day.load_kva[k] for row, k in zip(rows, steps, strict=True)])
        der_kva = np.stack([row.day.der_kva[k] for row, k in zip(rows, steps, strict=True)])
        p_kw = der_kva.real.copy()
        room = np.sqrt(np.maximum(self._kva**2 - p_kw[:, at] ** 2, 0.0))
        der_kva[:, at] = p_kw[:, at] + 1j * np.clip(self._q_set, -room, room)
        flow = self._feeder.solve(
            load_kva, der_kva, self._source, self._flow, tolerance_pu=_TOLERANCE_PU
        )
        if not flow.converged.all():
            row = int(flow.converged.argmin())
            raise PowerFlowError(
                f"the power flow of step {steps[row]} has no solution",
                where=f"controller '{rows[row].controller}'",
            )
        self._flow, v_pu = flow, flow.v_pu
        self._read = {"v_pu": v_pu, "p_kw": p_kw}
        imported, losses = flow.import_kva.real, flow.losses_kw
        for r in np.flatnonzero((i >= self._counted) & (self._first + i < self._stop)).tolist():
            q_kvar, add = der_kva[r].imag, self._metrics[r].add
            add(self._dt_s, v_pu[r], float(imported[r]), float(losses[r]), q_kvar)
        for r, mail in enumerate(self._mail):
            self._q_set[r] = mail.step()[0].outputs["q_set_kvar"]
