// ---- running runs -----------------------------------------------------------------------------------------------
const EVERY = 2000;
function inWords(seconds) {
  if (seconds === null) return "no speed yet";
  if (seconds >= 5400) return `about ${(seconds / 3600).toFixed(1)} h left`;
  return seconds >= 90 ? `about ${Math.round(seconds / 60)} min left` : `about ${Math.round(seconds)} s left`;
}
function card(run, position) {
  const node = make("article", "card"), head = make("h2", "", run.name), far = make("progress");
  head.append(" ", make("span", "verdict", run.finished ? "finished" : "running"));
  far.max = Math.max(1, run.total ?? 1);
  if (run.total !== null) far.value = run.finished ? far.max : run.done;
  const counted = `${run.done.toLocaleString("en")}${run.total === null ? "" : ` of ${run.total.toLocaleString("en")}`} ${run.unit}`;
  node.append(head, far, make("p", "note", counted + (run.finished ? "" : ` · ${inWords(run.left_s)}`)));
  const figures = make("div", "figures");
  run.figures.forEach(([label, value], at) => {
    const figure = make("div");
    figure.append(make("p", "label", label), make("p", at ? "interval" : "value", value));
    figures.append(figure);
  });
  node.append(figures);
  if (run.curve.length > 1) {
    const box = make("div", "canvas"), canvas = make("canvas");
    canvas.id = `chart-curve-${position}`;
    box.append(canvas);
    node.append(box);
  }
  for (const trace of run.traces) {
    const fold = make("details", "lasttrace"), pre = make("pre", "", trace.text);
    fold.open = state.opened.has(trace.title);
    fold.ontoggle = () => state.opened[fold.open ? "add" : "delete"](trace.title);
    fold.append(make("summary", trace.right ? "ok" : "no", `${trace.right ? "✓" : "✗"} ${trace.title}`), pre);
    node.append(fold);
  }
  return node;
}
const state = { opened: new Set() };
function show(runs) {
  $("runs").replaceChildren(...runs.map(card));
  content.charts = runs.flatMap((run, at) => run.curve.length < 2 ? [] : [{ key: `curve-${at}`, title: "Loss", kind: "lines",
    x: run.curve.map(([step]) => step), series: [{ name: "loss", colour: String(at), y: run.curve.map(([, loss]) => loss), lo: null, hi: null, dashed: false, marks: false, run: null }],
    x_label: "step", y_label: "", log_x: false, percent: false, step: null, most: null, link: "", ids: [] }]);
  drawAll();
}
async function keepUp() {
  let words = "";
  try {
    const told = await (await fetch("/state.json")).json();
    if (Array.isArray(told)) show(told); else words = told.error;
  } catch { words = "the command that serves this page has ended"; }
  $("said").textContent = words;
  setTimeout(keepUp, EVERY);
}
keepUp();
