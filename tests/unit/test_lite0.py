"""The recipe of EfficientNet-Lite0: the same file everywhere, torch's numbers, the right answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fsagn_onnx.errors import ModelError, OutputError
from fsagn_onnx.model import load_model
from fsagn_onnx.models import lite0
from fsagn_onnx.models.demo import photographs

CONTENT_SHA256 = "671c27ba7e6c87162738fc95f9c38928f1d2d1f60424220c1eb3ae785a704eea"
"""`Model.sha256` of what the recipe builds; the committed generator belongs to it."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lite0.build_lite0(tmp_path_factory.mktemp("lite0") / "new" / "lite0.onnx")


def run(path: Path, size: int, images: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Logits and the feature map of the last conv layer, at any input size."""
    proto = onnx.load(path)
    for dimension in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = size
    proto.graph.output.append(onnx.helper.make_tensor_value_info(lite0.LAYER, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(["logits", lite0.LAYER], {"image": images}))


def test_the_content_is_the_same_everywhere(built: Path, tmp_path: Path) -> None:
    assert load_model(built).content == CONTENT_SHA256
    assert lite0.build_lite0(tmp_path / "again.onnx").read_bytes() == built.read_bytes()


@pytest.mark.parametrize("size", [160, 224])
def test_it_computes_what_the_packages_module_computes(built: Path, size: int) -> None:
    torch = pytest.importorskip("torch")
    architecture = pytest.importorskip("efficientnet_lite_pytorch")
    module = architecture.EfficientNet.from_name("efficientnet-lite0", image_size=size)  # pads for this size
    module.load_state_dict(lite0.load_torch_lite0().state_dict())
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        expected = [
            module.eval()(torch.from_numpy(images)).numpy(),
            module.extract_features(torch.from_numpy(images)).numpy(),
        ]
    for actual, wanted in zip(run(built, size, images), expected, strict=True):
        assert np.abs(actual - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_it_describes_itself(built: Path) -> None:
    model = load_model(built)
    assert model.input_spec.guessed == ()
    assert (model.input_spec.color, model.input_spec.layout, model.input_spec.size) == (
        "RGB",
        "NCHW",
        (224, 224),
    )
    assert model.labels is not None
    assert len(model.labels) == 1000
    assert model.opset == lite0.OPSET
    assert model.default_layer is not None
    assert model.default_layer.value == lite0.LAYER
    assert model.default_layer.channels == 1280


def test_it_knows_the_photographs(built: Path) -> None:
    from fsagn_onnx.data.images import read_image

    model = load_model(built)
    assert model.labels is not None
    expected = {"chelsea": "Egyptian cat", "coffee": "espresso", "rocket": "missile"}
    for path in photographs():
        if path.stem in expected:
            image, _ = model.input_spec.fit(read_image(path))
            logits, _ = run(built, 224, model.input_spec.normalise(image)[None])
            assert model.labels[int(logits[0].argmax())] == expected[path.stem]


def test_an_unwritable_place_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*lite0\.onnx"):
        lite0.build_lite0(tmp_path / "file" / "lite0.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModelError, match=r"efficientnet_lite_pytorch.*fsagn-onnx\[demo\]"):
        lite0.build_lite0(tmp_path / "lite0.onnx")


def test_labels_are_a_thousand_names() -> None:
    labels = lite0.imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert labels == json.loads(lite0.LABELS.read_text(encoding="utf-8"))
    assert (labels[285], labels[657], labels[967]) == ("Egyptian cat", "missile", "espresso")
