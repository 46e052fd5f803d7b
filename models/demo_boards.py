"""The demo's first half: real defects on boards, and what becomes of the decision when they are exchanged; no torch.

The network, its explainer and the names of its filters lie beside this file, the pairs of defect and good board in
`examples/pcb` (after an install in `pcb`, beside this file).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fsagn_onnx.data.files import make_folder, write_file
from fsagn_onnx.errors import ImageError
from fsagn_onnx.evaluation.decision import AnsweringModel, exchanged
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import Explanation
from fsagn_onnx.runtime.drawing.overlay import encode_png, highlight, shown_area
from fsagn_onnx.runtime.drawing.typeface import Style, put_text, shorten, text_width
from fsagn_onnx.runtime.findings import percent

from .boards import TYPES, Pair, read_pairs

__all__ = ["EXPLAINER", "MODEL", "NAMES", "Exchange", "ExchangeDemo", "boards_folder"]

HERE: Final = Path(__file__).resolve().parent
MODEL: Final = HERE / "boards_cnn.onnx"
EXPLAINER: Final = HERE / "boards_explainer.onnx"
NAMES: Final = HERE / "boards_filters.json"
"""What `dissect` calls the filters of the network's last layer."""

EDGE: Final = 288
GAP: Final = 12
LINE: Final = 52
PAPER: Final = 255
TEXT: Final = Style(17, 400, (30, 30, 30))


def boards_folder() -> Path:
    """Where the pairs are.

    Raises:
        ImageError: they did not come with the package.
    """
    for folder in (HERE / "pcb", HERE.parent / "examples" / "pcb"):
        if (folder / "parts.json").is_file():
            return folder
    raise ImageError(f"the demo's boards are missing: expected {HERE / 'pcb'}; install fsagn-onnx again")


@dataclass(frozen=True)
class Exchange:
    """What became of a decision when the evidence was exchanged for the good board.

    Attributes:
        area: share of the picture that was exchanged.
        label: the answer afterwards.
        score: its probability.
    """

    area: float
    label: str
    score: float

    def __str__(self) -> str:
        return f"these {percent(self.area)} exchanged for the good board's: {self.label} ({percent(self.score)})"


class ExchangeDemo:
    """One pair of every defect type, and the model's answer when evidence is exchanged.

    Attributes:
        pairs: by name of the picture's file.
        paths: the pictures with a defect, in the order of the types.

    Args:
        threads: of onnxruntime.
    """

    def __init__(self, threads: int | None = None) -> None:
        folder = boards_folder()
        first: dict[str, Pair] = {}
        for pair in read_pairs(folder):
            first.setdefault(pair.type, pair)
        self.paths = [folder / kind / f"{first[kind].name}.png" for kind in TYPES if kind in first]
        self.pairs = {f"{pair.name}.png": pair for pair in first.values()}
        self._answers = AnsweringModel(load_model(MODEL), threads=threads)

    def exchange(self, explanation: Explanation) -> tuple[Exchange, NDArray[np.uint8]] | None:
        """Exchange the evidence of an explained picture for the good board's pixels.

        Returns:
            What became of the answer, and the picture ``(H, W, 3)``; None where there is no evidence.
        """
        if explanation.path is None or not explanation.evidence:
            return None
        pair, evidence = self.pairs[explanation.path.name], explanation.evidence[0]
        (picture,) = exchanged(_rgb(pair.defect), _rgb(pair.good), [explanation.input_mask(evidence)])
        found = self._answers.probabilities(picture[None])[0]
        number = int(found.argmax())
        return Exchange(evidence.area, self._answers.classes.name(number), float(found[number])), picture

    def write_panel(self, explanations: list[Explanation], out: Path) -> Path:
        """One picture: for every explained defect the good board, the defect, its evidence, the exchange.

        Raises:
            OutputError: it cannot be written.
        """
        rows = [self._row(explanation) for explanation in explanations]
        make_folder(out.parent)
        write_file(out, [encode_png(np.vstack([row for row in rows if row is not None]))])
        return out

    def _row(self, explanation: Explanation) -> NDArray[np.uint8] | None:
        made = self.exchange(explanation)
        if made is None or explanation.path is None:
            return None
        pair, evidence = self.pairs[explanation.path.name], explanation.evidence[0]
        answer = explanation.predictions[0]
        large = _enlarged(_rgb(pair.defect))
        carriers = ", ".join(str(found.id) for found in explanation.filters[:3])
        named = next((_named(found.id, found.part, answer.label) for found in explanation.filters if found.part), "")
        cells = (
            (_enlarged(_rgb(pair.good)), "the good board", ""),
            (large, f"{answer.label} ({percent(answer.score)})", ""),
            (
                highlight(large, shown_area(explanation, evidence, (EDGE, EDGE))),
                f"evidence {percent(evidence.area)}, filters {carriers}",
                named,
            ),
            (_enlarged(made[1]), f"exchanged: {made[0].label} ({percent(made[0].score)})", ""),
        )
        row = np.full((EDGE + LINE + GAP, len(cells) * (EDGE + GAP) + GAP, 3), PAPER, dtype=np.uint8)
        for place, (picture, *captions) in enumerate(cells):
            left = GAP + place * (EDGE + GAP)
            row[GAP : GAP + EDGE, left : left + EDGE] = picture
            for line, caption in enumerate(captions):
                put_text(row, shorten(caption, TEXT, EDGE), (left, GAP + EDGE + 20 + 24 * line), TEXT)
        return row

    def close(self) -> None:
        """Free the session."""
        self._answers.close()


def _rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def _named(number: int, part: str, label: str | None) -> str:
    """A filter and as many of its names as a cell has room for, that of the answer first."""
    names = sorted(part.split(", "), key=lambda name: name != label)
    while len(names) > 1 and text_width(f"filter {number}: {', '.join(names)}", TEXT) > EDGE:
        names = names[:-1]
    return f"filter {number}: {', '.join(names)}"


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (EDGE, EDGE), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
