"""Ways to damage an ONNX file: its bytes, its graph, or the files beside it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

Rng = np.random.Generator
LONG = 100_000
HUGE = (2**16, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, -1, -(2**31), 0)


def pick(rng: Rng, items: list):  # type: ignore[no-untyped-def,type-arg]  # any list
    return items[int(rng.integers(len(items)))]


def bit_flips(content: bytes, rng: Rng) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(2 ** rng.integers(0, 8))):
        # Half of them among the first and last kilobytes, where the structure is.
        spread = len(damaged) if rng.random() < 0.5 else min(len(damaged), 4096)
        place = int(rng.integers(spread))
        damaged[place if rng.random() < 0.5 else -1 - place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def truncation(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(1, len(content)))]


def moved_bytes(content: bytes, rng: Rng) -> bytes:
    start, length, place = (int(rng.integers(len(content))) for _ in range(3))
    piece = content[start : start + length % 2048]
    kind = rng.integers(3)
    if kind == 0:
        return content[:place] + piece + content[place:]
    if kind == 1:
        return content[:start] + content[start + len(piece) :]
    return content[:place] + rng.bytes(len(piece)) + content[place + len(piece) :]


def removed_nodes(proto: onnx.ModelProto, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 4))):
        if len(proto.graph.node) > 1:
            del proto.graph.node[int(rng.integers(len(proto.graph.node)))]


def cycle(proto: onnx.ModelProto, rng: Rng) -> None:
    nodes = [node for node in proto.graph.node if node.input and node.output]
    first = int(rng.integers(len(nodes)))
    later = nodes[int(rng.integers(first, len(nodes)))]
    nodes[first].input[int(rng.integers(len(nodes[first].input)))] = later.output[0]


def duplicate_names(proto: onnx.ModelProto, rng: Rng) -> None:
    nodes = [node for node in proto.graph.node if node.output]
    first, second = pick(rng, nodes), pick(rng, nodes)
    second.output[0] = first.output[0]
    if rng.random() < 0.3:
        proto.graph.initializer.append(pick(rng, list(proto.graph.initializer)))


def tensors(proto: onnx.ModelProto) -> list[TensorProto]:
    found = list(proto.graph.initializer)
    found += [item.t for node in proto.graph.node for item in node.attribute if item.HasField("t")]
    return found


def wrong_shapes(proto: onnx.ModelProto, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 4))):
        tensor = pick(rng, tensors(proto))
        dims = list(tensor.dims) or [1]
        kind = int(rng.integers(4))
        if kind == 0:
            dims = dims[::-1]
        elif kind == 1:
            dims[int(rng.integers(len(dims)))] = pick(rng, [*HUGE, 1, 2, 3, 7])
        elif kind == 2:
            dims += [1] * int(rng.integers(1, 70))
        else:
            dims = dims[1:]
        tensor.ClearField("dims")
        tensor.dims.extend(dims)


def wrong_types(proto: onnx.ModelProto, rng: Rng) -> None:
    kinds = [*TensorProto.DataType.values(), 99, -1]
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.5:
            pick(rng, tensors(proto)).data_type = pick(rng, kinds)
        else:
            values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
            pick(rng, values).type.tensor_type.elem_type = pick(rng, kinds)


def huge_dims(proto: onnx.ModelProto, rng: Rng) -> None:
    """Of the image, of values, of targets of Reshape, and in the numbers of a node: pads, strides, axes, groups."""
    kind = int(rng.integers(4))
    if kind == 0:
        shape = pick(rng, list(proto.graph.input)).type.tensor_type.shape
        for dim in shape.dim:
            if rng.random() < 0.5:
                dim.dim_value = pick(rng, list(HUGE))
    elif kind == 1:
        whole = [t for t in tensors(proto) if t.data_type == TensorProto.INT64 and len(t.raw_data) >= 8]
        if whole:
            tensor = pick(rng, whole)
            values = np.frombuffer(tensor.raw_data, np.int64).copy()
            values[int(rng.integers(len(values)))] = pick(rng, list(HUGE))
            tensor.raw_data = values.tobytes()
    elif kind == 2:
        numbers = [item for node in proto.graph.node for item in node.attribute if item.ints or item.HasField("i")]
        if numbers:
            item = pick(rng, numbers)
            if item.ints:
                item.ints[int(rng.integers(len(item.ints)))] = pick(rng, list(HUGE))
            else:
                item.i = pick(rng, list(HUGE))
    else:
        conv = next((node for node in proto.graph.node if node.op_type == "Conv"), None)
        size = helper.make_tensor(
            "huge", TensorProto.INT64, [4], [1, 8, side := pick(rng, [2**13, 2**15, 2**20]), side]
        )
        if conv is not None:
            proto.graph.initializer.append(size)
            made = helper.make_node("ConstantOfShape", ["huge"], ["blown"])
            added = helper.make_node("Add", [conv.output[0], "blown"], [conv.output[0] + "+"])
            for node in proto.graph.node:
                for index, name in enumerate(node.input):
                    if name == conv.output[0]:
                        node.input[index] = added.output[0]
            proto.graph.node.extend([made, added])


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field that holds bytes."""
    head, length = number << 3 | 2, len(content)
    coded = bytearray()
    for value in (head, length):
        while value > 127:
            coded.append(value & 127 | 128)
            value >>= 7
        coded.append(value)
    return bytes(coded) + content


