"""The job of `explain`: images in, a folder of results out, at flat memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from ..data.images import list_images
from ..errors import UsageError
from ..runs.filter_names import found_filter_names
from ..runtime.drawing.overlay import check_style
from ..runtime.explainer import Explainer
from ..runtime.explanation import Explanation
from ..runtime.filter_request import FilterRequest
from ..runtime.stream import Failure, Frame, ordered_map
from .folder import About, ExplanationFolder
from .rendering import Place, Rendered, render_result
from .subject import Opened

RENDERERS: Final = 2
"""Threads that draw and compress."""
MEASURED_IMAGES: Final = 20
"""Images of which retention is measured unless told: those that a person looks at, and whose tables are printed."""
MEASURED_FILTERS: Final = 16
"""Filters of an image up to which it is measured unless told."""


@dataclass(frozen=True)
class ExplainRequest:
    """What the user asked `explain` for; see `Explainer.explain`.

    Attributes:
        images: files, folders, globs, `-`.
        filters: ``decisive:K``, ``against:K``, ``top:K``, ``all`` or ids; None: `Explainer.default_filters`.
        area: ``auto``, a share, or ``r:.8``.
        full_size: write the ranks at the original size.
        batch_size: images per pass.
        output: the model's output that classifies; None: found in its graph.
        scores: what its numbers are; None: found.
        detections: layout of a detector's boxes, see `Explainer`; None: found.
        style: how the overlays show areas, see `draw_panel`.
        names: what filters are called: a file, or the folder of a run of `dissect`, see `found_filter_names`.
        why: classes whose evidence is asked for, with commas; None: the answer's, where filters are decisive.
        measure: measure what the decisions rest on, and the retention of filters: True of all images, None of the
            first `MEASURED_IMAGES` where the file contains the model and few filters are asked for, False nothing.
    """

    images: tuple[str, ...]
    filters: str | None = None
    area: str = "auto"
    full_size: bool = False
    batch_size: int = 8
    style: str = "outline"
    output: str | None = None
    scores: str | None = None
    detections: str | None = None
    names: Path | None = None
    why: str | None = None
    measure: bool | None = None

    def __post_init__(self) -> None:
        """Check the style."""
        check_style(self.style)

    def arguments(self) -> dict[str, Any]:
        """What the manifest keeps, and what a run that goes on must repeat."""
        return {
            "images": list(self.images),
            "filters": self.filters,
            "area": self.area,
            "verify": self.measure is True,
            "full_size": self.full_size,
            "style": self.style,
            "output": self.output,
            "scores": self.scores,
            **({"detections": self.detections} if self.detections is not None else {}),
            **({"names": self.names.name} if self.names is not None else {}),
            **({"why": self.why} if self.why is not None else {}),
            **({"measure": False} if self.measure is False else {}),
        }

    def resolved(self, explainer: Explainer) -> ExplainRequest:
        """The same request with the filters that are explained unless told."""
        return replace(self, filters=explainer.default_filters) if self.filters is None else self

    @property
    def classes(self) -> list[str] | None:
        """The classes asked about, as `Explainer.explain` takes them."""
        return None if self.why is None else [part.strip() for part in self.why.split(",")]

    def filter_names(self, explainer: Explainer) -> dict[int, str]:
        """What filters of the explained layer are called.

        Raises:
            AnnotationError: the file with their names has another form.
            OutputError: the folder holds no finished run of `dissect`, or one of another layer or model.
        """
        if self.names is None:
            return {}
        return found_filter_names(self.names, explainer.metadata.layer, explainer.metadata.content)


def called(explanation: Explanation, names: Mapping[int, str]) -> Explanation:
    """The explanation with its filters called by their names."""
    if not names:
        return explanation
    filters = tuple(replace(found, part=names.get(found.id, found.part)) for found in explanation.filters)
    return replace(explanation, filters=filters)


@dataclass(frozen=True, eq=False)
class Written:
    """An explained image whose files are written under ``name``."""

    explanation: Explanation
    name: str


def open_folder(
    opened: Opened, source: Path, out: Path, request: ExplainRequest, *, resume: bool, overwrite: bool
) -> ExplanationFolder:
    """The folder for a run, made or taken up.

    Raises:
        OutputError: it cannot be written, or holds something else.
        UsageError: both ``resume`` and ``overwrite``.
    """
    request = request.resolved(opened.explainer)
    opened.explainer.check(request.filters, request.area, request.batch_size, opened.model, request.classes)
    request.filter_names(opened.explainer)
    if request.measure and opened.model is None:
        opened.explainer.engine.model_graph()
    about = About(
        source=source.name,
        layer=opened.explainer.metadata.layer,
        subject=opened.subject,
        arguments=request.arguments(),
        provider=opened.explainer.provider,
    )
    return ExplanationFolder(out, about, resume=resume, overwrite=overwrite)


def found_images(request: ExplainRequest, out: Path) -> Iterator[Path]:
    """The images of a request, lazily, without the pictures that `explain` itself writes into ``out``.

    Raises:
        UsageError: there are none.
    """
    pictures = (out / "overlays").resolve()
    images = (path for path in list_images(request.images) if pictures != path.parent.resolve())
    first = next(images, None)
    if first is None:
        raise UsageError(f"no images in {', '.join(request.images)}: name files, folders or globs")
    return chain([first], images)


def _measured_images(folder: ExplanationFolder, opened: Opened, request: ExplainRequest) -> bool | int:
    """Of how many of the images that are left retention is measured; True: of all."""
    if request.measure is not None:
        return request.measure
    explainer = opened.explainer
    asked = FilterRequest.parse(request.filters or explainer.default_filters, explainer.metadata)
    known = opened.model is not None or explainer.engine.contains_model
    return max(0, MEASURED_IMAGES - folder.explained) if known and len(asked) <= MEASURED_FILTERS else 0


def explain_into(
    folder: ExplanationFolder, opened: Opened, images: Iterable[Path | Frame], request: ExplainRequest
) -> Iterator[Written | Failure]:
    """Explain images and write each as soon as it is done; the caller finishes the folder.

    Yields:
        In order, what was written and what failed; images that the folder holds already are left out.

    Raises:
        FsagnError: the run cannot go on.
    """
    waiting = (image for image in images if not folder.is_done(image.name if isinstance(image, Frame) else str(image)))
    names = request.filter_names(opened.explainer)
    results = opened.explainer.stream(
        waiting,
        request.filters,
        request.area,
        batch_size=request.batch_size,
        verify=_measured_images(folder, opened, request),
        classes=request.classes,
        measure=request.measure is not False,
        model=opened.model,
    )

    def named() -> Iterator[tuple[Explanation, Place] | Failure]:
        for result in results:
            yield result if isinstance(result, Failure) else (called(result, names), folder.give_place(result.name))

    def rendered(item: tuple[Explanation, Place] | Failure) -> tuple[Explanation, Rendered] | Failure:
        if isinstance(item, Failure):
            return item
        explanation, place = item
        return explanation, render_result(explanation, place, full_size=request.full_size, style=request.style)

    for item in ordered_map(rendered, named(), RENDERERS, 2 * RENDERERS):
        if isinstance(item, Failure):
            folder.fail(item)
            yield item
        else:
            folder.add(item[1])
            yield Written(item[0], item[1].name)
