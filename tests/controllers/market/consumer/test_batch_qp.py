"""Many quadratic programs of one pattern: each solved as if it were alone, and said where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.market.consumer.batch_qp import BatchQp

seeds = st.integers(0, 10_000)


def random_batch(seed, n, some=slice(None)):
    """Return a batch in which each problem has its own numbers, some variables fixed at 0."""
    rng = np.random.default_rng(seed)
    size = 5
    data = {name: rng.normal(size=(size, n))[:, some] for name in ("a", "b", "c", "d", "e")}
    fixed = (rng.random((size, n)) < 0.2)[:, some]
    qp = BatchQp(data["a"].shape[1])
    x, y = qp.variables(size), qp.variables(size)
    qp.square(0.5, data["a"], (x, 1.0), (y, data["b"]))
    qp.equal(0.1 * data["c"][1:], (x[1:], 1.0), (x[:-1], -0.9))
    for sign in (1.0, -1.0):
        qp.at_most(2.0, (x, sign))
        qp.at_most(3.0, (y, sign), (x, data["d"]))
    qp.cost(y, data["e"])
    qp.fix(y, fixed)
    return qp, (x, y), data, fixed


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_solution_is_feasible_and_no_feasible_point_is_better(seed):
    qp, (x, y), d, fixed = random_batch(seed, 4)
    found = qp.solve()
    assert found.converged.all()
    xs, ys = found.x[x], found.x[y]
    assert (ys[fixed] == 0.0).all()
    assert np.abs(xs[1:] - 0.9 * xs[:-1] - 0.1 * d["c"][1:]).max() < 1e-7
    assert np.abs(xs).max() < 2.0 + 1e-7
    assert max((ys + d["d"] * xs).max(), (-ys + d["d"] * xs).max()) < 3.0 + 1e-7

    def cost(x, y):
        return (0.5 * (x + d["b"] * y - d["a"]) ** 2 + d["e"] * y).sum(axis=0)

    np.testing.assert_allclose(found.objective, cost(xs, ys), atol=1e-9)
    rng = np.random.default_rng(seed)
    for _ in range(30):  # feasible directions from the solution: x moves along its recursion
        step = rng.normal(size=4) * 0.9 ** np.arange(5)[:, None]
        dx, dy = 0.1 * step, np.where(fixed, 0.0, 0.1 * rng.normal(size=ys.shape))
        ok = (np.abs(xs + dx) <= 2.0) & (np.abs(ys + dy) <= 3.0 - d["d"] * (xs + dx))
        better = cost(xs + dx, ys + dy) < found.objective - 1e-7
        assert not (better & ok.all(axis=0)).any()


@settings(max_examples=10, deadline=None)
@given(seed=seeds, some=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
def test_a_solution_does_not_depend_on_the_batch(seed, some):
    whole = random_batch(seed, 10)[0].solve()
    part = random_batch(seed, 10, some)[0].solve()
    assert np.array_equal(whole.x[:, some], part.x)
    assert np.array_equal(whole.objective[some], part.objective)


def test_a_problem_without_a_solution_does_not_stop_the_others():
    qp = BatchQp(2)
    x = qp.variables(3)
    qp.at_most(1.0, (x, 1.0))
    qp.at_most(np.array([[0.0, -2.0]]), (x, -1.0))  # the second asks for x >= 2 and x <= 1
    qp.cost(x, 1.0)
    found = qp.solve()
    assert found.converged.tolist() == [True, False]
    assert found.x[x][:, 0] == pytest.approx(0.0, abs=1e-7)
