"""Are gradients written as ONNX nodes right?

    python -m benchmarks.truth.gradient [--only FAMILY] [--jobs 1] [--again]

One network of every family of the coverage zoo, and a YOLO-like detector and segmentation networks,
untrained with moved statistics. The decision values of two classes of two pictures are differentiated by the default
layer and by the first one, in onnxruntime, and by torch's autograd through the converted model; also phi and d_c. The
bar is 1e-4 of the largest. ReLUs and maxima have kinks, where rounding decides between two gradients that are both
right: so torch's forward values are replaced by onnxruntime's (the difference added as a constant), and autograd runs
at the same point. The largest difference without that is printed beside it. Resumes from build/gradient_families.jsonl.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.coverage.rows import Row, all_rows
from benchmarks.coverage.running import run_stored
from fsagn_onnx.conversion import TappedModule, convert
from fsagn_onnx.gradient import GradientError
from fsagn_onnx.gradient.backward import Backward
from fsagn_onnx.gradient.contributions import add_contributions
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.model.inference_session import ORT_ERRORS, inference_session
from fsagn_onnx.model.raised_opset import MIN_OPSET, at_opset
from fsagn_onnx.runtime.classes import Classes, classes_of

Array = NDArray[Any]
BAR = 1e-4
PICTURES, ASKED = 2, 2
DENSE = ("yolo", "unet", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large")
"""Networks whose outputs are differentiated as they are, with drawn weights: detection and segmentation."""


DYNAMO = ("halonet26t", "bat_resnext26ts")
"""Networks that the classic exporter cannot write."""


def chosen_rows() -> list[Row]:
    """One plain export for each family, and the dense networks."""
    rows: dict[str, Row] = {}
    for row in all_rows():
        dense = row.network in DENSE and not row.change
        exporter = "dynamo" if row.network in DYNAMO else "classic-17"
        if row.exporter == exporter and not row.change and row.family not in ("detection", "segmentation"):
            rows.setdefault(row.family, row)
        elif dense:
            rows.setdefault(row.network, row)
    return list(rows.values())


def raised(model: Model) -> onnx.ModelProto:
    proto = at_opset(model.proto, max(model.opset, MIN_OPSET), model.path.name)
    del proto.graph.value_info[:]
    return proto


def classifies(model: Model) -> Classes:
    classes = classes_of(model)
    return classes if classes else classes_of(model, model.outputs[0].name, "logits")


def forward_names(module: TappedModule, x: torch.Tensor) -> list[str]:
    """Floating-point values that the converted model makes."""
    found: dict[str, None] = {}

    def watch(name: str, value: torch.Tensor) -> None:
        if value.is_floating_point() and value.numel():
            found[name] = None

    with torch.no_grad():
        module(x, watch=watch)
    return list(found)


def session_of(proto: onnx.ModelProto, outputs: list[str]) -> Any:
    del proto.graph.output[:]
    types = dict.fromkeys(outputs, TensorProto.FLOAT)
    proto.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in types.items())
    proto.ir_version = max(proto.ir_version, 8)
    return inference_session(proto, threads=1)


def autograd(
    module: TappedModule, x: torch.Tensor, layer: str, known: dict[str, Array]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Values of the converted model, at the forward values that are known, and the layer as a leaf."""
    leaf: list[torch.Tensor] = []

    def watch(name: str, value: torch.Tensor) -> torch.Tensor | None:
        if name in known:
            value = value + (torch.from_numpy(known[name]).reshape(value.shape) - value).detach()
        if name == layer:
            value = value.detach().requires_grad_()
            leaf.append(value)
        return value if name in known or name == layer else None

    values = module(x, watch=watch)
    return values, leaf[0]


