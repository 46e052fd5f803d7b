// Explainer files in JavaScript: metadata, preprocessing, masks. Works with onnxruntime-node and onnxruntime-web alike.

// The JSON object under the metadata key of an ONNX file; onnxruntime's JavaScript API does not give it out.
// ModelProto: field 14 = metadata_props, a message of key (field 1) and value (field 2).
export function readMetadata(bytes, key = "fsagn") {
  const text = new TextDecoder();
  function* fields(from, to) {
    let at = from;
    const varint = () => {
      let value = 0;
      for (let scale = 1; ; scale *= 128) {
        if (at >= to) throw new Error("not an ONNX file, or cut short");
        const byte = bytes[at++];
        value += (byte & 127) * scale;
        if (byte < 128) return value;
      }
    };
    while (at < to) {
      const tag = varint();
      const [field, wire] = [Math.floor(tag / 8), tag % 8];
      if (wire === 0) varint();
      else if (wire === 1) at += 8;
      else if (wire === 5) at += 4;
      else if (wire === 2) {
        const length = varint();
        if (at + length > to) throw new Error("not an ONNX file, or cut short");
        yield [field, at, at + length];
        at += length;
      } else throw new Error("not an ONNX file");
    }
  }
  for (const [field, from, to] of fields(0, bytes.length)) {
    if (field !== 14) continue;
    const entry = {};
    for (const [part, start, end] of fields(from, to)) entry[part] = text.decode(bytes.subarray(start, end));
    if (entry[1] === key) return JSON.parse(entry[2]);
  }
  throw new Error(`not an explainer: no metadata '${key}'`);
}

// Weights of one axis, per target pixel [first source pixel, weights]: area average where it shrinks, else bilinear.
function axisWeights(source, target) {
  const scale = source / target;
  return Array.from({ length: target }, (_, i) => {
    if (source >= target) {
      const [start, end] = [i * scale, (i + 1) * scale];
      const first = Math.floor(start);
      const last = Math.min(source, Math.ceil(end - 1e-9));
      const weights = [];
      for (let j = first; j < last; j++) weights.push((Math.min(j + 1, end) - Math.max(j, start)) / scale);
      return [first, weights];
    }
    const centre = Math.min(Math.max((i + 0.5) * scale - 0.5, 0), source - 1);
    const first = Math.floor(centre);
    return first + 1 < source ? [first, [1 - (centre - first), centre - first]] : [first, [1]];
  });
}

// Resizes a window of RGB or RGBA pixels to `height` x `width`, RGB, rounded to whole levels.
function resize({ data, width: stride, channels }, window, height, width) {
  const rows = axisWeights(window.height, height);
  const columns = axisWeights(window.width, width);
  const half = new Float32Array(height * window.width * 3);
  rows.forEach(([first, weights], y) => {
    weights.forEach((weight, n) => {
      let from = ((window.top + first + n) * stride + window.left) * channels;
      for (let x = 0, to = y * window.width * 3; x < window.width; x++, from += channels, to += 3) {
        half[to] += weight * data[from];
        half[to + 1] += weight * data[from + 1];
        half[to + 2] += weight * data[from + 2];
      }
    });
  });
  const pixels = new Uint8ClampedArray(height * width * 3); // rounds halves to even, as OpenCV does
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [first, weights] = columns[x];
      for (let c = 0; c < 3; c++, to++) {
        let sum = 0;
        for (let n = 0; n < weights.length; n++) sum += weights[n] * half[(y * window.width + first + n) * 3 + c];
        pixels[to] = sum;
      }
    }
  }
  return pixels;
}

const roundEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
const between = (low, x, high) => Math.min(high, Math.max(low, x));

// What the model sees of a picture, and where that stands in the model's input.
function windows(picture, spec) {
  const [height, width] = spec.size;
  const [policy, number] = spec.resize.split(":");
  const centred = (outer, h, w) => ({ top: (outer.height - h) >> 1, left: (outer.width - w) >> 1, height: h, width: w });
  const source = { top: 0, left: 0, height: picture.height, width: picture.width };
  const target = { top: 0, left: 0, height, width };
  if (policy === "crop") {
    const unit = Number(number) * Math.min(picture.height / height, picture.width / width);
    const h = between(1, roundEven(unit * height), picture.height);
    const w = between(1, roundEven(unit * width), picture.width);
    return [centred(picture, h, w), target];
  }
  if (policy !== "letterbox") return [source, target];
  const factor = Math.min(height / picture.height, width / picture.width);
  const h = between(1, roundEven(picture.height * factor), height);
  const w = between(1, roundEven(picture.width * factor), width);
  return [source, centred(target, h, w)];
}

