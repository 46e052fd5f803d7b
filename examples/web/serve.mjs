// Serves the page locally: node serve.mjs EXPLAINER.onnx [PORT]. Any static server does: see the table below.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const [explainer, port = "8080"] = process.argv.slice(2);
if (!explainer) {
  console.error("usage: node serve.mjs EXPLAINER.onnx [PORT]");
  process.exit(2);
}
const types = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const files = {
  "/": join(here, "index.html"),
  "/page.mjs": join(here, "page.mjs"),
  "/fsagn.mjs": join(here, "../javascript/fsagn.mjs"),
  "/explainer.onnx": resolve(explainer),
};

const server = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, "http://x").pathname);
  const isRuntime = /^\/ort\/[\w.-]+$/.test(path);
  const file = isRuntime ? join(here, "node_modules/onnxruntime-web/dist", path.slice(5)) : files[path];
  const found = file && (await stat(file).catch(() => null));
  if (!found) {
    response.writeHead(404).end("not found");
    return;
  }
  response.writeHead(200, {
    "content-type": types[extname(file)] ?? "application/octet-stream",
    "content-length": found.size,
    "cross-origin-opener-policy": "same-origin", // an isolated page may use threads
    "cross-origin-embedder-policy": "require-corp",
  });
  createReadStream(file).pipe(response);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
