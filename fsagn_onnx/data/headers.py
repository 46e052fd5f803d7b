"""Width, height and completeness of an image file, read off its header before anything is decoded.

Formats: PNG, JPEG, GIF, BMP, WebP, TIFF, PNM, JPEG 2000. Sources: W3C PNG 11.2.2, ITU T.81 B.2.2, GIF89a 18,
Microsoft BITMAPINFOHEADER, RFC 9649, TIFF 6.0 section 2, netpbm, ITU T.800 I.5.3.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

__all__ = ["BrokenHeaderError", "Header", "read_header"]


class BrokenHeaderError(Exception):
    """The header contradicts its own format; internal to `data`, never seen by a user."""


@dataclass(frozen=True)
class Header:
    """What a file's header says.

    Attributes:
        kind: format in words.
        height: in pixels, as stored (before any rotation).
        width: likewise.
        maximum: the value that stands for white, where the header says it; 0: the largest of 8 or 16 bits.
        unfit: in words, what the pixels are where they are no brightness of 8 or 16 bits; empty where they are.
    """

    kind: str
    height: int
    width: int
    maximum: int = 0
    unfit: str = ""


def read_header(content: bytes) -> Header | None:
    """Read the header of an image file.

    Args:
        content: The whole file.

    Returns:
        The header, or None if the format is not known.

    Raises:
        BrokenHeaderError: the format is known, but the header is broken or the file stops short.
    """
    try:
        for matches, read in _FORMATS:
            if matches(content):
                header = read(content)
                if header.width < 1 or header.height < 1:
                    raise BrokenHeaderError(f"{header.kind} of {header.width} x {header.height} pixels")
                return header
    except (struct.error, IndexError, ValueError) as error:
        raise BrokenHeaderError("the file stops within its header") from error
    return None


def _png(content: bytes) -> Header:
    width, height = struct.unpack_from(">II", content, 16)
    if b"IEND" not in content:
        raise BrokenHeaderError("PNG without its end: truncated")
    return Header("PNG", height, width)


_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


def _jpeg(content: bytes) -> Header:
    position, size = 2, None
    while True:
        position = content.index(b"\xff", position)
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        elif marker in (0xD9, 0xDA):
            break
        else:
            if marker in _FRAME_MARKERS:
                size = struct.unpack_from(">HH", content, position + 5)
            position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    if size is None or marker == 0xD9:
        raise BrokenHeaderError("JPEG without a frame")
    if content.find(b"\xff\xd9", position) < 0:
        raise BrokenHeaderError("JPEG without its end: truncated")
    return Header("JPEG", size[0], size[1])


def _gif(content: bytes) -> Header:
    width, height = struct.unpack_from("<HH", content, 6)
    return Header("GIF", height, width)


def _bmp(content: bytes) -> Header:
    if struct.unpack_from("<I", content, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", content, 18)
    else:
        width, height = struct.unpack_from("<ii", content, 18)
    return Header("BMP", abs(height), width)


def _webp(content: bytes) -> Header:
    if struct.unpack_from("<I", content, 4)[0] + 8 > len(content):
        raise BrokenHeaderError("WebP without its end: truncated")
    kind = content[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(content[24:27], "little")
        height = 1 + int.from_bytes(content[27:30], "little")
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        raise BrokenHeaderError("WebP without a picture")
    return Header("WebP", height, width)


def _tiff(content: bytes) -> Header:
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    start = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), content, start)[0]
    start += 8 if big else 2
    found: dict[int, tuple[int, ...]] = {}
    for index in range(min(count, 512)):
        entry = start + index * (20 if big else 12)
        tag, kind = struct.unpack_from(order + "HH", content, entry)
        if tag in _TIFF_TAGS and tag not in found:
            letter = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
            values = struct.unpack_from(order + ("Q" if big else "I"), content, entry + 4)[0]
            values = min(values, 8)
            size, place = values * struct.calcsize(order + letter), entry + (12 if big else 8)
            if size > (8 if big else 4):
                place = struct.unpack_from(order + ("Q" if big else "I"), content, place)[0]
            found[tag] = struct.unpack_from(order + str(values) + letter, content, place)
    if not found.get(256) or not found.get(257):
        raise BrokenHeaderError("TIFF without width and height")
    return Header("TIFF", found[257][0], found[256][0], unfit=_unfit_samples(found))


_TIFF_TAGS = frozenset({256, 257, 258, 262, 277, 339})
"""Width, height, bits per sample, photometric interpretation, samples per pixel, sample format."""
_TIFF_PALETTE = 3
_TIFF_FORMATS = {
    2: "signed {}-bit numbers",
    3: "{}-bit floating point numbers",
    5: "complex numbers",
    6: "complex numbers",
}


def _unfit_samples(found: dict[int, tuple[int, ...]]) -> str:
    """What the samples of a TIFF are, in words, where they cannot be taken for brightness."""
    bits = max(found.get(258) or (1,))
    for form in found.get(339, ()):
        if form in _TIFF_FORMATS:
            return _TIFF_FORMATS[form].format(bits)
    known = (1, 4, 8, 16) if found.get(262, (0,))[0] == _TIFF_PALETTE else (1, 8, 16)
    if bits not in known:
        return f"{bits}-bit numbers"
    samples = (found.get(277) or (1,))[0]
    return f"{samples} channels" if samples > 4 else ""


_GAP = rb"(?:\s|#[^\n]*\n)+"


def _pnm(content: bytes) -> Header:
    found = re.match(rb"P([1-6])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})\s", content[:4096])
    if not found:
        raise BrokenHeaderError("PNM without width and height")
    height, width = int(found[3]), int(found[2])
    if found[1] in b"14":
        return Header("PNM", height, width)
    white = re.match(rb"(?:\s|#[^\n]*\n)*(\d{1,9})\s", content[found.end() : found.end() + 4096])
    if not white or not 0 < int(white[1]) < 2**16:
        raise BrokenHeaderError("PNM without a maximum of 1 to 65535")
    scaled = found[1] in b"23" and int(white[1]) < 256  # OpenCV does so, for plain text of 8 bits alone
    return Header("PNM", height, width, maximum=0 if scaled else int(white[1]))


def _jpeg2000(content: bytes) -> Header:
    at = content.find(b"ihdr", 0, 4096)
    if at < 0:
        raise BrokenHeaderError("JPEG 2000 without an image header")
    height, width = struct.unpack_from(">II", content, at + 4)
    return Header("JPEG 2000", height, width)


_FORMATS = (
    (lambda c: c.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda c: c.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda c: c[:6] in (b"GIF87a", b"GIF89a"), _gif),
    (lambda c: c.startswith(b"BM"), _bmp),
    (lambda c: c.startswith(b"RIFF") and c[8:12] == b"WEBP", _webp),
    (lambda c: c[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    (lambda c: re.match(rb"P[1-6]\s", c) is not None, _pnm),
    (lambda c: c[4:12] == b"jP  \r\n\x87\n", _jpeg2000),
)
