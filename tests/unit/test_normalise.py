"""Graph rewrites before conversion: each does what it says and leaves the caller's model alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from fsagn_onnx.conversion.normal_form import REWRITES, normalise
from fsagn_onnx.conversion.rewrites.constants import CONSTANT_NODES, FOLD_CONSTANTS
from fsagn_onnx.conversion.rewrites.graph import Graph, Rewrite
from fsagn_onnx.conversion.rewrites.identity import PASS_THROUGH
from fsagn_onnx.conversion.rewrites.norm import FOLD_BATCH_NORM
from fsagn_onnx.errors import ConversionError


def drawn(name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> onnx.TensorProto:
    rng = np.random.default_rng(sum(map(ord, name)))
    return numpy_helper.from_array(rng.uniform(low, high, shape).astype(np.float32), name)


def written(nodes: str, *initializers: onnx.TensorProto, outputs: str = "y") -> onnx.ModelProto:
    results = ", ".join(f"float[n, c, h, w] {name}" for name in outputs.split())
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 8, 8] x) => ({results}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend([drawn("w", 4, 3, 3, 3), *initializers])
    return model


def norm(channels: int) -> list[onnx.TensorProto]:
    return [
        drawn("scale", channels, low=0.5, high=2),
        drawn("shift", channels),
        drawn("mean", channels),
        drawn("variance", channels, low=0.01, high=3),
    ]


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(5).normal(size=(2, 3, 8, 8)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def rewritten(model: onnx.ModelProto, *rewrites: Rewrite) -> onnx.ModelProto:
    """After the rewrites (all by default), with everything checked that holds for each of them."""
    before = model.SerializeToString(deterministic=True)
    made = normalise(model, rewrites or REWRITES)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(made, full_check=True)
    assert [v.name for v in made.graph.output] == [v.name for v in model.graph.output]
    for a, b in zip(run(made), run(model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    again = normalise(made, rewrites or REWRITES)
    assert ops(again) == ops(made)
    return made


# Constants


def test_constant_nodes_become_initializers():
    model = written(
        "t = Constant<value = float[1] {2.0}>() u = Constant<value_float = 3.0>() a = Mul(x, t) y = Add(a, u)"
    )
    made = rewritten(model, CONSTANT_NODES)
    assert ops(made) == ["Mul", "Add"]
    assert {t.name: numpy_helper.to_array(t).tolist() for t in made.graph.initializer} == {
        "t": [2.0],
        "u": 3.0,
    }


def test_lists_of_constant_nodes():
    nodes = "s = Constant<value_ints = [2, 3]>() t = Constant<value_ints = [0, -1]>()"
    made = rewritten(written(f"{nodes} a = Reshape(x, t) y = Unsqueeze(a, s)"), CONSTANT_NODES)
    assert ops(made) == ["Reshape", "Unsqueeze"]


def test_a_constant_that_is_an_output_stays():
    model = written("y = Constant<value = float[1, 1, 1, 1] {2.0}>() z = Relu(x)", outputs="y z")
    assert "Constant" in ops(rewritten(model))


def test_what_depends_on_constants_alone_is_computed():
    model = written(
        "s = Shape(w) i = Gather(s, zero) j = Unsqueeze(i, zero) t = Concat<axis=0>(minus, j, eight, eight)"
        " p = Transpose<perm=[0, 1, 3, 2]>(w) a = Conv<pads=[1, 1, 1, 1]>(x, p) y = Reshape(a, t)",
        *(numpy_helper.from_array(np.array([n], np.int64), name) for name, n in (("minus", -1), ("eight", 8))),
        numpy_helper.from_array(np.array(0, np.int64), "zero_"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
    )
    model.graph.node[1].input[1] = "zero_"
    made = rewritten(model, FOLD_CONSTANTS)
    assert ops(made) == ["Conv", "Reshape"]
    assert {t.name for t in made.graph.initializer} == {"p", "t"}


def test_shapes_of_the_image_are_not_baked_in():
    assert "Shape" in ops(rewritten(written("s = Shape(x) y = Reshape(x, s)")))


def test_random_numbers_are_not_constants():
    model = written("r = RandomNormalLike(w) a = Conv(x, r) y = Relu(a)")
    assert "RandomNormalLike" in ops(normalise(model))


def test_folding_stops_at_its_limit():
    big = numpy_helper.from_array(np.array([30_000, 30_000], np.int64), "big")
    model = written("z = ConstantOfShape(big) m = ReduceMax<keepdims=0>(z) y = Add(x, m)", big)
    made = normalise(model)
    assert ops(made) == ["ConstantOfShape", "ReduceMax", "Add"]
    wide = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (("p", (9000, 1)), ("q", (9000,)))
    ]
    grown = written("z = Mul(p, q) m = ReduceMax<keepdims=0>(z) y = Add(x, m)", *wide)
    assert ops(normalise(grown)) == ["Mul", "ReduceMax", "Add"]


def test_a_constant_part_that_cannot_be_computed_is_told():
    bad = numpy_helper.from_array(np.array([5], np.int64), "bad")
    model = written("i = Gather<axis=0>(w, bad) a = Conv(x, i) y = Relu(a)", bad)
    with pytest.raises(ConversionError, match=r"constant part .*first node: Gather.*cannot be computed"):
        normalise(model)


# Nodes that pass their input through


def test_identity_of_values_and_of_shared_initializers():
    model = written("v = Identity(w) u = Identity(v) a = Conv(x, u) b = Identity(a) c = Identity(b) y = Relu(c)")
    made = rewritten(model, PASS_THROUGH)
    assert ops(made) == ["Conv", "Relu"]
    assert list(made.graph.node[0].input) == ["x", "w"]


def test_identity_that_makes_an_output_stays():
    assert ops(rewritten(written("a = Relu(x) y = Identity(a)"), PASS_THROUGH)) == ["Relu", "Identity"]


def test_dropout_goes_unless_it_trains_or_its_mask_is_read():
    yes = numpy_helper.from_array(np.array(True), "yes")
    no = numpy_helper.from_array(np.array(False), "no")
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    assert ops(rewritten(written("a = Dropout(x) y = Relu(a)"), PASS_THROUGH)) == ["Relu"]
    assert ops(rewritten(written("a = Dropout(x, half, no) y = Relu(a)", half, no), PASS_THROUGH)) == ["Relu"]
    training = written("a = Dropout(x, half, yes) y = Relu(a)", half, yes)
    assert ops(normalise(training, [PASS_THROUGH])) == ["Dropout", "Relu"]
    masked = written("a, m = Dropout(x) f = Cast<to=1>(m) y = Mul(a, f)")
    assert ops(rewritten(masked, PASS_THROUGH)) == ["Dropout", "Cast", "Mul"]


# Batch norm

NORM = "b = BatchNormalization<epsilon=0.003>(a, scale, shift, mean, variance)"


def test_batch_norm_is_folded_as_in_float64():
    bias = drawn("bias", 4)
    model = written(f"a = Conv(x, w, bias) {NORM} y = Relu(b)", bias, *norm(4))
    made = rewritten(model, FOLD_BATCH_NORM)
    assert ops(made) == ["Conv", "Relu"]
    given = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    weight, shift = (
        numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == name))
        for name in made.graph.node[0].input[1:]
    )
    for channel in range(4):
        factor = given["scale"][channel] / (given["variance"][channel] + np.float32(0.003)) ** 0.5
        np.testing.assert_allclose(weight[channel], given["w"][channel] * factor, rtol=1e-7)
        expected = (given["bias"][channel] - given["mean"][channel]) * factor + given["shift"][channel]
        np.testing.assert_allclose(shift[channel], expected, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_batch_norm_after_a_transposed_conv(groups):
    kernel = drawn("k", 3, 6 // groups, 2, 2)
    made = rewritten(
        written(f"a = ConvTranspose<group={groups}>(x, k) {NORM} y = Relu(b)", kernel, *norm(6)),
        FOLD_BATCH_NORM,
    )
    assert ops(made) == ["ConvTranspose", "Relu"]


def test_a_shared_weight_keeps_its_value_for_the_others():
    model = written(f"a = Conv(x, w) {NORM} c = Conv(x, w) y = Add(b, c)", *norm(4))
    assert ops(rewritten(model, FOLD_BATCH_NORM)) == ["Conv", "Conv", "Add"]


def test_a_conv_that_is_tapped_or_read_twice_keeps_its_batch_norm():
    read_twice = written(f"a = Conv(x, w) {NORM} y = Add(a, b)", *norm(4))
    assert "BatchNormalization" in ops(rewritten(read_twice, FOLD_BATCH_NORM))
    tapped = written(f"a = Conv(x, w) {NORM} y = Relu(b)", *norm(4), outputs="y a")
    assert "BatchNormalization" in ops(rewritten(tapped, FOLD_BATCH_NORM))


def test_batch_norm_that_trains_is_not_folded():
    training = NORM.replace("0.003", "0.003, training_mode=1").replace("b =", "b, m, v =")
    model = written(f"a = Conv(x, w) {training} y = Relu(b)", *norm(4))
    assert "BatchNormalization" in ops(normalise(model, [FOLD_BATCH_NORM]))


# All together


def test_one_pass_makes_way_for_the_next():
    model = written(
        "v = Identity(w) t = Constant<value = float[1] {1.0}>() u = Mul(v, t) a = Conv(x, u) d = Dropout(a)"
        f" {NORM.replace('(a,', '(d,')} y = Relu(b)",
        *norm(4),
    )
    assert ops(rewritten(model)) == ["Conv", "Relu"]


def test_local_functions_are_inlined():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { a = local.twice(x) y = Relu(a) }
        <domain: "local", opset_import: ["" : 17]> twice (x) => (z) { z = Add(x, x) }"""
    )
    assert ops(rewritten(model)) == ["Add", "Relu"]


def test_inputs_that_are_initializers_are_no_inputs():
    model = written("a = Conv(x, w) y = Relu(a)")
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 3, 3, 3]))
    assert [v.name for v in normalise(model).graph.input] == ["x"]


def test_a_rewrite_that_misses_its_postcondition_is_told():
    lazy = Rewrite("lazy one", lambda graph: 0, lambda graph: iter(graph.nodes))
    with pytest.raises(ConversionError, match=r"'lazy one' left the Relu node 'r' \(value 'y'\)"):
        normalise(written("[r] y = Relu(x)"), [lazy])


def test_names_made_up_are_new():
    graph = Graph(written("a = Conv(x, w) y = Relu(a)"))
    assert graph.unused("a") == "a_1"
    assert graph.unused("a") == "a_2"
    assert graph.constant(np.zeros(2), "w") == "w_1"
