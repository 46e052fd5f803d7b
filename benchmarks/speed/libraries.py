"""What a library would cost, and what it would do, where this project writes by hand what one does.

    python -m benchmarks.speed.libraries [--target build/libraries] [--rounds 7]

Installs each library of `CANDIDATES` into a folder of its own (reused where it is there), and prints: megabytes beyond
what the runtime install brings without it; milliseconds of CPU time that its import adds to an interpreter that has the
runtime's packages (numpy, OpenCV, onnx, onnxruntime), medians of fresh processes; the lines that are written by hand
for the same. Then the two side by side on the same work: headers of picture files, whole and cut short; the metadata
of an explainer file, right and damaged; graph rewrites and opset raising. Writes build/bench_libraries.json.
"""

from __future__ import annotations

import copy
import importlib.metadata
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import version_converter

from benchmarks.networks import BUILD, DEMO_EXPLAINER, ROOT, lite0
from benchmarks.speed.start import brought
from fsagn_onnx.conversion.normal_form import normalise
from fsagn_onnx.data.headers import BrokenHeaderError, read_header
from fsagn_onnx.data.images import decode_image
from fsagn_onnx.data.pillow import pillow_pixels
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.runtime.metadata import KEY, ExplainerMetadata

RUNTIME = "import cv2, numpy, onnx, onnxruntime"
CANDIDATES = {
    "pillow": ("from PIL import Image", "data/headers.py"),
    "imagesize": ("import imagesize", "data/headers.py"),
    "msgspec": ("import msgspec", "schema.py"),
    "pydantic": ("import pydantic; pydantic.TypeAdapter(int)", "schema.py"),
    "supervision": ("import supervision", "data/annotations"),
    "pycocotools": ("from pycocotools import mask", "data/annotations/coco.py"),
    "onnx-ir": ("import onnx_ir.passes.common", "conversion/rewrites"),
    "onnxscript": ("import onnxscript.optimizer, onnxscript.version_converter", "conversion/rewrites"),
    "freetype-py": ("import freetype", "runtime/drawing/typeface.py"),
}
"""Library -> the import that uses it, and what is written by hand for the same work."""

ENDINGS = (".png", ".jpg", ".gif", ".bmp", ".webp", ".tiff", ".ppm", ".jp2")
OPSETS = range(19, 26)


def lines(place: str) -> int:
    path = ROOT / "fsagn_onnx" / place
    return sum(
        len(file.read_text(encoding="utf-8").splitlines())
        for file in ([path] if path.is_file() else path.rglob("*.py"))
    )


def installed(name: str, target: Path) -> Path:
    """The folder of one library and all that it asks for."""
    folder = target / name
    if not folder.exists():
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]
        subprocess.run([*words, str(folder), name], check=True)
    return folder


def added(folder: Path, have: set[str]) -> tuple[float, list[str]]:
    """Megabytes of the distributions in a folder that the runtime does not bring, and their names."""
    found = {dist.metadata["Name"].lower(): dist for dist in importlib.metadata.distributions(path=[str(folder)])}
    new = sorted(found.keys() - have)
    files = [path.locate() for name in new for path in found[name].files or [] if path.suffix != ".pyc"]
    # pip puts commands beside the folder that it is told, so some listed files are elsewhere.
    return sum(Path(path).stat().st_size for path in files if Path(path).is_file()) / 1e6, new


def import_ms(statement: str, folder: Path, rounds: int) -> float:
    begin = f"{RUNTIME}\nimport sys, time\nsys.path.append({str(folder)!r})\nstarted = time.process_time()\n"
    words = [sys.executable, "-c", f"{begin}{statement}\nprint(time.process_time() - started)"]
    runs = [subprocess.run(words, capture_output=True, text=True, check=True) for _ in range(rounds)]
    return 1e3 * statistics.median(float(run.stdout) for run in runs)


def microseconds(call: Callable[[], Any], times: int) -> float:
    call()
    started = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - started) / times


def picture_files() -> dict[str, bytes]:
    """A picture of 90 x 61 pixels in every format that the reader knows."""
    random = np.random.default_rng(0)
    picture = cv2.resize(random.integers(0, 256, (7, 9, 3), dtype=np.uint8), (90, 61))
    return {ending: cv2.imencode(ending, picture)[1].tobytes() for ending in ENDINGS}


