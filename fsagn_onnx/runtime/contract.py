"""Names that every explainer file has: of its inputs, its outputs, and its own nodes."""

from __future__ import annotations

from typing import Final

FILTERS: Final = "filters"
"""The input that asks for filters, int64 (N, K)."""

CLASSES: Final = "classes"
"""The input that asks about classes, int64 (N, J); only of files that were trained with such questions."""

FILTER_IDS: Final = "filter_ids"
FILTER_PEAKS: Final = "filter_peaks"
AREA_RANK: Final = "area_rank"
RETENTION: Final = "retention"

RESULTS: Final = (FILTER_IDS, FILTER_PEAKS, AREA_RANK, RETENTION)
"""The explainer's own outputs about filters, in the order of the contract."""

CLASS_IDS: Final = "class_ids"
DECISION: Final = "decision"
CONTRIBUTIONS: Final = "contributions"
SUPPORT: Final = "support"
EVIDENCE_RANK: Final = "evidence_rank"
EVIDENCE_RETENTION: Final = "evidence_retention"

DECISION_RESULTS: Final = (CLASS_IDS, DECISION, CONTRIBUTIONS, SUPPORT, EVIDENCE_RANK, EVIDENCE_RETENTION)
"""Its own outputs about classes, likewise; only of files that have the input `CLASSES`."""

OWN_OUTPUTS: Final = (*RESULTS, *DECISION_RESULTS)
"""All of them; other outputs are the model's."""

RANKS: Final = dict(zip(OWN_OUTPUTS, (2, 2, 4, 3, 2, 2, 3, 3, 4, 3), strict=True))
"""Number of axes of each of them."""

STRONGEST: Final = -1
"""In `FILTERS`: the filter with the highest peak that is not asked for by id. In `CLASSES`: the class with the highest
score that is not. In `FILTER_IDS`: nothing was left."""

DECISIVE: Final = -2
"""In `FILTERS`: the filter that adds most to the first class asked about and is not asked for by id."""

AGAINST: Final = -3
"""In `FILTERS`: the one that speaks most against it."""

WISHES: Final = (STRONGEST, DECISIVE, AGAINST)
"""What `FILTERS` can hold besides ids."""

PREFIX: Final = "fsagn/"
"""What names of the explainer's own nodes and values begin with, but for inputs and outputs."""

DIRECTION: Final = f"{PREFIX}direction"
"""Value that questions about classes are made of: (N J, C, h, w), or (N J, C, 1, 1) where places do not differ."""

DIRECTION_PHI: Final = f"{PREFIX}phi"
"""What each filter adds to each question, (N, J, C)."""

LEARNT: Final = (f"{PREFIX}class_embedding", f"{PREFIX}class_alpha")
"""Initializers with what is learnt about decisions beyond their direction."""

ASKED: Final = f"{PREFIX}asked"
"""The request of a file that has no input `FILTERS`: an initializer (1, K), spread over the batch into `FILTERS`."""

ASKED_CLASSES: Final = f"{PREFIX}asked_classes"
"""The classes (1, J) that a file without the input `FILTERS` is asked about, likewise."""

REQUEST: Final = f"{PREFIX}request_"
"""What names of the nodes begin with that spread it."""

BEFORE: Final = f"{PREFIX}in/"
"""What names of nodes and values begin with that make the model's input from pixels."""

PREPROCESSED: Final = f"{BEFORE}image"
"""The model's input, where the file's image input is pixels."""
