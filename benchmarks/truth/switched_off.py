"""Do contributions say what switching a filter off costs the decision?

    python -m benchmarks.truth.switched_off [--networks demo,boards,lite0] [--pictures 20] [--middle]

Each filter of the layer is switched off, by setting it to 0 or to its mean over the pictures, and the fall of d_c is
compared with its contribution: Spearman over the filters that are active, per picture; the mean over pictures, and the
least. `--middle` takes the layer halfway between input and default layer. The bars are .9 for linear tails and .7 for
others. Contributions, with F the feature map and G = dd_c/dF:

    phi              sum over places of F G
    along the way    the same with the mean of G at s F, s = 1, .75, .5, .25
    with noise       with the mean of G at F + noise of a tenth of each filter's spread, eight draws
    others dropped   with the mean of G at F with a tenth of the filters at 0, eight draws
    against the mean sum of (F - mean) G, for filters that are set to their mean

Writes the table as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.stats import spearmanr

from benchmarks.networks import DEMO_MODEL, ROOT, lite0
from benchmarks.plan import plainly
from benchmarks.truth.gradient import log_odds, raised, session_of
from fsagn_onnx.conversion import TappedModule, convert
from fsagn_onnx.gradient.contributions import add_contributions
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.ablation import Ablation
from fsagn_onnx.runtime.classes import Classes
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.statistics.bootstrap import bootstrap_mean

Array = NDArray[Any]
Change = Callable[[torch.Tensor], torch.Tensor]
SHARES = (1.0, 0.75, 0.5, 0.25)
DRAWS = 8
NOISE = 0.1
DROPPED = 0.1


def subject(network: str) -> tuple[Model, list[Array]]:
    """A trained network and its own pictures, fitted."""
    if network == "demo":
        from fsagn_onnx.testing.synthetic import render

        model = load_model(DEMO_MODEL)
        return model, [model.input_spec.fit(render(700_000 + seed).image)[0] for seed in range(200)]
    from fsagn_onnx.data.images import list_images, read_image
    from fsagn_onnx.models.demo import photographs

    if network == "boards":
        model, paths = load_model(ROOT / "models" / "boards_cnn.onnx"), list_images([str(ROOT / "examples" / "pcb")])
    else:
        model, paths = load_model(lite0()[0]), iter(photographs())
    return model, [model.input_spec.fit(read_image(path))[0] for path in paths]


class MeanSlope:
    """Sum over places of dd_c / dF_k, (C,)."""

    def __init__(self, model: Model, classes: Classes, layer: str) -> None:
        proto, self._name = raised(model), model.input_spec.name
        proto.graph.input.append(helper.make_tensor_value_info("classes", TensorProto.INT64, ["N", 1]))
        made = add_contributions(
            proto, classes.classifier, layer, "classes", single=True,
            sizes={self._name: model.input_spec.sample_shape},
        )  # fmt: skip
        self._cells, self._gradient = np.prod(model.layer(layer).shape[1:]), made.gradient
        self._session = session_of(proto, [made.gradient])

    def slopes(self, x: Array, number: int) -> Array:
        """Of one picture."""
        (found,) = self._session.run([self._gradient], {self._name: x, "classes": np.array([[number]])})
        once = found.shape[2:] == (1, 1)
        return np.asarray(found[0].sum((1, 2)) * (self._cells if once else 1))


def ways() -> dict[str, list[Change]]:
    """Feature maps beside the picture's own, at which gradients are averaged."""
    drawn = torch.Generator().manual_seed(0)

    def noisy(maps: torch.Tensor) -> torch.Tensor:
        spread = maps.std(dim=(2, 3), keepdim=True)
        return maps + NOISE * spread * torch.randn(maps.shape, generator=drawn)

    def dropped(maps: torch.Tensor) -> torch.Tensor:
        return maps * (torch.rand((1, maps.shape[1], 1, 1), generator=drawn) >= DROPPED)

    return {
        "along the way": [lambda maps, share=share: share * maps for share in SHARES],  # type: ignore[misc]
        "with noise": [noisy] * DRAWS,
        "others dropped": [dropped] * DRAWS,
    }


