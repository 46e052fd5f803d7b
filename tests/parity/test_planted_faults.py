"""Faults planted into a right conversion: the check against onnxruntime must catch every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fsagn_onnx.conversion import ConversionError, ParityError, TappedModule, check_parity, convert
from fsagn_onnx.model import Model, load_model

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 16, 18] x) => (y) {
    [uneven] c1 = Conv<pads = [0, 1, 2, 0], strides = [2, 1]>(x, w1, b1)
    [norm] n1 = BatchNormalization<epsilon = 0.001>(c1, scale, shift, mean, variance)
    both = Add(c1, n1)
    [leaky] l1 = LeakyRelu<alpha = 0.1>(both)
    [same] c2 = Conv<auto_pad = "SAME_LOWER", kernel_shape = [3, 3], strides = [2, 2]>(l1, w2)
    [grouped] c3 = Conv<group = 2, dilations = [2, 1], pads = [2, 1, 2, 1]>(l1, w3)
    [ceil] p1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1, pads = [0, 1, 0, 0]>(c3)
    [averaged] p2 = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c2)
    [up] u1 = ConvTranspose<strides = [2, 2], pads = [0, 1, 1, 0]>(p2, w4)
    [resized] r1 = Resize<mode = "linear">(p2, , factors)
    [nearest] r2 = Resize<mode = "nearest", nearest_mode = "floor">(p2, , uneven_factors)
    [normed] m1 = InstanceNormalization<epsilon = 0.01>(r1, scale, shift)
    [padded] d1 = Pad<mode = "reflect">(m1, pads)
    [reduced] e1 = ReduceMean<axes = [3]>(d1)
    [softmax] s1 = Softmax<axis = 1>(c3)
    [clipped] k1 = Clip(u1, low, high)
    [joined] j1 = Concat<axis = 1>(c2, p2)
    [moved] t1 = Transpose<perm = [0, 1, 3, 2]>(j1)
    [sliced] v1 = Slice(t1, start, end, axis)
    [deep] h1 = DepthToSpace<blocksize = 2, mode = "CRD">(j1)
    [gemm] f0 = GlobalAveragePool(v1) f1 = Flatten(f0)
    [matrix] y = Gemm<transB = 1, alpha = 0.5>(f1, w5, b5)
}
"""


