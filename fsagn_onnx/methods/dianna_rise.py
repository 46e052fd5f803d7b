"""DIANNA's RISE, asked about filters instead of classes.

DIANNA (1.8) asks for onnxruntime, shap, lime, ipython and more; the plain onnxruntime must not lie beside
onnxruntime-gpu, so it is in no extra: `pip install --no-deps dianna xarray pandas scikit-learn joblib threadpoolctl`.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Final

import numpy as np
from dianna.methods.rise_image import RISEImage
from numpy.typing import NDArray

from ..model import Model
from ..runtime.feature_maps import FeatureMaps
from .interface import Passes

METHODS: Final = {"dianna-rise": "DiannaRise"}
NEEDS: Final = {"dianna": "pip install --no-deps dianna xarray pandas scikit-learn joblib threadpoolctl"}

MASKS: Final = 1000
"""DIANNA's default."""

KEPT: Final = 0.5
CELLS: Final = 7
BATCH: Final = 25


class DiannaRise:
    """`dianna.methods.rise_image.RISEImage` on a function that gives, as class k, the sum of F_k's positive values.

    Masked pixels become 0 after normalisation. DIANNA draws from numpy's global random state; it is put back.

    Args:
        model: the CNN.
        layer: value name of the explained layer.
        masks: number of masks.
    """

    name = "dianna-rise"

    def __init__(self, model: Model, layer: str, masks: int = MASKS) -> None:
        self._maps = FeatureMaps.of_model(model, layer, batch_size=BATCH)
        self._spec, self._masks = model.input_spec, masks

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`; the maps have the input's own resolution."""
        state = np.random.get_state()
        try:
            np.random.seed(0)
            return np.stack([self._one(image, ids) for image, ids in zip(batch, filters, strict=True)])
        finally:
            np.random.set_state(state)

    def _one(self, image: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        def responses(images: Any) -> NDArray[np.float32]:
            maps = self._maps.maps(np.asarray(images, dtype=np.float32), ids)
            return np.asarray(np.maximum(maps, 0).sum(axis=(2, 3)), dtype=np.float32)

        channels = 0 if self._spec.layout == "NCHW" else 2
        method = RISEImage(n_masks=self._masks, feature_res=CELLS, p_keep=KEPT, axis_labels={channels: "channels"})
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            made = method.explain(responses, image, range(len(ids)), batch_size=BATCH)
        return np.asarray(made, dtype=np.float32)

    def passes(self, filters: int) -> Passes:
        """See `Method`; the number of filters costs nothing."""
        return Passes(self._masks, 0)
