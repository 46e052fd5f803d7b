"""From `inspect` to `explain` on models of other inputs: layouts, types, channels, several inputs, a fixed batch."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from fsagn_onnx.cli.main import run
from fsagn_onnx.generator import explainer_graph
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.testing.synthetic import SyntheticParts

SIZE = 64


class Network(nn.Module):
    """Three strided convs and a channel shuffle, whose view holds the batch, behind a way of taking the image."""

    def __init__(self, take: Callable[..., Tensor], channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.take = take
        widths = [channels, 8, 16, 24]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))
        self.out = nn.Linear(24, 4)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = self.take(*inputs)
        for conv in self.convs:
            x = torch.relu(conv(x))
            n, c, h, w = (int(side) for side in x.shape)
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.out(x.mean(dim=(2, 3)))


def plain(x: Tensor) -> Tensor:
    return x


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def pixels(x: Tensor) -> Tensor:
    return (x.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def with_gain(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return x * gain.reshape(-1, 1, 1, 1) + offset


@dataclass(frozen=True)
class Case:
    """How the image is taken, what the file then is, and what the command line is told."""

    take: Callable[..., Tensor]
    inputs: tuple[tuple[int, ...], ...]
    dtype: torch.dtype = torch.float32
    channels: int = 3
    dynamic: bool = True
    options: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


NCHW = (2, 3, SIZE, SIZE)
TIMM = json.dumps({"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, SIZE, SIZE], "crop_pct": 0.95})
CASES = {
    "nhwc": Case(nhwc, ((2, SIZE, SIZE, 3),), metadata={"pretrained_cfg": TIMM}),
    "uint8": Case(pixels, ((2, SIZE, SIZE, 3),), torch.uint8),
    "float16": Case(plain, (NCHW,), torch.float16),
    "gray": Case(plain, ((2, 1, SIZE, SIZE),), channels=1),
    "four channels": Case(plain, ((2, 4, SIZE, SIZE),), channels=4),
    "ultralytics": Case(
        plain, (NCHW,), metadata={"author": "Ultralytics", "task": "detect", "imgsz": f"[{SIZE}, {SIZE}]",
                                  "names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd'}"},
    ),
    "three inputs": Case(
        with_gain, (NCHW, (2, 1), (3, 1, 1)), options=("--feed", "in1=0.5", "--feed", "in2=[[[0.1]],[[0]],[[0]]]"),
    ),
    "fixed batch": Case(plain, ((1, 3, SIZE, SIZE),), dynamic=False),
}  # fmt: skip


def exported(case: Case, folder: Path) -> Path:
    names = [f"in{n}" for n in range(len(case.inputs))]
    tensors = tuple(torch.ones(shape, dtype=case.dtype) for shape in case.inputs)
    axes = {name: {0: "N"} for name, shape in zip(names, case.inputs, strict=True) if shape[0] == 2}
    network = Network(case.take, case.channels).eval()
    network = network.half() if case.dtype == torch.float16 else network
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tensors, str(path), input_names=names, output_names=["scores"], opset_version=17, dynamo=False,
            dynamic_axes={**axes, "scores": {0: "N"}} if case.dynamic else None,
        )  # fmt: skip
    proto = onnx.load(path)
    for node in proto.graph.node:  # the traced views hold the batch of 2; a free batch is what is tested here
        for item in node.attribute:
            if case.dynamic and node.op_type == "Constant" and item.t.dims == [len(item.t.raw_data) // 8]:
                target = onnx.numpy_helper.to_array(item.t).copy()
                if target.ndim == 1 and target.size > 3 and target[0] == 2:
                    target[0] = -1
                    item.t.CopyFrom(onnx.numpy_helper.from_array(target, item.t.name))
    onnx.helper.set_model_props(proto, case.metadata)
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, sample in enumerate(SyntheticParts("test", 3)):
        cv2.imwrite(str(folder / f"{number}.png"), sample.image[..., ::-1])
    return folder


def ran(*arguments: object) -> None:
    assert run([str(argument) for argument in arguments]) == 0


@pytest.mark.parametrize("name", CASES)
def test_from_inspect_to_explain(name: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    model, explainer, out = exported(case, tmp_path), tmp_path / "explainer.onnx", tmp_path / "out"
    ran("inspect", model, "--json", "--images", images, *case.options)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["convertible"] is True, document["conversion"]
    assert document["images"] == 3
    ran("train", model, images, "--out", explainer, "--pairs", 32, *case.options)
    error = capsys.readouterr().err
    assert ("guessed" in error) == (not case.metadata)
    ran("explain", explainer, images, "--out", out, "--verify", "--model", model, *case.options)
    lines = [json.loads(line) for line in (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    for line in lines:
        for explained in line["filters"]:
            measured = explained["retention"]["measured"]
            assert measured is None if explained["area"] is None else 0 <= measured <= 1
    _same_predictions(model, explainer, case, images)
    ran("explain", model, images, "--out", tmp_path / "plain", "--method", "activation", *case.options)


def _same_predictions(model: Path, explainer: Path, case: Case, images: Path) -> None:
    """The explainer's outputs are those of the file, image by image."""
    feeds = [case.options[n + 1] for n in range(0, len(case.options), 2)]
    loaded = load_model(model, feeds=feeds)
    session = onnxruntime.InferenceSession(loaded.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    with Explainer(explainer, providers="cpu") as opened:
        explained = opened.explain(images, "top:2")
        assert opened.metadata.content == loaded.content
    for explanation in explained:
        assert explanation.path is not None
        values, _ = loaded.input_spec.preprocess(cv2.imread(str(explanation.path))[..., ::-1])
        kinds = {torch.uint8: np.uint8, torch.float16: np.float16}
        fed = values[None].astype(kinds.get(case.dtype, np.float32))
        (scores,) = session.run(None, {loaded.input_spec.name: fed})
        assert explanation.predictions[0].index == scores[0].argmax()


def test_a_model_that_holds_on_to_its_batch_is_explained_in_groups(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the change that frees it: the explainer has the batch of 1, and gives the same."""
    model = exported(CASES["fixed batch"], tmp_path)
    ran("train", model, images, "--out", tmp_path / "free.onnx", "--pairs", 16)
    monkeypatch.setattr(explainer_graph, "free_batch", lambda proto, image, shape: proto)
    checkpoint = tmp_path / "free.checkpoint.safetensors"
    ran("export", checkpoint, "--model", model, "--out", tmp_path / "fixed.onnx")
    found = []
    for name, batch in (("free.onnx", "N"), ("fixed.onnx", 1)):
        graph = onnx.load(tmp_path / name).graph
        first = [item.type.tensor_type.shape.dim[0] for item in (*graph.input, *graph.output)]
        assert {dim.dim_value or dim.dim_param for dim in first} == {batch}
        with Explainer(tmp_path / name, providers="cpu") as explainer:
            found.append(explainer.explain(images, "top:2"))
    for free, fixed in zip(*found, strict=True):
        assert [explained.id for explained in free.filters] == [explained.id for explained in fixed.filters]
        for one, other in zip(free.filters, fixed.filters, strict=True):
            assert np.array_equal(one.area_rank, other.area_rank)


def test_several_inputs_without_constants_are_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = exported(CASES["three inputs"], tmp_path)
    for command in ("train", "explain"):
        assert run([command, str(model), str(images), "--out", str(tmp_path / "out")]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert "net.onnx needs more than the image 'in0'" in line
        assert "--feed in1=VALUE --feed in2=VALUE" in line
    assert run(["inspect", str(model), "--feed", "in3=1"]) == 1
    assert "no input 'in3'; nearest: 'in" in capsys.readouterr().err


def test_an_encoder_of_its_own_takes_the_model_s_pixels(images: Path, tmp_path: Path) -> None:
    model = exported(CASES["uint8"], tmp_path)
    ran("train", model, images, "--out", tmp_path / "own.onnx", "--pairs", 16, "--own")
    graph = onnx.load(tmp_path / "own.onnx").graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    ran("explain", tmp_path / "own.onnx", images, "--out", tmp_path / "out", "--verify", "--model", model)
