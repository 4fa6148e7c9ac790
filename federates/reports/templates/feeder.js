// The feeder's map, and its node voltages over distance. Pointing at a bus marks it in both.
const marks = [];
const markBus = (figure, bus) =>
  marks.filter(m => m.section === figure.closest("section")).forEach(m => m.mark(bus));
const specOf = figure => JSON.parse(figure.querySelector("script").textContent);

function nearest(items, distance, reach) {
  let best = null, least = reach;
  for (const item of items) {
    const d = distance(item);
    if (d < least) { best = item; least = d; }
  }
  return best;
}

function placeNames(buses, scale, namespace) {  // as many names as fit beside each other, the coloured states first
  const em = 11 / scale, taken = buses.map(b => [b.x - 0.3 * em, b.y - 0.3 * em, b.x + 0.3 * em, b.y + 0.3 * em]);
  const first = [...buses].sort((a, b) => (a.style.startsWith("ok") ? 1 : 0) - (b.style.startsWith("ok") ? 1 : 0));
  return first.flatMap(b => {
    const width = 0.6 * em * b.name.length, spots = [[0.5, -0.2], [0.5, 1], [-0.5 - width / em, -0.2], [-0.5 - width / em, 1]];
    for (const [right, down] of spots) {
      const [x, y] = [b.x + right * em, b.y + down * em], area = [x, y - 0.8 * em, x + width, y];
      if (taken.some(t => t[0] < area[2] && t[2] > area[0] && t[1] < area[3] && t[3] > area[1])) continue;
      taken.push(area);
      const text = document.createElementNS(namespace, "text");
      Object.entries({ x, y, "font-size": em }).forEach(([k, v]) => text.setAttribute(k, v));
      text.textContent = b.name;
      return [text];
    }
    return [];
  });
}

