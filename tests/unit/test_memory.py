"""A training that cannot fit into memory says so before it costs anything."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fsagn_onnx.cli.main import run
from fsagn_onnx.conversion import convert
from fsagn_onnx.errors import UsageError
from fsagn_onnx.generator import TrainingOptions, step_memory, train
from fsagn_onnx.generator.memory import free_memory
from fsagn_onnx.generator.step_memory import StepMemory, first_look, kept_bytes, shape_bytes, step_bytes
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder

FEW = TrainingOptions(pairs=8, images_per_step=4, questions=("filters",), ramp=())


@pytest.fixture
def model(tmp_path: Path) -> Model:
    b = GraphBuilder()
    b.head(b.conv(b.conv("image", 3, 8), 8, 16), 16)
    return load_model(b.save(tmp_path / "m.onnx", ["logits"]))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "p.png"
    cv2.imwrite(str(file), np.arange(40 * 44 * 3, dtype=np.uint8).reshape(40, 44, 3))
    return file


def allow(monkeypatch: pytest.MonkeyPatch, free: int | None) -> None:
    monkeypatch.setattr(step_memory, "free_memory", lambda: free)


def test_what_a_backward_pass_keeps_is_counted_map_by_map(model: Model) -> None:
    layer = model.default_layer
    module = convert(model, [layer.value])
    height, width = model.input_spec.size
    earlier = model.layers[0]
    maps = 3 * height * width + sum(np.prod(found.shape) for found in (earlier, layer))
    assert kept_bytes(module, model.input_spec) == 4 * maps  # each convolution's input, each ReLU's output, once


def test_the_largest_input_of_the_run_counts(model: Model) -> None:
    spec = model.input_spec
    long, short = TrainingOptions(), TrainingOptions(ramp=((1.0, 0.5),))
    assert step_bytes(1000, spec, long, classes=False) == 2 * 1000
    assert step_bytes(1000, spec, long, classes=True) == 3 * 1000
    assert step_bytes(1000, spec, short, classes=False) <= 2 * 1000


def test_a_training_too_large_for_memory_is_refused_before_anything(
    model: Model, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = kept_bytes(convert(model, [model.default_layer.value]), model.input_spec)
    assert kept is not None
    allow(monkeypatch, 2 * 3 * kept + 1)  # two filters of three images
    with pytest.raises(UsageError, match=r"4 images keeps .* GB .* free: train with --images-per-step 1$"):
        train(model, [picture], tmp_path / "e.onnx", options=FEW)
    assert not list(tmp_path.glob("e.*"))
    fits = TrainingOptions(**{**vars(FEW), "images_per_step": 3})
    train(model, [picture], tmp_path / "e.onnx", options=fits)


def test_the_first_look_takes_fewer_large_images(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_look(model, TrainingOptions()) == 32
    monkeypatch.setattr("fsagn_onnx.generator.step_memory.LOOK_BYTES", 12 * shape_bytes(model) + 1)
    assert first_look(model, TrainingOptions()) == 12
    assert first_look(model, TrainingOptions(images_per_step=16)) == 16
    assert first_look(model, TrainingOptions(images_per_step=64)) == 32


def test_where_not_one_image_fits_a_smaller_input_is_named() -> None:
    assert StepMemory(needed=10, free=9, images=8).fitting == StepMemory(needed=10, free=9, images=8).advised == 0
    assert StepMemory(needed=10, free=10, images=8).advised == 1
    assert StepMemory(needed=10, free=55, images=8).fitting == 5
    assert "--images-per-step 2" in str(StepMemory(needed=10, free=55, images=8))
    assert "--preprocess" in str(StepMemory(needed=10, free=9, images=8))
    assert "\n" not in str(StepMemory(needed=10, free=9, images=8))


def test_plenty_of_memory_or_none_known_is_not_measured(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("measured")

    for free in (None, 2**40):
        allow(monkeypatch, free)
        assert step_memory.step_memory(never, model, FEW, classes=False) is None  # type: ignore[arg-type]


def test_inspect_says_how_many_images_a_step_can_have(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 0)
    document = inspect_file(model.path)
    assert (document["trainable"], document["convertible"]) == (False, None)
    assert document["trial"].startswith("no: a training step of 8 images keeps")
    assert document["next"].startswith("fsagn-onnx explain")
    kept = kept_bytes(convert(model, [model.default_layer.value]), model.input_spec)
    assert kept is not None
    allow(monkeypatch, 10 * kept)
    document = inspect_file(model.path)
    assert document["trainable"] is True
    assert 1 <= document["images_per_step"] <= 5
    assert f"--images-per-step {document['images_per_step']}" in document["next"]


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 3 * 1024),
        ({"proc/self/cgroup": "0::/a/b\n"}, 3 * 1024),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b": ("max", "500", "inactive_file 100")}, 3 * 1024),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a": ("1000", "500", "inactive_file 100")}, 600),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup": ("1000", "2000", "inactive_file 0")}, 0),
        (
            {"proc/self/cgroup": "5:cpu:/x\n4:memory:/x\n",
             "sys/fs/cgroup/memory/x": ("900", "600", "total_inactive_file 100")},
            400,
        ),
    ],
)  # fmt: skip
def test_free_memory_is_the_machine_s_or_what_a_control_group_allows(
    tmp_path: Path, files: dict[str, str | tuple[str, str, str]], free: int
) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 2 kB\nSwapFree: 1 kB\nHugePages_Total: 0\n")
    for name, text in files.items():
        if isinstance(text, str):
            write(name, text)
            continue
        old = "memory/" in name
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        for part, value in zip((*names, "memory.stat"), text, strict=True):
            write(f"{name}/{part}", f"{value}\n")
    assert free_memory(tmp_path) == free


def test_free_memory_is_unknown_without_linux(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


def test_torch_without_memory_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("fsagn_onnx.cli.main.cli.main", fail)
    assert run(["train"]) == 1
    assert "error: not enough memory: tried to allocate 4096 bytes; use fewer" in capsys.readouterr().err
    said = "something else"
    with pytest.raises(RuntimeError, match="something else"):
        run(["train"])
