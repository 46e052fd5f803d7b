"""Where an explainer's time goes, node by node: onnxruntime's own profile.

    python -m benchmarks.speed.nodes [EXPLAINER] [--filters 5] [--passes 60]

Without an explainer it builds EfficientNet-Lite0's into build/. Prints the medians over the passes, in microseconds,
of the generator's nodes by operator and of its slowest nodes, and of the model's nodes in all. Profiling itself costs
a few microseconds per node; ratios are measured by cost.py.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import click
import numpy as np
import onnxruntime

from benchmarks.networks import lite0
from fsagn_onnx.runtime.contract import PREFIX


def profile(path: Path, filters: int, passes: int) -> dict[tuple[str, str], float]:
    """Median time in microseconds of every node, by (name, operator)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(Path("build") / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    port, *asking = session.get_inputs()
    shape = [extent if isinstance(extent, int) else 1 for extent in port.shape]
    batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for _ in range(passes):
        asked = {one.name: np.full((1, filters if one.name == "filters" else 1), -1, np.int64) for one in asking}
        session.run(None, {port.name: batch, **asked})
    written = Path(session.end_profiling())
    events = json.loads(written.read_text(encoding="utf-8"))
    written.unlink()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"])
    return {node: float(np.median(durations)) for node, durations in times.items()}


@click.command()
@click.argument("explainer", required=False, type=click.Path(path_type=Path))
@click.option("--filters", default=5, show_default=True)
@click.option("--passes", default=60, show_default=True)
@click.option("--slowest", default=12, show_default=True)
def main(explainer: Path | None, filters: int, passes: int, slowest: int) -> None:
    Path("build").mkdir(exist_ok=True)
    if explainer is None:
        _, explainer = lite0()
    nodes = profile(explainer, filters, passes)
    ours = {node: time for node, time in nodes.items() if PREFIX in f"{node[0]}/"}
    print(f"{explainer}, K = {filters}: model {sum(nodes.values()) - sum(ours.values()):.0f} us, ", end="")
    print(f"generator {sum(ours.values()):.0f} us in {len(ours)} of {len(nodes)} nodes")
    by_operator: dict[str, list[float]] = defaultdict(list)
    for (_, operator), time in ours.items():
        by_operator[operator].append(time)
    print("operator            nodes      us")
    for operator, spent in sorted(by_operator.items(), key=lambda item: -sum(item[1])):
        print(f"{operator:20s}{len(spent):5d}{sum(spent):8.0f}")
    print("slowest nodes           us")
    for (name, _), time in sorted(ours.items(), key=lambda item: -item[1])[:slowest]:
        print(f"{time:8.0f}  {name}")


if __name__ == "__main__":
    main()
