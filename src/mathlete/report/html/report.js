"use strict";
// Everything that comes from a run reaches the page as text, never as markup.
(() => {
  const content = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, name = "", text = "") => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== "") node.textContent = text;
    return node;
  };

  // ---- light and dark -------------------------------------------------------------------------------------------
  const root = document.documentElement;
  const wide = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wide.matches);
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  $("theme").onclick = () => { root.dataset.theme = isDark() ? "light" : "dark"; drawAll(); };
  wide.addEventListener("change", () => drawAll());
  $("print").onclick = () => print();
  let before;
  addEventListener("beforeprint", () => { before = root.dataset.theme; root.dataset.theme = "light"; drawAll(); });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before; else delete root.dataset.theme;
    drawAll();
  });

  // ---- charts ---------------------------------------------------------------------------------------------------
  const colourOf = (name) => ink(name === "limit" ? "--soft" : /^\d+$/.test(name) ? `--run-${name % 5}` : "--" + name);
  const shown = (chart, value) => value === null ? null : chart.percent ? 100 * value : value;
  const drawers = {
    lines(chart) {
      const datasets = chart.series.flatMap((one) => {
        const colour = colourOf(one.colour);
        const points = (values) => values.map((value, i) => ({ x: chart.x[i], y: shown(chart, value) }));
        const line = { label: one.name, data: points(one.y), borderColor: colour, backgroundColor: colour,
          borderDash: one.dashed ? [6, 4] : [], pointRadius: one.colour === "limit" || chart.x.length > 60 ? 0 : 3,
          borderWidth: 2 };
        if (!one.lo) return [line];
        const edge = { borderWidth: 0, pointRadius: 0, pointHitRadius: 0, backgroundColor: colour + (one.dashed ? "1c" : "38") };
        return [line, { ...edge, data: points(one.lo), band: true }, { ...edge, data: points(one.hi), fill: "-1", band: true }];
      });
      const ticks = chart.log_x
        ? { type: "logarithmic", afterBuildTicks: (axis) => { axis.ticks = chart.x.map((value) => ({ value })); },
            ticks: { callback: (value) => String(value) } }
        : { type: "linear" };
      return { type: "line", data: { datasets }, x: ticks, y: {} };
    },
    dots(chart) {
      const count = chart.series.length;
      const datasets = chart.series.flatMap((one, position) => {
        const colour = colourOf(one.colour);
        const at = (i) => i + 0.24 * (position - (count - 1) / 2);
        const dots = one.y.map((value, i) => ({ x: shown(chart, value), y: at(i) }));
        const arms = one.y.flatMap((value, i) => value === null ? []
          : [{ x: shown(chart, one.lo[i]), y: at(i) }, { x: shown(chart, one.hi[i]), y: at(i) }, { x: NaN, y: NaN }]);
        return [{ label: one.name, data: dots, backgroundColor: colour, borderColor: colour, pointRadius: 4, clip: 8 },
          { data: arms, showLine: true, pointRadius: 0, pointHitRadius: 0, borderColor: colour, borderWidth: 1.5, band: true }];
      });
      const names = { type: "linear", reverse: true, min: -0.6, max: chart.x.length - 0.4, grid: { display: false },
        afterBuildTicks: (axis) => { axis.ticks = chart.x.map((_, value) => ({ value })); },
        ticks: { autoSkip: false, callback: (value) => chart.x[value] } };
      return { type: "scatter", data: { datasets }, x: { min: 0, max: 100, ticks: { callback: (value) => value + "%" } }, y: names, tall: 60 + 26 * chart.x.length };
    },
    rows(chart) {
      const datasets = chart.series.map((one) => ({ label: one.name, data: one.y.map((value) => shown(chart, value)),
        backgroundColor: colourOf(one.colour), categoryPercentage: 0.8, barPercentage: 1 }));
      return { type: "bar", data: { labels: chart.x, datasets }, indexAxis: "y",
        x: { min: 0, ticks: { callback: (value) => value + "%" } }, y: { grid: { display: false }, ticks: { autoSkip: false } },
        tall: 70 + 26 * chart.x.length * Math.max(1, chart.series.length / 2) };
    },
    bars(chart) {
      const datasets = chart.series.map((one) => {
        const colour = colourOf(one.colour);
        return one.line
          ? { type: "line", label: one.name, data: one.y, borderColor: colour, backgroundColor: colour, borderWidth: 2,
              borderDash: [6, 4], pointRadius: 0, stack: "line" }
          : { label: one.name, data: one.y, backgroundColor: colour, barPercentage: 1, stack: "bars",
              categoryPercentage: chart.x.length > 100 ? 1 : 0.9 };
      });
      return { type: "bar", data: { labels: chart.x, datasets }, stacked: true,
        x: { stacked: true, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 12 } }, y: { stacked: true } };
    },
  };
  const drawn = new Map();
  function draw(chart) {
    drawn.get(chart.key)?.destroy();
    const made = drawers[chart.kind](chart);
    const canvas = $("chart-" + chart.key);
    if (made.tall) canvas.parentNode.style.height = made.tall + "px";
    const percent = (value) => chart.percent ? `${Number(value).toFixed(1)}%` : Number(value).toLocaleString("en", { maximumSignificantDigits: 4 });
    const axis = (own, label) => ({ ...own, title: { display: Boolean(label), text: label, color: ink("--soft") },
      grid: { color: ink("--line"), ...own.grid }, ticks: { color: ink("--soft"), ...own.ticks } });
    const values = made.indexAxis === "y" || chart.kind === "dots" ? "x" : "y";
    drawn.set(chart.key, new Chart(canvas, {
      type: made.type, data: made.data,
      options: {
        indexAxis: made.indexAxis ?? "x", animation: false, responsive: true, maintainAspectRatio: false,
        interaction: { mode: chart.kind === "dots" ? "nearest" : "index", intersect: chart.kind === "dots", axis: made.indexAxis },
        scales: { x: axis(made.x, chart.x_label), y: axis({ ...made.y, ...(chart.kind === "lines" && chart.percent ? { ticks: { callback: (v) => v + "%" } } : {}) }, chart.y_label) },
        plugins: {
          legend: { display: chart.series.length > 1, labels: { color: ink("--ink"), boxWidth: 14, boxHeight: 3,
            filter: (item, data) => !data.datasets[item.datasetIndex].band } },
          tooltip: { filter: (item) => !item.dataset.band,
            callbacks: {
              title: (items) => !items.length ? "" : chart.kind === "rows" ? items[0].label : chart.kind === "dots" ? chart.x[Math.round(items[0].parsed.y)] : `${chart.x_label} ${items[0].label}`,
              label: (item) => `${item.dataset.label}: ${percent(item.parsed[values])}` } },
        },
      },
    }));
  }
  function drawAll() { for (const chart of content.charts) draw(chart); }

  // ---- mathematics ----------------------------------------------------------------------------------------------
  const OPENING = /\\\$|\$\$|\$|\\\(|\\\[|\\(?:boxed|fbox)\s*\{|\\begin\{(equation|align|gather|multline|cases|array|[pbvV]?matrix)(\*?)\}/g;
  const CLOSING = { "$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]" };
  // Of a formula that is rendered, and of a piece of text that is added at a time, characters. What never closes is
  // looked through no further, or a thousand open braces would be a thousand walks to the end.
  const LONGEST = 5000, PIECE = 4000;
  function closingBrace(text, from) {
    const stop = Math.min(text.length, from + LONGEST);
    for (let at = from, depth = 0; at < stop; at++) {
      if (text[at] === "\\") at++;
      else if (text[at] === "{") depth++;
      else if (text[at] === "}" && --depth === 0) return at + 1;
    }
    return -1;
  }
  const closing = (text, mark, from) => {
    const at = text.slice(from, from + LONGEST).indexOf(mark);
    return at < 0 ? -1 : from + at;
  };
  // Yields [text, null] or [tex, display?] parts; what never closes stays text.
  function* mathParts(text) {
    const opening = new RegExp(OPENING);
    let done = 0;
    for (let match; (match = opening.exec(text)); ) {
      const [mark, environment, star] = match, at = match.index;
      let end = -1, tex = "", display = false;
      if (mark === "\\$") continue;
      if (environment) {
        const close = `\\end{${environment}${star}}`, stop = closing(text, close, at);
        if (stop > 0) { end = stop + close.length; tex = text.slice(at, end); display = true; }
      } else if (mark in CLOSING) {
        const stop = closing(text, CLOSING[mark], at + mark.length);
        const inner = stop < 0 ? "" : text.slice(at + mark.length, stop);
        // A price is no formula: "$" pairs only without an empty line and without space inside its ends.
        const paired = mark !== "$" || (inner.length < 600 && !/\n\s*\n|^\s|\s$/.test(inner));
        if (inner.trim() && paired) { end = stop + mark.length; tex = inner; display = mark === "$$" || mark === "\\["; }
      } else {
        end = closingBrace(text, at + mark.length - 1);
        if (end > 0) tex = text.slice(at, end);
      }
      if (end < 0) {
        if (at - done > PIECE) { yield [text.slice(done, at), null]; done = at; }
        continue;
      }
      if (at > done) yield [text.slice(done, at), null];
      yield [tex, display];
      done = opening.lastIndex = end;
    }
    if (done < text.length) yield [text.slice(done), null];
  }
  // What adds text yields after each step [characters added, what they cost]: a formula or a fold is a hundred times as
  // dear as a character.
  const DEAR = 100;
  function* addMath(node, text, words = "") {
    for (const [part, display] of mathParts(text)) {
      if (display === null) { yield* addTagged(node, part, words); continue; }
      const span = make("span", /\\(boxed|fbox)/.test(part) ? "box" : "");
      try {
        katex.render(part, span, { displayMode: display, throwOnError: true, strict: "ignore", trust: false, maxSize: 20, maxExpand: 500 });
      } catch { span.textContent = part; }
      node.append(span);
      yield [part.length, DEAR + part.length];
    }
  }
  const TAGS = /(<\/?think>|<[｜|][^<>｜|]{1,40}[｜|]>)/;
  function* addTagged(node, text, words) {
    for (let from = 0, to; from < text.length; from = to) {
      // A piece ends before a tag, or the tag would be cut in two.
      const tag = text.slice(from, from + PIECE).lastIndexOf("<");
      to = from + PIECE >= text.length ? text.length : from + (tag > PIECE / 2 ? tag : PIECE);
      for (const part of text.slice(from, to).split(TAGS)) {
        if (TAGS.test(part)) {
          node.append(make("span", "tag", part === "</think>" ? "end of thinking" : part));
          yield [part.length, DEAR];
        } else yield* addHighlighted(node, part, words);
      }
    }
  }
  function* addHighlighted(node, text, words) {
    const low = text.toLowerCase();
    let done = 0;
    for (let at; words && (at = low.indexOf(words, done)) >= 0; done = at + words.length) {
      node.append(text.slice(done, at), make("mark", "", text.slice(at, at + words.length)));
      yield [at + words.length - done, DEAR];
    }
    for (let from = done; from < text.length; from += PIECE) {
      node.append(text.slice(from, from + PIECE));
      yield [Math.min(PIECE, text.length - from), Math.min(PIECE, text.length - from)];
    }
  }
  // Prose with formulas; fenced code folded where it is a tool's.
  function* addText(node, text, words) {
    const FENCE = "```";
    let done = 0;
    for (let open; (open = text.indexOf(FENCE, done)) >= 0; ) {
      const line = text.indexOf("\n", open);
      if (line < 0) break;
      const stop = text.indexOf(FENCE, line + 1), close = stop < 0 ? text.length : stop;
      yield* addMath(node, text.slice(done, open), words);
      const language = /^[\w+-]*/.exec(text.slice(open + FENCE.length, line))[0];
      const code = text.slice(line + 1, stop > line + 1 && text[close - 1] === "\n" ? close - 1 : close);
      const lines = code.split("\n").length;
      const named = { python: "Python run", py: "Python run", output: "its output" }[language.toLowerCase()];
      const fold = make("details", "tool"), pre = make("pre");
      fold.open = !named;
      fold.append(make("summary", "", `${named ?? (language || "code")}, ${lines} ${lines === 1 ? "line" : "lines"}`), pre);
      node.append(fold);
      yield [line - open, DEAR];
      yield* addHighlighted(pre, code, words);
      done = stop < 0 ? text.length : close + FENCE.length;
      if (text[done] === "\n") done++;
    }
    yield* addMath(node, text.slice(done), words);
  }
  // Fills a node as far as it is seen: a button, and scrolling to it, go on. `cost` is what one go may cost.
  const COST = 15000, watchers = new Map();
  function fill(node, steps, characters) {
    const more = make("button", "more");
    more.type = "button";
    watchers.get(node)?.disconnect();
    const watcher = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) go(); });
    watchers.set(node, watcher);
    let left = characters;
    function go() {
      watcher.unobserve(more);
      more.remove();
      const until = performance.now() + 300;
      for (let cost = 0; cost < COST && performance.now() < until; ) {
        const { done, value } = steps.next();
        if (done) return;
        left -= value[0];
        cost += value[1];
      }
      more.textContent = `show more: about ${Math.max(1, left).toLocaleString("en")} characters follow`;
      node.append(more);
      watcher.observe(more);
    }
    more.onclick = go;
    go();
  }
  // What stands in a line of the list or on a button; the whole text is in the reader.
  const long = (text) => text.length > 5000 ? `${text.slice(0, 5000)} … (${text.length - 5000} more characters)` : text;
  const brief = (text) => { const all = String(text); return all.length > 300 ? all.slice(0, 300) + "…" : all; };

  // ---- reader ---------------------------------------------------------------------------------------------------
  const BLOCK = 100, state = { run: 0, filter: "all", sort: "order", limit: BLOCK, problem: null, sample: 0, search: 0 };
  const here = (problem) => problem.runs[state.run];
  const wrong = (one) => one.verdict !== "equal" && !one.kind;
  const margin = (one) => !one.votes.length ? 1 : (one.votes[0][1] - (one.votes[1]?.[1] ?? 0)) / Math.max(1, one.n);
  const close = (one) => one.votes.length > 1 && (one.votes[0][1] - one.votes[1][1] <= 1 || margin(one) <= 0.1);
  const against = (problem, was, is) => state.run > 0 && problem.runs[0] && !problem.runs[0].kind && !here(problem).kind
    && (problem.runs[0].verdict === "equal") === was && (here(problem).verdict === "equal") === is;
  const FILTERS = {
    all: ["all", () => true],
    wrong: ["wrong", (p) => wrong(here(p))],
    outvoted: ["right but outvoted", (p) => wrong(here(p)) && here(p).right > 0],
    close: ["close votes", (p) => close(here(p))],
    fallback: ["fallback", (p) => !here(p).kind && here(p).answer === null],
    cut: ["cut at the cap", (p) => here(p).cut > 0],
    gained: ["gained", (p) => against(p, false, true)],
    lost: ["lost", (p) => against(p, true, false)],
  };
  const SORTS = {
    order: ["in order", null], longest: ["longest first", (a, b) => here(b).longest - here(a).longest],
    close: ["closest vote first", (a, b) => margin(here(a)) - margin(here(b))],
    slowest: ["slowest first", (a, b) => here(b).seconds - here(a).seconds],
    weakest: ["fewest right first", (a, b) => here(a).right / here(a).n - here(b).right / here(b).n],
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
    const some = content.problems.filter((problem) => here(problem) && FILTERS[state.filter][1](problem));
    for (const [at, problem] of some.entries()) {
      let hit = !words || says(problem, words);
      if (!hit && $("deep").checked) {
        hit = (await unpack(here(problem).block)).some((trace) => (trace[9] + "\n" + trace[10]).toLowerCase().includes(words));
        if (mine !== state.search) return null;
        if (at % 20 === 0) $("count").textContent = `searching ${at} of ${some.length}`;
      }
      if (hit) matches.push(problem);
    }
    const order = SORTS[state.sort][1];
    return order ? matches.sort(order) : matches;
  }
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
    const tokens = one.longest ? ` · up to ${one.longest.toLocaleString("en")} tokens` : "";
    const why = one.lost ? ` · ${one.lost}` : "";
    row.append(make("div", "sub", `${brief(problem.subset) || "–"}${tokens}${why}`));
    const each = problem.runs.filter((other) => other && !other.kind);
    if (!one.kind) for (const other of state.run === 0 || each.length < 2 ? [one] : [each[0], one]) row.append(bar(other));
    row.onclick = async () => {
      await choose(problem, row);
      if (innerWidth <= 760) $("detail").scrollIntoView({ block: "start" });
    };
    if (problem === state.problem) row.setAttribute("aria-current", "true");
    row.dataset.id = problem.id;
    return row;
  }
  async function list() {
    const matches = await matching();
    if (!matches) return;
    const nodes = matches.slice(0, state.limit).map(listed);
    if (matches.length > state.limit) {
      const more = make("button", "more", `show ${Math.min(BLOCK, matches.length - state.limit)} more`);
      more.onclick = () => { state.limit += BLOCK; list(); };
      nodes.push(more);
    }
    $("list").replaceChildren(...nodes);
    $("count").textContent = `${matches.length.toLocaleString("en")} of ${content.problems.filter(here).length.toLocaleString("en")}`;
  }
  function again() { state.limit = BLOCK; return list(); }
  // The same problem in another run; the first of the list where that run does not have it.
  function stay() {
    const problem = state.problem && here(state.problem) ? state.problem : content.problems.find(here);
    return choose(problem, [...$("list").children].find((row) => row.dataset.id === problem.id));
  }
  async function choose(problem, row) {
    for (const other of $("list").querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    row?.setAttribute("aria-current", "true");
    state.problem = problem;
    const one = here(problem), traces = await unpack(one.block);
    if (state.problem !== problem) return;
    const nodes = [make("h3", "", problem.id), make("div", "sub", problem.subset)];
    if (problem.statement) {
      const said = make("div", "statement");
      fill(said, addMath(said, problem.statement), problem.statement.length);
      nodes.push(said);
    }
    const gold = make("div", "", problem.gold ? `gold: ${long(problem.gold)}` : "");
    if (!one.kind) gold.append(make("b", "", `  ·  voted: ${one.answer === null ? "none" : long(one.answer)} (${verdictWords[one.verdict]})  ·  ${one.seconds} s`));
    nodes.push(gold);
    if (one.votes.length) nodes.push(votes(one));
    const samples = make("div", "samples"), trace = make("div", "trace"), facts = make("p", "note");
    traces.forEach((sample, position) => {
      const button = make("button", sample[2], `#${sample[0]} ${sample[2] === "equal" ? "✓" : sample[2] === "none" ? "–" : "✗"} ${brief(sample[1] ?? "")} · ${sample[4].toLocaleString("en")}`);
      button.type = "button";
      button.onclick = () => show(sample, button);
      if (!one.kind) samples.append(button);
    });
    const show = (sample, button) => {
      for (const other of samples.children) other.setAttribute("aria-pressed", String(other === button));
      read(sample, one, facts, trace);
    };
    nodes.push(samples, facts, trace);
    $("detail").replaceChildren(...nodes);
    if (traces.length) show(traces[firstShown(traces)], samples.children[firstShown(traces)]);
  }
  const firstShown = (traces) => Math.max(0, traces.findIndex((sample) => sample[3] === 0));
  function votes(one) {
    const node = make("div", "votes");
    for (const [position, [answer, count, verdict]] of one.votes.entries()) {
      const line = make("div", "bar"), part = make("i", verdict + (position === 0 ? " won" : ""));
      part.style.width = `${(100 * count) / Math.max(1, one.n)}%`;
      line.append(part);
      const name = make("span", "", brief(answer));
      name.title = brief(answer);
      node.append(name, line, make("span", "sub", `${count}${position === 0 ? ", wins" : ""}, ${verdictWords[verdict]}`));
    }
    return node;
  }
  function read(sample, one, facts, node) {
    const [index, answer, verdict, , tokens, finish, seconds, logprob, , front, back] = sample;
    facts.textContent = one.kind === "row" ? `${tokens} tokens; what carries loss is marked`
      : one.kind === "dropped" ? `left out: ${finish}`
      : `sample ${index}: ${answer === null ? "no answer" : `answer ${long(answer)}`}, ${verdictWords[verdict]}; ${tokens.toLocaleString("en")} tokens, ended by ${finish}, `
        + `${seconds} s${logprob === null ? "" : `, mean log-probability ${logprob.toFixed(3)}`}`;
    const words = $("deep").checked ? wanted() : "";
    node.replaceChildren();
    fill(node, addTrace(node, sample, words), front.length + back.length);
    node.scrollTop = 0;
  }
  function* addTrace(node, [, , , , , , , , loss, front, back, left], words) {
    if (loss === null) yield* addText(node, front, words);
    else {
      yield* addText(node, front.slice(0, loss), words);
      const marked = make("span", "loss");
      marked.append(make("span", "lossmark", "loss from here"));
      node.append(marked);
      yield* addText(marked, front.slice(loss), words);
    }
    if (left) {
      node.append(make("span", "gap", `${left.toLocaleString("en")} characters are left out here; samples.jsonl has them all`));
      yield* addText(node, back, words);
    }
  }
  function controls() {
    content.runs.forEach((run, position) => $("run").append(new Option(run.name, position)));
    $("run").hidden = content.runs.length < 2;
    $("run").onchange = (event) => { state.run = Number(event.target.value); state.filter = "all"; filters(); again().then(stay); };
    for (const [key, [words]] of Object.entries(SORTS)) $("sort").append(new Option(words, key));
    $("sort").onchange = (event) => { state.sort = event.target.value; again(); };
    let timer;
    const later = () => { clearTimeout(timer); timer = setTimeout(again, 150); };
    $("search").oninput = later;
    $("deep").onchange = later;
    filters();
  }
  function filters() {
    const some = content.problems.filter(here);
    const buttons = Object.entries(FILTERS).map(([key, [words, keep]]) => {
      const count = some.filter(keep).length;
      if (key !== "all" && !count) return null;
      const button = make("button", "", key === "all" ? words : `${words} ${count}`);
      button.type = "button";
      button.dataset.filter = key;
      button.setAttribute("aria-pressed", String(key === state.filter));
      button.onclick = () => { state.filter = key; filters(); again(); };
      return button;
    });
    $("filters").replaceChildren(...buttons.filter(Boolean));
  }
  drawAll();
  if (!("DecompressionStream" in window)) {
    $("detail").textContent = "The reader needs a browser of 2023 or later; the rest of the page does not.";
  } else if (content.problems.length) {
    controls();
    list().then(stay);
  } else $("reader").hidden = true;
})();
