"""Bad input at the level of the command line: one line that says what, where and what to do; nothing half written."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fsagn_onnx.cli.main import run
from fsagn_onnx.data.images import read_image
from fsagn_onnx.testing.synthetic import SyntheticParts

MODELS = Path(__file__).resolve().parents[2] / "models"
EXPLAINER = MODELS / "demo_explainer.onnx"
MODEL = MODELS / "demo_cnn.onnx"
SCRIPT = str(Path(sys.executable).with_name("fsagn-onnx"))


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return SyntheticParts("test", 1)[0].image


@pytest.fixture
def image(tmp_path: Path, picture: NDArray[np.uint8]) -> Path:
    Image.fromarray(picture).save(tmp_path / "good.png")
    return tmp_path / "good.png"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refuse(*arguments: object) -> str:
        """Run a command that must fail with one line and status 1; the line."""
        capsys.readouterr()
        assert run([str(argument) for argument in arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        *before, line = captured.err.splitlines()
        assert all(other.startswith("warning: ") for other in before)
        assert line.startswith("error: ")
        assert captured.err.endswith("\n")
        return line

    return refuse


def lines_of(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()]


def explained(image: Path, out: Path) -> tuple[dict[str, object], NDArray[np.float16]]:
    """The only line and the masks of a run over one image."""
    assert run(["explain", str(EXPLAINER), str(image), "--out", str(out), "--threads", "1"]) == 0
    (line,) = lines_of(out)
    with np.load(out / "masks" / f"{line['name']}.npz") as arrays:
        return line, arrays["area_rank"]


def save(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


def network(*channels: int) -> onnx.ModelProto:
    """A conv over an input with so many channels (no conv without)."""
    count = channels[0] if channels else 3
    weights = [numpy_helper.from_array(np.ones((4, count, 3, 3), np.float32), "w")]
    body = helper.make_node("Conv", ["x", "w"], ["y"]) if channels else helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph(
        [body],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", count, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights if channels else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


# Models


def test_truncated_files(tmp_path: Path, image: Path, refused: Callable[..., str]) -> None:
    for source in (EXPLAINER, MODEL):
        cut = tmp_path / f"cut-{source.name}"
        cut.write_bytes(source.read_bytes()[:-5000])
        for command in (["explain", cut, image, "--out", tmp_path / "out"], ["inspect", cut]):
            assert "not an ONNX file, or a truncated one" in refused(*command)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin", "/etc/hostname", "link.bin"])
def test_external_data_that_is_missing_or_escapes(
    location: str, tmp_path: Path, image: Path, refused: Callable[..., str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(10**6))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    for source in (MODEL, EXPLAINER):
        proto = onnx.load(source)
        tensor = max(proto.graph.initializer, key=lambda item: len(item.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        path = save(proto, folder / source.name)
        expected = "is missing" if location == "missing.bin" else "points outside of the model's folder"
        line = refused("explain", path, image, "--out", tmp_path / "out")
        assert expected in line, line
        assert tensor.name in line
        assert not (tmp_path / "out").exists()


def test_a_model_without_conv_layers(tmp_path: Path, image: Path, refused: Callable[..., str]) -> None:
    path = save(network(), tmp_path / "relu.onnx")
    for command in ("explain", "train"):
        line = refused(command, path, image, "--out", tmp_path / "out")
        assert "relu.onnx has no layer that can be explained" in line
        assert "no convolution at all" in line


def test_an_unknown_layer_names_the_nearest(tmp_path: Path, image: Path, refused: Callable[..., str]) -> None:
    for command in ("explain", "train"):
        line = refused(command, MODEL, image, "--out", tmp_path / "out", "--layer", "block5x")
        assert "no value 'block5x' in demo_cnn.onnx" in line
        assert "nearest: 'block5'" in line
        assert "fsagn-onnx inspect demo_cnn.onnx" in line


def test_wrong_channel_counts(tmp_path: Path, image: Path, refused: Callable[..., str]) -> None:
    line = refused("inspect", save(network(5), tmp_path / "five.onnx"))
    assert "'x' float32 (N, 5, 16, 16)" in line
    (tmp_path / "gray.json").write_text('{"color": "GRAY", "mean": 0, "std": 255}')
    line = refused("explain", MODEL, image, "--out", tmp_path / "out", "--preprocess", tmp_path / "gray.json")
    assert "field 'color' gives NCHW (N, 1, " in line
    assert "(N, 3, " in line


def test_a_checkpoint_of_another_model(tmp_path: Path, refused: Callable[..., str]) -> None:
    checkpoint = MODELS / "lite0_generator.safetensors"
    line = refused("export", checkpoint, "--model", MODEL, "--out", tmp_path / "explainer.onnx")
    assert "was trained for another model than" in line
    assert "demo_cnn.onnx" in line
    assert list(tmp_path.iterdir()) == []
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(checkpoint.read_bytes()[:1000])
    assert "is damaged" in refused("export", damaged, "--model", MODEL, "--out", tmp_path / "explainer.onnx")


@pytest.mark.parametrize("plain", [False, True])
def test_nan_in_the_output(plain: bool, tmp_path: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = onnx.load(MODEL if plain else EXPLAINER)
    output = proto.graph.output[0].name
    (last,) = (node for node in proto.graph.node if output in node.output)
    bias = next(item for item in proto.graph.initializer if item.name == last.input[-1])
    values = numpy_helper.to_array(bias).copy()
    values.flat[0] = np.nan
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    path = save(proto, tmp_path / "nan.onnx")
    more = ["--method", "activation"] if plain else []
    assert run(["explain", str(path), str(image), "--out", str(tmp_path / "out"), *more]) == 3
    error = capsys.readouterr().err
    assert f"good.png: output '{output}'" in error
    assert "is not finite" in error
    assert "Traceback" not in error
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["state"], manifest["counts"]) == ("done", {"explained": 0, "failed": 1})
    assert list((tmp_path / "out" / "masks").iterdir()) == []


# Images


def test_16_bit_and_alpha_and_gray(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """A 16-bit picture gives what its 8-bit form gives."""
    rank = explained(_png(tmp_path / "8.png", picture), tmp_path / "out8")[1]
    deep = picture.astype(np.uint16) * 257
    assert np.array_equal(explained(_png(tmp_path / "16.png", deep), tmp_path / "out16")[1], rank)
    alpha = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    assert np.array_equal(explained(_png(tmp_path / "a.png", alpha), tmp_path / "outa")[1], rank)
    explained(_png(tmp_path / "gray.png", picture[..., :1]), tmp_path / "outg")


def _png(path: Path, rgb: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[rgb.shape[2]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., order]))
    return path


def test_cmyk_and_animated(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    line, _ = explained(tmp_path / "cmyk.jpg", tmp_path / "out-cmyk")
    assert (line["height"], line["width"]) == picture.shape[:2]
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "one.gif")
    first = explained(tmp_path / "one.gif", tmp_path / "out1")[1]
    assert np.array_equal(explained(tmp_path / "two.gif", tmp_path / "out2")[1], first)


def test_exif_rotation_is_applied_before_anything_else(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    sideways = np.ascontiguousarray(np.rot90(picture[:96]))  # (W, 96): the camera was turned
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(sideways).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.shape == (96, picture.shape[1], 3)
    line, rank = explained(tmp_path / "turned.jpg", tmp_path / "out1")
    straight, same = explained(_png(tmp_path / "straight.png", upright), tmp_path / "out2")
    assert (line["height"], line["width"]) == (96, picture.shape[1])
    assert line["filters"] == straight["filters"]
    assert np.array_equal(rank, same)


def test_one_pixel(tmp_path: Path) -> None:
    line, rank = explained(_png(tmp_path / "one.png", np.full((1, 1, 3), 200, np.uint8)), tmp_path / "out")
    assert (line["height"], line["width"]) == (1, 1)
    assert np.isfinite(rank).all()


def test_the_same_file_name_in_two_folders(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        _png(tmp_path / folder / "x.png", np.ascontiguousarray(np.roll(picture, 20 * number, axis=0)))
    out = tmp_path / "out"
    arguments = ["explain", str(EXPLAINER), str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]
    assert run(arguments) == 0
    names = [str(line["name"]) for line in lines_of(out)]
    assert len(set(names)) == 2
    assert sorted(path.stem for path in (out / "masks").iterdir()) == sorted(names)
    assert run([*arguments, "--resume"]) == 0
    assert [line["name"] for line in lines_of(out)] == names


def test_no_images(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no images in" in refused("explain", EXPLAINER, tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Places to write to


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can write")
def test_an_unwritable_folder(image: Path, refused: Callable[..., str]) -> None:
    line = refused("explain", EXPLAINER, image, "--out", "/proc/fsagn")
    assert "cannot write /proc/fsagn" in line
    assert "choose another --out" in line


def limited(bytes_per_file: int) -> Callable[[], None]:
    """No file of the new process may grow beyond: the nearest to a full disk that needs no rights."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, bytes_per_file))


