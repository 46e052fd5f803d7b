"""compare: two runs of the same model on the same pictures do not drift, a changed model and changed pictures do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from fsagn_onnx.cli.compare import command
from fsagn_onnx.cli.explain import command as explain
from fsagn_onnx.comparison.comparison import _two_samples, compare
from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.dissection import dissect
from fsagn_onnx.errors import OutputError, UsageError
from fsagn_onnx.model import load_model
from fsagn_onnx.perturbation.run import PerturbRequest, PerturbRun
from fsagn_onnx.testing.planted import FILTERS, PATCH, pattern, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer

SESSION = {"providers": "cpu", "threads": 1}


def write_set(folder: Path, seeds: range, *, moved: bool = False) -> Path:
    """Planted pictures and masks; ``moved``: pattern 0 is replaced by pattern 7 wherever it is."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for seed in seeds:
        picture = planted_picture(seed)
        image, numbers = picture.image.copy(), np.zeros(picture.image.shape[:2], dtype=np.uint8)
        for k, (x, y, _, _) in picture.boxes.items():
            shown = 7 if moved and k == 0 else k
            image[y : y + PATCH, x : x + PATCH] = pattern(shown)
            numbers[y : y + PATCH, x : x + PATCH] = shown + 1
        cv2.imwrite(str(folder / "images" / f"{seed:03}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{seed:03}.png"), numbers)
    (folder / "names.json").write_text(json.dumps({str(k + 1): f"pattern {k}" for k in range(FILTERS)}))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_planted(folder / "model.onnx")
    explainer = write_planted_explainer(folder / "explainer.onnx")
    sets = {
        "old": write_set(folder / "old", range(100)),
        "new": write_set(folder / "new", range(100, 200)),
        "changed": write_set(folder / "changed", range(200, 300), moved=True),
    }
    for name, images in sets.items():
        words = [str(explainer), str(images / "images"), "--out", str(folder / f"explain-{name}"), "--filters", "top:2"]
        assert CliRunner().invoke(explain, words).exit_code == 0
    for name in ("old", "changed"):
        dissect(
            folder / "model.onnx", explainer, sets[name] / "images", folder / f"dissect-{name}", parts=sets[name],
            session=SESSION, permutations=199,
        )  # fmt: skip
    request = PerturbRequest(
        (str(sets["old"] / "images" / "00*.png"),), "top:1", disturbances="occlusion", session=SESSION
    )
    annotations = open_annotations(sets["old"])
    model = load_model(folder / "model.onnx")
    with PerturbRun(model, explainer, folder / "perturb", request, annotations=annotations) as run:
        list(run.images())
        run.finish()
    return folder


@pytest.mark.parametrize("name", ["explain-old", "dissect-old", "perturb"])
def test_a_run_does_not_drift_from_itself(runs: Path, name: str) -> None:
    comparison = compare(runs / name, runs / name)
    assert len(comparison.changes) > 2
    assert comparison.drifted == ()
    assert all(change.change in (0.0, None) for change in comparison.changes)


def test_other_pictures_of_the_same_kind_do_not_drift(runs: Path) -> None:
    comparison = compare(runs / "explain-old", runs / "explain-new")
    assert not comparison.paired
    assert len(comparison.drifted) <= 0.05 * len(comparison.changes)


def test_pictures_that_changed_drift(runs: Path) -> None:
    explained = compare(runs / "explain-old", runs / "explain-changed")
    found = {(change.what, change.of): change for change in explained.drifted}
    assert found[("among the strongest", "filter 0")].change < 0  # type: ignore[operator]
    assert found[("answers", "red magenta yellow green")].after == 0  # pattern 0, which is nowhere any more
    for change in explained.drifted:
        assert change.low is not None
        assert change.high is not None
        assert change.low <= (change.change or 0) <= change.high
    dissected = compare(runs / "dissect-old", runs / "dissect-changed", level=0.1)
    assert not {change.of for change in dissected.drifted} & {f"filter {k}" for k in range(1, 7)}


