"""An explainer file in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, ModelError, UsageError
from ..model.content_hash import file_hash
from ..model.onnx_file import check_external_data, read_proto
from ..model.shapes import value_types
from .classes import Classes, classes_of_explainer
from .contract import (
    AGAINST,
    CLASS_IDS,
    CLASSES,
    CONTRIBUTIONS,
    DECISION_RESULTS,
    FILTER_IDS,
    FILTER_PEAKS,
    FILTERS,
    OWN_OUTPUTS,
    RANKS,
    RESULTS,
    RETENTION,
)
from .direction_session import DirectionSession, check_directions
from .engine import Array, Decisions, Directed, Engine, Pass
from .metadata import KEY, ExplainerMetadata
from .plain_graph import plain_graph
from .session import DTYPES, Port, Session
from .tuning import Tuning
from .variant import FILL, check_filters, pick


class FileEngine(Engine):
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
        tap: give the layer's feature map among the outputs, where the file contains the model; and take any request
            for its filters and the model's own input, whatever its `Variant` fixes inside.

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
        *,
        tap: bool = False,
    ) -> None:
        self.path = Path(path)
        text = read_metadata(self.path)
        if text is None:
            raise ExplainerError(
                f"not an explainer: {path} has no metadata '{KEY}'; make one with 'fsagn-onnx train {path} IMAGES...'"
            )
        self.metadata = self._written = ExplainerMetadata.from_json(text, str(path))
        self._session_options = (providers, threads, tuning)
        try:
            self.session = Session(self._tapped() if tap else self.path, providers, threads, tuning, str(path))
        except ModelError as error:
            raise ExplainerError(str(error)) from error
        self.provider = self.session.provider
        self.inputs, self.outputs = self.session.inputs, self.session.outputs
        self._check_ports()
        names = [port.name for port in self.session.outputs if port.dtype.startswith("tensor(")]
        self._model_outputs = tuple(name for name in names if name not in OWN_OUTPUTS)

    def _tapped(self) -> onnx.ModelProto:
        """The plain graph, with the layer as one more output; `metadata` then describes it."""
        proto, self.metadata = plain_graph(self.load_proto(), self.metadata)
        layer = self.metadata.layer
        if self.contains_model and layer not in {item.name for item in proto.graph.output}:
            proto.graph.output.add(name=layer).type.CopyFrom(value_types(proto, [layer])[layer])
        return proto

    def _check_ports(self) -> None:
        inputs = {port.name: port for port in self.session.inputs}
        outputs = {port.name: port for port in self.session.outputs}
        variant = self.metadata.variant
        asked = {FILTERS, CLASSES} if self.answers_classes else {FILTERS}
        own = OWN_OUTPUTS if self.answers_classes else RESULTS
        wanted = {self.metadata.input.name} | (asked if variant.slots is None else set())
        if set(inputs) != wanted:
            raise self._broken(f"inputs must be {_names(wanted)}, but are {_names(inputs)}")
        if missing := [name for name in own if name not in outputs]:
            raise self._broken(f"outputs must include {_names(own)}, but {_names(missing)} is missing")
        image = inputs[self.metadata.input.name]
        _check(self, image, len(self.metadata.input.sample_shape) + 1, "uint8" if variant.preprocessing else "a number")
        for port, rank in (
            *((inputs[name], 2) for name in wanted & asked),
            *((outputs[name], RANKS[name]) for name in own),
        ):
            whole = port.name in (*asked, FILTER_IDS, CLASS_IDS)
            _check(self, port, rank, "int64" if whole else "floating point")
        declared = image.shape[1:]
        if not variant.preprocessing and any(
            a is not None and a != b for a, b in zip(declared, self.metadata.input.sample_shape, strict=True)
        ):
            raise self._broken(
                f"input '{image.name}' is {declared} per image, its metadata says {self.metadata.input.sample_shape}"
            )
        batches = {port.shape[0] for port in (image, *(outputs[name] for name in own))}
        if image.shape[0] is not None and not batches <= {None, image.shape[0]}:
            raise self._broken(f"inputs and outputs must have the same batch, but have {batches}")
        grid_areas = outputs[RETENTION].shape[2]
        if grid_areas is not None and grid_areas != len(self.metadata.areas):
            raise self._broken(f"retention has {grid_areas} areas, its metadata names {len(self.metadata.areas)}")

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def contains_model(self) -> bool:
        """Whether the graph computes the model's own outputs too."""
        return self.metadata.encoder == "shared"

    def _broken(self, what: str) -> ExplainerError:
        return ExplainerError(f"{self.path}: {what}; export the explainer again")

    @cached_property
    def classes(self) -> Classes:
        """How the outputs of the model inside are read: as its graph says, or the user who trained the explainer."""
        return classes_of_explainer(read_proto(self.path, external_data=False), self._written, OWN_OUTPUTS)

    def _axes(self) -> dict[str, int | None]:
        return {item.name: item.axis for item in self.classes.classifier.outputs}

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes (without external data)."""
        return file_hash(self.path)

    @property
    def answers_classes(self) -> bool:
        """Whether the file can be asked about classes."""
        return self.metadata.answers_classes

    def silent(self, what: str) -> str:
        """See `Engine`; a file of some filters says so."""
        if self.metadata.variant.filters:
            return f"{self.source} holds some filters only and cannot be asked about {what}: export one of all filters"
        return super().silent(what)

    def run(self, batch: Array, filters: NDArray[np.int64]) -> Pass:
        """Explain filters (N, K) of a preprocessed batch (N, ...), or of pixels where the file preprocesses.

        Raises:
            FsagnError: onnxruntime failed, for example for want of memory.
            UsageError: filters that there are not, or that a file with a fixed request does not answer.
        """
        return self._pass(self.compute((*self._model_outputs, *RESULTS), batch, filters))

    def decide(self, batch: Array, filters: NDArray[np.int64], classes: NDArray[np.int64]) -> Pass:
        """See `Engine`.

        Raises:
            FsagnError: onnxruntime failed, for example for want of memory.
            UsageError: it cannot be asked about classes, or about these; or see `run`.
        """
        if not self.answers_classes:
            raise UsageError(self.silent("classes"))
        if self.metadata.variant.slots is not None and (classes.shape[1] != 1 or (classes != FILL).any()):
            raise UsageError(f"{self.source} answers a request fixed inside: about the class with the highest score")
        computed = self.compute((*self._model_outputs, *OWN_OUTPUTS), batch, filters, classes)
        found = {name: computed.pop(name) for name in DECISION_RESULTS}
        ids = found.pop(CLASS_IDS)
        numbers = [values.astype(np.float32, copy=False) for values in found.values()]
        decisions = Decisions(ids, *numbers)
        if not self.metadata.areas:
            decisions = replace(decisions, evidence_retention=None)
        return replace(self._pass(computed), decisions=decisions)

    def direct(self, batch: Array, directions: NDArray[np.float32]) -> Directed:
        """See `Engine`.

        Raises:
            ExplainerError: a variant in which the place of the directions is lost.
            FsagnError: onnxruntime failed, for example for want of memory.
            UsageError: it cannot be asked about directions, or these are of another length, all zero or not finite.
        """
        if not self.answers_classes:
            raise UsageError(self.silent("directions"))
        asked = check_directions(directions, self.metadata.filters, self.metadata.layer)
        rank, retention, activation = self._directions.run(batch, asked)
        return Directed(activation, rank, retention if self.metadata.areas else None)

    @cached_property
    def _directions(self) -> DirectionSession:
        proto, spec = self.load_proto(), self.metadata.input
        return DirectionSession(proto, spec.name, self.metadata.filters, self._session_options, str(self.path))

    def _pass(self, computed: dict[str, Array]) -> Pass:
        ids, peaks, rank, retention = (computed.pop(name) for name in RESULTS)
        return Pass(
            outputs=computed,
            filter_ids=ids,
            filter_peaks=peaks.astype(np.float32, copy=False),
            area_rank=rank.astype(np.float32, copy=False),
            retention=retention.astype(np.float32, copy=False) if self.metadata.areas else None,
        )

    def compute(
        self, outputs: Sequence[str], batch: Array, filters: NDArray[np.int64], classes: NDArray[np.int64] | None = None
    ) -> dict[str, Array]:
        """Some outputs of the graph, by name, as they come; see `run`. No classes: the one with the highest score."""
        answers, about = self.answers_classes, self.metadata.filters
        check_filters(filters, about, self.metadata.layer, AGAINST if answers else FILL)
        feeds: dict[str, Array] = {self.metadata.input.name: batch}
        if self.metadata.variant.slots is None:
            feeds[FILTERS] = filters
            if answers:
                feeds[CLASSES] = np.full((len(filters), 1), FILL, dtype=np.int64) if classes is None else classes
            return self.session.run(outputs, feeds, self._axes)
        for row in np.unique(filters, axis=0):
            self.check_request(tuple(row.tolist()))
        computed = self.session.run(tuple(dict.fromkeys((*outputs, FILTER_IDS, FILTER_PEAKS))), feeds, self._axes)
        places = pick(computed[FILTER_IDS], computed[FILTER_PEAKS], filters)
        rows, safe = np.arange(len(places))[:, None], np.maximum(places, 0)
        picked = {name: computed[name][rows, safe] if name in RESULTS else computed[name] for name in outputs}
        if CONTRIBUTIONS in picked:
            picked[CONTRIBUTIONS] = np.take_along_axis(picked[CONTRIBUTIONS], safe[:, None], axis=2)
        if FILTER_IDS in picked:
            picked[FILTER_IDS] = np.where(places < 0, FILL, picked[FILTER_IDS])
        return picked

    def warm_up(self, images: int = 1, slots: int = 5) -> Pass:
        """Compute once on zeros, so that the first request finds memory and kernels ready; what came out."""
        kind = np.uint8 if self.metadata.variant.preprocessing else np.float32
        shape = (*self.metadata.input.size, 3) if kind is np.uint8 else self.metadata.input.sample_shape
        asked = self.metadata.variant.slots or (FILL,) * min(slots, self.metadata.filters)
        return self.run(np.zeros((images, *shape), dtype=kind), np.tile(np.array(asked, dtype=np.int64), (images, 1)))

    def load_proto(self) -> onnx.ModelProto:
        """The file's graph with its weights, read anew at every call."""
        return read_proto(self.path)

    def model_graph(self) -> onnx.ModelProto:
        """The file's graph without what its `Variant` fixes inside; see `Engine`.

        Raises:
            ExplainerError: it has an encoder of its own.
        """
        if not self.contains_model:
            raise ExplainerError(
                f"{self.path} has an encoder of its own and does not contain the model: "
                "give the model (--model MODEL) to measure retention"
            )
        return plain_graph(self.load_proto(), self.metadata)[0]

    def close(self) -> None:
        """Free the sessions."""
        self.session.close()
        if "_directions" in self.__dict__:
            self._directions.close()


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
