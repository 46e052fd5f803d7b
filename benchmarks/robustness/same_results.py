"""Does a program still write what another version of it wrote? Every command on the shipped explainers, file by file.

    python benchmarks/robustness/same_results.py write BEFORE --program OLD/.venv/bin/fsagn-onnx
    python benchmarks/robustness/same_results.py write AFTER
    python benchmarks/robustness/same_results.py compare BEFORE AFTER

`write` makes the pictures and models of `INPUTS` in the folder, then calls the program once per entry of `COMMANDS`,
one after the other, on one thread, with the folder as its working folder: all paths in the results are relative, so
they are the same for every version. What a command prints goes to `printed/NAME.out` and `.err`, its exit status to
`statuses.json`.

`compare` prints what it compared and every difference; exit status 1 where there is one. Arrays (.npz, .npy) and the
columns of Parquet files are compared to the bit, pictures (.png, .mp4 frames) by pixels, JSON, JSONL and CSV by
members, Markdown and printed text by lines, ONNX files by their bytes. Left out: members that hold versions, times and
speeds (`IGNORED`), and the words of HTML pages, of which only is compared that they are there.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import cv2
import numpy as np

ROOT: Final = Path(__file__).resolve().parents[2]
PICTURES: Final = 16
PLANTED: Final = 12
DEMO: Final = "inputs/demo_cnn.onnx inputs/demo_explainer.onnx"
FEW: Final = "inputs/set/images/val-0000[0-3].png"
HALF: Final = (
    "inputs/set/images/val-0000[0-7].png",
    "inputs/set/images/val-0000[89].png inputs/set/images/val-0001?.png",
)
ALL: Final = "inputs/set/images"
FORMATS: Final = "--format json --format md --format png"

COMMANDS: Final[dict[str, str]] = {
    "inspect-model": "inspect inputs/demo_cnn.onnx --json",
    "inspect-model-text": "inspect inputs/demo_cnn.onnx --no-convert",
    "inspect-images": f"inspect inputs/demo_cnn.onnx --images {ALL} --json",
    "inspect-explainer": "inspect inputs/demo_explainer.onnx --json",
    "inspect-explainer-text": "inspect inputs/demo_explainer.onnx",
    "inspect-planted": "inspect inputs/planted.onnx --json",
    "inspect-planted-explainer": "inspect inputs/planted_explainer.onnx --json",
    "explain": f"explain inputs/demo_explainer.onnx {ALL} --out explain {FORMATS}",
    "explain-json": f"explain inputs/demo_explainer.onnx {FEW} --out explain-json --json",
    "explain-top": f"explain inputs/demo_explainer.onnx {FEW} --out explain-top --filters top:3 --area 0.1 --json",
    "explain-ids": f"explain inputs/demo_explainer.onnx {FEW} --out explain-ids --filters 3,17,40 --full-size",
    "explain-all": f"explain inputs/demo_explainer.onnx {FEW} --out explain-all --filters all --batch-size 3",
    "explain-verify": f"explain inputs/demo_explainer.onnx {FEW} --out explain-verify --verify "
    "--model inputs/demo_cnn.onnx --json",
    "explain-verify-area": f"explain inputs/demo_explainer.onnx {FEW} --out explain-verify-area --verify "
    "--model inputs/demo_cnn.onnx --area 0.08 --filters 1,2",
    "explain-refine": f"explain inputs/demo_explainer.onnx {FEW} --out explain-refine --refine 4 --filters top:2 "
    "--model inputs/demo_cnn.onnx",
    "explain-activation": f"explain inputs/demo_cnn.onnx {FEW} --out explain-activation --method activation",
    "explain-gradient": f"explain inputs/demo_cnn.onnx {FEW} --out explain-gradient --method gradient --filters 3,17",
    "explain-random": f"explain inputs/demo_cnn.onnx {FEW} --out explain-random --method random --filters top:2 --json",
    "explain-sizes": "explain inputs/demo_explainer.onnx inputs/sizes --out explain-sizes --full-size --json",
    "explain-broken": f"explain inputs/demo_explainer.onnx {FEW} inputs/broken.png --out explain-broken --json",
    "explain-planted": "explain inputs/planted_explainer.onnx inputs/planted --out explain-planted --verify "
    f"--model inputs/planted.onnx {FORMATS}",
    "explain-halves-a": f"explain inputs/demo_explainer.onnx {HALF[0]} --out explain-halves-a --filters all",
    "explain-halves-b": f"explain inputs/demo_explainer.onnx {HALF[1]} --out explain-halves-b --filters all",
    "explain-resume": f"explain inputs/demo_explainer.onnx {FEW} --out explain-top --filters top:3 --area 0.1 --resume",
    "explain-taken": f"explain inputs/demo_explainer.onnx {FEW} --out explain-top",
    "explain-other-model": f"explain inputs/demo_explainer.onnx {FEW} --out explain-never --verify "
    "--model inputs/planted.onnx",
    "evaluate": f"evaluate {DEMO} {FEW} --out evaluate --filters 2 --methods generator,activation,random --json",
    "evaluate-parts": f"evaluate {DEMO} {FEW} --out evaluate-parts --parts inputs/set --filters 2 "
    "--infills inpaint,mean --metrics retention,parts",
    "evaluate-planted": "evaluate inputs/planted.onnx inputs/planted_explainer.onnx inputs/planted "
    "--out evaluate-planted --filters 2 --infills inpaint,blur --methods generator,activation,centre",
    "dissect": f"dissect {DEMO} {ALL} --out dissect --permutations 99 {FORMATS}",
    "dissect-parts": f"dissect {DEMO} {ALL} --out dissect-parts --parts inputs/set --labels inputs/labels.csv "
    "--permutations 99 --json",
    "dissect-seed": f"dissect {DEMO} {HALF[1]} --out dissect-seed --parts inputs/set --permutations 99 --seed 1",
    "dissect-planted": "dissect inputs/planted.onnx inputs/planted_explainer.onnx inputs/planted "
    "--out dissect-planted --permutations 99 --groups 3 --filters 0,1,2,3,5 --json",
    "perturb": f"perturb {DEMO} {FEW} --out perturb --filters top:2 --disturbances blur,occlusion {FORMATS}",
    "perturb-parts": f"perturb {DEMO} {HALF[0]} --out perturb-parts --parts inputs/set --labels inputs/labels.csv "
    "--dissection dissect-parts --filters top:2 --disturbances occlusion,noise --json",
    "perturb-seed": f"perturb {DEMO} {HALF[1]} --out perturb-seed --parts inputs/set --filters 3,17 --seed 1 "
    "--disturbances occlusion,noise --no-ablate",
    "perturb-planted": "perturb inputs/planted.onnx inputs/planted_explainer.onnx inputs/planted "
    "--out perturb-planted --filters all --disturbances occlusion --json",
    "compare-explain": "compare explain-halves-a explain-halves-b --out compare-explain --json",
    "compare-dissect": f"compare dissect-parts dissect-seed --out compare-dissect {FORMATS}",
    "compare-perturb": "compare perturb-parts perturb-seed --out compare-perturb --json",
    "train": "train inputs/planted.onnx inputs/planted --out train.onnx --pairs 64 --no-flip --json",
    "train-own": "train inputs/planted.onnx inputs/planted --out train-own.onnx --pairs 64 --own --crop 0.6",
    **{
        name: f"export train.checkpoint.safetensors --model inputs/planted.onnx --out {name}.onnx {options}"
        for name, options in (
            ("export", "--json"),
            ("export-top", "--top 3"),
            ("export-filters", "--filters 1,5,2"),
            ("export-pixels", "--with-preprocessing"),
            ("export-int8", "--precision int8 --calibrate inputs/planted"),
            ("export-fp16", "--precision fp16 --calibrate inputs/planted"),
        )
    },
    **{
        f"explain-{name}": f"explain {name}.onnx inputs/planted --out explain-{name} --filters {filters}"
        for name, filters in (
            ("train", "top:3"),
            ("train-own", "0,7"),
            ("export-top", "top:3"),
            ("export-filters", "1,5"),
            ("export-pixels", "top:2"),
            ("export-int8", "top:2"),
            ("export-fp16", "top:2"),
        )
    },
    "inspect-export-top": "inspect export-top.onnx --json",
    "inspect-export-pixels": "inspect export-pixels.onnx --json",
    "video": "video inputs/demo_explainer.onnx inputs/set/images/val-%05d.png --out video.avi --filters 3,17 --limit 6",
    "triton": "serve inputs/demo_explainer.onnx --triton triton --name demo",
}

IGNORED: Final = re.compile(
    r"versions?|tool_version|python|numpy|onnx|onnxruntime|opencv|torch|platform|machine|host|cpu|seconds|started"
    r"|finished|created|date|time|elapsed|.*_seconds|.*_ms|.*per_second|rate|speed|peak_memory"
)
TIMED: Final = re.compile(r"\d+(\.\d+)? ?(ms|s|min|h|images/s|pairs/s|frames/s|MB|KB|kB)\b|\d+(\.\d+)? (per|a) second")
VERSION: Final = re.compile(r"\b\d+\.\d+\.\d+\w*")


def make_inputs(folder: Path) -> None:
    """The shipped and the planted models, synthetic pictures with part masks, and pictures of odd sizes."""
    from fsagn_onnx.testing.planted import planted_picture, write_planted
    from fsagn_onnx.testing.planted_explainer import write_planted_explainer
    from fsagn_onnx.testing.synthetic import write_folder

    for name in ("demo_cnn.onnx", "demo_explainer.onnx"):
        shutil.copyfile(ROOT / "models" / name, folder / name)
    write_planted(folder / "planted.onnx")
    write_planted_explainer(folder / "planted_explainer.onnx")
    entries = json.loads(write_folder(folder / "set", "val", PICTURES).read_text(encoding="utf-8"))["images"]
    rows = [f"{Path(entry['file']).name},{entry['class']}\n" for entry in entries]
    (folder / "labels.csv").write_text("file,label\n" + "".join(rows), encoding="utf-8")
    for name in ("planted", "sizes"):
        (folder / name).mkdir()
    for seed in range(PLANTED):
        cv2.imwrite(str(folder / "planted" / f"{seed:02d}.png"), planted_picture(seed).image[..., ::-1])
    first = cv2.imread(str(folder / "set" / "images" / "val-00000.png"))
    for width, height in ((31, 97), (200, 120), (128, 128), (333, 50)):
        cv2.imwrite(str(folder / "sizes" / f"{width}x{height}.png"), cv2.resize(first, (width, height)))
    cv2.imwrite(str(folder / "sizes" / "gray.png"), cv2.cvtColor(first, cv2.COLOR_BGR2GRAY))
    (folder / "broken.png").write_bytes(b"not a picture")


@click.group()
def main() -> None:
    """Compare the results of two versions of the program."""


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--program", type=click.Path(exists=True, dir_okay=False), help="The fsagn-onnx to call.")
@click.option("--only", help="Regular expression of the names of the commands to call.")
@click.option("--inputs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder made before.")
def write(out: Path, program: str | None, only: str | None, inputs: Path | None) -> None:
    """Call every command, and keep what it writes and prints in OUT."""
    program = str(Path(program or Path(sys.executable).with_name("fsagn-onnx")).absolute())
    (out / "printed").mkdir(parents=True, exist_ok=True)
    if not (out / "inputs").exists():
        if inputs:
            shutil.copytree(inputs, out / "inputs")
        else:
            (out / "inputs").mkdir()
            make_inputs(out / "inputs")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    kept = out / "statuses.json"
    statuses: dict[str, int] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name, words in COMMANDS.items():
        if only and not re.search(only, name):
            continue
        for left in (out / name, *out.glob(f"{name}.*")):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        threads = [] if words.split()[0] in ("inspect", "train", "export", "compare") else ["--threads", "1"]
        started = time.monotonic()
        done = subprocess.run(
            [program, *words.split(), *threads], cwd=out, env=environment, capture_output=True, text=True, check=False
        )
        (out / "printed" / f"{name}.out").write_text(done.stdout, encoding="utf-8")
        (out / "printed" / f"{name}.err").write_text(done.stderr, encoding="utf-8")
        statuses[name] = done.returncode
        kept.write_text(json.dumps(statuses, indent=1), encoding="utf-8")
        last = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
        print(f"{name}: status {done.returncode}, {time.monotonic() - started:.1f} s {last}", flush=True)


def members(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two JSON values differ; versions and times do not count."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if IGNORED.fullmatch(str(key)):
                continue
            if key not in a or key not in b:
                value = a.get(key, b.get(key))
                yield f"{where}.{key} only in {'A' if key in a else 'B'}: {json.dumps(value, default=str)[:120]}"
            else:
                yield from members(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{where}: {len(a)} items and {len(b)}"
        for number, (left, right) in enumerate(zip(a, b, strict=False)):
            yield from members(left, right, f"{where}[{number}]")
    elif a != b and not (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)):
        yield f"{where}: {str(a)[:100]!r} and {str(b)[:100]!r}"


def documents(a: Path, b: Path) -> Iterator[str]:
    yield from members(*(json.loads(path.read_text(encoding="utf-8")) for path in (a, b)))


def lines_of_json(a: Path, b: Path) -> Iterator[str]:
    rows = [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line] for path in (a, b)]
    yield from members(*rows)


def tables(a: Path, b: Path) -> Iterator[str]:
    rows = [list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in (a, b)]
    yield from members(*rows)


def same(a: np.ndarray, b: np.ndarray, where: str) -> Iterator[str]:
    """Arrays are the same to the bit."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        yield f"{where}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
    elif a.dtype != object and a.tobytes() != b.tobytes():
        yield f"{where}: {np.count_nonzero(a != b)} of {a.size} values differ"
    elif a.dtype == object and a.tolist() != b.tolist():
        yield f"{where}: values differ"


