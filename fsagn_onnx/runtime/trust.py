"""How far an explainer can be trusted with its own network: figures of pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from ..schema import Meta, Text, within

DEFAULT_PAIRS: Final = 40_000
"""(image, filter) pairs that a training sees unless told."""

SHAKY: Final = 0.1
"""Mean error from which a predicted retention is shown as a range."""

NOT_MEASURED: Final = "not measured; 'fsagn-onnx evaluate' tells"

_Share = Annotated[float, Meta(ge=0, le=1)]
_Spread = Annotated[
    tuple[float, float, float], Meta(description="three numbers: mean, low and high of the 95 % interval")
]


@dataclass(frozen=True)
class Trust:
    """Figures of one explainer, measured on pictures left out of its training; see `measure_trust`.

    Attributes:
        pictures: that were looked at.
        filters: of each, drawn among the 60 strongest.
        random: what a random area keeps under the infill of measuring, at the areas of the metadata.
        error: mean |predicted - measured retention|, same infill and areas.
        auc: mean retention over the areas .05 .1 .2 .3 .5 under an infill that nothing was trained on, common
            granularity: mean, and 95 % bootstrap interval over pictures.
        gain: by how much that is more than the feature map's own.
        specificity: by how much the filter keeps more under its own mask than under those of the picture's others.
        infill: of these three.
        source: what the pictures were, in a few words.
    """

    pictures: Annotated[int, within(1, 2**31)]
    filters: Annotated[int, within(1, 2**20)]
    random: Annotated[tuple[_Share, ...], Meta(max_length=1000, description="a list of numbers in [0, 1]")]
    error: _Share
    auc: _Spread
    gain: _Spread
    specificity: _Spread
    infill: Text
    source: Text = "left-out pictures"

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def shaky(self) -> bool:
        """Whether a predicted retention says too little to stand alone."""
        return self.error > SHAKY


MOST_PAIRS: Final = 10**12
"""More pairs are not a number that a training wrote."""


def verdict(trust: Trust | None, training: Mapping[str, Any]) -> str:
    """How good an explainer is for its own network, in words.

    Args:
        trust: what was measured, or None.
        training: the metadata's summary of the training.
    """
    seen = _seen(training)
    if trust is None:
        return f"{NOT_MEASURED}{seen}"
    mean, low, high = trust.gain
    interval = f"[{_short(low)}, {_short(high)}]"
    count = f"on {trust.pictures} {trust.source}"
    if low > 0:
        said = f"keeps filters' answers better than their feature map by {_short(mean)} {interval} {count}"
    elif high < 0:
        said = f"keeps filters' answers worse than their feature map, by {_short(-mean)} {interval} {count}"
    else:
        said = f"keeps filters' answers no better than their feature map ({mean:+.2f} {interval}) {count}"
    apart, least, _ = trust.specificity
    told = f"tells filters apart by {_short(apart)}" if least > 0 else "does not tell filters apart"
    return f"{said}; {told}; predicted retention is off by {_short(trust.error)}{seen}"


def _seen(training: Mapping[str, Any]) -> str:
    pairs = training.get("pairs")
    if not isinstance(pairs, int) or not 0 < pairs <= MOST_PAIRS:
        return ""
    times = pairs / DEFAULT_PAIRS
    against = "as many as by default" if 0.95 < times < 1.05 else f"{times:.2g} times the default"
    return f"; trained on {pairs:,} pairs, {against}"


def _short(value: float) -> str:
    """Two digits without the leading zero: ``.14``."""
    return f"{value:.2f}".replace("0.", ".", 1)
