// Charts over time, drawn by uPlot. All charts of a page share one time axis and one cursor.
// Each figure holds its data as JSON, as federates/reports/chart.py writes them.
const colours = new Map();  // of the style sheet, until the theme changes
function css(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

function decode(text) {  // base64 of float32; NaN becomes null, a gap
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return Array.from(new Float32Array(bytes.buffer), v => (Number.isFinite(v) ? v : null));
}

function clock(time_s) {
  const ms = Math.round(time_s * 1000), day = Math.floor(ms / 864e5), rest = ms - day * 864e5;
  const pad = n => String(Math.floor(n)).padStart(2, "0");
  let text = `${pad(rest / 36e5)}:${pad((rest % 36e5) / 6e4)}`;
  if (rest % 6e4) text += `:${pad((rest % 6e4) / 1000)}`;
  if (rest % 1000) text += String((rest % 1000) / 1000).slice(1);
  return day ? `d${day} ${text}` : text;
}

function number(value, digits) {
  if (missing(value)) return "-";
  if (Math.abs(value) >= 1e6) return value.toExponential(2);
  if (value && Math.abs(value) < 0.5 * 10 ** -digits) return value.toExponential(1);
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// The decimals that tell ticks apart which lie `step` from each other.
const digitsOf = step => [0, 1, 2, 3, 4, 5, 6].find(n => Math.abs(+step.toFixed(n) - step) < 1e-6 * step) ?? 7;

// Settings of an axis that all charts have in common.
const axis = more => ({
  stroke: () => css("soft"), font: "12px system-ui, sans-serif",
  grid: { stroke: () => css("grid"), width: 1 }, ticks: { stroke: () => css("line"), width: 1, size: 4 }, ...more,
});
const valueAxis = axis({
  values: (u, ticks, i, space, step) => ticks.map(v => number(Math.abs(v) < 1e-6 * step ? 0 : v, digitsOf(step))),
  size: (u, values) => 14 + 7 * Math.max(3, ...(values || []).map(v => v.length)),
});

function drawLimits(u, limits) {  // a tint between the limits, then each limit as a dashed line
  const c = u.ctx, at = limits.map(limit => u.valToPos(limit.value, "y", true));
  c.save();
  if (at.length > 1) {
    c.globalAlpha = 0.07; c.fillStyle = css("good");
    c.fillRect(u.bbox.left, Math.min(...at), u.bbox.width, Math.max(...at) - Math.min(...at));
    c.globalAlpha = 1;
  }
  c.strokeStyle = c.fillStyle = css("limit"); c.setLineDash([6, 4]);
  c.font = `${11 * devicePixelRatio}px system-ui, sans-serif`; c.textAlign = "right"; c.textBaseline = "bottom";
  limits.forEach((limit, i) => {
    c.beginPath(); c.moveTo(u.bbox.left, at[i]); c.lineTo(u.bbox.left + u.bbox.width, at[i]); c.stroke();
    c.fillText(limit.name, u.bbox.left + u.bbox.width - 4, at[i] - 2);
  });
  c.restore();
}

const timeCharts = [];
let whole = { min: Infinity, max: -Infinity }, view = whole;

const timesOf = t => (t.values || Array.from({ length: t.count }, (_, i) => t.start + i * t.step));

function load(figure) {  // read a figure's data: one column of times, then the columns of each band
  const spec = JSON.parse(figure.querySelector("script").textContent);
  let next = 1;
  const tables = spec.bands.map(band => {
    band.columns = band.parts.map(part => ({ ...part, at: next++ }));
    band.shown = true;
    return [timesOf(band.time), ...band.parts.map(part => decode(part.data))];
  });
  const same = spec.bands.every(b => JSON.stringify(b.time) === JSON.stringify(spec.bands[0].time));
  const data = same ? [tables[0][0], ...tables.flatMap(t => t.slice(1))] : uPlot.join(tables);
  whole.min = Math.min(whole.min, data[0][0]);
  whole.max = Math.max(whole.max, data[0].at(-1));
  timeCharts.push({ figure, spec, data, group: figure.closest("[data-shared-axis]") || figure });
}

function valueRange(chart) {  // of all charts that share the axis, within the time shown
  let low = Infinity, high = -Infinity;
  const see = v => { if (!missing(v)) { low = Math.min(low, v); high = Math.max(high, v); } };
  for (const { spec, data } of timeCharts.filter(other => other.group === chart.group)) {
    spec.limits.forEach(limit => see(limit.value));
    spec.include.forEach(see);
    const columns = spec.bands.filter(b => b.shown).flatMap(b => b.columns.map(c => data[c.at]));
    data[0].forEach((t, i) => { if (t >= view.min && t <= view.max) columns.forEach(c => see(c[i])); });
  }
  if (low > high) return [0, 1];
  const air = 0.06 * (high - low) || Math.max(Math.abs(high) * 0.02, 0.5 * 10 ** -chart.spec.digits);
  return [low - air, high + air];
}

function show(min, max) {  // set the time axis of all charts
  const least = Math.max(whole.max - whole.min, 1e-3) / 5000, span = Math.max(max - min, least);
  min = Math.max(whole.min, Math.min(min, whole.max - span));
  view = { min, max: Math.min(min + span, whole.max) };
  if (view.max <= view.min) view.max = view.min + 1;  // a single sample
  timeCharts.forEach(({ plot }) => plot.setScale("x", view));
  tellTime();
}

function tellTime() {  // what is shown, above the buttons: to the minute, the second or the millisecond
  const span = view.max - view.min, unit = span > 3600 ? 60 : span > 60 ? 1 : 0.001;
  document.querySelector(".time-tools output").textContent =
    [view.min, view.max].map(t => clock(Math.round(t / unit) * unit)).join(" to ");
}
const zoom = (factor, at = (view.min + view.max) / 2) =>
  show(at - (at - view.min) * factor, at + (view.max - at) * factor);
const pan = share => { const by = share * (view.max - view.min); show(view.min + by, view.max + by); };

function lone(column) {  // points without a neighbour, which no line would show
  const seen = column.flatMap((v, i) => (v === undefined ? [] : [i]));
  return seen.filter((at, k) => column[at] !== null && missing(column[seen[k - 1]]) && missing(column[seen[k + 1]]));
}

function seriesOf(band, data, stepped) {
  return band.columns.map(({ name, at }, k) => {
    const alone = lone(data[at]), middle = k === (band.columns.length > 1 ? 1 : 0);
    return {
      label: name, paths: stepped ? uPlot.paths.stepped({ align: 1 }) : undefined, stroke: () => css(band.style), width: middle ? 1.8 : 0.6, alpha: middle ? 1 : 0.7,
      points: alone.length ? { show: true, filter: () => alone, size: 5, fill: () => css(band.style) } : { show: false },
    };
  });
}

function fillsOf(band) {
  const [low, , high] = band.columns;  // a single value has no range
  const fill = () => `${css(band.style)}3d`;  // #rrggbb with 24 % opacity
  return high ? [{ series: [high.at, low.at], fill }] : [];
}

function drawShade(u, windows) {
  u.ctx.save();
  u.ctx.fillStyle = css("warn"); u.ctx.globalAlpha = 0.16;
  for (const [begin, end] of windows) {
    const from = Math.max(begin, u.scales.x.min), to = Math.min(end ?? Infinity, u.scales.x.max);
    if (from > to) continue;
    const left = u.valToPos(from, "x", true), width = Math.max(3, u.valToPos(to, "x", true) - left);
    u.ctx.fillRect(left, u.bbox.top, width, u.bbox.height);
  }
  u.ctx.restore();
}

function readout(chart) {  // the values under the cursor; a sample counts until the next
  const { spec, data, plot } = chart, i = plot.cursor.idx;
  const inside = i !== null && i !== undefined && plot.cursor.left >= 0;
  const lines = inside ? spec.bands.filter(b => b.shown).map(band => {
    const values = band.columns.map(({ name, at }) => {
      let k = i;
      while (k > 0 && data[at][k] === undefined) k--;
      const held = data[0][i] - data[0][k] < band.hold_s || k === i;
      return `${band.columns.length > 1 ? `${name} ` : ""}${number(held ? data[at][k] : null, spec.digits)}`;
    });
    return (spec.bands.length > 1 ? `${band.name}: ` : "") + values.join(", ");
  }) : [];
  const wide = spec.bands.some(b => b.columns.length > 1);
  chart.figure.querySelector(".readout").textContent =
    inside ? `${clock(data[0][i])}  ${lines.join(wide ? "\n" : ", ")}` : "";
}

function drag(plot, begin) {  // shift and drag: pan
  const from = { ...view }, perPixel = (from.max - from.min) / plot.over.clientWidth;
  const move = event => {
    const by = (begin.clientX - event.clientX) * perPixel;
    show(from.min + by, from.max + by);
  };
  document.addEventListener("mousemove", move);
  document.addEventListener("mouseup", () => document.removeEventListener("mousemove", move), { once: true });
}

const TIME_STEPS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
  3600, 7200, 10800, 14400, 21600, 43200, 86400, 172800, 604800];

function options(chart) {
  const { spec, data, size } = chart;
  return {
    ...size, legend: { show: false }, padding: [10, 14, 0, 0],
    scales: { x: { time: false, range: () => [view.min, view.max] }, y: { range: () => valueRange(chart) } },
    axes: [
      axis({ incrs: TIME_STEPS_S, space: 62, size: 30, values: (u, ticks) => ticks.map(clock) }),
      valueAxis,
    ],
    series: [{}, ...spec.bands.flatMap(band => seriesOf(band, data, spec.stepped))],
    bands: spec.bands.flatMap(fillsOf),
    cursor: {
      y: false, points: { size: 6 }, drag: { x: true, y: false, setScale: false },
      sync: { key: "time", scales: ["x", null], filters: { pub: type => type === "mousemove" } },
      bind: {
        dblclick: () => () => show(whole.min, whole.max),
        mousedown: (u, target, handle) => event => event.button === 0 && (event.shiftKey ? drag(u, event) : handle(event)),
      },
    },
    hooks: {
      drawAxes: [u => { drawLimits(u, spec.limits); drawShade(u, spec.windows); }],
      setCursor: [() => chart.plot && readout(chart)],
      setSelect: [u => {
        const { left, width } = u.select;
        if (width < 4) return;
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        show(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
      }],
    },
  };
}

function shownRows(chart) {
  const { spec, data } = chart, shown = spec.bands.filter(b => b.shown);
  const name = (band, c) => [spec.bands.length > 1 || band.columns.length === 1 ? band.name : "", c.name === "value" ? "" : c.name].join(" ").trim();
  const title = (band, c) => (spec.unit ? `${name(band, c)}, ${spec.unit}` : name(band, c));
  const head = ["time of day, s", "time of day", ...shown.flatMap(b => b.columns.map(c => title(b, c)))];
  const rows = data[0].flatMap((t, i) => (t < view.min || t > view.max ? [] :
    [[t, clock(t), ...shown.flatMap(b => b.columns.map(c => (missing(data[c.at][i]) ? "" : +data[c.at][i].toPrecision(7))))]]));
  return [head, ...rows];
}

const sizeOf = box => ({ width: box.clientWidth, height: box.clientHeight });
function followSize(plot, box) {
  new ResizeObserver(() => {
    const { width, height } = sizeOf(box);
    if (width !== plot.width || height !== plot.height) plot.setSize({ width, height });
  }).observe(box);
}

function draw(chart) {
  const { figure, spec } = chart, box = figure.querySelector(".plot");
  const plot = chart.plot = new uPlot(options(chart), chart.data, box);
  plot.over.addEventListener("wheel", event => {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!event.ctrlKey && !sideways) return;
    event.preventDefault();
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, plot.posToVal(event.offsetX, "x"));
    else pan(event.deltaX / plot.over.clientWidth);
  }, { passive: false });
  plot.over.addEventListener("pointermove", event => {  // a finger moves the cursor
    if (event.pointerType === "touch") plot.setCursor({ left: event.offsetX, top: event.offsetY }, true, true);
  });
  followSize(plot, box);
  for (const button of figure.querySelectorAll("[data-band]")) {
    const band = spec.bands[button.dataset.band];
    button.addEventListener("click", () => {
      band.shown = !band.shown;
      button.setAttribute("aria-pressed", band.shown);
      plot.batch(() => band.columns.forEach(c => plot.setSeries(c.at, { show: band.shown })));
      show(view.min, view.max);
    });
  }
  figure.querySelector(".csv").addEventListener("click", () => saveCsv(spec.title, shownRows(chart)));
}

