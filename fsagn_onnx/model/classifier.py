"""Which output of a model classifies, and what its numbers are: decided once, from graph, names and labels.

The rule, in this order; where two outputs are equally good, none is taken:
1. An output with as many numbers as there are labels.
2. One that ends in a softmax over all its numbers.
3. One whose name says so (`SAYS_CLASS`).
4. The only one: a dense layer's numbers, or one number behind a sigmoid. That is a guess, and said to be one.
A name that says something else (`SAYS_OTHER`: boxes, landmarks, ages, embeddings, ...) rules an output out, unless it
ends in a softmax. One number per place of a map is no answer about the image. A list of what was found (the best
scores, chosen among many) is taken for classes by rule 1 only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..errors import UsageError
from ..schema import shown
from .outputs import Output

__all__ = ["SCORES", "Classifier", "find_classifier"]

SCORES: Final = ("logits", "probabilities", "log-probabilities", "logit", "sigmoid", "labels", "none")
"""What the numbers of an output can be: of several classes, of one decision (logit, sigmoid), of several labels that
exclude nothing (each behind a sigmoid), or no classes."""
SINGLE: Final = ("logit", "sigmoid")

SAYS_CLASS: Final = frozenset({
    "logit", "prob", "probability", "class", "cls", "classification", "classifier", "label", "category", "score",
    "pred", "prediction", "softmax", "tag",
})  # fmt: skip
SAYS_DECISION: Final = SAYS_CLASS - {"prob", "probability", "score", "pred", "prediction", "softmax"}
"""Words that make one number without a sigmoid a decision."""
MEASURES: Final = frozenset({
    "x", "y", "z", "w", "h", "cx", "cy", "age", "angle", "yaw", "pitch", "roll", "width", "height", "length", "weight",
    "depth", "distance", "count", "price", "temperature", "quality", "valence", "arousal",
})  # fmt: skip
"""Words that, as all there is to the labels, name measures, not classes."""
SAYS_OTHER: Final = frozenset({
    "landmark", "point", "keypoint", "kpt", "joint", "box", "bbox", "rect", "offset", "delta", "loc", "location",
    "anchor", "reg", "regress", "regression", "pose", "euler", "embed", "embedding", "feature", "feat", "descriptor",
    "token", "coord", "coordinate", "iou", "centerness", "objectness", "alpha", "gaze", "heatmap", "vertex", "latent",
}) | (MEASURES - {"x", "y", "z", "w", "h"})  # fmt: skip
IMAGENET: Final = (1000, 1001)


@dataclass(frozen=True)
class Classifier:
    """What a model answers about an image.

    Attributes:
        outputs: all outputs of the model.
        output: name of the one that classifies, or None.
        scores: what its numbers are, one of `SCORES`; ``none`` where there is no such output.
        width: how many numbers it has per image, where that is known.
        reason: why, in a few words.
        guessed: nothing but the form speaks for it.
        heads: outputs that classify equally well, where none of them is the one (the digits of a captcha): name -> what
            its numbers are, and how many.
    """

    outputs: tuple[Output, ...]
    output: str | None
    scores: str
    width: int | None
    reason: str
    guessed: bool = False
    heads: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Outputs that are sequences or maps, not arrays: nothing reads them."""
        return tuple(item.name for item in self.outputs if not item.tensor)

    @property
    def shared(self) -> tuple[str, ...]:
        """Outputs that hang on the images but belong to all of a batch together."""
        return tuple(item.name for item in self.outputs if item.tensor and item.axis is None and not item.constant)

    def axis(self, name: str) -> int | None:
        """The axis of the images of an output; None where it has none, or there is no such output."""
        return next((item.axis for item in self.outputs if item.name == name), None)


def find_classifier(
    outputs: Sequence[Output],
    labels: Sequence[str] | None,
    *,
    output: str | None = None,
    scores: str | None = None,
) -> Classifier:
    """Decide which output classifies.

    Args:
        outputs: of the model, see `find_outputs`.
        labels: names of its classes, or None.
        output: the output that the user names; None: found by the rule above.
        scores: what the user says its numbers are; None: found.

    Raises:
        UsageError: no such output, or one that cannot be what it is said to be.
    """
    if scores is not None and scores not in SCORES:
        raise UsageError(f"scores must be one of {', '.join(SCORES)}, but got '{scores}'")
    if scores == "none":
        return Classifier(tuple(outputs), None, "none", None, "said so by the user")
    heads: list[Output] = []
    if output is None:
        chosen, reason, heads = _chosen(outputs, labels)
        if scores is not None and chosen is None:
            rows = [item for item in outputs if item.vector and item.floating]
            if len(rows) != 1:
                raise UsageError(f"--scores {scores}: say which output with --output NAME; {_listed(outputs)}")
            chosen = rows[0]
    else:
        chosen, reason = _named(outputs, output), "named by the user"
    if chosen is None:
        kinds = {item.name: (_kind(item), item.width) for item in heads}
        return Classifier(tuple(outputs), None, "none", None, reason, heads=kinds)
    kind, guessed = _kind(chosen), output is None and reason == _GUESS
    if scores is not None:
        kind, reason, guessed = scores, "said so by the user", False
        if chosen.width is not None and (chosen.width == 1) != (scores in SINGLE):
            numbers = "logit or sigmoid: it has one number" if chosen.width == 1 else f"for {chosen.width:,} numbers"
            raise UsageError(f"--scores {scores}: output '{chosen.name}' must be {numbers} per image")
    return Classifier(tuple(outputs), chosen.name, kind, chosen.width, reason, guessed)


