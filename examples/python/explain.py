"""Explains a picture with an explainer file: onnxruntime, numpy and the standard library, nothing else.

    python explain.py explainer.onnx picture.png [--classes short] [--filters decisive:3,against:1] [--area 0.1]
        [--overlay out.png]

Prints one JSON document: the predictions; of an explainer that knows classes, what the decision for each class asked
about rests on (evidence: log-odds, support, area, predicted retention, mask); and per filter, id, peak, area, predicted
retention there, what it adds to the first class and its share of the support. Masks are those of the area at the
picture's size, as COCO's uncompressed run lengths (column by column, zeros first). Everything it needs to know is in
the file's metadata. Reads PNG (not interlaced, no palette) and binary PPM by itself, and JPEG and all else
with Pillow where that is installed; take any decoder you like.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import onnxruntime


def read_picture(path: Path) -> np.ndarray:
    """A PNG or PPM file as uint8 RGB (H, W, 3); other files with Pillow, upright as the camera was held."""
    content = path.read_bytes()
    if found := re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", content):
        width, height = int(found[1]), int(found[2])
        return np.frombuffer(content, np.uint8, height * width * 3, found.end()).reshape(height, width, 3)
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return read_with_pillow(path)
    place, packed = 8, b""
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, place + 8)
        elif kind == b"IDAT":
            packed += content[place + 8 : place + 8 + length]
        elif kind == b"eXIf":  # may say how the camera was held
            return read_with_pillow(path)
        place += 12 + length
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(color)
    if depth > 8 or (depth < 8 and color) or interlaced or channels is None:
        raise SystemExit(
            f"error: {path}: only PNG of 8 bits per channel (or gray of fewer), no palette, not interlaced"
        )
    pixels = unfilter(zlib.decompress(packed), height, -(-width * depth // 8), channels)
    if depth < 8:  # several gray pixels in a byte
        bits = np.unpackbits(pixels, axis=1).reshape(height, -1, depth)
        pixels = (bits @ (1 << np.arange(depth)[::-1]) * (255 // (2**depth - 1)))[:, :width, None].astype(np.uint8)
    return pixels[..., :3] if channels >= 3 else np.repeat(pixels[..., :1], 3, axis=2)


def read_with_pillow(path: Path) -> np.ndarray:
    """JPEG and whatever else Pillow reads, as uint8 RGB (H, W, 3)."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError:
        raise SystemExit(f"error: {path} is neither PNG nor PPM; 'pip install pillow' for JPEG and others") from None
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise SystemExit(f"error: {path} is no picture that Pillow can read: {error}") from None


