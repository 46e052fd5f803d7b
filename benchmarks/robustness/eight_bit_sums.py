"""How far each 8-bit operator of onnxruntime is from exact sums on this processor, in steps of 8 bits.

Run it on a processor of the other kind too, or on an emulated one (Debian: qemu-user):

    python -m benchmarks.robustness.eight_bit_sums
    qemu-x86_64 -cpu Haswell .venv/bin/python -m benchmarks.robustness.eight_bit_sums

Last come the int8 variant of the demo explainer, made once as build/eight_bit_sums.onnx, and a digest of its answers.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from fsagn_onnx.generator.variants.quantise import quantised
from fsagn_onnx.model.inference_session import inference_session, sums_saturate
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.testing.synthetic import SyntheticParts

ROWS, DEPTH, COLUMNS = 32, 64, 16
OPS = {
    "QLinearConv": "i = Reshape(q, image) y = QLinearConv(i, xs, xz, k, ws, wz, ys, yz)",
    "QLinearMatMul": "y = QLinearMatMul(q, xs, xz, w, ws, wz, ys, yz)",
    "MatMulInteger": "y = MatMulInteger(q, w, xz, wz)",
    "QGemm": "y = com.microsoft.QGemm(q, xs, xz, w, ws, wz, , ys, yz)",
    "QGemm to float": "y = com.microsoft.QGemm(q, xs, xz, w, ws, wz)",
    "MatMulIntegerToFloat": "y = com.microsoft.MatMulIntegerToFloat(q, w, xs, ws, xz, wz)",
    "DynamicQuantizeMatMul": "f = DequantizeLinear(q, xs, xz) y = com.microsoft.DynamicQuantizeMatMul(f, w, ws, wz)",
    "QDQ Conv": """
        i = Reshape(q, image) f = DequantizeLinear(i, xs, xz) v = DequantizeLinear(k, ws, wz) c = Conv(f, v)
        y = QuantizeLinear(c, ys, yz)""",
    "QDQ MatMul": """
        f = DequantizeLinear(q, xs, xz) v = DequantizeLinear(w, ws, wz) c = MatMul(f, v)
        y = QuantizeLinear(c, ys, yz)""",
}
INTEGERS = ("MatMulInteger",)


def values(signed: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kind, low = (np.int8, -128) if signed else (np.uint8, 0)
    x = rng.integers(low, low + 256, (ROWS, DEPTH)).astype(kind)
    w = np.clip(np.rint(rng.normal(60, 60, (DEPTH, COLUMNS))), -127, 127).astype(np.int8)
    given = {
        "q": x, "w": w, "k": w.T.reshape(COLUMNS, DEPTH, 1, 1), "wz": np.int8(0), "ws": np.float32(0.01),
        "xs": np.float32(0.02), "xz": kind(low + 100), "yz": kind(low + 20), "image": np.array([ROWS, DEPTH, 1, 1]),
    }  # fmt: skip
    exact = (x.astype(np.int64) - int(given["xz"])) @ w.astype(np.int64)
    span = (exact.max() - exact.min()) * 0.02 * 0.01
    return {**{name: np.asarray(value) for name, value in given.items()}, "ys": np.asarray(span / 200, np.float32)}


def written(op: str, signed: bool) -> onnx.ModelProto:
    """A graph of one operator; its pixels `q` are int8 or uint8, its weights int8."""
    given, kind = values(signed), "int8" if signed else "uint8"
    result = "int32" if op in INTEGERS else kind if "ys, yz" in OPS[op] else "float"
    shape = f"{ROWS}, {COLUMNS}, 1, 1" if "Conv" in op else f"{ROWS}, {COLUMNS}"
    header = '<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{header} g ({kind}[{ROWS}, {DEPTH}] q) => ({result}[{shape}] y) {{ {OPS[op]} }}")
    read = {name for node in model.graph.node for name in node.input if name != "q"}
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in given.items() if name in read)
    return model


def off_by(op: str, signed: bool, *, exact: bool, optimised: bool) -> float:
    """The largest error in steps."""
    given = values(signed)
    session = inference_session(written(op, signed), threads=1, optimised=optimised, exact=exact)
    made = np.asarray(session.run(None, {"q": given["q"]})[0]).reshape(ROWS, COLUMNS).astype(np.float64)
    sums = (given["q"].astype(np.int64) - int(given["xz"])) @ given["w"].astype(np.int64)
    step, unit = float(given["ys"]), 0.02 * 0.01
    if "ys, yz" in OPS[op]:
        low, zero = (-128 if signed else 0), float(given["yz"])
        return float(np.abs(made - np.clip(np.rint(sums * unit / step) + zero, low, low + 255)).max())
    return float(np.abs(made * (unit if op in INTEGERS else 1) / step - sums * unit / step).max())


FORMS = {
    "as written": {"exact": False, "optimised": False},
    "in the proof": {"exact": True, "optimised": False},
    "optimised": {"exact": False, "optimised": True},
    "optimised, with the option": {"exact": True, "optimised": True},
}


def explainer() -> None:
    """How far the int8 explainer's answers are from exact ones here, and what exact ones cost."""
    path, pictures = Path("build/eight_bit_sums.onnx"), [sample.image for sample in SyntheticParts("test", 8)]
    source = Path(__file__).parents[2] / "models" / "demo_explainer.onnx"
    with Explainer(source, providers="cpu", threads=1) as float_form:
        spec, layer = float_form.metadata.input, float_form.metadata.layer
    batch = np.stack([spec.preprocess(picture)[0] for picture in pictures])
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        onnx.save(quantised(onnx.load(source), "image", layer, ["logits"], batch), path)
    answers, cost = {}, {}
    for exact in (False, True):
        session = inference_session(str(path), threads=1, exact=exact)
        names = [port.name for port in session.get_outputs()]
        asked = {"filters": np.full((1, 3), -1, np.int64), "classes": np.full((1, 1), -1, np.int64)}
        feeds = {"image": batch[:1], **asked}
        answers[exact] = dict(zip(names, session.run(None, feeds), strict=True))
        cost[exact] = statistics.median(seconds(session, feeds) for _ in range(50))
    logits = {exact: answer["logits"] for exact, answer in answers.items()}
    rounded = [np.round(answers[True][name], 4).tobytes() for name in ("logits", "filter_ids", "area_rank")]
    print(
        f"int8 explainer: largest logit {np.abs(logits[True]).max():.2f}, off by "
        f"{np.abs(logits[True] - logits[False]).max():.2f} without the option\n"
        f"digest of the exact answers: {hashlib.sha256(b''.join(rounded)).hexdigest()[:12]}\n"
        f"a picture, one thread: {1000 * cost[False]:.2f} ms without the option, {1000 * cost[True]:.2f} ms with it"
    )


def seconds(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> float:
    started = time.perf_counter()
    session.run(None, feeds)
    return time.perf_counter() - started


def main() -> None:
    print(
        f"onnxruntime {onnxruntime.__version__}; adds 8-bit products in 16 bits: {'yes' if sums_saturate() else 'no'}"
    )
    print("| operator, pixels x weights | " + " | ".join(FORMS) + " |\n|---|" + "---|" * len(FORMS))
    for op in OPS:
        for signed in (False, True):
            cells = [f"{off_by(op, signed, **form):.2f}" for form in FORMS.values()]
            print(f"| {op}, {'int8' if signed else 'uint8'} x int8 | " + " | ".join(cells) + " |", flush=True)
    explainer()


if __name__ == "__main__":
    main()
