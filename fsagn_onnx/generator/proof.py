"""Proves an explainer file: onnxruntime against the torch generator and the plain model, before it gets its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ..conversion import convert
from ..errors import ExplainerError
from ..model import InputSpec, Model
from ..model.batch import fixed_batch
from ..model.cut import cut
from ..model.quantised import is_quantised
from ..runtime.classes import classes_of
from ..runtime.contract import (
    AREA_RANK,
    CLASS_IDS,
    CLASSES,
    CONTRIBUTIONS,
    DECISION,
    DECISION_RESULTS,
    EVIDENCE_RANK,
    EVIDENCE_RETENTION,
    FILTER_IDS,
    FILTER_PEAKS,
    FILTERS,
    OWN_OUTPUTS,
    RESULTS,
    RETENTION,
    SUPPORT,
)
from .class_pairs import AskedClasses, ClassJudge, fill_classes
from .decision import decision_value
from .explainer_graph import Said
from .graph_runner import graph_runner, run_graph
from .network import Generated, Generator

LEAST_SPREAD, UNTRAINED_SPREAD = 1e-6, 1e-3
"""Standard deviations of a saliency map under which it counts as flat, of a trained and of an untrained generator."""
HALF_DIGIT = 2.0**-10
"""By so much two float16 numbers that differ in the last digit differ, relative to the larger."""


@dataclass(frozen=True)
class ExportReport:
    """How far the written file is from the torch generator.

    Attributes:
        retention: largest absolute difference of predicted retention.
        saliency: largest drop of the torch saliency along onnxruntime's order; 0 when the ranks agree but for ties.
        outputs: largest relative difference of the model's own outputs from the plain model's; 0 without any.
        decision: largest difference of each output about classes but their ids (decisions, contributions and support
            relative to the largest); empty where there are none.
        loss: what a variant of lower precision loses against the float32 file, see `measure_loss`; empty for float32.
    """

    retention: float
    saliency: float
    outputs: float
    decision: Mapping[str, float] = field(default_factory=dict)
    loss: Mapping[str, float] = field(default_factory=dict)


def picture_like(count: int, spec: InputSpec, seed: int) -> NDArray[np.float32]:
    """Smooth random fields, preprocessed: nearer to a picture than white noise."""
    shape = (count, spec.channels, *spec.size)
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    smooth = torch.nn.functional.avg_pool2d(noise.reshape(-1, 1, *shape[-2:]), 9, stride=1, padding=4)
    pixels = (127.5 + 60 * 5 * smooth).round().clamp(0, 255).reshape(shape).permute(0, 2, 3, 1)
    return spec.normalise(pixels.numpy())


@dataclass(frozen=True)
class _Expected:
    """What torch says: the generator's answer, and with questions about classes the decisions."""

    generated: Generated
    asked: AskedClasses | None = None

    def outputs(self) -> dict[str, torch.Tensor]:
        """By name of the file's output; maps as saliency instead of ranks."""
        made = self.generated
        found = dict(zip(RESULTS, (made.filter_ids, made.filter_peaks, made.saliency, made.retention), strict=True))
        if self.asked is not None and (phi := self.asked.questions.contributions) is not None:
            ids = made.filter_ids.clamp_min(0)[:, None].expand(-1, phi.shape[1], -1)
            chosen = torch.where(made.filter_ids[:, None] < 0, 0.0, phi.gather(2, ids))
            support = torch.stack((phi.clamp_min(0).sum(dim=2), phi.clamp_max(0).sum(dim=2)), dim=2)
            answers = (self.asked.ids, self.asked.decision, chosen, support, made.evidence, made.kept)
            found |= dict(zip(DECISION_RESULTS, answers, strict=True))
        return found


def _torch_outputs(
    model: Model, generator: Generator, batch: Any, filters: Any, classes: Any = None, said: Said = (None, None)
) -> _Expected:
    config, images, asked = generator.config, torch.from_numpy(batch), None
    inputs = {"image": images}
    values = [tap.value for tap in config.taps]
    if classes is not None:
        decision = decision_value(model, classes_of(model, *said), config.layer)
        if decision is None:
            raise ExplainerError(f"export: the decision does not hang on layer '{config.layer}'; no file written")
        judge = ClassJudge(convert(model, [*values, decision.value], check=False), decision, config.layer)
        taps, asked = judge.ask(images, lambda numbers: fill_classes(numbers, torch.from_numpy(classes)))
        inputs |= taps
    elif config.encoder == "shared":
        inputs |= _feature_maps(model, values, batch)
    with torch.no_grad():
        made = generator(inputs, torch.from_numpy(filters), None if asked is None else asked.questions)
    return _Expected(made, asked)


