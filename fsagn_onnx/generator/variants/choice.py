"""From the words of a command line to a variant."""

from __future__ import annotations

from pathlib import Path

from ...errors import CheckpointError, ExplainerError, UsageError
from ...runtime.filter_request import read_ids
from ...runtime.variant import Variant
from ..checkpoint import Checkpoint


def asked_variant(precision: str, with_preprocessing: bool, filters: str | None, top: int | None) -> Variant:
    """The variant that the options of ``export`` ask for.

    Raises:
        UsageError: what cannot be asked for.
    """
    ids = read_ids(filters, "ids like '3,17,40'") if filters else ()
    try:
        return Variant(precision, with_preprocessing, ids, top)
    except ExplainerError as error:
        raise UsageError(str(error)) from error


def insist_on_own(checkpoint: Checkpoint, source: Path) -> None:
    """Refuse a checkpoint whose file would contain the model.

    Raises:
        CheckpointError: the generator reads the model's own layers.
    """
    if checkpoint.description.get("generator", {}).get("encoder") != "own":
        raise CheckpointError(
            f"{source} holds a generator that reads the model's own layers, so its file contains the model: "
            "train with --own for one that needs nothing but the image"
        )
