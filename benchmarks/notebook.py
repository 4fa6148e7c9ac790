"""The Python block of README.md in a fresh Jupyter kernel: seconds of each cell.

    python benchmarks/notebook.py             # the block of README.md
    python benchmarks/notebook.py some.md     # the first block of another page

Needs nbclient, ipykernel and matplotlib. Run it with the Python of the installation to be tried:
the kernel is that Python's, in the present folder. A cell is a group of lines of the block. Exit
code 1: the block has more than twelve lines, a cell failed, or a cell printed something.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

MOST_LINES = 12


def cells_of(page: str) -> list[str]:
    """Return the first Python block of a page as cells, one for each group of lines."""
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    if found is None:
        sys.exit("the page has no Python block")
    return [cell.strip() for cell in found.group(1).split("\n\n") if cell.strip()]


def main() -> None:
    """Execute the cells; print what each took and showed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    readme = Path(__file__).resolve().parents[1] / "README.md"
    parser.add_argument("page", nargs="?", type=Path, default=readme)
    cells = cells_of(parser.parse_args().page.read_text(encoding="utf-8"))
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    if len(lines) > MOST_LINES:
        sys.exit(f"{len(lines)} lines; expected at most {MOST_LINES}")
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    began: list[float] = []

    def on_start(**_: Any) -> None:
        began.append(time.perf_counter())

    client = NotebookClient(book, timeout=600, kernel_name="python3", on_cell_execute=on_start)
    client.execute()
    began.append(time.perf_counter())
    for k, cell in enumerate(book.cells):
        kinds = [key for output in cell.outputs for key in output.get("data", {"text": 0})]
        first = cell.source.splitlines()[0]
        print(f"{began[k + 1] - began[k]:6.1f} s  {first[:60]:<60}  shows {', '.join(kinds)}")
        if any(output.output_type == "stream" for output in cell.outputs):
            sys.exit(f"the cell printed: {cell.outputs}")
    print(f"{len(lines)} lines in {began[-1] - began[0]:.1f} s")


if __name__ == "__main__":
    main()
