"""Whether a training step fits into memory, found out by one forward pass that keeps nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ..conversion import TappedModule
from ..model import InputSpec, Model
from .memory import free_memory
from .options import TrainingOptions
from .schedule import input_size

GB: Final = 10**9
ADVISED: Final = 0.5
"""Share of the free memory that the feature maps of a step may take where its images are advised: their gradients, the
generator and what the allocator keeps come on top (18 GB were taken where 10.2 were counted)."""

FIRST_LOOK, LOOK_BYTES = 32, 8 * GB
"""Images of the first look, which scales the encoder, and what all their values may take; a step has fewer of both."""

CLEARLY: Final = 2
"""Where so many times what the graph's shapes say is free, nothing is measured."""


def kept_bytes(module: TappedModule, spec: InputSpec) -> int | None:
    """Bytes of feature maps that a backward pass through the CNN needs, for one image of the model's own size.

    They are counted as torch would keep them, and not kept.

    Args:
        module: the converted CNN.
        spec: its input.

    Returns:
        None where the graph does not take the image; what follows says why.
    """
    count = module.chunk or 1
    known = {_storage(tensor).cdata for tensor in (*module.parameters(), *module.buffers())}
    seen: dict[int, StorageWeakRef] = {}  # a reference holds its number, so that no later map gets it

    def count_once(tensor: Tensor) -> int:
        reference = _storage(tensor)
        if reference.cdata not in known and reference.cdata not in seen:
            seen[reference.cdata] = reference
            sizes.append(tensor.untyped_storage().nbytes())
        return 0

    sizes: list[int] = []
    image = torch.zeros((count, *spec.sample_shape), requires_grad=True)
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count_once, _lost):
            module(image)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None
    return sum(sizes) // count


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _lost(size: int) -> Tensor:
    raise RuntimeError(f"a map of {size} bytes was counted, not kept")


def step_bytes(kept: int, spec: InputSpec, options: TrainingOptions, *, classes: bool) -> int:
    """Bytes that the largest step of a training keeps for each of its images, at the least.

    Args:
        kept: see `kept_bytes`.
        spec: the model's input.
        options: how it is trained.
        classes: classes are asked about too.
    """
    largest = max(height * width for height, width in {input_size(spec, options, n) for n in range(options.steps)})
    pairs = options.filters_per_image + (options.classes_per_image if classes else 0)
    return pairs * kept * largest // (spec.size[0] * spec.size[1])


def shape_bytes(model: Model) -> int:
    """Bytes of all values of a model for one image, in float32, as far as their shapes are known."""
    made = {name for node in model.proto.graph.node for name in node.output}
    shapes = model.shapes
    batch = next(iter(shapes.get(model.input_spec.name, ())), 1)
    return 4 * sum(math.prod(shape) for name, shape in shapes.items() if name in made) // max(1, batch)


def first_look(model: Model, options: TrainingOptions) -> int:
    """How many images the encoder is scaled by: fewer where they are large, but at least as many as a step has.

    It depends on the graph and the options alone, so that a resumed run, and every worker, finds the same.
    """
    fitting = LOOK_BYTES // max(1, shape_bytes(model))
    return min(FIRST_LOOK, max(fitting, options.images_per_step))


@dataclass(frozen=True)
class StepMemory:
    """What a training step needs and what there is.

    Attributes:
        needed: bytes of feature maps that it keeps for each of its images, at the least.
        free: bytes of memory that are free.
        images: how many images a step is to have.
    """

    needed: int
    free: int
    images: int

    @property
    def fitting(self) -> int:
        """How many of the images fit; 0: not even one."""
        return min(self.images, self.free // max(1, self.needed))

    @property
    def advised(self) -> int:
        """How many images to train with, at least one where one fits."""
        return min(self.fitting, max(1, int(ADVISED * self.free) // max(1, self.needed)))

    def __str__(self) -> str:
        start = f"a training step of {self.images} images keeps {self.images * self.needed / GB:.1f} GB of feature maps"
        if self.fitting:
            return (
                f"{start}, and {self.free / GB:.1f} GB of memory are free: train with --images-per-step {self.advised}"
            )
        return (
            f"{start}, one of one image {self.needed / GB:.1f} GB, and {self.free / GB:.1f} GB of memory are free: "
            "choose a larger machine, or a smaller input size with --preprocess if the model takes one"
        )


def step_memory(
    module: Callable[[], TappedModule], model: Model, options: TrainingOptions, *, classes: bool
) -> StepMemory | None:
    """Whether the largest step of a training fits into this machine's memory, before anything else is done.

    Args:
        module: gives the converted CNN, on the CPU; not asked where memory is plenty.
        model: the CNN.
        options: how it is trained.
        classes: classes are asked about too.

    Returns:
        What it needs where that is measured; None where it is clear that it fits, or nothing is known.
    """
    free = free_memory()
    rough = step_bytes(shape_bytes(model), model.input_spec, options, classes=classes)
    if free is None or CLEARLY * options.images_per_step * rough <= free:
        return None
    kept = kept_bytes(module(), model.input_spec)
    if kept is None:
        return None
    return StepMemory(step_bytes(kept, model.input_spec, options, classes=classes), free, options.images_per_step)
