"""ELPV solar cells x Lite0 with a trained defect head: the full comparison on unseen cells.

    python -m benchmarks.quality.elpv [--images 200]

Uses what `python examples/inspection/run.py` made in build/inspection where it is there (cells, defect model,
explainer), else makes it. Writes OUT/evaluation/evaluation.{json,md} and plots; prints the AUC of the defect head.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.plan import Plan, measured, plan_options, trained

INSPECTION = Path(__file__).resolve().parents[2] / "examples" / "inspection"


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/inspection"), show_default=True)
@plan_options("build/datasets/elpv", 200)
def main(folder: Path, **options: Any) -> None:
    import torch

    sys.path.insert(0, str(INSPECTION))
    from cells import split
    from defects import build

    plan = Plan(**options)
    torch.set_num_threads(plan.threads)
    training, unseen = split(folder)
    model, area = build(folder, training, unseen, plan.threads)
    print(f"defect head: AUC {area:.3f} on {len(unseen.files)} unseen cells")
    made = folder / "explainer.onnx"
    explainer = made if plan.explainer is None and made.exists() else trained(model, [training.folder], plan)
    measured("evaluation", model, explainer, sorted(unseen.files), plan)


if __name__ == "__main__":
    main()
