// Drawing areas as in the overlays: dimmed and nearly gray outside with a fine line around; or a heat map of the ranks.
const DIM = 0.36, SATURATION = 0.2, LIFT = 10, LINE = [255, 190, 60], WHITE = [255, 255, 255], HALO = [12, 12, 16], LONGEST = 256;
let style = about.style || "outline";

// Google's Turbo colours, Mikhailov's polynomials: blue at 0, red at 1.
const TURBO = [[0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
  [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
  [0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973]];
const warmth = (x) => TURBO.map((terms) => 255 * Math.min(Math.max(terms.reduceRight((sum, term) => sum * x + term, 0), 0), 1));
const HEAT = Array.from({ length: 256 }, (_, i) => warmth(i / 255));

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
      this.gray = new Float32Array(this.width * this.height);
      for (let i = 0; i < this.colors.length; i += 4) {
        const gray = 0.299 * this.colors[i] + 0.587 * this.colors[i + 1] + 0.114 * this.colors[i + 2];
        this.gray[i >> 2] = gray;
        for (let c = 0; c < 3; c++) this.outside[i + c] = (gray + SATURATION * (this.colors[i + c] - gray)) * DIM + LIFT;
      }
    })();
    return this.loading;
  }
}

// The mask of area a: the round(a H W) pixels of the model's input with the smallest rank, upsampled bilinearly.
class Area {
  constructor(picture, item, canvas) {
    Object.assign(this, { picture, canvas, own: item.area, item, active: item.active !== false });
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
    const count = Math.round(this.area * this.sorted.length), limit = !this.active ? -99 : count ? this.sorted[count - 1] : -1;
    const warm = this.active && !this.plain && style === "heat";
    this.kept = 0;
    for (let i = 0; i < this.field.length; i++) {
      const distance = this.seen[i] ? (limit - this.field[i]) / Math.max(this.slope[i], 1e-5) : -99;
      const inside = Math.min(Math.max(distance + 0.5, 0), 1), off = Math.abs(distance);
      const halo = 0.55 * Math.min(Math.max(2.5 - off, 0), 1), line = Math.min(Math.max(1.5 - off, 0), 1);
      this.kept += inside;
      for (let c = 0; c < 3; c++) {
        const j = 4 * i + c;
        let value = p.outside[j] + inside * (p.colors[j] - p.outside[j]);
        if (warm) value = this.seen[i] ? (p.gray[i] + HEAT[Math.round(255 * Math.min(Math.max(1 - this.field[i], 0), 1))][c]) / 2 : p.gray[i] * DIM;
        value += halo * (HALO[c] - value);
        value += line * ((warm ? WHITE : LINE)[c] - value);
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
    const side = Math.min(Math.max(x1 - x0, y1 - y0, 8), p.width, p.height);
    const within = (from, to, size) => Math.min(Math.max((from + to - side) / 2, 0), size - side); // nothing beside the picture
    const cx = within(x0, x1, p.width), cy = within(y0, y1, p.height);
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
