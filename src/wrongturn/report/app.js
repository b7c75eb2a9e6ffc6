// The viewer and the charts of a wrongturn report. No framework; nothing is fetched: the page carries its data.
//
// Text from outside only ever becomes a text node or an attribute's value, never HTML. The data format is described in
// blocks.py, whose writer this is the reader of.
"use strict";
(() => {

// -- small tools ------------------------------------------------------------------------------------------------------

const $ = (selector, root = document) => root.querySelector(selector);

/** An element; strings among the children become text nodes. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== ""));
  return node;
}

const div = (name, ...children) => el("div", { class: name }, ...children);
const span = (name, ...children) => el("span", { class: name }, ...children);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const thousands = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const percent = (share) => (share > 0 && share < 0.005 ? "<1" : Math.round(100 * share)) + "\u202f%";
const nats = (value) => (Number.isNaN(value) || value == null ? "unknown" : value.toFixed(value < 10 ? 2 : 1));

function chance(p) {
  if (Number.isNaN(p)) return "unknown";
  if (p >= 0.995 && p < 1) return p.toFixed(4); // 1.00 would say that nothing else was possible
  if (p >= 0.01 || p === 0) return p.toFixed(2);
  return p.toPrecision(1);
}

const plural = (n, word) => `${thousands(n)} ${word}${n === 1 ? "" : "s"}`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const nextFrame = () => new Promise((done) => requestAnimationFrame(done));
const breathe = () => new Promise((done) => setTimeout(done));

// -- data -------------------------------------------------------------------------------------------------------------

/** The bytes of an embedded zlib + base64 block. */
async function inflate(id) {
  const text = atob(document.getElementById(id).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const BOUNDARY = 1, FORK = 2, LISTED = 4, ERROR_SHIFT = 3;
const UNKNOWN = 65535;

/** The columns of one block: views on its bytes, in the order blocks.py wrote them. */
class Block {
  constructor(bytes, [tokens, listed], { width, top }) {
    let at = 0;
    const take = (length) => bytes.subarray(at, (at += length));
    const planes = (length, count) => Array.from({ length: count }, () => take(length));
    this.texts = planes(tokens, width);
    this.entropy = planes(tokens, 2);
    this.nll = planes(tokens, 2);
    this.margin = take(tokens);
    this.flags = take(tokens);
    this.others = planes(listed * top, width);
    this.chances = take(listed * top);
    this.rank = null;
  }

  /** Where the alternatives of a token stand: how many listed tokens are before it. */
  listedBefore(token) {
    if (!this.rank) {
      this.rank = new Int32Array(this.flags.length + 1);
      for (let i = 0; i < this.flags.length; i++) this.rank[i + 1] = this.rank[i] + (this.flags[i] & LISTED ? 1 : 0);
    }
    return this.rank[token];
  }
}

function plane(planes, i) {
  let value = 0;
  for (let p = planes.length - 1; p >= 0; p--) value = value * 256 + planes[p][i];
  return value;
}

/** The tokens of one trace. */
class Tokens {
  constructor(block, offset, count, index) {
    Object.assign(this, { block, offset, count, index });
  }
  key(i) { return plane(this.block.texts, this.offset + i); }
  text(i) { return this.index.tokens[this.key(i)]; }
  entropy(i) { return nats16(plane(this.block.entropy, this.offset + i)); }
  nll(i) { return nats16(plane(this.block.nll, this.offset + i)); }
  margin(i) { const m = this.block.margin[this.offset + i]; return m === 255 ? NaN : m / 254; }
  ends(i) { return (this.block.flags[this.offset + i] & BOUNDARY) !== 0; }
  fork(i) { return (this.block.flags[this.offset + i] & FORK) !== 0; }
  error(i) { return this.block.flags[this.offset + i] >> ERROR_SHIFT; }

  /** [{text, p}], best first; null where they were left out of the page or never known. */
  alternatives(i) {
    if (!(this.block.flags[this.offset + i] & LISTED)) return null;
    const { top, tokens } = this.index;
    const start = this.block.listedBefore(this.offset + i) * top;
    const found = [];
    for (let j = start; j < start + top; j++) {
      const key = plane(this.block.others, j);
      if (key) found.push({ key, text: tokens[key], p: (this.block.chances[j] / 254) ** 2 });
    }
    return found;
  }
}

const nats16 = (value) => (value === UNKNOWN ? NaN : value / 1000);

/** All traces: columns of the list, and their tokens when asked for. */
class Run {
  constructor(index) {
    this.index = index;
    this.rows = index.traces;
    this.count = this.rows.id.length;
    this.numbers = new Map(this.rows.id.map((id, i) => [id, i]));
    this.blocks = new Map();
    this.texts = new Map();
    this.children = groupBy(this.rows.parent, this.count, (parent) => parent >= 0);
    this.ofProblem = groupBy(this.rows.problem, this.count, () => true);
  }

  async tokens(i) {
    const { block, offset, stored } = this.rows;
    if (!stored[i]) return null;
    if (!this.blocks.has(block[i])) this.blocks.set(block[i], this.load(block[i]));
    return new Tokens(await this.blocks.get(block[i]), offset[i], stored[i], this.index);
  }

  async load(number) {
    return new Block(await inflate(`block-${number}`), this.index.blocks[number], this.index);
  }

  prompt(i) { return this.index.problems[this.rows.problem[i]][1]; }
  reference(i) { return this.index.problems[this.rows.problem[i]][2]; }
  strategy(i) { return this.index.strategies[this.rows.strategy[i]]; }
  group(i) { return this.index.groups[this.rows.group[i]]; }
  error(i) { return this.index.errors[this.rows.error[i]]; }

  /** "wrong", "slip" (right answer, wrong process), "right", "ungraded", or "draft": a branch its strategy left. */
  outcome(i) {
    const correct = this.rows.correct[i];
    if (this.rows.finish[i] === "until" && this.rows.answer[i] == null) return "draft";
    if (correct < 0) return "ungraded";
    if (!correct) return "wrong";
    return this.rows.onset[i] >= 0 ? "slip" : "right";
  }

  /** Whether it was forked from a trace that ended wrong, and ended right itself. */
  rescued(i) {
    const parent = this.rows.parent[i];
    return parent >= 0 && this.rows.correct[i] === 1 && this.outcome(parent) === "wrong";
  }

  /** What the search looks into; kept, since a search is typed letter by letter. */
  async text(i) {
    if (!this.texts.has(i)) {
      const tokens = await this.tokens(i);
      const completion = tokens ? plainText(tokens) : this.index.texts[i] ?? "";
      this.texts.set(i, `${this.rows.id[i]}\n${this.prompt(i) ?? ""}\n${completion}\n${this.rows.answer[i] ?? ""}`);
    }
    return this.texts.get(i);
  }
}

function groupBy(keys, count, wanted) {
  const groups = new Map();
  for (let i = 0; i < count; i++) {
    if (!wanted(keys[i])) continue;
    if (!groups.has(keys[i])) groups.set(keys[i], []);
    groups.get(keys[i]).push(i);
  }
  return groups;
}

const isBlank = (text) => text === "\0";

function plainText(tokens) {
  const parts = new Array(tokens.count);
  for (let i = 0; i < tokens.count; i++) {
    const text = tokens.text(i);
    parts[i] = isBlank(text) ? "" : text;
  }
  return parts.join("");
}

const OUTCOMES = {
  wrong: "wrong", slip: "right, wrong process", right: "right", ungraded: "ungraded", draft: "left unfinished",
};
const outcomeTag = (outcome) => span(`outcome ${outcome}`, OUTCOMES[outcome]);

function turnText([name, meaning]) {
  return `first wrong token: ${name || "of no known class"}${meaning ? ` — ${meaning}` : ""}`;
}

// -- the list: only the rows in sight are in the document -------------------------------------------------------------

const ROW = 58;

class List {
  constructor(host, run, open) {
    Object.assign(this, { host, run, shown: [], open: -1, snippets: new Map() });
    this.body = el("div");
    host.append(this.body);
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; this.draw(); });
    };
    host.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(later).observe(host);
    host.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) open(Number(row.dataset.trace));
    });
  }

  show(traces, snippets) {
    this.shown = traces;
    this.snippets = snippets;
    this.body.style.height = `${traces.length * ROW}px`;
    this.host.scrollTop = 0;
    this.draw();
  }

  /** Mark the open trace and bring its row into sight. */
  mark(trace) {
    this.open = trace;
    const at = this.shown.indexOf(trace);
    const top = at * ROW;
    const { scrollTop, clientHeight } = this.host;
    if (at >= 0 && (top < scrollTop || top + ROW > scrollTop + clientHeight)) {
      this.host.scrollTop = top - clientHeight / 2 + ROW / 2;
    }
    this.draw();
  }

  draw() {
    const first = Math.max(Math.floor(this.host.scrollTop / ROW) - 4, 0);
    const last = Math.min(first + Math.ceil(this.host.clientHeight / ROW) + 8, this.shown.length);
    const rows = [];
    for (let at = first; at < last; at++) rows.push(this.row(at));
    this.body.replaceChildren(...rows);
    const marked = this.body.querySelector("[aria-selected=true]");
    if (marked) this.host.setAttribute("aria-activedescendant", marked.id);
    else this.host.removeAttribute("aria-activedescendant");
  }

  row(at) {
    const i = this.shown[at], { rows } = this.run, outcome = this.run.outcome(i), onset = rows.onset[i];
    const row = el("div", {
      class: "row", id: `row-${i}`, role: "option", "data-trace": i, "aria-selected": String(i === this.open),
      "aria-posinset": at + 1, "aria-setsize": this.shown.length,
    },
      el("div", {}, el("span", { class: "name", title: rows.id[i] }, rows.id[i]), outcomeTag(outcome)),
      el("div", {}, this.what(i)));
    row.style.top = `${at * ROW}px`;
    if (onset >= 0 && onset < rows.length[i]) {
      const tick = el("i");
      tick.style.left = `${clamp((100 * onset) / rows.length[i], 0, 99)}%`;
      row.append(el("div", { class: "track", "aria-hidden": "true" }, tick));
    }
    return row;
  }

  /** The second line: what was searched for in its surroundings, or what the trace is. */
  what(i) {
    const snippet = this.snippets.get(i);
    if (snippet) return el("span", { class: "what" }, snippet[0], el("mark", {}, snippet[1]), snippet[2]);
    const { rows } = this.run, onset = rows.onset[i];
    const parts = [plural(rows.length[i], "token")];
    if (onset >= 0 && onset < rows.length[i]) parts.unshift(`${this.run.error(i)[0] || "error"} at ${thousands(onset + 1)}`);
    else if (onset >= 0 && this.run.outcome(i) !== "draft") parts.unshift("cut off");
    else if (rows.entropy[i] != null) parts.push(`mean ${nats(rows.entropy[i])} nats`);
    parts.push(this.run.strategy(i));
    return el("span", { class: "what" }, parts.filter(Boolean).join(" · "));
  }
}

