"""Reads photographs from files, also of strangers."""

import re
import struct
from pathlib import Path
from typing import Iterator, Optional, Tuple

import cv2
import numpy as np

from .checks import LONGEST_SIDE

#: Of a picture; a file of some kB can unfold to any number of them.
MOST_PIXELS = 2**28
ANY = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
#: Where formats say how large the picture is, and how. (WebP has at most 2^28 pixels,
#: and what is left has as many bytes as pixels, or nearly so.)
HEADERS = (
    (re.compile(rb'\x89PNG\r\n\x1a\n.{4}IHDR(.{8})', re.S), '>II'),
    (re.compile(rb'GIF8[79]a(.{4})', re.S), '<HH'),
    (re.compile(rb'BM.{12}[^\x0c].{3}(.{8})', re.S), '<ii'),
    # JPEG 2000, in a box or not.
    (re.compile(rb'(?:.{4}jP  .*?)?\xff\x4f\xff\x51.{4}(.{8})', re.S), '>II'),
)
#: The same in files of AVIF, of each picture in it.
AVIF = re.compile(rb'ispe.{4}(.{8})', re.S)


def read_photograph(path: Path) -> Optional[np.ndarray]:
    """The photograph (h, w, 3), uint8, BGR, turned as its EXIF data say.

    It is read as ``cv2.imread`` does, from any path that Python can open, and None is
    what OpenCV cannot read.

    Raises:
        OSError: The file cannot be read.
        ValueError: The picture is too large, or has neither 8 nor 16 bits a channel.
    """
    content = path.read_bytes()
    size = stated_size(content)
    if size and not (max(size) <= LONGEST_SIDE and size[0] * size[1] <= MOST_PIXELS):
        raise ValueError(
            f'image must have sides of 1 to {LONGEST_SIDE} pixels and at most 2^28 '
            f'pixels, got {size[0]} x {size[1]} pixels; make it smaller, or cut it'
        )
    if not content:
        return None
    encoded = np.frombuffer(content, dtype=np.uint8)
    pixels = cv2.imdecode(encoded, ANY)
    if pixels is not None and pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f'image must have 8 or 16 bits a channel, got {pixels.dtype}; scale its '
            'colours to 0 to 255, and save it as PNG'
        )
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return pixels


def stated_size(content: bytes) -> Optional[Tuple[int, int]]:
    """Width and height by a picture's header, or None where it is not known."""
    try:
        sizes = [(abs(width), abs(height)) for width, height in _sizes(content)]
    except (struct.error, IndexError):
        return None
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _sizes(content: bytes) -> Iterator[Tuple[int, int]]:
    for pattern, form in HEADERS:
        found = pattern.match(content)
        if found:
            yield struct.unpack(form, found[1])
    if content[4:8] == b'ftyp':
        yield from (struct.unpack('>II', sides) for sides in AVIF.findall(content))
    if content[:2] == b'\xff\xd8':
        yield _jpeg_size(content)
    if content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        yield _tiff_size(content)


def _jpeg_size(content: bytes) -> Tuple[int, int]:
    """Of the segment that starts the frame; embedded thumbnails are within others."""
    at = 2
    while True:
        while content[at] == content[at + 1] == 0xFF:
            at += 1
        marker, length = struct.unpack_from('>HH', content, at)
        # Arithmetic and Huffman coded; between them are other things.
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from('>HH', content, at + 5)
            return width, height
        at += 2 + length


def _tiff_size(content: bytes) -> Tuple[int, int]:
    """Of the first picture in it, whose directory has a number for each side."""
    order = '<' if content[:1] == b'I' else '>'
    big = b'+' in content[:4]
    start, counted, word = (8, 'Q', 'Q') if big else (4, 'H', 'I')
    (at,) = struct.unpack_from(order + word, content, start)
    (count,) = struct.unpack_from(order + counted, content, at)
    at += struct.calcsize(f'={counted}')
    sides = {}
    for _ in range(min(count, 4096)):
        tag, kind = struct.unpack_from(order + 'HH', content, at)
        if tag in (256, 257):
            # A short number stands first in its place.
            form = {3: 'H', 4: 'I'}.get(kind, word)
            place = at + 4 + struct.calcsize(f'={word}')
            (sides[tag],) = struct.unpack_from(order + form, content, place)
        at += 4 + 2 * struct.calcsize(f'={word}')
    return sides[256], sides[257]
