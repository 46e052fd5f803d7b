"""What `convert` promises beside the numbers: state, memory, errors, untrusted files."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx2torch.utils.common import OperationConverterResult
from torch import nn

from fsagn_onnx.conversion import ConversionError, Unsupported, check_parity, convert, registry, unsupported
from fsagn_onnx.conversion.ops.nodes import converted
from fsagn_onnx.errors import LayerError, ModelError, ParityError
from fsagn_onnx.model import load_model


def weight(name: str, *shape: int) -> onnx.TensorProto:
    array = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(array, name)


def written(text: str, *initializers: onnx.TensorProto, batch: str = "N", opset: int = 17) -> onnx.ModelProto:
    """A model of the image x from the nodes in onnx's text form; weights of the convs come by name."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "custom" : 1]>'
    model = onnx.parser.parse_model(f"{header} g (float[{batch}, 3, 16, 16] x) => (float[n, c, h, w] y) {{ {text} }}")
    model.graph.initializer.extend([weight("w", 4, 3, 3, 3), weight("v", 4, 4, 3, 3), *initializers])
    return model


def floats(name: str, number: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.float32(number), name)


PLAIN = "a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Relu(c)"


@pytest.fixture
def load(tmp_path):
    def load_(model: onnx.ModelProto):
        path = tmp_path / "net.onnx"
        onnx.save(model, path)
        return load_model(path)

    return load_


def test_taps_come_in_the_order_asked_for_and_once(load):
    module = convert(load(written(PLAIN)), ["c", "b", "c"])
    assert module.taps == ("c", "b")
    assert list(module(torch.zeros(1, 3, 16, 16))) == ["c", "b"]
    assert module.input_name == "x"


def test_nothing_behind_the_deepest_tap_is_converted(load):
    model = load(written("a = Conv(x, w) b = Relu(a) c = custom.Unknown(b) y = Relu(c)"))
    module = convert(model, ["b"])
    assert [step.op for step in module.steps] == ["Conv", "Relu"]


def test_own_outputs_come_on_demand(load):
    model = load(written(PLAIN))
    module = convert(model, ["b"], outputs=True)
    assert (module.taps, module.outputs) == (("b",), ("y",))
    assert list(module(torch.zeros(1, 3, 16, 16))) == ["b", "y"]
    assert set(check_parity(model, module).errors) == {"b", "y"}
    tapped_output = convert(model, ["y"], outputs=True)
    assert list(tapped_output(torch.zeros(1, 3, 16, 16))) == ["y"]


def test_module_is_frozen_and_stays_in_eval_mode(load):
    text = "a = Conv(x, w) b = BatchNormalization(a, s, s, t, s) y = Relu(b)"
    norm = [numpy_helper.from_array(np.full(4, number, np.float32), name) for name, number in (("s", 2), ("t", 1))]
    module = convert(load(written(text, *norm)), ["a", "y"])
    assert not any(parameter.requires_grad for parameter in module.parameters())
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = module(x)["y"]
    module.train()
    assert not any(part.training for part in module.modules())
    assert torch.equal(module(x)["y"], before)


def test_nothing_of_the_callers_is_changed(load):
    model = load(written(PLAIN))
    before = model.proto.SerializeToString(deterministic=True)
    torch.manual_seed(3)
    state, threads, numpy_state = (
        torch.get_rng_state(),
        torch.get_num_threads(),
        np.random.get_state()[1].copy(),
    )
    convert(model, ["y"])
    assert model.proto.SerializeToString(deterministic=True) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.is_grad_enabled()


def test_onnx2torch_itself_stays_as_it_is():
    from onnx2torch.node_converters.registry import get_converter

    with pytest.raises(NotImplementedError):
        get_converter("ReduceMean", 18)
    assert get_converter("Reshape", 13).__module__.startswith("onnx2torch")


def test_activations_are_freed_as_soon_as_nothing_needs_them(load):
    text = " ".join(f"a{i + 1} = Relu(a{i})" for i in range(8))
    module = convert(load(written(f"a0 = Conv(x, w) {text} y = Relu(a8)")), ["y"])
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(name: str, value: torch.Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(value))
        most = max(most, sum(reference() is not None for reference in alive))

    gc.disable()  # reference counting alone must do it
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, 16, 16), watch=watch)
    finally:
        gc.enable()
    assert most <= 3


def test_channels_last_goes_through(load):
    module = convert(load(written(PLAIN)), ["b", "y"])
    module = module.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in module(x).values())


def test_module_can_be_moved_to_another_type(load):
    text = "t = Constant<value = float[1] {2.0}>() a = Conv(x, w) y = Mul(a, t)"
    module = convert(load(written(text)), ["y"]).double()
    assert module(torch.zeros(1, 3, 16, 16, dtype=torch.float64))["y"].dtype == torch.float64