def named(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name in sorted(a.keys() | b.keys()):
        if name in a and name in b:
            yield from same(a[name], b[name], name)
        else:
            yield f"{name} only in {'A' if name in a else 'B'}"


def arrays(a: Path, b: Path) -> Iterator[str]:
    both = ({"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded) for loaded in map(np.load, (a, b)))
    yield from named(*both)


def tensors(a: Path, b: Path) -> Iterator[str]:
    from safetensors.numpy import load_file

    yield from named(load_file(a), load_file(b))


def pictures(a: Path, b: Path) -> Iterator[str]:
    yield from same(*(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (a, b)), "pixels")


def films(a: Path, b: Path) -> Iterator[str]:
    both = [cv2.VideoCapture(str(path)) for path in (a, b)]
    number = 0
    while True:
        (more_a, left), (more_b, right) = (film.read() for film in both)
        if not (more_a and more_b):
            if more_a or more_b or not number:
                yield f"{'A' if more_a else 'B'} has more frames than {number}"
            return
        yield from same(left, right, f"frame {number}")
        number += 1


def parquet(a: Path, b: Path) -> Iterator[str]:
    from pyarrow import parquet as files

    left, right = (files.read_table(path) for path in (a, b))
    if left.schema.names != right.schema.names:
        yield f"columns {left.schema.names} and {right.schema.names}"
    for name in left.schema.names:
        if name in right.schema.names and not left[name].equals(right[name]):
            yield f"column {name} differs"


def texts(a: Path, b: Path) -> Iterator[str]:
    """Lines, with times and versions struck out; one JSON document by its members."""
    both = [path.read_text(encoding="utf-8") for path in (a, b)]
    if all(text.startswith("{") for text in both):
        yield from members(*map(json.loads, both))
        return
    left, right = ([VERSION.sub("V", TIMED.sub("T", line)).rstrip() for line in t.splitlines()] for t in both)
    for sign, ours, others in (("A", left, right), ("B", right, left)):
        yield from (f"line only in {sign}: {line[:160]}" for line in ours if line not in others)


def raw(a: Path, b: Path) -> Iterator[str]:
    if a.read_bytes() != b.read_bytes():
        yield f"bytes differ ({a.stat().st_size} and {b.stat().st_size})"


KINDS: Final[dict[str, Callable[[Path, Path], Iterator[str]]]] = {
    ".npz": arrays,
    ".npy": arrays,
    ".png": pictures,
    ".avi": films,
    ".parquet": parquet,
    ".json": documents,
    ".jsonl": lines_of_json,
    ".csv": tables,
    ".md": texts,
    ".out": texts,
    ".err": texts,
    ".html": lambda a, b: iter(()),
    ".safetensors": tensors,
}


@main.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--most", default=6, show_default=True, help="Differences printed per file.")
def compare(before: Path, after: Path, most: int) -> None:
    """Compare two folders of `write`, file by file."""
    found = [{p.relative_to(f) for p in f.rglob("*") if p.is_file()} for f in (before, after)]
    counts, differing = Counter[str](), Counter[str]()
    for path in sorted(found[0] | found[1]):
        kind = path.suffix or "other"
        if not all(path in paths for paths in found):
            differences = [f"only in {'A' if path in found[0] else 'B'}"]
        else:
            counts[kind] += 1
            differences = list(KINDS.get(kind, raw)(before / path, after / path))
        if differences:
            differing[kind] += 1
            print(f"{path}: {len(differences)} differences")
            print("".join(f"    {line}\n" for line in differences[:most]), end="")
    print("\n| kind | files compared | that differ |\n| --- | --- | --- |")
    for kind in sorted(counts | differing):
        print(f"| {kind} | {counts[kind]} | {differing[kind]} |")
    print(
        f"{len(json.loads((before / 'statuses.json').read_bytes()))} commands, {sum(differing.values())} files differ"
    )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
