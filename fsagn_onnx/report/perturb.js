// Per class what the model leans on; per region the curves of every disturbance.
const kinds = about.kinds;
const nameOf = (row) => (row.kind === "part" ? String(row.region) : `filter ${row.region}` + (about.names[row.region] ? ` (${about.names[row.region]})` : ""));
const whole = (row) => row.cells.find((cell) => cell.disturbance === "all");
const labels = [...new Set(records.map((row) => row.label))].sort((a, b) => (b === "all") - (a === "all") || compare(a, b));
const there = [...new Set(records.map((row) => row.kind))].sort().reverse();
const label = el("select", { "aria-label": "class", change: () => show() }, labels.map((name) => el("option", { value: name }, name === "all" ? "all classes" : name)));
const kind = el("select", { "aria-label": "regions", change: () => show() }, there.map((name) => el("option", { value: name }, name === "part" ? "annotated parts" : "filters")));
const search = el("input", { type: "search", placeholder: "search (/)", "aria-label": "search regions", input: () => show() });
const place = el("div");

function chosen() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  return records.filter((row) => row.label === label.value && row.kind === kind.value && words.every((word) => nameOf(row).toLowerCase().includes(word)))
    .sort((a, b) => whole(b).effect - whole(a).effect);
}

function smallest(row) {
  return kinds.map((name) => [name, row.cells.filter((cell) => cell.disturbance === name && cell.flipped >= 0.5).map((cell) => cell.level)])
    .filter(([, levels]) => levels.length).map(([name, levels]) => `${name} ${Math.min(...levels)}`).join(", ") || "–";
}

function ranking(rows) {
  const columns = [
    { name: "region", text: true, value: nameOf, show: (row) => el("button", { type: "button", class: "plain", click: () => open(row) }, nameOf(row)) },
    { name: "images", value: (row) => row.images, show: (row) => String(row.images) },
    { name: "effect", value: (row) => whole(row).effect, show: (row) => signed(whole(row).effect) },
    { name: "inside", value: (row) => whole(row).inside, show: (row) => signed(whole(row).inside) },
    { name: "control", value: (row) => whole(row).control, show: (row) => signed(whole(row).control) },
    { name: "complement", value: (row) => whole(row).complement, show: (row) => signed(whole(row).complement) },
    { name: "q", value: (row) => whole(row).q, show: (row) => fixed(whole(row).q, 3) },
    { name: "decisions flipped", value: (row) => whole(row).flipped, show: (row) => percent(whole(row).flipped) },
    { name: "in controls", value: (row) => whole(row).flipped_control, show: (row) => percent(whole(row).flipped_control) },
    { name: "half flip from strength", text: true, value: smallest, show: smallest },
  ];
  if (about.ablation[label.value] && kind.value === "filter")
    columns.push({ name: "switched off", value: (row) => about.ablation[label.value][row.region], show: (row) => signed(about.ablation[label.value][row.region]) });
  return table("regions by effect", columns, rows);
}

function show() {
  const rows = chosen();
  const agreed = about.summary.agreement[label.value];
  place.replaceChildren(el("section", { class: "card", "aria-label": "ranking" }, el("h2", {}, "What the model leans on" + (["all", ""].includes(label.value) ? "" : `: ${label.value}`)),
    el("p", { class: "quiet" }, "Drop of the class’s score when a region is disturbed, minus the drop when area-matched random regions are: mean over disturbances and strengths, 95 % intervals over images."),
    rows.length && intervals("effect per region", rows.slice(0, 24).map((row) => [nameOf(row), whole(row).effect, whole(row).low, whole(row).high, whole(row).q <= 0.05 ? "mark" : "other"])),
    !rows.length && el("p", {}, records.length ? "nothing found" : `Nothing was disturbed in ${about.fewest} images or more, so there is nothing to compare: give more images, the same filters for all (--filters 3,17), or annotated parts (--parts).`),
    agreed && kind.value === "filter" ? el("p", { class: "quiet" }, `Switching filters off ranks them like disturbing their areas with Spearman's ${fixed(agreed.correlation)} over ${agreed.filters} filters.`) : null, rows.length > 0 && ranking(rows)));
}

function open(row) {
  const at = (name, value) => row.cells.filter((cell) => cell.disturbance === name).map((cell) => value(cell));
  const low = Math.min(0, ...row.cells.map((cell) => cell.low)), high = Math.max(0.02, ...row.cells.map((cell) => cell.high));
  place.replaceChildren(el("section", { class: "card", "aria-label": nameOf(row) }, el("p", {}, el("button", { type: "button", click: show }, "← ranking")),
    el("h2", {}, `${nameOf(row)} · ${row.label === "all" ? "all classes" : row.label} · ${row.images} images`),
    el("p", { class: "quiet" }, "Effect (inside minus control) at strengths 1 to 3 with 95 % intervals:"),
    el("div", { class: "charts" }, kinds.map((name) => el("figure", {}, curves(`${name}: effect at each strength`, [{ points: at(name, (c) => [c.level, c.effect, c.low, c.high]) }], { xLabel: "strength", low, high }), el("figcaption", {}, name)))),
    el("p", { class: "quiet" }, "Share of decisions that change, inside (bright) and in controls (gray):"),
    el("div", { class: "charts" }, kinds.map((name) => el("figure", {}, curves(`${name}: decisions flipped at each strength`, [{ points: at(name, (c) => [c.level, c.flipped_control]), kind: "other" }, { points: at(name, (c) => [c.level, c.flipped]) }], { xLabel: "strength", low: 0, high: 1 }), el("figcaption", {}, name)))),
    table("all figures", ["disturbance", "level", "inside", "control", "complement", "effect", "low", "high", "p", "q", "flipped", "flipped_control", "accuracy", "accuracy_inside", "accuracy_control"].map((name) => ({
      name: name.replaceAll("_", " "), text: name === "disturbance", value: (cell) => cell[name], show: (cell) => (typeof cell[name] === "string" ? cell[name] : name === "level" ? String(cell.level) : fixed(cell[name], 3)) })), row.cells)));
  scrollTo(0, 0);
}

main.prepend(el("div", {}, el("div", { class: "tools" }, el("span", {}, search, labels.length > 0 && label, there.length > 1 && kind)), place));
show();