def drawn(name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> onnx.TensorProto:
    rng = np.random.default_rng(sum(map(ord, name)))
    return numpy_helper.from_array(rng.uniform(low, high, shape).astype(np.float32), name)


CONSTANTS = [
    drawn("w1", 4, 3, 3, 2), drawn("b1", 4), drawn("w2", 4, 4, 3, 3), drawn("w3", 4, 2, 3, 3),
    drawn("w4", 4, 4, 3, 3), drawn("w5", 5, 8), drawn("b5", 5), drawn("scale", 4, low=0.5, high=2), drawn("shift", 4),
    drawn("mean", 4), drawn("variance", 4, low=0.01, high=2),
    numpy_helper.from_array(np.array([1, 1, 1.5, 2], np.float32), "factors"),
    numpy_helper.from_array(np.array([1, 1, 1.3, 1.7], np.float32), "uneven_factors"),
    numpy_helper.from_array(np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64), "pads"),
    numpy_helper.from_array(np.float32(-0.5), "low"), numpy_helper.from_array(np.float32(0.7), "high"),
    numpy_helper.from_array(np.array([1], np.int64), "start"), numpy_helper.from_array(np.array([3], np.int64), "end"),
    numpy_helper.from_array(np.array([2], np.int64), "axis"),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    made = onnx.parser.parse_model(TEXT)
    made.graph.initializer.extend(CONSTANTS)
    path = tmp_path_factory.mktemp("faults") / "net.onnx"
    onnx.save(made, path)
    return load_model(path)


def converted(model: Model) -> TappedModule:
    """Every value is a tap, so that no fault hides behind another node."""
    return convert(model, [value for node in model.proto.graph.node for value in node.output], check=False)


def at(module: TappedModule, node: str) -> int:
    return next(index for index, step in enumerate(module.steps) if step.node == node)


def part(module: TappedModule, node: str) -> torch.nn.Module:
    return module.nodes[at(module, node)]


def swap_pads(module: TappedModule) -> None:
    conv = part(module, "uneven").conv
    conv.windows = replace(conv.windows, pads=tuple((end, begin) for begin, end in conv.windows.pads))


def exchange_axes_of_pads(module: TappedModule) -> None:
    conv = part(module, "uneven").conv
    conv.windows = replace(conv.windows, pads=conv.windows.pads[::-1])


def same_upper(module: TappedModule) -> None:
    conv = part(module, "same").conv
    conv.windows = replace(conv.windows, auto="SAME_UPPER")


def exchange_strides(module: TappedModule) -> None:
    conv = part(module, "uneven").conv
    conv.windows = replace(conv.windows, strides=conv.windows.strides[::-1])


def exchange_dilations(module: TappedModule) -> None:
    conv = part(module, "grouped").conv
    conv.windows, conv.plain = replace(conv.windows, dilations=(1, 2), pads=((1, 1), (2, 2))), (1, 2)


def flip_weights(module: TappedModule) -> None:
    conv = part(module, "same")
    conv.weight.data = conv.weight.data.transpose(2, 3).contiguous()


def exchange_channels(module: TappedModule) -> None:
    conv = part(module, "same")
    conv.weight.data = conv.weight.data.transpose(0, 1).contiguous()


def exchange_groups(module: TappedModule) -> None:
    conv = part(module, "grouped")
    conv.weight.data = conv.weight.data.roll(2, 0)


def drop_bias(module: TappedModule) -> None:
    part(module, "uneven").bias = None


def one_weight_off(module: TappedModule) -> None:
    part(module, "same").weight.data[0, 0, 0, 0] += 0.02


def turned_kernel_of_the_transposed_conv(module: TappedModule) -> None:
    conv = part(module, "up")
    conv.weight.data = conv.weight.data.flip(2, 3)


def pads_of_the_transposed_conv(module: TappedModule) -> None:
    conv = part(module, "up").conv
    conv.windows = replace(conv.windows, pads=((1, 0), (0, 1)))


def attribute(node: str, **values: object) -> Callable[[TappedModule], None]:
    def plant(module: TappedModule) -> None:
        for name, value in values.items():
            assert hasattr(part(module, node), name), f"{part(module, node)} has no {name}"
            setattr(part(module, node), name, value)

    return plant


def sampling(node: str, **values: object) -> Callable[[TappedModule], None]:
    def plant(module: TappedModule) -> None:
        resize = part(module, node)
        resize.sampling = replace(resize.sampling, **values)

    return plant


def floor_instead_of_ceil(module: TappedModule) -> None:
    pool = part(module, "ceil")
    pool.windows = replace(pool.windows, ceil=False)


def zeros_win(module: TappedModule) -> None:
    """Padding of a maximum with 0 instead of minus infinity."""
    pool = part(module, "ceil")
    pool.forward = (
        lambda x: torch.nn.functional.max_pool2d(  # type: ignore[method-assign]
            torch.nn.functional.pad(x, (1, 1, 0, 0)), 2, 2, ceil_mode=True
        )[..., : x.shape[3] // 2 + 1]
    )


def parameters(node: str, change: Callable[[torch.nn.Module], None]) -> Callable[[TappedModule], None]:
    return lambda module: change(part(module, node))


def reads(node: str, order: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Callable[[TappedModule], None]:
    def plant(module: TappedModule) -> None:
        index = at(module, node)
        step = module.steps[index]
        steps = list(module.steps)
        steps[index] = replace(step, inputs=order(step.inputs))
        module.steps = tuple(steps)

    return plant


def mix_images(module: TappedModule) -> None:
    inner = part(module, "leaky").forward
    part(module, "leaky").forward = lambda x: inner(x + 1e-2 * x.mean(0, True))  # type: ignore[method-assign]


def instance_statistics(module: TappedModule) -> None:
    norm = part(module, "normed")
    norm.forward = lambda x, *rest: torch.nn.functional.instance_norm(x, None, None, *rest, eps=1e-5)  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[TappedModule], None]] = {
    "begin and end of the pads swapped": swap_pads,
    "pads of the other axis": exchange_axes_of_pads,
    "SAME_UPPER for SAME_LOWER": same_upper,
    "strides of the other axis": exchange_strides,
    "dilations of the other axis": exchange_dilations,
    "kernel transposed": flip_weights,
    "input and output channels exchanged": exchange_channels,
    "groups exchanged": exchange_groups,
    "bias dropped": drop_bias,
    "one weight a little off": one_weight_off,
    "kernel of the transposed conv turned": turned_kernel_of_the_transposed_conv,
    "pads of the transposed conv swapped": pads_of_the_transposed_conv,
    "epsilon 1e-5 for 1e-3": attribute("norm", eps=1e-5),
    "mean not taken off": parameters("norm", lambda n: n.running_mean.zero_()),
    "variance for its root": parameters("norm", lambda n: n.running_var.square_()),
    "epsilon of the instance norm": instance_statistics,
    "slope .11 for .1": attribute("leaky", negative_slope=0.11),
    "images mixed": mix_images,
    "ceil_mode forgotten": floor_instead_of_ceil,
    "padding with 0 in a maximum": zeros_win,
    "padding counted in an average": attribute("averaged", count_pads=True),
    "nearest for linear": sampling("resized", mode="nearest"),
    "cubic for linear": sampling("resized", mode="cubic"),
    "align_corners for half_pixel": sampling("resized", coordinates="align_corners"),
    "asymmetric for half_pixel": sampling("resized", coordinates="asymmetric"),
    "ceil for floor": sampling("nearest", nearest="ceil"),
    "round for floor": sampling("nearest", nearest="round_prefer_floor"),
    "edge for reflect": attribute("padded", mode="edge"),
    "zeros for reflect": attribute("padded", mode="constant"),
    "pads in the other order": attribute("padded", pads=(0, 0, 0, 0, 1, 2, 0, 1)),
    "mean over the other axis": attribute("reduced", axes=(2,)),
    "softmax over the other axis": attribute("softmax", dim=2),
    "upper bound .75 for .7": attribute("clipped", high=0.75),
    "concatenated in the other order": reads("joined", lambda names: names[::-1]),
    "axes not exchanged": attribute("moved", perm=[0, 1, 2, 3]),
    "slice one off": attribute("sliced", starts=(0,), ends=(2,)),
    "DCR for CRD": attribute("deep", depth_first=True),
    "alpha of Gemm forgotten": parameters("matrix", lambda n: [setattr(p, "data", 2 * p.data) for p in n.parameters()]),
}  # fmt: skip


def test_without_a_fault_it_passes(model):
    assert check_parity(model, converted(model)).max_relative_error < 2e-5


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_caught(model, fault):
    module = converted(model)
    FAULTS[fault](module)
    with pytest.raises((ParityError, ConversionError), match=r"net.onnx: .*node"):
        check_parity(model, module)


AMPLIFYING = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 16, 18] x) => (y) {
    u1 = Add(x, far)
    [high] c1 = Conv(u1, w6, b1)
    [low] l1 = Sub(c1, level)
    [last] y = Conv(l1, w2)
}
"""


@pytest.fixture(scope="module")
def amplifying(tmp_path_factory) -> Model:
    """Its first conv sums up millions, which are taken off again: what is left has few digits."""
    made = onnx.parser.parse_model(AMPLIFYING)
    weights, far = drawn("w6", 4, 3, 3, 3), numpy_helper.from_array(np.float32(2e6), "far")
    sums = 2e6 * numpy_helper.to_array(weights).sum((1, 2, 3), dtype=np.float64).reshape(4, 1, 1)
    level = numpy_helper.from_array(sums.astype(np.float32), "level")
    made.graph.initializer.extend([weights, CONSTANTS[1], CONSTANTS[2], far, level])
    path = tmp_path_factory.mktemp("amplifying") / "net.onnx"
    onnx.save(made, path)
    return load_model(path)


def test_amplified_rounding_is_no_fault(amplifying):
    parity = check_parity(amplifying, convert(amplifying, ["y"], check=False))
    assert parity.max_relative_error < 1e-6
    assert 1e-4 < parity.drift < 1e-2
    assert "amplifies float32's rounding" in parity.reason


AMPLIFIED_FAULTS: dict[str, Callable[[TappedModule], None]] = {
    "a weight off by less than the conv's own tolerance": lambda m: part(m, "high").weight.data[0, 0, 0].add_(1e-5),
    "a bias off by less than the conv's own tolerance": lambda m: part(m, "high").bias.data[1:2].add_(20),
    "a weight of the last conv": lambda m: part(m, "last").weight.data[0, 0, 0].add_(1e-3),
    "kernel transposed": lambda m: setattr(part(m, "high").weight, "data", part(m, "high").weight.data.mT.contiguous()),
    "images mixed": lambda m: setattr(part(m, "last"), "forward", _mixing(part(m, "last").forward)),
}


def _mixing(inner: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, *rest: inner(x + 5e-3 * (x.mean(0, True) - x), *rest)


@pytest.mark.parametrize("fault", AMPLIFIED_FAULTS)
def test_every_fault_is_caught_where_rounding_is_amplified(amplifying, fault):
    module = convert(amplifying, ["y"], check=False)
    AMPLIFIED_FAULTS[fault](module)
    with pytest.raises(ParityError, match=r"net.onnx: "):
        check_parity(amplifying, module)
