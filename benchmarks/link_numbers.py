"""What quantised messages and noise of differential privacy cost: tables of docs/optimisation.md.

``python benchmarks/link_numbers.py`` takes about a minute. The gap is the mean of the last 100 of
400 iterations, as agents that hear noise never come to rest.
"""

from __future__ import annotations

import numpy as np

from federates.optimise.compare import compare

ITERATIONS, LAST = 400, 100
CASES = (
    ("dispatch-100", "dual"),
    ("dispatch-100", "admm-preconditioned"),
    ("dispatch-100", "admm-consensus"),
    ("dispatch-100", "gradient-tracking"),
    ("consensus-ring-100", "consensus-momentum"),
    ("lindistflow-ieee13", "admm-preconditioned"),
)
BITS = (4, 6, 8, 12, 16, 24, None)
EPSILON = (0.1, 1.0, 10.0, 100.0, 1000.0)
SENSITIVITY = {"dispatch-100": 0.1, "consensus-ring-100": 0.01, "lindistflow-ieee13": 0.001}
"""Power of a unit, or number of an agent, that must not be told apart from its neighbour."""


def run(problem: str, algorithm: str, **link: float | None) -> tuple[float, float]:
    """Return the mean gap at the end, and kB per iteration."""
    rule = {key: value for key, value in link.items() if value is not None}
    found = compare(
        problem, [algorithm], links=rule or None, tolerance=0.0, max_iterations=ITERATIONS
    )
    row = found.rows[0]
    gap = float(np.mean(found.curves[algorithm].gap[-LAST:]))
    return gap, (row.bytes or 0) / 1e3 / (row.iterations or 1)


def main() -> None:
    """Print both tables."""
    print("| bits | " + " | ".join(f"{a}, gap | kB" for _, a in CASES) + " |")
    for bits in BITS:
        cells = [run(*case, bits=bits) for case in CASES]
        print(f"| {bits or 64} | " + " | ".join(f"{g:.1e} | {kb:.2f}" for g, kb in cells) + " |")
    print("\n| epsilon | " + " | ".join(f"{a}, gap" for _, a in CASES) + " |")
    for epsilon in EPSILON:
        gaps = [
            run(*case, privacy_epsilon=epsilon, privacy_sensitivity=SENSITIVITY[case[0]])[0]
            for case in CASES
        ]
        print(f"| {epsilon:g} | " + " | ".join(f"{gap:.1e}" for gap in gaps) + " |")


if __name__ == "__main__":
    main()
