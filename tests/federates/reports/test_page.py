"""Links from a run's page to the pages that show the run among others."""

from __future__ import annotations

import re
from pathlib import Path

from federates.reports.blocks import Page, PageLink, PageSection, TableBlock
from federates.reports.page import link_back, render, write_page


def links(path: Path) -> list[tuple[str, str]]:
    nav = re.search(r'<nav class="pages".*?</nav>', path.read_text(), re.DOTALL)
    assert nav
    return re.findall(r'href="([^"]*)">([^<]*)<', nav[0])


def test_a_page_leads_back_to_others_until_they_are_gone(tmp_path: Path) -> None:
    run, page = tmp_path / "a b" / "run", Page("Run", [])
    run.mkdir(parents=True)
    report = write_page(run / "report.html", page)
    assert links(report) == []
    all_runs = write_page(tmp_path / "a b" / "x&y.html", Page("All", []))
    other = write_page(tmp_path / "other.html", Page("Other", []))

    for target, name in ((all_runs, "Old"), (all_runs, "All <runs>"), (other, "Other")):
        link_back(report, target, name)
    write_page(report, page)

    expected = [("../x%26y.html", "All &lt;runs&gt;"), ("../../other.html", "Other")]
    assert links(report) == expected
    other.unlink()
    write_page(report, page)
    assert links(report) == expected[:1]


def test_a_run_without_a_page_gets_no_link(tmp_path: Path) -> None:
    link_back(tmp_path / "report.html", tmp_path / "all.html", "All")

    assert not list(tmp_path.iterdir())


def test_a_cell_may_be_a_link() -> None:
    link = PageLink("a b/report.html", "<a>")

    text = render(Page("T", [PageSection("S", [TableBlock(["Run", link], [[link, "1"]])])]))

    assert text.count('<a href="a%20b/report.html">&lt;a&gt;</a>') == 2
