// Explains a picture with an explainer file: node explain.mjs explainer.onnx picture.png [--filters 3,17] [--top 5] [--area 0.1]
//
// Prints one JSON document: the predictions and, per filter, id, peak, area, predicted retention there, and the mask of
// the area at the picture's size as COCO's uncompressed run lengths. Reads PNG and JPEG.
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import jpeg from "jpeg-js";
import * as ort from "onnxruntime-node";
import { PNG } from "pngjs";
import { Explainer, onPicture, runLengths } from "../javascript/fsagn.mjs";
import { orientationOf, upright } from "../javascript/upright.mjs";

function decode(content) {
  const { data, width, height } =
    content[0] === 0x89 ? PNG.sync.read(content) : jpeg.decode(content, { useTArray: true, maxMemoryUsageInMB: 1024 });
  return upright({ data, width, height, channels: 4 }, orientationOf(content));
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    filters: { type: "string" },
    top: { type: "string", default: "5" },
    area: { type: "string" },
  },
});
if (positionals.length !== 2) {
  console.error("usage: node explain.mjs EXPLAINER.onnx PICTURE [--filters 3,17] [--top 5] [--area 0.1]");
  process.exit(2);
}
try {
  const [bytes, content] = await Promise.all(positionals.map((path) => readFile(path)));
  const explainer = await Explainer.open(ort, bytes);
  const filters = values.filters ? values.filters.split(",").map(Number) : Array(Number(values.top)).fill(-1);
  const picture = decode(content);
  const answer = await explainer.explain(picture, filters);
  const size = [picture.height, picture.width];
  const found = answer.filters.map((filter) => {
    const area = values.area ? Number(values.area) : filter.area;
    const shown = onPicture(explainer.mask(answer, filter, area), picture, explainer.about.input);
    const mask = { size, counts: runLengths(shown, size) };
    return { id: filter.id, peak: filter.peak, area, retention: explainer.retentionAt(filter, area), mask };
  });
  console.log(JSON.stringify({ layer: answer.layer, predictions: answer.predictions, filters: found }));
} catch (error) {
  console.error(`error: ${error.message.split("\n")[0]}`);
  process.exit(1);
}
