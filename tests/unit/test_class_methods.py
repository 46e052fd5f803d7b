"""Methods that explain decisions, held to a network that decides by colour, and to formulas worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fsagn_onnx.errors import UsageError
from fsagn_onnx.methods import CLASS_METHODS, make_class_method
from fsagn_onnx.methods.class_gradient import decision_values
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.ablation import tail
from fsagn_onnx.runtime.feature_maps import FeatureMaps
from fsagn_onnx.runtime.masks import area_rank, pixel_mask
from fsagn_onnx.runtime.session import Session
from fsagn_onnx.testing.graph_builder import GraphBuilder

SIZE, LAYER = 32, "seen"
CONTROLS = ("random-class", "centre-class")


def colour_network(path: Path, *, hidden: bool = False) -> Model:
    """Filters that see red, green and blue in cells of 4 pixels, pooling, a dense layer of three classes."""
    graph = GraphBuilder()
    weights = np.zeros((3, 3, 4, 4), np.float32)
    for colour in range(3):
        weights[colour, colour] = 1 / 16
        weights[colour, [other for other in range(3) if other != colour]] = -1 / 32
    value = graph.op("Conv", "image", graph.constant(weights), strides=[4, 4], kernel_shape=[4, 4])
    flat = graph.op("Flatten", graph.op("GlobalAveragePool", graph.op("Relu", value, out=LAYER)))
    if hidden:
        square = np.eye(3, dtype=np.float32) * 20
        flat = graph.op("Relu", graph.op("Gemm", flat, graph.constant(square), graph.constant(np.zeros(3, np.float32))))
    dense = (np.eye(3) * 9 - 2).astype(np.float32)
    graph.op("Gemm", flat, graph.constant(dense), graph.constant(np.zeros(3, np.float32)), out="logits")
    return load_model(graph.save(path, ["logits"], size=SIZE))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return colour_network(tmp_path_factory.mktemp("colours") / "colours.onnx")


def picture(seed: int, colour: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey noise with a square of one colour, and where it is: batch of one, and ``(H, W)`` bool."""
    rng = np.random.default_rng(seed)
    pixels = np.repeat(rng.uniform(0.3, 0.6, (1, SIZE, SIZE)), 3, axis=0)
    top, left = rng.integers(0, SIZE // 4 - 2, 2) * 4
    place = np.zeros((SIZE, SIZE), bool)
    place[top : top + 8, left : left + 8] = True
    pixels[:, place] = 0.1
    pixels[colour, place] = 1
    return pixels[None].astype(np.float32), place


@pytest.mark.parametrize("name", [name for name in CLASS_METHODS if name not in CONTROLS])
def test_a_class_method_finds_what_the_decision_hangs_on(name: str, model: Model) -> None:
    method, shares = make_class_method(name, model, LAYER), []
    for seed in range(2):
        for colour in range(3):
            batch, place = picture(seed, colour)
            (found,) = method.evidence(batch, np.array([colour]))
            assert np.isfinite(found).all()
            mask = pixel_mask(area_rank(found), place.mean(), (SIZE, SIZE))
            shares.append((mask & place).sum() / place.sum())
    assert np.mean(shares) > 0.3, f"{name}: by chance 6 % of the square"
    assert method.passes.forward >= 1


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_know_nothing_of_the_class(name: str, model: Model) -> None:
    batch, _ = picture(0, 0)
    found = [make_class_method(name, model, LAYER).evidence(batch, np.array([0])) for _ in range(2)]
    assert np.array_equal(*found)


@pytest.mark.parametrize("hidden", [False, True])
def test_gradient_x_activation_is_that_of_finite_differences(hidden: bool, tmp_path: Path) -> None:
    """Each place against the decision in onnxruntime when that place's filters change a little."""
    model = colour_network(tmp_path / "net.onnx", hidden=hidden)
    batch, _ = picture(3, 1)
    (found,) = make_class_method("gradient-x-activation", model, LAYER).evidence(batch, np.array([1]))
    whole = FeatureMaps.of_model(model, LAYER).maps(batch)
    rest = Session(tail(model.proto, LAYER, ["logits"]))

    def decision(maps: np.ndarray) -> float:
        logits = rest.run(["logits"], {LAYER: maps.astype(np.float32)})["logits"][0].astype(np.float64)
        return float(logits[1] - np.logaddexp(logits[0], logits[2]))

    expected = np.zeros_like(found)
    for at in np.ndindex(*found.shape):
        more, less = whole.copy(), whole.copy()
        more[0, :, at[0], at[1]] *= 1.05
        less[0, :, at[0], at[1]] *= 0.95
        expected[at] = (decision(more) - decision(less)) / 0.1
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=0.02 * found.max())


def test_class_activation_maps_worked_out_by_hand(model: Model) -> None:
    batch, _ = picture(0, 2)
    maps = FeatureMaps.of_model(model, LAYER).maps(batch)[0]
    weights = (np.eye(3) * 9 - 2)[:, 2] / maps[0].size
    expected = np.einsum("k,khw->hw", weights, maps)
    found = {name: make_class_method(name, model, LAYER).evidence(batch, np.array([2]))[0] for name in CLASS_METHODS
             if name in ("cam", "grad-cam", "layer-cam")}  # fmt: skip
    np.testing.assert_allclose(found["cam"], expected, atol=1e-6)
    np.testing.assert_allclose(found["grad-cam"], np.maximum(expected, 0), atol=1e-6)
    np.testing.assert_allclose(found["layer-cam"], np.einsum("k,khw->hw", np.maximum(weights, 0), maps), atol=1e-6)


@pytest.mark.parametrize("scores", ["logits", "probabilities", "log-probabilities", "logit", "sigmoid", "labels"])
def test_the_decision_value_is_the_log_odds(scores: str) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    classes = torch.tensor([0, 2])
    if scores in ("logit", "sigmoid"):
        single = torch.tensor([[1.5], [-0.5]])
        values = single.sigmoid() if scores == "sigmoid" else single
        found = decision_values(values, torch.tensor([1, 0]), scores)
        assert found.tolist() == pytest.approx([1.5, 0.5], abs=1e-5)
        return
    share = logits.sigmoid() if scores == "labels" else logits.softmax(1)
    given = {"logits": logits, "log-probabilities": share.log()}.get(scores, share)
    own = share[[0, 1], classes].double()
    expected = (own / (1 - own)).log()
    assert decision_values(given, classes, scores).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_several_layers_are_summed_over_their_peaks(model: Model) -> None:
    batch, _ = picture(1, 0)
    (one,) = make_class_method(f"gradient-x-activation@{LAYER}", model, "").evidence(batch, np.array([0]))
    (two,) = make_class_method(f"gradient-x-activation@{LAYER}+{LAYER}", model, "").evidence(batch, np.array([0]))
    np.testing.assert_allclose(two, 2 * one / one.max(), atol=1e-5)


def test_what_cannot_be_asked_gives_one_line(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no class method 'kam'"):
        make_class_method("kam", model, LAYER)
    graph = GraphBuilder()
    graph.op("Sigmoid", graph.conv("image", 3, 2), out="map")
    plain = load_model(graph.save(tmp_path / "map.onnx", ["map"]))
    for name in ("cam", "recipro-cam", "rise-class"):
        with pytest.raises(UsageError, match="need a model that classifies") as error:
            make_class_method(name, plain, plain.layers[-1].value)
        assert "\n" not in str(error.value)
