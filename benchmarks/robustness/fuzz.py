"""Damaged ONNX files through `fsagn-onnx inspect`: load, list the layers, convert, compare (and open an explainer).

    python -m benchmarks.robustness.fuzz     500 mutants of 10 models; writes build/fuzz.json, with --docs docs/fuzz.md
    python -m benchmarks.robustness.fuzz --mutants 25

Each mutant runs in a process of its own, forked from one that has imported everything, under limits of time and
address space. It must end by itself within 30 s of the processor, with exit status 0 and one JSON document, or 1 and
one line of at most 1,200 characters, without control characters; and its memory may not grow by more than 4 times the
files that it reads plus 384 MiB (what interpreter, onnxruntime, torch, the two probe images and the trial of an
explainer at 224 x 224 px take; undamaged ones took up to 210 MiB, mutants up to 288).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.robustness.fuzz_models import BUILDERS
from benchmarks.robustness.fuzz_mutants import KINDS, Mutant, make_mutant
from benchmarks.robustness.fuzz_processes import Outcome, Work, alone, judge, run_all, table, write_section
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

PACKAGES = (
    "conversion", "explanations.subject", "generator.trial", "inspection", "methods", "terminal.inspection"
)  # fmt: skip
TIMES_FILE = 4
CONSTANT = 384 * MIB
"""Bytes that the command may take for any file."""


def work(path: Path) -> int:
    """The command, in the forked process."""
    from fsagn_onnx.cli.main import run
    from fsagn_onnx.errors import FsagnError

    status = run(["inspect", str(path), "--json"])
    if status == 0 and path.name.startswith("demo_explainer"):
        from fsagn_onnx.explanations.subject import open_explainer

        try:
            open_explainer(path, method="activation", providers="cpu", threads=1).explainer.close()
        except FsagnError as error:
            if "\n" in str(error):
                sys.stderr.write(f"error: {error}\n")
                return 1
    return status


def read_bytes(mutant: Mutant) -> int:
    """Bytes of all files beside and of the mutant."""
    return sum(path.stat().st_size for path in mutant.path.parent.iterdir() if path.is_file() and not path.is_symlink())


def fuzz(
    count: int, seed: int, workers: int, seconds: float, folder: Path
) -> tuple[dict[int, Mutant], dict[int, Outcome], dict[str, int]]:
    models = {name: build() for name, build in BUILDERS.items()}
    preload(*PACKAGES)
    base = {}
    for name, proto in models.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        outcome = alone(partial(work, path))
        judge(outcome, 2**40)
        assert not outcome.faults, f"{name}, undamaged: {outcome.faults} {outcome.err}"
        converted = json.loads(outcome.out)["convertible"]
        assert converted or name in ("demo_explainer",), f"{name}, undamaged: {json.loads(outcome.out)['conversion']}"
        base[name] = outcome.grown
    mutants: dict[int, Mutant] = {}

    def cases() -> Iterator[tuple[int, Work, int]]:
        for number in range(count):
            mutant = mutants[number] = make_mutant(number, seed, models, folder)
            yield number, partial(work, mutant.path), TIMES_FILE * read_bytes(mutant) + CONSTANT

    return mutants, run_all(cases(), workers, seconds), base


def main() -> int:
    options = fuzz_options(__doc__, "fuzz", ("--mutants", 500, "damaged files")).parse_args()
    with case_folder(options.keep) as folder:
        mutants, outcomes, base = fuzz(options.mutants, options.seed, options.workers, options.seconds, folder)
    faulty = print_faults({number: f"{item.model}, {item.kind}" for number, item in mutants.items()}, outcomes)
    order = sorted(outcomes, key=lambda number: KINDS.index(mutants[number].kind))
    lines = table({number: mutants[number].kind for number in order}, outcomes)
    grown = max(outcome.grown for outcome in outcomes.values()) / MIB
    least, most = (end(base.values()) / MIB for end in (min, max))
    lines += [
        "",
        f"Undamaged, the same command grows by {least:.0f} to {most:.0f} MiB; the hungriest mutant by {grown:.0f}.",
        f"{faulty} of {len(outcomes)} mutants did what they may not.",
    ]
    print("\n".join(lines))
    about = {number: {"model": mutant.model, "kind": mutant.kind} for number, mutant in mutants.items()}
    write_results(options.out, {"seed": options.seed, "base": base, "mutants": rows(about, outcomes)})
    if options.docs:
        command = f"`python -m benchmarks.robustness.fuzz --mutants {options.mutants} --seed {options.seed}`"
        write_section(
            options.docs, "Models", [f"{command}. What is done to each:", "", explanation(__doc__), "", *lines]
        )
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
