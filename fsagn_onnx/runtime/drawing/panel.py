"""An image and the areas of its filters as one picture, for notebooks and files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..stream import Pixels
from .overlay import OUTLINED, draw_panel, encode_png

if TYPE_CHECKING:
    from ..explanation import Explanation


@dataclass(frozen=True, eq=False)
class Panel:
    """A drawn panel; a notebook shows it.

    Attributes:
        pixels: uint8 (h, w, 3) RGB.
    """

    pixels: Pixels

    @classmethod
    def of(cls, explanation: Explanation, area: float | None = None, style: str = OUTLINED) -> Panel:
        """Draw an explanation.

        Args:
            explanation: of an image.
            area: share to show for every filter and decision, in (0, 1]; None: their own.
            style: ``outline`` or ``heat``, see `draw_panel`.

        Raises:
            UsageError: the area is out of range, or there is no such style.
        """
        if area is not None:
            if not 0 < area <= 1:
                raise UsageError(f"area must be in (0, 1], but got {area}")
            filters = tuple(
                replace(explained, area=area, retention_predicted=None, retention_measured=None, retention_random=None)
                for explained in explanation.filters
            )
            unmeasured: dict[str, Any] = {"retention_predicted": None, "retention_measured": None}
            unmeasured |= {"kept": None, "removed": None, "control": None}
            evidence = tuple(replace(found, area=area, **unmeasured) for found in explanation.evidence)
            explanation = replace(explanation, filters=filters, evidence=evidence)
        return cls(draw_panel(explanation, style))

    def save(self, path: str | Path) -> Path:
        """Write the picture as PNG and return its path."""
        target = Path(path)
        target.write_bytes(encode_png(self.pixels))
        return target

    def _repr_png_(self) -> bytes:
        return encode_png(self.pixels)
