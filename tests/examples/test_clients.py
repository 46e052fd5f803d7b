"""The examples of deployment, run on the shipped explainer: they answer what Python answers, to one grid cell."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fsagn_onnx.model.input_spec import InputSpec
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.area import SHARE, SHARE_OF_DECISION, sufficient_area
from fsagn_onnx.testing.planted import planted_picture
from fsagn_onnx.testing.planted_explainer import write_planted_explainer
from fsagn_onnx.testing.synthetic import SyntheticParts

from .conftest import AREA, EXPLAINER, ROOT, Expected, decode, need, run_json, same_to_one_cell

EXAMPLES = ROOT / "examples"
BOARDS = EXAMPLES / "pcb"
SPEC = {
    "name": "x", "size": [64, 96], "layout": "NCHW", "color": "RGB", "scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1],
}  # fmt: skip
BLOCKER = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fsagn_onnx", "cv2", "onnx", "torch", "click"):
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_python_with_onnxruntime_and_numpy_alone(expected: Expected, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.png"
    script = EXAMPLES / "python" / "explain.py"
    document = run_json(
        sys.executable, "-c", BLOCKER, script, EXPLAINER, expected.picture, "--area", AREA, "--overlay", overlay
    )
    expected.check_document(document)
    assert cv2.imread(str(overlay)).shape[:2] == expected.explanation.size
    again = run_json(sys.executable, script, EXPLAINER, overlay, "--filters", "3,17")
    assert [entry["id"] for entry in again["filters"]] == [3, 17]


def test_python_reads_jpeg_where_there_is_pillow(expected: Expected, tmp_path: Path) -> None:
    photo, script = tmp_path / "photo.jpg", EXAMPLES / "python" / "explain.py"
    cv2.imwrite(str(photo), cv2.imread(str(expected.picture)), [cv2.IMWRITE_JPEG_QUALITY, 95])
    document = run_json(sys.executable, "-c", BLOCKER, script, EXPLAINER, photo, "--area", AREA)
    Expected(photo).check_document(document)
    without = [sys.executable, "-c", BLOCKER.replace('"torch"', '"torch", "PIL"'), script, EXPLAINER, photo]
    done = subprocess.run([str(word) for word in without], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {photo} is neither PNG nor PPM; 'pip install pillow' for JPEG and others\n"


@pytest.mark.parametrize("resize", ["stretch", "crop:0.875", "letterbox:114"])
@pytest.mark.parametrize("size", [(90, 200), (300, 64)])
def test_python_s_masks_lie_where_ours_do(resize: str, size: tuple[int, int]) -> None:
    example = runpy.run_path(str(EXAMPLES / "python" / "explain.py"))
    spec = InputSpec.from_dict({**SPEC, "resize": resize})
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels, geometry = spec.fit(picture)
    assert np.abs(example["fit"](picture, spec.to_dict()) - pixels).max() <= 1
    mask = np.random.default_rng(1).random(spec.size) < 0.3
    assert (example["on_picture"](mask, *size, spec.to_dict()) == geometry.mask_to_original(mask)).all()


def test_node(expected: Expected) -> None:
    folder = EXAMPLES / "node"
    node = need("node", folder / "node_modules")
    expected.check_document(run_json(node, folder / "explain.mjs", EXPLAINER, expected.picture, "--area", AREA))


@pytest.mark.parametrize("resize", ["stretch", "crop:0.875", "letterbox:114"])
@pytest.mark.parametrize("size", [(90, 200), (300, 64)])
def test_javascript_s_masks_lie_where_ours_do(resize: str, size: tuple[int, int], tmp_path: Path) -> None:
    spec = InputSpec.from_dict({**SPEC, "resize": resize})
    mask = np.random.default_rng(1).random(spec.size) < 0.3
    picture = {"height": size[0], "width": size[1]}
    script = tmp_path / "masks.mjs"
    script.write_text(
        f"import {{ onPicture, runLengths }} from {json.dumps(str(EXAMPLES / 'javascript' / 'fsagn.mjs'))};\n"
        f"const shown = onPicture({mask.ravel().astype(int).tolist()}, {json.dumps(picture)}, "
        f"{json.dumps(spec.to_dict())});\n"
        f"console.log(JSON.stringify({{ size: {list(size)}, counts: runLengths(shown, {list(size)}) }}));\n",
        encoding="utf-8",
    )
    shown = decode(run_json(need("node"), script))
    _, geometry = spec.fit(np.zeros((*size, 3), np.uint8))
    assert (shown == geometry.mask_to_original(mask)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_photographs_are_turned_upright_in_javascript_as_in_python(kind: str, tmp_path: Path) -> None:
    node = need("node")
    pixels = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3) * 40
    script = tmp_path / "turn.mjs"
    script.write_text(
        f"import {{ orientationOf, upright }} from {json.dumps(str(EXAMPLES / 'javascript' / 'upright.mjs'))};\n"
        "import { readFileSync } from 'node:fs';\n"
        f"const data = Uint8Array.from({pixels.ravel().tolist()});\n"
        "console.log(JSON.stringify(process.argv.slice(2).map((path) => {\n"
        "  const found = orientationOf(readFileSync(path));\n"
        "  const turned = upright({ data, width: 3, height: 2, channels: 1 }, found);\n"
        "  return [found, turned.width, turned.height, [...turned.data]];\n"
        "})));\n",
        encoding="utf-8",
    )
    paths, expected = [], []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(tmp_path / f"{orientation}.{kind.lower()}")
        Image.fromarray(pixels).save(paths[-1], kind, exif=exif)
        turned = ImageOps.exif_transpose(Image.open(paths[-1]))
        reference = Image.fromarray(pixels)
        reference.getexif()[0x0112] = orientation
        values = np.asarray(ImageOps.exif_transpose(reference))
        expected.append([orientation, *turned.size, values.ravel().tolist()])
    done = subprocess.run([node, script, *paths], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


@pytest.fixture(params=["python", "node", "cpp"])
def client(request: pytest.FixtureRequest) -> list[object]:
    """The command of an example that takes an explainer and a picture."""
    if request.param == "python":
        return [sys.executable, EXAMPLES / "python" / "explain.py"]
    if request.param == "node":
        return [need("node", EXAMPLES / "node" / "node_modules"), EXAMPLES / "node" / "explain.mjs"]
    return [request.getfixturevalue("cpp_program")]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_every_client_turns_a_photograph_as_it_was_held(
    client: list[object], kind: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = tmp_path / f"held.{kind.lower()}"
    image = Image.fromarray(SyntheticParts("test", 1)[0].image).resize((160, 120))
    image.save(photo, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    expected = Expected(photo, filters="top:5", classes=-1)
    assert expected.explanation.size == ((160, 120) if orientation == 6 else (120, 160))
    document = run_json(*client, EXPLAINER, photo, f"--area={AREA}", "--filters=top:5")
    if kind == "PNG":
        expected.check_document(document)
        return
    masks = {entry["id"]: decode(entry["mask"]) for entry in document["filters"]}
    ours = {explained.id: expected.explanation.mask(explained) for explained in expected.explanation.filters}
    assert set(masks) == set(ours)
    for number, mask in masks.items():  # decoders of JPEG differ by a level or two
        assert (mask & ours[number]).sum() > 0.9 * (mask | ours[number]).sum()


CLASSES = {"output": "scores", "count": None, "named": True, "guessed": False}


@pytest.mark.parametrize("scores", ["logits", "probabilities", "log-probabilities", "labels", "none", None])
def test_every_client_reads_the_classes_as_the_metadata_says(
    client: list[object], scores: str | None, tmp_path: Path
) -> None:
    said = {**CLASSES, "output": None if scores == "none" else "scores", "scores": scores}
    changes = {} if scores is None else {"format": 2, "content": "ab", "model_sha256": None, "classes": said}
    path, picture = write_planted_explainer(tmp_path / "e.onnx", changes), tmp_path / "p.png"
    cv2.imwrite(str(picture), planted_picture(0).image[..., ::-1])
    found = run_json(*client, path, picture)["predictions"]
    if scores in ("none", None):
        assert found == []
        return
    with Explainer(path, providers="cpu", threads=1) as opened:
        expected = opened.explain(picture, "top:1")[0].predictions
    assert [entry["index"] for entry in found] == [answer.index for answer in expected]
    assert [entry["label"] for entry in found] == [answer.label for answer in expected]
    assert [entry["score"] for entry in found] == pytest.approx([answer.score for answer in expected], abs=1e-3)


@pytest.mark.parametrize("labels", [None, ["cat"], ["dog", "cat"]])
@pytest.mark.parametrize(("scores", "number"), [("logit", 1.5), ("logit", -40.0), ("sigmoid", 0.25)])
def test_one_number_is_a_decision_between_two_classes(
    scores: str, number: float, labels: list[str] | None, tmp_path: Path
) -> None:
    one = 1 / (1 + np.exp(-number)) if scores == "logit" else number
    names = [None, None] if labels is None else [*labels] if len(labels) == 2 else ["not cat", "cat"]
    expected = sorted(zip((1 - one, one), (0, 1), names, strict=True), reverse=True)
    about = {"labels": labels, "classes": {**CLASSES, "output": "y", "scores": scores, "named": labels is not None}}
    script = tmp_path / "decide.mjs"
    script.write_text(
        f"import {{ predictions }} from {json.dumps(str(EXAMPLES / 'javascript' / 'fsagn.mjs'))};\n"
        f"const y = {{ data: Float32Array.of({number}), dims: [1, 1] }};\n"
        f"console.log(JSON.stringify({{ found: predictions({{ y }}, {json.dumps(about)}) }}));\n",
        encoding="utf-8",
    )
    ours = runpy.run_path(str(EXAMPLES / "python" / "explain.py"))["predictions"]
    for found in (ours({"y": np.array([[number]])}, about), run_json(need("node"), script)["found"]):
        assert [(entry["index"], entry["label"]) for entry in found] == [(index, name) for _, index, name in expected]
        assert [entry["score"] for entry in found] == pytest.approx([score for score, _, _ in expected], abs=1e-6)


def test_every_client_says_why(client: list[object], tmp_path: Path) -> None:
    picture = tmp_path / "board.png"
    cv2.imwrite(str(picture), cv2.imread(str(BOARDS / "short" / "12000068-1.png")))
    explainer = ROOT / "models" / "boards_explainer.onnx"
    asked = {"classes": ["short", 0], "filters": "decisive:2,against:1,top:1,7"}
    expected = Expected(picture, explainer, **asked)
    words = ["--classes=short,0", f"--filters={asked['filters']}", f"--area={AREA}"]
    document = run_json(*client, explainer, picture, *words, f"--overlay={tmp_path / 'overlay.png'}")
    expected.check_document(document)
    assert [entry["contribution"] > 0 for entry in document["filters"]][:3] == [True, True, False]
    drawn = cv2.imread(str(tmp_path / "overlay.png"))
    assert drawn.shape[0] == 96
    for words, complaint in (
        (["--classes=elephant"], "elephant"), (["--classes=99"], "no class 99"), (["--filters=best:3"], "best:3"),
    ):  # fmt: skip
        done = subprocess.run(
            [str(word) for word in (*client, explainer, picture, *words)], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert complaint in done.stderr


def test_no_client_draws_an_area_of_a_filter_that_is_not_active(client: list[object], tmp_path: Path) -> None:
    picture, explainer = tmp_path / "board.png", ROOT / "models" / "boards_explainer.onnx"
    cv2.imwrite(str(picture), cv2.imread(str(BOARDS / "copper" / "00041212-2.png")))
    with Explainer(explainer, providers="cpu", threads=1) as opened:
        filters = opened.explain(picture, filters="all")[0].filters
    silent, alive = (next(found.id for found in filters if found.active == active) for active in (False, True))
    expected = Expected(picture, explainer, filters=f"{silent},{alive}", classes=-1)
    document = run_json(*client, explainer, picture, f"--area={AREA}", f"--filters={silent},{alive}")
    expected.check_document(document)
    assert [(entry["area"], entry["retention"] is None) for entry in document["filters"]] == [(0, True), (AREA, False)]


def test_python_reads_gray_pictures_of_few_bits(tmp_path: Path) -> None:
    read = runpy.run_path(str(EXAMPLES / "python" / "explain.py"))["read_picture"]
    for width in (16, 13):
        gray = np.random.default_rng(width).integers(0, 2, (9, width), dtype=np.uint8) * 255
        Image.fromarray(gray).convert("1").save(tmp_path / "bits.png")
        assert (read(tmp_path / "bits.png") == gray[..., None]).all()


def test_node_says_what_is_wrong(tmp_path: Path) -> None:
    folder = EXAMPLES / "node"
    node = need("node", folder / "node_modules")
    (tmp_path / "x.onnx").write_bytes(EXPLAINER.read_bytes()[:1000])
    done = subprocess.run(
        [node, folder / "explain.mjs", tmp_path / "x.onnx", tmp_path / "x.onnx"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


def test_web_page_in_a_browser(expected: Expected) -> None:
    expected = Expected(expected.picture, filters="decisive:5,against:2")
    folder = EXAMPLES / "web"
    node = need("node", folder / "node_modules")
    chromium = shutil.which("chromium") or need("chromium-browser")
    with subprocess.Popen([node, folder / "serve.mjs", EXPLAINER, "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            document = run_json(node, folder / "check.mjs", chromium, url + "?provider=wasm", expected.picture, AREA)
        finally:
            server.terminate()
    assert document["errors"] == []
    assert document["isolated"] is True
    assert document["painted"] > 16
    assert document["complaint"].startswith("broken.png: ")
    assert "on wasm" in document["status"]
    best = expected.explanation.predictions[0]
    assert document["predictions"][0].startswith(str(best.label))
    masks = [decode(mask) for mask in document["masks"]]
    (evidence,) = expected.explanation.evidence
    assert same_to_one_cell(expected.explanation.input_mask(evidence), masks[0], expected.cell)
    expected.check([entry["id"] for entry in document["filters"]], masks[1:], best.index)
    (decision,) = document["evidence"]
    assert (decision["class"], decision["label"]) == (best.index, best.label)
    assert decision["decision"] == pytest.approx(evidence.decision, rel=1e-2)
    assert document["told"][0].startswith(f"{best.label}: evidence log-odds {evidence.decision:.1f}")
    for entry, explained, told in zip(
        document["filters"], expected.explanation.filters, document["told"][1:], strict=True
    ):
        expected.check_added(entry, explained)
        sign = "+" if explained.contribution > 0 else "\N{MINUS SIGN}"
        assert f"filter {explained.id} {sign}{abs(explained.contribution):.2f}" in told
    assert document["other"] == expected.explanation.predictions[1].index  # a click on it asked about that


def test_cpp(expected: Expected, cpp_program: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.png"
    document = run_json(cpp_program, EXPLAINER, expected.picture, f"--area={AREA}", f"--overlay={overlay}")
    expected.check_document(document)
    for entry, explained in zip(document["filters"], expected.explanation.filters, strict=True):
        ours = expected.explanation.mask(explained)
        assert (ours != decode(entry["mask"])).mean() < 1e-3  # the same OpenCV, up to its version
    again = run_json(cpp_program, EXPLAINER, overlay, "--filters=3,17", "--threads=1")
    assert [entry["id"] for entry in again["filters"]] == [3, 17]


def test_cpp_says_what_is_wrong(cpp_program: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(EXPLAINER.read_bytes()[:1000])
    for words, status in (([tmp_path / "x.onnx", "x.png"], 1), ([EXPLAINER, "x.png"], 1), ([EXPLAINER], 2)):
        done = subprocess.run([cpp_program, *words], capture_output=True, text=True)
        assert done.returncode == status
        assert done.stderr.startswith("error: " if status == 1 else "usage: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["node", "web"])
def test_packages_are_pinned(name: str) -> None:
    described = json.loads((EXAMPLES / name / "package.json").read_text(encoding="utf-8"))
    asked = {**described["dependencies"], **described.get("devDependencies", {})}
    assert all(version[0].isdigit() for version in asked.values())


AREA_CASES = [
    ([0.05, 0.1, 0.2, 0.4, 0.8], curve, random, share)
    for curve in ([0.1, 0.5, 0.6, 0.74, 1], [0.8, 0.81, 0.85, 0.99, 1], [0.05, 0.06, 0.1, 0.24, 1], [0.0] * 5)
    for random in ([0.01, 0.02, 0.06, 0.2, 0.7], None)
    for share in (SHARE, SHARE_OF_DECISION)
]


def test_the_examples_choose_the_areas_that_we_choose(need_node: str | None) -> None:
    ours = [sufficient_area(*case) for case in AREA_CASES]
    assert 0 in ours
    assert len(set(ours)) >= 4
    python = runpy.run_path(str(EXAMPLES / "python" / "explain.py"))["sufficient_area"]
    assert [python(*case) for case in AREA_CASES] == pytest.approx(ours)
    if need_node is not None:
        script = (
            f"import {{ sufficientArea }} from {json.dumps(str(EXAMPLES / 'javascript' / 'fsagn.mjs'))};"
            f"const cases = {json.dumps(AREA_CASES)};"
            "console.log(JSON.stringify(cases.map(([a, r, c, s]) => sufficientArea(a, r, c ?? undefined, s))));"
        )
        done = subprocess.run([need_node, "--input-type=module", "-e", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == pytest.approx(ours)


@pytest.fixture
def need_node() -> str | None:
    """Node, where it is installed; the function needs no package."""
    return shutil.which("node")
