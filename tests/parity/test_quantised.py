"""Quantised and half-precision models, and onnxruntime's own operators: what they become, and that it is right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.conversion import ParityError, TappedModule, check_parity, convert
from fsagn_onnx.conversion.ops.quantise import Rounding
from fsagn_onnx.conversion.parity import ROUNDED_TOLERANCE, TOLERANCE, relative_error
from fsagn_onnx.errors import ModelError
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.model.preparation import prepared

from . import networks


def array(kind: type, *shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    drawn = np.random.default_rng(len(shape) + sum(shape)).uniform(low, high, shape)
    return np.rint(drawn).astype(kind) if np.issubdtype(kind, np.integer) else drawn.astype(kind)


U8, I8, F32 = np.uint8, np.int8, np.float32
SCALES: dict[str, np.ndarray] = {
    "s": F32(0.02), "t": F32(0.04), "z": U8(120), "zs": I8(-3), "o": U8(0),
    "wq": array(I8, 4, 3, 3, 3, low=-127, high=127), "ws": array(F32, 4, low=0.004, high=0.02), "wz": np.zeros(4, I8),
    "wu": array(U8, 4, 3, 3, 3, low=0, high=255), "wuz": U8(131), "wus": F32(0.01),
    "bias": array(np.int32, 4, low=-900, high=900),
    "mq": array(I8, 8, 5, low=-127, high=127), "ms": array(F32, 5, low=0.004, high=0.02), "mz": np.zeros(5, I8),
    "axis_scale": array(F32, 3, low=0.01, high=0.05), "axis_zero": array(U8, 3, low=90, high=140),
    "gb": array(np.int32, 5, low=-900, high=900), "g8": array(I8, 8, 5, low=-127, high=127), "gs": F32(0.01),
    "gz": I8(0),
    "flat": np.array([-1, 8], np.int64), "gamma": array(F32, 8, low=0.5, high=2), "beta": array(F32, 8),
    "fb": array(F32, 8), "kernel": array(F32, 4, 3, 3, 3), "kb": array(F32, 4), "mat": array(F32, 8, 8),
    "factors": np.array([1, 1, 2, 2], F32),
    "fmat": array(F32, 5, 8), "half": F32(0.5), "cb": array(F32, 5),
}  # fmt: skip

STANDARD = {
    "quantise": "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
    "quantise to int8": "q = QuantizeLinear(x, s, zs) y = DequantizeLinear(q, s, zs)",
    "quantise without zero point": "q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)",
    "quantise per channel": """
        q = QuantizeLinear<axis = 1>(x, axis_scale, axis_zero)
        y = DequantizeLinear<axis = 1>(q, axis_scale, axis_zero)""",
    "conv": """
        q = QuantizeLinear(x, s, z) c = QLinearConv<pads = [1, 1, 1, 1]>(q, s, z, wq, ws, wz, t, z, bias)
        y = DequantizeLinear(c, t, z)""",
    "conv of unsigned weights": """
        q = QuantizeLinear(x, s, z) c = QLinearConv<pads = [0, 1, 1, 0], strides = [2, 1]>(q, s, z, wu, wus, wuz, t, z)
        y = DequantizeLinear(c, t, z)""",
    "matmul": """
        f = Reshape(x, flat) q = QuantizeLinear(f, s, z) c = QLinearMatMul(q, s, z, mq, ms, mz, t, z)
        y = DequantizeLinear(c, t, z)""",
    "dynamic conv": """
        q, qs, qz = DynamicQuantizeLinear(x) c = ConvInteger<pads = [1, 1, 1, 1]>(q, wu, qz, wuz)
        f = Cast<to = 1>(c) u = Mul(qs, wus) y = Mul(f, u)""",
    "dynamic matmul": """
        r = Reshape(x, flat) q, qs, qz = DynamicQuantizeLinear(r) c = MatMulInteger(q, mq, qz)
        f = Cast<to = 1>(c) u = Mul(qs, ms) y = Mul(f, u)""",
    "resized integers": """
        q = QuantizeLinear(x, s, z) p = Resize<mode = "linear">(q, , factors) y = DequantizeLinear(p, s, z)""",
    "resized signed integers": """
        q = QuantizeLinear(x, s, zs) p = Resize<mode = "linear">(q, , factors) y = DequantizeLinear(p, s, zs)""",
    "pooled integers": """
        q = QuantizeLinear(x, s, z) p = MaxPool<kernel_shape = [2, 2]>(q) y = DequantizeLinear(p, s, z)""",
}

Q = "r = Reshape(x, flat) q = QuantizeLinear(r, s, z) p = QuantizeLinear(r, t, z)"
CONTRIBUTED = {
    "FusedConv": 'y = com.microsoft.FusedConv<activation = "Relu", pads = [1, 1, 1, 1]>(x, kernel, kb)',
    "FusedConv clipped": """
        y = com.microsoft.FusedConv<activation = "Clip", activation_params = [0.0, 0.5]>(x, kernel, kb)""",
    "FusedConv leaky and added": """
        a = Conv(x, kernel, kb) y = com.microsoft.FusedConv<activation = "LeakyRelu", activation_params = [0.2]>(
            x, kernel, kb, a)""",
    "FusedConv by HardSigmoid": """
        y = com.microsoft.FusedConv<activation = "HardSigmoid", activation_params = [0.2, 0.4]>(x, kernel)""",
    "FusedGemm": 'r = Reshape(x, flat) y = com.microsoft.FusedGemm<activation = "Relu", transB = 1>(r, fmat, cb)',
    "FusedMatMul": "r = Reshape(x, flat) y = com.microsoft.FusedMatMul<transB = 1, alpha = 0.3>(r, mat)",
    "FusedMatMul of A'": "r = Reshape(x, flat) y = com.microsoft.FusedMatMul<transA = 1>(r, r)",
    "Gelu": "y = com.microsoft.Gelu(x)",
    "QuickGelu": "y = com.microsoft.QuickGelu<alpha = 1.3>(x)",
    "FastGelu": "r = Reshape(x, flat) y = com.microsoft.FastGelu(r, fb)",
    "BiasGelu": "r = Reshape(x, flat) y = com.microsoft.BiasGelu(r, fb)",
    "LayerNormalization": "r = Reshape(x, flat) y = LayerNormalization<axis = -1, epsilon = 0.01>(r, gamma, beta)",
    "SimplifiedLayerNormalization": "r = Reshape(x, flat) y = SimplifiedLayerNormalization<axis = -1>(r, gamma)",
    "QLinearAdd": f"{Q} a = com.microsoft.QLinearAdd(q, s, z, p, t, z, t, o) y = DequantizeLinear(a, t, o)",
    "QLinearMul": f"{Q} a = com.microsoft.QLinearMul(q, s, z, p, t, z, s, z) y = DequantizeLinear(a, s, z)",
    "QLinearSigmoid": f"{Q} a = com.microsoft.QLinearSigmoid(q, s, z, s, o) y = DequantizeLinear(a, s, o)",
    "QLinearLeakyRelu": f"""
        {Q} a = com.microsoft.QLinearLeakyRelu<alpha = 0.1>(q, s, z, s, z) y = DequantizeLinear(a, s, z)""",
    "QLinearSoftmax": f"""
        {Q} a = com.microsoft.QLinearSoftmax<axis = -1, opset = 13>(q, t, z, s, o) y = DequantizeLinear(a, s, o)""",
    "QLinearConcat": f"""
        {Q} a = com.microsoft.QLinearConcat<axis = 1>(t, z, q, s, z, p, t, z) y = DequantizeLinear(a, t, z)""",
    "QLinearGlobalAveragePool": """
        q = QuantizeLinear(x, s, z) a = com.microsoft.QLinearGlobalAveragePool(q, s, z, s, z)
        y = DequantizeLinear(a, s, z)""",
    "QLinearAveragePool": """
        q = QuantizeLinear(x, s, z)
        a = com.microsoft.QLinearAveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(
            q, s, z, s, z)
        y = DequantizeLinear(a, s, z)""",
    "QLinearConv": """
        q = QuantizeLinear(x, s, z) c = com.microsoft.QLinearConv<pads = [1, 1, 1, 1]>(q, s, z, wq, ws, wz, t, z, bias)
        y = DequantizeLinear(c, t, z)""",
    "QLinearConv, channels last": """
        q = QuantizeLinear(x, s, z) h = Transpose<perm = [0, 2, 3, 1]>(q)
        c = com.microsoft.QLinearConv<channels_last = 1, strides = [2, 1]>(h, s, z, wq, ws, wz, t, z, bias)
        n = Transpose<perm = [0, 3, 1, 2]>(c) y = DequantizeLinear(n, t, z)""",
    "QLinearGlobalAveragePool, channels last": """
        q = QuantizeLinear(x, s, z) h = Transpose<perm = [0, 2, 3, 1]>(q)
        a = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(h, s, z, s, z)
        n = Transpose<perm = [0, 3, 1, 2]>(a) y = DequantizeLinear(n, s, z)""",
    "QGemm": f"{Q} a = com.microsoft.QGemm(q, s, z, g8, gs, gz, gb, t, z) y = DequantizeLinear(a, t, z)",
    "QLinearWhere": f"""
        {Q} m = Less(r, half) a = com.microsoft.QLinearWhere(m, q, s, z, p, t, z, t, o)
        y = DequantizeLinear(a, t, o)""",
    "MatMulIntegerToFloat": """
        r = Reshape(x, flat) q, qs, qz = DynamicQuantizeLinear(r)
        y = com.microsoft.MatMulIntegerToFloat(q, mq, qs, ms, qz, mz, cb)""",
    "DynamicQuantizeMatMul": """
        r = Reshape(x, flat) y = com.microsoft.DynamicQuantizeMatMul(r, mq, ms, mz, cb)""",
    "SkipLayerNormalization": """
        r = Reshape(x, flat) t2 = Mul(r, r)
        y = com.microsoft.SkipLayerNormalization<epsilon = 0.01>(r, t2, gamma, beta, fb)""",
    "SkipSimplifiedLayerNormalization": """
        r = Reshape(x, flat) t2 = Mul(r, r)
        y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.01>(r, t2, gamma)""",
    "QGemm to float": f"{Q} y = com.microsoft.QGemm(q, s, z, g8, gs, gz, gb)",
}


def written(text: str, opset: int = 13) -> onnx.ModelProto:
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{header} g (float[N, 3, 8, 8] x) => (y) {{ {text} }}")
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in SCALES.items() if k in read)
    return model


def steps(text: str) -> float:
    """How much one rounding may move the result: the larger of the two steps; nothing where all is float."""
    return 0.0401 if "Dequantize" in text else 0.0


@pytest.mark.parametrize("name", STANDARD)
def test_integer_op_agrees_up_to_rounding_and_is_differentiable(name, draw, by_torch, by_onnxruntime):
    model = written(STANDARD[name])
    x = draw(2, 3, 8, 8)
    module = by_torch(model, N=2)
    (expected,) = by_onnxruntime(model, x)
    made = module(torch.from_numpy(x))["y"].detach().numpy()
    gap = np.abs(made - expected)
    assert gap.max() <= max(steps(STANDARD[name]), 1e-4)
    assert (gap > 1e-4).mean() < 0.02  # ties and near ties only
    plain = torch.from_numpy(x).double().requires_grad_()
    module = module.double()
    module(plain)["y"].sum().backward()
    straight = plain.grad.clone()
    assert straight.abs().max() > 0
    for node in module.nodes:
        if isinstance(node, Rounding):
            node.rounds = False
    plain.grad = None
    module(plain)["y"].sum().backward()
    alike = torch.isclose(straight, plain.grad)  # the gradient of what is rounded, with rounding's taken as 1
    assert alike.double().mean() > 0.9  # but for what rounding moves over the end of the range, or makes equal
    if "dynamic" not in name:  # there the range, which moves with x, is held fixed
        inside = (0.05 * torch.from_numpy(x).double()).requires_grad_()
        assert torch.autograd.gradcheck(lambda v: module(v)["y"], inside, fast_mode=True)


@pytest.mark.parametrize("name", CONTRIBUTED)
def test_onnxruntimes_own_op_written_in_standard_ones(name, draw, by_torch, by_onnxruntime):
    opset = 11 if "LayerNorm" in name else 13
    model = written(CONTRIBUTED[name], opset)
    before = model.SerializeToString(deterministic=True)
    made = prepared(model)
    assert model.SerializeToString(deterministic=True) == before
    assert not any(node.domain for node in made.graph.node)
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    made.graph.output[0].type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(made)
    x = draw(2, 3, 8, 8)
    (expected,), (ours,) = by_onnxruntime(model, x), by_onnxruntime(made, x)
    theirs = by_torch(made, N=2)(torch.from_numpy(x))["y"].detach().numpy()
    for result in (ours, theirs):
        assert np.abs(result - expected).max() <= max(steps(CONTRIBUTED[name]), 2e-5)
        assert (np.abs(result - expected) > 2e-5).mean() <= 0.05


def test_a_contributed_op_without_an_entry_is_told(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(written("c = Conv(x, kernel) d = com.microsoft.Inverse(c) y = Conv(d, kernel)"), path)
    model = load_model(path)
    assert {node.domain for node in model.proto.graph.node} == {"", "com.microsoft"}


def test_a_malformed_contributed_node_is_told(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(written("y = com.microsoft.QLinearConcat(x)"), path)
    with pytest.raises(ModelError, match=r"QLinearConcat.*lacks an input or an attribute: 'axis'"):
        load_model(path)


# Whole models

Change = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Callable[[str, str], Path]:
    """(network, change) -> the file of the classic exporter after the change; made once."""
    from benchmarks.coverage.transforms import TRANSFORMS

    folder = tmp_path_factory.mktemp("changed")

    def get(name: str, change: str) -> Path:
        plain, path = folder / f"{name}.onnx", folder / f"{name}-{change}.onnx"
        if not plain.is_file():
            torch.manual_seed(0)
            network = networks.spread_norms(networks.NETWORKS[name]())
            networks.export(network, plain, dynamo=False, opset=17)
        if not path.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                TRANSFORMS[change](plain, path)
        return path

    return get


def loaded(path: Path) -> tuple[Model, TappedModule]:
    model = load_model(path)
    return model, convert(model, [layer.value for layer in model.layers], check=False)


@pytest.mark.parametrize("change", ["int8-qdq", "int8-qoperator", "int8-dynamic", "ort-extended", "fp16", "bf16"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_layer_of_a_changed_network_agrees(changed, name, change):
    model, module = loaded(changed(name, change))
    parity = check_parity(model, module)
    assert parity.max_relative_error <= (ROUNDED_TOLERANCE if change == "fp16" else TOLERANCE)
    if change.startswith("int8"):
        assert "up to the rounding" in parity.reason
        assert parity.drift < 0.5
    assert all(model.proto.graph.node[i].domain == "" for i in range(len(model.proto.graph.node)))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    last = module(x.half() if change == "fp16" else x)[module.taps[-1]]
    assert last.dtype == torch.float32
    last.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_a_quantised_conv_is_tapped_as_a_float_map(changed):
    model, module = loaded(changed("gated", "int8-qoperator"))
    assert {layer.op.split("+")[0] for layer in model.layers} == {"QLinearConv"}
    made = module(torch.zeros(1, 3, 32, 32))
    assert all(value.is_floating_point() for value in made.values())
    float_model = load_model(changed("gated", "ort-basic"))
    assert len(model.layers) == len(float_model.layers)


def wrong_scale(module: TappedModule) -> None:
    index = next(i for i, step in enumerate(module.steps) if step.op == "DequantizeLinear" and i > 2)
    inner = module.nodes[index].forward
    module.nodes[index].forward = lambda x, scale, *rest: inner(x, 1.01 * scale, *rest)  # type: ignore[method-assign]


def wrong_zero(module: TappedModule) -> None:
    index = next(i for i, step in enumerate(module.steps) if step.op == "QuantizeLinear" and i > 2)
    inner = module.nodes[index].forward
    module.nodes[index].forward = lambda x, scale, zero: inner(x, scale, zero + 1)  # type: ignore[method-assign]


def truncated(module: TappedModule) -> None:
    """Rounded down: a number before rounding that is half a step off."""
    index = next(i for i, step in enumerate(module.steps) if step.op == "QuantizeLinear" and i > 2)
    inner = module.nodes[index].forward
    module.nodes[index].forward = lambda x, scale, *rest: inner(x - scale / 2, scale, *rest)  # type: ignore[method-assign]


def wrong_weight(module: TappedModule) -> None:
    weighted = [
        node for node in module.nodes if hasattr(node, "weight") and isinstance(node.weight, torch.nn.Parameter)
    ]
    weighted[-1].weight.data = weighted[-1].weight.data.flip(2)


@pytest.mark.parametrize("fault", [wrong_scale, wrong_zero, truncated, wrong_weight])
def test_faults_of_a_quantised_model_are_caught(changed, fault):
    model, module = loaded(changed("pyramid", "int8-qdq"))
    fault(module)
    with pytest.raises(ParityError, match="computes something else in torch than in onnxruntime"):
        check_parity(model, module)


def test_images_that_get_mixed_in_a_quantised_model_are_caught(changed):
    """Node by node, image by image, nothing is wrong; and the mixture is far below what roundings add up to."""
    model, module = loaded(changed("pyramid", "int8-qdq"))
    index = next(i for i, step in enumerate(module.steps) if step.op == "Conv" and i > 2)
    inner = module.nodes[index].forward
    module.nodes[index].forward = lambda x, *rest: inner(x + 0.02 * (x.mean(0, True) - x), *rest)  # type: ignore[method-assign]
    with pytest.raises(ParityError, match="although each number near a rounding threshold falls to its side"):
        check_parity(model, module)


def test_dynamic_quantisation_at_a_batch_of_one_takes_the_range_of_each_image(changed):
    _, module = loaded(changed("pyramid", "int8-dynamic"))
    assert module.chunk == 1
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0]).reshape(
        2, 1, 1, 1
    )
    tap = module.taps[-1]
    assert torch.equal(module(x)[tap][:1], module(x[:1])[tap])


@pytest.mark.parametrize("change", ["fp16", "bf16", "ort-extended"])
def test_faults_of_a_prepared_model_are_caught(changed, change):
    model, module = loaded(changed("pyramid", change))
    wrong_weight(module)
    with pytest.raises(ParityError, match="differ first at node"):
        check_parity(model, module)


def test_a_wrong_preparation_is_caught(changed, monkeypatch):
    """A constant of the float32 graph that is not the file's."""
    from fsagn_onnx.model import half

    right = half._widened

    def wrong(tensor: onnx.TensorProto) -> None:
        right(tensor)
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(1.05 * numpy_helper.to_array(tensor), tensor.name))

    monkeypatch.setattr(half, "_widened", wrong)
    model, module = loaded(changed("pyramid", "fp16"))
    with pytest.raises(ParityError, match="differs from the file's own"):
        check_parity(model, module)


def test_half_inputs_and_outputs_stay_half(changed):
    model = load_model(changed("gated", "fp16"))
    session = ort.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [port.type for port in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float16)"] * 2
    theirs = ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float16)
    name = session.get_inputs()[0].name
    assert relative_error(session.run(None, {name: x})[0], theirs.run(None, {name: x})[0]) < ROUNDED_TOLERANCE


def test_bfloat16_becomes_float32(changed):
    model = load_model(changed("gated", "bf16"))
    assert model.proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {helper.tensor_dtype_to_string(t.data_type) for t in model.proto.graph.initializer} <= {
        "TensorProto.FLOAT", "TensorProto.INT64",
    }  # fmt: skip
