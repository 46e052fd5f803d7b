"""A whole evaluation: known answers on the planted CNN, resumption, files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsagn_onnx.errors import AnnotationError, ExplainerError, ImageError, OutputError, UsageError
from fsagn_onnx.evaluation import METRICS, Evaluation, Options, evaluate
from fsagn_onnx.evaluation import plots as plots_module
from fsagn_onnx.evaluation.contenders import named_explainers
from fsagn_onnx.evaluation.plots import write_plots
from fsagn_onnx.testing.planted import TAP, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer
from fsagn_onnx.testing.planted_set import write_planted_set
from fsagn_onnx.testing.synthetic import write_folder

PICTURES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`planted.onnx`, `explainer.onnx`, pictures in `images/`, their patches in `names.json`."""
    root = tmp_path_factory.mktemp("evaluate")
    write_planted(root / "planted.onnx")
    write_planted_explainer(root / "explainer.onnx")
    return write_planted_set(root, PICTURES)


def options(folder: Path, **changes: object) -> Options:
    chosen: dict[str, object] = {
        "methods": ("generator", "activation", "centre", "random"),
        "infills": ("inpaint", "mean"),
        "filters": 2,
        "parts": folder / "names.json",
        "threads": 1,
    }
    return Options(**(chosen | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(folder: Path) -> Evaluation:
    return evaluate(folder / "planted.onnx", folder / "explainer.onnx", [folder / "images"], options(folder))


def test_known_answers(found: Evaluation) -> None:
    assert (found.layer, found.images, found.pairs) == (TAP, PICTURES, 2 * PICTURES)
    assert found.methods == ("generator", "activation", "centre", "random")
    good = found.value("retention AUC", "generator", "inpaint")
    assert good.low > found.value("retention AUC", "centre", "inpaint").high
    assert good.low > found.value("retention AUC", "random", "inpaint").high
    assert found.value("specificity", "generator", "inpaint").low > 0
    assert found.value("specificity", "centre", "inpaint").mean == pytest.approx(0, abs=1e-6)
    assert found.value("pointing game", "generator").mean > 0.9
    assert found.value("intervention agreement", "generator").mean == 1
    assert found.value("part IoU", "generator").mean > found.value("part IoU", "centre").mean
    assert (
        found.value("insertion AUC", "generator", "inpaint").mean
        > found.value("insertion AUC", "random", "inpaint").mean
    )
    assert (
        found.value("deletion AUC", "generator", "inpaint").mean < found.value("deletion AUC", "random", "inpaint").mean
    )
    assert found.value("AUC - generator", "centre", "mean").high < 0
    with pytest.raises(KeyError):
        found.value("retention AUC", "nobody")


def test_tables(found: Evaluation) -> None:
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {row["metric"] for row in document["rows"]} == set(found.metrics())
    text = found.to_markdown()
    for title in found.metrics():
        assert f"## {title}" in text
    assert "| generator |" in text
    assert "seconds per (image, filter)" in text


def test_a_filter_that_is_dead_everywhere_is_listed(folder: Path) -> None:
    one = evaluate(
        folder / "planted.onnx", {}, [folder / "images" / "000.png"], options(folder, methods=(), filters=8, layer=TAP)
    )
    alive = set(planted_picture(0).boxes)
    assert not alive & set(one.dead)
    assert set(one.dead) | alive <= set(range(8))
    assert one.missing == 8 - one.pairs


def test_a_resumed_run_ends_with_the_same_tables(folder: Path, tmp_path: Path, found: Evaluation) -> None:
    out = tmp_path / "out"

    class Stop(Exception):
        pass

    def stop(done: int, count: int) -> None:
        if done == 3:
            raise Stop

    arguments = (folder / "planted.onnx", folder / "explainer.onnx", [folder / "images"], options(folder))
    with pytest.raises(Stop):
        evaluate(*arguments, out=out, on_image=stop)
    lines = (out / "images.jsonl").read_bytes()
    (out / "images.jsonl").write_bytes(lines + b'{"path": "half a li')
    with pytest.raises(OutputError, match="go on with --resume"):
        evaluate(*arguments, out=out)
    with pytest.raises(OutputError, match="was written with filters 2, but now it is 3"):
        evaluate(*arguments[:3], options(folder, filters=3), out=out, resume=True)
    again = evaluate(*arguments, out=out, resume=True)
    assert (out / "images.jsonl").read_bytes().startswith(lines)
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in found.rows]
    assert json.loads((out / "evaluation.json").read_text())["images"] == PICTURES
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.json", "evaluation.md", "images.jsonl", "run.json",
    ]  # fmt: skip


