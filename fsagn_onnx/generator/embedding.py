"""Where the filters' embeddings start: at the filters' own weights, so that like filters share what is learnt."""

from __future__ import annotations

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor

from ..model import Layer, Model

SPREAD = 0.5
"""Standard deviation of the embeddings at the start."""


def filter_embedding(model: Model, layer: Layer, width: int) -> Tensor | None:
    """Principal components of the conv's weights, one row per filter.

    Rows of W are the filters' weights, flattened, of length 1 and centred over the filters; the components are the
    scores of W's principal component analysis, all scaled by one factor to a standard deviation of .5.

    Args:
        model: the CNN.
        layer: the explained layer, C filters.
        width: of the embedding.

    Returns:
        ``(C, width)``, zero beyond the rank of W; None where the weights are not in the file as they are (quantised,
        computed) or tell no filters apart.
    """
    graph = model.proto.graph
    reads = next((node.input[1] for node in graph.node if layer.conv in node.output and len(node.input) > 1), None)
    stored = next((tensor for tensor in graph.initializer if tensor.name == reads), None)
    if stored is None or len(stored.dims) < 2 or stored.dims[0] != layer.channels:
        return None
    rows = numpy_helper.to_array(stored).astype(np.float64).reshape(layer.channels, -1)
    if not np.isfinite(rows).all():
        return None
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    rows = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(rows @ rows.T)  # ascending
    scores = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :width]
    if not scores.std() > 1e-9:
        return None
    embedding = torch.zeros(layer.channels, width)
    embedding[:, : scores.shape[1]] = torch.from_numpy(np.ascontiguousarray(scores)).float()
    return embedding * (SPREAD / embedding.std())
