"""Variants of an explainer file: each answers as the plain file does, describes itself, and is read by the runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from fsagn_onnx.cli.export import command
from fsagn_onnx.dissection import dissect
from fsagn_onnx.errors import CheckpointError, ExplainerError, FsagnError, UsageError
from fsagn_onnx.generator import Checkpoint, Generator, TrainingOptions, export_explainer, make_config, save_checkpoint
from fsagn_onnx.generator.graph_runner import run_graph
from fsagn_onnx.generator.variants import check_preprocessing, half_precision
from fsagn_onnx.generator.variants.quantise import before_layers, quantised
from fsagn_onnx.model import InputSpec, Model, load_model
from fsagn_onnx.perturbation.run import PerturbRequest, PerturbRun
from fsagn_onnx.runs.tapped_explainer import TappedExplainer, TappedPass
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.filter_request import FilterRequest
from fsagn_onnx.runtime.stream import Failure
from fsagn_onnx.runtime.variant import Variant
from fsagn_onnx.testing.bright_detector import bright_detector, bright_picture
from fsagn_onnx.testing.planted import TAP, planted_picture, write_planted

PICTURES = [planted_picture(seed).image for seed in range(6)]


def make_checkpoint(model: Model, encoder: str) -> Checkpoint:
    """An untrained generator whose learnt part is not zero."""
    torch.manual_seed(0)
    generator = Generator(make_config(model, model.layer(TAP), encoder))  # type: ignore[arg-type]
    torch.nn.init.normal_(generator.query.weight, std=0.3)
    description = {
        "content": model.content,
        "generator": json.loads(json.dumps(generator.config.to_dict())),
        "options": TrainingOptions().to_dict(),
        "training": {"pairs": 0},
    }
    return Checkpoint(description, {f"weights/{name}": value for name, value in generator.state_dict().items()})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("variants") / "planted.onnx"
    write_planted(path)
    return load_model(path)


@pytest.fixture(scope="module", params=["shared", "own"])
def checkpoint(request: pytest.FixtureRequest, model: Model) -> Checkpoint:
    return make_checkpoint(model, request.param)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("calibration")
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), planted_picture(seed).image[..., ::-1])
    return folder


def answers(path: Path, filters: Any) -> list[tuple[list[int], np.ndarray]]:
    with Explainer(path, providers="cpu", threads=1) as explainer:
        results = explainer.explain(PICTURES, filters, 0.2)
    return [([f.id for f in result.filters], np.array([f.area_rank for f in result.filters])) for result in results]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a <= 0.2) & (b <= 0.2)).sum() / ((a <= 0.2) | (b <= 0.2)).sum())


@pytest.mark.parametrize(
    ("variant", "filters", "least"),
    [
        (Variant("fp16"), "top:2", 0.9),
        (Variant("int8"), [1, 0], 0.5),
        (Variant(preprocessing=True), "top:2", 0.95),
        (Variant(filters=(2, 0)), [2, 0], 1.0),
        (Variant(top=2), "top:2", 1.0),
        (Variant(top=1, filters=(2, 0)), "top:1", 1.0),
        (Variant("fp16", preprocessing=True, top=2), "top:2", 0.9),
    ],
    ids=lambda value: "-".join(str(part) for part in value.to_dict().values()) if isinstance(value, Variant) else "",
)
def test_variant_answers_as_the_plain_file(
    model: Model, checkpoint: Checkpoint, images: Path, tmp_path: Path, variant: Variant, filters: Any, least: float
) -> None:
    plain, other = tmp_path / "plain.onnx", tmp_path / "variant.onnx"
    export_explainer(model, checkpoint, plain)
    report = export_explainer(model, checkpoint, other, variant=variant, calibrate=[images])
    described = FileEngine(other, "cpu").metadata.variant
    assert replace(described, loss={}) == variant
    assert dict(described.loss) == dict(report.loss)
    assert bool(report.loss) == (variant.precision != "fp32")
    inputs = {value.name for value in onnx.load(other).graph.input}
    assert ("filters" in inputs) == (variant.slots is None)
    if variant.filters and variant.top:
        for ids, _ in answers(other, filters):
            assert set(ids) <= set(variant.filters)
        return
    for (ids, ranks), (expected_ids, expected_ranks) in zip(
        answers(other, filters), answers(plain, filters), strict=True
    ):
        if variant.precision == "fp32":
            assert ids == expected_ids
        if ids == expected_ids and ids:
            assert overlap(ranks, expected_ranks) >= least


@pytest.mark.parametrize("resize", ["stretch", "crop:1.0", "crop:0.875", "letterbox:114"])
@pytest.mark.parametrize(("color", "layout"), [("RGB", "NCHW"), ("BGRA", "NHWC"), ("GRAY", "NCHW")])
def test_preprocessing_inside_agrees_with_the_host(resize: str, color: str, layout: str) -> None:
    channels = {"GRAY": 1, "BGRA": 4}.get(color, 3)
    spec = InputSpec("x", layout, color, (30, 44), 1 / 255, (0.4,) * channels, (0.2,) * channels, resize)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], []), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    check_preprocessing(spec, proto, lambda content, feeds: list(run_graph(content, feeds).values()))


@pytest.mark.parametrize("opset", [18, 20, 22])
def test_opset(model: Model, tmp_path: Path, opset: int) -> None:
    export_explainer(model, make_checkpoint(model, "shared"), tmp_path / "x.onnx", opset=opset)
    assert onnx.load(tmp_path / "x.onnx").opset_import[0].version == opset
    assert answers(tmp_path / "x.onnx", "top:1")


def test_impossible_variants_are_one_line(model: Model, images: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(model, "shared")

    def export(**arguments: Any) -> None:
        export_explainer(model, checkpoint, tmp_path / "never.onnx", **arguments)

    with pytest.raises(UsageError, match=r"18\.\..*got 17"):
        export(opset=17)
    with pytest.raises(UsageError, match="no filter 99"):
        export(variant=Variant(filters=(0, 99)))
    with pytest.raises(UsageError, match="give --calibrate"):
        export(variant=Variant("int8"))
    with pytest.raises(UsageError, match="no images in"):
        export(variant=Variant("int8"), calibrate=[tmp_path])
    with pytest.raises(ExplainerError, match="precision must be one of"):
        Variant("fp8")
    with pytest.raises(ExplainerError, match="no more than there are"):
        Variant(filters=(1, 2), top=3)
    assert not (tmp_path / "never.onnx").exists()


def test_requests_that_a_fixed_file_cannot_answer(model: Model, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(model, "shared")
    export_explainer(model, checkpoint, tmp_path / "set.onnx", variant=Variant(filters=(2, 0)))
    export_explainer(model, checkpoint, tmp_path / "top.onnx", variant=Variant(top=2))
    with pytest.raises(UsageError, match="answers the filters 2, 0 only, but 1"):
        answers(tmp_path / "set.onnx", [1])
    with pytest.raises(UsageError, match="strongest filters only"):
        answers(tmp_path / "top.onnx", [1])
    assert [ids for ids, _ in answers(tmp_path / "set.onnx", "all")] == [[2, 0]] * len(PICTURES)
    assert {len(ids) for ids, _ in answers(tmp_path / "top.onnx", "top:1")} == {1}


def test_half_precision_refuses_weights_that_do_not_fit(model: Model) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    weights = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    huge = onnx.numpy_helper.from_array(np.full(list(weights.dims), 1e6, dtype=np.float32), weights.name)
    weights.CopyFrom(huge)
    with pytest.raises(ExplainerError, match="float16 ends at 65504"):
        half_precision(proto)


def test_command_tells_what_is_lost(model: Model, images: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", make_checkpoint(model, "shared"))
    common = [str(tmp_path / "c.safetensors"), "--model", str(model.path), "--out", str(tmp_path / "x.onnx")]
    run = CliRunner().invoke(command, [*common, "--precision", "fp16", "--calibrate", str(images)])
    assert run.exit_code == 0, run.output
    assert "fp16 against float32 on 8 images" in run.output
    document = json.loads(CliRunner().invoke(command, [*common, "--filters", "1", "--json"]).stdout)
    assert document["bytes"] == (tmp_path / "x.onnx").stat().st_size
    for wrong, kind in (
        (["--own"], CheckpointError),
        (["--filters", "a"], UsageError),
        (["--precision", "x"], FsagnError),
    ):
        assert isinstance(CliRunner().invoke(command, [*common, *wrong]).exception, kind)


def test_metadata_of_a_variant_is_checked(model: Model, tmp_path: Path) -> None:
    export_explainer(model, make_checkpoint(model, "shared"), tmp_path / "x.onnx")
    proto = onnx.load(tmp_path / "x.onnx")
    described = json.loads(proto.metadata_props[0].value)
    for broken in ({"precision": 3}, {"colour": "red"}, {"filters": [True]}, {"top": 0}, []):
        proto.metadata_props[0].value = json.dumps({**described, "variant": broken})
        onnx.save(proto, tmp_path / "broken.onnx")
        with pytest.raises(ExplainerError):
            FileEngine(tmp_path / "broken.onnx", "cpu")
    assert onnxruntime.get_available_providers()


@pytest.mark.parametrize(
    "variant",
    [
        Variant(preprocessing=True),
        Variant(top=2),
        Variant(preprocessing=True, top=1, filters=(5, 2, 0)),
        Variant(filters=(5, 2, 0)),
    ],
    ids=lambda variant: "-".join(str(part) for part in variant.to_dict().values()),
)
def test_a_tapped_variant_answers_any_request_as_the_plain_file(
    model: Model, checkpoint: Checkpoint, tmp_path: Path, variant: Variant
) -> None:
    export_explainer(model, checkpoint, tmp_path / "plain.onnx")
    export_explainer(model, checkpoint, tmp_path / "variant.onnx", variant=variant)
    batch = np.stack([model.input_spec.preprocess(picture)[0] for picture in PICTURES[:3]])
    asked = FilterRequest((2, 0, 5) if variant.filters else (6, 2, -1, -1))
    expected, got = (
        answered(TappedExplainer(model, tmp_path / f"{name}.onnx", "cpu", 1), batch, asked)
        for name in ("plain", "variant")
    )
    np.testing.assert_array_equal(got.filter_ids, expected.filter_ids)
    np.testing.assert_array_equal(got.feature_map, expected.feature_map)
    assert overlap(got.area_rank, expected.area_rank) > 0.999
    assert got.outputs.keys() == expected.outputs.keys()


def answered(tapped: TappedExplainer, batch: np.ndarray, asked: FilterRequest) -> TappedPass:
    try:
        return tapped.run(batch, asked)
    finally:
        tapped.close()


@pytest.mark.parametrize(
    "variant", [Variant(preprocessing=True), Variant(top=2), Variant(filters=(5, 2))], ids=["pixels", "top", "filters"]
)
def test_dissect_and_perturb_take_variants(model: Model, images: Path, tmp_path: Path, variant: Variant) -> None:
    export_explainer(model, make_checkpoint(model, "shared"), tmp_path / "variant.onnx", variant=variant)
    session = {"providers": "cpu", "threads": 1}
    found = dissect(model, tmp_path / "variant.onnx", images, tmp_path / "d", session=session)
    assert [row.filter for row in found.filters] == (sorted(variant.filters) or list(range(8)))
    asked = PerturbRequest((str(images),), session=session, filters="top:8", disturbances="blur", ablate=False)
    with PerturbRun(model, tmp_path / "variant.onnx", tmp_path / "p", asked) as run:
        assert not any(isinstance(item, Failure) for item in run.images())
        assert run.finish().images == 8


def test_a_file_with_preprocessing_inside_measures_retention(model: Model, tmp_path: Path) -> None:
    export_explainer(model, make_checkpoint(model, "shared"), tmp_path / "plain.onnx")
    export_explainer(model, make_checkpoint(model, "shared"), tmp_path / "variant.onnx", variant=Variant("fp32", True))
    found = []
    for name in ("plain", "variant"):
        with Explainer(tmp_path / f"{name}.onnx", providers="cpu", threads=1) as explainer:
            found.append(
                [f.retention_measured for f in explainer.explain(PICTURES[0], [3, 5], 0.3, verify=True)[0].filters]
            )
    assert found[1] == pytest.approx(found[0], abs=0.05)


def test_what_only_decodes_a_detector_s_answer_stays_float() -> None:
    """Boxes in pixels and scores joined in one 8-bit value leave no score between 0 and 1."""
    proto = bright_detector("yolov8")
    made = {name: node for node in proto.graph.node for name in node.output}
    inside = before_layers(proto)
    kinds = {made[name].op_type for name in inside}
    assert kinds == {"Conv", "Relu"}
    assert made[made["output0"].input[0]].output[0] not in inside
    picture = np.moveaxis(bright_picture([(3, 5, 0), (6, 2, 2)]), -1, 0)[None].astype(np.float32) / 255
    # Red is no more than a logit of 2.
    batch = (picture * np.array([0.55, 1, 1], np.float32).reshape(1, 3, 1, 1)).astype(np.float32)
    small = quantised(proto, "images", "features", ["output0"], batch)
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["output0"], {"images": batch})
    scores = found[0, 4:].max(axis=1)
    assert scores == pytest.approx([1 / (1 + np.exp(-2)), 0, 1], abs=0.03)