def _named(outputs: Sequence[Output], name: str) -> Output:
    found = next((item for item in outputs if item.name == name), None)
    if found is None:
        raise UsageError(f"no output {shown(name)}; {_listed(outputs)}")
    if not found.floating or found.axis != 0 or (found.width is None and not found.vector):
        raise UsageError(f"output '{name}' holds no row of numbers per image (N, classes); {_listed(outputs)}")
    return found


def _listed(outputs: Iterable[Output]) -> str:
    rows = [f"'{item.name}'" for item in outputs if item.vector and item.floating]
    return f"outputs with a row of numbers per image: {', '.join(rows) or 'none'}"


def _kind(output: Output) -> str:
    if output.end == "softmax":
        return "probabilities"
    if output.end == "log-softmax":
        return "log-probabilities"
    if output.end == "sigmoid":
        return "sigmoid" if output.width == 1 else "labels"
    return "logit" if output.width == 1 else "logits"


def _chosen(outputs: Sequence[Output], labels: Sequence[str] | None) -> tuple[Output | None, str, list[Output]]:
    """The output that classifies, and why; or None, why not, and those that could be the one."""
    rows = [item for item in outputs if item.vector and item.floating and item.width != 0]
    if not rows:
        return None, "no output holds a row of numbers per image (N, classes)", []
    ranked: dict[int, list[tuple[Output, str]]] = {}
    for item in rows:
        rank, reason = _rank(item, labels, alone=len(rows) == 1)
        ranked.setdefault(rank, []).append((item, reason))
    best = min(ranked)
    if best == _NOT:
        listed = ", ".join(f"'{item.name}' ({reason})" for item, reason in ranked[best][:3])
        return None, f"{listed}; if one classifies, say so with --output and --scores", []
    found = _distinct(ranked[best])
    if len(found) > 1:
        listed = ", ".join(f"'{item.name}'" for item, _ in found[:6])
        reason = f"{len(found)} outputs could be the one: {listed}; choose with --output NAME"
        return None, reason, [item for item, _ in found]
    return *found[0], []


_NOT: Final = 9
_GUESS: Final = "a guess: the only row of numbers, of a dense layer"
_ROWS: Final = ("dense", "pool", "sigmoid")


def _rank(output: Output, labels: Sequence[str] | None, *, alone: bool) -> tuple[int, str]:
    """How good a classifier an output makes (less is better, `_NOT`: none), and why."""
    said = words(output.name)
    other, count = sorted(said & SAYS_OTHER), len(labels) if labels else 0
    soft = output.end.endswith("softmax") and output.width != 1
    if other and not soft:
        return _NOT, f"its name says '{other[0]}'"
    if labels and all(_measure(label) for label in labels) and not soft:
        return _NOT, f"its label '{labels[0]}' is a measure"
    if output.width == 1:
        return _rank_single(output, said, count, alone)
    if count and output.width == count:
        return 1, f"one of {count:,} labels each"
    if soft:
        return 2, "ends in a softmax"
    if said & SAYS_CLASS and output.end in _ROWS:
        return 3, f"its name says '{min(said & SAYS_CLASS)}'"
    if alone and output.width and (output.end == "dense" or (output.end == "pool" and output.width in IMAGENET)):
        return 4, _GUESS
    several = "one of several outputs of its form" if not alone else f"{output.width or 'some'} numbers"
    return _NOT, f"{several}, neither named nor made like classes"


def _rank_single(output: Output, said: frozenset[str], count: int, alone: bool) -> tuple[int, str]:
    if output.end == "sigmoid":
        if count in (1, 2) or said & SAYS_CLASS:
            return 3, "one number behind a sigmoid"
        return (4, "the only row of numbers: one behind a sigmoid") if alone else (_NOT, "one of several outputs")
    if output.end == "dense" and (count in (1, 2) or said & SAYS_DECISION):
        return 3, "one number, named as a decision"
    return _NOT, "one number, as likely a measure as a decision"


def _distinct(found: Sequence[tuple[Output, str]]) -> list[tuple[Output, str]]:
    """Without those that only repeat the first one's numbers, and without auxiliary heads."""
    main = [pair for pair in found if not words(pair[0].name) & {"aux", "auxiliary"}] or list(found)
    kept: list[tuple[Output, str]] = []
    for pair in main:
        if pair[0].source not in {item.source for item, _ in kept}:
            kept.append(pair)
    soft = [pair for pair in kept if pair[0].end.endswith("softmax")]
    return soft[:1] if len(soft) == 1 and len(kept) > 1 else kept


def _measure(label: str) -> bool:
    said = {word for word in words(label) if not word.isdigit()}
    return bool(said) and said <= MEASURES


def words(text: str) -> frozenset[str]:
    """The words of a name, in lower case and in the singular: ``detection/BoxScores:0`` -> detection, box, score."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)
    found = set()
    for part in parts:
        word = part.lower()
        found.add(word)
        if word.endswith("ies"):
            found.add(word[:-3] + "y")
        elif word.endswith("es"):
            found.update((word[:-2], word[:-1]))
        elif word.endswith("s"):
            found.add(word[:-1])
    return frozenset(found)
