"""Names that every explainer file has: of its inputs, its outputs, and its own nodes."""

from __future__ import annotations

from typing import Final

FILTERS: Final = "filters"
"""The input that asks for filters, int64 (N, K)."""

FILTER_IDS: Final = "filter_ids"
FILTER_PEAKS: Final = "filter_peaks"
AREA_RANK: Final = "area_rank"
RETENTION: Final = "retention"

RESULTS: Final = (FILTER_IDS, FILTER_PEAKS, AREA_RANK, RETENTION)
"""The explainer's own outputs, in the order of the contract; others are the model's."""

PREFIX: Final = "fsagn/"
"""What names of the explainer's own nodes and values begin with, but for inputs and outputs."""

ASKED: Final = f"{PREFIX}asked"
"""The request of a file that has no input `FILTERS`: an initializer (1, K), spread over the batch into `FILTERS`."""

REQUEST: Final = f"{PREFIX}request_"
"""What names of the nodes begin with that spread it."""

BEFORE: Final = f"{PREFIX}in/"
"""What names of nodes and values begin with that make the model's input from pixels."""

PREPROCESSED: Final = f"{BEFORE}image"
"""The model's input, where the file's image input is pixels."""
