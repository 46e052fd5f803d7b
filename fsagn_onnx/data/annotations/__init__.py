"""Part annotations in the layouts that exist, brought into one form: parts per image as mask, box or point.

`open_annotations` finds out which layout a file or folder has; `layouts` lists them.
"""

from __future__ import annotations

from .labels import Labels, read_labels
from .layouts import layouts, open_annotations
from .parts import Annotations, ImageParts, Part

__all__ = ["Annotations", "ImageParts", "Labels", "Part", "layouts", "open_annotations", "read_labels"]
