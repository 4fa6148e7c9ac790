"""Write the package table of docs/architecture.md: ``python docs/generate_package_table.py``.

Each line is the docstring of a sub-package or of a module directly inside a package; a test
compares the page with `updated()`.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("grid_models", "controllers", "hil", "federates", "feederate")
_BEGIN = "<!-- packages: written by docs/generate_package_table.py -->\n"
_END = "<!-- /packages -->"


def updated(page: str) -> str:
    """Return the page with its package table made anew."""
    head, _, rest = page.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{table()}{_END}{tail}"


def table() -> str:
    """Return one line per sub-package, and per module that lies beside them."""
    lines = ["| place | what it holds |", "| --- | --- |"]
    for package in PACKAGES:
        paths = [p for p in (ROOT / package).rglob("__init__.py") if p.parent.name != package]
        paths += [p for p in (ROOT / package).glob("*.py") if p.name != "__init__.py"]
        for path in sorted(paths):
            place = path.parent if path.name == "__init__.py" else path
            lines.append(f"| `{place.relative_to(ROOT).as_posix()}` | {_summary(path)} |")
    return "\n".join(lines) + "\n"


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    return first.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
