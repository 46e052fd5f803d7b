"""Damaged metadata of explainers, damaged checkpoints and damaged requests: what comes from outside, entry by entry.

    python -m benchmarks.robustness.fuzz_entries     1,200 of each; writes build/fuzz-entries.json
    python -m benchmarks.robustness.fuzz_entries --cases 60 --of metadata --docs docs/fuzz.md

Metadata are put into four explainer files, which are opened, asked about a picture, and shown by `inspect --json`;
checkpoints are exported, and every fourth is resumed. Each case runs in a process of its own, forked from one that has
imported everything, and must end within 30 s of the processor with exit status 0 and one JSON document, or 1 and one
line of at most 1,200 characters without control characters. Where an explainer is taken, and its damage does not touch
what is computed, the answer must be that of the whole file to the bit. Requests go to two servers one after another,
through all of their code but the socket; each must be answered within 10 s of the processor: with 200 and outputs of
the shapes that they say (an undamaged picture with the right filters and ranks), or with 4xx and one line of at most
1,100 characters. Neither 500 nor a line in the server's log counts as an answer. Memory may grow by 4 times the bytes
of a case and a constant: 96 MiB for metadata, 160 MiB for checkpoints (the proof of an export), 448 MiB for requests (a
picture of 64 megapixels, the largest that is decoded, takes 384 for a moment).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import onnx
from onnx import helper

from benchmarks.networks import DEMO_EXPLAINER, ROOT
from benchmarks.robustness.fuzz_checkpoints import CHECKPOINT_KINDS, damaged_checkpoint
from benchmarks.robustness.fuzz_members import MEMBER_KINDS, damaged_json
from benchmarks.robustness.fuzz_processes import (
    MAX_LINE,
    MAX_WAIT,
    Outcome,
    Work,
    alone,
    run_all,
    table,
    write_section,
)
from benchmarks.robustness.fuzz_requests import REQUEST_KINDS
from benchmarks.robustness.fuzz_server import ask_all
from fsagn_onnx.cli.main import run
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.runtime.metadata import KEY, ExplainerMetadata
from fsagn_onnx.testing.planted import TAP, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer

ABOUT = __doc__.partition("\n\n")[2].partition("\n\n")[2].strip()
MIB = 2**20
CONSTANT = {"metadata": 96 * MIB, "checkpoints": 160 * MIB, "requests": 448 * MIB}
TIMES_CASE = 4
TRAINING = ("--layer", TAP, "--pairs", "16", "--json")
Found = tuple[dict[int, str], dict[int, Outcome]]


def preload() -> None:
    """Import what the commands import, so that each process starts at once."""
    for package in ("conversion", "explanations.subject", "generator", "inspection", "methods", "terminal.inspection",
                    "terminal.training", "server"):  # fmt: skip
        import_module(f"fsagn_onnx.{package}")


def make_subjects(folder: Path) -> dict[str, Path]:
    """A planted model, a training of it with its checkpoint, and explainers of different formats and variants."""
    model, out = write_planted(folder / "planted.onnx"), folder / "trained.onnx"
    (folder / "images").mkdir()
    for seed in range(4):
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), planted_picture(seed).image[..., ::-1])
    files = {"model": model, "trained": out, "checkpoint": folder / "trained.checkpoint.safetensors"}
    call("train", model, folder / "images", "--out", out, *TRAINING)
    for name, options in (("top", ["--top", "3"]), ("pixels", ["--with-preprocessing", "--filters", "1,5,2"])):
        files[name] = folder / f"{name}.onnx"
        call("export", files["checkpoint"], "--model", model, "--out", files[name], *options, "--json")
    files["planted"] = write_planted_explainer(folder / "planted_explainer.onnx")
    files["demo"] = folder / DEMO_EXPLAINER.name
    shutil.copyfile(DEMO_EXPLAINER, files["demo"])
    return files


def call(*words: object) -> None:
    """Run a command that must succeed, in a process of its own."""
    outcome = alone(partial(run, [str(word) for word in words]))
    assert outcome.status == 0, outcome.err


def answer(path: Path) -> tuple[ExplainerMetadata, list[Any]]:
    """What an explainer says about itself and about a picture."""
    from fsagn_onnx.runtime import Explainer

    with Explainer(path, providers="cpu", threads=1) as explainer:
        (found,) = explainer.explain(planted_picture(0).image, "top:2")
        json.dumps(found.to_dict(), allow_nan=False)
        return explainer.metadata, [(item.id, item.area_rank.tobytes()) for item in found.filters]


def same_computation(one: ExplainerMetadata, other: ExplainerMetadata) -> bool:
    """Whether two descriptions differ only in what no answer hangs on."""
    names = ("layer", "filters", "encoder", "input", "areas")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names) and one.variant.slots == other.variant.slots
    )


def look(path: Path, whole: tuple[ExplainerMetadata, list[Any]]) -> int:
    """Open an explainer and inspect it, in a forked process."""
    try:
        metadata, found = answer(path)
    except FsagnError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    assert found == whole[1] or not same_computation(metadata, whole[0]), "another answer"
    return run(["inspect", str(path), "--json"])


def fuzz_metadata(cases: int, seed: int, subjects: dict[str, Path], folder: Path, **settings: Any) -> Found:
    names, kinds = ("planted", "demo", "top", "pixels"), {}
    protos = {name: onnx.load(subjects[name]) for name in names}
    texts = {name: next(e.value for e in proto.metadata_props if e.key == KEY) for name, proto in protos.items()}
    whole = {name: answer(subjects[name]) for name in names}

    def made() -> Iterator[tuple[int, Work, int]]:
        for number in range(cases):
            rng, kind = np.random.default_rng([seed, number]), MEMBER_KINDS[number % len(MEMBER_KINDS)]
            name = names[number // len(MEMBER_KINDS) % len(names)]
            text = damaged_json(json.loads(texts[name]), kind, rng).decode("utf-8", "replace")
            helper.set_model_props(protos[name], {KEY: text})
            path, kinds[number] = folder / f"{number}.onnx", kind
            path.write_bytes(protos[name].SerializeToString())
            size = path.stat().st_size
            yield number, partial(look, path, whole[name]), TIMES_CASE * size + CONSTANT["metadata"]

    return kinds, run_all(made(), **settings)


def fuzz_checkpoints(cases: int, seed: int, subjects: dict[str, Path], folder: Path, **settings: Any) -> Found:
    content, kinds = subjects["checkpoint"].read_bytes(), {}

    def made() -> Iterator[tuple[int, Work, int]]:
        for number in range(cases):
            rng, kind = np.random.default_rng([seed, number]), CHECKPOINT_KINDS[number % len(CHECKPOINT_KINDS)]
            damaged, out = damaged_checkpoint(content, kind, rng), folder / f"{number}.onnx"
            path, kinds[number] = out.with_suffix(".checkpoint.safetensors"), kind
            path.write_bytes(damaged)
            words = ["export", path, "--model", subjects["model"], "--out", out, "--json"]
            if number // len(CHECKPOINT_KINDS) % 4 == 3:
                images = subjects["model"].parent / "images"
                words = ["train", subjects["model"], images, "--out", out, *TRAINING, "--resume"]
            allowed = TIMES_CASE * len(damaged) + CONSTANT["checkpoints"]
            yield number, partial(run, [str(word) for word in words]), allowed

    return kinds, run_all(made(), **settings)


def fuzz_requests(cases: int, seed: int, subjects: dict[str, Path], folder: Path, **settings: Any) -> Found:
    return ask_all(cases, seed, [subjects["planted"], subjects["pixels"]], folder, CONSTANT["requests"], TIMES_CASE)


TARGETS: dict[str, tuple[Callable[..., Found], tuple[str, ...]]] = {
    "metadata": (fuzz_metadata, MEMBER_KINDS),
    "checkpoints": (fuzz_checkpoints, CHECKPOINT_KINDS),
    "requests": (fuzz_requests, REQUEST_KINDS),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1200, help="of each target")
    parser.add_argument("--of", choices=TARGETS, action="append", help="the target; all unless told")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=MAX_WAIT, help="a process that is there for longer hangs")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz-entries.json")
    parser.add_argument("--docs", type=Path, help="write the tables as Markdown too")
    parser.add_argument("--keep", type=Path, help="keep the cases in this folder")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-entries-"))
    folder.mkdir(parents=True, exist_ok=True)
    preload()
    subjects = make_subjects(Path(tempfile.mkdtemp(prefix="fuzz-subjects-")))
    results, faulty = {}, 0
    for target in options.of or TARGETS:
        (folder / target).mkdir(exist_ok=True)
        settings = {"workers": options.workers, "seconds": options.seconds}
        kinds, outcomes = TARGETS[target][0](options.cases, options.seed, subjects, folder / target, **settings)
        for number, outcome in sorted(outcomes.items()):
            if outcome.faults:
                faulty += 1
                said = (outcome.err.strip().splitlines() or [""])[-1][:300]
                cost = f"{outcome.seconds:.1f} s, {outcome.grown / MIB:.0f} MiB"
                what = f"{', '.join(outcome.faults)}: status {outcome.status}, signal {outcome.signal}, {cost}: {said}"
                print(f"{target} {number}, {kinds[number]}: {what}")
        lines = table(kinds, outcomes)
        most = max(outcome.grown for outcome in outcomes.values()) / MIB
        lines += ["", f"The hungriest case grew by {most:.0f} MiB."]
        print("\n".join([f"\n## {target}\n", *lines]))
        results[target] = [
            {"number": number, "kind": kinds[number], "status": outcome.status, "seconds": round(outcome.seconds, 2),
             "grown": outcome.grown, "faults": outcome.faults, "line": outcome.err[:MAX_LINE]}
            for number, outcome in sorted(outcomes.items())
        ]  # fmt: skip
        if options.docs:
            command = f"`python -m benchmarks.robustness.fuzz_entries --cases {options.cases} --seed {options.seed}`"
            what = [f"{command}. What is done:", "", ABOUT, ""] if target == next(iter(TARGETS)) else []
            write_section(options.docs, target.capitalize(), [*what, *lines])
    print(f"\n{faulty} cases did what they may not.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"seed": options.seed, "targets": results}, indent=1) + "\n")
    if not options.keep:
        shutil.rmtree(folder)
    shutil.rmtree(subjects["model"].parent)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
