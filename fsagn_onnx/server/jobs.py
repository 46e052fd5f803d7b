"""From a request's tensors to a job for the graph, and from its results to the outputs asked for."""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.headers import BrokenHeaderError, read_header
from ..data.images import decode_image
from ..errors import FsagnError
from ..model.input_spec import Geometry, InputSpec
from ..runtime.area import NO_AREA, SHARE, SHARE_OF_DECISION, sufficient_area
from ..runtime.contract import CLASSES, DECISION_RESULTS, FILTERS, RESULTS
from ..runtime.engine import Pass
from ..runtime.file_engine import FileEngine
from ..runtime.masks import pixel_mask
from ..runtime.variant import FILL
from ..schema import shown
from .questions import asked_classes, asked_filters
from .settings import Settings
from .tensors import NAMES, InferRequest, RequestError, Tensor

MAX_PIXELS: Final = 64 * 2**20
"""Pixels of the largest picture that is decoded, and of all pictures that a file takes as they are."""

MASKS: Final = "masks"
AREAS: Final = "mask_areas"
EVIDENCE_MASKS: Final = "evidence_masks"
EVIDENCE_AREAS: Final = "evidence_areas"


@dataclass(frozen=True, eq=False)
class Job:
    """What one request wants of the graph.

    Attributes:
        values: (n, ...) images as the engine takes them.
        filters: (n, K).
        classes: (n, J) asked about, -1 for the highest score; None where the file cannot be asked about classes.
        masks: ``rle``, ``png`` or None.
        area: area of the masks; None: the sufficient area of each.
        geometries: per image, from the model's input to the picture; None for a tensor that was preprocessed already.
    """

    values: NDArray[Any]
    filters: NDArray[np.int64]
    masks: str | None
    area: float | None
    geometries: tuple[Geometry | None, ...]
    classes: NDArray[np.int64] | None = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind can share a batch."""
        about = None if self.classes is None else self.classes.shape[1]
        return (self.values.shape[1:], self.values.dtype, self.filters.shape[1], about)

    def parts(self, images: int) -> Iterator[Job]:
        """Jobs of at most so many images each."""
        for start in range(0, len(self.values), images):
            rows = slice(start, start + images)
            classes = None if self.classes is None else self.classes[rows]
            own = (self.values[rows], self.filters[rows], self.masks, self.area, self.geometries[rows], classes)
            yield Job(*own)


class Order(NamedTuple):
    """What a request asks for, checked before a picture is decoded.

    Attributes:
        image: its pictures.
        filters: (n, K).
        classes: (n, J), or None.
        masks: ``rle``, ``png`` or None.
        area: of the masks.
        pixels: that a thread goes over: of the pictures, and of each mask.
    """

    image: Tensor
    filters: NDArray[np.int64]
    classes: NDArray[np.int64] | None
    masks: str | None
    area: float | None
    pixels: int


def make_order(request: InferRequest, tensors: Mapping[str, Tensor], engine: FileEngine, settings: Settings) -> Order:
    """Check a request; the headers of its pictures are read, nothing else of them.

    Raises:
        RequestError: what is wrong with it.
    """
    spec = engine.metadata.input
    known = [spec.name, FILTERS, *([CLASSES] if engine.answers_classes else [])]
    if extra := sorted(set(tensors) - set(known)):
        if extra == [CLASSES]:
            raise RequestError(engine.silent("classes"))
        raise RequestError(f"unknown input {shown(extra[0])}; there are {', '.join(map(repr, known))}")
    if spec.name not in tensors:
        raise RequestError(f"input '{spec.name}' is missing")
    image = tensors[spec.name]
    if not 1 <= image.shape[0] <= settings.max_images:
        raise RequestError(
            f"input '{spec.name}' must hold 1 to {settings.max_images} images, but holds {image.shape[0]}"
        )
    _check_shared(image.shape[0], engine)
    masks, area = request.asked.masks, request.asked.area
    filters = asked_filters(request.asked.filters, tensors.get(FILTERS), image.shape[0], engine, settings)
    classes = asked_classes(request.asked.classes, tensors.get(CLASSES), image.shape[0], engine)
    count = filters.shape[1] + (0 if classes is None else classes.shape[1])
    if (pairs := count * image.shape[0]) > settings.max_pairs:
        raise RequestError(
            f"{image.shape[0]} images with {count} filters and classes each are {pairs} pairs, more than the limit of "
            f"{settings.max_pairs}; ask for fewer of them in a request",
            413,
        )
    one = math.prod(image.shape[1:3] if image.datatype == "UINT8" else spec.size)
    pixels = _pixels(image.values) if isinstance(image.values, list) else one * image.shape[0]
    drawn = 0 if masks is None else count * pixels
    if drawn > settings.max_mask_pixels:
        raise RequestError(
            f"{count} masks for each picture have {drawn} pixels, more than the limit of {settings.max_mask_pixels}; "
            "ask for fewer filters, for smaller pictures, or for 'area_rank' alone",
            413,
        )
    return Order(image, filters, classes, masks, area, pixels + drawn)


def make_job(order: Order, engine: FileEngine, settings: Settings) -> Job:
    """Preprocess the pictures of a request.

    Raises:
        RequestError: what is wrong with them.
    """
    values, geometries = _images(order.image, engine, settings)
    return Job(values, order.filters, order.masks, order.area, geometries, order.classes)


def _check_shared(images: int, engine: FileEngine) -> None:
    """Refuse more images than one pass takes where an output belongs to all images of a pass together."""
    fixed = next((port.shape[0] for port in engine.inputs if port.name == engine.metadata.input.name), None)
    if fixed is not None and images > fixed and (shared := engine.classes.classifier.shared):
        raise RequestError(
            f"output '{shared[0]}' belongs to all images of a pass together, and a pass of this file takes {fixed}: "
            f"send at most so many images, not {images}"
        )


def _images(image: Tensor, engine: FileEngine, settings: Settings) -> tuple[NDArray[Any], tuple[Geometry | None, ...]]:
    spec, inside = engine.metadata.input, engine.metadata.variant.preprocessing
    readers: list[Callable[[], NDArray[np.uint8]]]
    if isinstance(image.values, list):
        if len(image.shape) != 1:
            raise RequestError(f"input '{image.name}': BYTES must have shape [N], one encoded picture each")
        _check_pixels(image.name, image.values, MAX_PIXELS if inside else settings.max_pixels)
        readers = [partial(decode_image, piece, f"picture {n}", MAX_PIXELS) for n, piece in enumerate(image.values)]
    elif image.datatype == "UINT8":
        if len(image.shape) != 4 or image.shape[3] != 3 or 0 in image.shape:
            raise RequestError(
                f"input '{image.name}': UINT8 must be RGB pictures (N, H, W, 3), but is {list(image.shape)}"
            )
        readers = [partial(np.asarray, picture) for picture in image.values.reshape(image.shape)]
    else:
        return _preprocessed(image, engine)
    try:
        fitted = [_fitted(read(), spec, inside) for read in readers]  # no name keeps a picture beside the next one
    except FsagnError as error:
        raise RequestError(str(error)) from error
    geometries = tuple(geometry for _, geometry in fitted)
    if len({values.shape for values, _ in fitted}) > 1:
        raise RequestError(
            f"input '{image.name}': the file resizes by itself, so pictures of a request must be of one size"
        )
    return np.stack([values for values, _ in fitted]), geometries


def _fitted(picture: NDArray[np.uint8], spec: InputSpec, inside: bool) -> tuple[NDArray[Any], Geometry]:
    """What the engine takes of one picture, which can be forgotten then."""
    pixels, geometry = spec.fit(picture)
    return (picture if inside else spec.normalise(pixels)), geometry


def _check_pixels(name: str, pieces: list[bytes], limit: int) -> None:
    """Refuse pictures that are too large together, before one is decoded; broken ones are told by `decode_image`."""
    pixels = _pixels(pieces)
    if len(pieces) > 1 and pixels > limit:
        raise RequestError(
            f"input '{name}': {len(pieces)} pictures of {pixels} pixels together, more than the limit of {limit}; "
            "send fewer in a request, or smaller ones",
            413,
        )


def _pixels(pieces: list[bytes]) -> int:
    """Pixels of encoded pictures together, as their headers say; of broken ones none."""
    pixels = 0
    for piece in pieces:
        with contextlib.suppress(BrokenHeaderError):
            header = read_header(piece)
            pixels += 0 if header is None else header.height * header.width
    return pixels


def _preprocessed(image: Tensor, engine: FileEngine) -> tuple[NDArray[Any], tuple[None, ...]]:
    """Tensors that a client preprocessed itself."""
    spec, inside = engine.metadata.input, engine.metadata.variant.preprocessing
    one = spec.sample_shape
    if isinstance(image.values, list) or (
        inside or image.datatype not in ("FP16", "FP32", "FP64") or image.shape[1:] != one
    ):
        wanted = "" if inside else f"FP32 {['N', *one]}, "
        raise RequestError(
            f"input '{image.name}' must be {wanted}UINT8 [N, H, W, 3] or BYTES [N] (encoded pictures), "
            f"but is {image.datatype} {list(image.shape)}"
        )
    values = image.values.reshape(image.shape).astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise RequestError(f"input '{image.name}' is not finite (NaN or infinite)")
    return values, (None,) * len(values)


def outputs_of(job: Job, computed: Pass, engine: FileEngine) -> dict[str, NDArray[Any] | list[list[str]]]:
    """All outputs of a job by name: the graph's, and the masks where they were asked for.

    ``masks`` (N, K) texts: COCO's uncompressed run lengths as JSON, or a PNG in base64 (255 = kept), of the picture's
    size, or of the model's input where the request held preprocessed tensors; empty for an empty slot.
    ``mask_areas`` FP32 (N, K); 0 where no small area suffices, or the filter is not active. Of a file that can be asked
    about classes also ``evidence_masks`` (N, J) and ``evidence_areas``.
    """
    outputs: dict[str, NDArray[Any] | list[list[str]]] = {
        name: values for name, values in computed.outputs.items() if _sayable(values)
    }
    own = (computed.filter_ids, computed.filter_peaks, computed.area_rank, computed.retention)
    outputs |= {name: values for name, values in zip(RESULTS, own, strict=True) if values is not None}
    decided = computed.decisions
    if decided is not None:
        found = {name: getattr(decided, name) for name in DECISION_RESULTS}
        outputs |= {name: values for name, values in found.items() if values is not None}
    if job.masks is None:
        return outputs
    filled, live = computed.filter_ids != FILL, computed.filter_peaks > 0
    areas = _areas(job, engine, computed.retention, engine.metadata.random, live)
    texts = _masks(job, engine, computed.area_rank, areas, filled)
    outputs |= {MASKS: texts, AREAS: areas}
    if decided is not None:
        every = np.ones(decided.class_ids.shape, dtype=np.bool_)
        telling = np.abs(decided.support).max(axis=-1) > 0  # else the map is flat
        areas = _areas(job, engine, decided.evidence_retention, None, telling, SHARE_OF_DECISION)
        texts = _masks(job, engine, decided.evidence_rank, areas, every)
        outputs |= {EVIDENCE_MASKS: texts, EVIDENCE_AREAS: areas}
    return outputs


def _areas(
    job: Job,
    engine: FileEngine,
    curves: NDArray[Any] | None,
    random: Sequence[float] | None,
    live: NDArray[np.bool_],
    share: float = SHARE,
) -> NDArray[np.float32]:
    """Areas (N, K): the one asked for, or what suffices; none of what is not active."""
    if job.area is not None or curves is None:
        return np.where(live, np.float32(1.0 if job.area is None else job.area), np.float32(NO_AREA))
    areas = np.zeros(live.shape, dtype=np.float32)
    for n, k in np.argwhere(live).tolist():
        areas[n, k] = sufficient_area(engine.metadata.areas, curves[n, k].tolist(), random, share)
    return areas


def _masks(
    job: Job, engine: FileEngine, ranks: NDArray[Any], areas: NDArray[np.float32], filled: NDArray[np.bool_]
) -> list[list[str]]:
    """Masks (N, K) of ranks (N, K, h, w) as texts; nothing for what is not filled."""
    texts: list[list[str]] = []
    for n, geometry in enumerate(job.geometries):
        row = []
        for k in range(filled.shape[1]):
            if not filled[n, k]:
                row.append("")
                continue
            mask = pixel_mask(ranks[n, k], float(areas[n, k]), engine.metadata.input.size)
            row.append(encode_mask(mask if geometry is None else geometry.mask_to_original(mask), job.masks or "rle"))
        texts.append(row)
    return texts


def _sayable(values: object) -> bool:
    """Whether the protocol has a type for an output: not for sequences and maps, and not for bfloat16."""
    return isinstance(values, np.ndarray) and (values.dtype in NAMES or values.dtype.kind in "OSU")


def encode_mask(mask: NDArray[np.bool_], form: str) -> str:
    """A mask as text: ``rle`` or ``png``."""
    if form == "png":
        return base64.b64encode(cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()).decode("ascii")
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes])).tolist()
    return json.dumps({"size": list(mask.shape), "counts": counts})
