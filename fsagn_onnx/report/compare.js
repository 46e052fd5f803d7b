// What moved between two runs, the largest changes first.
const columns = [
  { name: "what", text: true, value: (row) => row.what, show: (row) => row.what },
  { name: "of", text: true, value: (row) => row.of, show: (row) => row.of },
  { name: "change", value: (row) => row.change, show: (row) => signed(row.change) },
  { name: "95 % interval", value: (row) => row.low, show: (row) => (row.low === null ? "–" : `${signed(row.low)} … ${signed(row.high)}`) },
  { name: "before", value: (row) => row.before, show: (row) => (typeof row.before === "number" ? fixed(row.before, 3) : row.before ?? "–") },
  { name: "after", value: (row) => row.after, show: (row) => (typeof row.after === "number" ? fixed(row.after, 3) : row.after ?? "–") },
  { name: "q", value: (row) => row.q, show: (row) => fixed(row.q, 3) },
  { name: "drifted", text: true, value: (row) => row.drifted, show: (row) => el("span", { class: row.drifted ? "bad" : "good" }, row.drifted ? "yes" : "no") },
];
const search = el("input", { type: "search", placeholder: "search (/)", "aria-label": "search changes", input: () => show() });
const only = toggle("drifted only", true, () => show());
const place = el("div");
function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = records.filter((row) => (!isPressed(only) || row.drifted) && words.every((word) => `${row.what} ${row.of}`.toLowerCase().includes(word)));
  place.replaceChildren(rows.length ? table("changes", columns, rows) : el("p", {}, records.some((row) => row.drifted) ? "nothing found" : "Nothing drifted."));
}
main.prepend(el("section", { class: "card", "aria-label": "changes" }, el("div", { class: "tools" }, el("span", {}, search, only)), place));
show();