// The picture at the model's input size by the resize policy: RGB, H W 3. `picture`: {data, width, height, channels}.
export function fit(picture, spec) {
  const [height, width] = spec.size;
  const [source, { top, left, height: h, width: w }] = windows(picture, spec);
  const small = resize(picture, source, h, w);
  if (h === height && w === width) return small;
  const pixels = new Uint8ClampedArray(height * width * 3).fill(roundEven(Number(spec.resize.split(":")[1])));
  for (let y = 0; y < h; y++) pixels.set(small.subarray(y * w * 3, (y + 1) * w * 3), ((top + y) * width + left) * 3);
  return pixels;
}

// A mask of the model's input at the size of the picture: every pixel takes the pixel of the input that its centre falls
// into; 0 where the model did not look.
export function onPicture(mask, picture, spec) {
  const [height, width] = spec.size;
  const [source, target] = windows(picture, spec);
  const along = (length, from, extent, to, pixels) =>
    Array.from({ length }, (_, i) => Math.floor((i + 0.5 - (from - (to * extent) / pixels)) / (extent / pixels)));
  const down = along(picture.height, source.top, source.height, target.top, target.height);
  const across = along(picture.width, source.left, source.width, target.left, target.width);
  const shown = new Uint8Array(picture.height * picture.width);
  down.forEach((row, y) => {
    if (row < 0 || row >= height) return;
    across.forEach((column, x) => {
      if (column >= 0 && column < width) shown[y * picture.width + x] = mask[row * width + column];
    });
  });
  return shown;
}

// RGB pixels -> Float32Array and dims of the model's input.
export function normalise(pixels, spec) {
  const [height, width] = spec.size;
  const channels = spec.mean.length;
  const values = new Float32Array(height * width * channels);
  const planes = spec.layout === "NCHW";
  for (let place = 0; place < height * width; place++) {
    const rgb = pixels.subarray(place * 3, place * 3 + 3);
    for (let c = 0; c < channels; c++) {
      let pixel = c === 3 ? 255 : rgb[spec.color.startsWith("BGR") ? 2 - c : c]; // a fourth channel is opaque
      if (spec.color === "GRAY") pixel = Math.floor((rgb[0] * 4899 + rgb[1] * 9617 + rgb[2] * 1868) / 16384 + 0.5);
      values[planes ? c * height * width + place : place * channels + c] = (pixel * spec.scale - spec.mean[c]) / spec.std[c];
    }
  }
  return { values, dims: planes ? [1, channels, height, width] : [1, height, width, channels] };
}

// The round(a H W) pixels with the smallest bilinearly upsampled rank, ties by position: Uint8Array of 0 and 1.
export function areaMask(rank, [rows, columns], area, [height, width]) {
  const line = (cells, pixels) =>
    Array.from({ length: pixels }, (_, i) => {
      const centre = between(0, ((i + 0.5) * cells) / pixels - 0.5, cells - 1);
      const first = Math.floor(centre);
      return [first, Math.min(first + 1, cells - 1), centre - first];
    });
  const down = line(rows, height);
  const across = line(columns, width);
  const values = new Float32Array(height * width);
  for (let y = 0; y < height; y++) {
    const [above, below, v] = down[y];
    for (let x = 0; x < width; x++) {
      const [left, right, u] = across[x];
      const top = rank[above * columns + left] * (1 - u) + rank[above * columns + right] * u;
      const bottom = rank[below * columns + left] * (1 - u) + rank[below * columns + right] * u;
      values[y * width + x] = top * (1 - v) + bottom * v;
    }
  }
  const count = roundEven(area * values.length);
  const mask = new Uint8Array(values.length);
  if (count === 0) return mask;
  const threshold = values.slice().sort()[count - 1];
  let left = count;
  values.forEach((value, place) => {
    if (value < threshold) left -= (mask[place] = 1);
  });
  for (let place = 0; left > 0; place++) if (values[place] === threshold) left -= (mask[place] = 1);
  return mask;
}