def _feature_maps(model: Model, values: Sequence[str], batch: Any) -> dict[str, torch.Tensor]:
    """What the generator gets: torch's; of a quantised model onnxruntime's.

    There the two differ by roundings that fall to either side and add up. That the converted model is right is proven
    at its taps (`check_parity`); here the generator is held to the same numbers on the same feature maps.
    """
    if not is_quantised(model.proto):
        made: dict[str, torch.Tensor] = convert(model, values, check=False)(torch.from_numpy(batch))
        return made
    content = cut(model.proto, values).SerializeToString()
    found = run_graph(content, {model.input_spec.name: batch}, optimised=False)
    return {name: torch.from_numpy(value) for name, value in found.items()}


def prove_export(
    content: bytes, model: Model, generator: Generator, slack: float = 1.0, said: Said = (None, None)
) -> ExportReport:
    """Compare an explainer in onnxruntime with the torch generator and the plain model.

    That of a quantised model is run without graph optimisations, and the generator on onnxruntime's feature maps.

    Args:
        content: the explainer.
        model: the CNN.
        generator: in eval mode.
        slack: times the allowed differences.
        said: ``output`` and ``scores`` that the user says the model's outputs are read by.

    Raises:
        ExplainerError: naming the output that differs, and by how much.
    """
    config, spec = generator.config, model.input_spec
    images = picture_like(3, spec, seed=0)
    if any(item.name == spec.name and item.dtype == "float16" for item in model.inputs):
        images = images.astype(np.float16).astype(np.float32)  # what both sides get
    last = config.filters - 1
    filters = np.array([[-1, 0, -1], [last, -1, -1], [-1, -1, -1]], dtype=np.int64)
    feeds: dict[str, Any] = {spec.name: images}
    classes: Any = None
    if config.classes:
        filters = np.array([[-1, 0, -2], [last, -3, -2], [-2, -3, -2]], dtype=np.int64)
        classes = feeds[CLASSES] = np.array([[-1, 0], [1, -1], [-1, -1]], dtype=np.int64)
    feeds[FILTERS], optimised = filters, not is_quantised(model.proto)
    run = graph_runner(content, optimised=optimised)
    results = run(feeds)
    expected = _torch_outputs(model, generator, images, filters, classes, said)
    if _chosen_otherwise(results, expected.outputs()):
        classes = results.get(CLASS_IDS)
        expected = _torch_outputs(model, generator, images, results[FILTER_IDS], classes, said)
    _require_shapes(results, expected.outputs())
    group = fixed_batch(onnx.load_model_from_string(content), spec.name)
    for count in (1, 2):
        part = {name: values[:count] for name, values in feeds.items()}
        _require_same(run(part), results, count)
    report = _report(results, expected.outputs(), LEAST_SPREAD if slack == 1 else UNTRAINED_SPREAD)
    if config.encoder == "shared":
        report = replace(report, outputs=_model_difference(model, images, results, group))
    _require_close(report, slack)
    return report


