// The read-out under the pointer: the numbers behind the curves, from the JSON beside each chart.
for (const area of document.querySelectorAll(".area")) {
  const source = area.querySelector("script");
  if (!source) continue;
  const data = JSON.parse(source.textContent);
  const cursor = document.createElement("div"), box = document.createElement("div");
  cursor.className = "cursor"; box.className = "readout";
  const number = v => v === null ? "-" : v.toFixed(data.digits);
  const leave = () => { cursor.remove(); box.remove(); };
  const move = event => {
    const frame = area.getBoundingClientRect(), n = data.t.length;
    const share = Math.min(1, Math.max(0, (event.clientX - frame.left) / frame.width));
    const at = data.x ? data.x.map(x => x / 1e4) : null;  // points that are not evenly spaced
    const i = at ? at.reduce((best, x, k) => Math.abs(x - share) < Math.abs(at[best] - share) ? k : best, 0)
      : Math.round(share * (n - 1));
    const several = data.series.length > 1;
    const lines = data.series.flatMap(s => [
      ...(several && s.low ? [`${s.name}:`] : []),
      ...(s.low
        ? [`highest ${number(s.high[i])}`, `median ${number(s.mid[i])}`, `lowest ${number(s.low[i])}`]
        : [several ? `${s.name}: ${number(s.mid[i])}` : number(s.mid[i])])]);
    box.replaceChildren(data.t[i], ...lines.flatMap(line => [document.createElement("br"), line]));
    area.append(cursor, box);
    cursor.style.left = `${100 * (at ? at[i] : i / Math.max(1, n - 1))}%`;
    const left = share * frame.width, width = box.offsetWidth;
    box.style.left = `${Math.max(0, Math.min(frame.width - width, left < frame.width / 2 ? left + 10 : left - width - 10))}px`;
  };
  area.addEventListener("pointermove", move);
  area.addEventListener("pointerdown", move);
  area.addEventListener("pointerleave", leave);
}