// COCO's uncompressed run lengths: column by column, zeros first.
export function runLengths(mask, [height, width]) {
  const counts = [];
  let [current, length] = [0, 0];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++, length++) {
      if (mask[y * width + x] === current) continue;
      counts.push(length);
      [current, length] = [1 - current, 0];
    }
  }
  return [...counts, length];
}

function along(x, xs, ys) {
  const at = Math.max(1, xs.findIndex((value) => value >= x));
  return ys[at - 1] + ((ys[at] - ys[at - 1]) * (x - xs[at - 1])) / (xs[at] - xs[at - 1]);
}

export const [OF_FILTERS, OF_DECISIONS] = [0.8, 0.5]; // of the largest lead

// The smallest area up to half of the picture with a share of the largest lead over a random area; 0: none leads by .05.
// What random areas keep stands in the metadata's `trust`; where it does not, they are taken to keep their own share.
export function sufficientArea(areas, retention, random = areas, share = OF_FILTERS) {
  const leads = areas.filter((area) => area <= 0.5).map((_, i) => retention[i] - random[i]);
  const most = Math.max(0, ...leads);
  if (most < 0.05) return 0;
  return leads[0] >= share * most ? areas[0] : along(share * most, leads, areas);
}

// What the numbers of one image say about each class; one number is a decision between two.
function probabilities(numbers, scores) {
  const share = (value) => between(0, value, 1);
  if (scores === "logits") {
    const most = numbers.reduce((a, b) => Math.max(a, b));
    const powers = numbers.map((value) => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }
  if (scores === "logit" || scores === "sigmoid") {
    const one = scores === "logit" ? 1 / (1 + Math.exp(-numbers[0])) : share(numbers[0]);
    return [1 - one, one];
  }
  return numbers.map((value) => share(scores === "log-probabilities" ? Math.exp(Math.min(value, 0)) : value));
}

// The five best classes, as the metadata's `classes` says; none where the model has no classes, or an old file is silent.
export function predictions(results, about) {
  const said = about.classes;
  const output = said?.output == null ? undefined : results[said.output];
  if (output === undefined) return [];
  const scores = probabilities(Array.from(output.data, Number), said.scores);
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a] || a - b);
  return order.slice(0, 5).map((index) => ({ index, label: label(index, about), score: scores[index] }));
}

// The name of a class, or null.
export function label(number, about) {
  const labels = about.classes?.named ? about.labels : null;
  if (labels?.length === 1) return number ? labels[0] : `not ${labels[0]}`; // class 1 alone has a name
  return labels?.[number] ?? null;
}

// What the inputs `filters` and `classes` can hold besides ids.
export const [STRONGEST, DECISIVE, AGAINST] = [-1, -2, -3];
const KINDS = { top: STRONGEST, decisive: DECISIVE, against: AGAINST };

function wholeNumber(text) {
  if (!/^-?\d+$/.test(text)) throw new Error(`'${text}' is no whole number`);
  return Number(text);
}

// "decisive:3,against:1", "top:5" or ids like "3,17" -> what stands in the input `filters`.
export function askedFilters(words) {
  return words.split(",").flatMap((word) => {
    const [kind, number] = word.split(":");
    return kind in KINDS ? Array(wholeNumber(number)).fill(KINDS[kind]) : [wholeNumber(word)];
  });
}

// Names or numbers with commas -> what stands in the input `classes`.
export function askedClasses(words, about) {
  return words.split(",").map((word) => {
    const named = about.labels?.indexOf(word) ?? -1;
    const found = named < 0 ? wholeNumber(word) : named;
    const count = about.classes?.count ?? Infinity;
    if (found < STRONGEST || found >= count) throw new Error(`no class ${word}: there are ${count}`);
    return found;
  });
}

// Of the support for a class, or of what speaks against it: what one filter adds to that.
function shareOf(contribution, support) {
  const total = support[contribution < 0 ? 1 : 0];
  return total ? Math.min(1, contribution / total) : 0;
}

const RESULTS = ["filter_ids", "filter_peaks", "area_rank", "retention"];

// An explainer file, ready to explain pictures.
export class Explainer {
  // `ort`: onnxruntime-node or onnxruntime-web; `bytes`: the file; `options`: of InferenceSession.
  static async open(ort, bytes, options = {}) {
    const explainer = new Explainer();
    explainer.about = readMetadata(bytes);
    explainer.ort = ort;
    explainer.session = await ort.InferenceSession.create(bytes, options);
    return explainer;
  }

