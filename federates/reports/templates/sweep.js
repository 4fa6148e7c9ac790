// Metrics over a swept key: the mean over the seeds as a line, the lowest and highest as a band;
// with `log` plain curves over logarithmic axes.
function drawSweep(figure) {
  const spec = specOf(figure), { x, labels, bands, limits, title, x_title, digits, log } = spec;
  const box = figure.querySelector(".plot"), readout = figure.querySelector(".readout"), data = [x];
  for (const band of bands) {
    band.columns = band.parts.map(({ name, values }) => ({ name, at: data.push(values) - 1 }));
    band.shown = true;
  }
  const text = v => (labels ? labels[v] ?? "" : String(+v.toPrecision(10)));
  const air = 0.03 * ((x.at(-1) - x[0]) || 1);
  const range = () => {
    const shown = bands.filter(b => b.shown).flatMap(b => b.columns.flatMap(c => data[c.at]));
    const seen = [...shown, ...limits.map(l => l.value)].filter(v => !missing(v));
    if (!seen.length) return [0, 1];
    const low = Math.min(...seen), high = Math.max(...seen);
    if (log) return [low / 2, high * 2];
    const gap = 0.06 * (high - low) || 0.02 * Math.abs(high) || 1;
    return [low - gap, high + gap];
  };
  const series = bands.flatMap(band => seriesOf(band, data, false).map((s, i) => (
    !log && band.columns[i].name === "mean" ? { ...s, points: { show: true, size: 6, fill: () => css(band.style) } } : s)));
  const tell = u => {
    const i = u.cursor.idx, inside = !missing(i) && u.cursor.left >= 0;
    readout.textContent = !inside ? "" : [`${x_title} ${text(x[i])}`, ...bands.filter(b => b.shown).map(band => {
      const [mean, low, high] = [["mean", "median"], ["lowest"], ["highest"]].map(names => {
        const column = band.columns.find(c => names.includes(c.name));
        return column && number(data[column.at][i], digits);
      });
      return `${band.name ? `${band.name}: ` : ""}${mean}${low === undefined ? "" : ` (${low} to ${high})`}`;
    })].join("\n");
  };
  const powers = { values: (u, at) => at.map(v => (v === null ? "" : text(v))) };
  const marks = log ? powers : labels ? { splits: () => x, values: (u, at) => at.map(text) } : { values: (u, at) => at.map(text) };
  const plot = new uPlot({
    ...sizeOf(box), legend: { show: false }, padding: [10, 18, 0, 0],
    scales: {
      x: { time: false, distr: log ? 3 : 1, range: () => (log ? [x[0], x.at(-1)] : [x[0] - air, x.at(-1) + air]) },
      y: { distr: log ? 3 : 1, range },
    },
    axes: [axis({ space: 50, size: 30, ...marks }), log ? axis({ size: 70, values: (u, at) => at.map(v => v?.toExponential(0) ?? "") }) : valueAxis],
    series: [{}, ...series], bands: bands.flatMap(fillsOf),
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    hooks: { drawAxes: [u => drawLimits(u, limits)], setCursor: [tell] },
  }, data, box);
  followSize(plot, box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
  for (const button of figure.querySelectorAll("[data-band]")) {
    const band = bands[+button.dataset.band];
    button.addEventListener("click", () => {
      band.shown = !band.shown;
      button.setAttribute("aria-pressed", band.shown);
      plot.batch(() => band.columns.forEach(c => plot.setSeries(c.at, { show: band.shown })));
    });
  }
  figure.querySelector(".csv").addEventListener("click", () => {
    const shown = bands.filter(b => b.shown), columns = shown.flatMap(b => b.columns.map(c => [b, c]));
    saveCsv(title, [[x_title, ...columns.map(([b, c]) => `${b.name} ${c.name}`.trim())],
      ...x.map((v, i) => [text(v), ...columns.map(([, c]) => data[c.at][i])])]);
  });
}
document.querySelectorAll(".sweep-chart").forEach(drawSweep);
