"""Memory of a training process."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next step, instead of giving it back and being handed zeroed pages again.

    Feature maps of more than 32 MiB are otherwise mapped and unmapped at every step: a third of a training step on
    EfficientNet-Lite0 was spent in the kernel. It acts on the whole process, so a command calls it, never the library.

    Returns:
        Whether it took effect: only on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all(mallopt(key, value) == 1 for key, value in settings)
