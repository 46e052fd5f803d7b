"""Every converter of ours against onnxruntime, and its gradient against finite differences in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.conversion.parity import relative_error


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


ONE = np.float32(1)
EMPTY = floats()


@dataclass
class Case:
    """One op: opset, attributes, shape of its first input, its other inputs (constants; None: left out)."""

    op: str
    opset: int
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Any, ...] = ()
    shape: tuple[int, ...] = (2, 3, 8, 9)
    tolerance: str = "op"
    outputs: int = 1
    positive: bool = False
    low: float = -2.0
    high: float = 2.0

    @property
    def name(self) -> str:
        given = [f"{key}={value}" for key, value in self.attributes.items()]
        rest = [str(c.tolist() if c.size < 9 else c.shape) for c in map(np.asarray, self.constants)]
        return "-".join([self.op, str(self.opset), *given, *rest]).replace(" ", "")

    def model(self) -> onnx.ModelProto:
        batch = "N" if len(self.shape) == 4 else self.shape[0]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *self.shape[1:]])
        given = [(f"c{i}", constant) for i, constant in enumerate(self.constants)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        inputs = ["x", *("" if constant is None else name for name, constant in given)]
        node = helper.make_node(self.op, inputs, outputs, name="the node", **self.attributes)
        graph = helper.make_graph(
            [node],
            "case",
            [x],
            [helper.make_empty_tensor_value_info(y) for y in outputs],
            [numpy_helper.from_array(np.asarray(c), name) for name, c in given if c is not None],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)


def reductions() -> list[Case]:
    cases = []
    for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
        name, shape = f"Reduce{op}", (2, 3, 4, 5)
        axes_input = 13 if op == "Sum" else 18
        shared = {"shape": shape, "positive": True}
        cases += [
            Case(name, 11, {"axes": [2, 3], "keepdims": 0}, **shared),
            Case(name, 11, {"axes": [-1, -3], "keepdims": 0}, **shared),
            Case(name, axes_input, {"keepdims": 1}, (ints(-1, 2),), **shared),
            Case(name, axes_input, {"keepdims": 1}, **shared),
            Case(name, axes_input, {"noop_with_empty_axes": 1}, **shared),
        ]
    return cases


def pools() -> list[Case]:
    cases = []
    shapes = [
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 2, 0]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 4], "strides": [1, 3], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2, 2], "auto_pad": "VALID"},
    ]
    for opset in (12, 22):
        for attributes in shapes:
            cases.append(Case("MaxPool", opset, attributes, tolerance="exact"))
            cases.append(Case("AveragePool", opset, attributes))
            cases.append(Case("AveragePool", opset, {**attributes, "count_include_pad": 1}))
    dilated = {"kernel_shape": [3, 3], "strides": [2, 2], "dilations": [2, 2], "pads": [2, 2, 2, 2]}
    cases.append(Case("MaxPool", 12, dilated, tolerance="exact"))
    cases.append(Case("MaxPool", 12, {"kernel_shape": [3], "pads": [1, 0]}, shape=(2, 3, 9), tolerance="exact"))
    cases.append(Case("AveragePool", 19, {"kernel_shape": [2, 2, 2]}, shape=(1, 2, 4, 5, 6)))
    cases.append(Case("GlobalMaxPool", 1, tolerance="exact"))
    cases.append(Case("GlobalAveragePool", 22))
    return cases


def convolutions() -> list[Case]:
    w, b = weight(4, 3, 3, 3), weight(4)
    up = weight(3, 2, 3, 3)
    return [
        Case("Conv", 11, {"pads": [1, 1, 1, 1]}, (w, b)),
        Case("Conv", 22, {"strides": [2, 2], "pads": [0, 0, 1, 1]}, (w,)),
        Case("Conv", 11, {"strides": [2, 3], "auto_pad": "SAME_UPPER"}, (w, b)),
        Case("Conv", 11, {"strides": [2, 2], "auto_pad": "SAME_LOWER", "kernel_shape": [3, 3]}, (w, b)),
        Case("Conv", 11, {"dilations": [2, 2], "auto_pad": "VALID"}, (w, b)),
        Case("Conv", 11, {"group": 3}, (weight(6, 1, 3, 3), weight(6))),
        Case("Conv", 11, {"pads": [1, 0]}, (weight(4, 3, 3),), shape=(2, 3, 9)),
        Case("Conv", 11, {}, (weight(2, 2, 2, 2, 2),), shape=(1, 2, 4, 4, 5)),
        Case("ConvTranspose", 11, {"strides": [2, 2]}, (up, weight(2))),
        Case("ConvTranspose", 22, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, (up,)),
        Case("ConvTranspose", 11, {"strides": [2, 2], "pads": [0, 1, 1, 0]}, (up,)),
        Case("ConvTranspose", 11, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (up,)),
        Case("ConvTranspose", 11, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, (up,)),
        Case("ConvTranspose", 11, {"strides": [2, 2], "output_shape": [16, 17]}, (up,)),
        Case("ConvTranspose", 11, {"group": 3, "dilations": [2, 1]}, (weight(3, 2, 3, 3),)),
    ]


def rearrangements() -> list[Case]:
    exact = {"tolerance": "exact"}
    return [
        Case("Reshape", 13, {}, (ints(0, -1),), **exact),
        Case("Reshape", 14, {"allowzero": 1}, (ints(-1, 24, 9),), **exact),
        Case("Reshape", 21, {}, (ints(2, 3, 4, 2, 9),), **exact),
        Case(
            "Reshape",
            24,
            {},
            (
                ints(
                    -1,
                ),
            ),
            **exact,
        ),
        Case("Expand", 13, {}, (ints(5, 1, 3, 1, 1),), **exact),
        Case("Squeeze", 13, {}, (ints(-1, -2),), shape=(2, 3, 1, 1), **exact),
        Case("Squeeze", 11, {"axes": [1]}, shape=(2, 1, 3, 4), **exact),
        Case("Squeeze", 23, {}, shape=(2, 1, 3, 1), **exact),
        Case("Unsqueeze", 13, {}, (ints(-1, 0),), **exact),
        Case("Unsqueeze", 11, {"axes": [2, 4]}, **exact),
        Case("Flatten", 24, {"axis": 2}, **exact),
        Case("Transpose", 23, {"perm": [0, 2, 3, 1]}, **exact),
        Case("Slice", 13, {}, (ints(1, -5), ints(1000, -1), ints(1, -1)), **exact),
        Case("Slice", 13, {}, (ints(-1, 6), ints(-(2**62), 1), ints(2, 3), ints(-2, -3)), **exact),
        Case("Slice", 10, {}, (ints(0, 1), ints(1, 3)), **exact),
        Case("Slice", 9, {"starts": [2], "ends": [-1], "axes": [2]}, **exact),
        Case("Split", 11, {"axis": 3, "split": [2, 3, 4]}, outputs=3, **exact),
        Case("Split", 13, {"axis": 1}, (ints(1, 2),), outputs=2, **exact),
        Case("Split", 13, {"axis": -1}, outputs=3, **exact),
        Case("Split", 18, {"axis": 2, "num_outputs": 3}, outputs=3, **exact),
        Case("DepthToSpace", 13, {"blocksize": 2, "mode": "DCR"}, shape=(2, 8, 3, 4), **exact),
        Case("DepthToSpace", 13, {"blocksize": 2, "mode": "CRD"}, shape=(2, 8, 3, 4), **exact),
        Case("SpaceToDepth", 13, {"blocksize": 2}, shape=(2, 3, 4, 6), **exact),
        Case("Pad", 2, {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 1.5}, **exact),
        Case("Pad", 13, {}, (ints(0, 1, 1, 2, 0, 0, -3, 0), floats(2.5).reshape(())), **exact),
        Case("Pad", 18, {}, (ints(1, 2, 3, 0), None, ints(-1, 2)), **exact),
        Case("Pad", 13, {"mode": "reflect"}, (ints(0, 1, 2, 3, 0, 2, 1, 0),), **exact),
        Case("Pad", 13, {"mode": "edge"}, (ints(0, 1, 2, 3, 0, 2, 1, 0),), **exact),
        Case("Pad", 19, {"mode": "wrap"}, (ints(0, 1, 2, 3, 0, 2, 1, 0),), **exact),
    ]


def activations() -> list[Case]:
    return [
        Case("Clip", 6, {"min": -0.5, "max": 1.0}, tolerance="exact"),
        Case("Clip", 13, {}, (np.float32(0), np.float32(6)), tolerance="exact"),
        Case("Clip", 13, {}, (None, ONE), tolerance="exact"),
        Case("Clip", 12, {}, (np.float32(0),), tolerance="exact"),
        Case("Clip", 11, tolerance="exact"),
        Case("PRelu", 16, {}, (weight(3, 1, 1),)),
        Case("PRelu", 9, {}, (weight(9),), shape=(2, 9, 8, 9)),  # along the last axis, not the channels
        Case("Mish", 18),
        Case("Gelu", 20),
        Case("Gelu", 20, {"approximate": "tanh"}),
        Case("ThresholdedRelu", 10, {"alpha": 0.5}, tolerance="exact"),
        Case("HardSigmoid", 22, {"alpha": 0.3, "beta": 0.4}),
        Case("HardSwish", 22),
        Case("Elu", 22, {"alpha": 0.7}),
    ]


def resizes() -> list[Case]:
    cases = []
    for mode, shape in (("nearest", "asymmetric"), ("nearest", "half_pixel"), ("linear", "half_pixel")):
        attributes = {"mode": mode, "coordinate_transformation_mode": shape}
        cases.append(Case("Resize", 11, attributes, (EMPTY, floats(1, 1, 2, 2))))
        cases.append(Case("Resize", 13, attributes, (None, floats(1, 1, 1.7, 0.6))))
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        attributes = {"mode": "nearest", "nearest_mode": nearest}
        cases.append(Case("Resize", 19, attributes, (None, None, ints(2, 3, 5, 13))))
    for shape in ("align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"):
        for mode in ("linear", "cubic"):
            attributes = {"mode": mode, "coordinate_transformation_mode": shape}
            cases.append(Case("Resize", 19, attributes, (None, None, ints(2, 3, 5, 13))))
    cubic = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    cases.append(Case("Resize", 13, cubic, (None, floats(1, 1, 1.5, 2.25))))
    cases.append(Case("Resize", 18, {"mode": "linear", "axes": [3, 2]}, (None, floats(2, 3))))
    cases.append(Case("Resize", 10, {"mode": "nearest"}, (floats(1, 1, 2, 3),)))
    cases.append(Case("Upsample", 9, {"mode": "nearest"}, (floats(1, 1, 2, 2),)))
    cases.append(Case("Upsample", 7, {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}))
    return cases


def norms() -> list[Case]:
    return [
        Case("BatchNormalization", 8, {"epsilon": 1e-3}, (weight(3), weight(3), weight(3), abs(weight(3)) + 0.1)),
        Case("GroupNormalization", 21, {"num_groups": 2}, (weight(4), weight(4)), shape=(2, 4, 5, 6)),
        Case("RMSNormalization", 23, {"axis": 2}, (weight(8, 9),)),
        Case("LpNormalization", 1, {"axis": 1, "p": 2}),
        Case("LpNormalization", 22, {"axis": -1, "p": 1}),
        Case("MeanVarianceNormalization", 9, {"axes": [0, 2, 3]}),
        Case("MeanVarianceNormalization", 13, {"axes": [2, 3]}),
    ]


def more_pools() -> list[Case]:
    padded = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    dilated = {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2]}
    return [
        Case("LpPool", 11, {**padded, "p": 2}),
        Case("LpPool", 18, {**padded, "p": 3, "dilations": [2, 1]}),
        Case("LpPool", 22, {"kernel_shape": [2], "p": 1}, shape=(2, 3, 9)),
        Case("GlobalLpPool", 2, {"p": 2}),
        Case("AveragePool", 19, dilated),
        Case("AveragePool", 22, {**dilated, "count_include_pad": 1}),
        Case("MaxPool", 12, padded, outputs=2, tolerance="exact"),
        Case("MaxPool", 22, {"kernel_shape": [2, 2], "strides": [2, 2]}, outputs=2, tolerance="exact"),
        Case("MaxUnpool", 11, {"kernel_shape": [2, 2], "strides": [2, 2]}, (UNPOOLED,), shape=(1, 2, 2, 2)),
    ]


UNPOOLED = np.array([[[[0, 3], [8, 10]], [[21, 18], [25, 31]]]], dtype=np.int64)


def placements() -> list[Case]:
    exact = {"tolerance": "exact"}
    rows = np.array([[0, 2, 1], [1, 0, 2]], dtype=np.int64)
    return [
        Case("CumSum", 14, {}, (np.int64(3),)),
        Case("CumSum", 11, {"exclusive": 1, "reverse": 1}, (np.int64(-1),)),
        Case("CumSum", 14, {"exclusive": 1}, (np.int64(1),)),
        Case("ScatterElements", 18, {"axis": 1}, (rows, weight(2, 3)), shape=(2, 4), **exact),
        Case("ScatterElements", 18, {"axis": 1, "reduction": "add"}, (rows, weight(2, 3)), shape=(2, 4)),
        Case("ScatterElements", 18, {"axis": 1, "reduction": "max"}, (rows, weight(2, 3)), shape=(2, 4)),
        Case("ScatterND", 18, {}, (ints(1, 3).reshape(2, 1), weight(2, 3)), shape=(4, 3), **exact),
        Case("ScatterND", 18, {"reduction": "add"}, (ints(1, 1).reshape(2, 1), weight(2, 3)), shape=(4, 3)),
        Case("ScatterND", 18, {"reduction": "mul"}, (ints(1, 2).reshape(2, 1), weight(2, 3)), shape=(4, 3)),
        Case("Trilu", 14, {"upper": 1}, (np.int64(1),), **exact),
        Case("Trilu", 14, {"upper": 0}, **exact),
        Case("CenterCropPad", 18, {"axes": [2, 3]}, (ints(5, 12),), **exact),
        Case("Col2Im", 18, {"strides": [2, 2]}, (ints(6, 6), ints(2, 2)), shape=(2, 12, 9)),
        Case("GridSample", 16, {"mode": "bilinear"}, (np.clip(weight(2, 4, 5, 2), -0.9, 0.9),), tolerance="model"),
        Case("GridSample", 20, {"mode": "cubic", "align_corners": 1}, (weight(2, 4, 5, 2) / 2,), tolerance="model"),
        Case("GridSample", 16, {"padding_mode": "border"}, (weight(2, 4, 5, 2),), tolerance="model"),
        Case("Attention", 23, {}, (weight(2, 2, 5, 4), weight(2, 2, 5, 4)), shape=(2, 2, 5, 4)),
        Case(
            "Attention",
            23,
            {"is_causal": 1, "scale": 0.3},
            (weight(2, 1, 5, 4), weight(2, 1, 5, 4)),
            shape=(2, 2, 5, 4),
        ),
        Case(
            "Attention",
            23,
            {"q_num_heads": 2, "kv_num_heads": 2},
            (weight(2, 5, 8), weight(2, 5, 8), weight(5, 5)),
            shape=(2, 5, 8),
        ),
    ]


def more_activations() -> list[Case]:
    return [
        Case("Shrink", 9, {"lambd": 0.3, "bias": 0.1}),
        Case("Hardmax", 13, {"axis": 1}, tolerance="exact"),
        Case("Hardmax", 11, {"axis": 2}, tolerance="exact"),
        Case("Sinh", 22),
        Case("Cosh", 9),
        Case("Asinh", 9),
        Case("Acosh", 22, low=1.1),
        Case("Atanh", 9, low=-0.9, high=0.9),
    ]


def more_resizes() -> list[Case]:
    cases = []
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.5}
    roi = floats(0, 0, -0.2, 0.1, 1, 1, 0.8, 1.3)
    for mode in ("nearest", "linear"):
        cases.append(Case("Resize", 13, {**crop, "mode": mode}, (roi, None, ints(2, 3, 5, 13))))
    for mode in ("linear", "cubic"):
        cases.append(Case("Resize", 18, {"mode": mode, "antialias": 1}, (None, floats(1, 1, 0.6, 0.45))))
        cases.append(Case("Resize", 19, {"mode": mode, "antialias": 1}, (None, None, ints(2, 3, 5, 13))))
    for policy in ("not_larger", "not_smaller"):
        kept = {"mode": "linear", "keep_aspect_ratio_policy": policy, "axes": [2, 3]}
        cases.append(Case("Resize", 18, kept, (None, None, ints(12, 20))))
    for nearest in ("round_prefer_ceil", "floor", "ceil"):
        cases.append(Case("Resize", 13, {"nearest_mode": nearest}, (None, floats(1, 1, 1.7, 0.6))))
    return cases


CASES = [
    *norms(),
    *more_pools(),
    *placements(),
    *more_activations(),
    *more_resizes(),
    *reductions(),
    *pools(),
    *convolutions(),
    *rearrangements(),
    *activations(),
    *resizes(),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_op_agrees_with_onnxruntime_and_its_gradient_with_finite_differences(
    case, draw, by_torch, by_onnxruntime, tolerance
):
    model = case.model()
    low, high = (0.1, 1.1) if case.positive else (case.low, case.high)
    x = draw(*case.shape, low=low, high=high)
    module = by_torch(model, N=2)
    with torch.no_grad():
        made = module(torch.from_numpy(x))
    for value, expected in zip(module.taps, by_onnxruntime(model, x), strict=True):
        assert relative_error(made[value].numpy(), expected) <= tolerance[case.tolerance], value
    exact = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: tuple(value for value in module.double()(x).values() if value.is_floating_point()),
        exact,
        fast_mode=True,
    )


COMPUTED = {
    "Reshape": "s = Shape(x) n = Slice(s, zero, one) t = Concat<axis=0>(n, three, minus) y = Reshape(x, t)",
    "Reshape, allowzero=0": "s = Shape(x) z = Sub(s, s) y = Reshape(x, z)",
    "Expand": "s = Shape(x) p = ReduceMean<axes=[2, 3]>(x) y = Expand(p, s)",
    "Slice": "s = Shape<start=3>(x) e = Sub(s, one) y = Slice(x, one, e, three)",
    "Slice with a left-out input": "s = Shape<start=3>(x) e = Sub(s, one) y = Slice(x, one, e, three, )",
    "Pad": "s = Shape(x) r = Sub(s, s) t = Add(s, r) p = Concat<axis=0>(r, t) y = Pad(x, p)",
    "Resize to sizes": """
        s = Shape(x) a = Slice(s, zero, two) b = Slice(s, two, four) c = Mul(b, three)
        t = Concat<axis=0>(a, c) y = Resize<mode="linear">(x, , , t)""",
    "Resize by scales": """
        s = Shape(x) u = Cast<to=1>(s) v = Div(u, u) w = Mul(v, scales) y = Resize(x, , w)""",
    "Conv": "k = ReduceMean<axes=[0], keepdims=1>(x) y = Conv(x, k)",
    "Conv with a computed bias": """
        b = ReduceMean<axes=[0, 2, 3], keepdims=0>(x) y = Conv<group=3>(x, kernel, b)""",
    "Clip": "m = ReduceMean<keepdims=0>(x) y = Clip(x, m)",
    "Clip, high only": "m = ReduceMean<keepdims=0>(x) y = Clip(x, , m)",
    "PRelu": "m = ReduceMean<axes=[0, 2, 3]>(x) n = Squeeze(m, zero) y = PRelu(x, n)",
    "Size": "s = Size(x) f = Cast<to=1>(s) r = Sqrt(f) y = Div(x, r)",
    "CastLike": "s = Size(x) f = CastLike(s, x) r = Sqrt(f) y = Div(x, r)",
    "NonZero": """
        r = Relu(x) t = Reshape(r, minus) n = NonZero(t) i = Squeeze(n, zero) p = Reshape(x, minus)
        y = Gather(p, i)""",
    "OneHot": """
        m = ArgMax<axis=1, keepdims=0>(x) h = OneHot<axis=1>(m, three, offon) y = Mul(x, h)""",
    "OneHot, last axis": """
        m = ArgMax<axis=1, keepdims=0>(x) h = OneHot(m, three, offon) p = Transpose<perm=[0, 2, 3, 1]>(x)
        y = Mul(p, h)""",
}
INITIALIZERS = {
    "zero": ints(0),
    "one": ints(1),
    "two": ints(2),
    "three": ints(3),
    "four": ints(4),
    "minus": ints(-1),
    "scales": floats(1, 1, 2, 1.5),
    "offon": floats(-0.5, 1.5),
    "kernel": weight(3, 1, 3, 3),
}


def written(nodes: str) -> onnx.ModelProto:
    """A model from onnx's text form, with those of INITIALIZERS that it names."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, h, w] x) => (y) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in INITIALIZERS.items() if name in read
    )
    return model


