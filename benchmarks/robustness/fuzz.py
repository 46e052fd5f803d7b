"""Damaged ONNX files through `fsagn-onnx inspect`: load, list the layers, convert, compare (and open an explainer).

    python -m benchmarks.robustness.fuzz     500 mutants of 10 models; writes build/fuzz.json, with --docs docs/fuzz.md
    python -m benchmarks.robustness.fuzz --mutants 25

Each mutant runs in a process of its own, forked from one that has imported everything, under limits of time and
address space. It must end by itself within 30 s of the processor, with exit status 0 and one JSON document, or 1 and
one line of at most 1,200 characters, without control characters; and its memory may not grow by more than 4 times the
files that it reads plus 256 MiB (what interpreter, onnxruntime, torch, the two probe images and the trial of an
explainer at 224 x 224 px take; an undamaged one takes up to nine tenths).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.robustness.fuzz_models import BUILDERS
from benchmarks.robustness.fuzz_mutants import KINDS, Mutant, make_mutant
from benchmarks.robustness.fuzz_processes import (
    MAX_LINE,
    MAX_WAIT,
    Outcome,
    Work,
    alone,
    judge,
    run_all,
    table,
    write_section,
)

ROOT = Path(__file__).resolve().parents[2]
ABOUT = __doc__.partition("\n\n")[2].partition("\n\n")[2].strip()
TIMES_FILE = 4
CONSTANT = 256 * 2**20
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


def preload() -> None:
    """Import what the command imports, so that each process starts at once."""
    for package in (
        "conversion",
        "explanations.subject",
        "generator.trial",
        "inspection",
        "methods",
        "terminal.inspection",
    ):
        import_module(f"fsagn_onnx.{package}")


def read_bytes(mutant: Mutant) -> int:
    """Bytes of all files beside and of the mutant."""
    return sum(path.stat().st_size for path in mutant.path.parent.iterdir() if path.is_file() and not path.is_symlink())


def fuzz(
    count: int, seed: int, workers: int, seconds: float, folder: Path
) -> tuple[dict[int, Mutant], dict[int, Outcome], dict[str, int]]:
    models = {name: build() for name, build in BUILDERS.items()}
    preload()
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=MAX_WAIT, help="a process that is there for longer hangs")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz.json")
    parser.add_argument("--docs", type=Path, help="write the table as Markdown too")
    parser.add_argument("--keep", type=Path, help="keep the mutants in this folder")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-mutants-"))
    folder.mkdir(parents=True, exist_ok=True)
    mutants, outcomes, base = fuzz(options.mutants, options.seed, options.workers, options.seconds, folder)
    for number, outcome in sorted(outcomes.items()):
        mutant = mutants[number]
        if outcome.faults:
            what = f"{', '.join(outcome.faults)}: signal {outcome.signal}, status {outcome.status}"
            cost = f"{outcome.seconds:.1f} s, {outcome.grown / 2**20:.0f} MiB"
            said = (outcome.err.strip().splitlines() or [""])[-1][:300]
            print(f"{mutant.number:4} {mutant.model}, {mutant.kind}: {what}, {cost}: {said}")
    lines = table(
        {number: mutants[number].kind for number in sorted(outcomes, key=lambda n: KINDS.index(mutants[n].kind))},
        outcomes,
    )
    faulty = sum(bool(outcome.faults) for outcome in outcomes.values())
    grown = max(outcome.grown for outcome in outcomes.values()) / 2**20
    lines.append("")
    least, most = (end(base.values()) / 2**20 for end in (min, max))
    lines.append(
        f"Undamaged, the same command grows by {least:.0f} to {most:.0f} MiB; the hungriest mutant by {grown:.0f}."
    )
    lines.append(f"{faulty} of {len(outcomes)} mutants did what they may not.")
    print("\n".join(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = [
        {"number": number, "model": mutants[number].model, "kind": mutants[number].kind, "status": outcome.status,
         "signal": outcome.signal, "seconds": round(outcome.seconds, 2), "grown": outcome.grown,
         "faults": outcome.faults, "line": outcome.err[:MAX_LINE]}
        for number, outcome in sorted(outcomes.items())
    ]  # fmt: skip
    options.out.write_text(json.dumps({"seed": options.seed, "base": base, "mutants": results}, indent=1) + "\n")
    if options.docs:
        command = f"`python -m benchmarks.robustness.fuzz --mutants {options.mutants} --seed {options.seed}`"
        write_section(options.docs, "Models", [f"{command}. What is done to each:", "", ABOUT, "", *lines])
    if not options.keep:
        shutil.rmtree(folder)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