def averaged(
    module: TappedModule, x: torch.Tensor, layer: str, output: str, number: int, changes: list[Change]
) -> Array:
    """Sum over places of F times the mean gradient at the changed feature maps: (C,)."""
    total: list[Array] = []
    for change in changes:
        seen: list[torch.Tensor] = []

        def watch(name: str, value: torch.Tensor, change: Change = change, seen: Any = seen) -> torch.Tensor | None:
            if name != layer:
                return None
            seen[:] = [value.detach(), change(value.detach()).requires_grad_()]
            leaf: torch.Tensor = seen[1]
            return leaf

        values = module(x, watch=watch)
        decision = log_odds(values[output], torch.tensor([[number]])).sum()
        (gradient,) = torch.autograd.grad(decision, seen[1])
        total.append((gradient * seen[0]).sum((2, 3))[0].numpy())
    return np.asarray(np.mean(total, axis=0))


def switched(model: Model, layer: str, fitted: list[Array], pictures: int) -> dict[str, list[float]]:
    """Per picture: rank correlations of the fall of d_c with each contribution."""
    changed, module = ways(), convert(model, [layer], outputs=True, check=False)
    found: dict[str, list[float]] = {f"0, {name}": [] for name in ("phi", *changed)}
    found |= {"mean, phi": [], "mean, against the mean": []}
    with PlainEvidence(model, layer, depths=[layer], threads=1) as engine:
        batch = [engine.metadata.input.normalise(picture[None]) for picture in fitted]
        maps = np.concatenate([engine.maps(x, np.array([-1]))[1][layer] for x in batch])
        means = maps.mean(axis=(0, 2, 3))
        output = str(engine.classes.classifier.output)
        gradient = MeanSlope(model, engine.classes, layer)
        off = {"0": np.zeros_like(means), "mean": means}
        ablations = {name: Ablation(model, layer, value, [output], threads=1) for name, value in off.items()}
        for number in range(min(pictures, len(fitted))):
            rest = engine.maps(batch[number], np.array([-1]))[1]
            c, phi = int(rest["ids"][0, 0]), rest["phi"][0, 0]
            active = np.flatnonzero(np.abs(phi) > 0)
            falls = {}
            for name, ablation in ablations.items():
                decisions = engine.classes.decisions(ablation.run(batch[number], rest[layer][0], active.tolist()))
                assert decisions is not None
                falls[name] = float(rest["decision"][0, 0]) - decisions[:, c]
            told = {"phi": phi}
            for name, changes in changed.items():
                told[name] = averaged(module, torch.from_numpy(batch[number]), layer, output, c, changes)
            for name, values in told.items():
                found[f"0, {name}"].append(float(spearmanr(falls["0"], values[active]).statistic))
            against = phi - means * gradient.slopes(batch[number], c)
            found["mean, phi"].append(float(spearmanr(falls["mean"], phi[active]).statistic))
            found["mean, against the mean"].append(float(spearmanr(falls["mean"], against[active]).statistic))
        for ablation in ablations.values():
            ablation.close()
    return found


@click.command()
@click.option("--networks", default="demo,boards,lite0", show_default=True)
@click.option("--pictures", default=20, show_default=True)
@click.option("--middle", is_flag=True, help="A layer halfway down.")
@click.option("--write", type=click.Path(path_type=Path), default=Path("build/switched-off.json"), show_default=True)
@plainly
def main(networks: str, pictures: int, middle: bool, write: Path) -> None:
    results = []
    for network in networks.split(","):
        model, fitted = subject(network)
        layers = [layer.value for layer in model.layers]
        place = layers.index(model.default_layer.value)
        layer = layers[place // 2] if middle else layers[place]
        for name, values in switched(model, layer, fitted, pictures).items():
            found = bootstrap_mean(np.array(values))
            row = {"network": network, "layer": layer, "set to": name, **vars(found), "least": min(values)}
            results.append({**row, "pictures": len(values)})
            print(
                f"{network:8} {layer:16} set to {name:23} {found}, least {min(values):.3f}, {len(values)}", flush=True
            )
    write.parent.mkdir(parents=True, exist_ok=True)
    write.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
