"""Part annotations in the layouts that exist, brought into one form: parts per image as mask, box or point.

`open_annotations` finds out which layout a file or folder has; see `detect.LAYOUTS` for the list.
"""

from __future__ import annotations

from .labels import Labels, read_labels
from .layouts import LAYOUTS, open_annotations
from .parts import Annotations, ImageParts, Part

__all__ = ["LAYOUTS", "Annotations", "ImageParts", "Labels", "Part", "open_annotations", "read_labels"]
