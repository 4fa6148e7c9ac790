// The live page: asks the server for the state of the run, about once a second, and draws it.
// One request at a time: a slow page asks less often, and nothing waits for it.
const el = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MAX_CHARTS = 4;

function make(tag, attributes = {}, ...children) {  // texts are never read as HTML
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
  node.append(...children.map(child => (missing(child) ? "" : child)));
  return node;
}
function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
const seconds = s => (missing(s) ? "-" : s < 1 ? `${(1000 * s).toFixed(0)} ms` : s < 120 ? `${s.toFixed(1)} s` : `${(s / 60).toFixed(1)} min`);
const count = n => (missing(n) ? "-" : n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : number(n, n < 20 && n % 1 ? 1 : 0));
const ofDay = s => (missing(s) ? "-" : clock(s + run.start_s));

let run = null, state = null, key = location.hash.slice(1) || null;

// -- the map ----------------------------------------------------------------------------------

const LEVELS = {  // class of the style sheet, from which value, words of the legend
  v_pu: ([low, high]) => [
    ["hi2", high + 0.02, `above ${(high + 0.02).toFixed(2)} pu`], ["hi1", high, `above ${high.toFixed(2)}`],
    ["ok-hi", high - 0.01, "within 0.01 of the upper end"], ["ok", low + 0.01, "in band"],
    ["ok-lo", low, "within 0.01 of the lower end"], ["lo1", low - 0.02, `below ${low.toFixed(2)}`],
    ["lo2", -Infinity, `below ${(low - 0.02).toFixed(2)} pu`],
  ],
  loading_pct: () => [["hi2", 100, "above 100 %"], ["hi1", 80, "80 to 100 %"], ["ok-hi", 50, "50 to 80 %"], ["ok", -Infinity, "up to 50 %"]],
};
const map = { plant: null, grid: null, buses: new Map(), wires: [] };

async function loadGrid(plant) {
  const grid = await (await fetch(`grid?plant=${encodeURIComponent(plant)}`)).json();
  if (!grid || grid.buses.length < 2) return;
  map.plant = plant; map.grid = grid; map.buses = new Map(); map.wires = [];
  const svg = el("map"), xs = grid.buses.map(b => b[1]), ys = grid.buses.map(b => b[2]);
  const left = Math.min(...xs), bottom = Math.min(...ys);
  const size = [Math.max(...xs) - left, Math.max(...ys) - bottom], scale = 1000 / (Math.max(...size) || 1);
  svg.setAttribute("viewBox", `-25 -25 ${size[0] * scale + 50} ${size[1] * scale + 50}`);
  svg.replaceChildren();
  const at = new Map(grid.buses.map(([name, x, y]) => [name, [(x - left) * scale, (bottom + size[1] - y) * scale]]));
  for (const [from, to, element, closed] of grid.branches) {
    if (!at.has(from) || !at.has(to)) continue;
    const wire = shape("path", { d: `M${at.get(from)}L${at.get(to)}`, class: "wire" });
    map.wires.push({ element, wire, base: closed ? "wire" : "wire open" });
    svg.append(wire);
  }
  const ders = new Set(grid.ders);
  for (const [name, [x, y]] of at) {
    const circle = shape("circle", { cx: x, cy: y, class: "bus none" });
    circle.addEventListener("pointerenter", () => tellBus(name));
    circle.addEventListener("click", () => { tellBus(name); chartBus(name); });
    map.buses.set(name, { circle, base: ders.has(name) ? "bus der" : "bus", text: "" });
    svg.append(circle);
  }
  const fit = () => svg.getScreenCTM() && svg.style.setProperty("--r", `${(at.size < 300 ? 4.5 : 2.2) / svg.getScreenCTM().a}px`);
  fit();
  new ResizeObserver(fit).observe(svg);
}

function tellBus(name) {
  map.told = name;
  el("map-readout").textContent = `bus ${name}: ${map.buses.get(name)?.text || "no voltage recorded"} (click: chart)`;
}

