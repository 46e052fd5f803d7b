"""The page of what `apart.py` found: a table per network, one row per method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = {
    "demo": "Demo CNN",
    "vgg": "VGG-like",
    "resnet": "ResNet-like",
    "boards": "Boards",
    "lite0": "Photographs, EfficientNet-Lite0",
}
PLAIN = ("at .03", "at .05", "correlation", "overlap at .1", "agreement", "pointing game", "part IoU")
"""Figures that are told without their interval."""


def number(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def interval(value: Mapping[str, float]) -> str:
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def rows(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of one network."""
    whole = ["AUC", "AUC - activation", "specificity"]
    plain = [name for name in PLAIN if name in next(iter(figures.values()))]
    lines = [f"| method | {' | '.join(whole + plain)} |", f"|---{'|---' * (len(whole) + len(plain))}|"]
    for method, row in figures.items():
        told = [interval(row[name]) for name in whole] + [number(row[name]["mean"]) for name in plain]
        lines.append(f"| {method} | {' | '.join(told)} |")
    return lines


def write_page(result: Mapping[str, Any], path: Path) -> None:
    """Write the tables of all networks that were measured.

    Args:
        result: what `apart.py` writes as JSON: by network its command, pictures, filters, figures, perhaps sanity and
            a note.
        path: the page.
    """
    text = [
        "# How far apart masks can be",
        "",
        "For the filters of one picture: retention AUC, what it is above the feature map's, specificity, retention at",
        "areas .03 and .05, rank correlation between two filters' maps, overlap of their masks of area .1, and where",
        "parts are known the pairs whose filter falls without its dominant part, masks cut at the part's own size.",
        "`optimise` fits each picture and filter in 80 steps, `optimise apart` with a contrast between the filters.",
        "Held-out pictures, inpaint (nothing was tuned on it), common granularity. What the figures mean:",
        "[metrics](reference/metrics.md); what was made of them: [generator",
        "experiments](design/generator-experiments.md#masks-that-tell-filters-apart).",
        "",
    ]
    for name, found in result.items():
        text += [
            f"## {NAMES.get(name, name)}",
            "",
            f"`{found['command']}`: {found['pictures']} pictures x {found['filters']} filters."
            + (f" {found['note']}" if "note" in found else ""),
            "",
            *rows(found["figures"]),
            "",
        ]
        if "sanity" in found:
            sanity = found["sanity"]
            told = ", ".join(f"{method} {interval(value)}" for method, value in sanity["correlation"].items())
            text += [
                f"Sanity: {sanity['layers']} conv layers drawn anew (and, for the generator, one trained anew on "
                f"{sanity['pairs']:,} pairs): rank correlation of a filter's maps before and after: {told}.",
                "",
            ]
    path.write_text("\n".join(text), encoding="utf-8")