def unfilter(rows: bytes, height: int, width: int, channels: int) -> np.ndarray:
    """Undo the five filters of PNG (W3C PNG, section 9.2)."""
    lines = np.frombuffer(rows, np.uint8).reshape(height, 1 + width * channels)
    pixels = np.zeros((height + 1, width + 1, channels), np.int32)  # a border of zeros above and to the left
    for y in range(height):
        kind, line = lines[y, 0], lines[y, 1:].reshape(width, channels).astype(np.int32)
        above, row = pixels[y], pixels[y + 1]
        if kind in (0, 2):
            row[1:] = (line + (above[1:] if kind else 0)) & 255
            continue
        if kind == 1:
            row[1:] = np.cumsum(line, axis=0) & 255
            continue
        for x in range(1, width + 1):
            left, up, corner = row[x - 1], above[x], above[x - 1]
            if kind == 3:
                guess = (left + up) >> 1
            else:
                near = np.abs(np.stack([up - corner, left - corner, left + up - 2 * corner]))
                guess = np.choose(near.argmin(axis=0), [left, up, corner])
            row[x] = (line[x - 1] + guess) & 255
    return pixels[1:, 1:].astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Uint8 RGB (H, W, 3) as PNG."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows.tobytes())))
    chunks = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in (*parts, (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def axis_matrix(source: int, target: int) -> np.ndarray:
    """(target, source) weights of one axis: area average where it shrinks, bilinear where it grows."""
    scale, i, j = source / target, np.arange(target)[:, None], np.arange(source)[None, :]
    if source >= target:
        return np.clip(np.minimum(j + 1, (i + 1) * scale) - np.maximum(j, i * scale), 0, None) / scale
    centre = np.clip((i + 0.5) * scale - 0.5, 0, source - 1)
    return np.clip(1 - np.abs(centre - j), 0, None)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H0, W0, c) -> (height, width, c), rounded."""
    rows = np.tensordot(axis_matrix(pixels.shape[0], height), pixels.astype(np.float64), axes=(1, 0))
    return np.round(np.einsum("xs,ysc->yxc", axis_matrix(pixels.shape[1], width), rows))


def windows(rows: int, columns: int, spec: dict) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """(top, left, height, width) of what the model sees of a picture, and of where it stands in the model's input."""
    (height, width), (policy, _, number) = spec["size"], spec["resize"].partition(":")
    source, target = (0, 0, rows, columns), (0, 0, height, width)
    if policy == "crop":
        unit = float(number) * min(rows / height, columns / width)
        h, w = min(rows, max(1, round(unit * height))), min(columns, max(1, round(unit * width)))
        source = ((rows - h) // 2, (columns - w) // 2, h, w)
    if policy == "letterbox":
        factor = min(height / rows, width / columns)
        h, w = min(height, max(1, round(rows * factor))), min(width, max(1, round(columns * factor)))
        target = ((height - h) // 2, (width - w) // 2, h, w)
    return source, target


def fit(picture: np.ndarray, spec: dict) -> np.ndarray:
    """The picture at the size of the model's input, by the metadata's resize policy: (H, W, 3) in 0..255."""
    (top, left, h, w), (y, x, height, width) = windows(*picture.shape[:2], spec)
    border = spec["resize"].partition(":")[2] if spec["resize"].startswith("letterbox") else 0
    pixels = np.full((*spec["size"], 3), round(float(border)), np.float64)
    pixels[y : y + height, x : x + width] = resize(picture[top : top + h, left : left + w], height, width)
    return pixels


def on_picture(mask: np.ndarray, rows: int, columns: int, spec: dict) -> np.ndarray:
    """A mask of the model's input at the picture's size: bool (rows, columns), False where the model did not look."""
    (top, left, h, w), (y, x, height, width) = windows(rows, columns, spec)
    # every pixel of the picture takes the pixel of the input that its centre falls into
    down = np.floor((np.arange(rows) + 0.5 - (top - y * h / height)) / (h / height)).astype(int)
    across = np.floor((np.arange(columns) + 0.5 - (left - x * w / width)) / (w / width)).astype(int)
    seen = ((down >= 0) & (down < mask.shape[0]))[:, None] & ((across >= 0) & (across < mask.shape[1]))
    return seen & mask[np.clip(down, 0, mask.shape[0] - 1)][:, np.clip(across, 0, mask.shape[1] - 1)]


def normalise(pixels: np.ndarray, spec: dict) -> np.ndarray:
    """(H, W, 3) in 0..255 -> (1, c, H, W) or (1, H, W, c) float32."""
    if spec["color"] in ("BGR", "BGRA"):
        pixels = pixels[..., ::-1]
    if len(spec["mean"]) == 4:  # opaque
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255.0)])
    elif spec["color"] == "GRAY":
        pixels = np.round(pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    x = (pixels * spec["scale"] - np.array(spec["mean"])) / np.array(spec["std"])
    return (x.transpose(2, 0, 1) if spec["layout"] == "NCHW" else x)[None].astype(np.float32)


def area_mask(rank: np.ndarray, area: float, size: tuple[int, int]) -> np.ndarray:
    """The round(a H W) pixels with the smallest bilinearly upsampled rank, ties by position: bool (H, W)."""

    def along(cells: int, pixels: int) -> np.ndarray:
        centre = np.clip((np.arange(pixels)[:, None] + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        return np.clip(1 - np.abs(centre - np.arange(cells)), 0, None)

    pixels = along(rank.shape[0], size[0]) @ rank.astype(np.float64) @ along(rank.shape[1], size[1]).T
    mask = np.zeros(size, bool)
    mask.ravel()[np.argsort(pixels.ravel(), kind="stable")[: round(area * pixels.size)]] = True
    return mask


OF_FILTERS, OF_DECISIONS = 0.8, 0.5  # of the largest lead


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column by column, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes])).tolist()