def test_another_model_moves_areas_in_the_same_pictures(runs: Path, tmp_path: Path) -> None:
    """Filters 1 and 2 of the layer change places: their areas move, and they are given each other's parts."""
    proto = onnx.load(runs / "model.onnx")
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("patterns."):
            values = numpy_helper.to_array(tensor).copy()
            values[[1, 2]] = values[[2, 1]]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "model.onnx")
    from fsagn_onnx.methods import engine_for

    old = load_model(runs / "model.onnx")
    folders = []
    for number, model in enumerate((old, load_model(tmp_path / "model.onnx"))):
        engine = engine_for(model, "patterns", "activation", **SESSION)
        out = tmp_path / f"run-{number}"
        dissect(model, engine, runs / "old" / "images", out, parts=runs / "old", session=SESSION, permutations=199)
        folders.append(out)
    comparison = compare(*folders)
    assert comparison.paired
    drifted = {(change.what, change.of) for change in comparison.drifted}
    assert {("part", "filter 1"), ("part", "filter 2")} <= drifted
    assert {of for _, of in drifted} == {"filter 1", "filter 2"}
    result = CliRunner().invoke(command, [*map(str, folders), "--out", str(tmp_path / "compared"), "--format", "md"])
    assert result.exit_code == 4, result.output
    assert "pattern 1 -> pattern 2" in result.stdout
    for name in ("changes.csv", "changes.jsonl", "report.html", "report.md"):
        assert (tmp_path / "compared" / name).is_file()
    same = CliRunner().invoke(command, [str(folders[0]), str(folders[0]), "--json"])
    assert same.exit_code == 0
    assert json.loads(same.stdout)["drifted"] == 0


def test_two_samples_keep_their_level() -> None:
    rng = np.random.default_rng(0)
    p = [_two_samples(rng.normal(size=30), rng.normal(size=40), trial)[3] for trial in range(80)]
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    change, low, high, p_shifted = _two_samples(rng.normal(size=60), rng.normal(1.0, size=50), 0)
    assert low < change < high
    assert p_shifted == pytest.approx(0.001)


def test_what_cannot_be_compared_is_told(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compare like with like"):
        compare(runs / "explain-old", runs / "dissect-old")
    with pytest.raises(OutputError, match="holds no results"):
        compare(tmp_path, tmp_path)
    shutil.copytree(runs / "explain-old", tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "manifest.json").read_text(encoding="utf-8"))
    manifest["arguments"]["filters"] = "3,17"
    (tmp_path / "other" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UsageError, match=r'the runs differ in the filters asked for \(.* and "3,17"\)'):
        compare(runs / "explain-old", tmp_path / "other")
    with pytest.raises(UsageError, match="between 0 and 1"):
        compare(runs / "perturb", runs / "perturb", level=2.0)


def test_a_class_that_hangs_on_other_evidence_is_told(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    words = [str(root / "models" / "boards_cnn.onnx"), str(root / "examples" / "pcb" / "good"), "--why", "--no-measure"]
    assert CliRunner().invoke(explain, [*words, "--out", str(tmp_path / "before"), "--threads", "1"]).exit_code == 0
    assert compare(tmp_path / "before", tmp_path / "before").drifted == ()
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    lines = [json.loads(line) for line in (tmp_path / "before" / "explanations.jsonl").read_text().splitlines()]
    for line in lines:
        for evidence in line["evidence"]:
            evidence["centroid"][0] = (evidence["centroid"][0] + line["width"] / 2) % line["width"]
        for found in line["filters"]:
            found["share"] = 0.9 if found is line["filters"][0] else 0.0
        line["evidence"].append({**line["evidence"][0], "class": 1, "label": "short", "area": None, "centroid": None})
        line["filters"][-1] |= {"area": None, "centroid": None}  # no small area
    changed = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "after" / "explanations.jsonl").write_text(changed)
    drifted = {
        (change.what.split(" ")[0], change.of) for change in compare(tmp_path / "before", tmp_path / "after").drifted
    }
    assert ("place", "evidence for good") in drifted
    assert ("hangs", "good") in drifted
