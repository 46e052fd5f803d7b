"""Memory of a training process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

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


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still have: what the machine has free, swap included, or its control groups allow.

    Args:
        root: where ``proc`` and ``sys`` lie.

    Returns:
        None where it cannot be known: not on Linux.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        free = [1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))]
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return max(0, min([*free, *_left_by_groups(root)]))


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each control group around this process still allows; files that can be read again do not count as used."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, kinds, place = line.split(":", 2)
        if kinds in ("", "memory"):
            top = root / "sys/fs/cgroup" / kinds
            here = top / place.lstrip("/")
            limit, used, cached = _NAMES[kinds]
            for folder in (here, *here.parents):
                if folder == top.parent:
                    break
                try:
                    most, now = int((folder / limit).read_text()), int((folder / used).read_text())
                    stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                    yield most - now + int(stat.get(cached, 0))
                except (OSError, ValueError):
                    continue  # no limit, or not there


_NAMES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Of the second and the first version of control groups: files with the limit and the use, name of what is cached."""
