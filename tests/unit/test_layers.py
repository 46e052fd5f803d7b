"""The table of conv layers: taps, shapes, strides, receptive fields, the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import LayerError
from fsagn_onnx.model import Layer, Model, load_model

Nodes = list[onnx.NodeProto]


class Graph:
    """A graph under construction; `conv` and `node` return the name of what they make."""

    def __init__(self, *shape: int | str) -> None:
        self.nodes: Nodes = []
        self.tensors: list[onnx.TensorProto] = []
        self.shape = shape or (1, 3, 32, 32)
        self.extra_inputs: list[onnx.ValueInfoProto] = []

    def tensor(self, values: object, dtype: type = np.float32) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def node(self, op: str, *inputs: str, out: str = "", domain: str = "", **attributes: object) -> str:
        out = out or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], domain=domain, **attributes))
        return out

    def conv(self, x: str = "x", channels: int = 4, inputs: int = 3, kernel: int = 3, **attributes: object) -> str:
        weight = np.random.default_rng(len(self.nodes)).normal(size=(channels, inputs, kernel, kernel))
        return self.node("Conv", x, self.tensor(weight), **attributes)

    def bn(self, x: str, channels: int = 4) -> str:
        return self.node("BatchNormalization", x, *(self.tensor(np.ones(channels)) for _ in range(4)))

    def proto(self, *outputs: str, opset: int = 20) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape), *self.extra_inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.tensors,
        )
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=9)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Model]:
    def loaded(graph: Graph, *outputs: str, opset: int = 20) -> Model:
        onnx.save(graph.proto(*outputs, opset=opset), tmp_path / "net.onnx")
        return load_model(tmp_path / "net.onnx")

    return loaded


def single(model: Model) -> Layer:
    (layer,) = model.layers
    return layer


# Activations that are one node


@pytest.mark.parametrize(
    "op",
    [
        "Relu",
        "LeakyRelu",
        "HardSwish",
        "Sigmoid",
        "HardSigmoid",
        "Gelu",
        "Elu",
        "Selu",
        "Celu",
        "Mish",
        "Softplus",
        "Tanh",
    ],
)
def test_one_node(op: str, load: Callable[..., Model]) -> None:
    graph = Graph()
    graph.node("GlobalAveragePool", graph.node(op, graph.bn(graph.conv()), out="tap"), out="y")
    layer = single(load(graph, "y"))
    assert (layer.value, layer.op) == ("tap", f"Conv+BatchNormalization+{op}")
    assert layer.conv == "conv0"
    assert (layer.channels, layer.shape, layer.stride, layer.receptive_field) == (4, (4, 30, 30), 1, 3)


def test_clip_and_prelu(load: Callable[..., Model]) -> None:
    graph = Graph()
    clipped = graph.node("Clip", graph.conv(), graph.tensor(0.0), graph.tensor(6.0), out="clipped")
    slope = graph.tensor(np.full((4, 1, 1), 0.1))
    graph.node("PRelu", graph.conv(clipped, inputs=4), slope, out="sloped")
    model = load(graph, "sloped")
    assert [(layer.value, layer.op) for layer in model.layers] == [
        ("clipped", "Conv+Clip"),
        ("sloped", "Conv+PRelu"),
    ]


# Activations that are patterns: (nodes, name of the pattern)


def swish(g: Graph, v: str) -> str:
    return g.node("Mul", g.node("Sigmoid", v), v)


def hard_swish(g: Graph, v: str) -> str:
    return g.node("Mul", v, g.node("HardSigmoid", v, alpha=1 / 6, beta=0.5))


def hard_swish_by_clip(g: Graph, v: str) -> str:
    gate = g.node("Clip", g.node("Add", v, g.tensor(3.0)), g.tensor(0.0), g.tensor(6.0))
    return g.node("Div", g.node("Mul", v, gate), g.tensor(6.0))


def hard_swish_by_clip_and_division_first(g: Graph, v: str) -> str:
    gate = g.node("Clip", g.node("Add", v, g.tensor(3.0)), g.tensor(0.0), g.tensor(6.0))
    return g.node("Mul", v, g.node("Div", gate, g.tensor(6.0)))


def mish(g: Graph, v: str) -> str:
    return g.node("Mul", v, g.node("Tanh", g.node("Softplus", v)))


def gelu(g: Graph, v: str) -> str:
    erf = g.node("Erf", g.node("Div", v, g.tensor(math.sqrt(2))))
    return g.node("Mul", g.node("Mul", v, g.node("Add", erf, g.tensor(1.0))), g.tensor(0.5))


def gelu_halved_first(g: Graph, v: str) -> str:
    erf = g.node("Erf", g.node("Mul", v, g.tensor(math.sqrt(0.5))))
    return g.node("Mul", g.node("Mul", g.tensor(0.5), v), g.node("Add", g.tensor(1.0), erf))


def gelu_by_tanh(g: Graph, v: str) -> str:
    cubed = g.node("Mul", g.node("Pow", v, g.tensor(3.0)), g.tensor(0.044715))
    inner = g.node("Tanh", g.node("Mul", g.node("Add", v, cubed), g.tensor(math.sqrt(2 / math.pi))))
    return g.node("Mul", g.node("Mul", v, g.tensor(0.5)), g.node("Add", inner, g.tensor(1.0)))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (swish, "Swish"),
        (hard_swish, "HardSwish"),
        (hard_swish_by_clip, "HardSwish"),
        (hard_swish_by_clip_and_division_first, "HardSwish"),
        (mish, "Mish"),
        (gelu, "Gelu"),
        (gelu_halved_first, "Gelu"),
        (gelu_by_tanh, "Gelu"),
    ],
)
@pytest.mark.parametrize("norm", [False, True])
def test_patterns(pattern: Callable[[Graph, str], str], name: str, norm: bool, load: Callable[..., Model]) -> None:
    graph = Graph()
    conv = graph.conv()
    tap = pattern(graph, graph.bn(conv) if norm else conv)
    graph.node("GlobalAveragePool", tap, out="y")
    layer = single(load(graph, "y"))
    assert layer.value == tap
    assert layer.op == ("Conv+BatchNormalization+" if norm else "Conv+") + name


def test_constant_nodes_and_computed_constants(load: Callable[..., Model]) -> None:
    graph = Graph()
    scale = graph.node("Constant", value=numpy_helper.from_array(np.full(4, 2, np.float32)))
    spread = graph.node("Unsqueeze", scale, graph.tensor([1, 2], np.int64))
    shifted = graph.node("Add", graph.node("Mul", graph.conv(), spread), graph.tensor(np.ones((1, 4, 1, 1))))
    graph.node("Relu", shifted, out="tap")
    graph.node("GlobalAveragePool", "tap", out="y")
    layer = single(load(graph, "y"))
    assert (layer.value, layer.op) == ("tap", "Conv+Mul+Add+Relu")


def test_identity_and_dropout_do_not_count(load: Callable[..., Model]) -> None:
    graph = Graph()
    relu = graph.node("Relu", graph.node("Identity", graph.conv()))
    after = graph.node("Dropout", graph.conv(relu, inputs=4))
    graph.node("GlobalAveragePool", after, out="y")
    assert [(layer.value, layer.op) for layer in load(graph, "y").layers] == [
        (relu, "Conv+Relu"),
        ("conv3", "Conv"),
    ]


def test_fused_conv_of_onnxruntime(load: Callable[..., Model]) -> None:
    graph = Graph()
    weights = graph.tensor(np.ones((4, 3, 3, 3))), graph.tensor(np.ones(4))
    fused = graph.node("FusedConv", "x", *weights, domain="com.microsoft", activation="Relu", strides=[2, 2])
    graph.node("GlobalAveragePool", graph.node("Relu", fused), out="y")
    layer = single(load(graph, "y"))
    assert (layer.value, layer.op, layer.shape, layer.receptive_field) == (fused, "Conv+Relu", (4, 15, 15), 3)


# Where the walk must stop


def test_stops_at_a_second_reader(load: Callable[..., Model]) -> None:
    graph = Graph()
    conv = graph.conv()
    graph.node("Add", graph.node("Relu", conv), graph.node("MaxPool", conv, kernel_shape=[1, 1]), out="y")
    assert single(load(graph, "y")).value == conv


def test_stops_at_an_output(load: Callable[..., Model]) -> None:
    graph = Graph()
    conv = graph.conv()
    graph.node("Relu", conv, out="y")
    assert single(load(graph, conv, "y")).value == conv


def test_a_pattern_whose_inside_is_read_is_none(load: Callable[..., Model]) -> None:
    graph = Graph()
    conv = graph.conv()
    gate = graph.node("Sigmoid", conv)
    graph.node("Add", graph.node("Mul", gate, conv), graph.node("MaxPool", gate, kernel_shape=[1, 1]), out="y")
    assert single(load(graph, "y")).value == conv


def test_stops_at_a_residual_sum(load: Callable[..., Model]) -> None:
    graph = Graph()
    relu = graph.node("Relu", graph.conv())
    norm = graph.bn(graph.conv(relu, inputs=4, pads=[1] * 4))
    graph.node("Relu", graph.node("Add", norm, relu), out="y")
    first, second = load(graph, "y").layers
    assert (first.value, first.op) == (relu, "Conv+Relu")
    assert (second.value, second.op) == (norm, "Conv+BatchNormalization")


@pytest.mark.parametrize("shape", [(30,), (30, 30), (1, 1, 30), (4, 30, 1)])
def test_stops_at_a_constant_that_differs_over_the_map(shape: Sequence[int], load: Callable[..., Model]) -> None:
    graph = Graph()
    conv = graph.conv()
    graph.node("Relu", graph.node("Mul", conv, graph.tensor(np.ones(shape))), out="y")
    assert single(load(graph, "y")).value == conv


def test_stops_after_one_activation(load: Callable[..., Model]) -> None:
    graph = Graph()
    relu = graph.node("Relu", graph.conv())
    graph.node("Tanh", graph.bn(graph.node("Mul", relu, graph.tensor(2.0))), out="y")
    assert single(load(graph, "y")).value == relu


def test_norm_with_computed_parameters_is_not_folded(load: Callable[..., Model]) -> None:
    graph = Graph()
    conv = graph.conv()
    gain = graph.node("ReduceMax", conv, graph.tensor([0, 2, 3], np.int64), keepdims=0)
    graph.node("InstanceNormalization", conv, gain, graph.tensor(np.zeros(4)), out="y")
    assert single(load(graph, "y")).value == conv


def test_taps_are_right_in_onnxruntime(load: Callable[..., Model]) -> None:
    """The tapped value is what the formula gives, computed from the conv's own output."""
    graph = Graph()
    conv = graph.conv()
    tap = gelu(graph, conv)
    graph.node("GlobalAveragePool", tap, out="y")
    proto = load(graph, "y").proto
    both = onnx.ModelProto.FromString(proto.SerializeToString())
    both.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (conv, tap))
    session = onnxruntime.InferenceSession(both.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    _, before, after = session.run(None, {"x": image})
    expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in before.ravel().tolist()]
    assert np.allclose(after.ravel(), expected, atol=1e-5)


