"""The decision of a plain model, explained without torch and without training: one graph, one pass.

Evidence for a class at a depth is the positive part of sum over k of F_k dd_c / dF_k (gradient x activation); of
several depths, the sum of their maps, each divided by its largest value. Which depth says most hangs on the model and
on the pictures: see `depth_choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ..data.closing import Closing
from ..errors import UsageError
from ..gradient.backward import Backward
from ..gradient.contributions import contributions_of
from ..gradient.decision import decision_writer
from ..gradient.decision_values import Decision
from ..gradient.unsquashed import before_squashing
from ..model.cut import cut
from ..model.input_spec import InputSpec
from ..model.model import Model
from ..model.raised_opset import MIN_OPSET, at_opset
from .classes import Classes, classes_of
from .decision_source import chosen_filters, decision_source, evidence_depths
from .engine import Decisions, Engine, Pass
from .masks import area_rank, grid_of, grid_stride, to_grid
from .session import Session
from .trust import Trust
from .variant import Variant

__all__ = ["PlainDecisionMetadata", "PlainEvidence", "summed_evidence"]

Array = NDArray[Any]

CLASSES: Final = "fsagn/asked_class"
"""The graph's input that asks for a class, int64 (N, 1)."""
PREFIX: Final = "fsagn/gradient/"


@dataclass(frozen=True)
class PlainDecisionMetadata:
    """What a plain model says about itself; see `EngineMetadata`."""

    content: str
    layer: str
    filters: int
    input: InputSpec
    labels: tuple[str, ...] | None
    areas: tuple[float, ...] = ()
    variant: Variant = field(default_factory=Variant)
    trust: Trust | None = None


