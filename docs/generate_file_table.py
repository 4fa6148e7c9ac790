"""Write the file table of docs/architecture.md: ``python docs/generate_file_table.py``.

Each line is the first sentence of a module's docstring; a test compares the page with `updated()`.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("grid_models", "controllers", "hil", "federates")
_BEGIN = "<!-- files: written by docs/generate_file_table.py -->\n"
_END = "<!-- /files -->"


def updated(page: str) -> str:
    """Return the page with its file table made anew."""
    head, _, rest = page.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{table()}{_END}{tail}"


def table() -> str:
    """Return one Markdown table per package."""
    lines = []
    for package in PACKAGES:
        files = [p for p in sorted((ROOT / package).rglob("*.py")) if p.name != "__init__.py"]
        if files:
            lines += [f"\n### `{package}/`\n", "| file | |", "| --- | --- |"]
        for path in files:
            name = path.relative_to(ROOT / package).as_posix()
            lines.append(f"| `{name}` | {_summary(path)} |")
    return "\n".join(lines) + "\n\n"


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    return first.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