def _chosen_otherwise(results: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> bool:
    """Whether torch chose other filters or classes, though nearly tied ones.

    Raises:
        ExplainerError: they are not nearly tied.
    """
    differs = False
    for ids, by in ((FILTER_IDS, (FILTER_PEAKS, CONTRIBUTIONS)), (CLASS_IDS, (DECISION,))):
        if ids not in expected or np.array_equal(results[ids], expected[ids].numpy()):
            continue
        differs = True
        gaps = [
            np.abs(results[name] - expected[name].numpy()).max() / max(1.0, float(expected[name].abs().max()))
            for name in by
            if name in expected
        ]
        if min(gaps) > 1e-3:
            raise ExplainerError(f"export: {ids} of the file differs from the torch generator's; report this")
    return differs


def _report(results: Mapping[str, Any], expected: Mapping[str, torch.Tensor], least: float) -> ExportReport:
    """How far apart they are, but for the model's own outputs."""
    report = ExportReport(
        retention=float(np.abs(results[RETENTION] - expected[RETENTION].numpy()).max()),
        saliency=order_gap(results[AREA_RANK], expected[AREA_RANK], least),
        outputs=0.0,
    )
    if DECISION not in expected:
        return report
    gaps = {}
    for name in (DECISION, CONTRIBUTIONS, SUPPORT):
        largest = max(float(expected[SUPPORT if name == CONTRIBUTIONS else name].abs().max()), 1e-6)
        gaps[name] = float(np.abs(results[name] - expected[name].numpy()).max()) / largest
    gaps[EVIDENCE_RANK] = order_gap(results[EVIDENCE_RANK], expected[EVIDENCE_RANK], least)
    gaps[EVIDENCE_RETENTION] = float(np.abs(results[EVIDENCE_RETENTION] - expected[EVIDENCE_RETENTION].numpy()).max())
    return replace(report, decision=gaps)


def _require_close(report: ExportReport, slack: float) -> None:
    limits = {EVIDENCE_RANK: 1e-3}
    for name, figure, limit in (
        (RETENTION, report.retention, 1e-4),
        (AREA_RANK, report.saliency, 1e-3),
        ("the model's outputs", report.outputs, 1e-4),
        *((name, figure, limits.get(name, 1e-4)) for name, figure in report.decision.items()),
    ):
        if not figure <= slack * limit:
            raise ExplainerError(
                f"export: {name} in onnxruntime differ by {figure:.2g} from torch (allowed {slack * limit:g}); "
                "no file written"
            )


def _require_shapes(results: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> None:
    """The explainer's own outputs must have the torch generator's shapes."""
    for name, tensor in expected.items():
        if results[name].shape != tuple(tensor.shape):
            raise ExplainerError(
                f"export: {name} in onnxruntime has the shape {results[name].shape}, "
                f"expected {tuple(tensor.shape)}; no file written"
            )


def _require_same(fewer: Mapping[str, Any], results: Mapping[str, Any], count: int) -> None:
    """One and two images must give what they give among three."""
    for name in OWN_OUTPUTS:
        if name in results and fewer[name].shape != (count, *results[name].shape[1:]):
            raise ExplainerError(
                f"export: {name} of {count} images has the shape {fewer[name].shape}, "
                f"expected {(count, *results[name].shape[1:])}; no file written"
            )


def order_gap(rank: Any, saliency: torch.Tensor, least: float = LEAST_SPREAD) -> float:
    """Largest rise of the torch saliency along onnxruntime's order, in standard deviations; 0 = same but for ties.

    Args:
        rank: onnxruntime's.
        saliency: torch's.
        least: the standard deviation of a map counts as so much at least.
    """
    flat = saliency.flatten(-2)
    order = torch.from_numpy(np.ascontiguousarray(rank)).flatten(-2).argsort(dim=-1)
    along = flat.gather(-1, order)
    spread = flat.std(dim=-1, keepdim=True).clamp_min(least)
    return float(((along[..., 1:] - along[..., :-1]).clamp_min(0) / spread).max())


def _model_difference(model: Model, images: Any, results: dict[str, Any], group: int | None) -> float:
    worst = 0.0
    feeds, optimised = {model.input_spec.name: images}, not is_quantised(model.proto)
    for name, value in run_graph(model.proto.SerializeToString(), feeds, optimised=optimised, group=group).items():
        if value.shape != results[name].shape:
            raise ExplainerError(
                f"export: the model's output '{name}' has the shape {results[name].shape} in the explainer, "
                f"{value.shape} in the model; no file written"
            )
        if value.dtype.kind == "f" and value.size:
            last_digit = HALF_DIGIT if value.dtype == np.float16 else 0.0
            worst = max(worst, relative_gap(value, results[name]) - last_digit)
    return worst


def relative_gap(value: Any, other: Any) -> float:
    """Largest difference relative to the largest number; infinite where only one of both is a finite number."""
    one, two = value.astype(np.float64), other.astype(np.float64)
    apart = ~((one == two) | (np.isnan(one) & np.isnan(two)))
    if not apart.any():
        return 0.0
    if not (np.isfinite(one[apart]).all() and np.isfinite(two[apart]).all()):
        return float("inf")
    scale = max(float(np.abs(one[np.isfinite(one)]).max()), 1e-12)
    return float(np.abs(one[apart] - two[apart]).max()) / scale


def prove_same(free: bytes, final: bytes, spec: InputSpec, slots: tuple[int, ...] | None, *, pixels: bool) -> None:
    """Compare a file with a fixed request, or with preprocessing inside, with the file that it was made from.

    Args:
        free: the explainer with the input ``filters`` and a preprocessed image.
        final: the file to prove.
        spec: the model's input.
        slots: the request inside ``final``, counted as ``free`` counts filters; None: it has the input ``filters``.
        pixels: ``final`` takes uint8 images.

    Raises:
        ExplainerError: other filters, or areas that overlap by less than .9.
    """
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (spec.size[0] // 8 + 1, spec.size[1] // 8 + 1, 3), dtype=np.uint8)
    picture = np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1))
    batch = spec.preprocess(picture)[0][None]
    asked = {FILTERS: np.array([slots or (-1,) * 3], dtype=np.int64), CLASSES: np.full((1, 1), -1, dtype=np.int64)}
    expected = run_graph(free, {spec.name: batch, **asked})
    got = run_graph(final, {spec.name: picture[None] if pixels else batch, **asked})
    a, b = expected[AREA_RANK] <= 0.2, got[AREA_RANK] <= 0.2
    overlap = float((a & b).sum() / max((a | b).sum(), 1)) if a.shape == b.shape else 0.0
    peaks = np.allclose(expected[FILTER_PEAKS], got[FILTER_PEAKS], rtol=0.05, atol=0.05)
    if overlap < 0.9 or not peaks:
        raise ExplainerError(
            f"export: the variant answers otherwise than the file it is made from (areas overlap by {overlap:.2f}, "
            f"peaks {'agree' if peaks else 'differ'}); no file written; report this"
        )