function drawMap() {
  const port = el("colour").value, plant = el("plant").value, found = state.map[port];
  const signal = `${plant}.${port}`, levels = LEVELS[port](run.band), counts = new Map();
  const style = value => { const c = levels.find(l => value > l[1] || l[1] === -Infinity)[0]; counts.set(c, (counts.get(c) ?? 0) + 1); return c; };
  const what = port === "v_pu" ? "Voltages" : "Loadings";
  el("map-title").textContent = found ? `${what} at ${ofDay(found.time_s)}` : what;
  const lacking = found ? "" : run.recorded.includes(signal) ? `waiting for the first values of ${signal}` :
    `${signal} is not recorded, so it cannot be shown. To record it: --set 'record.ports=["*", "${signal}"]'`;
  const worst = new Map(), words = new Map(), loading = new Map();
  if (port === "v_pu") for (const [label, v] of Object.entries(found?.values ?? {})) {
    const [bus, phase] = [label.slice(0, label.lastIndexOf(".")), label.slice(label.lastIndexOf(".") + 1)];
    words.set(bus, [...(words.get(bus) ?? []), `${{ 1: "A", 2: "B", 3: "C" }[phase] ?? phase} ${missing(v) ? "no voltage" : v.toFixed(4)}`]);
    if (missing(v)) continue;
    const excess = u => Math.max(u - run.band[1], run.band[0] - u);
    if (!worst.has(bus) || excess(v) > excess(worst.get(bus))) worst.set(bus, v);
  }
  else for (const [element, p] of Object.entries(found?.values ?? {})) if (!missing(p)) loading.set(element, p);
  for (const [name, bus] of map.buses) {
    bus.text = words.has(name) ? `${words.get(name).join(", ")} pu` : "";
    bus.circle.setAttribute("class", port === "v_pu" ? `${bus.base} ${worst.has(name) ? style(worst.get(name)) : "none"}` : "bus plain");
  }
  for (const { element, wire, base } of map.wires)
    wire.setAttribute("class", loading.has(element) ? `${base} rated ${style(loading.get(element))}` : base);
  const kind = port === "v_pu" ? "bus-key" : "wire-key";
  el("map-legend").replaceChildren(...levels.filter(l => counts.has(l[0])).map(([c, , text]) =>
    make("li", {}, make("span", { class: `key ${kind} ${c}` }), `${text}: ${counts.get(c)}`)));
  if (lacking) el("map-readout").textContent = lacking;
  else if (map.told) tellBus(map.told);
  else el("map-readout").textContent = "Point at a bus for its voltages; click it for a chart.";
}

// -- the charts -------------------------------------------------------------------------------

const charts = [];  // {signal, label, figure, plot}

function windows() {
  return state.windows.map(([, begin, end]) => [begin + run.start_s, end === null ? null : end + run.start_s]);
}

function addChart(signal, label = "") {
  const chart = { signal, label, plot: null };
  chart.signals = make("select", { "aria-label": "Signal" }, ...Object.keys(run.signals).map(name => {
    const lacks = !run.recorded.includes(name);
    const option = make("option", { value: name, disabled: lacks ? "" : null }, lacks ? `${name} (not recorded)` : name);
    option.selected = name === signal;
    return option;
  }));
  chart.labels = make("select", { "aria-label": "Element" });
  chart.box = make("div", { class: "plot" });
  chart.readout = make("output", { class: "readout" });
  chart.title = make("span", { class: "axis-title" });
  chart.figure = make("figure", { class: "chart time" },
    make("span", { class: "chooser" }, chart.signals, chart.labels), chart.title, chart.box, chart.readout);
  chart.signals.addEventListener("change", () => { chart.signal = chart.signals.value; chart.label = ""; chart.known = null; });
  chart.labels.addEventListener("change", () => { chart.label = chart.labels.value; });
  el("charts").append(chart.figure);
  charts.push(chart);
  return chart;
}