def sufficient_area(
    areas: list[float], retention: np.ndarray, random: list[float] | None = None, share: float = OF_FILTERS
) -> float:
    """The smallest area up to half of the picture with a share of the largest lead over a random one; 0: none has .05.

    What random areas keep stands in the metadata's `trust`; where it does not, they are taken to keep their own share.
    """
    chance = areas if random is None else random
    areas = [area for area in areas if area <= 0.5]
    lead = np.asarray(retention, np.float64)[: len(areas)] - chance[: len(areas)]
    if lead.size == 0 or lead.max() < 0.05:
        return 0.0
    reached = int(np.argmax(lead >= share * lead.max()))
    if reached == 0:
        return areas[0]
    return float(np.interp(share * lead.max(), lead[reached - 1 : reached + 1], areas[reached - 1 : reached + 1]))


STRONGEST, DECISIVE, AGAINST = -1, -2, -3  # what the inputs can hold besides ids
KINDS = {"top": STRONGEST, "decisive": DECISIVE, "against": AGAINST}


def whole_number(text: str) -> int:
    """A number; ends the program where the text is something else."""
    if not re.fullmatch(r"-?\d+", text):
        raise SystemExit(f"error: {text!r} is no whole number")
    return int(text)


def asked_filters(words: str) -> list[int]:
    """``decisive:3,against:1``, ``top:5`` or ids like ``3,17`` -> what stands in the input `filters`."""
    slots: list[int] = []
    for word in words.split(","):
        kind, _, number = word.partition(":")
        slots += [KINDS[kind]] * whole_number(number) if kind in KINDS else [whole_number(word)]
    return slots


def asked_classes(words: str, about: dict) -> list[int]:
    """Names or numbers with commas -> what stands in the input `classes`; -1: the highest score."""
    names, numbers = about["labels"] or [], []
    for word in words.split(","):
        numbers.append(names.index(word) if word in names else whole_number(word))
        count = (about.get("classes") or {}).get("count")
        if numbers[-1] < STRONGEST or (count is not None and numbers[-1] >= count):
            raise SystemExit(f"error: no class {word}: there are {count}")
    return numbers


