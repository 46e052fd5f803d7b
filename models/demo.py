"""What `fsagn-onnx demo` explains, and with what: photographs, EfficientNet-Lite0 and its trained generator.

It lies beside the recipe and the weights that it joins; nothing here imports torch before an explainer has to
be built.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from fsagn_onnx.errors import ImageError, OutputError

from . import lite0

__all__ = ["PHOTOGRAPHS", "Built", "lite0_explainer", "photographs"]

PHOTOGRAPHS = (
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "astronaut.png",
    "motorcycle_left.png",
    "camera.png",
)
"""In scikit-image's wheel, all CC0 or public domain (see skimage/data/_fetchers.py and its README)."""


def photographs(folder: Path | None = None) -> list[Path]:
    """The demo's photographs.

    Args:
        folder: where to copy them, so that they are at hand; None: where scikit-image has them.

    Raises:
        ImageError: scikit-image is not installed, or came without its pictures.
        OutputError: `folder` cannot be written.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise ImageError("the demo's photographs come with scikit-image: pip install 'fsagn-onnx[demo]'")
    source = Path(found.submodule_search_locations[0]) / "data"
    paths = [source / name for name in PHOTOGRAPHS]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ImageError(f"{source} lacks {', '.join(missing)}; install scikit-image again")
    if folder is None:
        return paths
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copyfile(path, folder / path.name)) for path in paths]
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; choose another folder with --out") from error


def _fingerprint() -> str:
    """SHA-256 over everything that the explainer is built of, so that an upgrade builds it anew."""
    digest = hashlib.sha256()
    for path in (Path(lite0.__file__), lite0.LABELS, lite0.GENERATOR, lite0.GENERATOR.with_suffix(".json")):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


@dataclass(frozen=True)
class Built:
    """An explainer file that is ready.

    Attributes:
        path: where it is.
        reused: whether it was there already.
    """

    path: Path
    reused: bool


def lite0_explainer(folder: Path) -> Built:
    """EfficientNet-Lite0 and its explainer in `folder`, built where they are missing or out of date.

    Args:
        folder: holds `lite0.onnx`, `lite0-explainer.onnx` and `built.json`, which is written last.

    Returns:
        The explainer.

    Raises:
        FsagnError: as `build_lite0` and `build_lite0_explainer`.
    """
    model, explainer, stamp = folder / "lite0.onnx", folder / "lite0-explainer.onnx", folder / "built.json"
    fingerprint = _fingerprint()
    try:
        current = json.loads(stamp.read_text(encoding="utf-8")).get("fingerprint") == fingerprint
    except (OSError, ValueError, AttributeError):
        current = False
    if current and model.is_file() and explainer.is_file():
        return Built(explainer, reused=True)
    lite0.build_lite0(model)
    lite0.build_lite0_explainer(explainer, model=model)
    try:
        stamp.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {stamp}: {error.strerror}; choose another folder with --out") from error
    return Built(explainer, reused=False)
