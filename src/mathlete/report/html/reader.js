// ---- reader -----------------------------------------------------------------------------------------------------
const BLOCK = 100;
const state = { run: 0, filter: "all", only: null, sort: "wrong", limit: BLOCK, problem: null, sample: null, beside: null, search: 0, matches: [] };
const here = (problem) => problem.runs[state.run];
const wrong = (one) => one.verdict !== "equal" && !one.kind;
const share = (one) => one.votes.length ? one.votes[0][1] / Math.max(1, one.n) : 0;
const margin = (one) => !one.votes.length ? 1 : (one.votes[0][1] - (one.votes[1]?.[1] ?? 0)) / Math.max(1, one.n);
const isClose = (one) => one.votes.length > 1 && (one.votes[0][1] - one.votes[1][1] <= 1 || margin(one) <= 0.1);
// Gained and lost are against the first evaluation.
const base = content.runs.findIndex((run) => run.kind === "eval");
const against = (problem, was, is) => state.run !== base && problem.runs[base] && !here(problem).kind
  && (problem.runs[base].verdict === "equal") === was && (here(problem).verdict === "equal") === is;
const FILTERS = {
  all: ["all", () => true],
  wrong: ["wrong", (p) => wrong(here(p))],
  outvoted: ["right but outvoted", (p) => wrong(here(p)) && here(p).right > 0],
  close: ["close votes", (p) => isClose(here(p))],
  fallback: ["fallback", (p) => !here(p).kind && here(p).answer === null],
  cut: ["cut at the cap", (p) => here(p).cut > 0],
  gained: ["gained", (p) => against(p, false, true)],
  lost: ["lost", (p) => against(p, true, false)],
};
const SORTS = {
  wrong: ["wrong first", (a, b) => Number(wrong(here(b))) - Number(wrong(here(a)))],
  order: ["in order", null], longest: ["longest first", (a, b) => here(b).longest - here(a).longest],
  close: ["closest vote first", (a, b) => margin(here(a)) - margin(here(b))],
  slowest: ["slowest first", (a, b) => here(b).seconds - here(a).seconds],
  weakest: ["fewest right first", (a, b) => here(a).right / here(a).n - here(b).right / here(b).n],
};
// What a click on a chart shows: [words, which problems].
const ONLY = {
  lost: (label) => [`lost: ${label}`, (p) => here(p).lost === label],
  subset: (label) => [label, (p) => p.subset === label || p.subset.split("/")[0] === label],
  share: (label) => [`vote's share about ${Math.round(100 * label)}%`, (p) => !here(p).kind && Math.abs(share(here(p)) - label) <= 0.1 + 1e-9],
};
async function unpack(block) {
  const bytes = Uint8Array.from(atob($("block-" + block).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
const wanted = () => $("search").value.trim().toLowerCase();
const says = (problem, words) => [problem.id, problem.subset, problem.statement, problem.gold, here(problem).lost ?? "", ...here(problem).votes.map((v) => v[0])]
  .some((text) => String(text).toLowerCase().includes(words));
async function matching() {
  const mine = ++state.search, words = wanted(), matches = [];
  const some = content.problems.filter((problem) => here(problem) && FILTERS[state.filter][1](problem) && (!state.only || state.only[1](problem)));
  for (const [at, problem] of some.entries()) {
    let hit = !words || says(problem, words);
    if (!hit && $("deep").checked) {
      hit = (await unpack(here(problem).block)).some((trace) => [trace[9], trace[10], ...(forcedOf(trace)?.slice(4, 6) ?? [])].join("\n").toLowerCase().includes(words));
      if (mine !== state.search) return null;
      if (at % 20 === 0) $("count").textContent = `searching ${at} of ${some.length}`;
    }
    if (hit) matches.push(problem);
  }
  const order = SORTS[state.sort][1];
  return order ? matches.sort(order) : matches;
}

// ---- the list -----------------------------------------------------------------------------------------------------
function bar(one) {
  const node = make("div", "bar"), total = Math.max(1, one.n);
  let voted = 0;
  for (const [position, [answer, count, verdict]] of one.votes.entries()) {
    const part = make("i", verdict + (position === 0 ? " won" : ""));
    part.style.width = `${(100 * count) / total}%`;
    part.title = `${brief(answer)}: ${count} of ${one.n}`;
    node.append(part);
    voted += count;
  }
  if (one.n > voted) {
    const part = make("i", "none");
    part.style.width = `${(100 * (one.n - voted)) / total}%`;
    part.title = `no answer: ${one.n - voted} of ${one.n}`;
    node.append(part);
  }
  return node;
}
const verdictWords = { equal: "right", different: "wrong", unknown: "cannot be judged", none: "no answer" };
function listed(problem) {
  const one = here(problem), row = make("button"), top = make("div", "row");
  row.type = "button";
  top.append(make("span", "", brief(problem.id)));
  if (!one.kind) top.append(make("span", one.verdict === "equal" ? "ok" : "no", `${one.verdict === "equal" ? "✓" : "✗"} ${brief(one.answer ?? "no answer")}`));
  row.append(top);
  if (problem.statement) row.append(make("div", "asked", brief(problem.statement)));
  const facts = [brief(problem.subset), one.longest ? `up to ${one.longest.toLocaleString("en")} tokens` : "", one.lost ?? ""];
  row.append(make("div", "sub", facts.filter(Boolean).join(" · ") || "–"));
  const first = state.run === base ? null : problem.runs[base];
  if (!one.kind) for (const other of first ? [first, one] : [one]) row.append(bar(other));
  row.onclick = async () => {
    await choose(problem);
    if (innerWidth <= 760) $("detail").scrollIntoView({ block: "start" });
  };
  row.dataset.id = problem.id;
  return row;
}
// What a sample was made to answer once it was cut: [answer, verdict, tokens, why it ended, beginning, end, left out].
const forcedOf = (sample) => sample[12] ?? null;
const rowOf = (problem) => $("list").children[state.matches.indexOf(problem)];
function mark() {
  for (const row of $("list").querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
  rowOf(state.problem)?.setAttribute("aria-current", "true");
}
async function list() {
  const matches = await matching();
  if (!matches) return false;
  state.matches = matches;
  const nodes = matches.slice(0, state.limit).map(listed);
  if (matches.length > state.limit) {
    const more = make("button", "more", `show ${Math.min(BLOCK, matches.length - state.limit)} more`);
    more.onclick = () => { state.limit += BLOCK; list(); };
    nodes.push(more);
  }
  $("list").replaceChildren(...nodes);
  $("count").textContent = `${matches.length.toLocaleString("en")} of ${content.problems.filter(here).length.toLocaleString("en")}`;
  mark();
  return true;
}
// The list anew, and of it the first problem, or the one that was read where `stay`.
async function again(stay = false) {
  state.limit = BLOCK;
  if (!(await list())) return;
  const problem = stay && state.matches.includes(state.problem) ? state.problem : state.matches[0];
  if (problem) await choose(problem);
}
function step(by) {
  const at = state.matches.indexOf(state.problem) + by, problem = state.matches[at];
  if (!problem) return;
  if (at >= state.limit) { state.limit += BLOCK; list(); }
  choose(problem);
  rowOf(problem)?.scrollIntoView({ block: "nearest" });
}

// ---- links ----------------------------------------------------------------------------------------------------------
// #run/problem/sample; runs of one name are told apart by a number.
const coded = (text) => encodeURIComponent(String(text).replace(/\p{Surrogate}/gu, "\ufffd"));
const slugs = content.runs.map(({ name }, at) => {
  const before = content.runs.slice(0, at).filter((run) => run.name === name).length;
  return coded(name) + (before ? `~${before + 1}` : "");
});
const linkTo = (problem, sample) => `#${slugs[state.run]}/${coded(problem.id)}${sample === null ? "" : `/${sample}`}`;
let later;
function remember() {
  // Not at each step: a browser allows a page only so many changes of its address a second.
  clearTimeout(later);
  later = setTimeout(() => history.replaceState(null, "", linkTo(state.problem, state.sample)), 120);
}
async function open(hash) {
  const [run, id, sample] = hash.replace(/^#/, "").split("/"), at = slugs.indexOf(run);
  const problem = id !== undefined && content.problems.find((one) => one.runs[at] && coded(one.id) === id);
  if (!problem) return false;
  await show({ run: at, problem, sample: /^\d+$/.test(sample ?? "") ? Number(sample) : null });
  return true;
}
// A run's problem, or its problems under a filter, from outside the reader.
async function show({ run, filter = "all", only = null, problem = null, sample = null }) {
  Object.assign(state, { run, filter, only, problem, limit: BLOCK });
  $("run").value = String(run);
  $("search").value = "";
  filters();
  if (!(await list())) return;
  const at = problem ? state.matches.indexOf(problem) : 0;
  if (at >= state.limit) { state.limit = BLOCK * Math.ceil((at + 1) / BLOCK); await list(); }
  if (state.matches[at]) await choose(state.matches[at], { sample });
  rowOf(state.problem)?.scrollIntoView({ block: "nearest" });
  (problem && innerWidth <= 760 ? $("detail") : $("reader")).scrollIntoView({ block: "start" });
  if (state.problem) remember();
}
function jump({ link, run, id, label }) {
  if (link !== "problem") return show({ run, only: ONLY[link](label) });
  const problem = content.problems.find((one) => one.id === id && one.runs[run]);
  return problem && show({ run, problem });
}

// ---- one problem ----------------------------------------------------------------------------------------------------
async function copy(text, button) {
  const words = button.textContent;
  try { await navigator.clipboard.writeText(text); } catch {
    const box = make("textarea");
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = words; }, 1200);
}
function button(words, act) {
  const node = make("button", "small", words);
  node.type = "button";
  node.onclick = () => act(node);
  return node;
}
async function choose(problem, { sample = null } = {}) {
  state.problem = problem;
  state.sample = sample;
  mark();
  const one = here(problem);
  const others = content.runs.map((_, at) => at).filter((at) => at !== state.run && problem.runs[at] && !problem.runs[at].kind && !one.kind);
  const beside = others.includes(state.beside) ? state.beside : null;
  const sides = [await side(problem, state.run, sample), ...(beside === null ? [] : [await side(problem, beside, null)])];
  if (state.problem !== problem) return;
  const nodes = [make("h3", "", problem.id), make("div", "sub", problem.subset)], tools = make("div", "tools");
  tools.append(button("copy link", (node) => copy(location.href.split("#")[0] + linkTo(problem, state.sample), node)));
  if (problem.statement) tools.append(button("copy problem", (node) => copy(problem.statement, node)));
  for (const at of others) {
    const node = button(`beside ${brief(content.runs[at].name)}`, () => { state.beside = at === state.beside ? null : at; choose(problem, { sample: state.sample }); });
    node.setAttribute("aria-pressed", String(at === beside));
    tools.append(node);
  }
  nodes.push(tools);
  if (problem.statement) {
    const said = make("div", "statement");
    fill(said, addMath(said, problem.statement), problem.statement.length);
    nodes.push(said);
  }
  if (problem.gold) nodes.push(make("div", "gold", `gold: ${long(problem.gold)}`));
  const pair = make("div", sides.length > 1 ? "sides two" : "sides");
  pair.append(...sides.map((made) => made.node));
  $("detail").replaceChildren(...nodes, pair);
  for (const made of sides) made.begin();
}
const sign = (verdict) => verdict === "equal" ? "✓" : verdict === "none" ? "–" : "✗";
// One run's part: vote, samples, and a trace, which is rendered once the part stands in the page.
async function side(problem, run, wantedSample) {
  const one = problem.runs[run], traces = await unpack(one.block), node = make("div", "side");
  const samples = make("div", "samples"), trace = make("div", "trace"), facts = make("p", "note");
  if (content.runs.length > 1 && !one.kind) {
    const name = make("h4", "", content.runs[run].name);
    name.style.borderColor = `var(--run-${run % SHAPES.length})`;
    node.append(name);
  }
  if (!one.kind) node.append(make("b", "", `voted: ${one.answer === null ? "none" : long(one.answer)} (${verdictWords[one.verdict]})  ·  ${one.seconds} s`));
  if (one.votes.length) node.append(votes(one));
  let current = null;
  const present = (sample, pressed) => {
    for (const other of samples.children) other.setAttribute("aria-pressed", String(other === pressed));
    current = sample;
    if (run === state.run && !one.kind) state.sample = sample[0];
    read(sample, one, facts, trace);
  };
  traces.forEach((sample) => {
    const forced = forcedOf(sample);
    const words = `#${sample[0]} ${sign(sample[2])} ${brief(sample[1] ?? "")} · ${sample[4].toLocaleString("en")}`
      + (forced ? ` · forced ${sign(forced[1])} ${brief(forced[0] ?? "")}` : "");
    const pressed = make("button", sample[2], words);
    pressed.type = "button";
    pressed.onclick = () => { present(sample, pressed); if (run === state.run) remember(); };
    if (!one.kind) samples.append(pressed);
  });
  const tools = make("div", "tools");
  if (traces.length) tools.append(button("copy trace", (node) => copy(current[9] + (current[11] ? `\n[… ${current[11]} characters …]\n` : "") + current[10], node)));
  node.append(samples, facts, tools, trace);
  const asked = traces.findIndex((sample) => sample[0] === wantedSample), first = asked >= 0 ? asked : Math.max(0, traces.findIndex((sample) => sample[3] === 0));
  return { node, begin: () => { if (traces.length) present(traces[first], samples.children[first]); } };
}
function votes(one) {
  const node = make("div", "votes");
  for (const [position, [answer, count, verdict, forced]] of one.votes.entries()) {
    const line = make("div", "bar"), part = make("i", verdict + (position === 0 ? " won" : ""));
    part.style.width = `${(100 * count) / Math.max(1, one.n)}%`;
    line.append(part);
    const name = make("span", "", brief(answer));
    name.title = brief(answer);
    node.append(name, line, make("span", "sub", `${count}${forced ? ` and ${forced} forced` : ""}${position === 0 ? ", wins" : ""}, ${verdictWords[verdict]}`));
  }
  return node;
}
const said = (answer, verdict) => answer === null ? verdictWords.none : `answer ${long(answer)}, ${verdictWords[verdict]}`;
function read(sample, one, facts, node) {
  const [index, answer, verdict, , tokens, finish, seconds, logprob, , front, back] = sample, forced = forcedOf(sample);
  facts.textContent = one.kind === "row" ? `${tokens} tokens; what carries loss is marked`
    : one.kind === "dropped" ? `left out: ${finish}`
    : `sample ${index}: ${said(answer, verdict)}; ${tokens.toLocaleString("en")} tokens, ended by ${finish}, `
      + `${seconds} s${logprob === null ? "" : `, mean log-probability ${logprob.toFixed(3)}`}`
      + (forced ? `; then forced: ${said(forced[0], forced[1])}, ${forced[2].toLocaleString("en")} tokens` : "");
  const words = $("deep").checked ? wanted() : "";
  node.replaceChildren();
  fill(node, addTrace(node, sample, words), front.length + back.length + (forced ? forced[4].length + forced[5].length : 0));
  node.scrollTop = 0;
}
function* addTrace(node, sample, words) {
  const [loss, front, back, left] = sample.slice(8), forced = forcedOf(sample);
  if (loss === null) yield* addText(node, front, words);
  else {
    yield* addText(node, front.slice(0, loss), words);
    const marked = make("span", "loss");
    marked.append(make("span", "lossmark", "loss from here"));
    node.append(marked);
    yield* addText(marked, front.slice(loss), words);
  }
  yield* addRest(node, left, back, words);
  if (!forced) return;
  const marked = make("div", "forced");
  marked.append(make("span", "lossmark", "forced from here: the text was closed, and its box begun"));
  node.append(marked);
  yield* addText(marked, forced[4], words);
  yield* addRest(marked, forced[6], forced[5], words);
}
function* addRest(node, left, back, words) {
  if (!left) return;
  node.append(make("span", "gap", `${left.toLocaleString("en")} characters are left out here; samples.jsonl has them all`));
  yield* addText(node, back, words);
}

// ---- controls -------------------------------------------------------------------------------------------------------
function controls() {
  content.runs.forEach((run, position) => $("run").append(new Option(run.name, position)));
  $("run").hidden = content.runs.length < 2;
  $("run").onchange = (event) => { Object.assign(state, { run: Number(event.target.value), filter: "all", only: null }); filters(); again(true); };
  for (const [key, [words]] of Object.entries(SORTS)) $("sort").append(new Option(words, key));
  $("sort").onchange = (event) => { state.sort = event.target.value; again(); };
  let timer;
  const soon = () => { clearTimeout(timer); timer = setTimeout(again, 150); };
  $("search").oninput = soon;
  $("deep").onchange = soon;
  for (const node of document.querySelectorAll("button.jump"))
    node.onclick = () => show({ run: Number(node.dataset.run), filter: node.dataset.filter });
  addEventListener("hashchange", () => open(location.hash));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "j" || event.key === "k") { step(event.key === "j" ? 1 : -1); remember(); }
    else if (event.key === "/") { event.preventDefault(); $("search").focus(); }
  });
  filters();
}
function filters() {
  const some = content.problems.filter(here);
  const buttons = Object.entries(FILTERS).map(([key, [words, keep]]) => {
    const count = some.filter(keep).length;
    if (key !== "all" && !count) return null;
    const node = make("button", "", key === "all" ? words : `${words} ${count}`);
    node.type = "button";
    node.dataset.filter = key;
    node.setAttribute("aria-pressed", String(key === state.filter && !(key === "all" && state.only)));
    node.onclick = () => { state.filter = key; state.only = null; filters(); again(); };
    return node;
  });
  if (state.only) {
    const node = make("button", "", `${brief(state.only[0])} ×`);
    node.type = "button";
    node.setAttribute("aria-pressed", "true");
    node.onclick = () => { state.only = null; filters(); again(); };
    buttons.push(node);
  }
  $("filters").replaceChildren(...buttons.filter(Boolean));
}
drawAll();
if (!("DecompressionStream" in window)) {
  $("detail").textContent = "The reader needs a browser of 2023 or later; the rest of the page does not.";
} else if (content.problems.length) {
  controls();
  open(location.hash).then((opened) => opened || again());
} else $("reader").hidden = true;
