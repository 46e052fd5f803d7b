"""The wild list's results as a page of the documentation."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch

from fsagn_onnx.data.files import write_file

from .wild_boxes import boxes_verdict
from .wild_network import Network
from .wild_steps import PAIRS, Result
from .wild_verdicts import classes_verdict, prediction_verdict, spec_verdict

PARITY = 1e-3
"""Largest difference of an explainer's outputs from its model's, relative, that passes from outside."""
SOON = 30.0
"""Seconds within which a refusal must come: of the processor, as those of the clock depend on what else runs."""


def verdicts(network: Network, result: Result) -> dict[str, str]:
    """One word per column: "ok", or what is wrong."""
    if "fetch" in result:
        return dict.fromkeys(("inspect", "explain", "train", "export", "prediction", "layer", "spec"), "not fetched")
    inspect, explain, train = (result.get(step, {}) for step in ("inspect", "explain", "train"))
    if network.refused:
        clear = network.refused in inspect.get("line", "") and inspect.get("cpu", inspect["seconds"]) <= SOON
        return {"inspect": "refused" if clear else "**not refused clearly**"}
    words = {
        "inspect": _word(inspect),
        "explain": _word(explain),
        "train": _word(train),
        "export": "ok" if train.get("export", 1.0) <= PARITY else "**differs**" if train.get("ok") else "",
        "prediction": "",
        "layer": _layer(network, explain.get("layer", "")),
        "spec": "",
    }
    if inspect.get("ok"):
        words["spec"] = spec_verdict(network, inspect["input"], inspect["guessed"])
    if explain.get("ok"):
        words["prediction"] = prediction_verdict(network, explain["predictions"], explain["independent"])
        if explain.get("best_box") and words["prediction"] == "right":
            words["prediction"] = boxes_verdict(explain.get("detections"), explain["best_box"])
        if (classes := classes_verdict(network, inspect.get("output"))) != "right":
            words["prediction"] = f"{words['prediction']}, classes {classes}"
    for column in ("prediction", "spec"):
        words[column] = words[column] if words[column] in ("right", "guessed", "") else f"**{words[column]}**"
    return words


def _layer(network: Network, found: str) -> str:
    return "right" if found == network.layer else f"**{found}**" if found else ""


def _word(step: Result) -> str:
    return "ok" if step.get("ok") else "**no**"


def passes(network: Network, result: Result) -> bool:
    """Everything that must hold: it works from inspect to a proven export, or is refused clearly."""
    words = verdicts(network, result)
    if network.refused:
        return words["inspect"] == "refused"
    return all(words[column] == "ok" for column in ("inspect", "explain", "train", "export"))


def surprise(result: Result) -> bool:
    """Did `inspect` say that it trains, and it did not?"""
    return bool(result.get("inspect", {}).get("promises")) and not result.get("train", {}).get("ok", True)


def summary(network: Network, result: Result) -> str:
    """One line for the terminal, and the reasons under it."""
    words = verdicts(network, result)
    line = f"{network.id:24}" + "  ".join(f"{column} {word.strip('*')}" for column, word in words.items())
    for step in ("inspect", "explain", "train"):
        found = result.get(step, {})
        if "line" in found:
            line += f"\n    {step}: {found['line'][:300]} ({found['seconds']} s)"
    return line + (f"\n    {result['fetch']}" if "fetch" in result else "")


def write_page(networks: Sequence[Network], results: list[Result], out: Path) -> str:
    """Write docs/wild.md; returns the summary in one line."""
    known = {result["id"]: result for result in results if "fetch" not in result}
    missing = [network.id for network in networks if network.id not in known]
    rows = [(network, known[network.id]) for network in networks if network.id in known]
    head = total(rows, len(networks))
    lines = [
        "# In the wild",
        "",
        "Trained networks that strangers ship in packages of the ordinary indexes, as `make wild` (`python -m "
        "benchmarks.coverage.wild`) finds them: inspected without being told anything, one picture explained and "
        f"{PAIRS} pairs trained with the package's own input spec, the exported explainer beside the model. "
        "The list, with each file's SHA-256, is in `benchmarks/coverage/wild_*.py`.",
        "",
        head,
        "",
        f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__.split('+')[0]}, Python "
        f"{platform.python_version()}, one thread of a busy machine: seconds of the clock are an upper bound. "
        + _states([result for _, result in rows]),
        "",
        "| network | kind | inspect | explain | train | export | prediction | layer | spec | CPU s | s | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --: | --: | --: |",
    ]
    for network, result in rows:
        words = verdicts(network, result)
        steps = [result[step] for step in ("inspect", "explain", "train") if step in result]
        cells = [words.get(column, "") for column in ("inspect", "explain", "train", "export", "prediction")]
        cells += [words.get(column, "") for column in ("layer", "spec")]
        clock = " + ".join(f"{step['seconds']:.0f}" for step in steps)
        spent = " + ".join(f"{step['cpu']:.0f}" if "cpu" in step else "-" for step in steps)
        most = max(step["memory"] for step in steps)
        lines.append(f"| {network.id} | {network.kind} | {' | '.join(cells)} | {spent} | {clock} | {most:.0f} |")
    lines += ["", "Not run: " + ", ".join(missing) + "."] if missing else []
    lines += [
        "",
        *_legend(),
        "",
        *_apart([result for _, result in rows]),
        "",
        "## What does not pass",
        "",
        *(_failures(rows) or ["Nothing."]),
    ]
    lines += ["", "## Default layers", "", *_layers(rows)]
    lines += [
        "",
        "## The networks",
        "",
        "| network | package | written by | answers with |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {n.id} | `{n.package.split(':', 1)[1].split('#')[0]}` | {n.producer} | {n.outputs} |" for n, _ in rows
    ]
    write_file(out, ["\n".join([*lines, ""]).encode()])
    return head


def _package(network: Network) -> str:
    """Name and version, without the index and a hash."""
    return network.package.partition(":")[2].partition("#")[0]


def total(rows: Sequence[tuple[Network, Result]], all_networks: int) -> str:
    """The summary in one line."""
    work = [(network, result) for network, result in rows if not network.refused]
    words = [verdicts(network, result) for network, result in work]

    def count(column: str, word: str) -> int:
        return sum(row[column] == word for row in words)

    specs = Counter(row["spec"].strip("*") for row in words)
    refused = [(network, result) for network, result in rows if network.refused]
    clear = sum(passes(network, result) for network, result in refused)
    return (
        f"{len(rows)} of {all_networks} networks were run. Of {len(work)} that must work, {count('inspect', 'ok')} are "
        f"inspected, {count('explain', 'ok')} explained, {count('train', 'ok')} trained, {count('export', 'ok')} "
        f"exported with parity; {count('prediction', 'right')} predictions and {count('layer', 'right')} default "
        f"layers are right; the input spec is right for {specs['right']}, wrong in what is said to be guessed for "
        f"{specs['guessed']}, wrong unsaid for {specs['wrong']}, applied twice for {specs['twice']}. {clear} of "
        f"{len(refused)} that cannot work are refused in one line within {SOON:.0f} s. After `inspect` promised it, "
        f"{sum(surprise(result) for _, result in work)} trainings failed."
    )


def _legend() -> list[str]:
    return [
        "**prediction**: of networks with classes, the class and probability of a few independent lines of "
        "onnxruntime and numpy; of detectors, their best box; of the others, that no class is invented. **layer**: "
        "`explain` takes the layer that the list names, unless told (see below). **spec**: what `inspect` finds alone: "
        "*right*; *guessed*: wrong, and said to be guessed. **CPU s** and **s**: inspect + explain + train, of the "
        "processor and of the clock. **MB**: the largest memory of a step. **export**: the explainer's outputs beside "
        f"the model's, within {PARITY:g}, in a session as a user opens it or node by node. Both agree but for 8-bit "
        "nodes: onnxruntime fuses fewer of them where the explainer reads a value in between, and writes sums of its "
        "own, which the explainer holds in standard operators, with other ties until they are fused again.",
    ]


def _apart(results: Sequence[Result]) -> list[str]:
    """Which explainers round differently from their model in one of the two ways."""
    told = []
    for result in results:
        apart = result.get("train", {}).get("apart", {})
        if max(apart.values(), default=0.0) > PARITY:
            told.append(
                f"{result['id']}: {apart['session']:.2g} in a user's session, {apart['nodes']:.2g} node by node"
            )
    return [f"Largest differences relative to the largest number: {'; '.join(told)}."] if told else []


def _states(results: Sequence[Result]) -> str:
    """Did all rows come from the same program?"""
    states = Counter(result.get("code", "") for result in results)
    if len(states) == 1:
        return "All rows are of one state of the program."
    counts = " + ".join(str(count) for _, count in states.most_common())
    return f"The rows are of {len(states)} states of the program ({counts})."


def _layers(rows: Sequence[tuple[Network, Result]]) -> list[str]:
    """Where the list's default layers come from."""
    held = [(network, result["deepest"]) for network, result in rows if "deepest" in result]
    same = [network for network, found in held if found.get("value") == network.layer]
    other = [(network, found) for network, found in held if found.get("value") != network.layer]
    lines = [
        "The layer of the list is the deepest conv, by the number of convs before it and then by its receptive field, "
        "from which every prediction is computed, taken behind its activation. `benchmarks/coverage/wild_deepest.py` "
        "looks for it in the file by onnx, numpy and onnxruntime alone, and shares no code with the program. "
        f"It names the same value for {len(same)} of {len(held)} networks.",
    ]
    lines += [""] if other else []
    for network, found in other:
        why = f"read by hand: {network.read}" if network.read else "**nobody has said why**"
        lines.append(f"- {network.id}: `{found.get('value', 'none')}`, in the list `{network.layer}`; {why}.")
    return lines


def _failures(rows: Sequence[tuple[Network, Result]]) -> list[str]:
    told = []
    for network, result in rows:
        lines = [
            f"{step}: {result[step]['line']}"
            for step in ("inspect", "explain", "train")
            if "line" in result.get(step, {})
        ]
        if lines and not passes(network, result):
            told.append(f"- {network.id}: " + "; ".join(line.replace("|", "\\|") for line in lines))
    return told
