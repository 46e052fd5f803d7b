"""Makes docs/images/demo.png out of the demo's overlays.

fsagn-onnx demo --out build/demo --filters top:4 && python docs/images/make_demo.py build/demo/results/overlays
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

WIDTH = 1100
PICTURES = ("chelsea", "coffee", "motorcycle_left")


def main() -> None:
    """Scale the overlays to one width and stack them."""
    folder = Path(sys.argv[1])
    rows = []
    for name in PICTURES:
        picture = cv2.imread(str(folder / f"{name}.png"))
        if picture is None:
            sys.exit(f"error: no {name}.png in {folder}; run 'fsagn-onnx demo' first")
        height = round(picture.shape[0] * WIDTH / picture.shape[1])
        rows.append(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))
    out = Path(__file__).with_name("demo.png")
    cv2.imwrite(str(out), np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    sys.stdout.write(f"{out}\n")


if __name__ == "__main__":
    main()
