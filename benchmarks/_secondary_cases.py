"""Random secondary markets."""

from __future__ import annotations

import numpy as np

from controllers.market.secondary.problem import SecondaryBids, SecondaryProblem


def random_market(
    operators: int, seed: int, *, widths: tuple[int, int] = (3, 12), epsilon: float = 0.05
) -> SecondaryProblem:
    """Loads, generation and prosumers with targets all over what they can reach together."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(widths[0], widths[1] + 1, operators)
    owner = np.repeat(np.arange(operators), counts)
    m = len(owner)
    kind = draw.integers(0, 3, m)  # load, generation, both
    p0 = np.select(
        [kind == 0, kind == 1],
        [-draw.uniform(1, 15, m), draw.uniform(0, 10, m)],
        draw.uniform(-5, 5, m),
    )
    down = draw.uniform(0.1, 0.5, m) * np.abs(p0) + (kind == 2) * draw.uniform(0, 5, m)
    up = down * draw.uniform(0, 1, m)
    q0 = p0 * draw.uniform(-0.3, 0.4, m)
    reach_q = draw.uniform(0.05, 0.5, m) * np.abs(q0)
    bids = SecondaryBids(
        owner=owner,
        p0=p0,
        p_min=p0 - down,
        p_max=p0 + up,
        q0=q0,
        q_min=q0 - reach_q,
        q_max=q0 + reach_q,
        beta_p=draw.uniform(0.01, 1, m),
        beta_q=draw.uniform(0.01, 1, m),
        score=draw.uniform(0.2, 1, m),
    )

    def between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        at = draw.uniform(0, 1, operators)
        ends = [np.bincount(owner, weights=v, minlength=operators) for v in (low, high)]
        return ends[0] * (1 - at) + ends[1] * at

    return SecondaryProblem(
        bids=bids,
        p_target=between(bids.p_min, bids.p_max),
        q_target=between(bids.q_min, bids.q_max),
        price_p=draw.uniform(-0.02, 0.2, operators),
        price_q=draw.uniform(0, 0.02, operators),
        price_cap=draw.uniform(0.1, 0.3, operators),
        epsilon=epsilon,
    )


def some(problem: SecondaryProblem, operators: list[int]) -> SecondaryProblem:
    """Return the market of some operators, in ascending order."""
    keep = np.flatnonzero(np.isin(problem.bids.owner, operators))
    taken = {name: value[keep] for name, value in vars(problem.bids).items()}
    taken["owner"] = np.searchsorted(operators, taken["owner"])
    per_operator = ("p_target", "q_target", "price_p", "price_q", "price_cap")
    return SecondaryProblem(
        bids=SecondaryBids(**taken),
        **{name: getattr(problem, name)[operators] for name in per_operator},
        epsilon=problem.epsilon,
    )
