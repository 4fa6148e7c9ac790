"""The scripts of pages in a real browser: tables, bus names, single elements, downloads."""

from __future__ import annotations

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from federates.core.signals import read_signal
from federates.reports.compare import write_comparison
from federates.reports.run import write_report
from federates.runs.data import RunData
from federates.runs.runner import run
from federates.scenario.schema import load_scenario

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# What every script below can use; what is saved is kept as text instead of being downloaded.
TOOLS = """
const errors = [], saved = [];
const $ = q => document.querySelector(q), all = q => [...document.querySelectorAll(q)];
addEventListener("error", e => errors.push(e.message));
addEventListener("unhandledrejection", e => errors.push(String(e.reason)));
URL.createObjectURL = blob => { saved.push(blob); return "#"; };
const cells = line => [...line.matchAll(/"([^"]*)"|([^,]+)/g)].map(m => m[1] ?? m[2]);
const rows = () => saved.at(-1).text().then(text => text.trim().split("\\n").map(cells));
const pause = () => new Promise(done => setTimeout(done, 300));
const column = (table, i) => [...table.tBodies[0].rows].map(row => row.cells[i].textContent);
"""


def browse(page: Path, script: str, folder: Path, width: int = 1280) -> Any:
    """Return what a script gives that runs in a page of this width once it is drawn."""
    driven = page.with_name(f"driven-{page.name}")
    ask = f"async () => {{ await pause(); {script} }}"
    say = 'const out = $("body").appendChild(document.createElement("pre")); out.id = "answer";'
    text = page.read_text().replace("<head>", f"<head><script>{TOOLS}</script>", 1)
    text += f"""<script type="module">
      let value;
      try {{ value = await ({ask})(); }} catch (e) {{ errors.push(String(e)); }}
      {say}
      out.textContent = JSON.stringify({{ value, errors }});
    </script>"""
    driven.write_text(text)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000")
    size = f"--window-size={width},1000"
    command = [str(CHROMIUM), *flags, size, f"--user-data-dir={folder}", "--dump-dom"]
    done = subprocess.run(
        [*command, driven.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    driven.unlink()
    answer = done.stdout.rpartition('<pre id="answer">')[2].partition("</pre>")[0]
    found = json.loads(unescape(answer))
    assert found["errors"] == []
    return found["value"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("browser") / "run"
    return run(load_scenario("voltvar-ieee13"), out=out, steps=20, placement="single").folder


@pytest.fixture(scope="module")
def compared(folder: Path) -> Path:
    """Seven runs whose losses are neither in order nor of one length as text."""
    runs = []
    for i, losses in enumerate((9.0, 1234.5, 70.0, -3.0, 800.0, 0.5, 10.0)):
        copy = folder.with_name(f"r{i}")
        shutil.copytree(folder, copy)
        summary = json.loads((copy / "summary.json").read_text())
        summary["metrics"]["losses_kwh"] = losses if i != 5 else None
        (copy / "summary.json").write_text(json.dumps(summary))
        runs.append(RunData(copy))
    return write_comparison(runs, folder.with_name("all.html"))


def test_a_table_is_sorted_by_its_numbers_and_saved_as_it_is_shown(
    compared: Path, tmp_path: Path
) -> None:
    found = browse(
        compared,
        """
        const table = $(".runs table"), heads = [...table.tHead.rows[0].cells];
        const i = heads.findIndex(h => h.textContent === "Losses, kWh");
        heads[i].querySelector("button").click();
        const up = column(table, i);
        heads[i].querySelector("button").click();
        const down = column(table, i), sort = heads[i].getAttribute("aria-sort");
        $(".runs .csv").click();
        return { up, down, sort, csv: await rows(), i, links: all(".runs td a").length };
        """,
        tmp_path,
    )

    assert found["up"] == ["-3.0", "9.0", "10.0", "70.0", "800.0", "1,234.5", "-"]
    assert found["down"] == found["up"][::-1]
    assert found["sort"] == "descending"
    assert found["links"] == 7
    assert found["csv"][0][0] == "Run"
    numbers = [row[found["i"]] for row in found["csv"][1:]]
    assert numbers == ["-", "1234.5", "800.0", "70.0", "10.0", "9.0", "-3.0"]


def test_a_narrow_page_does_not_scroll_but_its_tables_do_and_say_so(
    compared: Path, tmp_path: Path
) -> None:
    found = browse(
        compared,
        """
        const frame = document.body.style;
        frame.width = "390px";
        await pause();
        const box = $(".runs .scroll"), cue = $(".runs .cue"), before = cue.hidden;
        box.scrollLeft = box.scrollWidth;
        box.dispatchEvent(new Event("scroll"));  // no frame is drawn here, which would send it
        await pause();
        const boxes = all("section > div").map(d => d.getBoundingClientRect().right);
        const wide = box.scrollWidth > box.clientWidth, right = Math.max(...boxes);
        return { before, after: cue.hidden, wide, right };
        """,
        tmp_path,
        width=500,
    )

    assert found["wide"]
    assert [found["before"], found["after"]] == [False, True]
    assert found["right"] <= 500


def test_names_of_buses_are_shown_on_demand(folder: Path, tmp_path: Path) -> None:
    found = browse(
        write_report(folder),
        """
        const names = () => all(".feeder-map .bus-names text").map(t => t.textContent);
        const before = names();
        $(".names").click();
        const on = names();
        $(".names").click();
        return { before, on, off: names(), drawn: all(".feeder-map .bus").length };
        """,
        tmp_path,
    )

    assert found["before"] == found["off"] == []
    assert {"671", "650"} <= set(found["on"])
    assert len(set(found["on"])) == len(found["on"]) <= found["drawn"]


def test_single_elements_are_drawn_by_name_and_by_a_click_in_the_map(
    folder: Path, tmp_path: Path
) -> None:
    found = browse(
        write_report(folder),
        """
        const figure = $(".element-traces"), input = $(".choose input");
        const shown = () => all(".element-traces .legend button").map(b => b.textContent);
        const add = text => { input.value = text; input.dispatchEvent(new Event("change")); };
        const first = shown();
        while (shown().length) $(".element-traces .legend button").click();
        add("671.2");
        figure.querySelector(".csv").click();
        const csv = await rows();
        add("999");
        const wrong = input.validationMessage;
        add("671");
        const all671 = shown();
        const bus = $(".feeder-map .bus"), { x, y, width } = bus.getBoundingClientRect();
        const at = { clientX: x + width / 2, clientY: y + width / 2, bubbles: true };
        bus.dispatchEvent(new MouseEvent("click", at));
        return { first, csv, wrong, all671, clicked: shown().length };
        """,
        tmp_path,
    )

    _, labels, v_pu = read_signal(folder / "signals", "feeder.v_pu")
    extremes = (v_pu.max(axis=0).argmax(), v_pu.min(axis=0).argmin())
    assert found["first"] == [labels[k] for k in extremes]
    assert found["csv"][0][2] == "671.2, pu"
    values = [float(row[2]) for row in found["csv"][1:]]
    assert values == pytest.approx(v_pu[:, labels.index("671.2")], abs=1e-3)
    assert "no element '999'" in found["wrong"]
    assert found["all671"] == ["671.2", "671.1", "671.3"]
    assert found["clicked"] > 3
