from pathlib import Path

import pytest

from grid_models.base.errors import FeederError
from grid_models.catalog import load_feeder
from grid_models.feeder.ratings import SHIPPED_RATINGS, ratings_file, with_ratings


def _table(folder: Path, text: str) -> Path:
    path = folder / "ratings.csv"
    path.write_text("line,normal_a\n" + text)
    return path


def test_the_last_row_that_matches_counts_and_lines_without_one_are_named(tmp_path: Path) -> None:
    feeder = with_ratings(
        load_feeder("ieee13"), _table(tmp_path, "LINE_632_*,300\nline.line_632_645,400\n")
    )
    amps = {line.name: line.norm_amps for line in feeder.lines}
    assert amps["line_632_645"] == 400.0
    assert amps["line_632_633"] == 300.0
    assert amps["line_692_675"] is None
    assert "lines without a row in ratings.csv" in feeder.notes[-1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("line_632_999,300", "matches no line"),
        ("line_632_671,-1", "a number over 0"),
        ("line_632_671,nan", "a number over 0"),
        ("", "no row"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(FeederError, match=words):
        with_ratings(load_feeder("ieee13"), _table(tmp_path, row + "\n"))


@pytest.mark.parametrize("name", SHIPPED_RATINGS)
def test_shipped_tables_rate_every_line(name: str) -> None:
    feeder = with_ratings(load_feeder(name.partition("-")[0]), ratings_file(name))
    assert all(line.norm_amps for line in feeder.lines)
    assert {line.norm_amps for line in feeder.lines} == {530.0, 230.0, 155.0}