def header_readers() -> dict[str, Callable[[bytes], tuple[int, int] | None]]:
    """Width and height by each reader, None where it says that the file is broken or unknown."""
    import imagesize
    from PIL import Image, UnidentifiedImageError

    def ours(content: bytes) -> tuple[int, int] | None:
        try:
            header = read_header(content)
        except BrokenHeaderError:
            return None
        return None if header is None else (header.width, header.height)

    def pillow(content: bytes) -> tuple[int, int] | None:
        try:
            with Image.open(io.BytesIO(content)) as image:
                return image.size
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
            return None

    def size(content: bytes) -> tuple[int, int] | None:
        try:
            found = imagesize.get(io.BytesIO(content))
        except ValueError:
            return None
        return None if -1 in found else found

    def decoded(content: bytes) -> tuple[int, int] | None:
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = pillow_pixels("picture", image)
        except (UnidentifiedImageError, FsagnError, OSError, ValueError, SyntaxError):
            return None
        return pixels.shape[1], pixels.shape[0]

    def opencv(content: bytes) -> tuple[int, int] | None:
        try:
            pixels = decode_image(content, "picture")
        except FsagnError:
            return None
        return pixels.shape[1], pixels.shape[0]

    return {
        "by hand": ours,
        "by hand, then OpenCV": opencv,
        "Pillow, lazy": pillow,
        "imagesize": size,
        "Pillow, decoding": decoded,
    }


