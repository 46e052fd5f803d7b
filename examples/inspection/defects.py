"""The model under inspection: EfficientNet-Lite0's frozen features with a trained defect head, as one ONNX file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from cells import Cells
from onnx import helper, numpy_helper

from fsagn_onnx.data.images import read_image
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import INPUT, build_lite0

SIZE = 160
LABELS = ("intact", "defective")
L2 = 3e-2
"""Weight decay of the head, chosen on a fifth of the training cells that the head was not fitted to."""


def at_size(lite0: Path, out: Path) -> Path:
    """Lite0 for pictures of 160 x 160 pixels: a cell shows enough at that size, and everything runs twice as fast."""
    proto = onnx.load(lite0)
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = SIZE
    spec = {**INPUT, "size": [SIZE, SIZE], "resize": "stretch"}
    helper.set_model_props(proto, {"fsagn_model": json.dumps({"input": spec})})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, out)
    return out


def features(model: Path, files: Sequence[Path], threads: int) -> np.ndarray:
    """The pooled features ``(n, 1280)`` of the pictures."""
    loaded = load_model(model)
    proto = onnx.load(model)
    proto.graph.output.append(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    rows = []
    for start in range(0, len(files), 16):
        batch = np.stack([loaded.input_spec.preprocess(read_image(file))[0] for file in files[start : start + 16]])
        rows.append(session.run(["flat"], {"image": batch})[0])
    return np.concatenate(rows)


def fit(inputs: np.ndarray, defective: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression on standardised features: weights ``(1280,)`` and bias for the raw features."""
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
    x = torch.from_numpy((inputs - mean) / deviation).double()
    y = torch.from_numpy(defective).double()
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y)
        value = value + L2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    scaled = weight.detach().numpy() / deviation
    return scaled.astype(np.float32), float(bias.detach() - (scaled * mean).sum())


def auc(scores: np.ndarray, defective: np.ndarray) -> float:
    """Area under the ROC curve: the share of (defective, intact) pairs in the right order, ties counted half."""
    bad, good = scores[defective], scores[~defective]
    above = (bad[:, None] > good[None]).mean()
    return float(above + 0.5 * (bad[:, None] == good[None]).mean())


def build(folder: Path, train: Cells, unseen: Cells, threads: int) -> tuple[Path, float]:
    """Train the head and write the model with it inside; returns the file and the head's AUC on unseen cells."""
    out, figures = folder / "cells.onnx", folder / "head.json"
    if out.exists() and figures.exists():
        return out, float(json.loads(figures.read_text(encoding="utf-8"))["auc_unseen"])
    plain = at_size(build_lite0(folder / "lite0.onnx"), folder / "lite0_160.onnx")
    weight, bias = fit(features(plain, train.files, threads), train.defective)
    seen = features(plain, unseen.files, threads) @ weight + bias
    found = auc(seen, unseen.defective)
    export(plain, weight, bias, out)
    counts = {"train": len(train.files), "unseen": len(unseen.files), "defective_unseen": int(unseen.defective.sum())}
    figures.write_text(json.dumps({"auc_unseen": found, **counts}, indent=1) + "\n", encoding="utf-8")
    return out, found


def export(plain: Path, weight: np.ndarray, bias: float, out: Path) -> None:
    """Put the head in the place of the classifier: ``probabilities (N, 2)``, intact and defective."""
    proto = onnx.load(plain)
    graph = proto.graph
    spec = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == "fsagn_model"))["input"]
    kept = [tensor for tensor in graph.initializer if tensor.name not in ("logits.weight", "logits.bias")]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    both = np.stack([np.zeros_like(weight), weight])
    graph.initializer.append(numpy_helper.from_array(both, "defect.weight"))
    graph.initializer.append(numpy_helper.from_array(np.array([0, bias], dtype=np.float32), "defect.bias"))
    (gemm,) = [node for node in graph.node if node.op_type == "Gemm"]
    graph.node.remove(gemm)
    graph.node.append(
        helper.make_node("Gemm", ["flat", "defect.weight", "defect.bias"], ["scores"], "scores", transB=1)
    )
    graph.node.append(helper.make_node("Softmax", ["scores"], ["probabilities"], "probabilities", axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 2]))
    helper.set_model_props(proto, {"fsagn_model": json.dumps({"input": spec, "labels": list(LABELS)})})
    onnx.checker.check_model(proto, full_check=True)
    part = out.with_name(f".{out.name}.part")
    onnx.save(proto, part)
    part.replace(out)
