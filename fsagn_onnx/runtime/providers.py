"""Which onnxruntime execution provider computes: CUDA where it really works, the CPU elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import onnxruntime

from ..errors import UsageError
from ..installation import installed_kinds, mending

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"

_SHORT: Final = {"cpu": CPU, "cuda": CUDA, "gpu": CUDA, "tensorrt": "TensorrtExecutionProvider"}
_CUDA_SUCCESS: Final = 0


def wanted_providers(providers: str | Sequence[str]) -> tuple[str, ...]:
    """Onnxruntime's names of the wanted providers, in order of preference, the CPU last.

    Args:
        providers: ``auto`` (CUDA where this machine has an NVIDIA device, else the CPU), ``cpu``, ``cuda``,
        several with
            commas, onnxruntime's own names, or a sequence of these.

    Raises:
        UsageError: a provider that this onnxruntime does not have.
    """
    if providers == "auto":
        usable = CUDA in onnxruntime.get_available_providers() and has_cuda_device()
        return (CUDA, CPU) if usable else (CPU,)
    asked = providers.split(",") if isinstance(providers, str) else list(providers)
    names = [_SHORT.get(name.strip().lower(), name.strip()) for name in asked]
    available = onnxruntime.get_available_providers()
    for name in names:
        if name not in available:
            raise UsageError(
                f"no provider '{name}' in this onnxruntime; there are auto, {', '.join(available)}"
                + (f" ({_no_cuda()})" if name == CUDA else "")
            )
    return tuple(dict.fromkeys([*names, CPU]))


def _no_cuda() -> str:
    """Why this onnxruntime has no CUDA."""
    kinds = installed_kinds()
    if len(kinds) > 1:
        return f"{' and '.join(kinds)} are installed together and overwrite each other's files: {mending(kinds)}"
    return "CUDA needs the package onnxruntime-gpu"


@cache
def has_cuda_device() -> bool:
    """Whether the NVIDIA driver is there and sees a device (asks the driver library, starts no CUDA context)."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != _CUDA_SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != _CUDA_SUCCESS:
        return False
    return count.value > 0


@cache
def load_cuda_libraries() -> str:
    """Load CUDA and cuDNN out of NVIDIA's Python packages where they are installed.

    Returns:
        Which libraries of CUDA and cuDNN are missing, on one line; empty if none.
    """
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    missing = missing_libraries(library) if library.is_file() else []
    return f"missing: {', '.join(missing)}" if missing else ""


def missing_libraries(library: Path) -> list[str]:
    """The shared libraries of CUDA that an ELF file names and that do not load here, in order.

    Args:
        library: onnxruntime's CUDA provider.
    """
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        named = sorted({name.decode() for name in re.findall(rb"\0(lib(?:cu|nv)[a-zA-Z]+\.so\.\d+)(?=\0)", content)})
    missing = []
    for name in named:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing
