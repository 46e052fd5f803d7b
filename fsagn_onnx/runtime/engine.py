"""Engines: what turns a batch of images and filter ids into area ranks.

`FileEngine` runs an explainer file. Training-free methods offer the same `Engine` for a plain model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, ModelError
from ..model.input_spec import InputSpec
from ..model.onnx_file import check_external_data, read_proto
from .classes import Classes, classes_of_explainer
from .metadata import KEY, ExplainerMetadata
from .session import DTYPES, Port, Session
from .tuning import Tuning
from .variant import FILL, check_filters, check_request, pick

Array = NDArray[Any]

FILTERS: Final = "filters"
RESULTS: Final = ("filter_ids", "filter_peaks", "area_rank", "retention")
"""The explainer's own outputs, in the order of the contract."""


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass over a batch gives; N images, K slots, a grid of h x w cells, A areas.

    Attributes:
        outputs: the model's own outputs by name; empty where the engine has none.
        filter_ids: int64 (N, K); -1 marks a slot that stayed empty.
        filter_peaks: float32 (N, K), the largest value of F_k.
        area_rank: float32 (N, K, h, w) in (0, 1], smaller is kept first.
        retention: float32 (N, K, A), predicted at the areas of the metadata, or None.
    """

    outputs: Mapping[str, Array]
    filter_ids: Array
    filter_peaks: Array
    area_rank: Array
    retention: Array | None


class EngineMetadata(Protocol):
    """What every engine says about itself; `ExplainerMetadata` is one."""

    @property
    def model_sha256(self) -> str:
        """Content hash of the model."""

    @property
    def layer(self) -> str:
        """The tapped value."""

    @property
    def filters(self) -> int:
        """Number of filters of the layer."""

    @property
    def input(self) -> InputSpec:
        """How an image becomes the model's input."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes."""

    @property
    def areas(self) -> tuple[float, ...]:
        """Ascending areas of `Pass.retention`."""


class Engine(Protocol):
    """Turns a batch and filter ids into area ranks."""

    @property
    def metadata(self) -> EngineMetadata:
        """Input, layer, filters, labels, areas."""

    @property
    def provider(self) -> str:
        """The onnxruntime provider that computes."""

    @property
    def classes(self) -> Classes:
        """How the model's outputs are read."""

    def run(self, batch: NDArray[np.float32], filters: NDArray[np.int64]) -> Pass:
        """Explain filters (N, K) of a preprocessed batch (N, ...)."""


