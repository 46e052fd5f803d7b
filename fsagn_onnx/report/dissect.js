// Atlas filters x parts, a page per filter with its reference pictures, groups where nothing is annotated.
const annotated = about.parts.length > 0;
const THUMBS = annotated ? 5 : 9; // pictures in a row of the atlas
const cache = new Map();
const called = (row) => row.name || row.part;

function refPicture(place) {
  if (!cache.has(place)) cache.set(place, new Picture(about.images[place]));
  return cache.get(place);
}

function refArea(row, [place, mask], canvas) {
  const [h, w] = about.grid;
  const bits = bytesOf(mask), cells = new Uint8Array(h * w);
  let kept = 0;
  for (let i = 0; i < h * w; i++) {
    const inside = (bits[i >> 3] >> (7 - (i & 7))) & 1;
    cells[i] = inside ? 0 : 255;
    kept += inside;
  }
  const area = new Area(refPicture(place), { area: kept / (h * w), grid: [h, w], rank: "", bits: 8 }, canvas);
  area.ranks = () => Float32Array.from(cells, (value) => value / 255);
  return area;
}

// Whole pictures, small, with the filter's mask: those in which it is strongest.
function thumbs(row) {
  return el("div", { class: "thumbs" }, row.refs.slice(0, THUMBS).map((ref) => {
    const name = about.images[ref[0]].name;
    const canvas = el("canvas", { role: "img", title: name, "aria-label": `mask of filter ${row.filter} in ${base(name)}`, width: 4, height: 4 });
    return lazily(canvas, () => refArea(row, ref, canvas).draw());
  }));
}

function crops(row, count) {
  return el("div", { class: "crops" }, row.refs.slice(0, count).map((ref) => {
    const name = about.images[ref[0]].name;
    const canvas = el("canvas", { role: "img", "aria-label": `what filter ${row.filter} looks at in ${name}`, width: 160, height: 160 });
    return el("figure", {}, lazily(canvas, () => refArea(row, ref, document.createElement("canvas")).crop(canvas)));
  }));
}

function wholes(row) {
  return balanced(row.refs.map((ref) => {
    const name = about.images[ref[0]].name;
    const canvas = el("canvas", { role: "img", "aria-label": `mask of filter ${row.filter} in ${name}`, width: 4, height: 3 });
    return el("figure", {}, lazily(canvas, () => refArea(row, ref, canvas).draw()), el("figcaption", { class: "quiet", title: name }, base(name)));
  }), 190, { class: "cards" });
}

const decisive = about.summary.decisive;
const decisions = (row) => Object.values(row.decisive).reduce((sum, count) => sum + count, 0);

// "short 12/15, open 3/9": in how many pictures with that answer the filter is among those that add most to it.
function decisiveFor(row, most = Infinity) {
  const found = Object.entries(row.decisive);
  return found.slice(0, most).map(([name, count]) => `${name} ${count}/${decisive.pictures[name]}`).join(", ") + (found.length > most ? ", …" : "");
}

function link(row) {
  return el("button", { type: "button", class: "plain", click: () => open(`filter-${row.filter}`) }, String(row.filter));
}

function atlas() {
  const top = Math.max(0.01, ...records.flatMap((row) => row.iou.map((value) => value ?? 0)));
  const columns = [
    { name: "filter", value: (row) => row.filter, show: link },
    { name: "strongest in", text: true, value: (row) => row.active, show: thumbs },
    ...(annotated || records.some((row) => called(row)) ? [{ name: annotated ? "part" : "name", text: true, value: (row) => called(row), show: (row) => called(row) || "–" }] : []),
    ...(annotated ? [{ name: "q", value: (row) => row.q, show: (row) => fixed(row.q, 3) }] : []),
    { name: "active", value: (row) => row.frequency, show: (row) => percent(row.frequency) },
    ...(decisive ? [{ name: "decisive in", text: true, value: (row) => decisions(row), show: (row) => el("span", { title: decisiveFor(row) }, decisions(row) ? decisiveFor(row, 2) : "–") }] : []),
    ...(annotated ? [{ name: "entropy", value: (row) => row.entropy, show: (row) => fixed(row.entropy) }] : []),
    ...(about.summary.groups > 1 ? [{ name: "group", value: (row) => row.group, show: (row) => row.group ?? "–" }] : []),
    ...about.parts.map((part, i) => ({
      name: part, value: (row) => row.iou[i], show: (row) => fixed(row.iou[i]), heat: (row) => (row.iou[i] ?? 0) / top,
    })),
  ];
  const search = el("input", { type: "search", placeholder: "search (/)", "aria-label": annotated ? "search filters and parts" : "search filters", input: () => fill() });
  const named = toggle("with a part only", false, () => fill());
  const place = el("div");
  function fill() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = records.filter((row) => (!isPressed(named) || row.part) &&
      words.every((word) => `filter ${row.filter} ${row.name || ""} ${row.part || ""} ${row.also.join(" ")}`.toLowerCase().includes(word)));
    place.replaceChildren(rows.length ? table("filters and parts", columns, rows, 30) : el("p", {}, "nothing found"));
  }
  fill();
  return el("section", { class: "card", "aria-label": "atlas" }, el("div", { class: "tools" }, el("span", {}, search, annotated && named)),
    annotated ? el("p", { class: "quiet" }, `Cells: mean IoU of the part with the filter's mask of the part's size, over the images in which the filter is active. A part is given at q ≤ .05: `
      + "the masks follow it (permutation test), and closer than filters of untrained networks do.") : null, place);
}