def test_an_earlier_evaluation_joins_the_tables(folder: Path, tmp_path: Path, found: Evaluation) -> None:
    planted, images = folder / "planted.onnx", [folder / "images"]
    early, late = tmp_path / "early", tmp_path / "late"
    evaluate(planted, {}, images, options(folder, methods=("activation", "random", "centre"), layer=TAP), out=early)
    both = options(folder, methods=("generator",), beside=early)
    again = evaluate(planted, folder / "explainer.onnx", images, both, out=late)
    for row in found.rows:
        assert again.value(row.metric, row.method, row.infill) == row.value, (row.metric, row.method)
    assert set(again.costs) == set(found.costs)
    with pytest.raises(UsageError, match="made with other filters"):
        evaluate(planted, folder / "explainer.onnx", images, options(folder, beside=early, filters=1))
    backwards = sorted((folder / "images").iterdir(), reverse=True)
    with pytest.raises(UsageError, match="has not measured"):
        evaluate(planted, folder / "explainer.onnx", backwards, options(folder, beside=early))
    with pytest.raises(OutputError, match="holds no results of 'evaluate'"):
        evaluate(planted, folder / "explainer.onnx", images, options(folder, beside=tmp_path))
    run = json.loads((early / "run.json").read_text())
    del run["scale"]  # as evaluations made before it was told
    (early / "run.json").write_text(json.dumps(run))
    with pytest.raises(UsageError, match="made with other scale"):
        evaluate(planted, folder / "explainer.onnx", images, options(folder, beside=early))


def test_plots(found: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_plots(found, tmp_path / "plots")
    assert written is not None
    assert len(written) == len(found.metrics()) + len(found.curves)
    assert all(cv2.imread(str(path)) is not None for path in written)
    monkeypatch.setattr(plots_module.importlib.util, "find_spec", lambda name: None)
    assert write_plots(found, tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_unreadable_images_are_listed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    quick = options(folder, metrics=("retention",), methods=())
    some = evaluate(folder / "planted.onnx", {}, [tmp_path / "bad.png", folder / "images" / "000.png"], quick)
    assert (some.images, len(some.failures)) == (1, 1)
    with pytest.raises(ImageError, match="none of the 1 images can be read"):
        evaluate(folder / "planted.onnx", {}, [tmp_path / "bad.png"], quick)
    with pytest.raises(ImageError, match="no images in"):
        evaluate(folder / "planted.onnx", {}, [_empty(tmp_path)], quick)


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_refusals(folder: Path, tmp_path: Path) -> None:
    planted, explainer, images = folder / "planted.onnx", folder / "explainer.onnx", [folder / "images"]
    with pytest.raises(UsageError, match="no metric 'wishes'"):
        Options(metrics=("wishes",))
    with pytest.raises(UsageError, match="no infill 'snow'"):
        Options(infills=("snow",))
    with pytest.raises(UsageError, match="rising and between 0 and 1"):
        Options(areas=(0.3, 0.1))
    with pytest.raises(UsageError, match="add 'inpaint', which none ever sees"):
        evaluate(planted, explainer, images, options(folder, infills=("blur",)))
    with pytest.raises(UsageError, match="no method 'magic'"):
        evaluate(planted, explainer, images, options(folder, methods=("magic",)))
    with pytest.raises(UsageError, match="needs an explainer file"):
        evaluate(planted, {}, images, options(folder))
    (tmp_path / "names.json").write_text("[]")
    with pytest.raises(AnnotationError, match=r"names\.json"):
        evaluate(planted, {}, images, options(folder, methods=(), parts=tmp_path / "names.json"))
    with pytest.raises(ExplainerError, match="agree on one layer"):
        evaluate(planted, explainer, images, options(folder, layer="pairs"))
    with pytest.raises(UsageError, match="different file names"):
        named_explainers(["a/x.onnx", "b/x.onnx"])
    assert named_explainers(["a/x.onnx", "b/y.onnx"]) == {"x": "a/x.onnx", "y": "b/y.onnx"}
    assert len(METRICS) == 8


def test_synthetic_parts_are_removed_by_rendering_anew(tmp_path: Path, repository: Path) -> None:
    names = write_folder(tmp_path, "test", 2)
    chosen = Options(
        methods=(), filters=3, metrics=("parts", "intervention"), infills=("inpaint",), parts=names, threads=1
    )
    measured = evaluate(
        repository / "models" / "demo_cnn.onnx", {}, [tmp_path / "images"], chosen, out=tmp_path / "out"
    )
    assert measured.pairs == 6
    changed = json.loads((tmp_path / "out" / "images.jsonl").read_text().splitlines()[0])["metrics"]["intervention"]
    assert np.array(changed["changes"]).max() > 0.1, "a picture without a part answers otherwise"