// -- filters, order and search ----------------------------------------------------------------------------------------

const SELECTIONS = {
  all: ["all", () => true],
  failures: ["failures", (run, i) => run.outcome(i) === "wrong"],
  slips: ["right answer, wrong process", (run, i) => run.outcome(i) === "slip"],
  right: ["right in every token", (run, i) => run.outcome(i) === "right"],
  rescued: ["rescued from a lost trace", (run, i) => run.rescued(i)],
  unanswered: ["failures without an answer", (run, i) => run.outcome(i) === "wrong" && run.rows.answer[i] == null],
  drafts: ["branches left unfinished", (run, i) => run.outcome(i) === "draft"],
  ungraded: ["ungraded", (run, i) => run.outcome(i) === "ungraded"],
};

const FAR = Number.MAX_VALUE; // what has no value sorts last, whichever way
const ORDERS = {
  collected: ["as collected", (run, i) => i],
  longest: ["longest first", (run, i) => -run.rows.length[i]],
  shortest: ["shortest first", (run, i) => run.rows.length[i]],
  early: ["earliest wrong token", (run, i) => (run.rows.onset[i] >= 0 ? run.rows.onset[i] : FAR)],
  late: ["latest wrong token", (run, i) => (run.rows.onset[i] >= 0 ? -run.rows.onset[i] : FAR)],
  unsure: ["highest mean entropy", (run, i) => (run.rows.entropy[i] == null ? FAR : -run.rows.entropy[i])],
  sure: ["lowest mean entropy", (run, i) => run.rows.entropy[i] ?? FAR],
};

