"""Rows, parameters and abbreviations, against the engine's own parser."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grid_models.base.errors import FeederError
from grid_models.opendss.engine import Engine
from grid_models.opendss.rows import abbreviations, decoded, params, read_rows

ROWS = "new load.bü_1 kw=5 ! one\r\n~ kvar=2\r\n"


@pytest.fixture(scope="module")
def engine():
    return Engine()


@settings(max_examples=300, deadline=None)
@given(st.text("ab1.=, \t\"'()[]{}!/|", max_size=24))
@example('a="b c" d=(e f) ! g')
@example("a=b//c")
@example("a==b")
@example("a,,b")
def test_parameters_are_those_of_the_engine(engine, text):
    parser = engine.dss.Parser
    parser.CmdString(text)
    found = []
    while True:
        name, value = str(parser.NextParam()), str(parser.StrValue())
        if not value:
            break
        found.append((name, value))
    ours = list(params(text))
    assert [(p.name, p.value) for p in ours] == found
    assert all(p.value in text[p.start : p.end] for p in ours)


def test_abbreviated_options_are_those_of_the_engine(engine):
    engine.command("clear")
    engine.command("new circuit.c")
    words = engine.dss.Executive
    names = [str(words.Option(i + 1)) for i in range(words.NumOptions())]
    table = abbreviations(names)
    for word in ("mode", "loadmult", "number", "stepsize", "controlmode", "demandinterval"):
        for n in range(1, len(word) + 1):
            full = table[word[:n]]
            engine.command("set mode=daily loadmult=0.3 number=7 controlmode=time stepsize=9s")
            assert engine.command(f"get {word[:n]}") == engine.command(f"get {full}"), word[:n]


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_an_abbreviation_means_the_whole_word_or_the_first_that_fits(words, data):
    word = data.draw(st.sampled_from(words))
    short = word[: data.draw(st.integers(1, len(word)))]
    first = short if short in words else next(w for w in words if w.startswith(short))
    assert abbreviations(words)[short] == first


@pytest.mark.parametrize(
    "raw",
    [
        ROWS.encode("utf-8"),
        ROWS.encode("utf-8-sig"),
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        ROWS.encode("utf-16-le"),
        ROWS.encode("utf-16-be"),
        ROWS.encode("latin-1"),
    ],
)
def test_encodings(raw):
    assert decoded(raw) == ROWS


def test_rows_end_only_where_the_engine_ends_them(tmp_path: Path):
    path = tmp_path / "a.dss"
    path.write_bytes("a\x0bb\x85c d\re\nf\r\ng".encode())
    assert read_rows(path) == ["a\x0bb\x85c d", "e", "f", "g"]


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (b"a ! x\0y\nb", ["a ! x y", "b"]),
        (b"a // \0y\nb\0\0", ["a //  y", "b"]),
        (b"a\n" + b"\0" * 600, ["a", ""]),
    ],
)
def test_nul_in_comments_and_as_padding(tmp_path: Path, raw, rows):
    path = tmp_path / "a.dss"
    path.write_bytes(raw)
    assert read_rows(path) == rows


def test_nul_in_a_command_and_xml_are_refused_with_their_place(tmp_path: Path):
    path = tmp_path / "a.dss"
    path.write_bytes(b"clear\nnew load.a kw=5\0 kvar=3\n" + b"x" * 100)
    with pytest.raises(FeederError, match=r"a\.dss, row 2, column 16: the file is not text"):
        read_rows(path)
    path.write_text('<?xml version="1.0"?>\n<rdf:RDF/>\n')
    with pytest.raises(FeederError, match=r"a\.dss: the file is XML; a CIM model is not read"):
        read_rows(path)
