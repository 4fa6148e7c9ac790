// Tables: sorted by a click on a column's head, saved as CSV, with a cue where they are wider than the page.
const missing = v => v === null || v === undefined;

function saveCsv(title, rows) {
  const quoted = cell => (/[",\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell);
  const text = rows.map(row => row.map(cell => quoted(missing(cell) ? "" : cell)).join(",")).join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
  link.download = `${title.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const plain = cell => cell.textContent.trim().replace(/^([+-]?\d{1,3}(,\d{3})+)/, m => m.replaceAll(",", ""));

function compareCells(a, b) {  // numbers by value, before words
  const [x, y] = [parseFloat(a), parseFloat(b)];
  if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b, "en", { numeric: true });
  return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y;
}

function sortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = new Map([...body.rows].map(row => [row, plain(row.cells[column])]));
      const rows = [...text.keys()].sort((a, b) => (down ? -1 : 1) * compareCells(text.get(a), text.get(b)));
      body.append(...rows);
    });
  });
}

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table"), scroll = box.querySelector(".scroll"), cue = box.querySelector(".cue");
  if (table.tBodies[0].rows.length > 2) sortable(table);
  const tell = () => { cue.hidden = scroll.scrollLeft + scroll.clientWidth > scroll.scrollWidth - 4; };
  scroll.addEventListener("scroll", tell, { passive: true });
  new ResizeObserver(tell).observe(scroll);
  const heading = box.closest("section")?.querySelector("h2")?.textContent ?? document.title;
  box.querySelector(".csv").addEventListener("click", () =>
    saveCsv(heading, [...table.rows].map(row => [...row.cells].map(plain))));
}
