// Images with the areas of their filters; every filter with the images in which it answers most.
const STRIP = 5, WHOLE = 3; // filters beside a picture; so many pictures are shown with all details
let asked = null, all = records.length <= WHOLE;
const expanded = new Map();
const isExpanded = (item) => expanded.get(item) ?? all;
const pictures = new Map();
const shownAreas = new Set();

function pictureOf(item) {
  if (!pictures.has(item)) {
    if (pictures.size > 400) pictures.clear();
    pictures.set(item, new Picture(item));
  }
  return pictures.get(item);
}

function retentionAt(curve, area) {
  const points = [[0, 0], ...curve];
  if (points[points.length - 1][0] < 1) points.push([1, 1]);
  for (let i = 1; i < points.length; i++) {
    const [a0, r0] = points[i - 1], [a1, r1] = points[i];
    if (area <= a1) return r0 + (r1 - r0) * (area - a0) / (a1 - a0);
  }
  return points[points.length - 1][1];
}

// A predicted retention, as a range where the explainer errs by over a tenth.
function predicted(filter, area) {
  const value = retentionAt(filter.curve, area), error = filter.error ?? 0;
  const low = Math.max(0, value - error), high = Math.min(1, value + error);
  return error > 0.1 ? `${(100 * low).toFixed(0)}-${(100 * high).toFixed(0)}%` : percent(value);
}

const figures = (filter) => (!filter.active ? "not active" : filter.area ? percent(filter.area) : filter.flat ? "saturated: the map is flat" : "no small area");

// The area of a filter, or of a decision, as a small picture.
const nameOf = (filter) => (filter.title === undefined ? `area of filter ${filter.id}` : `evidence for ${filter.title}`);
const titleOf = (filter) => (filter.title === undefined ? link(filter) : el("span", {}, `${filter.title}: evidence`));

function filterTile(item, filter) {
  const canvas = el("canvas", { role: "img", "aria-label": `${nameOf(filter)} in ${item.name}`, width: 4, height: 3 });
  const area = new Area(pictureOf(item), filter, canvas);
  area.area = asked ?? area.own;
  const move = (share) => {
    area.area = Math.min(Math.max(share, 0), 1);
    if (area.field) area.draw();
  };
  shownAreas.add({ canvas, move, own: area.own, again: () => area.field && area.draw() });
  return el("figure", {}, lazily(canvas, () => area.draw()), el("figcaption", {}, titleOf(filter), el("br"), el("span", { class: "quiet" }, [figures(filter), filter.part, filter.adds].filter(Boolean).join(" · "))));
}

const link = (filter) => el("button", { type: "button", class: "plain", click: () => open(`filter-${filter.id}`) }, `filter ${filter.id}`);

const answered = (answer) => `${answer[0]} ${percent(answer[1])}`;

// What is known of an area, as pairs of a word and its value.
function facts(filter) {
  const rows = filter.title === undefined ? [["peak", fixed(filter.peak)]] : [["log-odds", fixed(filter.decision)]];
  rows.push(["area", filter.keeps]);
  if (filter.part) rows.push(["stands for", filter.part]);
  if (filter.adds) rows.push(["adds", filter.adds]);
  if (filter.removed) rows.push(["without it", answered(filter.removed)], ["without as much elsewhere", answered(filter.control)], ["with it alone", answered(filter.kept)]);
  return rows;
}

function filterCard(item, filter, title) {
  const canvas = el("canvas", { role: "img", "aria-label": `${nameOf(filter)} in ${item.name}`, width: 4, height: 3 });
  const area = new Area(pictureOf(item), filter, canvas);
  const output = el("output"), expected = el("dd");
  const slider = el("input", { type: "range", min: 1, max: 100, step: 0.5, "aria-label": `share kept: ${nameOf(filter)}`, disabled: !filter.active,
    input: () => move((slider.value / 100) ** 2) });
  function move(share) {
    area.area = Math.min(Math.max(share, 0), 1);
    output.textContent = percent(area.area);
    slider.value = 100 * Math.sqrt(area.area);
    slider.setAttribute("aria-valuetext", output.textContent);
    expected.textContent = filter.curve.length ? predicted(filter, area.area) : "";
    if (area.field) area.draw();
  }
  move(asked ?? area.own);
  shownAreas.add({ canvas, move, own: area.own, again: () => area.field && area.draw() });
  lazily(canvas, () => area.draw());
  const rows = facts(filter);
  return el("figure", {}, canvas, el("figcaption", {}, el("h3", {}, title),
    el("div", { class: "budget" }, slider, output),
    el("dl", {}, rows.map(([word, value]) => [el("dt", {}, word), el("dd", {}, value)]).flat(),
      filter.active && filter.curve.length ? [el("dt", {}, "at the slider, predicted"), expected] : [])));
}

