"""YAML with places: every key's line, in block and flow style."""

from __future__ import annotations

from pathlib import Path

import pytest

from federates.errors import ScenarioError
from federates.scenario.yaml_source import YamlSource, load_yaml
from grid_models.base.yaml_lines import YamlError, dotted, parse_yaml

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
    assert source.where(("b", "c", "d")) == "--set b.c=5: d"
    assert source.where(("b",)) == "f.yaml:3: b (with --set b.c=5)"
    assert source.where(("b", "e")) == "f.yaml:3: b.e"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5E3", 5000.0), ("-.5e+2", -50.0), ("1e", "1e"), ("e5", "e5"), ("7", 7)],
)
def test_exponents_without_a_point_are_numbers(text: str, value: object) -> None:
    got = parse_yaml(text)[0]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:00", "12:00"),
        ("12:00:30", "12:00:30"),
        ("-1:30.5", "-1:30.5"),
        ("0100", "0100"),
        ("0", 0),
        ("-12", -12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0b11", 3),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1_0.5", 10.5),
        ("1.5e+3", 1500.0),
        ("1.5e3", 1500.0),
        ("00.5", 0.5),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("yes", True),
        ("~", None),
    ],
)
def test_a_number_is_what_it_looks_like(text: str, value: object) -> None:
    """YAML 1.1 reads 12:00 as 720 and 0100 as 64; nobody who writes them does."""
    got = parse_yaml(text)[0]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2024-13-45", "'2024-13-45' is not a date"),
        ("!!timestamp soon", "'soon' is not a date"),
        ("!!int foo", "'foo' is not a whole number"),
        ("!!int ''", "'' is not a whole number"),
        ("!!float foo", "'foo' is not a number"),
        ("!!bool 3", "'3' is not true or false"),
        ("0x_", "'0x_' is not a whole number"),
        pytest.param(
            "9" * 5000, r"'9{37}\.\.\.' \(5000 characters\) is not a whole number", id="huge"
        ),
        pytest.param("[" * 500, "nested too deeply|expected the node content", id="open"),
        pytest.param("[" * 500 + "]" * 500, "nested too deeply", id="deep"),
    ],
)
def test_a_value_that_its_type_does_not_allow_is_said_with_its_line(
    value: str, message: str
) -> None:
    with pytest.raises(ScenarioError, match=rf"^f\.yaml(:2)?: .*({message})"):
        load_yaml(Path("f.yaml"), f"a: 1\nb: {value}\n")
    with pytest.raises(YamlError, match=message):
        parse_yaml(value)


def _doubling(pattern: str, n: int) -> str:
    names = "abcdefghijklmnop"
    lines = [
        f"{names[i]}: &{names[i]} {pattern.replace('*', '*' + names[i - 1])}" for i in range(1, n)
    ]
    return "\n".join(["a: &a {x: 1, y: 2}", *lines])


@pytest.mark.parametrize("pattern", ["[*, *, *, *, *, *, *, *]", "{<<: [*, *, *, *, *, *, *, *]}"])
def test_a_few_lines_of_aliases_do_not_fill_the_memory(pattern: str) -> None:
    with pytest.raises(ScenarioError, match=r"f\.yaml:\d: aliases make \d+ entries of this"):
        load_yaml(Path("f.yaml"), _doubling(pattern, 9))
    assert len(load_yaml(Path("f.yaml"), _doubling(pattern, 4)).data) == 4


def test_an_alias_of_what_it_stands_in_is_refused() -> None:
    with pytest.raises(ScenarioError, match="recursive"):
        load_yaml(Path("f.yaml"), "a: &a [*a]\n")


def test_merged_keys_may_be_given_again() -> None:
    data = load_yaml(Path("f.yaml"), "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n").data
    assert data["b"] == {"p": 1, "q": 3}


def test_text_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"f\.yaml:2: .*surrogate"):
        load_yaml(Path("f.yaml"), 'a: "\\u00e9"\nb: "\\ud800"\n')


def test_code_in_yaml_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"the tag .* is not accepted"):
        load_yaml(Path("f.yaml"), "a: !!python/object/apply:os.getcwd []\n")


def test_unreadable_places(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a: 1\nb: "\\U00110000"\n', r"f\.yaml:2: '\\U00110000' is no character"),
        ('b: "\\UFFFFFFFF"\n', r"f\.yaml:1: '\\UFFFFFFFF' is no character"),
        ("a: 1\nb: \x07\n", r"f\.yaml:2: .*U\+0007$"),
        ("a: 1\n---\nb: 1\n", r"f\.yaml:2: a second document; expected one$"),
        ("a: &a\n  <<: *a\n", r"f\.yaml:1: found a recursive alias"),
        ("a: &a\n  b: &b {<<: *a}\n", r"f\.yaml:1: found a recursive alias"),
    ],
)
def test_what_yaml_does_not_allow_names_its_line(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        load_yaml(Path("f.yaml"), text)
