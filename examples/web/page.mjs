// The page: a picture in; prediction, what it rests on, the filters that carry it, and their areas out. Nothing leaves the
// browser. A click on another class asks what would speak for that.
// The explainer is explainer.onnx beside this page, or ?explainer=URL.
import { AGAINST, DECISIVE, Explainer, STRONGEST, fit } from "./fsagn.mjs";

const part = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const state = { explainer: null, answer: null, chosen: null, picture: null, pixels: null };
window.fsagn = state; // for the console

function say(text, isError = false) {
  part("status").textContent = text;
  part("status").classList.toggle("error", isError);
}

async function open() {
  const wanted = new URLSearchParams(location.search).get("provider");
  const gpu = wanted !== "wasm" && (await navigator.gpu?.requestAdapter().catch(() => null));
  const ort = await import(gpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
  if (!crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads share memory, which only isolated pages may
  const url = new URLSearchParams(location.search).get("explainer") ?? "explainer.onnx";
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  state.explainer = await Explainer.open(ort, bytes, { executionProviders: gpu ? ["webgpu", "wasm"] : ["wasm"] });
  state.provider = gpu ? "webgpu" : "wasm";
  say(`${state.explainer.about.layer}, ${state.explainer.about.filters} filters, on ${state.provider}`);
}

async function show(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }); // upright, by the file's orientation
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  state.picture = { data, width, height, channels: 4 };
  state.pixels = fit(state.picture, state.explainer.about.input);
  await ask(STRONGEST, file.name);
}

const sized = (found) => (!found.live ? "not active" : found.area ? `area ${percent(found.area)}` : "no small area");

// Asks what the decision for a class rests on, and shows it.
async function ask(index, name) {
  const started = performance.now();
  const filters = state.explainer.knowsClasses ? [...Array(5).fill(DECISIVE), ...Array(2).fill(AGAINST)] : undefined;
  const answer = await state.explainer.explain(state.picture, filters, [index]);
  state.milliseconds = performance.now() - started;
  state.answer = answer;
  const [decision] = answer.evidence;
  list("predictions", answer.predictions, (found) => {
    const item = document.createElement("li");
    const words = `${titleOf(found)} ${percent(found.score)}`;
    if (!state.explainer.knowsClasses) return Object.assign(item, { textContent: words });
    item.append(button(words, () => ask(found.index, name).catch((error) => say(error.message, true)), "why?"));
    item.firstChild.setAttribute("aria-pressed", found.index === decision.index);
    return item;
  });
  list("evidence", answer.evidence, (found) => {
    const item = document.createElement("li");
    item.append(button(`${titleOf(found)}: evidence`, () => choose(found)));
    item.append(` log-odds ${found.decision.toFixed(1)}, ${found.area ? `${percent(found.area)} of the picture keeps ${state.explainer.keptWords(found, found.area)} of it` : found.live ? "no small area suffices" : "saturated: the map is flat"}`);
    return item;
  });
  part("decision").hidden = !decision;
  part("whose").textContent = decision ? `what they add to ${titleOf(decision)}: share of the support, or of what speaks against` : "";
  list("filters", answer.filters, (found) => {
    const item = document.createElement("li");
    item.append(button(`filter ${found.id}`, () => choose(found)));
    item.append(decision ? ` ${addition(found)}, ${sized(found)}` : ` peak ${found.peak.toFixed(2)}, ${sized(found)}`);
    if (decision) {
      const bar = Object.assign(document.createElement("span"), { className: found.contribution < 0 ? "bar against" : "bar" });
      bar.style.width = `${Math.max(2, 100 * found.share)}%`;
      item.append(bar);
    }
    return item;
  });
  document.querySelector("main").hidden = false;
  say(`${name}: ${Math.round(state.milliseconds)} ms on ${state.provider}`);
  if (decision ?? answer.filters[0]) choose(decision ?? answer.filters[0]);
}

const titleOf = ({ label, index }) => label ?? `class ${index}`;

// What a filter adds: "+0.31 (4.6 %)", of the support or, with a minus, of what speaks against.
function addition({ contribution, share }) {
  return `${contribution < 0 ? "−" : "+"}${Math.abs(contribution).toFixed(2)} (${percent(share)})`;
}

function button(words, act, title = "") {
  return Object.assign(document.createElement("button"), { textContent: words, onclick: act, title });
}

function list(id, entries, make) {
  part(id).replaceChildren(...entries.map(make));
}

function choose(found) {
  state.chosen = found;
  for (const id of ["evidence", "filters"]) {
    part(id).querySelectorAll("button").forEach((one, index) => {
      one.setAttribute("aria-pressed", state.answer[id][index] === found);
    });
  }
  part("area").value = found.area;
  draw();
}

const BORDER = [230, 110, 0];

// Whether a pixel of the mask has a neighbour that is not in it.
function isBorder(mask, place, width) {
  const column = place % width;
  const beside = [[-width, true], [width, true], [-1, column > 0], [1, column < width - 1]];
  return mask[place] && beside.some(([step, inside]) => inside && mask[place + step] === 0);
}

function draw() {
  const area = state.explainer.areaOf(state.chosen, Number(part("area").value));
  const [height, width] = state.explainer.about.input.size;
  const mask = state.explainer.mask(state.answer, state.chosen, area);
  state.mask = mask;
  const image = new ImageData(width, height);
  for (let place = 0; place < mask.length; place++) {
    for (let c = 0; c < 3; c++) {
      const pixel = state.pixels[place * 3 + c];
      image.data[place * 4 + c] = isBorder(mask, place, width) ? BORDER[c] : mask[place] ? pixel : 150 + pixel / 6;
    }
    image.data[place * 4 + 3] = 255;
  }
  [part("picture").width, part("picture").height] = [width, height];
  part("picture").getContext("2d").putImageData(image, 0, 0);
  part("share").textContent = percent(area);
  part("retention").textContent = `keeps ${state.explainer.keptWords(state.chosen, area)} of the answer, predicted`;
}

const opened = open();
const explain = (file) =>
  file && opened.then(() => show(file)).catch((error) => say(`${file.name}: ${error.message}`, true));
part("file").onchange = (event) => explain(event.target.files[0]);
part("area").oninput = () => state.chosen && draw();
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") explain(event.dataTransfer.files[0]);
  });
}
opened.catch((error) => say(error.message, true));