// Boxes of a detector over the picture, in pixels of the original image.
function boxesOver(image, item) {
  if (!item.boxes || !item.boxes.length) return image;
  const [height, width] = item.size, line = Math.max(width, height) / 200;
  const shapes = [...item.boxes].reverse().map(([title, score, [x0, y0, x1, y1], color]) =>
    svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, fill: "none", stroke: color, "stroke-width": line },
      svg("title", {}, `${title} ${percent(score)}`)));
  return el("div", { class: "boxed" }, image, svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": item.boxes.map(([title]) => title).join(", ") }, shapes));
}

const bars = (rows) => el("ul", { class: "answers" }, rows.map(([title, score]) =>
  el("li", {}, el("span", {}, title), el("span", {}, percent(score)), el("span", { class: "bar" },
    svg("svg", { viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "mark", width: 100 * score, height: 5 }))))));

// Heads, boxes and segments, as far as the model has them; [words for one line, lists for the details].
function findings(item) {
  const words = [], lists = [];
  for (const [name, answers] of item.heads || []) {
    words.push(`${name}: ${answers[0][0]} ${percent(answers[0][1])}`);
    lists.push(el("h4", {}, name), bars(answers));
  }
  if (item.boxes) {
    words.push(item.boxes.length ? `${item.many} box${item.many === 1 ? "" : "es"}: ${item.boxes[0][0]} ${percent(item.boxes[0][1])}` : "no box");
    lists.push(el("h4", {}, item.many === 1 ? "1 box" : `${item.many} boxes`), bars(item.boxes));
  }
  if (item.segments) {
    words.push(item.segments.slice(0, 3).map(([title, share]) => `${title} ${percent(share)}`).join(", ") || "nothing found");
    lists.push(el("h4", {}, "share of the picture"), bars(item.segments));
  }
  return [words.join(" · "), lists];
}

function imageCard(item) {
  const image = el("img", { alt: item.name, src: "data:image/jpeg;base64," + item.picture, loading: "lazy", decoding: "async" });
  const [found, lists] = findings(item), answers = [bars(item.answers), ...lists];
  const more = item.more ? ` · ${item.more} more filters in masks/${item.stem}.npz` : "";
  const [first] = item.answers, pixels = `${item.size[1]} × ${item.size[0]} pixels`;
  const about = el("p", { class: "quiet" }), content = el("div"), why = item.why || [];
  const said = why.map((found) => found.sentence).filter(Boolean).map((line) => el("p", {}, line));
  const detail = el("button", { type: "button", "aria-expanded": "false", "aria-label": `details of ${base(item.name)}`, click: () => { expanded.set(item, !isExpanded(item)); fill(); } }, "details");
  function fill() {
    const whole = isExpanded(item);
    detail.setAttribute("aria-expanded", String(whole));
    card.classList.toggle("whole", whole);
    about.textContent = whole ? `${item.name} · ${pixels}${more}` : [first && `${first[0]} ${percent(first[1])}`, found].filter(Boolean).join(" · ") || pixels;
    const shown = el("figure", {}, boxesOver(image, item), el("figcaption", {}, el("h3", {}, "image"), whole && answers));
    content.replaceChildren(whole ? balanced([shown, ...[...why, ...item.filters].map((filter) => filterCard(item, filter, titleOf(filter)))], 190, { class: "cards lead" })
      : el("div", { class: "strip" }, shown, [...why, ...item.filters].slice(0, STRIP).map((filter) => filterTile(item, filter))));
  }
  const card = el("article", { class: "card" + (Math.max(...item.size) < 64 ? " tiny" : "") },
    el("div", { class: "head" }, el("div", {}, el("h2", { title: item.name }, base(item.name)), about), detail), said, content);
  card.refill = fill;
  fill();
  return card;
}

