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
