// Explains a picture with an explainer file:
//
//   node explain.mjs explainer.onnx picture.png [--classes short] [--filters decisive:3,against:1] [--area 0.1]
//     [--overlay out.png]
//
// Prints one JSON document: the predictions; of an explainer that knows classes, what the decision for each class asked
// about rests on (evidence: log-odds, support, area, predicted retention, mask); and per filter, id, peak, area, predicted
// retention there, what it adds to the first class and its share of the support. Masks are those of the area at the
// picture's size, as COCO's uncompressed run lengths. The overlay is dark outside of the evidence. Reads PNG and JPEG.
import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import jpeg from "jpeg-js";
import * as ort from "onnxruntime-node";
import { PNG } from "pngjs";
import { Explainer, askedClasses, askedFilters, onPicture, runLengths } from "../javascript/fsagn.mjs";
import { orientationOf, upright } from "../javascript/upright.mjs";

function decode(content) {
  const { data, width, height } =
    content[0] === 0x89 ? PNG.sync.read(content) : jpeg.decode(content, { useTArray: true, maxMemoryUsageInMB: 1024 });
  return upright({ data, width, height, channels: 4 }, orientationOf(content));
}

// The picture, dark where a mask is 0, as PNG.
function dimmed({ data, width, height, channels }, mask) {
  const drawn = new PNG({ width, height });
  for (let place = 0; place < width * height; place++) {
    for (let c = 0; c < 3; c++) drawn.data[place * 4 + c] = data[place * channels + c] / (mask[place] ? 1 : 4);
    drawn.data[place * 4 + 3] = 255;
  }
  return PNG.sync.write(drawn);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    classes: { type: "string", default: "-1" },
    filters: { type: "string" },
    area: { type: "string" },
    overlay: { type: "string" },
  },
});
if (positionals.length !== 2) {
  console.error(
    "usage: node explain.mjs EXPLAINER.onnx PICTURE [--classes NAME,...] [--filters decisive:3,against:1] [--area 0.1] " +
      "[--overlay OUT.png]",
  );
  process.exit(2);
}
try {
  const [bytes, content] = await Promise.all(positionals.map((path) => readFile(path)));
  const explainer = await Explainer.open(ort, bytes);
  const filters = values.filters ? askedFilters(values.filters) : undefined;
  const picture = decode(content);
  const answer = await explainer.explain(picture, filters, askedClasses(values.classes, explainer.about));
  const size = [picture.height, picture.width];
  const shown = (found) => {
    const area = explainer.areaOf(found, values.area ? Number(values.area) : undefined);
    const mask = onPicture(explainer.mask(answer, found, area), picture, explainer.about.input);
    return { area, retention: explainer.retentionAt(found, area), mask: { size, counts: runLengths(mask, size) } };
  };
  const evidence = answer.evidence.map((found) => {
    const { index, label, decision, support } = found;
    return { class: index, label, decision, support, ...shown(found) };
  });
  const filtersFound = answer.filters.map((found) => {
    const { id, peak, contribution, share } = found;
    return { id, peak, ...shown(found), contribution, share };
  });
  const first = answer.evidence[0] ?? answer.filters[0];
  if (values.overlay && first) {
    const mask = explainer.mask(answer, first, values.area ? Number(values.area) : undefined);
    await writeFile(values.overlay, dimmed(picture, onPicture(mask, picture, explainer.about.input)));
  }
  const decided = evidence.length ? { evidence } : {};
  const document = { layer: answer.layer, predictions: answer.predictions, ...decided, filters: filtersFound };
  console.log(JSON.stringify(document));
} catch (error) {
  console.error(`error: ${error.message.split("\n")[0]}`);
  process.exit(1);
}
