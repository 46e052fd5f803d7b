"""Label Studio's run-length format of brush masks: runs of bytes in a stream of bits, RGBA pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import AnnotationError
from .parts import Mask


class _Bits:
    def __init__(self, where: str, content: Sequence[object]) -> None:
        try:
            self._bits = np.unpackbits(np.array(content, dtype=np.uint8))
        except (TypeError, ValueError, OverflowError) as error:
            raise AnnotationError(f"{where}: a brush must be a list of bytes") from error
        self._where, self._place = where, 0

    def read(self, count: int) -> int:
        bits = self._bits[self._place : self._place + count]
        if len(bits) < count:
            raise AnnotationError(f"{self._where}: its brush is cut short")
        self._place += count
        value = 0
        for bit in bits.tolist():
            value = value << 1 | bit
        return value


def brush_mask(where: str, content: Sequence[object], size: tuple[int, int]) -> Mask:
    """The mask of a brush, bool (H0, W0): painted where alpha > 0.

    The stream: 32 bits count of bytes, 5 bits word size - 1, four times 4 bits run size - 1; then runs: 1 bit (repeat
    or list), 2 bits which run size, run length - 1, and the word (repeat) or the words (list).

    Raises:
        AnnotationError: broken, or of another size than the image.
    """
    bits = _Bits(where, content)
    count = bits.read(32)
    if count != 4 * size[0] * size[1]:
        raise AnnotationError(f"{where}: its brush has {count} bytes, but {size[1]} x {size[0]} pixels are 4 each")
    word = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint32)
    place = 0
    while place < count:
        repeated = bits.read(1)
        end = min(place + 1 + bits.read(sizes[bits.read(2)]), count)
        if repeated:
            values[place:end] = bits.read(word)
        else:
            values[place:end] = [bits.read(word) for _ in range(end - place)]
        place = end
    return np.asarray(values.reshape(*size, 4)[..., 3] > 0)