@pytest.mark.parametrize("name", COMPUTED)
def test_inputs_computed_at_run_time(name, draw, by_torch, by_onnxruntime, tolerance):
    model = written(COMPUTED[name])
    module = by_torch(model, N=2, h=6, w=8)
    for shape in ((2, 3, 6, 8), (4, 3, 5, 7)):
        x = draw(*shape)
        expected = by_onnxruntime(model, x)[0]
        assert relative_error(module(torch.from_numpy(x))["y"].numpy(), expected) <= tolerance["op"]
    exact = torch.from_numpy(draw(2, 3, 5, 6).astype(np.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module.double()(x)["y"], exact, fast_mode=True)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [ints(2, 1, 4, 5), ints(2, 1, 3, 4, 2)], ids=["2-D", "3-D"])
def test_affine_grid(corners, size, draw, by_torch, by_onnxruntime, tolerance):
    """On its own, without a batch that is free: its input is (N, 2, 3) or (N, 3, 4)."""
    case = Case("AffineGrid", 20, {"align_corners": corners}, (size,), shape=(2, len(size) - 2, len(size) - 1))
    x = draw(*case.shape)
    module = by_torch(case.model())
    made = module(torch.from_numpy(x))["y0"].numpy()
    assert relative_error(made, by_onnxruntime(case.model(), x)[0]) <= tolerance["op"]
    exact = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module.double()(x)["y0"], exact, fast_mode=True)