let indexed = null;

function byFilter(id) {
  if (!indexed) {
    indexed = new Map();
    for (const item of records)
      for (const filter of item.filters) {
        if (!indexed.has(filter.id)) indexed.set(filter.id, []);
        indexed.get(filter.id).push([item, filter]);
      }
  }
  return indexed.get(id) || [];
}

function filterView(id) {
  const shown = byFilter(id).length, best = byFilter(id).filter(([, filter]) => filter.active).sort((a, b) => b[1].peak - a[1].peak);
  const crops = best.filter(([, filter]) => filter.area).slice(0, 12).map(([item, filter]) => {
    const canvas = el("canvas", { role: "img", "aria-label": `what filter ${id} looks at in ${item.name}`, width: 160, height: 160 });
    return el("figure", {}, lazily(canvas, () => new Area(pictureOf(item), filter, document.createElement("canvas")).crop(canvas)),
      el("figcaption", { class: "quiet" }, `peak ${fixed(filter.peak)}`));
  });
  return el("section", { "aria-label": `filter ${id}` }, el("p", {}, el("button", { type: "button", click: () => open("") }, "← all images")),
    el("div", { class: "card" }, el("h2", {}, `Filter ${id}`),
      el("p", { class: "quiet" }, `among the shown filters of ${shown} of ${records.length} images, ` + (best.length ? "what it looks at where it answers most:" : "active in none of them")),
      el("div", { class: "crops" }, crops)),
    balanced(best.slice(0, 24).map(([item, filter]) => filterCard(item, filter, el("span", { title: item.name }, base(item.name)))), 190, { class: "cards" }));
}

const setAll = (share) => {
  asked = share;
  for (const button of areaTools.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.area === String(share ?? "own")));
  for (const area of [...shownAreas]) area.canvas.isConnected ? area.move(share ?? area.own) : shownAreas.delete(area);
};
const areaTools = el("span", {}, el("span", { class: "quiet" }, "all areas:"),
  [["as explained", null], ["5%", 0.05], ["10%", 0.1], ["20%", 0.2], ["40%", 0.4]].map(([name, share]) =>
    el("button", { type: "button", "data-area": share ?? "own", "aria-pressed": String(share === null), click: () => setAll(share) }, name)));
const heated = toggle("heat map", style === "heat", () => {
  style = isPressed(heated) ? "heat" : "outline";
  for (const area of [...shownAreas]) area.canvas.isConnected ? area.again() : shownAreas.delete(area);
});
heated.title = "red is kept first, blue last";
const whole = toggle("all details", all, () => {
  all = isPressed(whole);
  expanded.clear();
  document.querySelectorAll("article").forEach((card) => card.refill());
});
const best = (item) => (item.answers[0] ? item.answers[0][1] : 0);
const peak = (item) => Math.max(0, ...item.filters.map((filter) => filter.peak));
const pager = new Pager({
  items: records, draw: imageCard, size: 24, label: "images", tools: [areaTools, el("span", {}, heated, whole)],
  words: (item) => item.name + " " + item.answers.slice(0, 1).map(([title]) => title).join(" ") + " " + findings(item)[0] + " " + item.filters.map((filter) => `filter ${filter.id}`).join(" "),
  sorts: [["in order", null], ["by name", (a, b) => compare(a.name, b.name)], ["most certain first", (a, b) => best(b) - best(a)],
    ["least certain first", (a, b) => best(a) - best(b)], ["highest peak first", (a, b) => peak(b) - peak(a)]],
});
const view = el("div");
main.prepend(view);

function open(hash) {
  if (location.hash.slice(1) !== hash) location.hash = hash;
  else show();
}
function show() {
  const id = Number((/^#filter-(\d+)$/.exec(location.hash) || [])[1]);
  view.replaceChildren(id >= 0 && byFilter(id).length ? filterView(id) : pager.node);
  scrollTo(0, 0);
}
addEventListener("hashchange", show);
show();
