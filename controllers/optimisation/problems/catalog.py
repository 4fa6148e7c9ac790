"""Problems by name: ``dispatch-1000``, ``consensus-grid-32x32``, a user's own case.

A name is a family with its sizes in place of the capital letters, or stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.optimisation.problems.consensus import Consensus, ring_consensus
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch
from grid_models.base.errors import nearest_name

MOST_AGENTS = 4000
"""A graph's spectrum takes the cube of it."""
Problem = Consensus | Dispatch
_WHERE = "problem"
_SIZE, _NUMBER = re.compile("[A-Z]"), re.compile("[0-9]+")


@dataclass(frozen=True)
class Family:
    """Problems of one kind and all sizes.

    Attributes
    ----------
    about : One line for lists.
    agents : Returns how many agents there are, called with the sizes.
    build : Called with the seed and the sizes.
    """

    about: str
    agents: Callable[..., int]
    build: Callable[..., Problem]


def _grid_consensus(seed: int, rows: int, columns: int) -> Problem:
    own = np.random.default_rng(seed).random(rows * columns)
    return Consensus(own, Graph.grid(rows, columns))


FAMILIES: dict[str, Family] = {
    "dispatch-N": Family(
        "N units of curvatures over four decades, one balance",
        lambda n: n,
        lambda seed, n: random_dispatch(n, seed=seed),
    ),
    "dispatch-N-rows-M": Family(
        "the same with M more coupling rows, of which about half bind",
        lambda n, m: n,
        lambda seed, n, m: random_dispatch(n, coupling=m, seed=seed),
    ),
    "consensus-ring-N": Family(
        "average of N numbers, each agent with two neighbours",
        lambda n: n,
        lambda seed, n: ring_consensus(n, seed),
    ),
    "consensus-grid-RxC": Family(
        "average of the numbers of a grid of R times C agents",
        lambda r, c: r * c,
        _grid_consensus,
    ),
}


def load_problem(name: str, seed: int = 0) -> Problem:
    """Return the problem of a name.

    seed : Of problems with random numbers.

    Raises ControllerError: There is no such problem, or it is too large.
    """
    for pattern, family in FAMILIES.items():
        found = re.fullmatch(_SIZE.sub("([0-9]{1,9})", pattern), name)
        if found is None:
            continue
        sizes = [int(size) for size in found.groups()]
        if not (min(sizes) >= 1 and 2 <= family.agents(*sizes) <= MOST_AGENTS):
            raise ControllerError(
                f"'{name}' has {family.agents(*sizes)} agents",
                where=_WHERE,
                expected=f"{pattern} with 2 to {MOST_AGENTS} agents",
            )
        return family.build(seed, *sizes)
    raise ControllerError(
        f"no problem is called '{name}'",
        where=_WHERE,
        expected="one of " + ", ".join(problem_names()),
        nearest=_nearest(name),
    )


def problem_names() -> tuple[str, ...]:
    """Return the names; capital letters stand for sizes."""
    return tuple(FAMILIES)


def _nearest(name: str) -> str | None:
    """Return the nearest name, with the sizes that were asked for."""
    near = nearest_name(_NUMBER.sub("N", name), problem_names())
    if near is None or _SIZE.search(near) is None:
        return near
    sizes: Iterator[str] = iter(_NUMBER.findall(name))
    return _SIZE.sub(lambda letter: next(sizes, letter.group()), near)