class Finder {
  constructor(run, list) {
    Object.assign(this, { run, list, turn: 0 });
    const ids = ["query", "outcome", "group", "strategy", "error", "sort"];
    this.fields = Object.fromEntries(ids.map((id) => [id, $(`#${id}`)]));
    this.fill();
    for (const [id, field] of Object.entries(this.fields)) {
      field.addEventListener(id === "query" ? "input" : "change", () => this.apply(id));
    }
    $(".filters").addEventListener("submit", (event) => event.preventDefault());
  }

  fill() {
    const { run, fields } = this, { rows, index } = run;
    const add = (field, value, text) => field.append(el("option", { value, "data-text": text }, text));
    for (const [name, [text, wanted]] of Object.entries(SELECTIONS)) {
      if (name === "all" || name === "failures" || rows.id.some((_, i) => wanted(run, i))) add(fields.outcome, name, text);
    }
    for (const [name, [text]] of Object.entries(ORDERS)) add(fields.sort, name, text);
    this.columns = { group: rows.group, strategy: rows.strategy, error: rows.error };
    const names = { group: index.groups, strategy: index.strategies, error: index.errors.map(([name]) => name) };
    for (const [id, column] of Object.entries(this.columns)) {
      const used = new Set(column);
      add(fields[id], "", "all");
      names[id].forEach((name, k) => used.has(k) && name && add(fields[id], k, name));
    }
  }

  /** Whether a trace is what one field asks for, with its own value or another. */
  fits(i, id, value = this.fields[id].value) {
    if (id === "outcome") return SELECTIONS[value || "all"][1](this.run, i);
    return value === "" || this.columns[id][i] === Number(value);
  }

  /** Traces that pass the filters, one of them perhaps left aside. */
  passing(but = "") {
    const filters = ["outcome", ...Object.keys(this.columns)].filter((id) => id !== but);
    return [...this.run.rows.id.keys()].filter((i) => filters.every((id) => this.fits(i, id)));
  }

  /** Say at every choice how many traces it would leave, given the other filters. */
  recount() {
    for (const id of ["outcome", ...Object.keys(this.columns)]) {
      const rest = this.passing(id);
      for (const option of this.fields[id].options) {
        const left = rest.filter((i) => this.fits(i, id, option.value)).length;
        option.textContent = `${option.dataset.text} (${thousands(left)})`;
      }
    }
  }

  get query() { return this.fields.query.value.trim().toLowerCase(); }

  reset() {
    this.fields.query.value = "";
    for (const id of ["outcome", "group", "strategy", "error"]) this.fields[id].selectedIndex = 0;
    return this.apply();
  }

  async apply(changed) {
    const turn = ++this.turn, { run, fields } = this;
    const key = ORDERS[fields.sort.value || "collected"][1];
    let found = this.passing();
    if (changed !== "query") this.recount();
    const keys = new Map(found.map((i) => [i, key(run, i)]));
    found.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
    const snippets = new Map();
    if (this.query) found = await this.search(found, this.query, snippets, turn);
    if (turn !== this.turn) return; // another letter was typed meanwhile
    this.list.show(found, snippets);
    this.say(found.length);
  }

  say(n) {
    const all = plural(this.run.count, "trace");
    $("#count").textContent = n === this.run.count ? all : `${thousands(n)} of ${all}`;
  }

  /** Traces that hold the text, searched in slices so that typing stays fluent. */
  async search(traces, query, snippets, turn) {
    const found = [];
    let slice = performance.now();
    for (const [done, i] of traces.entries()) {
      const text = await this.run.text(i);
      const at = text.toLowerCase().indexOf(query);
      if (at >= 0) {
        found.push(i);
        const ends = [Math.max(at - 14, 0), at, at + query.length, at + query.length + 60];
        snippets.set(i, [0, 1, 2].map((k) => text.slice(ends[k], ends[k + 1]).replace(/\s+/g, " ")));
      }
      if (performance.now() - slice > 24) {
        $("#count").textContent = `searching: ${percent(done / traces.length)}`;
        await breathe();
        if (turn !== this.turn) break;
        slice = performance.now();
      }
    }
    return found;
  }
}

// -- the tokens of one trace: chunks that fill themselves when they come into sight -----------------------------------

const CHUNK = 320; // tokens; a chunk ends with a step unless the step is longer than two chunks
const INLINE = 90; // tokens of a step from which its remark stands at the token instead of below the step

