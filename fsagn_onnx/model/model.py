"""Loading and checking the model that is to be explained."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner

from ..errors import LayerError, ModelError
from .batch import pin_batch
from .batch_trial import held_batch, mixing_node
from .branches import with_chosen_branches
from .class_names import given_names
from .content_hash import content_hash, file_hash
from .declared import with_true_shapes
from .description import input_spec, labels_of, preprocess_labels, read_preprocess
from .feeds import Feed, bind, parse_feeds
from .graph_labels import graph_labels
from .input_spec import InputSpec
from .joined_feeds import with_joined_feeds
from .kept_batch import with_kept_batch
from .layers import Layer, find_layers
from .onnx_file import ValueInfo, metadata_of, read_proto, value_info
from .opset import opset_of
from .optimised import for_one_processor
from .preparation import prepared
from .runnable import runnable_outputs
from .shapes import static_shapes
from .single_image import with_batch_axis
from .size_trial import settled
from .sizes import oversized
from .spelling import respell
from .topology import sort_nodes
from .training_mode import training_nodes
from .validity import check_nodes, strict_refusal

__all__ = ["Model", "load_model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A CNN in an ONNX file, checked.

    Attributes:
        path: The file it came from.
        proto: The graph with all weights in memory, in standard operators and float32 (`prepared`). Nobody
            changes it.
        source: The graph as the file has it; the same object where nothing had to be prepared.
        content: Hash of the content: what the model computes, not how its file is written (see `content_hash`).
        inputs: Graph inputs that are not initializers.
        outputs: Graph outputs.
        opset: Version of the standard operator set.
        producer: The exporter and its version; may be empty.
        metadata: The file's metadata entries.
        labels: Class names, or None.
        named: The class names are the user's, not the file's.
        input_spec: The image input and its preprocessing.
        left_out: Outputs of the file that nothing can compute as numbers (see `runnable_outputs`) -> why.
        group: Images that the graph takes at a time where its file says any number (see `held_batch`), else None.
        mixing: The node by which the images of a batch change one another's answers (see `mixing_node`), else None.
    """

    path: Path
    proto: onnx.ModelProto
    source: onnx.ModelProto
    content: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    opset: int
    producer: str
    metadata: dict[str, str]
    labels: tuple[str, ...] | None
    input_spec: InputSpec
    left_out: Mapping[str, str] = field(default_factory=dict)
    group: int | None = None
    mixing: str | None = None
    named: bool = False

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's own bytes (without external data), as ``sha256sum`` prints it.

        Raises:
            ModelError: the file cannot be read any more.
        """
        return file_hash(self.path)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the values for one image of the input spec's size; unknown ones are left out."""
        spec = self.input_spec
        given: dict[str, tuple[int, ...]] = {}
        for item in self.inputs:
            if item.name == spec.name:
                image = spec.sample_shape
                batch = item.shape[0] if item.shape else 1
                given[item.name] = (batch if isinstance(batch, int) and batch > 0 else 1, *image)
        return static_shapes(self.proto, given)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The 2-D conv layers in topological order.

        Raises:
            LayerError: there is none.
        """
        found = find_layers(self.proto.graph, self.shapes, self.input_spec)
        if not found:
            raise LayerError(self._no_layers())
        return found

    @cached_property
    def shape_warning(self) -> str | None:
        """Why onnx's strict shape inference (onnxruntime may run it) refuses the graph, in one line, or None."""
        return strict_refusal(self.proto)

    @cached_property
    def training_mode(self) -> str | None:
        """A line about nodes that were exported in training mode; None where there are none."""
        found = training_nodes(self.source.graph)
        if not found:
            return None
        return (
            f"{self.path.name} was exported in training mode ({found[0]}{' and others' if len(found) > 1 else ''}): "
            "its answers hang on the rest of a batch or on chance; here each picture is a batch of its own and nothing "
            "left to chance; for the network as it was trained export it again in inference mode (torch: model.eval())"
        )

    @property
    def group_warning(self) -> str | None:
        """That the graph takes images in groups although its file says any number; None where it does not."""
        if self.mixing is not None:
            hangs = f"an answer hangs on the rest of the batch ({self.mixing})"
            return f"{self.path.name}: {hangs}; here each picture is a batch of its own"
        if self.group is None:
            return None
        many = f"{self.group} image{'s' * (self.group > 1)}"
        return f"{self.path.name} says that it takes any number of images, but its graph takes {many} at a time"

    @property
    def guess_warning(self) -> str | None:
        """What was guessed of the image input, in one line; None where nothing was."""
        if not self.input_spec.guessed:
            return None
        return (
            f"{self.path.name} does not say what its input '{self.input_spec.name}' expects; guessed: "
            f"{', '.join(self.input_spec.guessed)}; correct it with --preprocess FILE "
            f"('fsagn-onnx inspect {self.path.name}' prints one)"
        )

    @property
    def default_layer(self) -> Layer:
        """The layer that is explained unless told.

        Raises:
            LayerError: no conv layer has a spatial map.
        """
        for layer in self.layers:
            if layer.default:
                return layer
        raise LayerError(f"no conv layer of {self.path.name} has a spatial map that leads to an output; {self._hint()}")

    def require_size(self, values: Iterable[str]) -> None:
        """Check that what is computed for some values fits into memory, before anything is.

        Args:
            values: Values that nodes of the graph make.

        Raises:
            LayerError: a value on the way is too large for the model's input; it is named.
        """
        largest = oversized(self.proto.graph, self.shapes, values, self.input_spec.name)
        if largest:
            raise LayerError(f"{self.path.name}: {largest}; the file is damaged, or its input too large")

    def require_one_input(self) -> None:
        """Check that the image is all that the model needs.

        Raises:
            ModelError: there are further inputs without a value; the message says how to give them one.
        """
        others = [item.name for item in self.inputs if item.name != self.input_spec.name]
        if others:
            raise ModelError(
                f"{self.path.name} needs more than the image '{self.input_spec.name}': give constants for the other "
                f"inputs with {' '.join(f'--feed {name}=VALUE' for name in others)} (a number, a list or an .npy file)"
            )

    def layer(self, value: str | None = None) -> Layer:
        """The layer whose tapped value has this name; the default layer for None.

        Raises:
            LayerError: there is none; the message names the nearest.
        """
        if value is None:
            return self.default_layer
        for layer in self.layers:
            if layer.value == value:
                return layer
        for layer in self.layers:
            if layer.conv == value:
                raise LayerError(
                    f"'{value}' is the conv before its activation in {self.path.name}; the layer is '{layer.value}'"
                )
        names = [layer.value for layer in self.layers]
        nearest = difflib.get_close_matches(value, names, n=3, cutoff=0.4) or names[-1:]
        known = any(value in node.output for node in self.proto.graph.node)
        what = f"the value '{value}' is no conv layer of" if known else f"no value '{value}' in"
        listed = ", ".join(f"'{name}'" for name in nearest)
        raise LayerError(f"{what} {self.path.name}; nearest: {listed}. {self._hint()}")

    def _no_layers(self) -> str:
        if optimised := for_one_processor(self.proto.graph):
            return f"{self.path.name} has no layer that can be explained: {optimised}"
        nodes = self.proto.graph.node
        alike = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes if "Conv" in node.op_type)
        found = ", ".join(f"{count} {op}" for op, count in alike.items()) or "no convolution at all"
        others = [item.name for item in self.inputs if item.name != self.input_spec.name]
        if alike and others:
            found += f", which may depend on the other inputs ({', '.join(others)}): give them --feed NAME=VALUE"
        return (
            f"{self.path.name} has no layer that can be explained: expected Conv nodes over the image input "
            f"'{self.input_spec.name}', but found {found}; use the float model, not a quantised or fused one"
        )

    def _hint(self) -> str:
        return f"Run 'fsagn-onnx inspect {self.path.name}'."


