"""Makes docs/images/boards.png: good board, defect, evidence with its filters, and the answer after the exchange.

python docs/images/make_boards.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fsagn_onnx import Explainer
from fsagn_onnx.models.demo_boards import EXPLAINER, NAMES, ExchangeDemo
from fsagn_onnx.runs.filter_names import read_filter_names

SHOWN = ("short", "mousebite", "spur")


def main() -> None:
    """Explain three of the demo's defects and draw them."""
    demo, names = ExchangeDemo(threads=1), read_filter_names(NAMES, Path())
    paths = [path for path in demo.paths if path.parent.name in SHOWN]
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        found = explainer.explain(paths, filters="decisive:5", classes="top:1", measure=True)
    named = [replace(one, filters=tuple(replace(f, part=names.get(f.id)) for f in one.filters)) for one in found]
    print(demo.write_panel(named, Path(__file__).with_name("boards.png")))
    demo.close()


if __name__ == "__main__":
    main()