def nested_messages(content: bytes, rng: Rng) -> bytes:
    """Ifs in Ifs, or a type of sequences of sequences, deeper than protobuf's own writer goes."""
    depth = int(2 ** rng.integers(3, 13))
    inner = b""
    if rng.random() < 0.5:
        inner = _field(2, b"deepest")  # GraphProto.name
        for _ in range(depth):
            branch = _field(1, b"then_branch") + _field(6, inner) + bytes([20 << 3 & 127 | 128, 1, 5])  # type: GRAPH
            node = _field(1, b"x") + _field(2, b"deep") + _field(4, b"If") + _field(5, branch)
            inner = _field(1, node) + _field(2, b"level")
        graph = inner
    else:
        inner = _field(1, bytes([8, 1]))  # TypeProto.tensor_type of float
        for _ in range(depth):
            inner = _field(4, _field(1, inner))
        graph = _field(11, _field(1, b"deep") + _field(2, inner))
    return content + _field(7, graph)  # merged into ModelProto.graph


def deep_nesting(proto: onnx.ModelProto, rng: Rng) -> None:
    """Some Ifs in Ifs, a chain of thousands of nodes, JSON in the metadata, a function that calls itself."""
    kind, depth = int(rng.integers(4)), int(2 ** rng.integers(3, 12))
    name = proto.graph.output[0].name
    if kind == 0:
        inner = helper.make_graph([], "deepest", [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
        for level in range(min(depth, 20)):
            flag = helper.make_node("Constant", [], ["flag"], value_int=1)
            other = inner if level < 4 else None
            node = helper.make_node("If", ["flag"], [f"{name}{level}"], then_branch=inner, else_branch=other)
            result = helper.make_tensor_value_info(f"{name}{level}", TensorProto.FLOAT, None)
            inner = helper.make_graph([flag, node], f"level{level}", [], [result])
        proto.graph.node.append(helper.make_node("If", [name], ["deep"], then_branch=inner, else_branch=inner))
    elif kind == 1:
        last = name
        for level in range(10 * depth):
            op = pick(rng, ["Relu", "Identity", "Neg"])
            proto.graph.node.append(helper.make_node(op, [last], [f"{name}:{level}"]))
            last = f"{name}:{level}"
        proto.graph.output[0].name = last
    elif kind == 2:
        text = "[" * 100 * depth if rng.random() < 0.5 else '{"input":' * 100 * depth
        proto.metadata_props.add(key=pick(rng, ["fsagn_model", "names", "config", "pretrained_cfg"]), value=text)
    else:
        again = helper.make_node("Self", ["a"], ["b"], domain="local")
        if not any(item.domain == "local" for item in proto.opset_import):
            proto.opset_import.append(helper.make_opsetid("local", 1))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        proto.functions.append(helper.make_function("local", "Self", ["a"], ["b"], [again], opsets))
        proto.graph.node.append(helper.make_node("Self", [name], ["self"], domain="local"))
        proto.graph.output.append(helper.make_tensor_value_info("self", TensorProto.FLOAT, None))


def long_names(proto: onnx.ModelProto, rng: Rng) -> None:
    """Names of 100 kB: of a value wherever it stands, of a node, an operator, a domain, an attribute, a label."""
    word = pick(
        rng,
        [
            "a" * LONG,
            "\u00e9\u4e2d" * (LONG // 2),
            "line\n" * (LONG // 5),
            "\x1b[31m" * (LONG // 5),
            "../" * (LONG // 3),
        ],
    )
    kind = int(rng.integers(6))
    node = pick(rng, list(proto.graph.node))
    if kind == 0:
        values = {name for item in proto.graph.node for name in (*item.input, *item.output) if name}
        old = pick(rng, sorted(values))
        for item in proto.graph.node:
            for names in (item.input, item.output):
                for index, name in enumerate(names):
                    names[index] = word if name == old else name
        for holder in (proto.graph.input, proto.graph.output, proto.graph.initializer, proto.graph.value_info):
            for entry in holder:
                entry.name = word if entry.name == old else entry.name
    elif kind == 1:
        node.name = word
    elif kind == 2:
        node.op_type = word
    elif kind == 3:
        node.domain = word
    elif kind == 4 and node.attribute:
        pick(rng, list(node.attribute)).name = word
    else:
        proto.producer_name = word
        proto.metadata_props.add(key="labels", value=repr([word, "b"]))


def attributes(proto: onnx.ModelProto, rng: Rng) -> None:
    """Attributes that are missing, of another type, doubled, or of no known value; inputs that are left out."""
    nodes = [node for node in proto.graph.node if node.attribute]
    for _ in range(int(rng.integers(1, 4))):
        node = pick(rng, nodes)
        if not node.attribute:
            continue
        index = int(rng.integers(len(node.attribute)))
        item, kind = node.attribute[index], int(rng.integers(5))
        if kind == 0:
            del node.attribute[index]
        elif kind == 1:
            item.CopyFrom(helper.make_attribute(item.name, pick(rng, ["text", 3, 0.5, [1.5, 2.5], ["a"]])))
        elif kind == 2:
            node.attribute.append(item)
        elif kind == 3:
            item.type = pick(rng, AttributeProto.AttributeType.values())
        elif node.input:
            node.input[int(rng.integers(len(node.input)))] = pick(rng, ["", "nowhere"])


def versions(proto: onnx.ModelProto, rng: Rng) -> None:
    kind = int(rng.integers(4))
    if kind == 0:
        for opset in proto.opset_import:
            opset.version = pick(rng, [0, -1, 1, 7, 99, 2**40])
    elif kind == 1:
        proto.ClearField("opset_import")
    elif kind == 2:
        proto.ir_version = pick(rng, [0, 1, 2, 3, 99, -5])
    else:
        pick(rng, list(proto.graph.node)).domain = pick(rng, ["com.microsoft", "nowhere", "ai.onnx.ml"])


def ports(proto: onnx.ModelProto, rng: Rng) -> None:
    kind = int(rng.integers(5))
    if kind == 0:
        proto.graph.ClearField("output")
    elif kind == 1:
        proto.graph.ClearField("input")
    elif kind == 2:
        proto.graph.output[0].name = "nowhere"
    elif kind == 3:
        proto.graph.input[0].ClearField("type")
    else:
        proto.graph.ClearField("initializer")


def metadata(proto: onnx.ModelProto, rng: Rng) -> None:
    texts = [
        "{", "null", "3", "{}", '{"input": []}', '{"input": {"size": [1e99, -1]}}',
        '{"input": {"mean": NaN, "std": 0}}',
        '{"input": {"size": [16384, 16384], "color": "RGB"}}', '{"labels": [' + '"a",' * 10000 + '"b"]}',
        '{"format": 1}', '{"format": 1e400}', "\x00\x1b[2J", '{"input": {"name": "x", "resize": "letterbox:1e309"}}',
    ]  # fmt: skip
    key = pick(rng, ["fsagn_model", "fsagn", "names", "imgsz", "pretrained_cfg", "config"])
    for entry in proto.metadata_props:
        if entry.key == key:
            entry.value = pick(rng, texts)
            return
    proto.metadata_props.add(key=key, value=pick(rng, texts))


def external_data(proto: onnx.ModelProto, rng: Rng, folder: Path) -> None:
    """Weights in a file that is elsewhere, is a link that leads elsewhere, is missing, too short, or no file."""
    large = sorted(proto.graph.initializer, key=lambda item: -len(item.raw_data))[:5]
    tensor = pick(rng, [item for item in large if item.raw_data] or large)
    length = len(tensor.raw_data)
    outside = folder.parent / f"{folder.name}-outside.bin"
    outside.write_bytes(bytes(length))
    (folder / "short.bin").write_bytes(bytes(max(0, length - 1)))
    (folder / "good.bin").write_bytes(tensor.raw_data)
    (folder / "sub").mkdir()
    os.symlink(outside, folder / "link.bin")
    os.symlink("link.bin", folder / "links.bin")
    os.symlink(folder.parent, folder / "up")
    os.symlink("loop.bin", folder / "loop.bin")
    os.mkfifo(folder / "fifo")
    location = pick(rng, [
        f"../{outside.name}", str(outside), "/etc/passwd", "/dev/zero", "link.bin", "links.bin", f"up/{outside.name}",
        "loop.bin", "missing.bin", "short.bin", "sub", "fifo", "", ".", "a\0b", "x" * LONG, f"sub/../../{outside.name}",
        "good.bin", f"..\\{outside.name}", "file:///etc/passwd",
    ])  # fmt: skip
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location}
    if rng.random() < 0.5:
        entries |= {
            "offset": str(pick(rng, [0, -1, 2**62, "x", 8])),
            "length": str(pick(rng, [length, 2**62, -5, "", 4])),
        }
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def sparse(proto: onnx.ModelProto, rng: Rng) -> None:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, pick(rng, list(HUGE))])
    made = onnx.SparseTensorProto(values=values, indices=indices, dims=[pick(rng, list(HUGE)), 4])
    conv = next((node for node in proto.graph.node if node.op_type == "Conv" and len(node.input) > 1), None)
    proto.graph.sparse_initializer.append(made)
    if conv is not None:
        conv.input[1] = "sparse"
