from __future__ import annotations

import cProfile
from dataclasses import replace

import numpy as np
import pytest

from grid_models.base.errors import TopologyError
from grid_models.catalog import load_feeder
from grid_models.feeder.model import Bus, Feeder, Line, Load, Source, Switch
from grid_models.feeder.topology import areas, radial_tree


def line(a: str, b: str, *, closed: bool = True) -> Line:
    z = np.eye(3) * (0.1 + 0.2j)
    return Line(f"{a}-{b}", a, b, (1, 2, 3), z, np.zeros((3, 3)), 100.0, closed=closed)


def feeder(*lines: Line, loads: tuple[str, ...] = (), switches: tuple[Switch, ...] = ()) -> Feeder:
    names = dict.fromkeys(
        ["s", *(x for e in (*lines, *switches) for x in (e.from_bus, e.to_bus)), *loads]
    )
    return Feeder(
        "toy",
        Source("s", 4.16),
        {n: Bus(n, (1, 2, 3), 2.4) for n in names},
        lines=lines,
        switches=switches,
        loads=tuple(Load(f"load_{n}", n, (1,), "wye", "PQ", 1.0, 0.5, 2.4) for n in loads),
    )


def test_tree_is_ordered_from_the_source() -> None:
    # Drawn against the flow on purpose: direction of an element must not matter.
    tree = radial_tree(feeder(line("c", "b"), line("b", "s"), line("d", "b")))
    assert tree.buses[:2] == ("s", "b")
    assert set(tree.buses[2:]) == {"c", "d"}
    assert tree.parent.tolist() == [-1, 0, 1, 1]
    assert tree.depth.tolist() == [0, 1, 2, 2]
    assert tree.length_ft.tolist() == [0.0, 100.0, 200.0, 200.0]
    assert tree.parent.tolist() == [-1, 0, 1, 1]
    assert [e.name for e in tree.edges[tree.position("c")]] == ["c-b"]


def test_loop_is_named_by_its_elements_only() -> None:
    meshed = feeder(
        line("s", "a"), line("a", "b"), line("b", "c"), line("c", "a"), line("c", "tail")
    )
    with pytest.raises(TopologyError) as caught:
        radial_tree(meshed)
    text = str(caught.value)
    for name in ("a-b", "b-c", "c-a"):
        assert name in text
    assert "s-a" not in text
    assert "c-tail" not in text


def test_open_element_opens_the_loop() -> None:
    tree = radial_tree(
        feeder(line("s", "a"), line("a", "b"), line("b", "c"), line("c", "a", closed=False))
    )
    assert tree.buses == ("s", "a", "b", "c")
    assert tree.parent.tolist() == [-1, 0, 1, 2]


def test_island_with_a_load_is_named() -> None:
    with pytest.raises(TopologyError, match=r"load_y.*x-y.*cut off from the source 's'"):
        radial_tree(feeder(line("s", "a"), line("x", "y"), loads=("a", "y")))


def test_dead_stub_behind_an_open_switch_is_left_out() -> None:
    stub = Switch("sw9", "a", "stub", (1, 2, 3), closed=False)
    tree = radial_tree(feeder(line("s", "a"), switches=(stub,)))
    assert tree.unserved == ("stub",)
    with pytest.raises(TopologyError, match=r"'stub' is not served"):
        tree.position("stub")


def test_unknown_bus_names_the_nearest() -> None:
    with pytest.raises(TopologyError, match="did you mean 'tail'"):
        radial_tree(feeder(line("s", "tail"))).position("tial")
    broken = feeder(line("s", "tail"))
    with pytest.raises(TopologyError, match="unknown bus 'ghost'"):
        radial_tree(replace(broken, lines=(line("s", "tail"), line("tail", "ghost"))))


@pytest.mark.parametrize("k", [1, 2, 4, 10])
def test_areas_are_connected_and_of_similar_size(k: int) -> None:
    shipped = load_feeder("ieee123")
    tree = radial_tree(shipped)
    area = areas(shipped, k)
    assert set(area.values()) == set(range(k))
    assert area[shipped.source.bus] == 0
    # Connected: besides its head, each bus of an area has its parent in the same area.
    heads = [
        b
        for i, b in enumerate(tree.buses)
        if i == 0 or area[tree.buses[int(tree.parent[i])]] != area[b]
    ]
    assert sorted(area[b] for b in heads) == list(range(k))
    sizes = np.bincount(list(area.values()))
    assert sizes.max() <= 2.5 * len(tree.buses) / k
    assert areas(shipped, k) == area


def test_areas_out_of_range() -> None:
    with pytest.raises(TopologyError, match="cannot cut into 4 areas"):
        areas(feeder(line("s", "a"), line("a", "b")), 4)


def test_the_work_grows_with_the_number_of_buses_not_with_its_square() -> None:
    def calls(n: int) -> int:
        """Count the calls that a binary tree of n + 1 buses costs: no clock, no machine."""
        lines = [line(f"{(i - 1) // 2}" if i > 1 else "s", f"{i}") for i in range(1, n)]
        big = feeder(line("s", "0"), *lines)
        profile = cProfile.Profile()
        tree = profile.runcall(radial_tree, big)
        assert len(tree.buses) == n + 1
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(4_000) < 5 * calls(1_000)
