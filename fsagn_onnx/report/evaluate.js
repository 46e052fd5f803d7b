// Every metric with the methods' intervals side by side, and the retention curves.
const groups = new Map();
for (const row of about.rows) {
  const key = row.metric + (row.infill ? ` · ${row.infill}` : "");
  if (!groups.has(key)) groups.set(key, []);
  groups.get(key).push(row);
}
const search = el("input", { type: "search", placeholder: "search (/)", "aria-label": "search metrics and methods", input: () => show() });
const place = el("div", { class: "columns" });
function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...groups].filter(([key, rows]) => words.every((word) => (key + rows.map((row) => row.method).join(" ")).toLowerCase().includes(word)));
  place.replaceChildren(...found.map(([key, rows]) => el("section", { class: "card", "aria-label": key }, el("h2", {}, key),
    intervals(key, rows.filter((row) => row.value.mean !== null).map((row, i) => [row.method, row.value.mean, row.value.low, row.value.high, i ? "other" : "mark"])))),
  ...Object.entries(about.curves).map(([infill, methods]) => el("section", { class: "card", "aria-label": `retention, ${infill}` }, el("h2", {}, `retention against area · ${infill}`),
    el("div", { class: "charts" }, Object.entries(methods).map(([method, curve]) => el("figure", {},
      curves(`${method}: retention at each area`, [{ points: curve.map((r, i) => [about.areas[i], r]) }], { xLabel: "area", low: 0, high: 1 }), el("figcaption", {}, method)))))));
}
main.prepend(el("div", {}, el("div", { class: "tools" }, el("span", {}, search)), place));
show();