@pytest.mark.slow
def test_a_full_disk_leaves_only_whole_files(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    _png(tmp_path / "small.png", np.ascontiguousarray(picture[::8, ::8]))
    large = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)  # its overlay does not shrink
    _png(tmp_path / "z-large.png", large)
    out = tmp_path / "out"
    command = [SCRIPT, "explain", EXPLAINER, tmp_path / "small.png", tmp_path / "z-large.png", "--out", out]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=1800, preexec_fn=limited(300_000)
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.count("\n") == 1
    assert "free some space or choose another --out" in done.stderr
    assert len(lines_of(out)) == 1
    assert not list(out.rglob("*.part"))
    assert [path.stem for path in (out / "overlays").iterdir()] == ["small"]
    assert run([*map(str, command[1:]), "--resume"]) == 0
    assert len(lines_of(out)) == 2


HALTED = """
import time
from fsagn_onnx.cli.main import main
from fsagn_onnx.data.files import LineFile
append, written = LineFile.append, []
def halting(self, line):
    append(self, line)
    written.extend([line] if self.path.name == "explanations.jsonl" else [])
    while len(written) == 5:
        time.sleep(1)
LineFile.append = halting
main()
"""
"""fsagn-onnx, which waits for the kill after 5 pictures."""


@pytest.mark.slow
def test_kill_9_leaves_whole_files_and_resume_does_the_rest(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(20):
        shutil.copy(_png(tmp_path / "one.png", picture), images / f"{number:03}.png")
    out = tmp_path / "out"
    command = [str(part) for part in ("explain", EXPLAINER, images, "--out", out, "--batch-size", 2, "--threads", 1)]
    process = subprocess.Popen(
        [sys.executable, "-c", HALTED, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lines = out / "explanations.jsonl"
    while process.poll() is None:
        if lines.is_file() and lines.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    whole = [line for line in lines.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 5 <= len(whole) < 20
    for path in out.rglob("[!.]*"):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(np.isfinite(arrays[name]).all() for name in arrays.files)
        elif path.suffix == ".png":
            assert cv2.imread(str(path)) is not None
        elif path.suffix == ".json":
            assert json.loads(path.read_text())["state"] == "running"
    finished = {str(json.loads(line)["name"]) for line in whole}
    before = {path: path.stat().st_mtime_ns for name in finished for path in out.rglob(f"{name}.*")}
    assert len(before) == 2 * len(finished)
    assert run([*command, "--resume"]) == 0
    assert [line["name"] for line in lines_of(out)] == [f"{number:03}" for number in range(20)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(out.rglob(".*"))
    assert json.loads((out / "manifest.json").read_text())["counts"] == {"explained": 20, "failed": 0}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("explain", ["--filters", "9999"]),
        ("explain", ["--filters", "top:0"]),
        ("explain", ["--area", "7"]),
        ("explain", ["--model", str(EXPLAINER)]),
        ("dissect", ["--filters", "x"]),
        ("dissect", ["--area", "7"]),
        ("perturb", ["--filters", "9999"]),
        ("perturb", ["--area", "0"]),
        ("perturb", ["--disturbances", "rain"]),
        ("evaluate", ["--metrics", "beauty"]),
    ],
)
def test_a_wrong_option_leaves_no_folder_behind(
    command: str, options: list[str], tmp_path: Path, image: Path, refused: Callable[..., str]
) -> None:
    files = [EXPLAINER] if command == "explain" else [MODEL, EXPLAINER]
    refused(command, *files, image, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["explain", "dissect", "perturb", "evaluate"])
def test_no_images_leave_no_folder_behind(command: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "none").mkdir()
    files = [EXPLAINER] if command == "explain" else [MODEL, EXPLAINER]
    assert "no images in" in refused(command, *files, tmp_path / "none", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
