"""Everything of a synthetic picture that is not the object: grounds, clutter, light, noise and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from .raster import Colour, Colours, draw
from .shapes import VARIANTS, Piece, Tone

Field = npt.NDArray[np.float32]  # (H, W), in about [0, 1]
Canvas = npt.NDArray[np.float32]  # (H, W, 3) RGB, in 0..255

_PALETTES: Final = (
    ("e76f51", "f4a261", "e9c46a", "2a9d8f", "264653"),
    ("d62828", "f77f00", "fcbf49", "eae2b7", "003049"),
    ("8ecae6", "219ebc", "126782", "ffb703", "fb8500"),
    ("cdb4db", "ffc8dd", "ffafcc", "a2d2ff", "6f9ceb"),
    ("606c38", "a3b18a", "fefae0", "dda15e", "bc6c25"),
    ("5f0f40", "9a031e", "fb8b24", "e36414", "0f7173"),
    ("355070", "6d597a", "b56576", "e56b6f", "eaac8b"),
    ("f6bd60", "f7ede2", "f5cac3", "84a59d", "f28482"),
    ("006d77", "83c5be", "edf6f9", "ffddd2", "e29578"),
    ("5fad56", "f2c14e", "f78154", "4d9078", "b4436c"),
)
_GROUNDS: Final = (
    ("cfd8d7", "a9b8b5"),
    ("d8c3a5", "b89b78"),
    ("7a8b99", "5c6b78"),
    ("8a9a5b", "5f7045"),
    ("b7c9e2", "e3ebf5"),
    ("4a4e69", "2f3350"),
    ("c9ada7", "9a8c98"),
    ("e6e1d6", "c7c0b0"),
    ("6b4f4f", "483434"),
    ("3f5e5a", "28403d"),
)
_LUMA: Final = np.array([0.299, 0.587, 0.114])


def _rgb(code: str) -> npt.NDArray[np.float64]:
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float64)


def _colour(values: npt.NDArray[np.float64]) -> Colour:
    r, g, b = np.clip(np.rint(values), 0, 255).astype(int).tolist()
    return r, g, b


def tones(base: npt.NDArray[np.float64], accent: npt.NDArray[np.float64]) -> dict[Tone, Colour]:
    """The tones of a part with this base and accent colour."""
    return {
        "base": _colour(base),
        "dark": _colour(0.55 * base),
        "light": _colour(0.45 * base + 0.55 * 255),
        "accent": _colour(accent),
        "ink": (38, 34, 46),
        "white": (250, 247, 238),
    }


@dataclass(frozen=True)
class SceneStyle:
    """The colours of one picture.

    Attributes:
        parts: part type -> tones.
        ground: the two colours of the ground, (2, 3) in 0..255.
        edge: width of the outlines in pixels at 128 x 128; 0 for none.
    """

    parts: dict[str, Colours]
    ground: npt.NDArray[np.float64]
    edge: float


def choose_style(rng: np.random.Generator) -> SceneStyle:
    """Draw colours, whatever the class; the emblem stands out from the body, the body from the ground."""
    palette = np.stack([_rgb(code) for code in _PALETTES[rng.integers(len(_PALETTES))]])
    palette = np.clip(palette * rng.uniform(0.92, 1.06) + rng.uniform(-10, 10, size=3), 0, 255)
    order = [*rng.permutation(5).tolist(), *rng.integers(0, 5, size=7).tolist()]
    parts: dict[str, Colours] = {}
    for number, part in enumerate(("body", "wing", "head", "tail", "wheel")):
        parts[part] = tones(palette[order[number]], palette[order[number + 5]])
    body = palette[order[0]]
    pale, deep = np.array([252.0, 246, 228]), np.array([44.0, 38, 58])
    parts["emblem"] = tones(deep if body @ _LUMA > 140 else pale, body)
    ground = np.stack([_rgb(code) for code in _GROUNDS[rng.integers(len(_GROUNDS))]])
    ground += rng.uniform(-8, 8, size=3)
    distance = float(ground.mean(axis=0) @ _LUMA - body @ _LUMA)
    if abs(distance) < 45:
        ground += (45 - abs(distance)) * (1 if distance >= 0 else -1)
    return SceneStyle(parts, np.clip(ground, 15, 240), float(rng.choice([0.0, 1.1, 1.5])))


def _noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise with about `cells` cells per side, standard deviation about .7."""
    coarse = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _ramp(rng: np.random.Generator, size: int) -> Field:
    """A plane in a random direction, -1 to 1 across the picture."""
    t = np.linspace(-1, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across, down = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.asarray(across * t[None, :] + down * t[:, None], dtype=np.float32)


def _clouds(rng: np.random.Generator, size: int) -> Field:
    field = 0.5 + 0.3 * _noise(rng, size, 3) + 0.18 * _noise(rng, size, 9) + 0.08 * _noise(rng, size, 30)
    return np.asarray(field, dtype=np.float32)


def _waves(rng: np.random.Generator, size: int) -> Field:
    straight = _ramp(rng, size) * np.float32(rng.uniform(6, 22))
    way = straight + np.float32(rng.uniform(0, 1.6)) * _noise(rng, size, 4)
    return np.asarray(0.5 + 0.4 * np.sin(way) + 0.08 * _noise(rng, size, 24), dtype=np.float32)


def _planks(rng: np.random.Generator, size: int) -> Field:
    way = (_ramp(rng, size) + 2) * np.float32(rng.uniform(2.0, 5.0))
    shades = rng.random(32, dtype=np.float32)
    seam = (way % 1 < 0.06).astype(np.float32)
    field = 0.15 + 0.6 * shades[way.astype(np.int32)] - 0.35 * seam + 0.12 * _noise(rng, size, 20)
    return np.asarray(field, dtype=np.float32)


def _mosaic(rng: np.random.Generator, size: int) -> Field:
    cells = int(rng.integers(4, 11))
    tiles = rng.random((cells, cells), dtype=np.float32)
    field = cv2.resize(tiles, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(0.2 + 0.6 * field + 0.07 * _noise(rng, size, 24), dtype=np.float32)


def _horizon(rng: np.random.Generator, size: int) -> Field:
    line = np.float32(rng.uniform(-0.2, 0.7)) + 0.06 * _noise(rng, size, 4)[:1]
    height = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
    below = np.clip((height - line) * size / 4, 0, 1)
    field = 0.25 * (height + 1) + 0.6 * below + 0.1 * _noise(rng, size, 10) * (0.3 + below)
    return np.asarray(field, dtype=np.float32)


def _speckle(rng: np.random.Generator, size: int) -> Field:
    dots = np.tanh(3 * (_noise(rng, size, int(rng.integers(12, 30))) - 0.5))
    return np.asarray(0.4 + 0.3 * dots + 0.15 * _noise(rng, size, 3), dtype=np.float32)


_FIELDS: Final[tuple[Callable[[np.random.Generator, int], Field], ...]] = (
    _clouds,
    _waves,
    _planks,
    _mosaic,
    _horizon,
    _speckle,
)


def paint_ground(rng: np.random.Generator, size: int, style: SceneStyle) -> Canvas:
    """A textured ground between the style's two ground colours."""
    field = _FIELDS[rng.integers(len(_FIELDS))](rng, size)[..., None]
    first, second = style.ground.astype(np.float32)
    canvas = np.clip(first + (second - first) * np.clip(field, -0.1, 1.1), 0, 250)
    return np.asarray(canvas, dtype=np.float32)


def _lone_shape(rng: np.random.Generator) -> list[Piece]:
    """A plain distractor within a circle of radius .3 units: polygon, blob or bar."""
    kind = rng.integers(3)
    if kind == 0:
        angle = np.sort(rng.uniform(0, 2 * np.pi, size=rng.integers(3, 7)))
        return [Piece((0.28 * np.stack([np.cos(angle), np.sin(angle)], axis=1),), edge=True)]
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    if kind == 1:
        radius = 0.2 + 0.06 * np.sin(rng.integers(2, 5) * angle + rng.uniform(0, 6))
        return [Piece((np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1),), edge=True)]
    bend = rng.uniform(-0.12, 0.12)
    return [Piece((np.array([[-0.28, 0.0], [0.0, bend], [0.28, 0.0]]),), width=float(rng.uniform(0.05, 0.12)))]


def scatter_clutter(rng: np.random.Generator, canvas: Canvas, style: SceneStyle, unit: float) -> None:
    """Draw 3 to 7 distractors in place: plain shapes and lone parts, at the object's scale or less."""
    size = canvas.shape[0]
    palette = np.stack([_rgb(code) for code in _PALETTES[rng.integers(len(_PALETTES))]])
    for _ in range(int(rng.integers(3, 8))):
        base, accent = palette[rng.integers(0, 5, size=2)]
        jitter = rng.random(8)
        if rng.random() < 0.45:
            part = tuple(VARIANTS)[rng.integers(1, len(VARIANTS))]  # any but the body
            variants = tuple(VARIANTS[part].values())
            drawn = variants[rng.integers(len(variants))](jitter)
        else:
            drawn = _lone_shape(rng)
        angle, scale = rng.uniform(0, 2 * np.pi), unit * rng.uniform(0.5, 1.0)
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        x, y = rng.uniform(0, size, size=2)
        matrix = np.array([[c, -s, x], [s, c, y]])
        tile = draw(drawn, matrix, tones(base, accent), size, style.edge * size / 128)
        if tile is not None:
            tile.paste(canvas)


def light(rng: np.random.Generator, canvas: Canvas) -> npt.NDArray[np.uint8]:
    """Apply uneven light, a colour cast, contrast and sensor noise; uint8 (H, W, 3).

    What a pixel becomes depends on its own value and place alone, so a change stays where it is.
    """
    size = canvas.shape[0]
    gain = 1 + np.float32(rng.uniform(0, 0.2)) * _ramp(rng, size)
    cast = rng.uniform(0.9, 1.08, size=3).astype(np.float32) * np.float32(rng.uniform(0.82, 1.04))
    noise = rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(rng.uniform(0, 7))
    lit = canvas * (gain[..., None] * cast) + np.float32(rng.uniform(-12, 12)) + noise
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)