# Shapes, strides, receptive fields


def chain(graph: Graph, *steps: tuple[int, int]) -> str:
    """Convs of (kernel, stride), padded to keep the grid."""
    at, inputs = "x", 3
    for kernel, stride in steps:
        at = graph.conv(at, inputs=inputs, kernel=kernel, strides=[stride] * 2, pads=[kernel // 2] * 4)
        inputs = 4
    return at


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), ("N", 3, 64, 64), ("N", 3, "h", "w")])
def test_shapes_and_fields(shape: tuple[int | str, ...], load: Callable[..., Model]) -> None:
    graph = Graph(*shape)
    chain(graph, (7, 2), (3, 2), (1, 1), (3, 2))
    size = 224 if "h" in shape else 64
    found = [(layer.shape, layer.stride, layer.receptive_field) for layer in load(graph, "conv3").layers]
    assert found == [
        ((4, size // 2, size // 2), 2, 7),
        ((4, size // 4, size // 4), 4, 11),
        ((4, size // 4, size // 4), 4, 11),
        ((4, size // 8, size // 8), 8, 19),
    ]


def test_dilation_pool_resize_and_uneven_kernels(load: Callable[..., Model]) -> None:
    graph = Graph(1, 3, 64, 64)
    pooled = graph.node("MaxPool", graph.conv(pads=[1] * 4), kernel_shape=[2, 2], strides=[2, 2])
    dilated = graph.conv(pooled, inputs=4, dilations=[2, 2], pads=[2] * 4)
    weight = graph.tensor(np.ones((4, 4, 1, 7)))
    wide = graph.node("Conv", dilated, weight, pads=[0, 3, 0, 3])
    scales = graph.tensor([1, 1, 2, 2])
    grown = graph.node("Resize", wide, "", scales, mode="nearest")
    graph.conv(grown, inputs=4, pads=[1] * 4)
    layers = load(graph, graph.nodes[-1].output[0]).layers
    # 3; pool 3 + 1 = 4, jump 2; dilated 4 + 4 * 2 = 12; 1 x 7 12 + 6 * 2 = 24; resize + 2, jump 1; 26 + 2.
    assert [layer.receptive_field for layer in layers] == [3, 12, 24, 28]
    assert [layer.stride for layer in layers] == [1, 2, 2, 1]


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (4, 2), (5, 2)])
def test_field_behind_a_transposed_conv_by_brute_force(kernel: int, stride: int, load: Callable[..., Model]) -> None:
    graph = Graph(1, 3, 32, 32)
    low = graph.conv(graph.conv(strides=[2, 2], pads=[1] * 4), inputs=4, strides=[2, 2], pads=[1] * 4)
    weight = graph.tensor(np.ones((4, 4, kernel, kernel)))
    graph.conv(graph.node("ConvTranspose", low, weight, strides=[stride] * 2), inputs=4, kernel=1)
    model = load(graph, graph.nodes[-1].output[0])
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    before = session.run(None, {"x": image})[0][0]
    reached = np.zeros(before.shape[2], int)
    for column in range(32):
        changed = image.copy()
        changed[..., column] += 10
        reached += (session.run(None, {"x": changed})[0][0] != before).any(axis=(0, 1))
    assert reached.max() == model.layers[-1].receptive_field


def test_field_of_a_random_chain_by_brute_force(load: Callable[..., Model]) -> None:
    """Pixels whose change changes the middle cell."""
    graph = Graph(1, 3, 48, 48)
    top = chain(graph, (3, 2), (5, 1), (3, 2))
    model = load(graph, top)
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, 3, 48, 48)).astype(np.float32)
    before = session.run(None, {"x": image})[0][0, :, 6, 6]
    reached = []
    for column in range(48):
        changed = image.copy()
        changed[..., column] += 10
        reached.append(bool((session.run(None, {"x": changed})[0][0, :, 6, 6] != before).any()))
    assert sum(reached) == model.layers[-1].receptive_field == 15


def test_nhwc(load: Callable[..., Model]) -> None:
    graph = Graph("N", 32, 48, 3)
    turned = graph.node("Transpose", "x", perm=[0, 3, 1, 2])
    conv = graph.conv(turned, strides=[2, 2], pads=[1] * 4)
    back = graph.node("Transpose", graph.node("Relu", conv), perm=[0, 2, 3, 1])
    mixed = graph.node("Relu", graph.node("MatMul", back, graph.tensor(np.ones((4, 4)))))
    again = graph.conv(graph.node("Transpose", mixed, perm=[0, 3, 1, 2]), inputs=4, pads=[1] * 4)
    model = load(graph, again)
    assert (model.input_spec.layout, model.input_spec.size) == ("NHWC", (32, 48))
    assert [(layer.shape, layer.stride, layer.receptive_field) for layer in model.layers] == [
        ((4, 16, 24), 2, 3),
        ((4, 16, 24), 2, 7),
    ]


def test_channel_shuffle_by_computed_shapes(load: Callable[..., Model]) -> None:
    """As torch exports it: batch, channels and size read off the tensor, then divided and joined again."""
    graph = Graph("N", 3, "h", "w")
    x = graph.node("Relu", graph.conv(pads=[1] * 4))
    for _ in range(2):
        shape = graph.node("Shape", x)
        batch, channels, height, width = (
            graph.node(
                "Unsqueeze",
                graph.node("Gather", shape, graph.tensor(axis, np.int64)),
                graph.tensor([0], np.int64),
            )
            for axis in range(4)
        )
        half = graph.node("Div", channels, graph.tensor([2], np.int64))
        groups = graph.tensor([2], np.int64)
        split = graph.node("Reshape", x, graph.node("Concat", batch, groups, half, height, width, axis=0))
        turned = graph.node("Transpose", split, perm=[0, 2, 1, 3, 4])
        joined = graph.node("Concat", batch, graph.tensor([-1], np.int64), height, width, axis=0)
        x = graph.node("Relu", graph.conv(graph.node("Reshape", turned, joined), inputs=4, pads=[1] * 4))
    layers = load(graph, x).layers
    assert [layer.shape for layer in layers] == [(4, 224, 224)] * 3
    assert [layer.receptive_field for layer in layers] == [3, 5, 7]


# The default


def squeeze_excite(graph: Graph, x: str) -> str:
    pooled = graph.node("GlobalAveragePool", x)
    squeezed = graph.node("Relu", graph.conv(pooled, inputs=4, kernel=1))
    return graph.node("Mul", x, graph.node("Sigmoid", graph.conv(squeezed, inputs=4, kernel=1)))


def test_squeeze_excite_is_listed_but_no_default(load: Callable[..., Model]) -> None:
    graph = Graph()
    gated = squeeze_excite(graph, graph.node("Relu", graph.conv(strides=[2, 2], pads=[1] * 4), out="tap"))
    model = load(graph, gated)
    tap, reduce, expand = model.layers
    assert tap.default
    assert tap.reason == (
        "last conv layer with a spatial map (16x16); 4 filters; "
        "2 later conv layers with a smaller map or no way to an output"
    )
    assert reduce.op == "Conv+Relu"
    assert expand.op == "Conv+Sigmoid"
    for layer in (reduce, expand):
        assert (layer.shape, layer.default, layer.reason) == ((4, 1, 1), False, "no spatial map (1x1)")
        assert layer.receptive_field is None
    assert model.default_layer is tap


def test_the_field_behind_a_gate_is_that_of_the_path(load: Callable[..., Model]) -> None:
    graph = Graph()
    last = graph.conv(squeeze_excite(graph, graph.conv(pads=[1] * 4)), inputs=4)
    assert load(graph, last).layers[-1].receptive_field == 5


def test_conv_without_a_way_to_an_output(load: Callable[..., Model]) -> None:
    graph = Graph()
    first = graph.conv()
    graph.conv(first, inputs=4)
    graph.node("GlobalAveragePool", first, out="y")
    model = load(graph, "y")
    assert model.default_layer.value == first
    assert model.layers[1].reason == "leads to no output"


def test_small_maps_only(load: Callable[..., Model]) -> None:
    graph = Graph(1, 3, 4, 4)
    chain(graph, (3, 2), (3, 2))
    assert load(graph, "conv1").default_layer.reason.startswith("largest spatial map of any conv layer (2x2)")


def test_no_spatial_map_at_all(load: Callable[..., Model]) -> None:
    graph = Graph()
    graph.conv(graph.node("GlobalAveragePool", "x"), kernel=1)
    model = load(graph, "conv1")
    assert len(model.layers) == 1
    with pytest.raises(
        LayerError, match=r"no conv layer of net\.onnx has a spatial map .*Run 'fsagn-onnx inspect net\.onnx'"
    ):
        model.layer()


def test_no_conv_layers(load: Callable[..., Model]) -> None:
    graph = Graph()
    graph.node("ConvTranspose", "x", graph.tensor(np.ones((3, 4, 2, 2))), out="y")
    with pytest.raises(LayerError, match=r"net\.onnx has no layer .* but found 1 ConvTranspose"):
        load(graph, "y").layer()
    graph = Graph()
    graph.node("Relu", "x", out="y")
    with pytest.raises(LayerError, match="but found no convolution at all"):
        load(graph, "y").layer()


def test_convs_of_other_inputs_are_left_out(load: Callable[..., Model]) -> None:
    graph = Graph()
    graph.extra_inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 32, 32]))
    mixed = graph.node("Add", graph.conv(), graph.conv("z"))
    graph.conv(mixed, inputs=4)
    model = load(graph, graph.nodes[-1].output[0])
    assert [layer.value for layer in model.layers] == ["conv0"]


def test_1d_convs_are_left_out(load: Callable[..., Model]) -> None:
    graph = Graph()
    flat = graph.node("Reshape", graph.conv(), graph.tensor([1, 4, 900], np.int64))
    graph.node("Conv", flat, graph.tensor(np.ones((4, 4, 3))), out="y")
    assert single(load(graph, "y")).value == "conv0"


# Asking for a layer


def test_layer_by_name(load: Callable[..., Model]) -> None:
    graph = Graph()
    graph.node("Relu", graph.conv(), out="block1_relu")
    graph.node("Relu", graph.conv("block1_relu", inputs=4), out="block2_relu")
    graph.node("GlobalAveragePool", "block2_relu", out="y")
    model = load(graph, "y")
    assert model.layer() is model.layer("block2_relu") is model.default_layer
    assert model.layer("block1_relu").channels == 4
    with pytest.raises(LayerError) as caught:
        model.layer("block2_rel")
    assert str(caught.value).startswith("no value 'block2_rel' in net.onnx; nearest: 'block2_relu'")
    assert str(caught.value).endswith("Run 'fsagn-onnx inspect net.onnx'.")
    with pytest.raises(
        LayerError,
        match=r"'conv0' is the conv before its activation in net\.onnx; the layer is 'block1_relu'",
    ):
        model.layer("conv0")
    with pytest.raises(LayerError, match=r"the value 'y' is no conv layer of net\.onnx; nearest: 'block2_relu'"):
        model.layer("y")


# Real networks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers", "op", "channels", "field"),
    [
        # 435 by hand: 7 (stem), + 4 (pool), + 4 x 8, + 8 + 3 x 16, + 16 + 3 x 32, + 32 + 3 x 64.
        ("resnet18", 20, "Conv", 512, 435),
        ("mobilenet_v3_small", 52, "Conv+HardSwish", 576, 639),
        ("shufflenet_v2_x0_5", 56, "Conv+Relu", 1024, 527),
    ],
)
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_torchvision(name: str, layers: int, op: str, channels: int, field: int, dynamo: bool, tmp_path: Path) -> None:
    import torch
    import torchvision

    module = getattr(torchvision.models, name)(weights=None).eval()
    options = {"verbose": False} if dynamo else {"dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}, "input_names": ["x"]}
    torch.onnx.export(module, (torch.zeros(1, 3, 224, 224),), tmp_path / "m.onnx", dynamo=dynamo, **options)
    model = load_model(tmp_path / "m.onnx")
    assert len(model.layers) == layers
    chosen = model.default_layer
    assert (chosen.op, chosen.shape, chosen.stride) == (op, (channels, 7, 7), 32)
    assert chosen.receptive_field == field
    assert chosen.reason == f"last conv layer with a spatial map (7x7); {channels:,} filters"