function chartBus(name) {  // show a bus's nodes in the charts that show voltages
  const signal = `${el("plant").value}.v_pu`;
  const node = Object.keys(state.map.v_pu?.values ?? {}).find(label => label.startsWith(`${name}.`));
  if (!node) return;
  const chart = charts.find(c => c.signal === signal && c.label) ?? charts.find(c => c.signal === signal && c !== charts[0]) ??
    (charts.length < MAX_CHARTS ? addChart(signal) : charts[1]);
  chart.signal = chart.signals.value = signal;
  chart.label = node; chart.known = null;
}

const keyOf = chart => (chart.label ? `${chart.signal} ${chart.label}` : chart.signal);

function plotOf(chart) {
  const limits = () => (chart.signal.endsWith(".v_pu") ? run.band.map((value, i) => ({ value, name: ["lower limit", "upper limit"][i] })) : []);
  const colour = () => css("s1");
  const line = width => ({ stroke: colour, width, points: { show: false } });
  chart.plot = new uPlot({
    ...sizeOf(chart.box), legend: { show: false }, padding: [10, 14, 0, 0], scales: { x: { time: false } },
    axes: [axis({ incrs: TIME_STEPS_S, space: 62, size: 30, values: (u, ticks) => ticks.map(clock) }), valueAxis],
    series: [{}, line(0.6), line(1.8), line(0.6)],
    bands: [{ series: [3, 1], fill: () => `${css("s1")}3d` }], cursor: { y: false, drag: { x: false, y: false } },
    hooks: {
      drawAxes: [u => { drawLimits(u, limits().filter(l => l.value >= u.scales.y.min && l.value <= u.scales.y.max)); drawShade(u, windows()); }],
      setCursor: [u => {
        const i = u.cursor.idx, at = k => number(u.data[k][i], 4);
        chart.readout.textContent = missing(i) || u.cursor.left < 0 ? "" :
          `${clock(u.data[0][i])}  ${chart.label ? at(2) : `lowest ${at(1)}, middle ${at(2)}, highest ${at(3)}`}`;
      }],
    },
  }, [[], [], [], []], chart.box);
  followSize(chart.plot, chart.box);
}

function drawCharts() {
  for (const chart of charts) {
    const found = state.curves[keyOf(chart)], unit = run.signals[chart.signal];
    chart.title.textContent = [unit, chart.label ? "" : "lowest, middle and highest element"].filter(Boolean).join("; ");
    if (!found) continue;
    if (found.labels.length && chart.known !== keyOf(chart)) {
      chart.known = keyOf(chart);
      chart.labels.replaceChildren(make("option", { value: "" }, `all ${found.labels.length}`), ...found.labels.map(l => make("option", { value: l }, l)));
      chart.labels.value = chart.label;
    }
    if (!chart.plot) plotOf(chart);
    chart.plot.setData([found.t.map(t => t + run.start_s), found.low, found.mid, found.high]);
  }
}

// -- tables -----------------------------------------------------------------------------------

function table(id, head, rows) {
  const numeric = i => (typeof head[i] === "object" ? "number" : null), name = h => (typeof h === "object" ? h[0] : h);
  el(id).replaceChildren(
    make("thead", {}, make("tr", {}, ...head.map((h, i) => make("th", { class: numeric(i) }, name(h))))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map((cell, i) =>
      (cell instanceof Node && cell.tagName === "TD" ? cell : make("td", { class: numeric(i) }, cell)))))));
}

function does(f) {
  if (f.where === "elsewhere") return "runs on another host";
  if (f.where === "external") return state.status === "starting" ? "not there yet" : missing(f.heard_s) ? "external program" : `external program, last value at ${ofDay(f.heard_s)}`;
  if (f.does === "done") return "has done its last step";
  if (f.does === "steps") return `computes, for ${seconds(f.busy_s)}`;
  if (f.held_by && !f.for.length) return f.held_by === "pause" ? "paused" : "waits for the wall clock";
  return f.for.length ? "waits" : "waits for its turn";
}

function drawFederates() {
  table("federates", ["Federate", ["Granted"], ["Next step"], "Does", "Waits for", ["Steps"], ["Messages"]], state.federates.map(f =>
    [f.name, ofDay(f.granted_s), ofDay(f.next_s), does(f), f.does === "waits" ? f.for.join(", ") : "", count(f.steps), count(f.messages)]));
}

