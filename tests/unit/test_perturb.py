"""perturb: disturbances, controls, ablation in the graph, effects against plain sums; the planted CNN as truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.data.annotations import open_annotations, read_labels
from fsagn_onnx.errors import FsagnError, LayerError, UsageError
from fsagn_onnx.model import load_model
from fsagn_onnx.perturbation.disturbances import KINDS, LEVELS, REGIONS, chosen_kinds, disturbed, moved_region
from fsagn_onnx.perturbation.effects import paired_test
from fsagn_onnx.perturbation.run import Perturbation, PerturbRequest, PerturbRun
from fsagn_onnx.runs import tapped_explainer
from fsagn_onnx.runs.tapped_explainer import TappedExplainer
from fsagn_onnx.runtime.ablation import Ablation, tail
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.runtime.filter_request import FilterRequest
from fsagn_onnx.runtime.session import Session
from fsagn_onnx.testing.planted import FILTERS, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer
from fsagn_onnx.testing.planted_set import write_planted_set

PICTURES = 24
SESSION = {"providers": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planted CNN as a classifier; the label of a picture is its strongest pattern."""
    folder = tmp_path_factory.mktemp("planted")
    model = load_model(write_planted(folder / "model.onnx"))
    write_planted_explainer(folder / "explainer.onnx")
    write_planted_set(folder, PICTURES)
    lines = ["file,label"]
    with Session(model.proto, **SESSION) as session:  # type: ignore[arg-type]
        for seed in range(PICTURES):
            values = model.input_spec.preprocess(planted_picture(seed).image)[0][None]
            lines.append(f"{seed:03}.png,{int(session.run(None, {'image': values})['scores'].argmax())}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def start(planted: Path, out: Path, *, resume: bool = False, **asked: object) -> PerturbRun:
    request = PerturbRequest((str(planted / "images"),), session=SESSION, **asked)  # type: ignore[arg-type]
    return PerturbRun(
        load_model(planted / "model.onnx"), planted / "explainer.onnx", out, request,
        annotations=open_annotations(planted), labels=read_labels(str(planted / "labels.csv")), resume=resume,
    )  # fmt: skip


def finished(run: PerturbRun) -> Perturbation:
    with run:
        for _ in run.images():
            pass
        return run.finish()


@pytest.fixture(scope="module")
def perturbation(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Perturbation:
    return finished(start(planted, tmp_path_factory.mktemp("run") / "out", filters="top:2"))


def test_the_pattern_that_decides_comes_first(perturbation: Perturbation) -> None:
    """Class k of the planted CNN is pattern k: disturbing it lowers the score, disturbing elsewhere does not."""
    assert perturbation.accuracy == 1.0
    ranked = {label: rows for label, rows in perturbation.parts.items() if label != "all"}
    assert len(ranked) >= 2
    model_labels = load_model(_model_of(perturbation)).labels or ()
    for label, rows in ranked.items():
        k = model_labels.index(label)
        assert rows[0]["region"] == f"pattern {k}"
        assert rows[0]["interval"][0] > 0
    for label, row in perturbation.ablation.items():
        if label != "all":
            assert max(row, key=lambda k, row=row: row[k]) == model_labels.index(label)
    low, high = perturbation.summary["control_check"]["difference"][1:]
    assert low <= 0 <= high


def _model_of(perturbation: Perturbation) -> Path:
    manifest = json.loads((perturbation.folder / "manifest.json").read_text())
    return Path(manifest["images_asked"][0]).parent / "model.onnx"


def test_cells_are_those_of_a_plain_loop(perturbation: Perturbation) -> None:
    columns = perturbation.folder / "columns"
    drops = np.fromfile(columns / "drops", np.float32).reshape(PICTURES, -1, len(KINDS), LEVELS, len(REGIONS))
    ids = np.fromfile(columns / "ids", np.int32).reshape(PICTURES, -1)
    wanted = ("part", "all", "blur", 3)
    cell = next(c for c in perturbation.effects if (c.kind, c.label, c.disturbance, c.level) == wanted)
    number = int(str(cell.region).split()[1])
    slots = [(n, slot) for n in range(PICTURES) for slot in range(2, ids.shape[1]) if ids[n, slot] == number]
    values = [drops[n, slot, 0, 2] for n, slot in slots]
    assert cell.images == len(values)
    inside, control = [float(v[0]) for v in values], [float(v[1] + v[2]) / 2 for v in values]
    assert cell.inside == pytest.approx(np.mean(inside), abs=1e-4)
    assert cell.effect == pytest.approx(np.mean(inside) - np.mean(control), abs=1e-4)
    assert cell.low <= cell.effect <= cell.high
    assert all(c.q >= c.p - 1e-9 for c in perturbation.effects)
    with (perturbation.folder / "effects.csv").open(newline="") as file:
        assert sum(1 for _ in csv.DictReader(file)) == len(perturbation.effects)


def test_interval_and_p_of_paired_differences() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal([0.0, 0.5], 1.0, size=(200, 2))
    mean, low, high, p = paired_test(values, 0)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    error = values.std(axis=0) / np.sqrt(200)
    np.testing.assert_allclose(low, mean - 1.96 * error, atol=0.35 * error.max())
    np.testing.assert_allclose(high, mean + 1.96 * error, atol=0.35 * error.max())
    assert p[0] > 0.05
    assert p[1] == pytest.approx(0.001)


def test_disturbances_stay_inside_and_grow() -> None:
    rng = np.random.default_rng(3)
    pixels = planted_picture(1).image
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:36, 8:30] = True
    results = disturbed(pixels, mask, tuple(KINDS), rng)
    assert results.shape == (len(KINDS), LEVELS, len(REGIONS), 64, 64, 3)
    for d, kind in enumerate(KINDS):
        change = np.abs(results[d, :, 0].astype(int) - pixels.astype(int)).sum(axis=3)
        assert (change[:, ~mask] == 0).all(), kind
        totals = change.sum(axis=(1, 2))
        assert totals[0] > 0, kind
        if kind != "shift":
            assert totals[0] < totals[1] < totals[2], kind
        assert (results[d, :, 3][:, mask] == pixels[mask]).all(), kind
    gray = disturbed(pixels[..., :1], mask, tuple(KINDS), rng)
    assert gray.shape[-1] == 1
    np.testing.assert_array_equal(pixels, planted_picture(1).image)


def test_controls_have_the_same_area_and_hardly_overlap() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:25, 12:40] = True
    for _ in range(50):
        moved = moved_region(mask, rng)
        assert moved.sum() == mask.sum()
        assert (moved & mask).sum() <= 0.25 * mask.sum()


