// The viewer and the charts of a wrongturn report. No framework; nothing is fetched: the page carries its data.
//
// Text from outside only ever becomes a text node or an attribute's value, never HTML. The data format is described in
// data.py, whose writer this is the reader of.
"use strict";
(() => {

// -- small tools -----------------------------------------------------------------------------------------------------

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

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const thousands = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const percent = (share) => (share > 0 && share < 0.005 ? "<1" : Math.round(100 * share)) + "\u202f%";
const nats = (value) => (Number.isNaN(value) || value == null ? "unknown" : value.toFixed(value < 10 ? 2 : 1));
const chance = (p) => (Number.isNaN(p) ? "unknown" : p >= 0.995 && p < 1 ? p.toFixed(4) : p >= 0.01 ? p.toFixed(2) : p > 0 ? p.toPrecision(1) : "0");
const plural = (n, word) => `${thousands(n)} ${word}${n === 1 ? "" : "s"}`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const nextFrame = () => new Promise((done) => requestAnimationFrame(done));
const breathe = () => new Promise((done) => setTimeout(done));

// -- data ------------------------------------------------------------------------------------------------------------

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

/** The columns of one block: views on its bytes, in the order data.py wrote them. */
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

const OUTCOMES = { wrong: "wrong", slip: "right, wrong process", right: "right", ungraded: "ungraded", draft: "left unfinished" };

function turnText([name, meaning]) {
  return `first wrong token: ${name || "of no known class"}${meaning ? ` — ${meaning}` : ""}`;
}

// -- the list: only the rows in sight are in the document ---------------------------------------------------------------

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
      el("div", {}, el("span", { class: "name", title: rows.id[i] }, rows.id[i]), el("span", { class: `outcome ${outcome}` }, OUTCOMES[outcome])),
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

// -- filters, order and search -----------------------------------------------------------------------------------------

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
    this.fields = Object.fromEntries(["query", "outcome", "group", "strategy", "error", "sort"].map((id) => [id, $(`#${id}`)]));
    this.fill();
    for (const [id, field] of Object.entries(this.fields)) {
      field.addEventListener(id === "query" ? "input" : "change", () => this.apply());
    }
    $(".filters").addEventListener("submit", (event) => event.preventDefault());
  }

  fill() {
    const { run, fields } = this, { rows, index } = run;
    for (const [name, [text, wanted]] of Object.entries(SELECTIONS)) {
      let n = 0;
      for (let i = 0; i < run.count; i++) n += wanted(run, i);
      if (n || name === "all" || name === "failures") fields.outcome.append(el("option", { value: name }, `${text} (${thousands(n)})`));
    }
    for (const [name, [text]] of Object.entries(ORDERS)) fields.sort.append(el("option", { value: name }, text));
    const choices = (field, names, column) => {
      field.append(el("option", { value: "" }, "all"));
      const counts = new Array(names.length).fill(0);
      for (let i = 0; i < run.count; i++) counts[column[i]]++;
      names.forEach((name, k) => {
        if (counts[k] && name) field.append(el("option", { value: k }, `${name} (${thousands(counts[k])})`));
      });
    };
    choices(fields.group, index.groups, rows.group);
    choices(fields.strategy, index.strategies, rows.strategy);
    choices(fields.error, index.errors.map(([name]) => name), rows.error);
  }

  get query() { return this.fields.query.value.trim().toLowerCase(); }

  reset() {
    this.fields.query.value = "";
    for (const id of ["outcome", "group", "strategy", "error"]) this.fields[id].selectedIndex = 0;
    return this.apply();
  }

  async apply() {
    const turn = ++this.turn, { run, fields } = this;
    const wanted = SELECTIONS[fields.outcome.value || "all"][1], key = ORDERS[fields.sort.value || "collected"][1];
    const chosen = ["group", "strategy", "error"].filter((id) => fields[id].value !== "").map((id) => [run.rows[id], Number(fields[id].value)]);
    let found = [];
    for (let i = 0; i < run.count; i++) {
      if (wanted(run, i) && chosen.every(([column, value]) => column[i] === value)) found.push(i);
    }
    const keys = new Map(found.map((i) => [i, key(run, i)]));
    found.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
    const snippets = new Map();
    if (this.query) found = await this.search(found, this.query, snippets, turn);
    if (turn !== this.turn) return; // another letter was typed meanwhile
    this.list.show(found, snippets);
    this.say(found.length);
  }

  say(n) {
    $("#count").textContent = n === this.run.count ? plural(n, "trace") : `${thousands(n)} of ${plural(this.run.count, "trace")}`;
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
        snippets.set(i, [clip(text.slice(Math.max(at - 14, 0), at)), clip(text.slice(at, at + query.length)), clip(text.slice(at + query.length, at + query.length + 60))]);
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

const clip = (text) => text.replace(/\s+/g, " ");

// -- the tokens of one trace: chunks that fill themselves when they come into sight -------------------------------------

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
    if (this.tokens.count < length) nodes.push(el("span", { class: "aside" }, `${thousands(length - this.tokens.count)} more tokens were left out of this page`));
    else if (this.onset >= length && this.run.outcome(this.trace) !== "draft") nodes.push(el("span", { class: "t blank onset" }, "⟨stops here⟩"), this.turn());
    return nodes;
  }

  token(i) {
    const { tokens } = this, text = tokens.text(i), entropy = tokens.entropy(i);
    const node = el("span", { class: "t", "data-i": i });
    if (isBlank(text)) node.classList.add("blank");
    node.textContent = isBlank(text) ? this.blank(i) : visible(text);
    if (Number.isNaN(entropy)) node.classList.add("unknown");
    else if (entropy >= 0.005) node.style.setProperty("--e", `${Math.round(clamp((100 * entropy) / this.run.index.scale, 0, 100))}%`);
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

// -- what a token shows when it is pointed at or focused -----------------------------------------------------------------

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
    const { tokens, run, trace } = view, nll = tokens.nll(i);
    const facts = [["probability", chance(Math.exp(-nll))], ["entropy", Number.isNaN(tokens.entropy(i)) ? "unknown" : `${nats(tokens.entropy(i))} nats`], ["margin", chance(tokens.margin(i))]];
    this.node.replaceChildren(
      el("div", { class: "token" }, quoted(tokens.text(i))),
      el("div", { class: "where" }, `token ${thousands(i + 1)} of ${thousands(run.rows.length[trace])}${tokens.fork(i) ? ", a near tie" : ""}`),
      i === view.onset ? el("div", { class: "what" }, turnText(run.error(trace))) : "",
      Number.isNaN(nll) ? el("div", { class: "where" }, "written by the strategy, or not measured") : el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      this.alternatives(tokens, i));
    this.hide();
    this.anchor = at;
    at.setAttribute("aria-describedby", "tip");
    this.node.hidden = false;
    this.place();
  }

  alternatives(tokens, i) {
    const found = tokens.alternatives(i);
    if (!found) return tokens.index.top && !Number.isNaN(tokens.nll(i)) ? el("div", { class: "where" }, "alternatives left out") : "";
    const chosen = tokens.key(i);
    return el("table", {}, ...found.map(({ key, text, p }) => {
      const bar = el("i");
      bar.style.width = `${100 * p}%`;
      return el("tr", { class: key === chosen ? "chosen" : "" }, el("td", {}, quoted(text)), el("td", { class: "meter" }, bar), el("td", {}, chance(p)));
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

const quoted = (text) => (isBlank(text) ? "(no text)" : text.trim() === text && text ? text : `“${text.replace(/\n/g, "↵").replace(/\t/g, "→")}”`);

// -- charts -------------------------------------------------------------------------------------------------------------

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

function onsetChart(host, { x, y, low, high, null: chanceLine }) {
  const blue = colour("blue"), series = [{}], data = [x];
  const add = (values, options) => { if (values) { series.push({ points: { show: false }, ...options }); data.push(values); } };
  const hidden = { stroke: "transparent", width: 0 };
  add(high, hidden);
  add(high && low, hidden);
  const bands = high && low ? [{ series: [1, 2], fill: colour("band") }] : [];
  add(x, { stroke: colour("muted"), dash: [1.5, 3.5], width: 1.5 });
  add(chanceLine, { stroke: colour("ink"), dash: [6, 4], width: 1.5 });
  add(y, { stroke: blue, width: 2 });
  const ends = (_, values) => values.map(percent);
  return plot(host, {
    height: 300, series, bands, cursor: { show: false },
    scales: { x: { time: false, range: [0, 1] }, y: { range: [0, 1] } },
    axes: [axis("position in the trace", { values: ends, space: 60, size: 30 }), axis("share of failures begun", { values: ends, size: 52 })],
    hooks: { draw: [(u) => rule(u, 0.3, "30\u202f%", colour("muted"))] },
  }, data);
}

function entropyChart(host, { x, y, low, high, control }) {
  const series = [{}], data = [x];
  const add = (values, options) => { if (values) { series.push({ points: { show: false }, spanGaps: false, ...options }); data.push(values); } };
  const hidden = { stroke: "transparent", width: 0 };
  add(high, hidden);
  add(high && low, hidden);
  const bands = high && low ? [{ series: [1, 2], fill: colour("band") }] : [];
  add(control, { stroke: colour("ink"), dash: [6, 4], width: 1.5 });
  add(y, { stroke: colour("blue"), width: 2 });
  return plot(host, {
    height: 300, series, bands, cursor: { show: false },
    scales: { x: { time: false }, y: { range: (u, min, max) => [0, (max || 1) * 1.08] } },
    axes: [axis("tokens from the first wrong token", { size: 30 }), axis("mean entropy, nats", { size: 52 })],
    hooks: { draw: [(u) => rule(u, 0, "first wrong token", colour("wrong"))] },
  }, data);
}

/** Entropy over a whole trace; a click goes to the token. */
function sparkline(host, tokens, { onset, marks, go }) {
  const few = tokens.count <= 400; // then every token is a bar of its own, and the last one needs an end
  const x = Array.from({ length: tokens.count + few }, (_, i) => i);
  const y = x.map((i) => tokens.entropy(Math.min(i, tokens.count - 1))).map((entropy) => (Number.isNaN(entropy) ? null : entropy));
  const draw = (u) => {
    for (const at of marks) rule(u, at, "", colour("blue"), [3, 3]);
    if (onset >= 0 && onset < tokens.count) rule(u, Math.min(onset, tokens.count - 1) + (few ? 0.5 : 0), "wrong", colour("wrong"));
  };
  const made = plot(host, {
    height: 96, padding: [4, 4, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { time: false, range: [0, Math.max(tokens.count - (few ? 0 : 1), 1)] }, y: { range: (u, min, max) => [0, Math.max(max ?? 0, 0.2)] } },
    series: [{}, { stroke: colour("blue"), width: few ? 1.25 : 1, points: { show: false }, fill: few ? colour("band") : undefined, paths: few ? uPlot.paths.stepped({ align: 1 }) : undefined }],
    axes: [axis("", { size: 24, space: 70, values: (_, v) => v.map((n) => (Number.isInteger(n) ? thousands(n) : "")) }), axis("", { size: 34, space: 30 })],
    hooks: { draw: [draw] },
  }, [x, y]);
  made.chart.over.addEventListener("click", (event) => {
    go(clamp(Math.floor(made.chart.posToVal(event.offsetX, "x")), 0, tokens.count - 1));
  });
  return made;
}

// -- the open trace -------------------------------------------------------------------------------------------------------

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
    this.host.replaceChildren(el("p", { class: "empty" }, this.run.count ? "Choose a trace from the list to read it token by token." : "This run has no traces."), keys());
  }

  async show(trace) {
    this.trace = trace;
    const tokens = await this.run.tokens(trace);
    const beside = this.relatives(trace);
    const other = beside.length && beside[0].family ? beside[0].trace : -1;
    if (this.trace !== trace) return; // another was opened meanwhile
    this.clear();
    const { run } = this;
    const prompt = run.prompt(trace);
    const before = [this.head(trace, tokens), this.verdict(trace), this.facts(trace)];
    if (prompt != null) before.push(el("p", { class: "label" }, "Prompt"), el("div", { class: "prompt", tabindex: 0, role: "group", "aria-label": "prompt" }, prompt));
    if (!tokens) {
      const text = run.index.texts[trace];
      this.host.replaceChildren(...before, text ? el("div", { class: "prompt" }, text) : el("p", { class: "absent" }, run.rows.length[trace] ? "The tokens of this trace were left out to keep the file small." : "This trace has no tokens."), keys());
      return;
    }
    this.tokens = tokens;
    const spark = el("div", { class: "spark" });
    this.reader = el("div", { class: "reader", tabindex: -1 });
    this.host.replaceChildren(...before, el("p", { class: "label" }, "Entropy over the trace (nats); click to go there"), spark, this.legend(), this.chooser(trace, beside, other), this.reader, keys());
    this.charts.push(sparkline(spark, tokens, { onset: run.rows.onset[trace], marks: this.marks(trace), go: (i) => this.go(i) }));
    await this.read(other);
  }

  head(trace, tokens) {
    const onset = this.run.rows.onset[trace];
    const jump = tokens && onset >= 0 && el("button", { type: "button", id: "to-onset", onclick: () => this.go(onset) }, "to the wrong turn");
    return el("div", { class: "head" }, el("h3", { id: "open-title" }, this.run.rows.id[trace]), el("div", { class: "buttons" },
      jump || "",
      el("button", { type: "button", onclick: () => this.stepTo(-1) }, "previous"),
      el("button", { type: "button", onclick: () => this.stepTo(1) }, "next"),
      el("button", { type: "button", onclick: () => this.close() }, "close")));
  }

  verdict(trace) {
    const { rows } = this.run, reference = this.run.reference(trace), onset = rows.onset[trace], length = rows.length[trace];
    const outcome = this.run.outcome(trace), answer = rows.answer[trace];
    const said = { wrong: "The answer is wrong", slip: "The answer is right, though the process is not", right: "The answer is right", ungraded: "The answer was not graded", draft: "This branch was left unfinished" }[outcome];
    const detail = outcome === "draft" ? ["its strategy went on elsewhere"] : [answer == null ? "none was given" : `it is ${answer}`];
    if (outcome !== "draft" && reference != null && reference !== answer) detail.push(`the reference is ${reference}`);
    let turn = "";
    if (outcome === "draft" && onset >= length) turn = "";
    else if (onset >= length) turn = ` It stops after ${plural(length, "token")} without an end.`;
    else if (onset >= 0) turn = ` The first wrong token is number ${thousands(onset + 1)} of ${thousands(length)} (${percent(onset / Math.max(length, 1))}).`;
    return el("p", { class: "verdict" }, el("span", { class: `outcome ${outcome}` }, said), `: ${detail.join("; ")}.${turn}`);
  }

  facts(trace) {
    const { rows } = this.run, parent = rows.parent[trace];
    const pairs = [
      ["distribution", this.run.group(trace)], ["strategy", this.run.strategy(trace)], ["sample", rows.sample[trace]], ["draft", rows.draft[trace] || ""],
      ["tokens", thousands(rows.length[trace])], ["decoded", rows.decoded[trace] > rows.length[trace] ? thousands(rows.decoded[trace]) : ""],
      ["mean entropy", rows.entropy[trace] == null ? "" : `${nats(rows.entropy[trace])} nats`], ["ended by", rows.finish[trace]],
      ["forked from", parent >= 0 ? `${rows.id[parent]} at ${thousands(rows.at[trace] + 1)}${rows.reason[trace] ? ` (${rows.reason[trace]})` : ""}` : ""],
    ];
    return el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== "" && value != null).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
  }

  legend() {
    const { scale } = this.run.index, { onset } = { onset: this.run.rows.onset[this.trace] };
    const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => {
      const node = el("span", { class: "t" }, `${share === 1 ? "≥" : ""}${Number((share * scale).toFixed(2))}`);
      node.style.setProperty("--e", `${100 * share}%`);
      return node;
    });
    return el("p", { class: "legend" }, el("span", {}, "entropy, nats ", ...steps), onset >= 0 ? el("span", {}, el("span", { class: "t onset" }, "token"), "\u2002first wrong token; red rule: all that follows") : "");
  }

  /** Traces worth reading beside this one: its family first, then others of the same problem, the most telling first. */
  relatives(trace) {
    const { run } = this, { rows } = run, parent = rows.parent[trace], found = new Map();
    const add = (other, relation, family) => {
      if (other !== trace && other >= 0 && rows.stored[other] && !found.has(other)) found.set(other, { trace: other, relation, family });
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
    const select = el("select", { id: "beside", onchange: (event) => this.read(Number(event.target.value)) }, el("option", { value: -1 }, "nothing"),
      ...beside.map(({ trace: t, relation }) => el("option", { value: t, selected: t === other }, `${this.run.rows.id[t]}: ${relation}, ${OUTCOMES[this.run.outcome(t)]}`)));
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
    const view = new TokenView(this.reader, this.run, trace, tokens, { hits: hitsOf(tokens, this.query()), remarks: this.remarks(trace), tip: this.tip, ...options });
    this.views.push(view);
    return view;
  }

  pair(trace, tokens, other, theirs) {
    const { rows } = this.run;
    let fork = shared(tokens, theirs);
    if (rows.parent[other] === trace) fork = Math.min(fork, rows.at[other]);
    if (rows.parent[trace] === other) fork = Math.min(fork, rows.at[trace]);
    const reason = rows.parent[other] === trace ? rows.reason[other] : rows.parent[trace] === other ? rows.reason[trace] : "";
    const column = (t, view) => el("div", {}, el("h4", {}, `${rows.id[t]}: `, el("span", { class: `outcome ${this.run.outcome(t)}` }, OUTCOMES[this.run.outcome(t)])), view);
    const rest = (t, its) => (fork < its.count ? this.view(t, its, { from: fork }).node : el("p", { class: "absent" }, "ends here"));
    const common = fork > 0 ? this.view(trace, tokens, { to: fork }).node : "";
    const said = fork ? `the first ${plural(fork, "token")} are the same${reason ? `; forked: ${reason}` : ""}` : "they differ from the first token";
    this.reader.replaceChildren(...[common, el("div", { class: "fork" }, said), el("div", { class: "pair" }, column(trace, rest(trace, tokens)), column(other, rest(other, theirs)))].filter(Boolean));
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
      if (at != null) add(clamp(at, 0, length), () => el("span", { class: "flag", title: detail }, detail ? `${name}: ${detail}` : name));
    }
    for (const child of children.get(trace) ?? []) {
      const text = `fork${rows.reason[child] ? ` (${rows.reason[child]})` : ""}: ${OUTCOMES[this.run.outcome(child)]}`;
      add(clamp(rows.at[child], 0, length), () => el("button", { type: "button", class: "flag", title: rows.id[child], onclick: () => this.openTrace(child) }, text));
    }
    return remarks;
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
  const key = (name, what) => el("span", {}, el("kbd", {}, name), ` ${what}`);
  return el("p", { class: "legend keys" }, key("j", "next"), key("k", "previous"), key("/", "search"), key("o", "to the wrong turn"), key("← →", "token by token"), key("Esc", "close"));
}

// -- the page ---------------------------------------------------------------------------------------------------------------

class Page {
  constructor(run) {
    this.run = run;
    this.tip = new Tip($("#tip"));
    this.list = new List($("#list"), run, (i) => this.open(i));
    this.finder = new Finder(run, this.list);
    this.detail = new Detail($("#detail"), run, {
      tip: this.tip, step: (by) => this.step(by), open: (i) => this.open(i), close: () => this.close(), query: () => this.finder.query,
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
    const list = event.target.closest?.("#list");
    const act = {
      j: () => this.step(1), k: () => this.step(-1), o: () => this.detail.trace >= 0 && this.detail.go(this.run.rows.onset[this.detail.trace]),
      "/": () => this.finder.fields.query.focus(), ...(list && { ArrowDown: () => this.step(1), ArrowUp: () => this.step(-1) }),
    }[event.key];
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
    $("#detail").append(el("p", { class: "absent" }, "This browser cannot inflate the data in this file (no DecompressionStream); any browser since 2023 can."));
    return;
  }
  const index = JSON.parse(new TextDecoder().decode(await inflate("index")));
  await new Page(new Run(index)).begin();
  root.dataset.ready = "true";
}

main();

})();
