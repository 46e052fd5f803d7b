"""Inputs and outputs that stay where the provider computes: no copies between host and device, CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..errors import FsagnError
from ..model.inference_session import ORT_ERRORS
from .session import DTYPES, Session
from .tuning import first_line

DEVICES: Final = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
"""Provider -> where its tensors live; others compute on the host's memory."""


class Binding:
    """A session with fixed inputs and outputs on its device; what CUDA graphs need, and faster without them too.

    The outputs' memory is allocated once; `run` computes into it, `fetch` copies out. Not for several threads.

    Args:
        session: of the graph; with ``Tuning(cuda_graph=True)`` the first `run` records and later ones replay.
        feeds: an array per input, which fix the shapes; replaced by `update`.
        outputs: names of the wanted outputs; None: all.

    Raises:
        FsagnError: onnxruntime cannot compute the graph for these shapes, or a CUDA graph is asked for of a graph in
            memory.
    """

    def __init__(
        self, session: Session, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> None:
        self._session = session
        self._names = [port.name for port in session.outputs] if outputs is None else list(outputs)
        self.device = DEVICES.get(session.provider, "cpu")
        dtypes = {port.name: DTYPES[port.dtype] for port in session.inputs}
        cast = {name: np.ascontiguousarray(array, dtype=dtypes[name]) for name, array in feeds.items()}
        self._inputs = {name: self._on_device(array) for name, array in cast.items()}
        self._binding = session.live().io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        shapes = dict(zip(self._names, self._shapes(cast), strict=True))
        self._outputs = {name: self._on_device(np.zeros(array.shape, array.dtype)) for name, array in shapes.items()}
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _on_device(self, array: NDArray[Any]) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device, 0)

    def _shapes(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs once, for their shapes: by a plain session where a CUDA graph must not see other memory."""
        if not self._session.records:
            return list(self._session.run(self._names, feeds).values())
        with self._session.reopened("cpu", 1) as plain:
            return list(plain.run(self._names, feeds).values())

    def update(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Copy new inputs of the same shapes to the device."""
        for name, array in feeds.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))

    def run(self) -> None:
        """Compute; the outputs stay on the device.

        Raises:
            FsagnError: onnxruntime failed.
        """
        try:
            self._session.live().run_with_iobinding(self._binding)
        except ORT_ERRORS as error:
            raise FsagnError(
                f"{self._session.source}: onnxruntime failed on {self._session.provider}: {first_line(error)}"
            ) from error

    def fetch(self) -> dict[str, NDArray[Any]]:
        """Copies of the outputs on the host."""
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}
