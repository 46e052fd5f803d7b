"""How far each 8-bit operator of onnxruntime is from exact sums on this processor, in steps of 8 bits.

Run it on a processor of the other kind too, or on an emulated one (Debian: qemu-user):

    python benchmarks/eight_bit_sums.py
    qemu-x86_64 -cpu Haswell .venv/bin/python benchmarks/eight_bit_sums.py
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from fsagn_onnx.model.inference_session import inference_session, sums_saturate

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


def main() -> None:
    print(
        f"onnxruntime {onnxruntime.__version__}; adds 8-bit products in 16 bits: {'yes' if sums_saturate() else 'no'}"
    )
    print("| operator, pixels x weights | " + " | ".join(FORMS) + " |\n|---|" + "---|" * len(FORMS))
    for op in OPS:
        for signed in (False, True):
            cells = [f"{off_by(op, signed, **form):.2f}" for form in FORMS.values()]
            print(f"| {op}, {'int8' if signed else 'uint8'} x int8 | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