class TokenView {
  /**
   * @param {Element} scroller what scrolls; chunks empty themselves when they are far from it
   * @param {object} options from, to: the tokens shown; hits: which tokens match the search; forks: remarks by token
   */
  constructor(scroller, run, trace, tokens, { from = 0, to = tokens.count, hits = null, remarks = new Map(), tip }) {
    Object.assign(this, { scroller, run, trace, tokens, from, to, hits, remarks, tip });
    this.onset = run.rows.onset[trace];
    this.current = clamp(this.onset >= 0 ? this.onset : from, from, Math.max(to - 1, from));
    this.node = el("div", { class: "tokens", role: "group", "aria-label": `tokens of ${run.rows.id[trace]}` });
    this.steps = stepsOf(tokens, from, to);
    this.chunks = this.chunked();
    this.node.append(...this.chunks.map((chunk) => chunk.node));
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { root: scroller, rootMargin: "900px 0px" });
    for (const chunk of this.chunks) this.observer.observe(chunk.node);
    this.listen();
  }

  destroy() { this.observer.disconnect(); }

  chunked() {
    const chunks = [];
    let start = 0, tokens = 0;
    this.steps.forEach((step, s) => {
      tokens += step.stop - step.start;
      if (tokens >= CHUNK || s === this.steps.length - 1) {
        chunks.push({ node: el("div", { class: "chunk" }), first: start, last: s, filled: false });
        start = s + 1;
        tokens = 0;
      }
    });
    for (const chunk of chunks) {
      this.estimate(chunk);
      chunk.node.chunk = chunk;
    }
    return chunks;
  }

  /** A height for a chunk that was never drawn, so that the scroll bar means something. */
  estimate(chunk) {
    const columns = Math.max(Math.floor(((this.scroller.clientWidth || 700) - 70) / 9), 20);
    let lines = 0;
    for (let s = chunk.first; s <= chunk.last; s++) {
      const { start, stop } = this.steps[s];
      let width = 0;
      for (let i = start; i < stop; i++) width += this.tokens.text(i).length;
      lines += Math.max(Math.ceil(width / columns), 1);
    }
    chunk.node.style.height = `${lines * 26}px`;
  }

  seen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.fill(target.chunk);
      else if (target.chunk.filled && this.chunks.length > 12) this.clear(target.chunk);
    }
  }

  fill(chunk) {
    if (chunk.filled) return;
    chunk.filled = true;
    chunk.node.style.height = "";
    const nodes = [];
    for (let s = chunk.first; s <= chunk.last; s++) nodes.push(this.step(this.steps[s]));
    chunk.node.replaceChildren(...nodes);
  }

  clear(chunk) {
    if (chunk.node.contains(document.activeElement)) return;
    chunk.node.style.height = `${chunk.node.offsetHeight}px`;
    chunk.node.replaceChildren();
    chunk.filled = false;
  }

  step({ number, start, stop }) {
    const { tokens, onset } = this;
    const after = onset >= 0 && stop > onset;
    const line = el("div", { class: after ? "step after" : "step", "data-n": number ?? "" });
    const inline = stop - start > INLINE;
    for (let i = start; i < stop; i++) {
      line.append(...(this.remarks.get(i) ?? []).map((remark) => remark()));
      line.append(this.token(i));
      if (i === onset && inline) line.append(this.turn());
    }
    const error = tokens.error(stop - 1);
    if (error && onset < start) line.append(el("span", { class: "aside" }, this.run.index.errors[error][0]));
    if (onset >= start && onset < stop && !inline) line.append(this.turn());
    if (stop === this.to && this.to === tokens.count) line.append(...this.ending());
    return line;
  }

  turn() { return el("span", { class: "turn" }, `↑ ${turnText(this.run.error(this.trace))}`); }

  /** What stands after the last token: an onset that is the lack of a token, or where the page stops short. */
  ending() {
    const length = this.run.rows.length[this.trace];
    const nodes = (this.remarks.get(length) ?? []).map((remark) => remark());
    const missing = length - this.tokens.count;
    if (missing > 0) nodes.push(span("aside", `${plural(missing, "more token")} left out of this page`));
    else if (this.onset >= length && this.run.outcome(this.trace) !== "draft") {
      nodes.push(span("t blank onset", "⟨stops here⟩"), this.turn());
    }
    return nodes;
  }

  token(i) {
    const { tokens } = this, text = tokens.text(i), entropy = tokens.entropy(i);
    const node = el("span", { class: "t", "data-i": i });
    if (isBlank(text)) node.classList.add("blank");
    node.textContent = isBlank(text) ? this.blank(i) : visible(text);
    if (Number.isNaN(entropy)) node.classList.add("unknown");
    else if (entropy >= 0.005) node.style.setProperty("--e", shade(entropy / this.run.index.scale));
    if (this.hits?.[i]) node.classList.add("hit");
    if (i === this.onset) node.classList.add("onset");
    node.tabIndex = i === this.current ? 0 : -1;
    return node;
  }

  /** What stands for a token without text: the end, or else nothing one could read. */
  blank(i) {
    const { length, finish } = this.run.rows;
    return i === length[this.trace] - 1 && finish[this.trace] === "stop" ? "end" : "∅";
  }

  /** The token's element, drawn if it was not. */
  reach(i) {
    const chunk = this.chunks.find(({ last }) => this.steps[last].stop > i);
    if (!chunk) return null;
    this.fill(chunk);
    return chunk.node.querySelector(`[data-i="${i}"]`);
  }

  focus(i, { quiet = false } = {}) {
    i = clamp(i, this.from, this.to - 1);
    const before = this.node.querySelector('.t[tabindex="0"]');
    if (before) before.tabIndex = -1;
    this.current = i;
    const node = this.reach(i);
    if (!node) return;
    node.tabIndex = 0;
    if (!quiet) node.focus({ preventScroll: true });
    scrollInto(this.scroller, node);
  }

  /** Bring a token into sight and mark it; what comes in above it may move it, so look again once that is drawn. */
  async jump(i, mark = true) {
    const node = this.reach(clamp(i, this.from, this.to - 1));
    if (!node) return;
    for (const old of this.scroller.querySelectorAll(".cursor")) old.classList.remove("cursor");
    for (let turn = 0; turn < 4; turn++) {
      scrollInto(this.scroller, node, true);
      await nextFrame();
    }
    if (mark) node.classList.add("cursor");
  }

  listen() {
    const token = (event) => event.target.closest?.(".t[data-i]");
    const show = (event) => {
      const node = token(event);
      if (node) this.tip.show(this, Number(node.dataset.i), node);
    };
    this.node.addEventListener("pointerover", show);
    this.node.addEventListener("focusin", show);
    this.node.addEventListener("pointerout", () => this.tip.hide());
    this.node.addEventListener("focusout", () => this.tip.hide());
    this.node.addEventListener("click", (event) => {
      const node = token(event);
      if (!node) return;
      this.focus(Number(node.dataset.i));
      show(event); // a tap: the pointer has already left again
    });
    this.node.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      event.preventDefault();
      this.focus(this.current + move);
    });
  }
}

const shade = (share) => `${Math.round(100 * clamp(share, 0, 1))}%`;

/** Steps as {number, start, stop}; one longer than two chunks is continued without a number. */
function stepsOf(tokens, from, to) {
  const steps = [];
  let number = 1, start = from, fresh = true;
  for (let i = 0; i < from; i++) number += tokens.ends(i);
  for (let i = from; i < to; i++) {
    const ends = tokens.ends(i);
    if (!ends && i < to - 1 && i - start < 2 * CHUNK) continue;
    steps.push({ number: fresh ? number : null, start, stop: i + 1 });
    fresh = ends;
    number += ends;
    start = i + 1;
  }
  return steps;
}

const visible = (text) => text.replace(/\n/g, "↵\n").replace(/\t/g, "→\t");

function scrollInto(scroller, node, centre = false) {
  const box = node.getBoundingClientRect(), view = scroller.getBoundingClientRect();
  if (centre) scroller.scrollTop += box.top - view.top - view.height / 3;
  else if (box.top < view.top + 8) scroller.scrollTop += box.top - view.top - 40;
  else if (box.bottom > view.bottom - 8) scroller.scrollTop += box.bottom - view.bottom + 40;
}

