"""Hooks of the documentation site: pages and files of the repository that lie outside docs/.

README.md is the first page. A link that leads out of docs/ leads to a copy below ``repo/``, which
the site gets for each file that is linked; a link to a folder becomes plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the first page, and the files that pages link to."""
    add = {place_of(ROOT / page): ROOT / page for page in ("README.md", *_PAGES)}
    for page in [*DOCS.rglob("*.md"), *add.values()]:
        for _, target, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if path.is_file() and not path.is_relative_to(DOCS):
                add[place_of(path)] = path
    for place, path in add.items():
        text = path.read_text(encoding="utf-8")
        # A YAML or Python file without this suffix would be offered for download.
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links of a page lead to where its targets are in the site."""
    place = page.file.src_uri
    source = source_of(place)

    def moved(link: re.Match[str]) -> str:
        text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
        path = (source.parent / target).resolve()
        if re.match(r"(https?|mailto):", target) or not path.exists():
            return link.group(0)  # mkdocs says what is missing
        if path.is_dir():
            return text
        return f"[{text}]({os.path.relpath(place_of(path), Path(place).parent)}{anchor})"

    return _LINK.sub(moved, markdown)


def place_of(path: Path) -> str:
    """Return where a file of the repository is in the site."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"repo/{path.relative_to(ROOT).as_posix()}"


def source_of(place: str) -> Path:
    """Return the file of the repository that is at a place of the site."""
    if place == "index.md":
        return ROOT / "README.md"
    return ROOT / place.removeprefix("repo/") if place.startswith("repo/") else DOCS / place
