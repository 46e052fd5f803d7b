"""The planted CNN: built by hand, so that filter k is known to answer to one pattern and nothing else.

It is the truth that every mask method is held to: `planted_picture` pastes some of the patterns at known
places, and filter k of the tap `patterns` answers at the place of pattern k alone.

A pattern is 2 x 2 blocks of 8 x 8 pixels, each block of one of six saturated colours. The network reads them
in three steps, as a real CNN would, with a tap at each (strides 2, 4 and 8):

1. `colours`: 4 x 4 means over one colour each, c = max(0, (⟨palette_c, x⟩ / 3 - .15) / .85). Gray of medium
   contrast gives 0, the colour itself gives 1.
2. `pairs`: the upper and the lower two blocks of each pattern,
   p = max(0, (left + right - .4 foreign - .4) / 1.6), foreign = the sum of other colours at the places.
3. `patterns`: f_k = max(0, (upper + lower - .4) / 1.6); .6 to 1 where pattern k is, at any pixel position.

The two max pools between them make the answer tolerant of the position relative to the grid. The biases are
low enough that a half-transparent pattern still has a gradient, and high enough that foreign patterns answer
weakly: over 600 pictures the smallest peak of a filter whose pattern is present is 8 times the largest peak
without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE: Final = 64  # input height and width in pixels
BLOCK: Final = 8  # pixels per side of a block
PATCH: Final = 2 * BLOCK  # pixels per side of a pattern
TAP: Final = "patterns"  # the tapped value with one filter per pattern, (N, 8, 8, 8), stride 8
TAPS: Final = ("colours", "pairs", "patterns")  # all tappable values, strides 2, 4, 8
GAP: Final = 10  # background pixels at least between two pasted patterns

COLOURS: Final = ("red", "green", "blue", "yellow", "magenta", "cyan")
PALETTE: Final[npt.NDArray[np.float32]] = np.array(
    [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]], dtype=np.float32
)
# Colour numbers (upper left, upper right, lower left, lower right): no two patterns share a pair.
PATTERNS: Final = (
    (0, 4, 3, 1),
    (5, 4, 1, 3),
    (3, 0, 5, 2),
    (3, 4, 5, 0),
    (2, 3, 0, 1),
    (2, 5, 0, 3),
    (0, 5, 4, 3),
    (2, 0, 3, 5),
)
FILTERS: Final = len(PATTERNS)

_COLOUR_BIAS: Final = 0.15
_PAIR_BIAS: Final = 0.4
_PATTERN_BIAS: Final = 0.4
_VETO: Final = 0.4  # how strongly each foreign colour speaks against a pair


@dataclass(frozen=True)
class PlantedPicture:
    """A picture with known patterns at known places.

    Attributes:
        image: uint8 (64, 64, 3) RGB.
        boxes: filter -> (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; the patterns that were pasted.
    """

    image: npt.NDArray[np.uint8]
    boxes: dict[int, tuple[int, int, int, int]]

    def box_mask(self, k: int) -> npt.NDArray[np.bool_]:
        """The pixels of pattern k, bool (64, 64).

        Raises:
            KeyError: pattern k is not in the picture.
        """
        x0, y0, x1, y1 = self.boxes[k]
        mask = np.zeros(self.image.shape[:2], dtype=np.bool_)
        mask[y0:y1, x0:x1] = True
        return mask


def pattern(k: int) -> npt.NDArray[np.uint8]:
    """The pattern that filter k answers to, uint8 (16, 16, 3) RGB, k in 0..7."""
    blocks = PALETTE[np.array(PATTERNS[k]).reshape(2, 2)]  # (2, 2, 3) in {-1, 1}
    pixels = np.where(blocks > 0, 255, 0).astype(np.uint8)
    return pixels.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


def _background(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Gray texture of three octaves with a faint tint, (64, 64, 3) in 128 ± 45."""
    texture = np.zeros((SIZE, SIZE, 3))
    for cells, strength, tint in ((4, 1.0, 0.15), (16, 0.6, 0.1), (SIZE, 0.35, 0.05)):
        coarse = rng.standard_normal((cells, cells, 1)) + tint * rng.standard_normal((cells, cells, 3))
        texture += strength * cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    level = rng.uniform(-12, 12)
    return np.clip(128 + level + 16 * texture, 83, 173)


def _places(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """`count` corners (x0, y0) of patterns that keep `GAP` pixels between one another."""
    places: list[tuple[int, int]] = []
    while len(places) < count:
        places.clear()
        for x, y in rng.integers(0, SIZE - PATCH + 1, size=(64, 2)).tolist():
            if all(max(abs(x - u), abs(y - v)) >= PATCH + GAP for u, v in places):
                places.append((x, y))
            if len(places) == count:
                break
    return places


def planted_picture(seed: int) -> PlantedPicture:
    """Paste 2 to 4 different patterns over a gray texture; the same seed gives the same picture."""
    rng = np.random.default_rng(seed)
    image = np.rint(_background(rng)).astype(np.uint8)
    chosen = rng.permutation(FILTERS)[: rng.integers(2, 5)].tolist()
    boxes: dict[int, tuple[int, int, int, int]] = {}
    for k, (x, y) in zip(chosen, _places(rng, len(chosen)), strict=True):
        image[y : y + PATCH, x : x + PATCH] = pattern(k)
        boxes[k] = (x, y, x + PATCH, y + PATCH)
    return PlantedPicture(image=image, boxes=boxes)


def _weights() -> dict[str, npt.NDArray[np.float32]]:
    """The weights and biases of the three convolutions."""
    colours = np.broadcast_to(PALETTE[:, :, None, None] / (3 * 16 * (1 - _COLOUR_BIAS)), (6, 3, 4, 4))
    pairs = np.zeros((2 * FILTERS, len(COLOURS), 1, 3), dtype=np.float32)
    patterns = np.zeros((FILTERS, 2 * FILTERS, 2, 1), dtype=np.float32)
    pairs[:, :, 0, ::2] = -_VETO
    for k, blocks in enumerate(PATTERNS):
        for place, colour in enumerate(blocks):
            pairs[2 * k + place // 2, colour, 0, 2 * (place % 2)] = 1
        patterns[k, 2 * k, 0, 0] = patterns[k, 2 * k + 1, 1, 0] = 1
    return {
        "colours.weight": np.ascontiguousarray(colours, dtype=np.float32),
        "colours.bias": np.full(len(COLOURS), -_COLOUR_BIAS / (1 - _COLOUR_BIAS), dtype=np.float32),
        "pairs.weight": pairs / np.float32(2 - _PAIR_BIAS),
        "pairs.bias": np.full(2 * FILTERS, -_PAIR_BIAS / (2 - _PAIR_BIAS), dtype=np.float32),
        "patterns.weight": patterns / np.float32(2 - _PATTERN_BIAS),
        "patterns.bias": np.full(FILTERS, -_PATTERN_BIAS / (2 - _PATTERN_BIAS), dtype=np.float32),
    }


def _nodes() -> list[onnx.NodeProto]:
    """Three conv + ReLU steps, two max pools, and the global maximum as output."""

    def conv(name: str, source: str, kernel: list[int], pads: list[int], stride: int) -> list[onnx.NodeProto]:
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        convolution = helper.make_node(
            "Conv",
            inputs,
            [f"{name}_conv"],
            f"{name}_conv",
            kernel_shape=kernel,
            pads=pads,
            strides=[stride, stride],
        )
        return [convolution, helper.make_node("Relu", [f"{name}_conv"], [name], f"{name}_relu")]

    def pool(name: str, source: str, pads: list[int]) -> onnx.NodeProto:
        return helper.make_node("MaxPool", [source], [name], name, kernel_shape=[2, 2], pads=pads, strides=[2, 2])

    return [
        *conv("colours", "image", [4, 4], [1, 1, 1, 1], 2),  # (N, 6, 32, 32)
        pool("colours_pooled", "colours", [0, 0, 0, 0]),  # (N, 6, 16, 16)
        *conv("pairs", "colours_pooled", [1, 3], [0, 1, 0, 1], 1),  # (N, 16, 16, 16)
        pool("pairs_pooled", "pairs", [1, 0, 1, 0]),  # (N, 16, 9, 8)
        *conv("patterns", "pairs_pooled", [2, 1], [0, 0, 0, 0], 1),  # (N, 8, 8, 8)
        helper.make_node("GlobalMaxPool", ["patterns"], ["peaks"], "peaks"),
        helper.make_node("Flatten", ["peaks"], ["scores"], "scores"),
    ]


def planted_model() -> onnx.ModelProto:
    """The planted CNN: opset 17, input `image` (N, 3, 64, 64), output `scores` (N, 8) = peak of each filter.

    Normalised = (pixel / 255 - .5) / .5. The metadata key `fsagn_model` holds the input spec and the labels.
    """
    graph = helper.make_graph(
        _nodes(),
        "planted",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", FILTERS])],
        [numpy_helper.from_array(array, name) for name, array in _weights().items()],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="fsagn-onnx"
    )
    spec = {
        "name": "image",
        "layout": "NCHW",
        "color": "RGB",
        "size": [SIZE, SIZE],
        "scale": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "resize": "stretch",
    }
    labels = [" ".join(COLOURS[c] for c in colours) for colours in PATTERNS]
    helper.set_model_props(proto, {"fsagn_model": json.dumps({"input": spec, "labels": labels})})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_planted(path: str | Path) -> Path:
    """Write `planted_model` to `path` and return the path."""
    target = Path(path)
    target.write_bytes(planted_model().SerializeToString())
    return target


def write_planted_folder(folder: Path, pictures: int) -> Path:
    """Write ``planted.onnx`` and ``images/00.png``, ... of the first seeds; return the folder."""
    write_planted(folder / "planted.onnx")
    (folder / "images").mkdir()
    for seed in range(pictures):
        cv2.imwrite(str(folder / "images" / f"{seed:02}.png"), planted_picture(seed).image[..., ::-1])
    return folder