/** Which tokens hold a piece of what was searched for; null if none does. */
function hitsOf(tokens, query) {
  if (!query) return null;
  const text = plainText(tokens).toLowerCase();
  let at = text.indexOf(query);
  if (at < 0) return null;
  const hits = new Uint8Array(tokens.count);
  for (let i = 0, start = 0; i < tokens.count && at >= 0; i++) {
    const piece = tokens.text(i), stop = start + (isBlank(piece) ? 0 : piece.length);
    while (at >= 0 && at + query.length <= start) at = text.indexOf(query, at + query.length);
    if (at >= 0 && at < stop) hits[i] = 1;
    start = stop;
  }
  return hits;
}

// -- what a token shows when it is pointed at or focused --------------------------------------------------------------

class Tip {
  constructor(node) {
    this.node = node;
    this.anchor = null;
    document.addEventListener("scroll", () => this.anchor && this.place(), { passive: true, capture: true });
  }

  hide() {
    this.node.hidden = true;
    this.anchor?.removeAttribute("aria-describedby");
    this.anchor = null;
  }

  show(view, i, at) {
    const { tokens, run, trace } = view, place = `token ${thousands(i + 1)} of ${thousands(run.rows.length[trace])}`;
    this.node.replaceChildren(
      div("token", quoted(tokens.text(i))),
      div("where", tokens.fork(i) ? `${place}, a near tie` : place),
      i === view.onset ? div("what", turnText(run.error(trace))) : "",
      ...this.figures(tokens, i));
    this.hide();
    this.anchor = at;
    at.setAttribute("aria-describedby", "tip");
    this.node.hidden = false;
    this.place();
  }

  figures(tokens, i) {
    const nll = tokens.nll(i), entropy = tokens.entropy(i);
    if (Number.isNaN(nll) && Number.isNaN(entropy)) return [div("where", "written by the strategy, or not measured")];
    const facts = {
      probability: chance(Math.exp(-nll)),
      entropy: Number.isNaN(entropy) ? "unknown" : `${nats(entropy)} nats`,
      margin: chance(tokens.margin(i)),
    };
    const pairs = Object.entries(facts).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
    return [el("dl", {}, ...pairs), this.alternatives(tokens, i)];
  }

  alternatives(tokens, i) {
    const found = tokens.alternatives(i), chosen = tokens.key(i);
    if (!found) return tokens.index.top ? div("where", "alternatives left out") : "";
    return el("table", {}, ...found.map(({ key, text, p: rounded }) => {
      const bar = el("i"), p = key === chosen ? Math.exp(-tokens.nll(i)) : rounded; // the chosen one is known better
      bar.style.width = `${100 * p}%`;
      const cells = [el("td", {}, quoted(text)), el("td", { class: "meter" }, bar), el("td", {}, chance(p))];
      return el("tr", { class: key === chosen ? "chosen" : "" }, ...cells);
    }));
  }

  /** Below the token, or above where there is no room; always within the window. */
  place() {
    const token = this.anchor.getClientRects()[0], { offsetWidth, offsetHeight } = this.node;
    if (!token) return this.hide(); // its chunk has emptied itself
    const below = token.bottom + 8 + offsetHeight < innerHeight;
    this.node.style.left = `${clamp(token.left, 8, Math.max(innerWidth - offsetWidth - 8, 8))}px`;
    this.node.style.top = `${Math.max(below ? token.bottom + 8 : token.top - offsetHeight - 8, 4)}px`;
  }
}

/** A token's text, in quotes where one could not see where it ends. */
function quoted(text) {
  if (isBlank(text)) return "(no text)";
  return text.trim() === text ? text : `“${text.replace(/\n/g, "↵").replace(/\t/g, "→")}”`;
}

// -- charts -----------------------------------------------------------------------------------------------------------

const SANS = () => `12px ${getComputedStyle(document.body).getPropertyValue("--sans")}`;

function axis(label, extra = {}) {
  return {
    label, labelFont: SANS(), font: SANS(), labelSize: label ? 20 : 0, labelGap: 2, stroke: colour("muted"),
    grid: { stroke: colour("rule"), width: 1 }, ticks: { stroke: colour("rule"), width: 1, size: 4 }, ...extra,
  };
}

/** A uPlot that is as wide as its host. */
function plot(host, options, data) {
  const width = () => Math.max(host.clientWidth, 120);
  const chart = new uPlot({ legend: { show: false }, ...options, width: width() }, data, host);
  const observer = new ResizeObserver(() => {
    if (Math.abs(chart.width - width()) > 1) chart.setSize({ width: width(), height: options.height });
  });
  observer.observe(host);
  return { chart, destroy() { observer.disconnect(); chart.destroy(); } };
}

/** A vertical line with a word at its head. */
function rule(u, x, text, stroke, dash = []) {
  const { ctx, bbox } = u, at = Math.round(u.valToPos(x, "x", true));
  if (at < bbox.left - 1 || at > bbox.left + bbox.width + 1) return;
  const scale = uPlot.pxRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = stroke;
  ctx.lineWidth = scale;
  ctx.setLineDash(dash.map((d) => d * scale));
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  if (text) {
    ctx.font = SANS().replace("12px", `${12 * scale}px`);
    ctx.textBaseline = "top";
    const right = at + ctx.measureText(text).width + 6 * scale > bbox.left + bbox.width;
    ctx.textAlign = right ? "right" : "left";
    ctx.fillText(text, at + (right ? -4 : 4) * scale, bbox.top + 2 * scale);
  }
  ctx.restore();
}

/** The lines of a chart, back to front: a band where there is one, the line it is compared with, the curve itself. */
function layers({ x, y, low, high }, ...others) {
  const series = [{}], data = [x];
  const add = (values, options) => {
    if (!values) return;
    series.push({ points: { show: false }, spanGaps: false, ...options });
    data.push(values);
  };
  const bands = low && high ? [{ series: [1, 2], fill: colour("band") }] : [];
  if (bands.length) for (const edge of [high, low]) add(edge, { stroke: "transparent", width: 0 });
  for (const [values, dash, name] of others) add(values, { stroke: colour(name), dash, width: 1.5 });
  add(y, { stroke: colour("blue"), width: 2 });
  return [{ series, bands, height: 300, cursor: { show: false } }, data];
}

