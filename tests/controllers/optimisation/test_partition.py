"""Regions: given, of the case's areas, and by partition of the graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.core.errors import ControllerError
from controllers.optimisation.partition import areas_of, given_regions, partition
from grid_models.transmission.matpower import load_case
from grid_models.transmission.opf_case import OpfCase


def with_branches(ends: list[tuple[int, int]], n: int) -> OpfCase:
    """Return a case of which only names and ends of branches mean something."""
    case = load_case("case57")
    i, j = np.array(ends, np.int64).reshape(-1, 2).T
    buses = replace(case.buses, names=tuple(str(k + 1) for k in range(n)))
    return replace(case, buses=buses, branches=replace(case.branches, from_bus=i, to_bus=j))


def ties(case: OpfCase, regions: tuple[str, ...]) -> int:
    of = np.array(regions)
    return int((of[case.branches.from_bus] != of[case.branches.to_bus]).sum())


@pytest.mark.parametrize(
    # Seen; a guard against a worse partition.
    ("name", "k", "most", "fewest_ties"),
    [("case39", 3, 14, 4), ("case57", 4, 16, 13), ("case118", 4, 36, 16), ("case118", 8, 18, 34)],
)
def test_partition_of_shipped_cases_is_even_with_few_ties(
    name: str, k: int, most: int, fewest_ties: int
) -> None:
    case = load_case(name)
    regions = partition(case, k)
    sizes = np.unique(regions, return_counts=True)[1]
    assert sizes.max() <= most
    assert ties(case, regions) <= fewest_ties


@st.composite
def graphs(draw: st.DrawFn) -> tuple[OpfCase, int]:
    """Return a random connected graph, a tree with further branches, and a number of regions."""
    n = draw(st.integers(2, 25))
    tree = [(draw(st.integers(0, k - 1)), k) for k in range(1, n)]
    more = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=10))
    case = with_branches(tree + [(i, j) for i, j in more if i != j], n)
    return case, draw(st.integers(1, n))


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_regions_are_connected_none_is_empty_and_the_same_call_gives_the_same(
    example: tuple[OpfCase, int],
) -> None:
    case, k = example
    regions = partition(case, k)
    assert list(dict.fromkeys(regions)) == [str(i + 1) for i in range(k)]
    # `given_regions` refuses regions that are not connected.
    assert given_regions(case, dict(zip(case.buses.names, regions, strict=True))) == regions
    assert partition(case, k) == regions


def test_path_is_cut_into_equal_pieces() -> None:
    case = with_branches([(k, k + 1) for k in range(11)], 12)
    assert partition(case, 4) == tuple("111222333444")


def test_large_graph_takes_the_sparse_eigenvectors() -> None:
    # A ladder of 2 x 400: the best two halves are cut by two branches.
    n = 400
    rungs = [(k, n + k) for k in range(n)]
    rails = [(k + m, k + m + 1) for k in range(n - 1) for m in (0, n)]
    regions = partition(with_branches(rungs + rails, 2 * n), 2)
    assert np.unique(regions, return_counts=True)[1].tolist() == [n, n]
    assert ties(with_branches(rungs + rails, 2 * n), regions) == 2


def test_areas_of_case39_are_refused_unless_disconnected_ones_are_allowed() -> None:
    # Buses 28, 29 and 38 of area 3 hang on bus 26 of area 2.
    case = load_case("case39")
    with pytest.raises(ControllerError, match=r"region '3' is not connected.* to 28, 29, 38; exp"):
        areas_of(case)
    assert len(set(areas_of(case, allow_disconnected=True))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"8": ""}, "without a region are the buses 8; expected all buses"),
        ({"40": "a"}, "there is no bus '40'; expected a bus of the case; did you mean '4'"),
        ({"39": "lonely", "31": "lonely"}, "region 'lonely' is not connected: no branch in it"),
    ],
)
def test_given_regions_that_cannot_be_are_refused(change: dict[str, str], message: str) -> None:
    case = load_case("case39")
    with pytest.raises(ControllerError, match=message):
        given_regions(case, dict.fromkeys(case.buses.names, "a") | change)


def test_more_regions_than_buses_and_a_case_of_one_area_are_refused() -> None:
    with pytest.raises(ControllerError, match="58 regions of 57 buses; expected 1 to 57"):
        partition(load_case("case57"), 58)
    with pytest.raises(ControllerError, match="all buses are in area 1; expected several areas"):
        areas_of(load_case("case57"))
