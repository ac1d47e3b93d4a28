"""Reads of an ONNX file what is asked of it before onnxruntime opens it.

An ONNX file can name other files from which its weights are read, anywhere on the disk;
onnxruntime follows it. Here it is walked through without the ``onnx`` package, by the
encoding of Protocol Buffers: each field is a number and its wire type, and a length
where its content has one.
"""

import mmap
from pathlib import Path
from typing import Dict, Set, Tuple

#: Of each message of ONNX's, the fields that lead to weights or to metadata, by number.
MESSAGES: Dict[str, Dict[int, str]] = {
    'model': {7: 'graph', 14: 'metadata', 20: 'training', 25: 'function'},
    'training': {1: 'graph', 2: 'graph'},
    'graph': {1: 'node', 5: 'tensor', 15: 'sparse'},
    'function': {7: 'node', 11: 'attribute'},
    'node': {5: 'attribute'},
    'attribute': {
        **{5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph'},
        **{22: 'sparse', 23: 'sparse'},
    },
    'sparse': {1: 'tensor', 2: 'tensor'},
    'tensor': {13: 'external'},
    # A key and a value, as texts.
    'external': {},
    'metadata': {},
}
#: Bytes of the wire types of a fixed length.
FIXED = {1: 8, 5: 4}


class Contents:
    """What an ONNX file says of itself, and where else it has weights.

    Args:
        path: The file.

    Attributes:
        metadata: By name.
        locations: The files that it names, as it names them.

    Raises:
        ValueError: It is no ONNX file, or a broken one.
    """

    def __init__(self, path: Path) -> None:
        self.metadata: Dict[str, str] = {}
        self.locations: Set[str] = set()
        with path.open('rb') as file, mmap.mmap(
            file.fileno(), 0, access=mmap.ACCESS_READ
        ) as content:
            self._walk(content)

    def _walk(self, content: mmap.mmap) -> None:
        # No recursion: graphs may be nested as deep as their author likes.
        waiting, graphs = [('model', 0, len(content))], 0
        while waiting:
            message, at, end = waiting.pop()
            graphs += message == 'graph'
            pair: Dict[int, bytes] = {}
            while at < end:
                tag, at = _varint(content, at)
                field, wire = tag >> 3, tag & 7
                start = at
                if wire == 0:
                    _, at = _varint(content, at)
                elif wire == 2:
                    length, start = _varint(content, at)
                    at = start + length
                elif wire in FIXED:
                    at += FIXED[wire]
                else:
                    raise ValueError(f'it has the wire type {wire}')
                # Numbers have 32 bits; of more, readers differ in what they see.
                if at > end or not 0 < field < 2**29:
                    raise ValueError('it breaks off')
                if wire == 2 and field in MESSAGES[message]:
                    waiting.append((MESSAGES[message][field], start, at))
                elif wire == 2 and not MESSAGES[message]:
                    pair[field] = content[start:at]
            if pair:
                key, value = (pair.get(n, b'').decode() for n in (1, 2))
                if message == 'metadata':
                    self.metadata[key] = value
                elif key == 'location':
                    self.locations.add(value)
        if not graphs:
            raise ValueError('it has no graph')


def _varint(content: mmap.mmap, at: int) -> Tuple[int, int]:
    """A number, seven bits a byte, and where it ends."""
    number = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise ValueError('it breaks off')
        byte = content[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
