// Curves of single elements, chosen by the reader; the data are those of federates/reports/traces.py.
const TRACE_COLOURS = ["s1", "s2", "s3", "s4", "hi2", "ok-hi", "phase-other", "lo1"];

async function unpack(signal) {  // compressed differences in whole steps, one row of them per element
  const bytes = Uint8Array.from(atob(signal.data), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer()), n = raw.length / 2;
  const rows = new Int16Array(n).map((_, i) => raw[i] | (raw[n + i] << 8)), length = n / signal.labels.length;
  return signal.labels.map((_, k) => {
    const row = rows.slice(k * length, (k + 1) * length);
    for (let i = 1; i < length; i++) row[i] += row[i - 1];
    return Array.from(row, v => (v === -32768 ? null : (v + signal.offset) * signal.step));
  });
}

async function traces(figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent), { signals } = spec;
  const box = figure.querySelector(".plot"), tools = figure.querySelector(".choose"), legend = figure.querySelector(".legend");
  const [select, input, list] = ["select", "input", "datalist"].map(name => tools.querySelector(name));
  select.append(...signals.map((s, i) => new Option(s.unit ? `${s.name}, ${s.unit}` : s.name, i)));
  let signal, rows, chosen = [];
  const chart = { figure, spec: { ...spec, limits: [], include: [], bands: [] }, data: [[0]], group: figure, size: sizeOf(box) };

  function redraw() {
    chart.spec.bands = chosen.map((k, i) => ({
      name: signal.labels[k], style: TRACE_COLOURS[i], columns: [{ name: "value", at: i + 1 }], shown: true, hold_s: signal.hold_s,
    }));
    chart.data = [rows.times, ...chosen.map(k => rows[k])];
    const { plot } = chart;
    plot.batch(() => {
      while (plot.series.length > 1) plot.delSeries(1);
      chart.spec.bands.flatMap(band => seriesOf(band, chart.data, signal.stepped)).forEach(s => plot.addSeries(s));
      plot.setData(chart.data, false);
      plot.setScale("x", view);
    });
    legend.replaceChildren(...chart.spec.bands.map((band, i) => {
      const item = document.createElement("li"), button = document.createElement("button"), key = document.createElement("i");
      key.className = `key ${band.style}`;
      button.type = "button";
      button.title = "Take this curve away";
      button.append(key, band.name);
      button.addEventListener("click", () => { chosen.splice(i, 1); redraw(); });
      item.append(button);
      return item;
    }));
  }

  function add(text) {  // an element, or the elements of a bus
    const found = signal.labels.flatMap((x, k) => (x === text || x.startsWith(`${text}.`) ? [k] : []));
    const fresh = found.filter(k => !chosen.includes(k)), overflow = chosen.length + fresh.length - TRACE_COLOURS.length;
    input.setCustomValidity(found.length ? "" : `${signal.name} has no element '${text}'`);
    if (!found.length) return input.reportValidity();
    chosen = [...chosen.slice(Math.max(0, overflow)), ...fresh].slice(0, TRACE_COLOURS.length);
    input.value = "";
    return redraw();
  }

  async function choose(i) {
    signal = signals[i];
    signal.rows ??= Object.assign(await unpack(signal), { times: timesOf(signal.time) });
    rows = signal.rows;
    chosen = [...signal.first];
    Object.assign(chart.spec, {
      title: signal.name, unit: signal.unit, digits: signal.digits, stepped: signal.stepped,
      limits: signal.name.endsWith(".v_pu") ? spec.band : [],
    });
    figure.querySelector(".axis-title").textContent = select.options[i].text;
    list.replaceChildren(...signal.labels.map(label => new Option(label)));
    redraw();
  }

  draw(chart);
  timeCharts.push(chart);
  select.addEventListener("change", () => choose(select.selectedIndex));
  input.addEventListener("change", () => input.value && add(input.value.trim()));
  input.addEventListener("input", () => input.setCustomValidity(""));
  document.addEventListener("bus", async ({ detail: { bus, plant } }) => {
    const has = s => s.name.endsWith(".v_pu") && s.labels.some(x => x.startsWith(`${bus}.`));
    const i = Math.max(signals.findIndex(s => has(s) && s.name.startsWith(`${plant}.`)), signals.findIndex(has));
    if (i < 0) return;
    if (signals[i] !== signal) { select.selectedIndex = i; await choose(i); }
    add(bus);
  });
  await choose(0);
}

document.querySelectorAll(".element-traces").forEach(traces);