function drawDevices() {
  el("device-section").hidden = !state.devices.length;
  if (!state.devices.length) return;
  const ports = [...new Map(state.devices.flatMap(d => Object.entries(d.values).map(([p, [, unit]]) => [p, unit])))];
  table("devices", ["Device", "Federate", "Is", "Quality", ["Last good"], ...ports.map(([p, unit]) => [unit === "1" ? p : `${p}, ${unit}`])], state.devices.map(d =>
    [d.device, d.federate, d.kind, make("td", { class: `quality-${d.quality}` }, d.quality),
      missing(d.late_s) ? "never" : d.late_s === 0 ? "now" : `${seconds(d.late_s)} ago`, ...ports.map(([p]) => number(d.values[p]?.[0], 2))]));
}

function drawEvents() {
  const plain = ["wall", "time_s", "federate", "event"];
  const more = e => Object.entries(e).filter(([k, v]) => !plain.includes(k) && v !== null)
    .map(([k, v]) => `${k} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", ");
  table("events", ["Time of day", "Wall clock", "Federate", "Event", "Details"], state.events.toReversed().map(e =>
    [ofDay(e.time_s), new Date(e.wall).toLocaleTimeString("en-GB"), e.federate, e.event.replaceAll("_", " "), make("td", { class: "text" }, more(e))]));
}

// -- the head ---------------------------------------------------------------------------------

function attackTile() {
  if (!run.attack) return [];
  const on = state.windows.filter(w => w[2] === null), now = on.length > 0, last = (now ? on : state.windows).at(-1);
  const planned = run.attack.begin_s === null ? "begins when a signal says so" : `begins at ${ofDay(run.attack.begin_s)}`;
  const words = !last ? planned : now ? `${on.map(w => w[0]).join(", ")}, since ${ofDay(last[1])}` : `from ${ofDay(last[1])} to ${ofDay(last[2])}`;
  return [[run.attack.kind === "attack" ? "Attack" : "Disturbance", !last ? "not begun" : now ? "at work" : "ended", "", words, now ? "bad" : ""]];
}

function drawTiles() {
  const late = state.late_s === null ? [] : [["Lateness of the last step", number(1000 * state.late_s, 1), "ms", "against the wall clock", ""]];
  const waiting = state.federates.filter(f => f.does === "waits").length;
  const tiles = [
    ["Steps per second", count(state.steps_per_s), "", `of ${state.federates[0]?.name ?? "-"}`, ""],
    ["Messages per second", count(state.messages_per_s), "", `${count(state.messages)} in all`, ""],
    ...attackTile(), ...late,
    ["Federates that wait", `${waiting} of ${state.federates.length}`, "", "", ""],
    ["Events", number(state.event_count, 0), "", state.event_count > state.events.length ? `the last ${state.events.length} are listed` : "", ""],
    ["Since the page began", seconds(state.wall_s), "", state.paused_s ? `${seconds(state.paused_s)} paused` : "", ""],
  ];
  el("tiles").replaceChildren(...tiles.map(([name, value, unit, hint, style]) => make("div", { class: `tile ${style}` },
    make("div", { class: "name" }, name), make("div", { class: "value" }, value, " ", make("span", { class: "unit" }, unit)), make("div", { class: "hint" }, hint))));
}

function say(words, bad = false) {
  el("alert").hidden = !words.length;
  el("alert").classList.toggle("bad", bad);
  el("alert").replaceChildren(...words.map(w => make("p", {}, w)));
}

function drawHead() {
  const status = state.status, mayAct = key && !state.ended && ["running", "starting", "paused"].includes(status);
  el("status").textContent = status;
  el("status").className = `badge ${status}`;
  const granted = Math.max(0, ...state.federates.map(f => f.granted_s ?? 0)), end = run.horizon_ns / 1e9;
  el("progress").value = status === "finished" ? 1 : granted / end;
  el("clock").textContent = `${ofDay(granted)} of ${ofDay(end)}`;
  el("pause").textContent = status === "paused" ? "Resume" : "Pause";
  el("pause").disabled = !mayAct || run.spans_hosts;
  el("stop").disabled = !mayAct;
  el("hint").textContent = !key ? "The buttons need the address as it was printed, with the key behind #." :
    run.spans_hosts ? "A run over several hosts cannot be paused: the other hosts would take it for a hang." : "";
  const absent = state.federates.filter(f => f.where !== "here").map(f => f.name);
  if (status === "starting" && absent.length) say([`Since ${seconds(state.wall_s)}: ` +
    (state.said.replace(/^since \d+ s: /, "") || `waiting for ${absent.join(", ")} to join`)]);
  else if (status === "killed") say(["The run has ended without a word: it was killed. What it recorded is readable."], true);
  else if (state.ended) say([`The run has ended: ${status}${state.reason ? `, ${state.reason}` : ""}. This page stays as it is; the run's folder has report.html.`], status !== "finished");
  else if (status !== "running" && state.reason) say([state.reason], true);
  else say([]);
}

async function order(word) {
  const answer = await fetch(word, { method: "POST", headers: { "x-feederate-key": key } });
  if (!answer.ok) el("hint").textContent = (await answer.json()).error;
}

// -- the loop ---------------------------------------------------------------------------------

function begin() {
  document.title = `Live: ${run.title}`;
  el("title").textContent = run.title;
  el("about").textContent = `${run.name}, seed ${run.seed}${run.attack ? `; ${run.attack.kind}: ${run.attack.title}` : ""}`;
  el("folder").textContent = `Folder: ${run.folder}`;
  el("plant").replaceChildren(...run.plants.map(p => make("option", { value: p }, p)));
  el("plant").hidden = run.plants.length < 2;
  el("where").hidden = !run.plants.length;
  el("pause").addEventListener("click", () => order(state.status === "paused" ? "resume" : "pause"));
  el("stop").addEventListener("click", () => confirm("Stop the run? What it has recorded stays readable.") && order("stop"));
}

function beginCharts() {  // once the first step is done: every signal that is recorded has its file then
  if (charts.length || !run.recorded.length) return;
  const wish = [".v_pu", ".q_set_kvar", ".import_kw", ".p_kw", ".losses_kw"];
  const rank = name => { const k = wish.findIndex(w => name.endsWith(w)); return k < 0 ? wish.length : k; };
  [...run.recorded].filter(name => name in run.signals && !name.endsWith(".quality")).sort((a, b) => rank(a) - rank(b)).slice(0, MAX_CHARTS).forEach(name => addChart(name));
  const lacks = Object.keys(run.signals).filter(name => !run.recorded.includes(name));
  el("not-recorded").textContent = lacks.length ? `Not recorded (record.ports), so not shown: ${lacks.join(", ")}.` : "";
}

async function getRun() {
  run = await (await fetch("run")).json();
  key = key ?? run.key;
}

async function loop() {
  await getRun();
  begin();
  for (let first = true; ; first = false) {
    const query = new URLSearchParams(charts.map(c => ["curve", keyOf(c)]));
    query.set("plant", el("plant").value);
    if (first) query.set("first", "1");
    state = await (await fetch(`state?${query}`)).json();
    if (!charts.length && state.status !== "starting") { await getRun(); beginCharts(); }
    if (run.plants.length && map.plant !== el("plant").value) await loadGrid(el("plant").value);
    drawHead(); drawTiles(); drawMap(); drawCharts(); drawFederates(); drawDevices(); drawEvents();
    document.documentElement.dataset.looks = +(document.documentElement.dataset.looks ?? 0) + 1;
    if (state.ended) return;
  }
}

loop().catch(error => {
  el("status").textContent = "connection lost";
  el("status").className = "badge lost";
  el("pause").disabled = el("stop").disabled = true;
  say(["The page of this run does not answer any more: the run has ended or was killed. What was shown last stays here."], true);
  console.error(error);
});
