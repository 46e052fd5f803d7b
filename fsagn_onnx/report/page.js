"use strict";
// The mask of area a: the round(a H W) pixels of the model's input with the smallest rank, upsampled bilinearly.
// Drawn like the panels of runtime/overlay.py: dimmed and nearly gray outside, a fine line around the area.
const DIM = 0.36, SATURATION = 0.2, LIFT = 10, LINE = [255, 190, 60], HALO = [12, 12, 16], LONGEST = 256;

const numbers = (text) => text.split(",").map(Number);

// uint16 little endian in base64 -> ranks in (0, 1]
function ranksOf(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true) / 65535);
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
  constructor(article) {
    this.image = article.querySelector("img");
    [this.inputHeight, this.inputWidth] = numbers(article.dataset.input);
    [this.scaleX, this.shiftX, this.scaleY, this.shiftY] = numbers(article.dataset.affine);
    [this.height0, this.width0] = numbers(article.dataset.original);
  }

  // Pixels inside and outside of an area, made once per image.
  load() {
    if (this.colors) return;
    this.width = this.image.naturalWidth;
    this.height = this.image.naturalHeight;
    const context = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height })
      .getContext("2d");
    context.drawImage(this.image, 0, 0);
    this.colors = context.getImageData(0, 0, this.width, this.height).data;
    this.outside = new Float32Array(this.colors.length);
    for (let i = 0; i < this.colors.length; i += 4) {
      const gray = 0.299 * this.colors[i] + 0.587 * this.colors[i + 1] + 0.114 * this.colors[i + 2];
      for (let c = 0; c < 3; c++) this.outside[i + c] = (gray + SATURATION * (this.colors[i + c] - gray)) * DIM + LIFT;
    }
  }
}

class Area {
  constructor(figure, picture) {
    this.picture = picture;
    this.canvas = figure.querySelector("canvas");
    this.slider = figure.querySelector("input");
    this.output = figure.querySelector("output");
    this.expected = figure.querySelector("[data-expected]");
    this.own = Number(figure.dataset.area);
    this.curve = figure.dataset.curve ? figure.dataset.curve.split(" ").map(numbers) : [];
    this.grid = numbers(figure.dataset.grid);
    this.packed = figure.dataset.rank;
    this.area = this.own;
    this.slider.addEventListener("input", () => this.set((this.slider.value / 100) ** 2, true));
    this.set(this.own, false);
  }

  set(area, draw) {
    this.area = Math.min(Math.max(area, 0.0001), 1);
    const shown = this.area < 0.0995 ? (100 * this.area).toFixed(1) : (100 * this.area).toFixed(0);
    this.output.textContent = shown + "%";
    this.slider.value = 100 * Math.sqrt(this.area);
    this.slider.setAttribute("aria-valuetext", shown + " percent");
    if (this.expected) this.expected.textContent = this.retention().toFixed(2);
    if (draw && this.visible) this.draw();
  }

  retention() {
    const points = [[0, 0], ...this.curve];
    if (points[points.length - 1][0] < 1) points.push([1, 1]);
    for (let i = 1; i < points.length; i++) {
      const [a0, r0] = points[i - 1], [a1, r1] = points[i];
      if (this.area <= a1) return r0 + (r1 - r0) * (this.area - a0) / (a1 - a0);
    }
    return points[points.length - 1][1];
  }

  load() {
    const p = this.picture, [h, w] = this.grid, ranks = ranksOf(this.packed);
    p.load();
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

  draw() {
    if (!this.field) this.load();
    const p = this.picture, context = this.canvas.getContext("2d"), drawn = context.createImageData(p.width, p.height);
    const count = Math.round(this.area * this.sorted.length), limit = count ? this.sorted[count - 1] : -1;
    for (let i = 0; i < this.field.length; i++) {
      const distance = this.seen[i] ? (limit - this.field[i]) / Math.max(this.slope[i], 1e-5) : -99;
      const inside = Math.min(Math.max(distance + 0.5, 0), 1), off = Math.abs(distance);
      const halo = 0.55 * Math.min(Math.max(2.5 - off, 0), 1), line = Math.min(Math.max(1.5 - off, 0), 1);
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
  }
}

const areas = new Map();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const area = areas.get(entry.target);
    area.visible = entry.isIntersecting;
    if (area.visible) area.picture.image.decode().then(() => area.draw());
  }
}, { rootMargin: "300px" });

for (const article of document.querySelectorAll("article")) {
  const picture = new Picture(article);
  for (const figure of article.querySelectorAll("figure[data-rank]")) {
    areas.set(figure, new Area(figure, picture));
    watcher.observe(figure);
  }
}
for (const button of document.querySelectorAll("button[data-area]"))
  button.addEventListener("click", () => {
    for (const area of areas.values()) area.set(button.dataset.area === "own" ? area.own : Number(button.dataset.area), true);
  });
