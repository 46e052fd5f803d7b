"""The networks of the synthetic parts set with their explainers; what the repository lacks is trained."""

from __future__ import annotations

from pathlib import Path

from common import Plan, trained
from networks import NETWORKS, trained_network

from fsagn_onnx.testing.synthetic import write_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = ("demo", *NETWORKS)
TRAINING_PICTURES = 2_000


def subject(network: str, plan: Plan) -> tuple[Path, Path]:
    """Model and explainer: the repository's demo CNN, or a network and its explainer trained under ``plan.out``."""
    import torch

    torch.set_num_threads(plan.threads)
    train = plan.out / "train"
    if network == "demo":
        model = MODELS / "demo_cnn.onnx"
        if plan.pairs is None and plan.explainer is None:
            return model, MODELS / "demo_explainer.onnx"
    else:
        model = trained_network(network, plan.out / f"{network}.onnx", plan.threads)
    if plan.explainer is None and not (train / "names.json").exists():
        write_folder(train, "train", TRAINING_PICTURES)
    return model, trained(model, [train / "images"], plan)


def default_subject(network: str) -> tuple[Path, Path]:
    """The same with the defaults of `train`, on one thread, where `synthetic.py` keeps it too."""
    return subject(network, Plan(Path("build/datasets/synthetic"), None, None, 0, "", "", 0, 1))
