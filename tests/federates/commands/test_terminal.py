"""Tables of the command line in a narrow terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from federates.commands.terminal import print_table

HEAD = ("As metered on the feeder", "Unit", "pre", "attacked", "secondary", "mitigated-clean")
ROW = (
    "Cost, coefficients as bid",
    "per h",
    "1,246.95",
    "1,190.33\n(+147.3 %)",
    "1,233.00\n(+202.8 %)",
    "1,401.56\n(+421.8 %)",
)


@pytest.mark.parametrize("width", [66, 80, 120])
def test_numbers_are_never_cropped_and_names_stay_whole_where_there_is_room(width: int) -> None:
    out = StringIO()
    print_table(Console(file=out, width=width), HEAD, [ROW], range(2, len(HEAD)))
    printed = out.getvalue()
    for cell in ROW[2:]:
        assert all(part in printed for part in cell.splitlines())
    assert (ROW[0] in printed) == (width > 66)
