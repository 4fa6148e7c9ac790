"""YAML with places: every key's line, in block and flow style."""

from __future__ import annotations

from pathlib import Path

import pytest

from federates.errors import ScenarioError
from federates.yaml_source import YamlSource, dotted, load_yaml, parse_value, read_text

TEXT = """\
# a comment
a: 1
b:
  - x: 1
    y: {z: 2,
        w: 3}
  - plain
"""


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("a",), "f.yaml:2: a"),
        (("b", 0), "f.yaml:4: b[0]"),
        (("b", 0, "y", "w"), "f.yaml:6: b[0].y.w"),
        (("b", 1), "f.yaml:7: b[1]"),
        (("b", 0, "y", "missing"), "f.yaml:5: b[0].y.missing"),
        (("nowhere",), "f.yaml: nowhere"),
        ((), "f.yaml"),
    ],
)
def test_every_key_knows_its_line(path: tuple[str | int, ...], where: str) -> None:
    assert load_yaml(Path("f.yaml"), TEXT).where(path) == where


def test_dotted_path_reads_as_the_user_would_write_it() -> None:
    assert dotted(("grid", "ders", 0, "at")) == "grid.ders[0].at"


def test_overridden_key_is_placed_on_the_command_line() -> None:
    source = YamlSource("f.yaml", {}, {("a",): 2, ("b",): 3}, {("b", "c"): "b.c=5"})
    assert source.where(("b", "c", "d")) == "--set b.c=5"
    assert source.where(("b",)) == "f.yaml:3: b (with --set b.c=5)"
    assert source.where(("b", "e")) == "f.yaml:3: b.e"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5E3", 5000.0), ("-.5e+2", -50.0), ("1e", "1e"), ("e5", "e5"), ("7", 7)],
)
def test_exponents_without_a_point_are_numbers(text: str, value: object) -> None:
    got = parse_value(text)
    assert got == value
    assert type(got) is type(value)


def test_merged_keys_may_be_given_again() -> None:
    data = load_yaml(Path("f.yaml"), "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n").data
    assert data["b"] == {"p": 1, "q": 3}


def test_text_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"f\.yaml:2: .*surrogate"):
        load_yaml(Path("f.yaml"), 'a: "\\u00e9"\nb: "\\ud800"\n')


def test_code_in_yaml_is_refused() -> None:
    with pytest.raises(ScenarioError, match="could not determine a constructor"):
        load_yaml(Path("f.yaml"), "a: !!python/object/apply:os.getcwd []\n")


def test_unreadable_places(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_text(tmp_path)
