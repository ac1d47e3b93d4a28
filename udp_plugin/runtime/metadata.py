"""What an exported model says of itself: data from outside, checked before any use."""

import json
from numbers import Real
from typing import Any, Callable, Dict, Tuple

from udp_plugin.functional.geometry import PIXELS, UNIT_LENGTH

#: Of the network's input and output, in pixels; no crop is larger.
LONGEST = 2**13
#: Of a name, in characters, and of keypoints.
LONGEST_NAME, MOST_KEYPOINTS = 200, 10_000
#: Of colours and of the factor by which boxes are enlarged.
BRIGHTEST, WIDEST = 1e6, 100
#: How many channels the crops have, by ``color``.
COLORS = {'BGR': 3, 'RGB': 3, 'GRAY': 1}
#: By which the crops' input is measured.
MEASURES = (UNIT_LENGTH, PIXELS)
#: The transforms that crops may be made as by, and the measures that each has.
WARPS = {'TopDownAffineUDP': (UNIT_LENGTH,), 'TopdownAffine': MEASURES}
#: What a message shows of a value.
SHOWN = 80
AGAIN = 'export it again with this version of udp-plugin'


def plain(text: object) -> str:
    """A text in one line, what cannot be printed as escapes.

    >>> plain('caf\\udce9\\x1b[2J')
    'caf\\\\udce9\\\\x1b[2J'
    """
    words = ' '.join(str(text).split())
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode() for c in words
    )


def _named(value: Any) -> bool:
    short = isinstance(value, str) and 0 < len(value) <= LONGEST_NAME
    return short and value.isprintable()


def _numbers(value: Any, low: float, high: float, kind: type = Real) -> bool:
    """Whether it is a list of numbers above ``low``, up to ``high``."""
    return isinstance(value, list) and all(
        isinstance(n, kind) and not isinstance(n, bool) and low < n <= high
        for n in value
    )


def _size(value: Any) -> bool:
    return _numbers(value, 0, LONGEST, int) and len(value) == 2


def _pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        _numbers(pair, -1, MOST_KEYPOINTS, int) and len(pair) == 2 for pair in value
    )


def _keypoint_names(value: Any) -> bool:
    some = isinstance(value, list) and 0 < len(value) <= MOST_KEYPOINTS
    return some and all(map(_named, value))


NAME = f'a printable text of 1 to {LONGEST_NAME} characters', _named
SIZE = f'width and height, whole numbers from 1 to {LONGEST}', _size
PAIRS = 'a list of pairs of indices of keypoints', _pairs
SWITCH = 'true or false', lambda value: isinstance(value, bool)
#: Each entry, which is JSON: what it must be, and whether it is.
ENTRIES: Dict[str, Tuple[str, Callable[[Any], bool]]] = {
    'made_by': NAME,
    'version': NAME,
    'config': NAME,
    'input_size': SIZE,
    'heatmap_size': SIZE,
    'codec': (
        "a codec's type and settings",
        lambda value: isinstance(value, dict) and _named(value.get('type')),
    ),
    'keypoint_names': ('a list of printable texts', _keypoint_names),
    'flip_pairs': PAIRS,
    'skeleton': PAIRS,
    'padding': (
        f'a number above 0, at most {WIDEST}',
        lambda value: _numbers([value], 0, WIDEST),
    ),
    'color': (
        '"BGR", "RGB" or "GRAY"',
        lambda value: isinstance(value, str) and value in COLORS,
    ),
    'normalized': SWITCH,
    'mean': ('numbers', lambda value: _numbers(value, -BRIGHTEST, BRIGHTEST)),
    'std': ('numbers above 0', lambda value: _numbers(value, 0, BRIGHTEST)),
    'flip_test': SWITCH,
    'measure': ('"unit length" or "pixels"', lambda value: value in MEASURES),
    'warp': (
        '"TopDownAffineUDP" or "TopdownAffine"',
        lambda value: isinstance(value, str) and value in WARPS,
    ),
}
#: Of files of earlier versions, which have them not.
EARLIER = {'warp': '"TopDownAffineUDP"'}


def read_metadata(path: object, found: Dict[str, str]) -> Dict[str, Any]:
    """The values of :data:`ENTRIES`, lists as tuples.

    Args:
        path: The file, for messages.
        found: What is in it, by name; entries of others are left alone.

    Raises:
        ValueError: The file is not one that ``udp-plugin export`` wrote, or an entry is
            missing or not what it must be.
    """
    told, found = {}, {**EARLIER, **found}
    for key in ENTRIES:
        if key in found:
            try:
                told[key] = json.loads(found[key])
            except (ValueError, RecursionError):
                told[key] = None
    if told.get('made_by') != 'udp_plugin':
        raise ValueError(
            f'model must be a file that `udp-plugin export` wrote, and {path} does '
            'not say that it is (metadata made_by); export the model with it'
        )
    missing = ', '.join(key for key in ENTRIES if key not in told)
    if missing:
        raise ValueError(f'model {path} lacks the metadata {missing}; {AGAIN}')
    for key, (must, holds) in ENTRIES.items():
        if not holds(told[key]):
            raise _not_as_it_must_be(path, key, must, found[key])
    channels = COLORS[told['color']]
    for key in ('mean', 'std'):
        if len(told[key]) != channels:
            must = f'as many numbers as {told["color"]} has channels, {channels}'
            raise _not_as_it_must_be(path, key, must, found[key])
    if told['measure'] not in WARPS[told['warp']]:
        must = f'{" or ".join(WARPS[told["warp"]])}, since its warp is {told["warp"]}'
        raise _not_as_it_must_be(path, 'measure', must, found['measure'])
    return {key: _tuples(value) for key, value in told.items()}


def check_indices(path: object, told: Dict[str, Any]) -> None:
    """Refuse pairs of keypoints that there are not.

    Raises:
        ValueError: The message names the entry.
    """
    count = len(told['keypoint_names'])
    for key in ('flip_pairs', 'skeleton'):
        beyond = [pair for pair in told[key] if max(pair) >= count]
        if beyond:
            must = f'pairs of indices of its {count} keypoints, from 0 on'
            raise _not_as_it_must_be(path, key, must, str(list(beyond[0])))


def _not_as_it_must_be(path: object, key: str, must: str, got: str) -> ValueError:
    shown = plain(got[:SHOWN]) + '...' * (len(got) > SHOWN)
    return ValueError(
        f'model {path} has the metadata {key}, which must be {must}, got {shown}; '
        f'{AGAIN}'
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
