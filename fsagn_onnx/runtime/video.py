"""Videos, cameras and image sequences: frames in; a video with the areas drawn, and a row per frame, out."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
import numpy as np

from ..data.closing import Closing
from ..data.files import LineFile, cannot_write, make_folder
from ..errors import ImageError, OutputError, UsageError
from .class_request import AskedClasses
from .drawing.found import draw_findings
from .drawing.overlay import dim_unseen, shown_area
from .drawing.typeface import BOLD, Style, put_text, text_width
from .explainer import Explainer
from .explanation import Explanation
from .findings import percent
from .keeping import sized
from .masks import Mask
from .sentence import contributed
from .stream import Failure, Frame, Pixels, ordered_map

CAMERA: Final = "camera:"
AHEAD: Final = 8
"""Frames that are read ahead of inference."""

EVIDENCE: Final = (255, 255, 255)
"""Colour of the area that the decision rests on."""
BESIDE: Final = 0.55
"""Brightness beside that area."""
COLOURS: Final = ((255, 190, 60), (64, 196, 255), (255, 105, 180), (140, 230, 90), (190, 150, 255), (255, 120, 80))
UNKNOWN_RATE: Final = 25.0
FEW_DECISIVE: Final = "decisive:3"
FEW_STRONGEST: Final = "top:3"
"""Filters that are drawn unless told."""

Colour = tuple[int, int, int]

T = TypeVar("T")


@dataclass(frozen=True)
class FrameSource:
    """A source of frames.

    Attributes:
        source: a video file, a sequence such as ``frames/%04d.png``, ``camera:0``, or a URL that OpenCV opens.
        start: the first frame to take, from 0.
        every: take each n-th frame.
        limit: take so many frames at most; None: all.
    """

    source: str
    start: int = 0
    every: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or self.every < 1 or (self.limit is not None and self.limit < 1):
            raise UsageError("start must be at least 0, every and limit at least 1")


class Frames:
    """Opens a clip and reads its frames in a thread of its own, a few ahead.

    Attributes:
        rate: frames per second of what is taken.

    Raises:
        ImageError: OpenCV cannot open it.
    """

    def __init__(self, clip: FrameSource) -> None:
        self._clip = clip
        number = clip.source.removeprefix(CAMERA)
        is_camera = clip.source.startswith(CAMERA) and number.isdigit()
        if not is_camera and "://" not in clip.source and "%" not in clip.source and not Path(clip.source).is_file():
            raise ImageError(
                f"{clip.source!r}: no such file; expected a video, a sequence like '%04d.png', or camera:0"
            )
        self._capture = cv2.VideoCapture(int(number) if is_camera else clip.source)
        if not self._capture.isOpened():
            raise ImageError(f"{clip.source!r} cannot be opened as a video")
        native = float(self._capture.get(cv2.CAP_PROP_FPS))
        native = native if np.isfinite(native) and 0 < native < 1000 else UNKNOWN_RATE
        self.native_rate, self.rate = native, native / clip.every

    def __iter__(self) -> Iterator[Frame]:
        """Frames named by their number in the source; closes the source at the end."""
        return read_ahead(self._read(), AHEAD)

    def _read(self) -> Generator[Frame]:
        clip, taken = self._clip, 0
        try:
            for number in range(clip.start + clip.every * (clip.limit or 2**62)):
                if not self._capture.grab():
                    return
                if number < clip.start or (number - clip.start) % clip.every:
                    continue
                there, bgr = self._capture.retrieve()
                if not there or (clip.limit is not None and taken >= clip.limit):
                    return
                taken += 1
                yield Frame(str(number), np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8))
        finally:
            self._capture.release()


def read_ahead(items: Generator[T], count: int) -> Generator[T]:
    """Take items in a thread, at most ``count`` ahead of the consumer; closing this closes ``items``."""
    waiting: deque[Future[T | None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="fsagn-read") as pool:
        try:
            while True:
                while len(waiting) < count:
                    waiting.append(pool.submit(next, items, None))
                item = waiting.popleft().result()
                if item is None:
                    return
                yield item
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown()
            items.close()


def draw_frame(pixels: Pixels, explanation: Explanation) -> Pixels:
    """A copy of a frame with areas outlined, what the model does not see dimmed, and a legend.

    Where a decision was asked about, the area that it rests on is bright and outlined in white, and the legend begins
    with the class, how probable it is, and that area; each filter then has its share of the support.
    """
    drawn = dim_unseen(pixels, explanation)[0]
    height, width = drawn.shape[:2]
    stroke = max(1, round(min(height, width) / 240))
    legend: list[tuple[str, Colour]] = []
    for decision in explanation.evidence[:1]:
        if decision.suffices:
            kept = shown_area(explanation, decision, (height, width)) > 0.5
            drawn = np.where(kept[..., None], drawn, (drawn * BESIDE).astype(np.uint8))
            _outline(drawn, kept, EVIDENCE, 2 * stroke)
        legend.append((f"{decision.title} {percent(decision.score)} on {sized(decision)}", EVIDENCE))
    drawn = draw_findings(drawn, explanation)
    for explained, colour in zip(explanation.filters, COLOURS, strict=False):
        _outline(drawn, shown_area(explanation, explained, (height, width)) > 0.5, colour, stroke)
        said = sized(explained) if explained.contribution is None else contributed(explained)
        legend.append((f"{explained.id}  {said}", colour))
    size = max(12, round(min(height, width) / 24))
    line = round(1.4 * size)
    styled = [(text, Style(size, BOLD, colour)) for text, colour in legend]
    behind = drawn[: line * len(styled) + line // 2, : line + max((text_width(*entry) for entry in styled), default=0)]
    behind //= 3
    for place, (text, style) in enumerate(styled, start=1):
        put_text(drawn, text, (line // 2, line * place), style)
    return drawn


def _outline(drawn: Pixels, kept: Mask, colour: Colour, stroke: int) -> None:
    """Draw the border of an area (h, w) into a picture, over a dark one that shows it on any ground."""
    outlines = cv2.findContours(kept.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]
    cv2.polylines(drawn, outlines, True, (12, 12, 16), stroke + 2, cv2.LINE_AA)
    cv2.polylines(drawn, outlines, True, colour, stroke, cv2.LINE_AA)


@dataclass
class VideoOut(Closing):
    """A video file that gets its name when it is closed, and the rows of its frames beside it (``.jsonl``).

    Raises:
        OutputError: it cannot be written, or is there already.
    """

    path: Path
    rate: float
    frames: int = 0
    last: str | None = None

    def __post_init__(self) -> None:
        self.rows_path = self.path.with_suffix(".jsonl")
        for path in (self.path, self.rows_path):
            if path.exists():
                raise OutputError(f"{path} exists already: remove it, or choose another --out")
        if self.path.suffix.lower() not in (".mp4", ".avi", ".mkv"):
            raise UsageError(f"--out must end in .mp4, .avi or .mkv, but is {self.path.name!r}")
        make_folder(self.path.parent)
        self._part = self.path.with_name(f".part-{self.path.name}")
        self._rows: LineFile | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, number: str, drawn: Pixels, row: dict[str, Any]) -> None:
        """Append a frame and its row.

        Raises:
            OutputError: it cannot be written.
        """
        height, width = drawn.shape[:2]
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*("MJPG" if self.path.suffix.lower() == ".avi" else "mp4v"))
            self._writer = cv2.VideoWriter(str(self._part), code, self.rate, (width, height))
            if not self._writer.isOpened():
                raise OutputError(f"cannot write {self.path}: OpenCV has no writer for it here; try another ending")
        if self._rows is None:  # a run without a single frame leaves nothing that is in the next one's way
            self._rows = LineFile(self.rows_path)
        self._writer.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        self._rows.append(json.dumps(row, allow_nan=False).encode("ascii") + b"\n")
        self.frames, self.last = self.frames + 1, number

    def close(self) -> None:
        """Finish the video; what was written is whole, however far it came.

        Raises:
            OutputError: the video cannot be written.
        """
        if self._rows is not None:
            self._rows.close()
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            try:
                self._part.replace(self.path)
            except OSError as error:
                raise cannot_write(self.path, error) from error


def explain_video(
    explainer: Explainer,
    clip: FrameSource,
    out: Path,
    filters: str | Sequence[int] | None = None,
    area: str | float = "auto",
    batch_size: int = 4,
    classes: AskedClasses = None,
) -> Generator[VideoOut]:
    """Explain a clip; reading, inference and drawing overlap, at flat memory.

    Args:
        explainer: the explainer.
        clip: the frames.
        out: the video to write; rows go to the same name with ``.jsonl``.
        filters: see `Explainer.explain`; None: ``decisive:3`` where it can be asked about classes, else ``top:3``.
        area: see `Explainer.explain`.
        batch_size: frames per pass.
        classes: whose evidence is drawn: the first of them; see `Explainer.explain`.

    Yields:
        The output, after each frame. Closing the iterator, or an interrupt, leaves whole files of the frames so far.

    Raises:
        ImageError: no frames.
        OutputError: the output cannot be written.
    """
    frames = Frames(clip)
    held: deque[Frame] = deque()

    def kept() -> Iterator[Frame]:
        for frame in frames:
            held.append(frame)
            yield frame

    if filters is None:
        filters = FEW_DECISIVE if explainer.default_filters.startswith("decisive") else FEW_STRONGEST
    results = explainer.stream(kept(), filters, area, classes=classes, batch_size=batch_size, previews=False)

    def drawn(pair: tuple[Frame, Explanation]) -> tuple[str, Pixels, dict[str, Any]]:
        frame, explanation = pair
        row = {"frame": int(frame.name), "seconds": round(int(frame.name) / frames.native_rate, 4)}
        described = explanation.to_dict()
        return (
            frame.name,
            draw_frame(frame.pixels, explanation),
            row | {k: v for k, v in described.items() if k != "path"},
        )

    def pairs() -> Iterator[tuple[Frame, Explanation]]:
        for result in results:
            if isinstance(result, Failure):
                raise ImageError(f"frame {result.message}")
            yield held.popleft(), result

    with VideoOut(out, frames.rate) as video:
        for number, picture, row in ordered_map(drawn, pairs(), 1, AHEAD):
            video.write(number, picture, row)
            yield video
    if not video.frames:
        raise ImageError(f"{clip.source!r} has no frames from {clip.start} on")