@pytest.mark.parametrize("batch", ["N", "1", "2"])
def test_any_batch_size_whatever_the_file_says(load, batch):
    size = 4 * 14 * 14
    text = f"""
        a = Conv(x, w)
        s = Constant<value = int64[5] {{{1 if batch == "N" else batch}, 2, 2, 14, 14}}>()
        t = Constant<value = int64[4] {{{1 if batch == "N" else batch}, 4, 14, 14}}>()
        b = Reshape(a, s) c = Transpose<perm=[0, 2, 1, 3, 4]>(b) d = Reshape(c, t) y = Relu(d)"""
    if batch == "N":
        text = text.replace("{1, 2, 2", "{-1, 2, 2").replace("{1, 4,", "{-1, 4,")
    module = convert(load(written(text, batch=batch)), ["y"])
    for number in (1, 2, 5):
        assert module(torch.zeros(number, 3, 16, 16))["y"].numel() == number * size
    assert module(torch.zeros(2, 3, 20, 24))["y"].shape == (2, 4, 18, 22)


def test_two_outputs_of_one_node(load):
    text = "a = Conv(x, w) b, c = Split<axis=1>(a) d = Neg(c) y = Concat<axis=1>(d, b)"
    module = convert(load(written(text)), ["b", "c", "y"])
    made = module(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(made["y"], torch.cat([-made["c"], made["b"]], 1))


# Errors


def test_unknown_value_and_no_value(load):
    model = load(written(PLAIN))
    with pytest.raises(LayerError, match=r"^net.onnx: .*'conv9'.*fsagn-onnx inspect net.onnx"):
        convert(model, ["conv9"])
    with pytest.raises(LayerError, match="no value to tap"):
        convert(model, [])


def test_all_unsupported_ops_are_told_at_once(load):
    text = "a = custom.Odd(x) b = Conv(a, w) c = custom.Odd(b) d = Det(c) y = Relu(c) e = custom.Behind(y)"
    model = load(written(text))
    assert unsupported(model, "y") == [Unsupported("Odd", "custom", 1, ("a", "c"))]
    assert unsupported(model, "d") == [
        Unsupported("Odd", "custom", 1, ("a", "c")),
        Unsupported("Det", "", 11, ("d",)),
    ]
    with pytest.raises(
        ConversionError, match=r"net.onnx: .*custom.Odd-1 \(2x, first: 'a'\); Det-11 \(1x, first: 'd'\)$"
    ):
        convert(model, ["d"])
    assert unsupported(load(written(PLAIN)), "y") == []


def test_a_refused_attribute_names_the_node(load):
    text = """
        a = Conv(x, w) t = Constant<value = float[4] {1.0, 1.0, 2.0, 2.0}>()
        y = Resize<coordinate_transformation_mode="tf_crop_and_resize", mode="linear">(a, , t)"""
    with pytest.raises(ConversionError, match=r"^net.onnx: node 'y' \(Resize, value 'y'\) cannot.*without a roi"):
        convert(load(written(text, opset=18)), ["y"])


class Wrong(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 1.01


def test_parity_error_names_the_first_wrong_node(load, monkeypatch):
    def wrong(node, graph) -> OperationConverterResult:
        return converted(Wrong() if node.name == "second" else nn.ReLU(), node)

    monkeypatch.setitem(registry._OURS, registry.OperationDescription("", "Relu", 14), wrong)
    text = "a = Conv(x, w) [first] b = Relu(a) c = Conv(b, v) [second] d = Relu(c) e = Neg(d) y = Neg(e)"
    model = load(written(text))
    with pytest.raises(ParityError) as caught:
        convert(model, ["b", "y"])
    message = str(caught.value)
    for part in (
        "net.onnx",
        "node 'second' (Relu, value 'd')",
        "by 0.01 ",
        "allowed 1e-04",
        "torch ",
        "onnxruntime ",
    ):
        assert part in message, part
    assert "\n" not in message
    assert convert(model, ["y"], check=False)(torch.zeros(1, 3, 16, 16))


def test_a_graph_that_holds_on_to_its_batch_size_runs_image_by_image(load):
    text = """
        a = Conv(x, w) i = Constant<value = int64[1] {0}>()
        b = Gather<axis=0>(a, i) y = Relu(b)"""
    model = load(written(text, batch="1"))
    module = convert(model, ["y"])
    assert module.chunk == 1
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    made = module(x)["y"]
    assert torch.equal(made[2:], module(x[2:])["y"])
    assert made.shape == (3, 4, 14, 14)
    module.chunk = None
    with pytest.raises(ParityError, match=r"value 'y'.*several images.*dynamic batch"):
        check_parity(model, module)


def test_a_graph_that_takes_pairs_is_given_pairs(load):
    text = """
        a = Conv(x, w) b, c = Split<axis=0>(a) d = Neg(c) e = Concat<axis=0>(b, d) y = Relu(e)"""
    module = convert(load(written(text, batch="2")), ["y"])
    assert module.chunk == 2
    assert module(torch.zeros(5, 3, 16, 16))["y"].shape == (5, 4, 14, 14)


def test_a_node_that_fails_in_torch_is_named(load):
    text = "a = Conv(x, w) s = Constant<value = int64[4] {1, 4, 7, 28}>() [it] b = Reshape(a, s) y = Relu(b)"
    model = load(written(text, batch="1"))
    module = convert(model, ["y"])
    module.nodes[1].target = (("size", 3), ("size", 5))
    with pytest.raises(ConversionError, match=r"node 'it' \(Reshape, value 'b'\) fails in torch: shape"):
        check_parity(model, module)


def test_a_constant_of_a_type_that_torch_lacks(load):
    model = written("a = Conv(x, w) m = Equal(s, s) n = Cast<to=1>(m) y = Add(a, n)")
    model.graph.initializer.append(helper.make_tensor("s", onnx.TensorProto.STRING, [1], [b"text"]))
    module = convert(load(model), ["a"])
    assert module.taps == ("a",)
    stored = [helper.make_tensor("s", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0]), floats("step", 0.5)]
    late = written("a = Conv(x, w) q = QuantizeLinear(a, step, s) y = DequantizeLinear(q, step, s)", *stored, opset=19)
    with pytest.raises(ConversionError, match=r"net.onnx: .*cannot be converted: quantising to FLOAT8E4M3FN"):
        convert(load(late), ["y"])


def test_several_image_inputs(load):
    model = written("a = Conv(x, w) b = Conv(z, w) y = Add(a, b)")
    model.graph.input.append(helper.make_tensor_value_info("z", 1, ["N", 3, 16, 16]))
    with pytest.raises((ConversionError, ModelError), match=r"2 inputs|input"):
        convert(load(model), ["y"])


# Files from strangers


HOSTILE = "'); import os; os.environ['OWNED'] = '1' #\n\"\"\"\\"


def test_names_never_become_code(load, monkeypatch):
    monkeypatch.delenv("OWNED", raising=False)
    model = written(PLAIN)
    for node in model.graph.node:
        node.name = f"__import__('os')._exit(1) {HOSTILE}{node.output[0]}"
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = name if name in ("x", "w", "v", "y") else f"{HOSTILE}{name}"
    module = convert(load(model), [f"{HOSTILE}b", "y"])
    assert module(torch.zeros(1, 3, 16, 16))["y"].shape == (1, 4, 12, 12)
    assert "OWNED" not in os.environ


def test_a_small_file_does_not_blow_up(load):
    text = """
        s = Constant<value = int64[4] {20000, 20000, 20000, 20000}>()
        z = ConstantOfShape(s) r = ReduceMax<keepdims=0>(z)
        a = Conv(x, w) y = Add(a, r)"""
    with pytest.raises(LayerError, match=r"net.onnx: the value 'z' has the shape .* expected at most"):
        convert(load(written(text)), ["y"], check=False)


WIDE = "a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Relu(a) c = Conv(b, wide) y = Relu(c)"


def test_the_reference_takes_no_weights_that_were_changed(load):
    model = load(written(WIDE, weight("wide", 512, 4, 3, 3)))
    module = convert(model, ["c"])
    wide = module.get_submodule("nodes.2").weight
    assert torch.equal(wide, torch.from_numpy(numpy_helper.to_array(model.proto.graph.initializer[2]).copy()))
    for place in ((0, 0, 0, 0), (511, 3, 2, 2)):
        before = float(wide.data[place])
        wide.data[place] += 0.5
        with pytest.raises(ParityError, match="value 'c'"):
            check_parity(model, module)
        wide.data[place] = before
    check_parity(model, module)


MEASURED = """
import sys
from pathlib import Path
from fsagn_onnx.conversion import convert
from fsagn_onnx.model import load_model

def peak():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))

for path in sys.argv[1:]:  # the first brings all libraries in
    before, model = peak(), load_model(path)
    convert(model, ["y"])
print(1024 * (peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_peak_memory_stays_under_three_times_the_file(tmp_path):
    paths = [tmp_path / "small.onnx", tmp_path / "large.onnx"]
    for path, width in zip(paths, (8, 512), strict=True):
        first = "a = Conv<strides = [4, 4]>(x, w) c0 = Conv<pads = [1, 1, 1, 1]>(a, wide)"
        rest = " ".join(f"c{i + 1} = Conv<pads = [1, 1, 1, 1]>(c{i}, w{i})" for i in range(7))
        more = [weight(f"w{i}", width, width, 3, 3) for i in range(7)]
        onnx.save(written(f"{first} {rest} y = Relu(c7)", weight("wide", width, 4, 3, 3), *more), path)
    command = [sys.executable, "-c", MEASURED, *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(made.stdout) < 3 * paths[1].stat().st_size