function tools() {  // the buttons that every chart obeys
  if (!timeCharts.length) return;
  const bar = document.querySelector(".time-tools");
  bar.hidden = false;
  tellTime();
  const windows = timeCharts.flatMap(({ spec }) => spec.windows);
  const begin = Math.min(...windows.map(w => w[0])), end = Math.max(...windows.map(w => w[1] ?? whole.max));
  const margin = Math.max(0.5 * (end - begin), 60);
  const actions = {
    in: () => zoom(0.5), out: () => zoom(2), earlier: () => pan(-0.5), later: () => pan(0.5),
    reset: () => show(whole.min, whole.max), attack: () => show(begin - margin, end + margin),
  };
  bar.querySelector("[data-do=attack]").hidden = !windows.length;
  for (const button of bar.querySelectorAll("button")) button.addEventListener("click", actions[button.dataset.do]);
}

const began = performance.now();
document.querySelectorAll(".time-chart").forEach(load);
view = { ...whole };
// All sizes are read before anything is drawn, so that the page is laid out once.
timeCharts.forEach(chart => { chart.size = sizeOf(chart.figure.querySelector(".plot")); });
timeCharts.forEach(draw);
tools();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours.clear();
  timeCharts.forEach(chart => chart.plot.redraw());
});
setTimeout(() => { document.documentElement.dataset.drawnMs = (performance.now() - began).toFixed(0); });
