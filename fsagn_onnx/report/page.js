"use strict";
// What all reports share. Everything that comes from data becomes a text node or an attribute value, never markup.
const about = JSON.parse(document.getElementById("about").textContent);
const records = Array.from(document.querySelectorAll("script.record"), record);
const main = document.getElementById("main");

// A record is parsed when it is first asked for, or when there is nothing else to do: of 10,000 a page draws a dozen.
function record(line) {
  let members = null;
  return new Proxy({}, { get: (_, name) => (members ||= JSON.parse(line.textContent))[name] });
}

function parseRest(first = 0) {
  requestIdleCallback((idle) => {
    while (first < records.length && idle.timeRemaining() > 1) records[first++].name;
    if (first < records.length) parseRest(first);
  });
}
if (window.requestIdleCallback) addEventListener("load", () => parseRest());

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  set(node, properties);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function svg(tag, properties = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(node, properties);
  node.append(...children.flat().filter(Boolean));
  return node;
}

function set(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "maxWidth") node.style.maxWidth = `${value}px`; // the policy admits no style attributes
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
}

const base = (path) => path.split("/").pop().split("\\").pop() || path;
const fixed = (value, digits = 2) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
const percent = (share) => (share < 0.0995 ? (100 * share).toFixed(1) : (100 * share).toFixed(0)) + "%";
const signed = (value, digits = 3) => (value === null || value === undefined ? "–" : (value >= 0 ? "+" : "") + value.toFixed(digits));

// Dark and light
const theme = document.getElementById("theme");
const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
theme.setAttribute("aria-pressed", String(isDark()));
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  theme.setAttribute("aria-pressed", String(isDark()));
});

// Keyboard: "/" goes to the search, left and right turn pages.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing) {
    const search = document.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  }
  if (!typing && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
    const turn = document.querySelector(event.key === "ArrowLeft" ? "[data-turn=back]" : "[data-turn=on]");
    if (turn) turn.click();
  }
});

// A list of many items, some at a time, with search and sort.
class Pager {
  constructor({ items, draw, size, words, sorts, label, tools = [] }) {
    Object.assign(this, { items, draw, size, words, sorts });
    this.first = 0;
    this.search = el("input", { type: "search", placeholder: "search (/)", "aria-label": "search " + label, input: () => this.refresh() });
    this.sort = el("select", { "aria-label": "sort " + label, change: () => this.refresh() }, sorts.map(([name], i) => el("option", { value: i }, name)));
    this.back = el("button", { type: "button", "data-turn": "back", "aria-label": "previous page", click: () => this.turn(-1) }, "←");
    this.on = el("button", { type: "button", "data-turn": "on", "aria-label": "next page", click: () => this.turn(1) }, "→");
    this.where = el("span", { class: "quiet", role: "status" });
    this.list = el("div", { class: "list" });
    this.node = el("section", { "aria-label": label },
      el("div", { class: "tools" }, el("span", {}, this.search, this.sort), ...tools, el("span", {}, this.back, this.where, this.on)), this.list);
    this.refresh();
  }

  refresh() {
    const wanted = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const order = this.sorts[this.sort.value || 0][1];
    this.found = this.items.filter((item) => wanted.every((word) => this.words(item).toLowerCase().includes(word)));
    if (order) this.found.sort(order);
    this.first = 0;
    this.show();
  }

  turn(step) {
    const next = this.first + step * this.size;
    if (next < 0 || next >= this.found.length) return;
    this.first = next;
    this.show();
    this.node.scrollIntoView();
  }

  show() {
    const last = Math.min(this.first + this.size, this.found.length);
    this.where.textContent = this.found.length ? `${this.first + 1}–${last} of ${this.found.length}` : "nothing found";
    this.back.disabled = this.first === 0;
    this.on.disabled = last >= this.found.length;
    this.list.replaceChildren(...this.found.slice(this.first, last).map(this.draw));
  }
}

// A button that is on or off.
function toggle(name, pressed, changed) {
  const button = el("button", { type: "button", "aria-pressed": String(pressed), click: () => {
    button.setAttribute("aria-pressed", String(!isPressed(button)));
    changed();
  } }, name);
  return button;
}
const isPressed = (button) => button.getAttribute("aria-pressed") === "true";

// A grid whose rows are about equally full: six tiles are one row of six or two of three, never five and one.
function balanced(tiles, least, properties) {
  const place = el("div", { ...properties }, tiles);
  new ResizeObserver(([entry]) => {
    const gap = parseFloat(getComputedStyle(place).columnGap) || 0;
    const most = Math.max(1, Math.floor((entry.contentRect.width + gap) / (least + gap)));
    const count = place.children.length, columns = Math.ceil(count / Math.ceil(count / most));
    place.style.setProperty("--columns", Math.max(1, columns));
  }).observe(place);
  return place;
}

// What is wider than the window scrolls; a shade and a line say so until its end is seen.
function scrolling(caption, ...children) {
  const inner = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, scroll: () => look() }, children);
  const hint = el("p", { class: "quiet hint", hidden: true, "aria-hidden": "true" }, "more columns: scroll →");
  const outer = el("div", { class: "frame" }, hint, inner);
  function look() {
    const rest = inner.scrollWidth - inner.clientWidth - inner.scrollLeft > 2;
    hint.hidden = inner.scrollWidth - inner.clientWidth <= 2;
    outer.classList.toggle("cut", rest);
  }
  const watch = new ResizeObserver(look);
  watch.observe(inner);
  for (const child of inner.children) watch.observe(child);
  return outer;
}