def headers() -> dict[str, Any]:
    """Sizes read right; files cut at nine places of ten that are told to be broken; time of one call."""
    files = picture_files()
    results: dict[str, Any] = {}
    for name, read in header_readers().items():
        right = sum(read(content) == (90, 61) for content in files.values())
        cuts = [content[: len(content) * tenths // 10] for content in files.values() for tenths in range(1, 10)]
        told = sum(read(cut) is None for cut in cuts)
        spent = statistics.median(microseconds(lambda c=content, r=read: r(c), 200) for content in files.values())
        results[name] = {"right": right, "files": len(files), "cuts told": told, "cuts": len(cuts), "us": spent}
        print(f"headers, {name}: {right} of {len(files)} sizes, {told} of {len(cuts)} cut files told, {spent:.0f} us")
    return results


def damaged(members: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Metadata in which one member is missing, of another type, out of range or unknown, as JSON, with its name."""
    wrong = {"format": [0, "1"], "filters": [0, -3, 2.5], "encoder": ["both"], "areas": [[0.2, 0.1], [2], "x"]}
    optional = ("variant", "sha256", "classes")
    for name, value in members.items():
        if name not in optional:
            yield name, json.dumps({key: item for key, item in members.items() if key != name})
        others = [value for value in (7, "text", [1], {"a": 1}, None) if type(value) is not type(members[name])]
        for other in [*wrong.get(name, []), *(others if name not in ("labels", *optional) else [7, [7]])]:
            if not (name in ("format", "filters") and other == 7):
                yield name, json.dumps({**members, name: other})
    yield "surprise", json.dumps({**members, "surprise": 1})
    inner = copy.deepcopy(members)
    inner["input"]["size"] = "large"
    yield "input", json.dumps(inner)


def pydantic_reader() -> Callable[[str], Any]:
    import pydantic

    positive = Annotated[int, pydantic.Field(gt=0, strict=True)]
    text = Annotated[str, pydantic.Field(min_length=1, strict=True)]
    spec = pydantic.create_model("Spec", size=(tuple[positive, positive] | None, None))
    ascending = pydantic.AfterValidator(lambda areas: areas if sorted(areas) == areas else 1 / 0)
    metadata = pydantic.create_model(
        "Metadata",
        __config__=pydantic.ConfigDict(extra="forbid", strict=True),
        format=Annotated[int, pydantic.Field(ge=1, le=2)],
        tool=str,
        content=text,
        layer=text,
        filters=positive,
        encoder=Literal["shared", "own"],
        input=spec,
        labels=list[str] | None,
        areas=Annotated[list[Annotated[float, pydantic.Field(gt=0, le=1)]], ascending],
        objective=str,
        infills=list[str],
        training=dict[str, Any],
        quality=dict[str, Any],
        variant=(dict[str, Any], {}),
        sha256=(text | None, None),
        classes=(dict[str, Any] | None, None),
    )
    return metadata.model_validate_json


def schemas() -> dict[str, Any]:
    """Damaged metadata that are refused, those whose message names the member, and time of one right reading."""
    proto = onnx.load(DEMO_EXPLAINER, load_external_data=False)
    text = next(entry.value for entry in proto.metadata_props if entry.key == KEY)
    cases = list(damaged(json.loads(text)))
    results: dict[str, Any] = {}
    readers = {"schema.py, by msgspec": ExplainerMetadata.from_json, "pydantic": pydantic_reader()}
    for name, read in readers.items():
        refused = named = 0
        for member, case in cases:
            try:
                read(case)
            except (FsagnError, ValueError, ArithmeticError) as error:
                refused, named = refused + 1, named + (member in str(error))
        spent = microseconds(lambda r=read: r(text), 2000)
        results[name] = {"refused": refused, "named": named, "damaged": len(cases), "us": spent}
        print(f"metadata, {name}: {refused} of {len(cases)} damaged refused, {named} by name, {spent:.0f} us")
    return results


def answers(proto: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    feeds = {session.get_inputs()[0].name: values}
    if len(session.get_inputs()) > 1:
        feeds[session.get_inputs()[1].name] = np.array([[0, 1]], np.int64)
    found: np.ndarray = session.run(None, feeds)[0]
    return found


def rewrites() -> dict[str, Any]:
    """EfficientNet-Lite0, in which batch norms are nodes: nodes left by each, seconds, and the largest change."""
    import onnxscript.optimizer

    proto = onnx.load(lite0()[0])
    before, results = answers(proto), {}
    for name, run in {"by hand": normalise, "onnxscript.optimizer": onnxscript.optimizer.optimize}.items():
        started = time.process_time()
        made = run(proto)
        seconds = time.process_time() - started
        norms = sum(node.op_type == "BatchNormalization" for node in made.graph.node)
        change = float(np.abs(answers(made) - before).max())
        results[name] = {"nodes": len(made.graph.node), "norms": norms, "s": seconds, "change": change}
        print(f"rewrites, {name}: {len(proto.graph.node)} to {len(made.graph.node)} nodes, ", end="")
        print(f"{norms} batch norms left, {seconds:.2f} s, answers differ by {change:.1e}")
    return results


def raised() -> dict[str, Any]:
    """The demo explainer raised from opset 18: the opsets at which the file is valid and answers the same."""
    import onnx_ir
    import onnxscript.version_converter

    def by_onnxscript(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        graph = onnx_ir.serde.deserialize_model(proto)
        onnxscript.version_converter.convert_version(graph, opset)  # in place
        return onnx_ir.serde.serialize_model(graph)

    proto = onnx.load(DEMO_EXPLAINER)
    before, results = answers(proto), {}
    converters = {"onnx": version_converter.convert_version, "onnxscript": by_onnxscript}
    for name, convert in converters.items():
        good: list[int] = []
        reason = ""
        for opset in OPSETS:
            try:
                made = convert(copy.deepcopy(proto), opset)
                onnx.checker.check_model(made, full_check=True)
                reached = next(entry.version for entry in made.opset_import if entry.domain == "")
                if reached == opset and np.array_equal(answers(made), before):
                    good.append(opset)
                else:
                    reason = reason or f"{opset}: the file says {reached}, or answers otherwise"
            except Exception as error:  # noqa: BLE001  # whatever a converter raises, it could not do it
                reason = reason or f"{opset}: {str(error).splitlines()[0][:90]}"
        results[name] = {"opsets": good, "first failure": reason}
        print(f"opsets, {name}: {', '.join(map(str, good)) or 'none'}; {reason or 'no failure'}")
    return results


@click.command()
@click.option("--target", type=click.Path(path_type=Path), default=BUILD / "libraries", show_default=True)
@click.option("--rounds", default=7, show_default=True)
def main(target: Path, rounds: int) -> None:
    cv2.utils.logging.setLogLevel(0)  # it complains about every cut file
    have = brought("fsagn-onnx", set()) - {"msgspec"}  # what it costs, though it is taken
    costs: dict[str, Any] = {}
    for name, (statement, place) in CANDIDATES.items():
        folder = installed(name, target).absolute()
        megabytes, new = added(folder, have)
        spent = import_ms(statement, folder, rounds)
        costs[name] = {"mb": megabytes, "brings": new, "import_ms": spent, "by_hand": place, "lines": lines(place)}
        print(f"{name}: {megabytes:.1f} MB ({', '.join(new)}), import {spent:.0f} ms; {place} {lines(place)} lines")
        sys.path.append(str(folder))
    result = {"costs": costs, "headers": headers(), "metadata": schemas(), "rewrites": rewrites(), "opsets": raised()}
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench_libraries.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
