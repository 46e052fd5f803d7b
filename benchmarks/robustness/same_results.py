"""Does a program still write what another version of it wrote? Every command on the shipped explainers, file by file.

    python -m benchmarks.robustness.same_results write BEFORE --program OLD/.venv/bin/fsagn-onnx
    python -m benchmarks.robustness.same_results write AFTER
    python -m benchmarks.robustness.same_results compare BEFORE AFTER

`write` makes the pictures and models of `INPUTS` in the folder, then calls the program once per entry of `COMMANDS`,
one after the other, on one thread, with the folder as its working folder: all paths in the results are relative, so
they are the same for every version. What a command prints goes to `printed/NAME.out` and `.err`, its exit status to
`statuses.json`.

`compare` prints what it compared and every difference; exit status 1 where there is one. Arrays (.npz, .npy) and the
columns of Parquet files are compared to the bit, pictures and the frames of videos by pixels, JSON, JSONL and CSV by
members, Markdown and printed text by lines, ONNX files by their graph and metadata. Left out: members that hold
versions, times, speeds and the hash of a file that is compared itself (`differences.IGNORED`), and the words of HTML
pages, of which only is compared that they are there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import click
import cv2

from benchmarks.networks import DEMO_EXPLAINER, DEMO_MODEL
from benchmarks.robustness import differences

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


def make_inputs(folder: Path) -> None:
    """The shipped and the planted models, synthetic pictures with part masks, and pictures of odd sizes."""
    from fsagn_onnx.testing.planted import planted_picture, write_planted
    from fsagn_onnx.testing.planted_explainer import write_planted_explainer
    from fsagn_onnx.testing.synthetic import write_folder

    for path in (DEMO_MODEL, DEMO_EXPLAINER):
        shutil.copyfile(path, folder / path.name)
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


@main.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--most", default=6, show_default=True, help="Differences printed per file.")
def compare(before: Path, after: Path, most: int) -> None:
    """Compare two folders of `write`, file by file."""
    found = [
        {p.relative_to(f) for p in f.rglob("*") if p.is_file() and f / "inputs" not in p.parents}
        for f in (before, after)
    ]
    counts, differing = Counter[str](), Counter[str]()
    for path in sorted(found[0] | found[1]):
        kind = path.suffix or "other"
        if not all(path in paths for paths in found):
            found_here = [f"only in {'A' if path in found[0] else 'B'}"]
        else:
            counts[kind] += 1
            found_here = list(differences.KINDS.get(kind, differences.raw)(before / path, after / path))
        if found_here:
            differing[kind] += 1
            print(f"{path}: {len(found_here)} differences")
            print("".join(f"    {line}\n" for line in found_here[:most]), end="")
    print("\n| kind | files compared | that differ |\n| --- | --- | --- |")
    for kind in sorted(counts | differing):
        print(f"| {kind} | {counts[kind]} | {differing[kind]} |")
    print(
        f"{len(json.loads((before / 'statuses.json').read_bytes()))} commands, {sum(differing.values())} files differ"
    )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
