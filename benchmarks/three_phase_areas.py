"""Three-phase market by areas: iterations and messages to 0.1 %, in one loop and over bad links.

    python benchmarks/three_phase_areas.py [--json]

Loop: cases S, M, L of `three_phase.py` on IEEE 123, cut into 2 to 6 areas. Mail: the first clearing
of `attack-1b-ieee123-areas`, as shipped and with a voltage band that binds.

reached       first iteration from which on the gap is below 0.1 %, the balance within 1 kW and
              voltages within 1e-4 pu; messages in one loop are those until then
iterations    when it stops by its own rule
gap           distance of the cost from that of the exact market at one place
balance_kw    import of one power flow of all set-points, less what the areas expect (mail: less the
              exact market's import)
voltage_pu    largest error of a node's voltage as the areas have it (mail: excess of the band)
rounds        steps of the mail until the operator has all results; messages: sent between areas
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from grid_models.base.threads import use_one_thread

use_one_thread()

import numpy as np  # noqa: E402
from _three_phase_cases import THESIS_CASES, THESIS_TAPS, market, plant  # noqa: E402

from controllers.core.mail import Mail  # noqa: E402
from controllers.core.mail_loop import MailLoop, Post  # noqa: E402
from controllers.core.protocol import Controller, ControlSite  # noqa: E402
from controllers.market.agents.area_agents import AreaAgents  # noqa: E402
from controllers.market.agents.primary import PrimaryMarket  # noqa: E402
from controllers.market.model.participants import aggregate  # noqa: E402
from controllers.market.model.problem import PortProblem  # noqa: E402
from controllers.market.solvers.stopping import Rule  # noqa: E402
from controllers.market.three_phase.areas import AreaClearing, AreaMarket  # noqa: E402
from controllers.market.three_phase.exact import ThreePhaseMarket  # noqa: E402
from controllers.market.three_phase.objective import PortObjective  # noqa: E402
from controllers.market.three_phase.result import flow_at  # noqa: E402
from federates.core.sites import GridSite  # noqa: E402
from federates.scenario.schema import load_scenario  # noqa: E402

Row = dict[str, Any]
NAME = "attack-1b-ieee123-areas"
BANDS = {"1b": (0.9, 1.1), "1b, voltage binds": (0.9, 1.041)}
LINKS = {
    "perfect": (Post(), 0.0),
    "a fifth lost": (Post(loss=0.2), 0.0),
    "a fifth lost, up to two rounds late": (Post(loss=0.2, max_delay_steps=2), 0.0),
    "the same, noise 0.002": (Post(loss=0.2, max_delay_steps=2), 0.002),
    "the same, noise 0.005": (Post(loss=0.2, max_delay_steps=2), 0.005),
}
_MOST_ROUNDS = 2400


class NoisyLoop(MailLoop):
    """A `MailLoop` with noise on what areas tell each other, of a standard deviation."""

    noise = 0.0

    def _send(self, host: Controller, mail: Mail, step: int) -> None:
        widths = [host.links_out[i].width for i in mail.link]
        shared = np.repeat([host.links_out[i].kind == "shared" for i in mail.link], widths)
        drawn = np.random.default_rng([step, 7]).normal(0.0, self.noise, mail.values.size)
        super()._send(host, Mail(mail.link, mail.round, mail.values + drawn * shared), step)


class Watched(AreaMarket):
    """Notes after which iterations set-points and areas' states are good enough."""

    def watch(self, problem: PortProblem, best: float) -> AreaClearing:
        """Clear, and know the least cost."""
        self._asked, self._best, self.good = problem, best, list[bool]()
        return self.clear(problem)

    def _met(self, errors: list[tuple[float, float]], rule: Rule) -> bool:
        now = self._finished(self._asked, 0, False, 0, np.empty(0))
        self.good.append(
            abs(now.dispatch.cost / self._best - 1.0) < 1e-3
            and abs(now.exactness.fictitious_loss_pu) < 1e-3
            and now.exactness.gap_pu < 1e-4
        )
        return super()._met(errors, rule)

    @property
    def reached(self) -> int:
        """The first iteration from which on all were."""
        return len(self.good) - [*self.good[::-1], False].index(False) + 1