def explain(
    explainer: str, picture: np.ndarray, filters: str | None, area: float | None, classes: str = "-1"
) -> tuple[dict, list]:
    """The JSON document, and the masks: of the evidence first, where there is any."""
    session = onnxruntime.InferenceSession(explainer, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["fsagn"])
    spec, variant = about["input"], about.get("variant", {})
    x = picture[None] if variant.get("preprocessing") else normalise(fit(picture, spec), spec)
    ports = {port.name for port in session.get_inputs()}
    wished = asked_filters(filters or ("decisive:5" if "classes" in ports else "top:5"))
    feeds = {spec["name"]: x, "filters": np.array([wished], np.int64)}
    feeds["classes"] = np.array([asked_classes(classes, about)], np.int64)
    names = [port.name for port in session.get_outputs()]
    results = dict(zip(names, session.run(None, {k: v for k, v in feeds.items() if k in ports}), strict=True))
    masks: list[np.ndarray] = []
    random = (about.get("trust") or {}).get("random")

    def cut(rank: np.ndarray, curve: np.ndarray, least: float, chance: list[float] | None, live: bool) -> dict:
        chosen = sufficient_area(about["areas"], curve, chance, least) if area is None else area
        chosen = chosen if live else 0.0  # what is not active has no area, nor has a decision to which nothing adds
        masks.append(on_picture(area_mask(rank, chosen, tuple(spec["size"])), *picture.shape[:2], spec))
        kept = float(np.interp(chosen, [0.0, *about["areas"], 1.0], [0.0, *curve, 1.0])) if chosen else None
        mask = {"size": list(picture.shape[:2]), "counts": run_lengths(masks[-1])}
        return {"area": chosen, "retention": kept, "mask": mask}

    evidence = []
    for j, number in enumerate(results["class_ids"][0].tolist() if "class_ids" in results else []):
        said = {"class": number, "label": label(number, about), "decision": float(results["decision"][0, j])}
        support = results["support"][0, j].tolist()
        cells = cut(
            results["evidence_rank"][0, j], results["evidence_retention"][0, j], OF_DECISIONS, None, any(support)
        )
        evidence.append({**said, "support": support, **cells})
    found = []
    ids, peaks, ranks, retention = (results[n][0] for n in ("filter_ids", "filter_peaks", "area_rank", "retention"))
    for slot, (k, peak, rank, curve) in enumerate(zip(ids.tolist(), peaks.tolist(), ranks, retention, strict=True)):
        phi = float(results["contributions"][0, 0, slot]) if evidence else None
        if (
            k < 0
            or (wished[slot : slot + 1] < [0] and peak <= 0)
            or (wished[slot : slot + 1] == [DECISIVE] and phi <= 0)
            or (wished[slot : slot + 1] == [AGAINST] and phi >= 0)
        ):
            continue  # nothing was left that is active, or speaks so
        added = {"contribution": phi, "share": share(phi, evidence[0]["support"])} if evidence else {}
        found.append({"id": k, "peak": peak, **cut(rank, curve, OF_FILTERS, random, peak > 0), **added})
    answers = predictions(results, about)
    decided = {"evidence": evidence} if evidence else {}
    return {"layer": about["layer"], "input": spec, "predictions": answers, **decided, "filters": found}, masks


def share(phi: float, support: list[float]) -> float:
    """Of the support for the class, or of what speaks against it: what one filter adds to that."""
    total = support[0 if phi >= 0 else 1]
    return min(1.0, phi / total) if total else 0.0


def label(number: int, about: dict) -> str | None:
    """The name of a class."""
    labels = about["labels"] if (about.get("classes") or {}).get("named") else None
    if labels and len(labels) == 1:  # a decision whose class 1 alone has a name
        labels = [f"not {labels[0]}", labels[0]]
    return labels[number] if labels else None


def predictions(outputs: dict, about: dict) -> list[dict]:
    """The five best classes, as the metadata's `classes` says; none where there are none, or an old file is silent."""
    said = about.get("classes") or {}
    if said.get("output") not in outputs:
        return []
    scores = probabilities(outputs[said["output"]][0].astype(np.float64).ravel(), said["scores"])
    best = np.argsort(-scores, kind="stable")[:5].tolist()
    return [{"index": i, "label": label(i, about), "score": float(scores[i])} for i in best]


def probabilities(numbers: np.ndarray, scores: str) -> np.ndarray:
    """What the numbers of one image say about each class; one number is a decision between two."""
    if scores == "logits":
        powers = np.exp(numbers - numbers.max())
        return powers / powers.sum()
    if scores in ("logit", "sigmoid"):
        one = 1 / (1 + np.exp(-np.clip(numbers[0], -700, 700))) if scores == "logit" else np.clip(numbers[0], 0, 1)
        return np.array([1 - one, one])
    return np.clip(np.exp(np.minimum(numbers, 0)) if scores == "log-probabilities" else numbers, 0, 1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("explainer")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--classes", default="-1", help="names or numbers of the classes asked about; -1: the answer")
    parser.add_argument("--filters", help="decisive:3,against:1, top:5 or ids; decisive:5 unless told, or top:5")
    parser.add_argument("--area", type=float, help="share of the picture to keep; the sufficient area unless told")
    parser.add_argument("--overlay", type=Path, help="write a picture of the evidence, or of the first filter's area")
    options = parser.parse_args()
    picture = read_picture(options.picture)
    document, masks = explain(options.explainer, picture, options.filters, options.area, options.classes)
    if options.overlay and masks:
        dimmed = picture.copy()
        dimmed[~masks[0]] //= 4
        write_png(options.overlay, dimmed)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
