"""Problems by name: ``dispatch-1000``, ``consensus-grid-32x32``, ``case39``, a user's own case.

A name is a family with its sizes in place of the capital letters, or stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core.errors import ControllerError
from controllers.core.graph import Graph
from controllers.optimisation.partition import areas_of, given_regions, partition
from controllers.optimisation.problems.consensus import Consensus, ring_consensus
from controllers.optimisation.problems.dc_opf import dc_opf
from controllers.optimisation.problems.dispatch import Dispatch, random_dispatch
from controllers.optimisation.problems.feeder_opf import feeder_opf
from controllers.optimisation.problems.feeder_socp import FeederSocp, feeder_socp
from controllers.optimisation.problems.opf_regions import RegionOpf
from grid_models.base.errors import nearest_name
from grid_models.catalog import load_feeder
from grid_models.transmission.matpower import SHIPPED_CASES, load_case
from grid_models.transmission.opf_case import OpfCase

MOST_AGENTS = 4000
"""A graph's spectrum takes the cube of it."""
Problem = Consensus | Dispatch | RegionOpf | FeederSocp
_REGIONS = 3
_OTHERS = (
    *SHIPPED_CASES,
    "dcopf-case39",
    "lindistflow-ieee13",
    "lindistflow-ieee123",
    "socp-ieee13",
)
_WHERE = "problem"
_DC_OPF = re.compile(r"dcopf-(?P<case>.+?)(?:-rate-(?P<rate>[0-9]{1,4}))?")
_FEEDER_OPF = re.compile(r"lindistflow-(?P<feeder>.+)")
_FEEDER_SOCP = re.compile(r"socp-(?P<feeder>.+)")
_FILE = re.compile(r"[/\\]|\.m$")
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


def load_problem(
    name: str, seed: int = 0, regions: int | Mapping[str, str] | None = None
) -> Problem:
    """Return the problem of a name.

    Parameters
    ----------
    name : Of `problems`, or the path of a MATPOWER file or folder of tables. CASE and FEEDER are
        shipped ones or paths.
    seed : Of problems with random numbers.
    regions : Of a case: how many, or the name of each bus's region. Default: its areas where they
        are several and connected, else three.

    Raises FeederateError: There is no such problem, it is too large, or a case cannot be used.
    """
    for pattern, family in FAMILIES.items():
        found = re.fullmatch(_SIZE.sub("([0-9]{1,18})", pattern), name)
        if found is not None:
            sizes = [int(size) for size in found.groups()]
            return _of_family(name, pattern, family, seed, sizes)
    if (found := _DC_OPF.fullmatch(name)) is not None:
        return dc_opf(load_case(found["case"]), float(found["rate"] or 100.0) / 100.0)
    if (found := _FEEDER_OPF.fullmatch(name)) is not None:
        return feeder_opf(load_feeder(found["feeder"]))
    if (found := _FEEDER_SOCP.fullmatch(name)) is not None:
        return feeder_socp(load_feeder(found["feeder"]))
    if name.lower() in SHIPPED_CASES or _FILE.search(name):
        return regions_of(load_case(name), regions)
    raise ControllerError(
        f"no problem is called '{name}'",
        where=_WHERE,
        expected=f"one of {', '.join(problems())}, or a MATPOWER file (.m)",
        nearest=_nearest(name),
    )


def problems() -> dict[str, str]:
    """Return names and one line on each; capital letters stand for sizes."""
    cases = {name: f"AC optimal power flow: {about}" for name, about in SHIPPED_CASES.items()}
    others = {
        "dcopf-CASE": "DC optimal power flow of a case: generators, limits of branches",
        "dcopf-CASE-rate-P": "the same with ratings at P percent of the case's",
        "lindistflow-FEEDER": "P and Q of a feeder's PV that hold its voltages, by LinDistFlow",
        "socp-FEEDER": "loads and PV of a feeder at least cost, by the relaxed branch-flow model",
    }
    return {name: family.about for name, family in FAMILIES.items()} | cases | others


def regions_of(case: OpfCase, regions: int | Mapping[str, str] | None = None) -> RegionOpf:
    """Return the AC optimal power flow of a case in regions; see `load_problem`."""
    if isinstance(regions, Mapping):
        return RegionOpf(case, given_regions(case, regions))
    if regions is not None:
        return RegionOpf(case, partition(case, regions))
    try:
        return RegionOpf(case, areas_of(case))
    except ControllerError:
        return RegionOpf(case, partition(case, min(_REGIONS, len(case.buses.names))))


def _of_family(name: str, pattern: str, family: Family, seed: int, sizes: Sequence[int]) -> Problem:
    agents = family.agents(*sizes)
    if not (min(sizes) >= 1 and 2 <= agents <= MOST_AGENTS):
        raise ControllerError(
            f"'{name}' has {agents} agents",
            where=_WHERE,
            expected=f"{pattern} with 2 to {MOST_AGENTS} agents",
        )
    return family.build(seed, *sizes)


def _nearest(name: str) -> str | None:
    """Return the nearest name, with the sizes that were asked for."""
    near = nearest_name(name, _OTHERS) or nearest_name(_NUMBER.sub("N", name), FAMILIES)
    if near is None or _SIZE.search(near) is None:
        return near
    sizes: Iterator[str] = iter(_NUMBER.findall(name))
    return _SIZE.sub(lambda letter: next(sizes, letter.group()), near)
