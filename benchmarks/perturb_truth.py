"""Does `perturb` find the parts that decide a class?

    python benchmarks/perturb_truth.py [--pictures 200] [--out build/perturb_truth]

The demo CNN on held-out rendered pictures with their parts. Known by construction: for every part type there are two
classes that differ in it alone (`TWINS`): exchanging that part turns one into the other, so it decides both. A class
counts as right where the part ranked first is one of those that decide it. Prints the ranking, the check of the
area-matched controls against each other, and the agreement of disturbing filters' areas with switching them off; writes
build/perturb_truth.json, and fails where a bound of the issue is missed.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.data.synthetic import CLASSES, write_folder
from fsagn_onnx.data.synthetic.objects import TWINS
from fsagn_onnx.dissect.perturb import PerturbRequest, PerturbRun
from fsagn_onnx.model import load_model

MODEL, EXPLAINER = Path("models/demo_cnn.onnx"), Path("models/demo_explainer.onnx")


@click.command()
@click.option("--pictures", "count", default=200, show_default=True)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/perturb_truth"), show_default=True)
def main(count: int, resume: bool, out: Path) -> None:
    folder = out / f"val-{count}"
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", count)
    deciding: dict[str, set[str]] = {name: set() for name in CLASSES}
    for part, pair in TWINS.items():
        for label in pair:
            deciding[CLASSES[label]].add(part)
    request = PerturbRequest((str(folder / "images"),), session={"providers": "cpu", "threads": 1})
    run_folder = out / "run"
    run = PerturbRun(
        load_model(MODEL),
        EXPLAINER,
        run_folder,
        request,
        annotations=open_annotations(folder),
        resume=resume,
        overwrite=not resume and run_folder.is_dir(),
    )
    with run:
        for _ in run.images():
            pass
        result = run.finish()
    right = {name: result.parts[name][0]["region"] in parts for name, parts in deciding.items()}
    for name, parts in deciding.items():
        first = result.parts[name][0]
        low, high = first["interval"]
        print(
            f"{name:8} decided by {', '.join(sorted(parts)):12} ranked first: {first['region']:7} "
            f"{first['effect']:+.3f} [{low:+.3f}, {high:+.3f}]  {'right' if right[name] else 'WRONG'}"
        )
    check = result.summary["control_check"]
    share = sum(right.values()) / len(right)
    print(f"classes right: {share:.2f}; accuracy {result.accuracy}")
    print(f"control - second control: {check['difference']} over {check['regions']} regions")
    print(f"agreement with ablation: {result.summary['agreement']}")
    document = {"right": right, "share": share, "ranking": result.parts, "summary": result.summary, "pictures": count}
    Path("build").mkdir(exist_ok=True)
    Path("build/perturb_truth.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    assert share >= 0.9
    assert check["difference"][1] <= 0 <= check["difference"][2]


if __name__ == "__main__":
    main()
