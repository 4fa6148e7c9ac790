"""A clearing by PAC over the federation's mail is the loop's, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.core.protocol import ControlSite
from controllers.market.agents.site_problem import SiteBids, site_problem
from controllers.market.solvers.pac import clear_pac
from grid_models.catalog import load_feeder

pytestmark = pytest.mark.scenario

ITERATIONS = 12
# An iteration is two messages each way; the first step only posts the start.
STEPS = 2 * ITERATIONS + 1
PERFECT = f"""\
seed: 1
time: {{duration_s: {STEPS}, step_s: 1}}
grid: {{model: ieee13}}
federates:
  feeder: {{kind: feeder}}
  market:
    kind: controller
    controller: market-pac
    options: {{flexibility: 0.4}}
"""
LOSSY = PERFECT.replace(f"duration_s: {STEPS}", "duration_s: 140") + (
    "links:\n  - {loss: 0.2, jitter_s: 3}\n"
)


def loop(iterations: int) -> dict[tuple[str, str], float]:
    """Return the set-points of the loop by (port, bus)."""
    feeder = load_feeder("ieee13")
    problem = site_problem(ControlSite(feeder, (), 1.0), SiteBids(flexibility=0.4))
    done = clear_pac(problem, max_iterations=iterations, tolerance=0.0).dispatch
    net = problem.network
    return {
        (port, bus): value
        for port, values in (
            ("p_load_set_kw", done.p_load * net.base_kva),
            ("price_per_mwh", done.lmp_p * (1e3 / net.base_kva)),
        )
        for bus, value in zip(net.buses, values.tolist(), strict=True)
    }


def last(bits: bytes) -> float:
    """Return the last number of a recorded column."""
    return float(np.frombuffer(bits)[-1])


@pytest.mark.parametrize("split", ["1", "3"])
def test_over_helics_with_perfect_links_every_bit_is_the_loops(ran, split: str) -> None:
    run = ran(PERFECT, f"federates.market.split={split}", placement="thread", steps=STEPS)
    expected = loop(ITERATIONS)
    for port in ("p_load_set_kw", "price_per_mwh"):
        found = {(port, bus): last(bits) for bus, bits in run.by_label(port).items()}
        assert found == {key: v for key, v in expected.items() if key[0] == port}


def test_with_lost_and_late_mail_the_iterates_are_the_same_only_later(ran) -> None:
    run = ran(LOSSY, placement="thread", steps=140)
    seen = {
        bus: set(np.frombuffer(bits).tolist())
        for bus, bits in run.by_label("price_per_mwh").items()
    }
    # About nine steps an iteration at a fifth lost and up to three steps late.
    for (_, bus), price in ((k, v) for k, v in loop(8).items() if k[0] == "price_per_mwh"):
        assert price in seen[bus]
