// ---- charts -----------------------------------------------------------------------------------------------------
const SHAPES = ["circle", "rect", "triangle", "rectRot", "star", "crossRot", "cross", "rectRounded"];
const isRun = (name) => /^\d+$/.test(name);
const colourOf = (name) => ink(name === "limit" ? "--soft" : isRun(name) ? `--run-${name % SHAPES.length}` : "--" + name);
const shapeOf = (name) => isRun(name) ? SHAPES[name % SHAPES.length] : "line";
const shown = (chart, value) => value === null ? null : chart.percent ? 100 * value : value;
const inPercent = (chart) => chart.percent ? { ticks: { callback: (value) => `${Number(value.toFixed(6))}%` } } : {};
const ends = (chart) => chart.most === null ? {} : { max: shown(chart, chart.most) };
const roundStep = (least) => { const ten = 10 ** Math.floor(Math.log10(least)); return [1, 2, 5, 10].find((by) => by * ten >= least) * ten; };
const drawers = {
  lines(chart) {
    const datasets = chart.series.flatMap((one) => {
      const colour = colourOf(one.colour);
      const points = (values) => values.map((value, i) => ({ x: chart.x[i], y: shown(chart, value) }));
      const line = { label: one.name, run: one.run, data: points(one.y), borderColor: colour, backgroundColor: colour };
      if (one.marks) return [{ ...line, showLine: false, pointStyle: "rectRot", pointRadius: 8, order: -1, clip: 10 }];
      const bare = one.colour === "limit" || chart.x.length > 60;
      Object.assign(line, { borderDash: one.dashed ? [6, 4] : [], pointRadius: bare ? 0 : 3.5, pointStyle: shapeOf(one.colour), borderWidth: 2, spanGaps: true });
      if (!one.lo) return [line];
      const edge = { borderWidth: 0, pointRadius: 0, pointHitRadius: 0, backgroundColor: colour + (one.dashed ? "1c" : "38") };
      return [line, { ...edge, data: points(one.lo), band: true }, { ...edge, data: points(one.hi), fill: "-1", band: true }];
    });
    const ticks = chart.log_x
      ? { type: "logarithmic", afterBuildTicks: (axis) => { axis.ticks = chart.x.map((value) => ({ value })); },
          ticks: { callback: (value) => String(value) } }
      : { type: "linear" };
    return { type: "line", data: { datasets }, x: ticks, y: { ...inPercent(chart), ...ends(chart) } };
  },
  dots(chart) {
    const count = chart.series.length;
    const datasets = chart.series.flatMap((one, position) => {
      const colour = colourOf(one.colour);
      const at = (i) => i + 0.24 * Math.min(1, 3 / count) * (position - (count - 1) / 2);
      const dots = one.y.map((value, i) => ({ x: shown(chart, value), y: at(i) }));
      const arms = one.y.flatMap((value, i) => value === null ? []
        : [{ x: shown(chart, one.lo[i]), y: at(i) }, { x: shown(chart, one.hi[i]), y: at(i) }, { x: NaN, y: NaN }]);
      return [{ label: one.name, run: one.run, data: dots, backgroundColor: colour, borderColor: colour, pointRadius: 4, pointStyle: shapeOf(one.colour), clip: 8 },
        { data: arms, showLine: true, pointRadius: 0, pointHitRadius: 0, borderColor: colour, borderWidth: 1.5, band: true }];
    });
    const names = { type: "linear", reverse: true, min: -0.6, max: chart.x.length - 0.4, grid: { display: false },
      afterBuildTicks: (axis) => { axis.ticks = chart.x.map((_, value) => ({ value })); },
      ticks: { autoSkip: false, callback: (value) => short(chart.x[value]) } };
    return { type: "scatter", data: { datasets }, x: { min: 0, ...inPercent(chart), ...ends(chart) }, y: names,
      tall: 60 + chart.x.length * Math.max(26, 11 * count) };
  },
  rows(chart) {
    const datasets = chart.series.map((one) => ({ label: one.name, run: one.run, data: one.y.map((value) => shown(chart, value)),
      backgroundColor: colourOf(one.colour), categoryPercentage: 0.8, barPercentage: 1 }));
    const least = Math.min(0, ...datasets.flatMap((one) => one.data));
    return { type: "bar", data: { labels: chart.x, datasets }, indexAxis: "y",
      x: { min: least, ...inPercent(chart), ...ends(chart) },
      y: { grid: { display: false }, ticks: { autoSkip: false, callback: (value) => short(chart.x[value]) } },
      tall: 70 + chart.x.length * Math.max(26, 9 * chart.series.length) };
  },
  bars(chart) {
    const datasets = chart.series.map((one) => {
      const colour = colourOf(one.colour);
      return one.line
        ? { type: "line", label: one.name, data: one.y, borderColor: colour, backgroundColor: colour, borderWidth: 2,
            borderDash: [6, 4], pointRadius: 0, stack: "line" }
        : { label: one.name, run: one.run, data: one.y.map((value) => shown(chart, value)), backgroundColor: colour, barPercentage: 1, stack: "bars",
            categoryPercentage: chart.x.length > 100 ? 1 : 0.9 };
    });
    // A bar a problem: their numbers are labels, of which Chart.js would show any.
    const round = chart.link === "problem" && chart.x.length > 20
      ? { afterBuildTicks: (axis) => { axis.ticks = axis.ticks.filter((tick) => chart.x[tick.value] % roundStep(chart.x.length / 6) === 0); } } : {};
    return { type: "bar", data: { labels: chart.x, datasets }, stacked: true,
      x: { stacked: true, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 12 }, ...round },
      y: { stacked: true, ...inPercent(chart), ...ends(chart) } };
  },
  points(chart) {
    const datasets = chart.series.flatMap((one) => {
      const colour = colourOf(one.colour), here = chart.x.map((x, i) => [x, i]).filter(([, i]) => one.y[i] !== null);
      const dots = here.map(([x, i]) => ({ x, y: one.y[i], name: chart.ids[i] }));
      const arms = here.flatMap(([x, i]) => [{ x, y: one.lo[i] }, { x, y: one.hi[i] }, { x: NaN, y: NaN }]);
      return [{ label: one.name, data: dots, backgroundColor: colour, borderColor: ink("--card"), borderWidth: 1, pointRadius: 6, pointStyle: "circle", clip: 8 },
        { data: arms, showLine: true, pointRadius: 0, pointHitRadius: 0, borderColor: colour, borderWidth: 1.5, band: true }];
    });
    return { type: "scatter", data: { datasets }, x: { min: 0, max: 1.12 * Math.max(...chart.x, ...chart.clocks), ticks: { maxRotation: 0, includeBounds: false } }, y: { grace: "8%" },
      tall: Math.max(360, 120 + 16 * chart.x.length), plugins: [named(chart)] };
  },
};
// Each point's name beside it, moved down where another stands, with a thin line to it; clocks and no change as lines.
function named(chart) {
  return { id: "named", afterDatasetsDraw(drawing) {
    const { ctx, chartArea: area, scales } = drawing, taken = [];
    ctx.save();
    ctx.font = "12px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    ctx.setLineDash([5, 4]);
    ctx.strokeStyle = ink("--soft");
    const rule = (x, y, x2, y2) => { ctx.beginPath(); ctx.moveTo(x, y); ctx.lineTo(x2, y2); ctx.stroke(); };
    rule(area.left, scales.y.getPixelForValue(0), area.right, scales.y.getPixelForValue(0));
    ctx.fillStyle = ink("--soft");
    for (const clock of chart.clocks) {
      const x = scales.x.getPixelForValue(clock), words = `clock ${clock.toLocaleString("en")} s`;
      rule(x, area.top, x, area.bottom);
      ctx.fillText(words, Math.min(x + 4, area.right - ctx.measureText(words).width), area.bottom - 8);
    }
    ctx.setLineDash([]);
    ctx.fillStyle = ink("--ink");
    const dots = drawing.data.datasets.filter((set) => !set.band).flatMap((set) => set.data)
      .map((dot) => ({ name: dot.name, x: scales.x.getPixelForValue(dot.x), y: scales.y.getPixelForValue(dot.y) })).sort((a, b) => a.y - b.y || a.x - b.x);
    for (const dot of dots) taken.push([dot.x - 6, dot.x + 6, dot.y]);
    for (const dot of dots) {
      const width = ctx.measureText(dot.name).width, right = dot.x + 10 + width <= area.right, x = right ? dot.x + 10 : dot.x - 10 - width;
      const free = (y) => taken.every(([from, to, at]) => to <= x || from >= x + width || Math.abs(at - y) >= 14);
      // The nearest free place below or above.
      const y = Array.from({ length: 80 }, (_, at) => dot.y + 7 * Math.ceil(at / 2) * (at % 2 ? 1 : -1)).find((at) => at > area.top + 6 && at < area.bottom - 18 && free(at)) ?? dot.y;
      taken.push([x, x + width, y]);
      if (Math.abs(y - dot.y) > 8) { ctx.lineWidth = 0.6; rule(dot.x, dot.y, right ? x - 2 : x + width + 2, y); }
      ctx.fillText(dot.name, x, y);
    }
    ctx.restore();
  } };
}
// The end of a layer's or a subset's name tells most.
const short = (name) => { const all = String(name ?? ""), most = innerWidth <= 760 ? 18 : 34; return all.length > most ? "…" + all.slice(1 - most) : all; };
function titleOf(chart, items) {
  if (!items.length) return "";
  if (chart.kind === "points") return items.map((item) => item.raw.name).join(", ");
  if (chart.kind === "rows") return String(chart.x[items[0].dataIndex]);
  if (chart.kind === "dots") return String(chart.x[Math.round(items[0].parsed.y)]);
  const at = chart.x[items[0].dataIndex] ?? items[0].label;
  if (chart.step !== null) return `${chart.x_label} ${at} to ${Number((at + chart.step).toFixed(6))}`;
  return chart.link === "problem" ? chart.ids[items[0].dataIndex] : `${chart.x_label} ${items[0].label}`;
}
// What a click shows in the reader.
function follow(chart, event, drawing) {
  const near = drawing.getElementsAtEventForMode(event, chart.kind === "bars" ? "index" : "nearest", { intersect: false }, true);
  const hit = near.find((one) => !drawing.data.datasets[one.datasetIndex].band && drawing.data.datasets[one.datasetIndex].run !== undefined);
  if (!hit) return null;
  const run = drawing.data.datasets[hit.datasetIndex].run, at = hit.index;
  return run === null ? null : { link: chart.link, run, id: chart.ids[at], label: chart.x[at] };
}
const drawn = new Map();
function draw(chart) {
  drawn.get(chart.key)?.destroy();
  const made = drawers[chart.kind](chart);
  const canvas = $("chart-" + chart.key);
  canvas.parentNode.style.height = made.tall ? made.tall + "px" : "";
  const said = (value) => chart.percent ? `${Number(value).toFixed(1)}%` : Number(value).toLocaleString("en", { maximumSignificantDigits: 4 });
  const axis = (own, label) => ({ ...own, title: { display: Boolean(label), text: label, color: ink("--soft") },
    grid: { color: ink("--line"), ...own.grid }, ticks: { color: ink("--soft"), ...own.ticks } });
  const at = chart.kind === "dots" || chart.kind === "points";
  const values = made.indexAxis === "y" || chart.kind === "dots" ? "x" : "y";
  const drawing = new Chart(canvas, {
    type: made.type, data: made.data, plugins: made.plugins ?? [],
    options: {
      layout: { padding: { right: 4 } },
      indexAxis: made.indexAxis ?? "x", animation: false, responsive: true, maintainAspectRatio: false,
      devicePixelRatio: Math.max(2, devicePixelRatio),
      interaction: { mode: at ? "nearest" : "index", intersect: at, axis: made.indexAxis },
      scales: { x: axis(made.x, chart.x_label), y: axis(made.y, chart.y_label) },
      onClick: (event, _, drawing) => { const target = chart.link && follow(chart, event, drawing); if (target) jump(target); },
      onHover: (event, near) => { canvas.style.cursor = chart.link && near.length ? "pointer" : ""; },
      plugins: {
        legend: { display: chart.series.length > 1, labels: { color: ink("--ink"), boxWidth: 14, boxHeight: chart.kind === "bars" || chart.kind === "rows" ? 10 : 7,
          usePointStyle: at || chart.kind === "lines", filter: (item, data) => !data.datasets[item.datasetIndex].band } },
        tooltip: { filter: (item) => !item.dataset.band,
          callbacks: { title: (items) => titleOf(chart, items), label: (item) => `${item.dataset.label}: ${said(item.parsed[values])}` } },
      },
    },
  });
  drawn.set(chart.key, drawing);
  const height = drawing.height;
  if (!made.tall) withLegend(drawing, (room) => { canvas.parentNode.style.height = height + room + "px"; drawing.resize(); });
}
// What a legend of many runs takes beyond two lines is added to the chart, which then may give it more: the plot keeps its height.
function withLegend(drawing, grow) {
  for (let had = 0, room; (room = Math.round(drawing.legend?.height ?? 0) - 40) > had; had = room) grow(room);
}
// Two charts side by side on a page of A4 or letter, with letters as large as the text's; none is longer than a page.
function fitPaper() {
  for (const drawing of drawn.values()) {
    const height = Math.max(200, drawing.canvas.parentNode.style.height ? drawing.height : 0);
    drawing.resize(330, Math.min(760, height));
    if (height < 400) withLegend(drawing, (room) => drawing.resize(330, Math.max(height, 200 + room)));
  }
}
function drawAll() { for (const chart of content.charts) draw(chart); }
