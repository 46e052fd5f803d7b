"""The synthetic parts set: rendered toy birds with exact part masks, where no single part decides the class.

See `parts.SyntheticParts` for the set, `render.render` for one picture with a part removed or exchanged, and
`folder.write_folder` for ordinary image files.
"""

from __future__ import annotations

from .folder import write_folder
from .objects import CLASSES, PARTS, class_of, variants_of
from .parts import SPLITS, SyntheticParts
from .render import Sample, render

__all__ = [
    "CLASSES",
    "PARTS",
    "SPLITS",
    "Sample",
    "SyntheticParts",
    "class_of",
    "render",
    "variants_of",
    "write_folder",
]