  // Whether the file can be asked what a decision rests on.
  get knowsClasses() {
    return this.session.inputNames.includes("classes");
  }

  // `filters`: ids, or STRONGEST, DECISIVE, AGAINST; `classes`: ids, or STRONGEST for the answer.
  // Returns predictions; of a file that knows classes `evidence`: per class its decision value (log-odds), support, rank
  // map and retention curve; and per filter id, peak, rank map and retention curve, and with evidence what it adds to the
  // first class and its share of that support.
  async explain(picture, filters = Array(5).fill(this.knowsClasses ? DECISIVE : STRONGEST), classes = [STRONGEST]) {
    const { ort, session, about } = this;
    const spec = about.input;
    const feeds = {};
    if (about.variant?.preprocessing) {
      const { width, height, channels, data } = picture;
      const rgb = channels === 3 ? data : data.filter((_, index) => index % channels < 3);
      feeds[spec.name] = new ort.Tensor("uint8", Uint8Array.from(rgb), [1, height, width, 3]);
    } else {
      const { values, dims } = normalise(fit(picture, spec), spec);
      feeds[spec.name] = new ort.Tensor("float32", values, dims);
    }
    const asked = { filters, classes };
    for (const name of Object.keys(asked).filter((known) => session.inputNames.includes(known))) {
      feeds[name] = new ort.Tensor("int64", BigInt64Array.from(asked[name], BigInt), [1, asked[name].length]);
    }
    const results = await session.run(feeds);
    const [ids, peaks, ranks, retention] = RESULTS.map((name) => results[name]);
    const grid = ranks.dims.slice(2);
    const cut = (rankMaps, curves, place, share, random, live) => {
      const curve = Array.from(curves.data.subarray(place * about.areas.length, (place + 1) * about.areas.length));
      const rank = rankMaps.data.slice(place * grid[0] * grid[1], (place + 1) * grid[0] * grid[1]);
      return { rank, curve, live, area: live ? sufficientArea(about.areas, curve, random, share) : 0 };
    };
    const evidence = Array.from(results.class_ids?.data ?? [], Number).map((index, j) => ({
      index,
      label: label(index, about),
      decision: results.decision.data[j],
      support: Array.from(results.support.data.subarray(2 * j, 2 * j + 2)),
      ...cut(results.evidence_rank, results.evidence_retention, j, OF_DECISIONS, about.areas, results.support.data[2 * j] !== 0 || results.support.data[2 * j + 1] !== 0),
    }));
    const found = [];
    for (let k = 0; k < ids.size; k++) {
      if (ids.data[k] < 0n) continue;
      const contribution = evidence.length ? results.contributions.data[k] : 0;
      if (filters[k] < 0 && peaks.data[k] <= 0) continue; // it must be active
      if (filters[k] === DECISIVE && contribution <= 0) continue; // it must speak for the class, or against it
      if (filters[k] === AGAINST && contribution >= 0) continue;
      const added = evidence.length ? { contribution, share: shareOf(contribution, evidence[0].support) } : {};
      found.push({ id: Number(ids.data[k]), peak: peaks.data[k], ...cut(ranks, retention, k, OF_FILTERS, about.trust?.random, peaks.data[k] > 0), ...added });
    }
    return { layer: about.layer, predictions: predictions(results, about), grid, evidence, filters: found };
  }

  // The area that is shown where one is asked for: none of a filter that is not active in the picture, or of a decision
  // to which no filter adds anything.
  areaOf(found, asked = found.area) {
    return found.live ? asked : 0;
  }

  // Predicted retention of a filter, or of a decision, at an area; null of no area.
  retentionAt(found, area) {
    if (!area) return null;
    return along(area, [0, ...this.about.areas, 1], [0, ...found.curve, 1]);
  }

  // The same in words: a range where the file says that its predictions err by over a tenth.
  keptWords(found, area) {
    if (!found.live) return "nothing";
    const [kept, error] = [this.retentionAt(found, area), this.about.trust?.error ?? 0];
    const words = (value) => `${(100 * between(0, value, 1)).toFixed(0)}%`;
    return error > 0.1 ? `${words(kept - error)} to ${words(kept + error)}` : words(kept);
  }

  // The mask of the area of a filter, or of a decision, on the model's input.
  mask(answer, found, asked = found.area) {
    return areaMask(found.rank, answer.grid, this.areaOf(found, asked), this.about.input.size);
  }
}
