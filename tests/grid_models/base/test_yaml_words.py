"""What is not YAML is said in plain words, with its line."""

from __future__ import annotations

import re

import pytest

from grid_models.base.yaml_lines import MAX_DEPTH, YamlError, parse_yaml

# Text: line, words.
WRONG = {
    "a: [1, 2": (1, "a ']' is missing at the end"),
    "a: [1 2]\nb: {c: 1": (2, "a '}' is missing at the end"),
    "a: [1\nb: 2]\n": (2, "a ',' or ']' is missing"),
    "a: 'x": (1, "a text in quotes has no closing quote"),
    "x: 1\na: b: c": (2, "a ':' where no key can be"),
    "a: - b": (1, "a '-' where no list can begin"),
    "a: *x": (1, "the alias '*x' has no anchor '&x' before it"),
    "a: &x 1\nb: &x 2": (2, "the anchor '&x' is given twice"),
    "a: !foo 1": (1, "the tag '!foo' is not accepted"),
    "a: !!python/object:os 1": (1, "is not accepted"),
    "a:\n\t- b": (2, "a tab where a value or key begins"),
    "a: @x": (1, "a value cannot begin with '@' (put text in quotes)"),
    'a: "\\q"': (1, "\\q is no escape in double quotes"),
    'a: "\\xZZ"': (1, "an escape of too few hexadecimal digits"),
    "a: [1,,2]": (1, "a value is missing before ','"),
    "a: 'b' c": (1, "text after a value"),
    "a: 1\n---\nb: 2": (2, "a second document; expected one"),
    "%YAML 9.9\n---\na: 1": (1, "a %YAML line of another version"),
    "a: |x\n b": (1, "a wrong sign after '|' or '>'"),
    "a: & b": (1, "a name is missing after '&' or '*'"),
    "a:\n  b: 1\n c: 2": (3, "another indent than before"),
    "a: 1\nb\nc: 2": (3, "a key without ':'"),
}
RAW = re.compile(r"<[a-z ]+>|token|node|scann|pars|stream|constructor|indentation indicator")


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_said_in_plain_words(text: str) -> None:
    line, words = WRONG[text]
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert caught.value.line == line
    assert words in caught.value.what
    assert not RAW.search(caught.value.what)


@pytest.mark.parametrize("opened", ["[", "{b: "])
def test_what_is_nested_too_deeply_has_a_line(opened: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(f"x: 1\na: {opened * 50}\n {opened * 450}")
    assert caught.value.what == "lists and mappings are nested too deeply"
    assert caught.value.line == 3
    assert str(MAX_DEPTH) in caught.value.expected
