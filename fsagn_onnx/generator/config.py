"""What a generator is: its layer, taps, sizes and widths. Stored as JSON beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal

from ..errors import CheckpointError, UsageError
from ..model import Layer, Model
from ..model.input_spec import LAYOUTS, MAX_SIDE, SideLengths
from ..runtime.masks import grid_of, grid_stride
from ..runtime.metadata import AscendingAreas
from ..runtime.variant import MOST_FILTERS
from ..schema import Meta, Word, checked, one_of, shown, within

AREAS = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
"""The grid of areas at which retention is predicted: as far as masks are learnt unless told, and the head always is."""

SMALLEST_INPUT = 8
"""Pixels each way that an input must have: two cells of the finest grid."""

MOST_PARTICULAR: Final = 100.0

MAX_TAPS: Final = 32
MAX_WIDTH: Final = 4096
"""Channels of the generator's own layers, at most."""


@dataclass(frozen=True)
class Tap:
    """A value of the CNN that the generator reads.

    Attributes:
        value: ONNX value name.
        channels: number of channels.
        stride: input pixels per cell.
    """

    value: Word
    channels: Annotated[int, within(1, MOST_FILTERS)]
    stride: Annotated[int, within(1, MAX_SIDE)]


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything that fixes the shapes of a generator's weights.

    Attributes:
        layer: value name of the explained conv layer.
        filters: C, its number of channels.
        encoder: ``shared`` (the CNN's own taps) or ``own`` (a small trained encoder).
        taps: deepest first; the first one is the explained layer.
        input_channels: channels of the model's input.
        layout: ``NCHW`` or ``NHWC``, of the model's input.
        size: ``(H, W)`` of the model's input in pixels.
        stride: input pixels per cell of the generator's grid, 4 or 8.
        areas: the grid of areas of the retention head, rising.
        width: channels of the trunk.
        maps: R, number of shared maps.
        hidden: channels of the per-filter head.
        sigma: standard deviation in cells of the Gaussian on the saliency, once it is trained.
        classes: it has learnt to be asked about classes.
        particular: by how much what is particular to a filter is brought out, once it is trained (`told_apart`); 0: not
            at all, and always 0 with an encoder of its own, whose files of some filters know no others.
    """

    layer: Word
    filters: Annotated[int, within(1, MOST_FILTERS)]
    encoder: Literal["shared", "own"]
    taps: Annotated[tuple[Tap, ...], Meta(min_length=1, max_length=MAX_TAPS)]
    input_channels: Annotated[int, within(1, 4)]
    layout: Annotated[str, one_of(LAYOUTS)]
    size: SideLengths
    stride: Annotated[int, within(1, MAX_SIDE)]
    areas: AscendingAreas = AREAS
    width: Annotated[int, within(1, MAX_WIDTH)] = 48
    maps: Annotated[int, within(1, MAX_WIDTH)] = 64
    hidden: Annotated[int, within(1, MAX_WIDTH)] = 48
    sigma: Annotated[float, Meta(gt=0, le=100, description="a number in (0, 100]")] = 0.6
    classes: bool = False
    particular: Annotated[float, Meta(ge=0, le=MOST_PARTICULAR, description="a number in [0, 100]")] = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Cells ``(h, w)`` of the grid at the model's input size."""
        return grid_of(self.size, self.stride)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> GeneratorConfig:
        """Read back what `to_dict` wrote.

        Raises:
            CheckpointError: if a field is missing, unknown or of the wrong kind.
        """
        return checked(values, GeneratorConfig, lambda said: CheckpointError(f"the checkpoint's generator: {said}"))


def _narrowest(model: Model, layer: Layer) -> Tap:
    """The layer, or the value that its conv reads where that has fewer channels (inverted bottlenecks widen first).

    A graph that was prepared (quantised, half) keeps to its layers: other values of it may be whole numbers.
    """
    own = Tap(layer.value, layer.channels, layer.stride)
    if model.source is not model.proto:
        return own
    reads = {output: node.input[0] for node in model.proto.graph.node for output in node.output if node.input}
    before = reads.get(layer.conv, "")
    quantisers = {
        output: node.input[0]
        for node in model.proto.graph.node
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")
        for output in node.output
    }
    before = quantisers.get(before, before)  # whole numbers are no feature map; what they were rounded from is
    shape = model.shapes.get(before, ())
    narrower = len(shape) == 4 and shape[2:] == layer.shape[1:] and shape[1] < layer.channels
    return Tap(before, shape[1], layer.stride) if narrower and before in reads else own


def choose_taps(model: Model, layer: Layer, stride: int) -> tuple[Tap, ...]:
    """The explained layer and, at each finer stride down to the grid's, what the last conv layer before it makes.

    Where that conv reads fewer channels than it makes, and at the same size, its input is taken: the whole state of a
    residual network between two blocks, and a cheaper lateral convolution.

    Args:
        model: the CNN.
        layer: the explained layer.
        stride: of the generator's grid.

    Returns:
        Taps, deepest first; strides fall, none is finer than ``stride`` unless the explained layer itself is.
    """
    before = []
    for candidate in model.layers:
        if candidate.value == layer.value:
            break
        before.append(candidate)
    taps = [Tap(layer.value, layer.channels, layer.stride)]
    for candidate in reversed(before):
        finer = candidate.stride < taps[-1].stride
        if finer and candidate.stride >= stride and min(candidate.shape[1:]) > 1:
            taps.append(_narrowest(model, candidate))
    return tuple(taps)


def require_taps(model: Model, config: GeneratorConfig, source: str) -> None:
    """Check that a model has the values that a generator reads, and takes images of its size.

    Args:
        model: the CNN.
        config: of a generator that someone says is the model's.
        source: what it comes from, for the message.

    Raises:
        CheckpointError: naming the value that the model has not, or not so.
    """
    spec = model.input_spec
    found = (spec.layout, spec.channels, spec.size)
    if found != (config.layout, config.input_channels, config.size):
        raise CheckpointError(
            f"{source} was trained for images of {config.layout}, {config.input_channels} channels and {config.size} "
            f"px, but {model.path} takes {found[0]}, {found[1]} channels and {found[2]} px"
        )
    for tap in (Tap(config.layer, config.filters, config.taps[0].stride), *config.taps):
        shape = model.shapes.get(tap.value, ())
        if len(shape) != 4 or shape[1] != tap.channels:
            raise CheckpointError(
                f"{source} reads {tap.channels} channels of value {shown(tap.value)}, but in {model.path} "
                f"{f'that has the shape {list(shape)}' if shape else 'there is no such value'}"
            )


def _another(model: Model, layer: Layer) -> str:
    wide = [other.value for other in model.layers if min(other.shape[1:]) >= 2 and not other.reason.startswith("no")]
    return f"choose another, for example {wide[-1]!r}" if wide else "and no other layer of the model has one either"


def make_config(
    model: Model, layer: Layer, encoder: Literal["shared", "own"] = "shared", **widths: Any
) -> GeneratorConfig:
    """The default generator for a layer of a model.

    Raises:
        UsageError: if the layer has no spatial extent.
    """
    if min(layer.shape[1:]) < 2:
        raise UsageError(
            f"layer {layer.value!r} has a {layer.shape[1]}x{layer.shape[2]} feature map: there is no area to find; "
            f"{_another(model, layer)}"
        )
    if encoder == "own":
        widths["particular"] = 0.0
    spec = model.input_spec
    stride = grid_stride(spec.size)
    if min(grid_of(spec.size, stride)) < 2 or min(spec.size) < SMALLEST_INPUT:
        raise UsageError(
            f"the input of {spec.size[0]}x{spec.size[1]} px is too small to find areas in: expected at least "
            f"{SMALLEST_INPUT} px each way"
        )
    return GeneratorConfig(
        layer=layer.value,
        filters=layer.channels,
        encoder=encoder,
        taps=choose_taps(model, layer, stride),
        input_channels=spec.channels,
        layout=spec.layout,
        size=spec.size,
        stride=stride,
        **widths,
    )