def summed_evidence(maps: Sequence[Array], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Maps (N, h, w) of several depths on one grid: each over its largest value, then added."""
    total = np.zeros((len(maps[0]), *grid), dtype=np.float32)
    for depth in maps:
        fine = to_grid(np.asarray(depth, dtype=np.float32), grid)
        top = fine.max(axis=(1, 2), keepdims=True)
        total += np.divide(fine, top, out=np.zeros_like(fine), where=top > 0)
    return total


class PlainEvidence(Engine, Closing):
    """What a plain model decides and why: prediction, evidence, and what each filter adds, from one graph.

    Attributes:
        depths: values of the layers whose maps make up the evidence.
        session_options: providers and threads.

    Args:
        model: the CNN; it must classify.
        layer: the layer whose filters are told; None: the model's default.
        depths: values of layers; None: all candidates (`evidence_depths`), of which `depth_choice` finds the best.
        classes: how its outputs are read; None: found.
        providers: see `Session`.
        threads: see `Session`.

    Raises:
        GradientError: the model does not classify, or an op on the way has no rule.
        LayerError: no such layer.
    """

    def __init__(
        self,
        model: Model,
        layer: str | None = None,
        depths: Sequence[str] | None = None,
        *,
        classes: Classes | None = None,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        model.require_one_input()
        found = model.layer(layer)
        model.require_size([found.value])
        self._model, self._classes = model, classes if classes is not None else classes_of(model)
        self.metadata = PlainDecisionMetadata(
            model.content, found.value, found.channels, model.input_spec, self._classes.labels
        )
        self.session_options = (providers, threads)
        self.depths = tuple(depths) if depths is not None else evidence_depths(model, self._classes)
        for value in self.depths:
            model.layer(value)
        self._grid = grid_of(model.input_spec.size, grid_stride(model.input_spec.size))
        self._names: dict[str, str] = {}
        self._means: Array | None = None
        self._session = self._opened()
        self.provider = self._session.provider

    def _opened(self) -> Session:
        providers, threads = self.session_options
        return Session(self.explaining_graph(), providers, threads, source=str(self._model.path))

    def _prepared(self, columns: int | str) -> tuple[onnx.ModelProto, Backward, Decision]:
        """The model and the decision about some classes."""
        model = self._model
        proto = at_opset(model.proto, max(model.opset, MIN_OPSET), str(model.path))
        image = next(item for item in proto.graph.input if item.name == model.input_spec.name)
        dims = image.type.tensor_type.shape.dim
        first: int | str = dims[0].dim_value if dims and dims[0].dim_value > 0 else "N"
        proto.graph.input.append(helper.make_tensor_value_info(CLASSES, TensorProto.INT64, [first, columns]))
        sizes = {model.input_spec.name: model.input_spec.sample_shape}
        source = before_squashing(proto, decision_source(self._classes, model.path.name), sizes, PREFIX)
        back = Backward(proto, sizes, PREFIX)
        decision = decision_writer(back.facts, back.write, source).write(CLASSES, single=columns == 1)
        del proto.graph.value_info[:]
        proto.ir_version = max(proto.ir_version, 8)
        return proto, back, decision

    @cached_property
    def _decider(self) -> Session:
        """The forward pass alone: class ids and decision values."""
        proto, _, decision = self._prepared("J")
        names = (decision.class_ids, decision.decision)
        providers, threads = self.session_options
        return Session(cut(proto, names), providers, threads, source=str(self._model.path))

    def decided(self, batch: Array, classes: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
        """Class ids and decision values (N, J) of a preprocessed batch, without gradients; -1 as for `decide`."""
        session = self._decider
        names = [port.name for port in session.outputs]
        found = session.run(names, {self.metadata.input.name: batch, CLASSES: classes})
        return found[names[0]], found[names[1]]

    def explaining_graph(self) -> onnx.ModelProto:
        """The model, and behind it the decision about one class per image and its gradients."""
        model, layer = self._model, self.metadata.layer
        own = [value.name for value in model.outputs if value.dtype != "not a tensor"]
        proto, back, decision = self._prepared(1)
        write = back.write
        gradients = back.run(decision.cotangents, list(dict.fromkeys((*self.depths, layer))))
        maps = {}
        for value in self.depths:
            maps[value] = write.op("Relu", _channel_sum(back, value, write.op("Mul", value, gradients[value].value)))
        phi, support = contributions_of(back, layer, gradients[layer], CLASSES, None, self._means)
        self._names = {"ids": decision.class_ids, "decision": decision.decision, "phi": phi, "support": support}
        outputs = {name: TensorProto.INT64 if name == decision.class_ids else TensorProto.FLOAT
                   for name in (*self._names.values(), *maps.values(), layer)}  # fmt: skip
        self._names |= {f"map {value}": name for value, name in maps.items()}
        for name, kind in outputs.items():
            if name not in own:
                proto.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        return proto

    @property
    def classes(self) -> Classes:
        """How the model's outputs are read."""
        return self._classes

    @property
    def source(self) -> str:
        """What to call it in messages."""
        return str(self._model.path)

    @property
    def answers_classes(self) -> bool:
        """It can be asked about classes."""
        return True

    @property
    def decider(self) -> Callable[[Array, NDArray[np.int64]], tuple[NDArray[np.int64], Array]]:
        """See `decided`."""
        return self.decided

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    def focus(self, depths: Sequence[str]) -> None:
        """Take the evidence of some depths only, from now on: other gradients are no longer computed.

        Raises:
            UsageError: none are named.
        """
        if not depths:
            raise UsageError("name at least one depth to take the evidence from")
        if tuple(depths) != self.depths:
            self.depths = tuple(depths)
            self._session.close()
            self._session = self._opened()

    def against_means(self, batches: Iterable[Array]) -> None:
        """Tell contributions against each filter's mean from now on: sum over places of (F_k - mean_k) dd_c / dF_k.

        That ranks filters by what setting them to their mean costs; against 0, by what switching them off costs.

        Args:
            batches: preprocessed (N, ...) pictures, over whose places the means are taken.

        Raises:
            UsageError: no picture.
        """
        total, count = np.zeros(self.metadata.filters), 0
        for batch in batches:
            found = self.maps(batch, np.full(len(batch), -1, dtype=np.int64))[1][self.metadata.layer]
            total += found.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
            count += len(found)
        if not count:
            raise UsageError("no picture could be read to take the filters' means over")
        self.take_means(total / count)

    @property
    def means(self) -> tuple[float, ...]:
        """What contributions are against, per filter; empty: 0."""
        return () if self._means is None else tuple(self._means.tolist())

    def take_means(self, means: Array) -> None:
        """Tell contributions against means (C,) that were taken before, see `against_means`."""
        self._means = means
        self._session.close()
        self._session = self._opened()

    def maps(self, batch: Array, classes: NDArray[np.int64]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Evidence maps of every depth, and what else one pass gives.

        Args:
            batch: (N, ...) preprocessed.
            classes: (N,) ids; -1: the highest score.

        Returns:
            depth -> (N, h, w), not negative; name of another value -> it (``ids``, ``decision``, ``phi``, ``support``,
            the layer's, the model's outputs).
        """
        computed = self._session.run(
            None, {self.metadata.input.name: batch, CLASSES: np.asarray(classes, dtype=np.int64)[:, None]}
        )
        named = {short: computed.pop(name) for short, name in self._names.items()}
        depths = {value: named.pop(f"map {value}") for value in self.depths}
        return depths, {**computed, **named}

    def run(self, batch: Array, filters: NDArray[np.int64]) -> Pass:
        """Explain filters (N, K) of a preprocessed batch by their own maps; retention is not predicted."""
        return self.decide(batch, filters, np.full((len(batch), 1), -1, dtype=np.int64))

    def decide(self, batch: Array, filters: NDArray[np.int64], classes: NDArray[np.int64]) -> Pass:
        """What the model decides about classes (N, J): ids, or -1 for the highest score not asked for by id.

        Filters (N, K): ids; -1: the highest peak; -2: what adds most to ``classes[:, 0]``; -3: what speaks most
        against it.
        """
        count = classes.shape[1]
        open_ids = count > 1 and (classes < 0).any()
        ids = self.decided(batch, classes)[0] if open_ids else classes
        parts = []
        for column in range(count):
            depths, rest = self.maps(batch, ids[:, column])
            parts.append((summed_evidence([depths[value] for value in self.depths], self._grid), rest))
        first = parts[0][1]
        feature_map = first[self.metadata.layer].astype(np.float32, copy=False)
        phi = np.stack([rest["phi"][:, 0] for _, rest in parts], axis=1)  # (N, J, C)
        chosen = chosen_filters(feature_map.max(axis=(2, 3)), phi[:, 0], filters)
        places = np.maximum(chosen, 0)
        own = np.take_along_axis(feature_map, places[:, :, None, None], axis=1)
        peaks = np.where(chosen < 0, np.float32(0), own.max(axis=(2, 3)))
        decisions = Decisions(
            class_ids=np.concatenate([rest["ids"] for _, rest in parts], axis=1),
            decision=np.concatenate([rest["decision"] for _, rest in parts], axis=1).astype(np.float32),
            contributions=np.take_along_axis(phi, places[:, None], axis=2).astype(np.float32),
            support=np.concatenate([rest["support"] for _, rest in parts], axis=1).astype(np.float32),
            evidence_rank=area_rank(np.stack([evidence for evidence, _ in parts], axis=1)),
            evidence_retention=None,
        )
        own_outputs = {value.name for value in self._model.outputs}
        return Pass(
            outputs={name: value for name, value in first.items() if name in own_outputs},
            filter_ids=chosen,
            filter_peaks=peaks.astype(np.float32),
            area_rank=area_rank(to_grid(own, self._grid)),
            retention=None,
            decisions=decisions,
        )

    def model_graph(self) -> onnx.ModelProto:
        """The model's own."""
        return self._model.proto

    def close(self) -> None:
        """Free the sessions."""
        self._session.close()
        if "_decider" in self.__dict__:
            self._decider.close()


def _channel_sum(back: Backward, layer: str, product: str) -> str:
    """(N, C, h, w) -> (N, h, w): a product with ones, at which onnxruntime is quicker than at a sum over that axis."""
    write, (_, channels, height, width) = back.write, back.facts.shape(layer)
    flat = write.op("Reshape", product, write.constant([-1, channels, height * width]))
    total = write.op("MatMul", write.constant(np.ones((1, channels), np.float32)), flat)
    return write.op("Reshape", total, write.constant([-1, height, width]))
