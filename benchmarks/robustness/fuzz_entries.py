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

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import onnx
from onnx import helper

from benchmarks.networks import DEMO_EXPLAINER
from benchmarks.robustness.fuzz_checkpoints import CHECKPOINT_KINDS, damaged_checkpoint
from benchmarks.robustness.fuzz_members import MEMBER_KINDS, damaged_json
from benchmarks.robustness.fuzz_processes import Outcome, Work, alone, run_all, table, write_section
from benchmarks.robustness.fuzz_requests import REQUEST_KINDS
from benchmarks.robustness.fuzz_run import (
    MIB,
    case_folder,
    explanation,
    fuzz_options,
    preload,
    print_faults,
    rows,
    write_results,
)
from benchmarks.robustness.fuzz_server import ask_all
from fsagn_onnx.cli.main import run
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.runtime.metadata import KEY, ExplainerMetadata
from fsagn_onnx.testing.planted import TAP, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer

PACKAGES = (
    "conversion", "explanations.subject", "generator", "inspection", "methods", "terminal.inspection",
    "terminal.training", "server",
)  # fmt: skip
CONSTANT = {"metadata": 96 * MIB, "checkpoints": 160 * MIB, "requests": 448 * MIB}
TIMES_CASE = 4
TRAINING = ("--layer", TAP, "--pairs", "16", "--json")
Found = tuple[dict[int, str], dict[int, Outcome]]


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
    parser = fuzz_options(__doc__, "fuzz-entries", ("--cases", 1200, "of each target"))
    parser.add_argument("--of", choices=TARGETS, action="append", help="the target; all unless told")
    options = parser.parse_args()
    preload(*PACKAGES)
    subjects = make_subjects(Path(tempfile.mkdtemp(prefix="fuzz-subjects-")))
    results, faulty, targets = {}, 0, options.of or list(TARGETS)
    with case_folder(options.keep) as folder:
        for target in targets:
            (folder / target).mkdir(exist_ok=True)
            settings = {"workers": options.workers, "seconds": options.seconds}
            kinds, outcomes = TARGETS[target][0](options.cases, options.seed, subjects, folder / target, **settings)
            faulty += print_faults({number: f"{target}, {kind}" for number, kind in kinds.items()}, outcomes)
            most = max(outcome.grown for outcome in outcomes.values()) / MIB
            lines = [*table(kinds, outcomes), "", f"The hungriest case grew by {most:.0f} MiB."]
            print("\n".join([f"\n## {target}\n", *lines]))
            results[target] = rows({number: {"kind": kind} for number, kind in kinds.items()}, outcomes)
            if options.docs:
                command = (
                    f"`python -m benchmarks.robustness.fuzz_entries --cases {options.cases} --seed {options.seed}`"
                )
                what = (
                    [f"{command}. What is done:", "", explanation(__doc__), ""] if target == next(iter(TARGETS)) else []
                )
                write_section(options.docs, target.capitalize(), [*what, *lines])
    print(f"\n{faulty} cases did what they may not.")
    write_results(options.out, {"seed": options.seed, "targets": results})
    shutil.rmtree(subjects["model"].parent)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