def loop_rows() -> Iterator[Row]:
    """Yield the rows of all areas in one loop."""
    at = plant("ieee123", taps=THESIS_TAPS)
    for case, terms in THESIS_CASES.items():
        problem = market(at, **terms)
        best = ThreePhaseMarket(at.network).clear(problem).dispatch.cost
        for areas in (2, 3, 4, 6):
            by_areas = Watched(at.network, areas=areas)
            found = by_areas.watch(problem, best)
            reached = by_areas.reached
            yield {
                "case": case, "areas": areas, "links": "loop", "converged": found.converged,
                "reached": reached, "iterations": found.iterations,
                "messages": found.messages * reached // found.iterations,
                "gap": found.dispatch.cost / best - 1.0,
                "balance_kw": 1e3 * found.exactness.fictitious_loss_pu,
                "voltage_pu": found.exactness.gap_pu,
                "again": by_areas.clear(problem).iterations,
            }  # fmt: skip


def mail_rows() -> Iterator[Row]:
    """Yield the rows of the agents over mail."""
    scenario = load_scenario(NAME)
    options = dict(scenario.federates["market"].options)
    grid = GridSite(scenario)
    period_s = scenario.federates["market"].period_s / PrimaryMarket.steps_per_period(**options)
    for case, (low, high) in BANDS.items():
        site = ControlSite(
            grid.feeder, grid.feeder.ders, period_s, low, high, scenario.seed, ports=grid.ports
        )
        for links, (post, noise) in LINKS.items():
            host = PrimaryMarket(site, PrimaryMarket.agents(site, **options), **options)
            mail = NoisyLoop([host], post, period_s=period_s)
            mail.noise = noise
            yield {"case": case, "areas": 4, "links": links, **mail_row(host, mail)}


def mail_row(host: PrimaryMarket, mail: MailLoop) -> Row:
    """Return what a first clearing takes, and how good it is."""
    operator, agents, terms = host._operator, host._buses, host._terms
    assert operator is not None
    assert isinstance(agents, AreaAgents)
    while not operator.counts["clearings"]:
        mail.step()
    began = mail.steps
    while operator.schedule is None and mail.steps < _MOST_ROUNDS:
        mail.step()
    made = operator.schedule
    turns = max(agent.turns for agent in agents._agents)
    row: Row = {"converged": made is not None, "iterations": (turns + 1) // 2}
    row |= {"rounds": mail.steps - began, "messages": agents.messages}
    if made is None:
        return row
    problem = terms.problem(host._table.rows, aggregate(host._table))
    best = ThreePhaseMarket(problem.network).clear(problem)
    x, rows = np.zeros((4, problem.network.size)), host._table.rows
    for i, power in enumerate((made.p_gen, made.q_gen, made.p_load)):
        x[i, rows] = power / terms.mw
    objective = PortObjective(problem.network)
    devices = objective.devices(problem)
    flow = flow_at(problem, devices.injection(x))
    size = np.abs(np.delete(flow.v, problem.network.source_nodes))
    size = size[size > 0.0]
    excess = max(float(size.max()) - problem.v_max_pu, problem.v_min_pu - float(size.min()), 0.0)
    return row | {
        "gap": objective.cost(problem, devices, x, flow) / best.dispatch.cost - 1.0,
        "balance_kw": 1e3 * (flow.s_import.real - best.dispatch.p_import),
        "voltage_pu": excess,
        "price": float(np.abs(made.price_p - best.prices.p.total[rows] / terms.mw).max()),
    }


_COLUMNS = (
    "case", "areas", "links", "reached", "iterations", "rounds", "messages", "gap", "balance_kw",
    "voltage_pu",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    rows = []
    args = parser.parse_args()
    for row in (*loop_rows(), *mail_rows()):
        rows.append(row)
        if not args.json:
            cells = [row.get(name, "-") for name in _COLUMNS]
            texts = [f"{x:.2g}" if isinstance(x, float) else str(x) for x in cells]
            print(" | ".join(texts) + ("" if row["converged"] else " | not converged"), flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