function onsetChart(host, curve) {
  const [options, data] = layers(curve, [curve.x, [1.5, 3.5], "muted"], [curve.null, [6, 4], "ink"]);
  const values = (_, ticks) => ticks.map(percent);
  return plot(host, {
    ...options,
    scales: { x: { time: false, range: [0, 1] }, y: { range: [0, 1] } },
    axes: [
      axis("position in the trace", { values, space: 60, size: 30 }),
      axis("share of failures begun", { values, size: 52 }),
    ],
    hooks: { draw: [(u) => rule(u, 0.3, "30\u202f%", colour("muted"))] },
  }, data);
}

function entropyChart(host, curve) {
  const [options, data] = layers(curve, [curve.control, [6, 4], "ink"]);
  return plot(host, {
    ...options,
    scales: { x: { time: false }, y: { range: (u, min, max) => [0, (max || 1) * 1.08] } },
    axes: [axis("tokens from the first wrong token", { size: 30 }), axis("mean entropy, nats", { size: 52 })],
    hooks: { draw: [(u) => rule(u, 0, "first wrong token", colour("wrong"))] },
  }, data);
}

/** Entropy over a whole trace; a click goes to the token. */
function sparkline(host, tokens, { onset, marks, go }) {
  const { count } = tokens, few = count <= 400; // then every token is a bar, and the last one needs an end
  const x = Array.from({ length: count + few }, (_, i) => i);
  const y = x.map((i) => tokens.entropy(Math.min(i, count - 1))).map((value) => (Number.isNaN(value) ? null : value));
  const draw = (u) => {
    for (const at of marks) rule(u, at, "", colour("blue"), [3, 3]);
    if (onset >= 0 && onset < count) rule(u, onset + (few ? 0.5 : 0), "wrong", colour("wrong"));
  };
  const line = { stroke: colour("blue"), width: 1, points: { show: false } };
  if (few) Object.assign(line, { width: 1.25, fill: colour("band"), paths: uPlot.paths.stepped({ align: 1 }) });
  const whole = (_, ticks) => ticks.map((n) => (Number.isInteger(n) ? thousands(n) : ""));
  const made = plot(host, {
    height: 96, padding: [4, 4, 0, 0], series: [{}, line],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: {
      x: { time: false, range: [0, Math.max(x.length - 1, 1)] },
      y: { range: (u, min, max) => [0, Math.max(max ?? 0, 0.2)] },
    },
    axes: [axis("", { size: 24, space: 70, values: whole }), axis("", { size: 34, space: 30 })],
    hooks: { draw: [draw] },
  }, [x, y]);
  made.chart.over.addEventListener("click", (event) => {
    go(clamp(Math.floor(made.chart.posToVal(event.offsetX, "x")), 0, tokens.count - 1));
  });
  return made;
}

// -- the open trace ---------------------------------------------------------------------------------------------------

class Detail {
  constructor(host, run, { tip, step, open, close, query }) {
    Object.assign(this, { host, run, tip, stepTo: step, openTrace: open, close, query, trace: -1, views: [], charts: [] });
  }

  clear() {
    for (const view of this.views) view.destroy();
    for (const chart of this.charts) chart.destroy();
    this.views = [];
    this.charts = [];
    this.tip.hide();
  }

  /** Nothing is open. */
  rest() {
    this.clear();
    this.trace = -1;
    const said = this.run.count ? "Choose a trace from the list to read it token by token." : "This run has no traces.";
    this.host.replaceChildren(el("p", { class: "empty" }, said), keys());
  }

  async show(trace) {
    this.trace = trace;
    const tokens = await this.run.tokens(trace);
    if (this.trace !== trace) return; // another was opened meanwhile
    this.clear();
    const top = [this.head(trace, tokens), this.verdict(trace), this.facts(trace), ...this.prompt(trace)];
    if (!tokens) {
      this.host.replaceChildren(...top, this.instead(trace), keys());
      return;
    }
    const beside = this.relatives(trace), other = beside[0]?.family ? beside[0].trace : -1;
    const spark = div("spark");
    this.tokens = tokens;
    this.reader = el("div", { class: "reader", tabindex: -1 });
    this.host.replaceChildren(
      ...top, el("p", { class: "label" }, "Entropy over the trace (nats); click to go there"), spark,
      this.legend(), this.chooser(trace, beside, other), this.reader, keys());
    const [onset, marks] = [this.run.rows.onset[trace], this.marks(trace)];
    this.charts.push(sparkline(spark, tokens, { onset, marks, go: (i) => this.go(i) }));
    await this.read(other);
  }

  head(trace, tokens) {
    const onset = this.run.rows.onset[trace];
    const button = (text, act, id) => el("button", { type: "button", onclick: act, id }, text);
    return div("head", el("h3", { id: "open-title" }, this.run.rows.id[trace]), div("buttons",
      tokens && onset >= 0 ? button("to the wrong turn", () => this.go(onset), "to-onset") : "",
      button("previous", () => this.stepTo(-1)),
      button("next", () => this.stepTo(1)),
      button("close", () => this.close())));
  }

  /** One sentence on the answer, one on the process. */
  verdict(trace) {
    const { rows } = this.run, outcome = this.run.outcome(trace), answer = rows.answer[trace];
    const reference = this.run.reference(trace);
    const said = {
      wrong: "The answer is wrong", slip: "The answer is right, though the process is not", right: "The answer is right",
      ungraded: "The answer was not graded", draft: "This branch was left unfinished",
    }[outcome];
    const detail = [answer == null ? "none was given" : `it is ${answer}`];
    if (reference != null && reference !== answer) detail.push(`the reference is ${reference}`);
    const why = outcome === "draft" ? "its strategy went on elsewhere" : detail.join("; ");
    return el("p", { class: "verdict" }, span(`outcome ${outcome}`, said), `: ${why}.${this.process(trace)}`);
  }

  process(trace) {
    const { rows } = this.run, onset = rows.onset[trace], length = rows.length[trace];
    if (onset < 0) return "";
    if (onset < length) {
      return ` The first wrong token is number ${thousands(onset + 1)} of ${thousands(length)} (${percent(onset / length)}).`;
    }
    return this.run.outcome(trace) === "draft" ? "" : ` It stops after ${plural(length, "token")} without an end.`;
  }

