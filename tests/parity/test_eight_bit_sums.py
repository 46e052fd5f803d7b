"""8-bit sums are exact on every processor: in every session of the package, and in the proof."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from benchmarks.coverage.transforms import TRANSFORMS
from benchmarks.robustness.eight_bit_sums import OPS, off_by, written
from fsagn_onnx.conversion import ParityError, TappedModule, check_parity, convert
from fsagn_onnx.generator.graph_runner import run_graph
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.model.eight_bit_sums import with_exact_sums
from fsagn_onnx.model.inference_session import EXACT_SUMS, inference_session, sums_saturate
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.tuning import Tuning

from . import networks

ROOT = Path(__file__).resolve().parents[2]
EXPLAINER = ROOT / "models" / "demo_explainer.onnx"
SAID = "this CPU adds 8-bit products in 16 bits: the plain model itself is off by "


@pytest.mark.parametrize("signed", [False, True], ids=["uint8", "int8"])
@pytest.mark.parametrize("optimised", [False, True], ids=["as written", "optimised"])
@pytest.mark.parametrize("op", OPS)
def test_sums_are_those_of_integers(op: str, optimised: bool, signed: bool) -> None:
    assert off_by(op, signed, exact=True, optimised=optimised) < 0.01


@pytest.mark.parametrize("op", [op for op in OPS if "QDQ" not in op])
def test_no_operator_multiplies_uint8_by_int8(op: str) -> None:
    moved = with_exact_sums(written(op, signed=False))
    onnx.checker.check_model(moved)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(moved).graph.value_info
    }
    (node,) = [node for node in moved.graph.node if node.op_type == op.split()[0]]
    (weights,) = [name for name in node.input if name in ("w.moved_up", "k.moved_up")]
    assert types[weights] == TensorProto.UINT8
    unmoved = written(op, signed=True)
    assert (with_exact_sums(unmoved) is unmoved) == (op != "DynamicQuantizeMatMul")


def test_weights_without_a_zero_point_get_one() -> None:
    graph = "y = MatMulInteger(q, w)"
    header = '<ir_version: 8, opset_import: ["" : 13]>'
    model = onnx.parser.parse_model(f"{header} g (uint8[2, 64] q, int8[64, 3] w) => (int32[2, 3] y) {{ {graph} }}")
    rng = np.random.default_rng(0)
    q, w = rng.integers(0, 256, (2, 64), np.uint8), rng.integers(-128, 128, (64, 3), np.int8)
    (made,) = inference_session(model, threads=1, optimised=False, exact=True).run(None, {"q": q, "w": w})
    assert np.array_equal(made, q.astype(np.int32) @ w.astype(np.int32))


def test_sessions_are_made_in_one_place() -> None:
    files = [path for folder in ("fsagn_onnx", "cli", "models") for path in (ROOT / folder).rglob("*.py")]
    made = re.compile(r"\b(InferenceSession|SessionOptions)\(")
    found = {path.relative_to(ROOT).as_posix() for path in files if made.search(path.read_text(encoding="utf-8"))}
    assert found == {"fsagn_onnx/model/inference_session.py"}


@pytest.mark.parametrize("needed", [True, False])
def test_every_session_has_the_option_where_sums_saturate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, needed: bool
) -> None:
    monkeypatch.setattr("fsagn_onnx.model.inference_session.sums_saturate", lambda: needed)
    seen: list[str] = []
    plain = onnxruntime.InferenceSession

    def watched(graph: object, options: onnxruntime.SessionOptions, **keywords: object) -> object:
        seen.append(options.get_session_config_entry(EXACT_SUMS))
        return plain(graph, options, **keywords)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    picture = np.zeros((64, 64, 3), np.uint8)
    for cache in (None, tmp_path, tmp_path):  # without a cache, filling it, from it
        with Explainer(EXPLAINER, providers="cpu", threads=1, tuning=Tuning(cache=cache)) as explainer:
            explainer.explain(picture, "top:1")
    model = load_model(ROOT / "models" / "demo_cnn.onnx")
    check_parity(model, convert(model, [model.layers[-1].value], check=False))
    run_graph(model.proto.SerializeToString(), {"image": np.zeros((1, 3, 128, 128), np.float32)})
    assert len(seen) >= 5
    assert set(seen) == {"1" if needed else "0"}


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, TappedModule]:
    folder = tmp_path_factory.mktemp("quantised")
    torch.manual_seed(0)
    networks.export(networks.NETWORKS["pyramid"](), folder / "plain.onnx", dynamo=False, opset=17)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TRANSFORMS["int8-qoperator"](folder / "plain.onnx", folder / "int8.onnx")
    model = load_model(folder / "int8.onnx")
    return model, convert(model, [layer.value for layer in model.layers], check=False)


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsagn_onnx.conversion.parity.sums_saturate", lambda: True)
    monkeypatch.setattr("fsagn_onnx.conversion.parity.saturation_error", lambda *_: 0.314)


@pytest.mark.usefixtures("saturating")
def test_a_processor_that_saturates_is_named(quantised: tuple[Model, TappedModule]) -> None:
    reason = check_parity(*quantised).reason
    assert f"{SAID}0.31 " in reason
    assert "\n" not in reason


@pytest.mark.usefixtures("saturating")
def test_a_processor_that_saturates_is_named_in_a_refusal(quantised: tuple[Model, TappedModule]) -> None:
    model, module = quantised
    index = next(i for i, step in enumerate(module.steps) if step.op == "QLinearConv")
    inner = module.nodes[index].forward
    module.nodes[index].forward = lambda x, *rest: inner(x + 9, *rest)  # type: ignore[method-assign]
    try:
        with pytest.raises(ParityError, match=f"computes something else in torch.*; {SAID}0.31 ") as refused:
            check_parity(model, module)
        assert "\n" not in str(refused.value)
    finally:
        module.nodes[index].forward = inner  # type: ignore[method-assign]


def test_what_is_said_of_this_processor(quantised: tuple[Model, TappedModule]) -> None:
    assert (SAID in check_parity(*quantised).reason) == sums_saturate()


def test_a_quantised_network_in_its_exact_form(
    quantised: tuple[Model, TappedModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a processor that saturates gets, on any: the proof is the same."""
    plain = check_parity(*quantised)
    monkeypatch.setattr("fsagn_onnx.model.inference_session.sums_saturate", lambda: True)
    moved = check_parity(*quantised)
    assert (moved.errors, moved.drift) == (plain.errors, plain.drift)