def load_model(
    path: str | os.PathLike[str],
    *,
    preprocess: str | os.PathLike[str] | InputSpec | None = None,
    image: str | None = None,
    feeds: Mapping[str, Feed] | Iterable[str] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
) -> Model:
    """Read an ONNX file, check it, and find out what its image input expects.

    Args:
        path: The ONNX file; external data must lie in its folder.
        preprocess: A JSON file with fields of the input spec, or a whole spec; it wins over the file's
            metadata and over guesses.
        image: Name of the image input, where it is not the first that can be one.
        feeds: Constants for further inputs: {name: number, list or array}, or texts NAME=VALUE. They become part of
            the model (and of its hash).
        labels: Names of the classes, or a file with them (see `read_class_names`); they win over the `labels` of
            `preprocess`, and these over the file's own.

    Returns:
        The model.

    Raises:
        ModelError: the file cannot be read, is not a valid model, has no image input, or the input spec or a
            constant is wrong, or the class names cannot be read.
        UsageError: a text of `feeds` is not NAME=VALUE.

    Example:
        >>> model = load_model("model.onnx")
        >>> model.default_layer.value, model.input_spec.size
        ('block6', (128, 128))
    """
    path = Path(path)
    given = feeds if isinstance(feeds, Mapping) else parse_feeds(feeds or ())
    proto = read_proto(path)
    override: Mapping[str, Any] | InputSpec | None
    names = given_names(Path(labels) if isinstance(labels, os.PathLike) else labels)
    if preprocess is None or isinstance(preprocess, InputSpec):
        override = preprocess
    else:
        override = read_preprocess(Path(preprocess))
        names = names or preprocess_labels(Path(preprocess))
    try:
        return _described(path, proto, override, image, given, names)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _described(
    path: Path,
    proto: onnx.ModelProto,
    override: Mapping[str, Any] | InputSpec | None,
    image: str | None,
    feeds: Mapping[str, Feed],
    names: tuple[str, ...] | None,
) -> Model:
    respell(proto)
    sort_nodes(proto.graph)
    if not proto.graph.output:
        raise ModelError("the graph has no output")
    if image is not None and image in feeds:
        raise ModelError(f"--feed gives '{image}' a constant, but --input names it as the image")
    if proto.functions:
        check_nodes(proto)
    original = source = bind(proto, feeds)
    if proto.functions:
        source = inliner.inline_local_functions(original)
    content = content_hash(original)
    source = with_batch_axis(source, image)
    with_true_shapes(source)
    source = with_joined_feeds(source, feeds)
    check_nodes(source)
    runnable, left_out = runnable_outputs(source)
    proto = prepared(runnable)
    source = runnable
    check_nodes(proto)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(value_info(item) for item in proto.graph.input if item.name not in initializers)
    metadata = metadata_of(proto)
    spec = settled(input_spec(inputs, metadata, override, graph=proto.graph, image=image), proto, inputs)
    source, proto = _both(source, proto, lambda graph: with_kept_batch(with_chosen_branches(graph, spec), spec))
    group, mixing = held_batch(proto, spec), mixing_node(proto, spec)
    group = 1 if mixing else group
    if group is not None:
        source, proto = _both(source, proto, lambda graph: pin_batch(graph, spec.name, group))
    inputs = tuple(value_info(item) for item in proto.graph.input if item.name not in initializers)
    return Model(
        path=path,
        proto=proto,
        source=source,
        content=content,
        inputs=inputs,
        outputs=tuple(value_info(item) for item in proto.graph.output),
        opset=opset_of(proto),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        metadata=metadata,
        labels=names or labels_of(metadata) or graph_labels(original.graph),
        input_spec=spec,
        group=group,
        mixing=mixing,
        left_out=left_out,
        named=names is not None,
    )


def _both(
    source: onnx.ModelProto, proto: onnx.ModelProto, change: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Change the file's graph and the prepared one; they stay one object where they are."""
    changed = change(proto)
    return changed if source is proto else change(source), changed