function drawMap(figure) {
  const { buses, wires, size, title } = specOf(figure), svg = figure.querySelector("svg");
  const at = new Map(buses.map(bus => [bus.name, bus])), drawn = buses.filter(bus => bus.style);
  const paths = new Map();  // of each class of wires
  for (const [a, b, style = ""] of wires)
    paths.set(style, `${paths.get(style) ?? ""}M${buses[a].x} ${buses[a].y}L${buses[b].x} ${buses[b].y}`);
  const lines = [...paths].map(([style, path]) => `<path class="wire${style && ` rated ${style}`}" d="${path}"/>`);
  const circles = drawn.map(b => `<circle class="bus ${b.style}${b.ders ? " der" : ""}" cx="${b.x}" cy="${b.y}"/>`);
  const source = buses.filter(b => b.source).map(b => `<rect class="source" x="${b.x - 11}" y="${b.y - 11}" width="22" height="22"/>`);
  svg.setAttribute("viewBox", `-25 -25 ${size[0] + 50} ${size[1] + 50}`);
  svg.innerHTML = `${lines.join("")}${circles.join("")}${source.join("")}<g class="bus-names"></g><circle class="marked" visibility="hidden"/>`;
  const marked = svg.querySelector(".marked"), names = svg.querySelector(".bus-names"), readout = figure.querySelector(".readout");
  const scale = () => svg.getScreenCTM().a;
  const fit = () => svg.style.setProperty("--r", `${(drawn.length < 300 ? 4.5 : 2.2) / scale()}px`);
  new ResizeObserver(fit).observe(svg);
  const mark = name => {
    const bus = at.get(name);
    marked.setAttribute("visibility", bus ? "visible" : "hidden");
    readout.textContent = bus ? `bus ${bus.name}: ${bus.text || "no voltage recorded"}` : "";
    if (bus) { marked.setAttribute("cx", bus.x); marked.setAttribute("cy", bus.y); }
  };
  marks.push({ section: figure.closest("section"), mark });
  const point = event => {
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const bus = nearest(drawn, b => Math.hypot(b.x - p.x, b.y - p.y), 30 / scale())?.name;
    markBus(figure, bus);
    return bus;
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("click", event => {
    const bus = point(event), plant = figure.closest("section").querySelector("h2").textContent.split(":")[0];
    if (bus) document.dispatchEvent(new CustomEvent("bus", { detail: { bus, plant } }));
  });
  figure.querySelector(".names").addEventListener("click", ({ currentTarget }) => {
    const on = currentTarget.getAttribute("aria-pressed") !== "true";
    currentTarget.setAttribute("aria-pressed", on);
    figure.classList.toggle("whole-row", on);
    names.replaceChildren(...(on ? placeNames(drawn, scale(), svg.namespaceURI) : []));
  });
  svg.addEventListener("pointerleave", () => markBus(figure, null));
  figure.querySelector(".csv").addEventListener("click", () =>
    saveCsv(title, [["bus", "x", "y", "state"], ...drawn.map(b => [b.name, b.x, b.y, b.text])]));
}

function drawProfile(figure) {
  const { nodes, phases, limits, title, x_title, x_unit } = specOf(figure), box = figure.querySelector(".plot");
  const shown = phases.map(() => true), readout = figure.querySelector(".readout");
  const colour = phase => css(phases[phase].style);
  let marked = null, plot = null;
  const place = (u, n) => [u.valToPos(n.x, "x", true), u.valToPos(n.v_pu, "y", true)];
  const lines = u => {
    const c = u.ctx;
    c.save();
    c.beginPath(); c.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); c.clip();
    c.lineWidth = devicePixelRatio; c.globalAlpha = 0.55;
    for (const node of nodes) {
      if (node.parent === null || !shown[node.phase]) continue;
      c.strokeStyle = colour(node.phase);
      c.beginPath(); c.moveTo(...place(u, nodes[node.parent])); c.lineTo(...place(u, node)); c.stroke();
    }
    c.globalAlpha = 1; c.lineWidth = 2 * devicePixelRatio; c.strokeStyle = css("ink");
    for (const node of nodes.filter(n => n.bus === marked && shown[n.phase])) {
      c.beginPath(); c.arc(...place(u, node), 6 * devicePixelRatio, 0, 7); c.stroke();
    }
    c.restore();
  };
  const point = u => {
    const { left, top } = u.cursor, gap = n => Math.hypot(u.valToPos(n.x, "x") - left, u.valToPos(n.v_pu, "y") - top);
    markBus(figure, left < 0 ? null : nearest(nodes.filter(n => shown[n.phase]), gap, 30)?.bus);
  };
  const range = (u, low, high) => {
    const ends = [low, high, ...limits.map(l => l.value)].filter(v => v !== null), air = 0.06 * (Math.max(...ends) - Math.min(...ends));
    return [Math.min(...ends) - air, Math.max(...ends) + air];
  };
  const series = phases.map((phase, k) => ({
    stroke: () => colour(k), paths: () => null, points: { show: true, size: 5, space: 0, fill: () => colour(k) },
  }));
  const columns = phases.map((_, k) => nodes.map(n => (n.phase === k ? n.v_pu : null)));
  plot = new uPlot({
    ...sizeOf(box), legend: { show: false }, padding: [10, 14, 0, 0],
    scales: { x: { time: false, range: (u, low, high) => [low, high > low ? high : low + 1] }, y: { range } },
    axes: [axis({ space: 50, size: 30 }), valueAxis], series: [{}, ...series], cursor: { y: false, points: { show: false } },
    hooks: { drawAxes: [u => { drawLimits(u, limits); lines(u); }], setCursor: [point] },
  }, [nodes.map(n => n.x), ...columns], box);
  followSize(plot, box);
  marks.push({ section: figure.closest("section"), mark: bus => {
    if (bus === marked) return;
    marked = bus;
    const found = nodes.filter(n => n.bus === bus);
    const words = found.map(n => `${phases[n.phase].name} ${n.v_pu.toFixed(4)}`).join(", ");
    readout.textContent = found.length ? `bus ${bus}, ${+found[0].x.toFixed(2)} ${x_unit}: ${words} pu` : "";
    plot.redraw(false);
  } });
  for (const button of figure.querySelectorAll("[data-band]")) {
    const k = +button.dataset.band;
    button.addEventListener("click", () => {
      shown[k] = !shown[k];
      button.setAttribute("aria-pressed", shown[k]);
      plot.setSeries(k + 1, { show: shown[k] });
    });
  }
  figure.querySelector(".csv").addEventListener("click", () => saveCsv(title, [["bus", "phase", x_title, "voltage, pu"],
    ...nodes.filter(n => shown[n.phase]).map(n => [n.bus, phases[n.phase].name, n.x, n.v_pu])]));
}

document.querySelectorAll(".feeder-map").forEach(drawMap);
document.querySelectorAll(".voltage-profile").forEach(drawProfile);
