// The page: a picture in; prediction, filters and their areas out. Nothing leaves the browser.
// The explainer is explainer.onnx beside this page, or ?explainer=URL.
import { Explainer, fit } from "./fsagn.mjs";

const part = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const state = { explainer: null, answer: null, chosen: null, pixels: null };
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
  const picture = { data, width, height, channels: 4 };
  const started = performance.now();
  state.answer = await state.explainer.explain(picture);
  state.milliseconds = performance.now() - started;
  state.pixels = fit(picture, state.explainer.about.input);
  list("predictions", state.answer.predictions, (answer) => {
    const item = document.createElement("li");
    item.textContent = `${answer.label ?? `class ${answer.index}`} ${percent(answer.score)}`;
    return item;
  });
  list("filters", state.answer.filters, (filter) => {
    const [item, button] = [document.createElement("li"), document.createElement("button")];
    button.textContent = `filter ${filter.id}`;
    button.onclick = () => choose(filter);
    item.append(button, ` peak ${filter.peak.toFixed(2)}, area ${percent(filter.area)}`);
    return item;
  });
  document.querySelector("main").hidden = false;
  say(`${file.name}: ${Math.round(state.milliseconds)} ms on ${state.provider}`);
  if (state.answer.filters.length) choose(state.answer.filters[0]);
}

function list(id, entries, make) {
  part(id).replaceChildren(...entries.map(make));
}

function choose(filter) {
  state.chosen = filter;
  [...part("filters").querySelectorAll("button")].forEach((button, index) => {
    button.setAttribute("aria-pressed", state.answer.filters[index] === filter);
  });
  part("area").value = filter.area;
  draw();
}

function draw() {
  const area = Number(part("area").value);
  const [height, width] = state.explainer.about.input.size;
  const mask = state.explainer.mask(state.answer, state.chosen, area);
  state.mask = mask;
  const image = new ImageData(width, height);
  for (let place = 0; place < mask.length; place++) {
    for (let c = 0; c < 3; c++) {
      const pixel = state.pixels[place * 3 + c];
      image.data[place * 4 + c] = mask[place] ? pixel : 200 + pixel / 6;
    }
    image.data[place * 4 + 3] = 255;
  }
  [part("picture").width, part("picture").height] = [width, height];
  part("picture").getContext("2d").putImageData(image, 0, 0);
  part("share").textContent = percent(area);
  part("retention").textContent = `predicted retention ${state.explainer.retentionAt(state.chosen, area).toFixed(2)}`;
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
