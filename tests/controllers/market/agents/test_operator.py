"""Orders of the resilience manager as the market operator reads them: changed, noisy, repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray
from controllers.core.protocol import ControlSite
from controllers.core.sample_site import sample_feeder
from controllers.market.agents.operator import (
    COMMIT,
    SOLVED,
    TRIAL,
    CentralOperator,
    Operator,
    read_weights,
    weights_message,
)
from controllers.market.agents.primary import PrimaryMarket
from controllers.market.agents.reweighing import FACTOR_MIN, Weights
from controllers.market.model.participants import aggregate
from grid_models.feeder.model import Der

OPTIONS: dict[str, Any] = {"interval_s": 6.0, "generator_cost": {"*": 72.0}}
DERS = (
    Der("gen_b1", "inverter", "b1", (1, 2, 3), 110.0, 100.0),
    Der("load_b4", "flexible_load", "b4", (2,), 110.0, -50.0, -100.0),
)


def operating(**more: Any) -> Operator:
    """Return an operator that has cleared interval 0."""
    site = ControlSite(replace(sample_feeder(), ders=DERS), DERS, 1.0, seed=3)
    options = OPTIONS | more
    operator = PrimaryMarket(site, PrimaryMarket.agents(site, **options), **options)._operator
    assert operator is not None
    rows = aggregate(operator.table)
    bids = np.hstack([np.zeros((len(rows), 1)), rows])
    operator.take_bids(np.arange(len(rows)), bids, 0, 0)
    operator.clear_interval(0)
    assert operator.schedule is not None
    return operator


def kinds(operator: Operator) -> list[str]:
    return [event["event"] for event in operator.events]


def changed(message: FloatArray, at: int | slice, value: float) -> FloatArray:
    out = message.copy()
    out[at] = value
    return out


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (slice(None), 50.0),  # what a tampered link once made the operator's last order
        (slice(None), 1.0),
        (0, 2.0),
        (0, 1e300),
        (0, -1.0),
        (1, 2.0),
        (1, -1.0),
        (2, -1.0),
        (3, 1.0),
        (4, -6.0),
        (5, np.nan),
    ],
)
def test_orders_changed_on_their_way_are_refused_and_the_next_is_obeyed(
    at: int | slice, value: float
) -> None:
    operator = operating()
    n = len(operator.table.buses)
    order = weights_message(1, COMMIT, Weights(np.full(n, 0.3), np.full(n, 0.3)))
    before = operator.schedule
    for _ in range(2):
        operator.take_weights(changed(order, at, value))
    assert operator.answer()[0] == 0.0
    assert operator.schedule is before
    # Told once; an order with a number that has been is a late one, no fault.
    assert kinds(operator) == ([] if (at, value) == (0, -1.0) else ["weights_refused"])
    operator.take_weights(order)
    assert operator.answer()[[0, 3]].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("level", [1e-4, 0.3, 1.0])
def test_noise_on_the_link_changes_an_order_but_does_not_stop_it(level: float) -> None:
    operator = operating()
    n = len(operator.table.buses)
    rng = np.random.default_rng(2)
    for number in range(1, 5):
        weights = Weights(np.full(n, level), np.full(n, level))
        order = weights_message(number, COMMIT, weights)
        operator.take_weights(order + rng.normal(0.0, 0.05, order.size))
        assert operator.answer()[[0, 1, 3]].tolist() == [number, SOLVED, number]
        in_force = operator._weights
        assert ((in_force.alpha >= FACTOR_MIN) & (in_force.alpha <= 1.0)).all()
        # A twentieth of a decade is 12 per cent.
        assert in_force.beta == pytest.approx(weights.beta, rel=0.5)
    assert kinds(operator) == []


def test_weights_travel_as_they_are() -> None:
    weights = Weights(np.array([1.0, 1e-4, 0.37]), np.array([0.2, 1.0, 3e-3]), 17.0)
    number, order, read = read_weights(weights_message(7, TRIAL, weights))  # type: ignore[misc]
    assert (number, order) == (7, TRIAL)
    assert read.alpha == pytest.approx(weights.alpha, rel=1e-14)
    assert read.beta == pytest.approx(weights.beta, rel=1e-14)
    assert read.xi == pytest.approx(weights.xi, rel=1e-14)


@pytest.mark.parametrize("trust", [True, False])
def test_generation_of_silent_operators_counts_unless_it_is_not_trusted(trust: bool) -> None:
    operator = operating(trust_silent=trust)
    assert isinstance(operator, CentralOperator)
    before = operator.schedule
    assert before is not None
    assert before.p_gen.sum() > 0.0
    operator.note_silence(1000)
    assert operator.receiver.silent.all()
    operator.obey(1, COMMIT, Weights.neutral(len(before.p_gen)))
    after = operator.schedule
    assert after is not None
    if trust:
        np.testing.assert_allclose(after.p_gen, before.p_gen, atol=1e-9)
        np.testing.assert_allclose(after.p_load, before.p_load, atol=1e-9)
    else:
        np.testing.assert_allclose(after.p_gen, 0.0, atol=1e-9)
        assert after.p_import == pytest.approx(before.p_import + before.p_gen.sum(), rel=0.05)


def test_a_distributed_clearing_cannot_leave_silent_generation_out() -> None:
    with pytest.raises(ControllerError, match="trust_silent: is not used by clearing 'admm'"):
        operating(trust_silent=False, clearing="admm")
