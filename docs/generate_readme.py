"""Put what the demo prints into README.md: ``python docs/generate_readme.py`` (runs the demo).

With the folder of a finished demo the README is only compared with it, but for wall-clock figures;
``.ci/run`` does so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federates.commands.demo import NAMES, DemoRun, plain_words
from federates.reports.format import metric_number
from federates.runs.data import RunData

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "README.md"
_COLUMNS = {
    "v_max_pu": "highest voltage, pu",
    "v_min_pu": "lowest, pu",
    "out_of_band_node_hours": "out of band, node-hours",
    "losses_kwh": "losses, kWh",
    "abs_q_kvarh": "sum of abs q, kvarh",
}


ATTACK = ("voltvar-ieee123", "link-jamming")
_ATTACK_ROWS = {
    "v_max_pu": ("highest voltage", "pu"),
    "v_min_pu": ("lowest voltage", "pu"),
    "out_of_band_node_hours": ("out of the band", "node-hours"),
    "losses_kwh": ("losses", "kWh"),
    "recovery_s": ("time to recover after the attack", "s"),
}


@dataclass(frozen=True)
class Demo:
    """What one execution of the demo left."""

    summaries: Mapping[str, Mapping[str, Any]]
    words: list[str]

    def table(self) -> list[list[str]]:
        """Return one row per run: label, metrics, steps per second, seconds."""
        return [
            [
                label,
                *(metric_number(key, self.summaries[name]["metrics"][key]) for key in _COLUMNS),
                f"{self.summaries[name]['steps_per_s']:,.0f}",
                f"{self.summaries[name]['wall_s']:.1f}",
            ]
            for name, label in NAMES.items()
        ]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        head = ["IEEE 123, one day", *_COLUMNS.values(), "steps/s", "seconds"]
        rule = ["---", *["---:"] * (len(head) - 1)]
        return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *self.table()])


def command_line(folder: Path, *words: str) -> Any:
    """Run a command as a user does, its runs into `folder`; return its JSON."""
    entry = "from federates.cli import main; main()"
    command = [sys.executable, "-P", "-c", entry, *words, "--json", "--out", str(folder)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=folder.parent, timeout=600
    )
    return json.loads(done.stdout)


def attack_table(folder: Path) -> str:
    """Run the README's attack and return its table in Markdown."""
    data = command_line(folder, "attack", "run", *ATTACK, "--placement", "single")
    rows = [
        [
            f"{words}, {unit}",
            *(metric_number(key, data[state].get(key)) for state in data["states"]),
        ]
        for key, (words, unit) in _ATTACK_ROWS.items()
    ]
    head = ["IEEE 123, one day", *data["states"]]
    rule = ["---", *["---:"] * len(data["states"])]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def run_demo(folder: Path) -> Demo:
    """Run the demo as a user does."""
    command_line(folder, "demo")
    return read_demo(folder)


def read_demo(folder: Path) -> Demo:
    """Return what a finished demo left in its folder."""
    summaries = {
        name: json.loads((folder / name / "summary.json").read_text("utf-8")) for name in NAMES
    }
    runs = [DemoRun(NAMES[n], RunData(folder / n), summaries[n]) for n in NAMES]
    return Demo(summaries, plain_words(runs))


def section(page: str, name: str) -> str:
    """Return what stands between ``<!-- name -->`` and its end."""
    kind = name.partition(":")[0]
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /{kind} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no section '{name}'")
    return found.group(1)


def with_section(page: str, name: str, text: str) -> str:
    """Return the page with one section replaced."""
    begin = f"<!-- {name} -->\n"
    return page.replace(begin + section(page, name), begin + text, 1)


def scenario_block(name: str) -> str:
    """Return a shipped scenario as a code block."""
    text = (ROOT / "co-sim-configs" / f"{name}.yaml").read_text(encoding="utf-8")
    return f"```yaml\n{text.rstrip()}\n```\n"


def without_timing(table: str) -> list[list[str]]:
    """Return a demo table without its last two columns, which depend on the machine."""
    return [line.strip("|").split("|")[:-2] for line in table.splitlines()]


def main(demo_folder: str | None = None) -> None:
    """Rewrite the README's measured sections; with the folder of a finished demo only check them.

    The check ends with a message where a section is out of date.
    """
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        demo = read_demo(Path(demo_folder)) if demo_folder else run_demo(Path(folder) / "demo")
        attack = attack_table(Path(folder) / "attack")
    new = {
        "attack-table": attack,
        "demo-words": "".join(f"- {line}\n" for line in demo.words),
        "scenario: voltvar-ieee123": scenario_block("voltvar-ieee123"),
    }
    if demo_folder is None:
        for name, text in ({"demo-table": demo.markdown()} | new).items():
            page = with_section(page, name, text)
        PAGE.write_text(page, encoding="utf-8")
        return
    old = [name for name, text in new.items() if section(page, name) != text]
    if without_timing(section(page, "demo-table")) != without_timing(demo.markdown()):
        old.append("demo-table")
    if old:
        sys.exit(f"README.md: {', '.join(old)} out of date: python docs/generate_readme.py")


if __name__ == "__main__":
    main(*sys.argv[1:2])
