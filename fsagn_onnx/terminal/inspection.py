"""What `inspect` prints: the document of `inspection` for people."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runtime.drawing.typeface import printable

__all__ = ["counting", "print_inspection", "print_json"]

PIPE_WIDTH: Final = 10_000
"""Columns where standard output is no terminal: nothing is cut or wrapped."""
MAX_LABELS: Final = 5
MAX_NODES: Final = 3


@contextmanager
def counting() -> Iterator[Callable[[int], None]]:
    """A count of images on standard error while it is a terminal; nothing in a pipe."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda done: None
        return
    with console.status("reading the model") as status:
        yield lambda done: status.update(f"{done:,} images")


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, allow_nan=False, indent=1) + "\n")


def print_inspection(document: Mapping[str, Any], console: Console | None = None) -> None:
    """The document as tables and lines on standard output."""
    out = Console(highlight=False) if console is None else console
    if out.is_terminal:
        for part in _parts(document):
            out.print(part, soft_wrap=isinstance(part, Text))
        return
    plain = Console(file=io.StringIO(), highlight=False, width=PIPE_WIDTH)
    with plain.capture() as captured:
        for part in _parts(document):
            plain.print(part)
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _parts(document: Mapping[str, Any]) -> Iterator[Text | Table]:
    yield Text.assemble((printable(document["path"]), "bold"), f"  {document['kind']}")
    facts = [
        *(("input" if not index else "", _value(item)) for index, item in enumerate(document["inputs"])),
        *(("output" if not index else "", _value(item)) for index, item in enumerate(document["outputs"])),
        ("opset", str(document["opset"])),
        ("made by", document["producer"] or "unknown"),
        ("classes", document["classes"]["words"]),
    ]
    if document["kind"] == "explainer":
        yield _facts([*facts, ("trust", document["trust"]), *_explainer_facts(document["explainer"])])
    else:
        yield _facts([*facts, *_model_facts(document)])
        yield Text()
        yield _layer_table(document["layers"], watched=document["images"] is not None)
        yield from _verdict(document)
    for warning in document.get("warnings", ()):
        yield Text.assemble(("warning ", "yellow"), printable(warning))
    if document["next"]:
        yield Text(f"\nnext: {printable(document['next'])}")


def _facts(facts: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in facts:
        table.add_row(name, Text(printable(words)))
    return table


def _value(item: Mapping[str, Any]) -> str:
    dims = item["shape"]
    shape = "of unknown rank" if dims is None else f"({', '.join('?' if d is None else str(d) for d in dims)})"
    return f"{item['name']}  {item['dtype']} {shape}"


def _spec(spec: Mapping[str, Any]) -> str:
    """The input spec in words: the formula with its numbers."""
    mean, std = (_numbers(spec[field]) for field in ("mean", "std"))
    scaled = "pixel" if spec["scale"] == 1 else f"pixel * {spec['scale']:.6g}"
    height, width = spec["size"]
    return f"{spec['layout']} {spec['color']} {height}x{width}, {spec['resize']}, ({scaled} - {mean}) / {std}"


def _numbers(values: Sequence[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _labels(labels: Sequence[str] | None) -> str:
    if labels is None:
        return "none in the file"
    shown = ", ".join(labels[:MAX_LABELS])
    return f"{len(labels):,}: {shown}{', ...' if len(labels) > MAX_LABELS else ''}"


def _model_facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "content", f"{document['content']} (of graph and weights)"
    yield "sha256", f"{document['sha256']} (of the file)"
    yield "labels", _labels(document["labels"])
    yield "expects", _spec(document["input"])
    if document["guessed"]:
        yield "guessed", f"{', '.join(document['guessed'])}; correct it with --preprocess FILE:"
        yield "", json.dumps(document["input"])


def _explainer_facts(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    encoder = {"shared": "the model itself, predictions included", "own": "its own, without the model"}
    yield "format", f"{metadata['format']}, written by {metadata['tool']}"
    yield "explains", f"{metadata['filters']:,} filters of '{metadata['layer']}'"
    file = f", in a file of sha256 {metadata['sha256']}" if metadata["sha256"] else ""
    yield "model", f"content {metadata['content']}{file}"
    yield "encoder", encoder.get(metadata["encoder"], metadata["encoder"])
    variant = metadata.get("variant", {})
    inside = "uint8 RGB pictures (N, H, W, 3) of any size; it makes of them: " if variant.get("preprocessing") else ""
    yield "expects", inside + _spec(metadata["input"])
    yield from _variant_facts(variant)
    yield "labels", _labels(metadata["labels"])
    yield "areas", ", ".join(f"{area:g}" for area in metadata["areas"])
    yield "objective", f"{metadata['objective']}, infills {', '.join(metadata['infills'])}"
    for part in ("training", "quality"):
        for index, (name, found) in enumerate(metadata[part].items()):
            words = found if isinstance(found, str) else json.dumps(found)
            yield "" if index else part, f"{name} {words}"


def _variant_facts(variant: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    ids = ", ".join(map(str, variant.get("filters") or ()))
    if variant.get("top"):
        among = f" of {ids}" if ids else ""
        yield "answers", f"the strongest filters{among}, {variant['top']} of them; no input 'filters'"
    elif ids:
        yield "answers", f"filters {ids} only, in this order; no input 'filters'"
    if variant.get("precision", "fp32") != "fp32":
        loss = variant.get("loss") or {}
        against = ", ".join(f"{name} {value:.3g}" for name, value in loss.items())
        yield "computes", f"in {variant['precision']}{f'; beside float32: {against}' if against else ''}"


def _layer_table(layers: Sequence[Mapping[str, Any]], *, watched: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer (value)", overflow="fold")
    table.add_column("ops", overflow="fold")
    for name in ("filters", "map", "stride", "sees", *(["dead"] if watched else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for layer in layers:
        _, height, width = layer["shape"]
        field = layer["receptive_field"]
        table.add_row(
            Text(printable(layer["value"])),
            Text(printable(layer["op"])),
            f"{layer['channels']:,}",
            f"{height}x{width}",
            str(layer["stride"]),
            "-" if field is None else f"{field} px",
            *([_share(layer)] if watched else []),
            "default" if layer["default"] else "",
            style="bold" if layer["default"] else ("dim" if layer["reason"] else ""),
        )
    return table


def _share(layer: Mapping[str, Any]) -> str:
    """How many filters are dead, and their share."""
    return f"{len(layer['dead']):,} ({len(layer['dead']) / layer['channels']:.0%})" if layer["dead"] else "0"


def _verdict(document: Mapping[str, Any]) -> Iterator[Text]:
    yield Text()
    if document["default_reason"]:
        yield Text(f"default      {printable(document['default_reason'])}; choose another with --layer VALUE")
    if document["images"] is not None:
        yield Text(f"dead         filters that never exceed 0 or never change in {document['images']:,} images")
    yield Text(f"convertible  {printable(document['conversion'])}")
    if document["trainable"] is not None:
        yield Text(f"trial        {printable(document['trial'])}")
    for item in document["unsupported"]:
        name = f"{item['domain']}.{item['op']}" if item["domain"] else item["op"]
        nodes = ", ".join(item["nodes"][:MAX_NODES]) + (", ..." if len(item["nodes"]) > MAX_NODES else "")
        yield Text(printable(f"             {name} version {item['version']}: {len(item['nodes'])} nodes ({nodes})"))
