"""Is what the program says about a network of the wild list right?"""

from __future__ import annotations

from typing import Any

import numpy as np

from .wild_network import Network

CLOSE = 0.05
"""Probabilities of the independent run and the program may differ by so much: they resize by different libraries."""


def line_of(spec: dict[str, Any]) -> Any:
    """Factor and offset on the pixel per channel in RGB order: what `scale`, `mean` and `std` say, however written."""
    std, mean = (np.broadcast_to(np.asarray(spec[field], dtype=float), (3,)) for field in ("std", "mean"))
    both = np.stack([spec["scale"] / std, -mean / std])
    return both[:, ::-1] if spec["color"] == "BGR" else both


def spec_verdict(network: Network, found: dict[str, Any], guessed: list[str]) -> str:
    """ "right"; "guessed": wrong in what is said to be guessed; "wrong"; "twice": normalised inside, and again."""
    true = network.spec
    words = " ".join(guessed)
    wrong = [field for field in ("name", "layout") if found[field] != true[field]]
    if not np.allclose(line_of({**found, "color": "RGB"}), line_of({**true, "color": "RGB"}), rtol=1e-3, atol=1e-4):
        if network.inside:
            return "twice"
        told = any(word in words for word in ("mean", "deviation", "pixels in"))
        wrong += [] if told else ["numbers"]
        wrong += ["guessed"] if told else []
    if found["color"] != true["color"]:
        wrong += ["guessed"] if "color" in words else ["color"]
    if not wrong:
        return "right"
    return "guessed" if set(wrong) == {"guessed"} else "wrong"


def classes_verdict(network: Network, output: str | None) -> str:
    """ "right", "missed" (the classes are not seen), "invented" (there are none) or "other" (another output)."""
    if not network.classes:
        return "invented" if output else "right"
    if not output:
        return "missed"
    return "right" if output == network.classes else "other"


def prediction_verdict(network: Network, predictions: list[dict[str, Any]], independent: dict[str, Any] | None) -> str:
    """ "right": the independent run's class and probability, or none where there is none; else what is wrong."""
    if not network.classes or independent is None:
        return "right" if not predictions else "invented"
    if not predictions:
        return "missed"
    best, first = independent["index"], predictions[0]
    if best != network.top:
        return f"the independent run says {best}, the list {network.top}"
    if first["index"] != best:
        return f"{first['index']} instead of {best}"
    off = abs(first["score"] - independent["score"])
    return "right" if off <= CLOSE else f"probability off by {off:.2f}"