// A table whose columns sort; columns: [{ name, value(row), show(row), text }]
function table(caption, columns, rows, size = 100) {
  let shown = size, by = null, down = true;
  const body = el("tbody"), heads = columns.map((column, i) => el("th", { scope: "col", class: column.text && "text" },
    el("button", { type: "button", click: () => { down = by === i ? !down : !column.text; by = i; fill(); } }, column.name)));
  const more = el("button", { type: "button", click: () => { shown += 10 * size; fill(); } }, "show more");
  function fill() {
    const sorted = by === null ? rows : [...rows].sort((a, b) => compare(columns[by].value(a), columns[by].value(b)) * (down ? -1 : 1));
    heads.forEach((head, i) => (i === by ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    body.replaceChildren(...sorted.slice(0, shown).map((row) => el("tr", {}, columns.map((column, i) => {
      const cell = el(i === 0 ? "th" : "td", { scope: i === 0 && "row", class: column.text && "text" }, column.show(row));
      if (column.heat) heat(cell, column.heat(row));
      return cell;
    }))));
    more.hidden = shown >= rows.length;
  }
  fill();
  return el("div", {}, scrolling(caption, el("table", { "aria-label": caption }, el("thead", {}, el("tr", {}, heads)), body)), more);
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return a < b ? -1 : 1;
}

function heat(cell, share) {
  if (share) cell.style.backgroundColor = `rgba(var(--heat), ${(0.7 * Math.min(share, 1)).toFixed(3)})`;
}

// A chart drawn at the width that it has, so that its text keeps its size.
function fitted(draw, most) {
  const place = el("div");
  let drawn = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(Math.min(entry.contentRect.width, most));
    if (width > 0 && width !== drawn) place.replaceChildren(draw(drawn = width));
  }).observe(place);
  return place;
}

// Rows of [label, mean, low, high, class]: a point with its interval each.
function intervals(title, rows, { digits = 3 } = {}) {
  const values = rows.flatMap(([, , low, high]) => [low, high]).concat([0]);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1, height = 24 * rows.length + 26;
  return fitted((width) => {
    const left = Math.min(190, Math.round(0.34 * width)), right = 60, letters = Math.floor(left / 6.5);
    const x = (value) => left + ((value - low) / span) * (width - left - right);
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title },
      svg("title", {}, title), svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: height - 20 }),
      rows.map(([label, mean, from, to, kind], i) => {
        const y = 24 * i + 12, text = String(label), cut = text.length > letters ? text.slice(0, letters - 1) + "…" : text;
        return [svg("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, svg("title", {}, text), cut),
          svg("line", { class: kind || "mark", x1: x(from), x2: x(to), y1: y, y2: y, "stroke-width": 2 }),
          svg("circle", { class: kind || "mark", cx: x(mean), cy: y, r: width < 420 ? 3 : 4 }),
          svg("text", { x: width - right + 10, y: y + 4 }, signed(mean, digits))];
      }).flat(), svg("text", { x: x(0), y: height - 5, "text-anchor": "middle" }, "0"));
  }, 760);
}

// Lines of { name, kind, points: [[x, y, low, high]] } over shared axes.
function curves(title, lines, { width = 250, height = 150, xLabel = "", low = null, high = null } = {}) {
  const left = 40, bottom = 28, all = lines.flatMap((line) => line.points);
  const from = low ?? Math.min(0, ...all.map((p) => p[2] ?? p[1])), to = high ?? Math.max(0.01, ...all.map((p) => p[3] ?? p[1]));
  const xs = all.map((p) => p[0]), x0 = Math.min(...xs), x1 = Math.max(...xs);
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (width - left - 10), y = (value) => 8 + ((to - value) / (to - from || 1)) * (height - bottom - 8);
  const path = (points, at) => points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(at(p)).toFixed(1)}`).join("");
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", role: "img", "aria-label": title, maxWidth: 1.6 * width },
    svg("title", {}, title), svg("line", { class: "zero", x1: left, x2: width - 10, y1: y(0), y2: y(0) }),
    svg("line", { class: "axis", x1: left, x2: left, y1: 8, y2: height - bottom }),
    svg("text", { x: left - 4, y: y(to) + 9, "text-anchor": "end" }, to.toFixed(2)), svg("text", { x: left - 4, y: y(from), "text-anchor": "end" }, from.toFixed(2)),
    [...new Set(xs)].filter((_, i, list) => list.length < 8 || i % 2 === 0).map((v) => svg("text", { x: x(v), y: height - bottom + 13, "text-anchor": "middle" }, String(v))),
    svg("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, xLabel),
    lines.map((line) => [
      line.points[0] && line.points[0][2] !== undefined && svg("path", { class: "band", d: path(line.points, (p) => p[3]) + path([...line.points].reverse(), (p) => p[2]).replace("M", "L") + "Z" }),
      svg("path", { class: line.kind || "mark", d: path(line.points, (p) => p[1]) })]).flat());
}
