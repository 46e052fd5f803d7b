"""`TappedModule`: an image batch in, the feature maps of the tapped values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
import torch
from torch import Tensor, nn

from ..errors import ConversionError, LayerError
from ..model.batch import fixed_batch
from ..model.cut import cut
from ..model.model import Model
from ..model.quantised import rounds_by_batch
from .assembly import Assembly, Unsupported, assemble, unsupported_nodes
from .normal_form import rewritten
from .parity import check_parity
from .rewrites.graph import Graph

__all__ = ["TappedModule", "convert", "unsupported"]


class TappedModule(nn.Module):
    """The part of a CNN between its input and its deepest tap, as torch modules.

    It is in eval mode and stays there (`train()` does not change it: batch norm keeps its statistics), its
    parameters are frozen, and it is differentiable with respect to its input.

    Attributes:
        input_name: the ONNX model's input.
        taps: names of the values in the result, in the order asked for.
        outputs: names of the model's own outputs in the result, behind the taps; empty unless asked for.
        chunk: images that the graph takes at once, where it holds on to the batch size of its file; None: any.
    """

    def __init__(self, assembly: Assembly, input_name: str, taps: Sequence[str], outputs: Sequence[str] = ()) -> None:
        super().__init__()
        self.input_name = input_name
        self.taps = tuple(taps)
        self.outputs = tuple(outputs)
        self.chunk: int | None = None
        self.steps = assembly.steps
        self.nodes = nn.ModuleList(assembly.modules)
        self._constants = {name: f"constant_{index}" for index, name in enumerate(assembly.constants)}
        for name, buffer in self._constants.items():
            self.register_buffer(buffer, assembly.constants[name])
        self.eval()
        self.requires_grad_(False)

    @property
    def values(self) -> tuple[str, ...]:
        """The keys of the result: the taps, then those outputs that are no taps."""
        return tuple(dict.fromkeys((*self.taps, *self.outputs)))

    def train(self, mode: bool = True) -> TappedModule:
        """Stay in eval mode, whatever `mode` is."""
        del mode
        return super().train(False)

    def forward(self, x: Tensor, *, watch: Callable[[str, Tensor], Tensor | None] | None = None) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            x: input batch (N, ...) in the model's own layout; any N, any size that the graph allows.
            watch: called with (value name, value) for every value as it is made; a tensor that it returns takes the
                value's place.

        Returns:
            {value: tensor} in the order of `values`; a tap is a feature map (N, C, h, w).
        """
        if self.chunk is None or len(x) == self.chunk:
            return self._run(x, watch)
        parts, count = [], len(x)
        for start in range(0, count, self.chunk):
            part = x[start : start + self.chunk]
            if len(part) < self.chunk:
                part = torch.cat([part, part[-1:].expand(self.chunk - len(part), *part.shape[1:])])
            parts.append(self._run(part, watch))
        return {name: _joined([part[name] for part in parts], self.chunk, count) for name in self.values}

    def constant(self, name: str) -> Tensor:
        """A constant that some step reads."""
        return self.get_buffer(self._constants[name])

    def _run(self, x: Tensor, watch: Callable[[str, Tensor], Tensor | None] | None) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {name: self.get_buffer(buffer) for name, buffer in self._constants.items()}
        values[self.input_name] = x
        for step, module in zip(self.steps, self.nodes, strict=True):
            keywords = {key: values[name] for key, name in step.keywords}
            made = module(*(values[name] for name in step.inputs), **keywords)
            for name, value in zip(step.outputs, made if isinstance(made, (tuple, list)) else (made,), strict=False):
                values[name] = value
                if watch is not None:
                    other = watch(name, value)
                    values[name] = value if other is None else other
            for name in step.last:
                del values[name]
        return {name: values[name] for name in self.values}


def _joined(parts: Sequence[Tensor], chunk: int, count: int) -> Tensor:
    """The results of all chunks; what has no batch axis is that of the first."""
    if parts[0].dim() and parts[0].shape[0] == chunk:
        return torch.cat(list(parts))[:count]
    return parts[0]


def convert(model: Model, taps: Sequence[str], *, outputs: bool = False, check: bool = True) -> TappedModule:
    """Turn the part of a model that some of its values need into a torch module.

    Args:
        model: the CNN; not changed.
        taps: values to return, any values that nodes of the graph make.
        outputs: keep the model's own outputs in the result too, after the taps.
        check: compare the module with onnxruntime at every tap.

    Raises:
        LayerError: no taps, or a tap is not a value of the graph.
        ConversionError: some ops have no converter (all are listed), or a node cannot be converted.
        ParityError: the module computes something else than onnxruntime does.
    """
    source = model.path.name
    if not taps:
        raise LayerError(f"{source}: no value to tap; 'fsagn-onnx inspect' lists them")
    taps = tuple(dict.fromkeys(taps))
    model.require_size(taps)
    try:
        piece = cut(model.proto, taps, keep_outputs=outputs, weights=False)
    except LayerError as error:
        raise LayerError(f"{source}: {error}. Run 'fsagn-onnx inspect {source}'.") from error
    module = _converted(piece, model, taps)
    if check:
        check_parity(model, module)
    return module


def _converted(piece: onnx.ModelProto, model: Model, taps: Sequence[str]) -> TappedModule:
    source, graph = model.path.name, _rewritten(piece, model)
    inputs = graph.inputs
    if len(inputs) != 1:
        raise ConversionError(f"{source}: the tapped values need {len(inputs)} inputs ({', '.join(inputs)}), not one")
    module = TappedModule(assemble(graph, source, model.shapes), inputs[0], taps, graph.outputs[len(taps) :])
    size = fixed_batch(piece, inputs[0])
    alone = model.group is not None or rounds_by_batch(piece)
    if size is not None and (alone or not _batches(module, model, size)):
        module.chunk = size
    return module


def _batches(module: TappedModule, model: Model, size: int) -> bool:
    """Whether the graph, exported for `size` images, computes the same for more of them at once."""
    spec = model.input_spec
    shape = spec.sample_shape
    x = torch.rand(2 * size, *shape, generator=torch.Generator().manual_seed(0))
    x[:size] /= 2  # so that a range taken over the whole batch shows
    kind = next(v.type.tensor_type.elem_type for v in model.proto.graph.input if v.name == module.input_name)
    x = (255 * x).to(torch.uint8) if kind == onnx.TensorProto.UINT8 else x
    x = x.half() if kind == onnx.TensorProto.FLOAT16 else x
    with torch.no_grad():
        try:
            first, both = module(x[:size]), module(x)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    return all(
        both[name].shape[:1] == (2 * size,) and torch.allclose(both[name][:size], value, rtol=1e-3, atol=1e-3)
        for name, value in first.items()
        if value.is_floating_point()
    )


def unsupported(model: Model, tap: str) -> list[Unsupported]:
    """All ops between the input and `tap` without a torch converter; empty where `convert` can go ahead."""
    return unsupported_nodes(_rewritten(cut(model.proto, [tap], weights=False), model).to_proto(weights=False))


def _rewritten(piece: onnx.ModelProto, model: Model) -> Graph:
    """The normalised graph of a cut without weights; these stay in the model."""
    return rewritten(piece, weights={tensor.name: tensor for tensor in model.proto.graph.initializer})
