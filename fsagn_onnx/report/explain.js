// Images with the areas of their filters; every filter with the images in which it answers most.
let asked = null;
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

function filterCard(item, filter, title) {
  const canvas = el("canvas", { role: "img", "aria-label": `area of filter ${filter.id} in ${item.name}`, width: 4, height: 3 });
  const area = new Area(pictureOf(item), filter, canvas);
  const output = el("output"), expected = el("dd");
  const slider = el("input", { type: "range", min: 1, max: 100, step: 0.5, "aria-label": `area kept for filter ${filter.id}`,
    input: () => move((slider.value / 100) ** 2) });
  function move(share) {
    area.area = Math.min(Math.max(share, 0.0001), 1);
    output.textContent = percent(area.area);
    slider.value = 100 * Math.sqrt(area.area);
    slider.setAttribute("aria-valuetext", output.textContent);
    expected.textContent = filter.curve.length ? retentionAt(filter.curve, area.area).toFixed(2) : "";
    if (area.field) area.draw();
  }
  move(asked ?? area.own);
  shownAreas.add({ canvas, move, own: area.own });
  lazily(canvas, () => area.draw());
  const rows = [["peak", fixed(filter.peak) + (filter.active ? "" : ", not active here")], ["explained area", percent(filter.area)]];
  if (filter.predicted !== null) rows.push(["retention there, predicted", fixed(filter.predicted)]);
  if (filter.measured !== null) rows.push(["retention there, measured", fixed(filter.measured)]);
  return el("figure", {}, canvas, el("figcaption", {}, el("h3", {}, title),
    el("div", { class: "budget" }, slider, output),
    el("dl", {}, rows.map(([word, value]) => [el("dt", {}, word), el("dd", {}, value)]).flat(),
      filter.curve.length ? [el("dt", {}, "at the slider, predicted"), expected] : [])));
}

function imageCard(item) {
  const image = el("img", { alt: item.name, src: "data:image/jpeg;base64," + item.picture, loading: "lazy", decoding: "async" });
  const answers = el("ul", { class: "answers" }, item.answers.map(([title, score]) =>
    el("li", {}, el("span", {}, title), el("span", {}, percent(score)), el("span", { class: "bar" },
      svg("svg", { viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "mark", width: 100 * score, height: 5 }))))));
  const more = item.more ? ` · ${item.more} more filters in masks/${item.stem}.npz` : "";
  return el("article", { class: "card" + (Math.max(...item.size) < 64 ? " tiny" : "") }, el("h2", {}, item.name),
    el("p", { class: "quiet" }, `${item.size[1]} × ${item.size[0]} pixels${more}`),
    el("div", { class: "cards" }, el("figure", {}, image, el("figcaption", {}, el("h3", {}, "image"), answers)),
      item.filters.map((filter) => filterCard(item, filter,
        el("button", { type: "button", class: "plain", click: () => open(`filter-${filter.id}`) }, `filter ${filter.id}`)))));
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
  const best = [...byFilter(id)].sort((a, b) => b[1].peak - a[1].peak);
  const crops = best.slice(0, 12).map(([item, filter]) => {
    const canvas = el("canvas", { role: "img", "aria-label": `what filter ${id} looks at in ${item.name}`, width: 160, height: 160 });
    return el("figure", {}, lazily(canvas, () => new Area(pictureOf(item), filter, document.createElement("canvas")).crop(canvas)),
      el("figcaption", { class: "quiet" }, `peak ${fixed(filter.peak)}`));
  });
  return el("section", { "aria-label": `filter ${id}` }, el("p", {}, el("button", { type: "button", click: () => open("") }, "← all images")),
    el("div", { class: "card" }, el("h2", {}, `Filter ${id}`),
      el("p", { class: "quiet" }, `among the shown filters of ${best.length} of ${records.length} images; what it looks at where it answers most:`),
      el("div", { class: "crops" }, crops)),
    el("div", { class: "cards" }, best.slice(0, 24).map(([item, filter]) => filterCard(item, filter, item.name))));
}

const setAll = (share) => {
  asked = share;
  for (const area of [...shownAreas]) area.canvas.isConnected ? area.move(share ?? area.own) : shownAreas.delete(area);
};
const areaTools = el("span", {}, el("span", { class: "quiet" }, "all areas:"),
  [["as explained", null], ["5%", 0.05], ["10%", 0.1], ["20%", 0.2], ["40%", 0.4]].map(([name, share]) =>
    el("button", { type: "button", "data-area": share ?? "own", click: () => setAll(share) }, name)));
const best = (item) => (item.answers[0] ? item.answers[0][1] : 0);
const peak = (item) => Math.max(0, ...item.filters.map((filter) => filter.peak));
const pager = new Pager({
  items: records, draw: imageCard, size: 12, label: "images", tools: [areaTools],
  words: (item) => item.name + " " + item.answers.slice(0, 1).map(([title]) => title).join(" ") + " " + item.filters.map((filter) => `filter ${filter.id}`).join(" "),
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