class FileEngine:
    """Runs an explainer file in onnxruntime.

    Attributes:
        path: the file.
        metadata: its description.
        provider: the provider that computes.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        session: what computes.

    Args:
        path: the explainer file.
        providers: see `Session`.
        threads: see `Session`.
        tuning: see `Session`.

    Raises:
        ExplainerError: not an explainer, too new, or its inputs and outputs are not those of the contract.
        UsageError: see `Session`.
    """

    metadata: ExplainerMetadata

    def __init__(
        self,
        path: str | Path,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.path = Path(path)
        text = read_metadata(self.path)
        if text is None:
            raise ExplainerError(
                f"not an explainer: {path} has no metadata '{KEY}'; make one with 'fsagn-onnx train {path} IMAGES...'"
            )
        self.metadata = ExplainerMetadata.from_json(text, str(path))
        try:
            self.session = Session(self.path, providers, threads, tuning)
        except ModelError as error:
            raise ExplainerError(str(error)) from error
        self.provider = self.session.provider
        self.inputs, self.outputs = self.session.inputs, self.session.outputs
        self._check_ports()
        self._model_outputs = tuple(
            port.name for port in self.session.outputs if port.name not in RESULTS and port.dtype.startswith("tensor(")
        )

    def _check_ports(self) -> None:
        inputs = {port.name: port for port in self.session.inputs}
        outputs = {port.name: port for port in self.session.outputs}
        variant = self.metadata.variant
        wanted = {self.metadata.input.name} | ({FILTERS} if variant.slots is None else set())
        if set(inputs) != wanted:
            raise self._broken(f"inputs must be {_names(wanted)}, but are {_names(inputs)}")
        if missing := [name for name in RESULTS if name not in outputs]:
            raise self._broken(f"outputs must include {_names(RESULTS)}, but {_names(missing)} is missing")
        image = inputs[self.metadata.input.name]
        _check(self, image, len(self._sample_shape) + 1, "uint8" if variant.preprocessing else "a number")
        for port, rank in (
            *((inputs[name], 2) for name in wanted & {FILTERS}),
            *zip((outputs[name] for name in RESULTS), (2, 2, 4, 3), strict=True),
        ):
            _check(self, port, rank, "floating point" if port.name in RESULTS[1:] else "int64")
        declared = image.shape[1:]
        if not variant.preprocessing and any(
            a is not None and a != b for a, b in zip(declared, self._sample_shape, strict=True)
        ):
            raise self._broken(f"input '{image.name}' is {declared} per image, its metadata says {self._sample_shape}")
        batches = {port.shape[0] for port in (image, *(outputs[name] for name in RESULTS))}
        if image.shape[0] is not None and not batches <= {None, image.shape[0]}:
            raise self._broken(f"inputs and outputs must have the same batch, but have {batches}")
        grid_areas = outputs["retention"].shape[2]
        if grid_areas is not None and grid_areas != len(self.metadata.areas):
            raise self._broken(f"retention has {grid_areas} areas, its metadata names {len(self.metadata.areas)}")

    @property
    def _sample_shape(self) -> tuple[int, ...]:
        spec = self.metadata.input
        height, width = spec.size
        return (spec.channels, height, width) if spec.layout == "NCHW" else (height, width, spec.channels)

    def _broken(self, what: str) -> ExplainerError:
        return ExplainerError(f"{self.path}: {what}; export the explainer again")

    @cached_property
    def classes(self) -> Classes:
        """How the outputs of the model inside are read: as its graph says, or the user who trained the explainer."""
        return classes_of_explainer(read_proto(self.path, external_data=False), self.metadata, RESULTS)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes (without external data)."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def check_request(self, slots: tuple[int, ...]) -> None:
        """Refuse what a file with a fixed request cannot answer.

        Raises:
            UsageError: naming what the file answers.
        """
        check_request(slots, self.metadata.variant, str(self.path))

    def run(self, batch: Array, filters: NDArray[np.int64]) -> Pass:
        """Explain filters (N, K) of a preprocessed batch (N, ...), or of pixels where the file preprocesses.

        Raises:
            FsagnError: onnxruntime failed, for example for want of memory.
            UsageError: filters that there are not, or that a file with a fixed request does not answer.
        """
        check_filters(filters, self.metadata.filters, self.metadata.layer)
        fixed = self.metadata.variant.slots is not None
        feeds: dict[str, Array] = {self.metadata.input.name: batch}
        if fixed:
            for row in np.unique(filters, axis=0):
                self.check_request(tuple(row.tolist()))
        else:
            feeds[FILTERS] = filters
        computed = self.session.run((*self._model_outputs, *RESULTS), feeds)
        ids, peaks, rank, retention = (computed.pop(name) for name in RESULTS)
        if fixed:
            places = pick(ids, peaks, filters)
            rows, safe = np.arange(len(ids))[:, None], np.maximum(places, 0)
            ids = np.where(places < 0, FILL, ids[rows, safe])
            peaks, rank, retention = peaks[rows, safe], rank[rows, safe], retention[rows, safe]
        return Pass(
            outputs=computed,
            filter_ids=ids,
            filter_peaks=peaks.astype(np.float32, copy=False),
            area_rank=rank.astype(np.float32, copy=False),
            retention=retention.astype(np.float32, copy=False) if self.metadata.areas else None,
        )

    def warm_up(self, images: int = 1, slots: int = 5) -> Pass:
        """Compute once on zeros, so that the first request finds memory and kernels ready; what came out."""
        kind = np.uint8 if self.metadata.variant.preprocessing else np.float32
        shape = (*self.metadata.input.size, 3) if kind is np.uint8 else self._sample_shape
        asked = self.metadata.variant.slots or (FILL,) * min(slots, self.metadata.filters)
        return self.run(np.zeros((images, *shape), dtype=kind), np.tile(np.array(asked, dtype=np.int64), (images, 1)))

    def load_proto(self) -> onnx.ModelProto:
        """The file's graph with its weights, read anew at every call."""
        return read_proto(self.path)

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def read_metadata(path: str | Path, key: str = KEY) -> str | None:
    """The text of a metadata key of an ONNX file, or None; its external weights are checked, not read.

    Raises:
        ExplainerError: the file cannot be read, is no ONNX file, or its external data is missing or outside of
            its folder.
    """
    try:
        proto = read_proto(path, external_data=False)
        check_external_data(path, proto)
    except ModelError as error:
        raise ExplainerError(f"{error}; expected a model or an explainer") from error
    return next((entry.value for entry in proto.metadata_props if entry.key == key), None)


def _names(names: Sequence[str] | set[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in (sorted(names) if isinstance(names, set) else names))


def _check(engine: FileEngine, port: Port, rank: int, expected: str) -> None:
    dtype = DTYPES.get(port.dtype)
    kind = {"floating point": np.floating, "int64": np.int64, "uint8": np.uint8, "a number": np.number}[expected]
    if dtype is None or not np.issubdtype(dtype, kind) or len(port.shape) != rank:
        raise engine._broken(
            f"'{port.name}' must be {expected} of rank {rank}, but is {port.dtype} of rank {len(port.shape)}"
        )