  facts(trace) {
    const { rows } = this.run, parent = rows.parent[trace], entropy = rows.entropy[trace];
    const reason = rows.reason[trace] ? ` (${rows.reason[trace]})` : "";
    const facts = {
      distribution: this.run.group(trace),
      strategy: this.run.strategy(trace),
      sample: rows.sample[trace],
      draft: rows.draft[trace] || "",
      tokens: thousands(rows.length[trace]),
      decoded: rows.decoded[trace] > rows.length[trace] ? thousands(rows.decoded[trace]) : "",
      "mean entropy": entropy == null ? "" : `${nats(entropy)} nats`,
      "ended by": rows.finish[trace],
      "forked from": parent >= 0 ? `${rows.id[parent]} at ${thousands(rows.at[trace] + 1)}${reason}` : "",
    };
    const known = Object.entries(facts).filter(([, value]) => value !== "" && value != null);
    const pair = ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)));
    return el("dl", { class: "facts" }, ...known.map(pair));
  }

  prompt(trace) {
    const text = this.run.prompt(trace);
    if (text == null) return [];
    const box = { class: "prompt", tabindex: 0, role: "group", "aria-label": "prompt" };
    return [el("p", { class: "label" }, "Prompt"), el("div", box, text)];
  }

  /** What stands where the tokens are not in the page. */
  instead(trace) {
    const text = this.run.index.texts[trace];
    if (text) return div("prompt", text);
    const left = this.run.rows.length[trace] > 0;
    const why = left ? "The tokens of this trace were left out to keep the file small." : "This trace has no tokens.";
    return el("p", { class: "absent" }, why);
  }

  legend() {
    const { scale } = this.run.index;
    const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => {
      const node = span("t", `${share === 1 ? "≥" : ""}${Number((share * scale).toFixed(2))}`);
      node.style.setProperty("--e", shade(share));
      return node;
    });
    const turn = span("", span("t onset", "token"), "\u2002first wrong token; red rule: all that follows");
    return el("p", { class: "legend" }, span("", "entropy, nats ", ...steps), this.run.rows.onset[this.trace] >= 0 ? turn : "");
  }

  /** Traces worth reading beside this one: its family first, then others of the same problem, the most telling first. */
  relatives(trace) {
    const { run } = this, { rows } = run, parent = rows.parent[trace], found = new Map();
    const add = (other, relation, family) => {
      if (other === trace || other < 0 || !rows.stored[other] || found.has(other)) return;
      found.set(other, { trace: other, relation, family });
    };
    if (parent >= 0 && rows.length[parent] > rows.at[trace]) add(parent, "forked from", true); // else it is only a prefix
    for (const child of run.children.get(trace) ?? []) add(child, "its fork", true);
    if (parent >= 0) for (const sibling of run.children.get(parent) ?? []) add(sibling, "sibling", true);
    for (const other of (run.ofProblem.get(rows.problem[trace]) ?? []).slice(0, 200)) add(other, "same problem", false);
    const rank = ({ trace: other, family }) =>
      (family ? 0 : 4) + (run.outcome(other) === "draft" ? 2 : 0) + (rows.correct[other] !== rows.correct[trace] ? 0 : 1);
    return [...found.values()].sort((a, b) => rank(a) - rank(b)).slice(0, 60);
  }

  chooser(trace, beside, other) {
    if (!beside.length) return "";
    const option = ({ trace: t, relation }) =>
      el("option", { value: t, selected: t === other }, `${this.run.rows.id[t]}: ${relation}, ${OUTCOMES[this.run.outcome(t)]}`);
    const choose = (event) => this.read(Number(event.target.value));
    const none = el("option", { value: -1 }, "nothing");
    const select = el("select", { id: "beside", onchange: choose }, none, ...beside.map(option));
    return el("label", { class: "beside" }, "Beside it, from where they part ", select);
  }

  /** Draw the tokens, alone or beside another trace. */
  async read(other) {
    for (const view of this.views) view.destroy();
    this.views = [];
    this.tip.hide();
    const { trace, tokens, reader } = this;
    reader.scrollTop = 0;
    if (other < 0) {
      const view = this.view(trace, tokens);
      reader.replaceChildren(view.node);
    } else {
      const theirs = await this.run.tokens(other);
      if (this.trace !== trace) return;
      this.pair(trace, tokens, other, theirs);
    }
    this.other = other;
    const onset = this.run.rows.onset[trace];
    if (onset >= 0 && tokens.count > 60) await this.go(onset, false);
  }

  view(trace, tokens, options = {}) {
    const given = { hits: hitsOf(tokens, this.query()), remarks: this.remarks(trace), tip: this.tip };
    const view = new TokenView(this.reader, this.run, trace, tokens, { ...given, ...options });
    this.views.push(view);
    return view;
  }

  /** What both share, and below it, side by side, how each went on. */
  pair(trace, tokens, other, theirs) {
    const { rows } = this.run;
    const child = rows.parent[other] === trace ? other : rows.parent[trace] === other ? trace : -1;
    const fork = Math.min(shared(tokens, theirs), child >= 0 ? rows.at[child] : Infinity);
    const reason = child >= 0 && rows.reason[child] ? `; forked: ${rows.reason[child]}` : "";
    const column = (t, its) => {
      const title = el("h4", { title: rows.id[t] }, el("span", {}, rows.id[t]), outcomeTag(this.run.outcome(t)));
      return el("div", {}, title, fork < its.count ? this.view(t, its, { from: fork }).node : span("aside", "ends here"));
    };
    const said = fork ? `the first ${plural(fork, "token")} are the same${reason}` : "they differ from the first token";
    const common = fork ? [this.view(trace, tokens, { to: fork }).node] : [];
    this.reader.replaceChildren(...common, div("fork", said), div("pair", column(trace, tokens), column(other, theirs)));
  }

  /** Tokens of events and forks, for the line above. */
  marks(trace) {
    const at = (this.run.index.events[trace] ?? []).map(([token]) => token).filter((token) => token != null);
    return [...at, ...(this.run.children.get(trace) ?? []).map((child) => this.run.rows.at[child])];
  }

  /** What to write before which token: events of the strategy, and forks that begin there. */
  remarks(trace) {
    const { rows, index, children } = this.run, remarks = new Map(), length = rows.length[trace];
    const add = (at, make) => remarks.set(at, [...(remarks.get(at) ?? []), make]);
    for (const [at, name, detail] of index.events[trace] ?? []) {
      if (at != null) add(clamp(at, 0, length), () => span("flag", detail ? `${name}: ${detail}` : name));
    }
    const forks = new Map(); // many may begin at one token, for one reason
    for (const child of children.get(trace) ?? []) {
      const name = `${rows.at[child]} ${rows.reason[child]}`;
      forks.set(name, [...(forks.get(name) ?? []), child]);
    }
    for (const group of forks.values()) add(clamp(rows.at[group[0]], 0, length), () => this.forkFlag(group));
    return remarks;
  }

  /** A button that names forks from one place and opens one of them, a right one if there is. */
  forkFlag(forks) {
    const { run } = this, right = forks.filter((child) => run.rows.correct[child] === 1);
    const reason = run.rows.reason[forks[0]] ? ` (${run.rows.reason[forks[0]]})` : "";
    const target = right[0] ?? forks[0], title = `open ${run.rows.id[target]}`;
    let text = `${plural(forks.length, "fork")}${reason}: ${right.length} right`;
    if (forks.length === 1) text = `fork${reason}: ${OUTCOMES[run.outcome(target)]}`;
    return el("button", { type: "button", class: "flag", title, onclick: () => this.openTrace(target) }, text);
  }

  /** Go to a token of the open trace, in whichever part shows it. */
  go(i, mark = true) {
    const view = this.views.find((v) => v.trace === this.trace && i >= v.from && (i < v.to || v.to === this.tokens.count));
    return view?.jump(i, mark);
  }

  fillAll() {
    for (const view of this.views) if (view.to - view.from < 6000) view.chunks.forEach((chunk) => view.fill(chunk));
  }
}

