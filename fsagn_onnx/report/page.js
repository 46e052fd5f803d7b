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
    this.list = el("div");
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
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { "aria-label": caption }, el("thead", {}, el("tr", {}, heads)), body), more);
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

// Drawing areas: dimmed and nearly gray outside, a fine line around, as in the overlays.
const DIM = 0.36, SATURATION = 0.2, LIFT = 10, LINE = [255, 190, 60], HALO = [12, 12, 16], LONGEST = 256;

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// Bilinear with half-pixel centres; u in columns, v in rows of the grid, counted from its corner.
function sample(ranks, h, w, u, v) {
  const x = Math.min(Math.max(u - 0.5, 0), w - 1), y = Math.min(Math.max(v - 0.5, 0), h - 1);
  const x0 = Math.floor(x), y0 = Math.floor(y), x1 = Math.min(x0 + 1, w - 1), y1 = Math.min(y0 + 1, h - 1);
  const fx = x - x0, fy = y - y0;
  const top = ranks[y0 * w + x0] * (1 - fx) + ranks[y0 * w + x1] * fx;
  const bottom = ranks[y1 * w + x0] * (1 - fx) + ranks[y1 * w + x1] * fx;
  return top * (1 - fy) + bottom * fy;
}

class Picture {
  constructor(item) {
    [this.inputHeight, this.inputWidth] = item.input;
    [this.scaleX, this.shiftX, this.scaleY, this.shiftY] = item.affine;
    [this.height0, this.width0] = item.size;
    this.source = "data:image/jpeg;base64," + item.picture;
  }

  load() {
    this.loading ||= (async () => {
      const image = new Image();
      image.src = this.source;
      await image.decode();
      this.width = image.naturalWidth;
      this.height = image.naturalHeight;
      const context = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height }).getContext("2d");
      context.drawImage(image, 0, 0);
      this.colors = context.getImageData(0, 0, this.width, this.height).data;
      this.outside = new Float32Array(this.colors.length);
      for (let i = 0; i < this.colors.length; i += 4) {
        const gray = 0.299 * this.colors[i] + 0.587 * this.colors[i + 1] + 0.114 * this.colors[i + 2];
        for (let c = 0; c < 3; c++) this.outside[i + c] = (gray + SATURATION * (this.colors[i + c] - gray)) * DIM + LIFT;
      }
    })();
    return this.loading;
  }
}

// The mask of area a: the round(a H W) pixels of the model's input with the smallest rank, upsampled bilinearly.
class Area {
  constructor(picture, item, canvas) {
    Object.assign(this, { picture, canvas, own: item.area, item });
    this.area = this.own;
  }

  ranks() {
    const bytes = bytesOf(this.item.rank);
    if (this.item.bits === 8) return Float32Array.from(bytes, (value) => value / 255);
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true) / 65535);
  }

  load() {
    const p = this.picture, [h, w] = this.item.grid, ranks = this.ranks();
    const shrink = Math.min(1, LONGEST / Math.max(p.inputHeight, p.inputWidth));
    const rows = Math.max(1, Math.round(p.inputHeight * shrink)), columns = Math.max(1, Math.round(p.inputWidth * shrink));
    this.sorted = new Float32Array(rows * columns);
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++)
        this.sorted[y * columns + x] = sample(ranks, h, w, (x + 0.5) * w / columns, (y + 0.5) * h / rows);
    this.sorted.sort();
    this.field = new Float32Array(p.width * p.height);
    this.slope = new Float32Array(p.width * p.height);
    this.seen = new Uint8Array(p.width * p.height);
    for (let y = 0; y < p.height; y++) {
      const inputY = ((y + 0.5) * p.height0 / p.height - p.shiftY) / p.scaleY;
      for (let x = 0; x < p.width; x++) {
        const inputX = ((x + 0.5) * p.width0 / p.width - p.shiftX) / p.scaleX, i = y * p.width + x;
        this.seen[i] = inputX >= 0 && inputX < p.inputWidth && inputY >= 0 && inputY < p.inputHeight;
        this.field[i] = sample(ranks, h, w, inputX * w / p.inputWidth, inputY * h / p.inputHeight);
      }
    }
    for (let y = 0; y < p.height; y++)
      for (let x = 0; x < p.width; x++) {
        const i = y * p.width + x, left = x ? i - 1 : i, right = x + 1 < p.width ? i + 1 : i;
        const up = y ? i - p.width : i, down = y + 1 < p.height ? i + p.width : i;
        this.slope[i] = Math.hypot((this.field[right] - this.field[left]) / 2, (this.field[down] - this.field[up]) / 2);
      }
    this.canvas.width = p.width;
    this.canvas.height = p.height;
  }

  async draw() {
    await this.picture.load();
    if (!this.field) this.load();
    const p = this.picture, context = this.canvas.getContext("2d"), drawn = context.createImageData(p.width, p.height);
    const count = Math.round(this.area * this.sorted.length), limit = count ? this.sorted[count - 1] : -1;
    this.kept = 0;
    for (let i = 0; i < this.field.length; i++) {
      const distance = this.seen[i] ? (limit - this.field[i]) / Math.max(this.slope[i], 1e-5) : -99;
      const inside = Math.min(Math.max(distance + 0.5, 0), 1), off = Math.abs(distance);
      const halo = 0.55 * Math.min(Math.max(2.5 - off, 0), 1), line = Math.min(Math.max(1.5 - off, 0), 1);
      this.kept += inside;
      for (let c = 0; c < 3; c++) {
        const j = 4 * i + c;
        let value = p.outside[j] + inside * (p.colors[j] - p.outside[j]);
        value += halo * (HALO[c] - value);
        value += line * (LINE[c] - value);
        drawn.data[j] = value;
      }
      drawn.data[4 * i + 3] = 255;
    }
    context.putImageData(drawn, 0, 0);
    this.canvas.dataset.kept = (this.kept / this.field.length).toFixed(4);
  }

  // The part of the picture around the area, on a canvas of its own.
  async crop(canvas) {
    await this.draw();
    const p = this.picture, count = Math.round(this.area * this.sorted.length), limit = this.sorted[Math.max(count - 1, 0)];
    let x0 = p.width, y0 = p.height, x1 = 0, y1 = 0;
    for (let i = 0; i < this.field.length; i++)
      if (this.seen[i] && this.field[i] <= limit) {
        const x = i % p.width, y = Math.floor(i / p.width);
        x0 = Math.min(x0, x); x1 = Math.max(x1, x + 1); y0 = Math.min(y0, y); y1 = Math.max(y1, y + 1);
      }
    if (x1 <= x0) return;
    const side = Math.max(x1 - x0, y1 - y0, 8), cx = (x0 + x1 - side) / 2, cy = (y0 + y1 - side) / 2;
    canvas.width = canvas.height = 160;
    canvas.getContext("2d").drawImage(this.canvas, cx, cy, side, side, 0, 0, 160, 160);
  }
}

const drawings = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { drawings.get(entry.target)(); watcher.unobserve(entry.target); }
}, { rootMargin: "300px" });

// Draw something when it comes near the window.
function lazily(node, draw) {
  drawings.set(node, draw);
  watcher.observe(node);
  return node;
}
addEventListener("beforeprint", () => document.querySelectorAll("canvas").forEach((node) => drawings.has(node) && drawings.get(node)()));