def residual_model() -> onnx.ModelProto:
    """x + conv(x) -> mean -> softmax: the outputs need the image beside the layer."""
    weight = np.random.default_rng(0).standard_normal((3, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["layer"]),
        helper.make_node("Add", ["layer", "x"], ["sum"]), helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "residual", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_ablation_sets_a_channel_to_its_mean(tmp_path: Path) -> None:
    onnx.save(residual_model(), tmp_path / "residual.onnx")
    model = load_model(tmp_path / "residual.onnx")
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    weight = numpy_helper.to_array(model.proto.graph.initializer[0])[:, :, 0, 0]
    layer = np.maximum(np.einsum("kc,nchw->nkhw", weight, x), 0)[0]
    means = np.array([0.3, -0.1, 2.0])
    ablation = Ablation(model, "layer", means, **SESSION)
    found = ablation.run(x, layer.astype(np.float32), [2, 0])["scores"]
    ablation.close()
    for row, k in enumerate((2, 0)):
        changed = layer.copy()
        changed[k] = means[k]
        np.testing.assert_allclose(found[row], (changed + x[0]).mean(axis=(1, 2)), atol=1e-5)
    assert [item.name for item in model.proto.graph.input] == ["x"]
    with pytest.raises(LayerError, match="no node"):
        tail(model.proto, "nowhere")


def test_resume_and_workers_change_nothing(perturbation: Perturbation, planted: Path, tmp_path: Path) -> None:
    with start(planted, tmp_path / "killed", filters="top:2") as broken:
        for number, _ in enumerate(broken.images()):
            if number == 5:
                break
    finished(start(planted, tmp_path / "killed", resume=True, filters="top:2", workers=2))
    for name in ("effects.jsonl", "effects.csv", "ablation.csv", "images.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (perturbation.folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"filters": "top:x"}, "top:K"),
        ({"filters": "9"}, "no filter 9"),
        ({"area": 1.5}, "area must be"),
        ({"disturbances": "blur,fog"}, "no disturbance 'fog'"),
    ],
)
def test_wrong_requests_are_one_line(planted: Path, tmp_path: Path, asked: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        start(planted, tmp_path / "out", **asked)


def test_unknown_classes_are_told(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\n000.png,zebra\n")
    request = PerturbRequest((str(planted / "images" / "000.png"),), session=SESSION)
    run = PerturbRun(
        load_model(planted / "model.onnx"), planted / "explainer.onnx", tmp_path / "out", request,
        labels=read_labels(str(tmp_path / "labels.csv")),
    )  # fmt: skip
    with run:
        (failure,) = run.images()
        assert "no class 'zebra'" in str(failure)
        with pytest.raises(FsagnError, match="no class 'zebra'"):
            run.finish()
    assert chosen_kinds("blur, shift") == ("blur", "shift")


def test_the_strongest_filters_are_asked_for_in_one_pass(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapped_explainer, "FILTERS_PER_PASS", 3)
    model = load_model(planted / "model.onnx")
    tapped = TappedExplainer(model, planted / "explainer.onnx", **SESSION)  # type: ignore[arg-type]
    values = model.input_spec.preprocess(planted_picture(0).image)[0][None]
    (ids,) = tapped.run(values, FilterRequest.parse("top:200", tapped.metadata)).filter_ids.tolist()
    assert sorted(ids) == list(range(FILTERS)), "every filter once"
    by_id = tapped.run(values, FilterRequest(tuple(ids)))
    assert by_id.filter_ids.tolist() == [ids]
    tapped.close()


def test_decisive_filters_are_disturbed_where_classes_can_be_asked_about(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    model = load_model(root / "models" / "boards_cnn.onnx")
    pictures = tuple(str(path) for path in sorted((root / "examples" / "pcb" / "short").glob("*.png"))[:2])
    session = {"providers": "cpu", "threads": 1}
    request = PerturbRequest(pictures, disturbances="blur", ablate=False, session=session)
    with PlainEvidence(model, **session) as engine, PerturbRun(model, engine, tmp_path, request) as run:
        list(run.images())
        run.finish()
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["filters_asked"] == "decisive:3"
    assert manifest["images"] == 2