function shared(a, b) {
  const n = Math.min(a.count, b.count);
  let i = 0;
  while (i < n && a.key(i) === b.key(i)) i++;
  return i;
}

function keys() {
  const names = { j: "next", k: "previous", "/": "search", o: "to the wrong turn", "← →": "token by token", Esc: "close" };
  const items = Object.entries(names).map(([name, what]) => span("", el("kbd", {}, name), ` ${what}`));
  return el("p", { class: "legend keys" }, ...items);
}

// -- the page ---------------------------------------------------------------------------------------------------------

class Page {
  constructor(run) {
    this.run = run;
    this.tip = new Tip($("#tip"));
    this.list = new List($("#list"), run, (i) => this.open(i));
    this.finder = new Finder(run, this.list);
    this.detail = new Detail($("#detail"), run, {
      tip: this.tip, step: (by) => this.step(by), open: (i) => this.open(i), close: () => this.close(),
      query: () => this.finder.query,
    });
    this.charts = [];
    this.drawCharts();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    addEventListener("hashchange", () => this.follow());
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("beforeprint", () => this.detail.fillAll());
  }

  async begin() {
    await this.finder.apply();
    if (await this.follow()) return;
    const { onset, stored } = this.run.rows;
    const failure = this.list.shown.find((i) => this.run.outcome(i) === "wrong" && onset[i] >= 0 && onset[i] < stored[i]);
    if (failure === undefined) this.detail.rest();
    else await this.open(failure, { link: false });
  }

  drawCharts() {
    for (const chart of this.charts) chart.destroy();
    const { onset, entropy } = this.run.index.charts;
    this.charts = [[onset, "onset", onsetChart], [entropy, "entropy", entropyChart]]
      .filter(([data, name]) => data && $(`#chart-${name}`))
      .map(([data, name, draw]) => draw($(`#chart-${name}`), data));
  }

  /** A canvas keeps the colours it was painted with. */
  recolour() {
    this.drawCharts();
    if (this.detail.trace >= 0) this.detail.show(this.detail.trace);
  }

  async open(i, { link = true } = {}) {
    if (link) history.replaceState(null, "", `#trace=${encodeURIComponent(this.run.rows.id[i])}`);
    this.list.mark(i);
    await this.detail.show(i);
    if (link && matchMedia("(max-width: 900px)").matches) $("#detail").scrollIntoView(); // it stands below the list there
  }

  close() {
    if (location.hash.startsWith("#trace=")) history.replaceState(null, "", location.pathname + location.search);
    this.list.mark(-1);
    this.detail.rest();
    $("#list").focus({ preventScroll: true });
  }

  step(by) {
    const { shown, open } = this.list, at = shown.indexOf(open);
    const next = shown[at < 0 ? 0 : clamp(at + by, 0, shown.length - 1)];
    if (next !== undefined && next !== open) this.open(next);
  }

  /** Open the trace the address names; true if it names one. */
  async follow() {
    if (!location.hash.startsWith("#trace=")) return false;
    let id;
    try { id = decodeURIComponent(location.hash.slice(7)); } catch { return false; }
    const i = this.run.numbers.get(id);
    if (i === undefined) return false;
    if (!this.list.shown.includes(i)) await this.finder.reset();
    await this.open(i, { link: false });
    $("#traces").scrollIntoView();
    return true;
  }

  key(event) {
    const field = event.target.closest?.("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return this.escape(field);
    if (field) return;
    const acts = {
      j: () => this.step(1),
      k: () => this.step(-1),
      o: () => this.detail.trace >= 0 && this.detail.go(this.run.rows.onset[this.detail.trace]),
      "/": () => this.finder.fields.query.focus(),
    };
    if (event.target.closest?.("#list")) Object.assign(acts, { ArrowDown: acts.j, ArrowUp: acts.k });
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** First the tooltip goes, then what was searched for, then the open trace. */
  escape(field) {
    if (!this.tip.node.hidden) this.tip.hide();
    else if (field && field.id === "query" && field.value) { field.value = ""; this.finder.apply(); }
    else if (field) field.blur();
    else this.close();
  }
}

async function main() {
  const root = document.documentElement;
  if (typeof DecompressionStream === "undefined") {
    const why = "This browser cannot inflate the data in this file (no DecompressionStream); any browser since 2023 can.";
    $("#detail").append(el("p", { class: "absent" }, why));
    return;
  }
  const index = JSON.parse(new TextDecoder().decode(await inflate("index")));
  await new Page(new Run(index)).begin();
  root.dataset.ready = "true";
}

main();

})();