function summary() {
  const counts = about.summary.named_per_part;
  const parts = counts && Object.entries(counts).sort((a, b) => b[1] - a[1]).filter(([, count]) => count);
  const most = parts && Math.max(1, ...parts.map(([, count]) => count));
  const instability = about.summary.instability;
  return el("section", { class: "card", "aria-label": "summary" }, el("h2", {}, counts ? `${about.summary.named} of ${about.summary.tested} tested filters stand for a part`
    : about.summary.groups > 1 ? `${about.summary.groups} groups of filters` : "No groups of filters stand out"),
    !counts && el("p", { class: "quiet" }, "No parts are annotated: each filter is shown with the pictures in which it is strongest, its mask bright. Name filters by eye in names.json."),
    parts && el("ul", { class: "answers" }, parts.map(([part, count]) => el("li", {}, el("span", {}, part), el("span", {}, String(count)),
      el("span", { class: "bar" }, svg("svg", { viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "mark", width: (100 * count) / most, height: 5 })))))),
    instability && el("p", { class: "quiet" }, `Location instability: masks ${fixed(instability.mask, 3)}, activation peaks ${fixed(instability.peak, 3)}; difference ${signed(instability.difference[0])} [${signed(instability.difference[1])}, ${signed(instability.difference[2])}].`));
}

function groups() {
  if (about.summary.groups < 2) return null;
  const numbers = [...new Set(records.map((row) => row.group))].filter((group) => group !== null).sort((a, b) => a - b);
  return el("section", { class: "card", "aria-label": "groups" }, el("h2", {}, "Groups"), numbers.map((group) => {
    const rows = records.filter((row) => row.group === group);
    const parts = [...new Set(rows.map((row) => row.part).filter(Boolean))];
    return el("details", { class: "group" }, el("summary", {}, `group ${group}: ${rows.length} filters` + (parts.length ? ` (${parts.join(", ")})` : "")),
      rows.slice(0, 12).map((row) => el("div", {}, el("h3", {}, "filter ", link(row), row.name ? ` ${row.name}` : ""), crops(row, 6))));
  }));
}

function filterView(row) {
  const facts = [["active in", `${row.active} images (${percent(row.frequency)})`], ...(annotated ? [["entropy over parts", fixed(row.entropy)], ["q", fixed(row.q, 4)]] : []), ["group", row.group ?? "–"],
    ...(decisive ? [[`among the ${decisive.most} that add most to`, decisiveFor(row) || "no answer"]] : [])];
  const metrics = ["matched_iou", "image_iou", "iou", "share", "pointed", "located", "instability", "peak_instability", "expected_iou", "p"];
  const classes = Object.entries(row.classes);
  return el("section", { "aria-label": `filter ${row.filter}` }, el("p", {}, el("button", { type: "button", click: () => open("") }, "← atlas")),
    el("div", { class: "card" }, el("h2", {}, `Filter ${row.filter}${called(row) ? ": " + called(row) : ""}`),
      annotated && el("p", {}, row.part ? `follows ${[row.part, ...row.also].join(", ")}` : "is given no part"),
      el("dl", {}, facts.map(([word, value]) => [el("dt", {}, word), el("dd", {}, String(value))]).flat())),
    el("div", { class: "card" }, el("h2", {}, "Where it answers most"), crops(row, 9), wholes(row)),
    row.top.length ? el("div", { class: "card" }, el("h2", {}, "Parts"), table("parts of the filter",
      [{ name: "part", text: true, value: (r) => r.part, show: (r) => r.part }, ...metrics.map((metric) => ({ name: metric.replaceAll("_", " "), value: (r) => r[metric], show: (r) => fixed(r[metric], 3) }))], row.top)) : null,
    classes.length ? el("div", { class: "card" }, el("h2", {}, "Classes"), table("classes of the filter",
      [{ name: "class", text: true, value: ([name]) => name, show: ([name]) => name }, { name: "active", value: ([, c]) => c.frequency, show: ([, c]) => percent(c.frequency) },
        ...(annotated ? [{ name: "best part", text: true, value: ([, c]) => c.best, show: ([, c]) => c.best ?? "–" }, { name: "IoU", value: ([, c]) => c.matched_iou, show: ([, c]) => fixed(c.matched_iou) }] : [])], classes)) : null);
}

const rowOf = new Map(records.map((row) => [row.filter, row]));
const view = el("div");
const home = el("div", {}, summary(), annotated ? null : groups(), atlas(), annotated ? groups() : null);
main.prepend(view);
function open(hash) {
  if (location.hash.slice(1) !== hash) location.hash = hash;
  else show();
}
function show() {
  const id = Number((/^#filter-(\d+)$/.exec(location.hash) || [])[1]);
  view.replaceChildren(rowOf.has(id) ? filterView(rowOf.get(id)) : home);
  scrollTo(0, 0);
}
addEventListener("hashchange", show);
show();