def log_odds(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """d_c in float64, (N, J)."""
    rows = logits.reshape(len(logits), 1, -1).double().expand(-1, ids.shape[1], -1)
    own = torch.zeros_like(rows, dtype=torch.bool).scatter(2, ids[:, :, None], True)
    return rows.gather(2, ids[:, :, None])[..., 0] - rows.masked_fill(own, -torch.inf).logsumexp(2)


def far(found: Array, true: Array) -> float:
    """Largest difference as a share of the largest true value."""
    return float(np.abs(found - true).max() / max(float(np.abs(true).max()), 1e-30))


def compared(model: Model, layer: str, x: Array) -> dict[str, float]:
    """Differences of gradient, phi and d_c of one layer."""
    classifier, name = classifies(model).classifier, model.input_spec.name
    proto = raised(model)
    proto.graph.input.append(helper.make_tensor_value_info("classes", TensorProto.INT64, ["N", "J"]))
    made = add_contributions(proto, classifier, layer, "classes", sizes={name: model.input_spec.sample_shape})
    module = convert(model, [layer], outputs=True, check=False)
    images = torch.from_numpy(x)
    in_graph = {value for node in model.proto.graph.node for value in node.output}
    forward = [value for value in forward_names(module, images) if value in in_graph]
    wanted = list(dict.fromkeys([made.gradient, made.phi, made.decision, layer, str(classifier.output), *forward]))
    ids_name = made.class_ids
    session = session_of(proto, wanted)
    identifiers = inference_session(_only(proto, ids_name), threads=1)
    feeds = {name: x, "classes": np.array([[-1] + [1] * (ASKED - 1)] * len(x))}
    got = dict(zip(wanted, session.run(wanted, feeds), strict=True))
    ids = torch.from_numpy(identifiers.run([ids_name], feeds)[0])
    worst = {"gradient": 0.0, "phi": 0.0, "decision": 0.0, "with kinks": 0.0}
    gradient = got[made.gradient].reshape(len(x), ASKED, *got[made.gradient].shape[1:])
    for known in ({value: got[value] for value in forward}, {}):
        values, leaf = autograd(module, images, layer, known)
        decision = log_odds(values[str(classifier.output)], ids)
        for column in range(ASKED):
            (true,) = torch.autograd.grad(decision[:, column].sum(), leaf, retain_graph=True)
            spread = np.broadcast_to(gradient[:, column], true.shape)
            if not known:
                worst["with kinks"] = max(worst["with kinks"], far(spread, true.numpy()))
                continue
            worst["gradient"] = max(worst["gradient"], far(spread, true.numpy()))
            phi = (true * leaf).sum((2, 3)).detach().numpy()
            worst["phi"] = max(worst["phi"], far(got[made.phi][:, column], phi))
        if known:
            worst["decision"] = far(got[made.decision], decision.detach().numpy())
    return worst


def _only(proto: onnx.ModelProto, output: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(output, TensorProto.INT64, None))
    return copy


def dense_compared(model: Model, layer: str, x: Array) -> dict[str, float]:
    """The gradient of drawn weights on every floating output that hangs on the layer."""
    name = model.input_spec.name
    proto = raised(model)
    module = convert(model, [layer], outputs=True, check=False)
    images = torch.from_numpy(x)
    outputs = [value for value in module.outputs if module(images)[value].is_floating_point()]
    shapes = {value: module(images)[value].shape for value in outputs}
    drawn = {value: np.random.default_rng(1).normal(size=shapes[value]).astype(np.float32) for value in outputs}
    given = {}
    for number, value in enumerate(outputs):
        given[value] = f"weights{number}"
        proto.graph.input.append(helper.make_tensor_value_info(given[value], TensorProto.FLOAT, list(shapes[value])))
    back = Backward(proto, {name: model.input_spec.sample_shape})
    gradient = back.full(layer, back.run(given, [layer])[layer])
    in_graph = {value for node in model.proto.graph.node for value in node.output}
    forward = [value for value in forward_names(module, images) if value in in_graph]
    wanted = list(dict.fromkeys([gradient, *forward]))
    feeds = {name: x, **{given[value]: drawn[value] for value in outputs}}
    got = dict(zip(wanted, session_of(proto, wanted).run(wanted, feeds), strict=True))
    found = {}
    for key, known in (("gradient", {value: got[value] for value in forward}), ("with kinks", {})):
        values, leaf = autograd(module, images, layer, known)
        total = torch.stack([(values[value] * torch.from_numpy(drawn[value])).sum() for value in outputs]).sum()
        (true,) = torch.autograd.grad(total, leaf)
        found[key] = far(got[gradient], true.numpy())
    return found


def examine(row: Row) -> dict[str, Any]:
    """The row's result."""
    started = time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fsagn-gradient-") as folder:
        path = Path(folder) / "model.onnx"
        row.build(path)
        model = load_model(path)
        layers = [layer.value for layer in model.layers if not layer.reason]
        x = np.random.default_rng(0).normal(size=(PICTURES, *model.input_spec.sample_shape)).astype(np.float32)
        measure = dense_compared if row.network in DENSE else compared
        try:
            found = {layer: measure(model, layer, x) for layer in dict.fromkeys([model.default_layer.value, layers[0]])}
        except (GradientError, *ORT_ERRORS) as error:
            return {"status": "failed", "error": " ".join(str(error).split())}
    worst = max(value for part in found.values() for key, value in part.items() if key != "with kinks")
    seconds = round(time.monotonic() - started, 1)
    kinks = max(part["with kinks"] for part in found.values())
    status = "passed" if worst <= BAR else "failed"
    return {"status": status, "error": worst, "kinks": kinks, "layers": found, "checked_s": seconds}


@click.command(help=__doc__)
@click.option("--only", help="one family or network")
@click.option("--jobs", default=1)
@click.option("--again", is_flag=True, help="repeat what failed")
@click.option("--results", type=Path, default=Path("build/gradient_families.jsonl"))
def main(only: str | None, jobs: int, again: bool, results: Path) -> None:
    """Against torch's autograd."""
    rows = [row for row in chosen_rows() if only in (None, row.family, row.network)]

    def report(result: dict[str, Any]) -> None:
        error = result["error"]
        shown = f"{error:.1e} (with kinks {result['kinks']:.1e})" if isinstance(error, float) else error
        print(f"{result['status']:9} {result['family']:16} {result['network']:32} {shown}", flush=True)

    found = run_stored(rows, results, jobs, report, again=again, examine=examine)
    passed = [result for result in found if result["status"] == "passed"]
    errors = [result["error"] for result in passed]
    worst = max(errors, default=0)
    print(f"{len(passed)} of {len(rows)} agree with autograd to {BAR:g}; the worst of them to {worst:.1e}")
    raise SystemExit(len(passed) < len(rows))


if __name__ == "__main__":
    main()
