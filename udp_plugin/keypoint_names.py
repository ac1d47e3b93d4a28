"""Left and right in the names of keypoints: who is whose mirror image."""

import re
from typing import List, Sequence

#: A word in a name: what separators, digits and changes of case leave together.
WORD = re.compile('[A-Z]+(?![a-z])|[A-Z]?[a-z]+')
#: Parts of a body before which a letter may stand without a separator: ``lhip``.
PARTS = (
    'eye|ear|brow|shoulder|elbow|arm|wrist|hand|thumb|finger|hip|leg|knee|ankle|heel|'
    'foot|toe|paw|wing'
)
#: Words that have a side, the surest first.
WAYS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        '(?P<side>left|right|l|r)',
        '(?P<side>left|right)',
        '(?P<side>l|r)',
        '[a-z]*?(?P<side>left|right)[a-z]*',
        # Front, back, top, bottom, upper, lower, rear, hind and middle ones.
        '[fbtulrhm](?P<side>l|r)',
        '(?P<side>l|r)[fbtulrhm]',
        f'(?P<side>l|r)(?:{PARTS})s?',
    )
]
OTHER = dict(left='right', right='left', l='r', r='l')


def mirror_images(names: Sequence[str]) -> List[int]:
    """For each keypoint the index of its mirror image, by the names.

    Left and right are exchanged wherever they stand in a name, in words, in letters
    (``l_eye``, ``eyeL``, ``LEye``) and in pairs of letters (``FL``). A keypoint whose
    name has no side, or whose mirror image is not among the names, is its own.

    Raises:
        ValueError: Two keypoints have one name.

    Example:
        >>> mirror_images(['nose', 'left_eye', 'right_eye', 'earL', 'earR', 'lip'])
        [0, 2, 1, 4, 3, 5]
    """
    refuse_duplicates(names)
    index = {name: k for k, name in enumerate(names)}
    found = list(range(len(names)))
    for k, name in enumerate(names):
        for way in WAYS:
            mirrored = _with_sides(name, way, OTHER)
            # Beside k or q, the letters l and r count and have no side.
            counted = {_with_sides(name, way, dict(l=x, r=x)) for x in 'kq'} - {name}
            if mirrored != name and mirrored in index and not counted & index.keys():
                found[k] = index[mirrored]
                break
    return [j if found[j] == k else k for k, j in enumerate(found)]


def refuse_duplicates(names: Sequence[str]) -> None:
    """Raise a ValueError if two keypoints have one name."""
    for k, name in enumerate(names):
        first = list(names).index(name)
        if first != k:
            raise ValueError(
                f'keypoints {first} and {k} (from 0 on) are both called {name!r}; give '
                'each its own name'
            )


def side_of(name: str) -> str:
    """``'left'`` or ``'right'``; empty if a name has neither, or both.

    Example:
        >>> side_of('L_Eye'), side_of('eyeRight'), side_of('left_eye_right_corner')
        ('left', 'right', '')
    """
    words = {word.lower() for word in WORD.findall(name)}
    left, right = words & {'left', 'l'}, words & {'right', 'r'}
    return '' if bool(left) == bool(right) else 'left' if left else 'right'


def _with_sides(name: str, way: 're.Pattern[str]', other: dict) -> str:
    """The name with other sides, in the words and the case that they have."""

    def exchanged(word: 're.Match[str]') -> str:
        found = way.fullmatch(word[0])
        if not found:
            return word[0]
        start, end = found.span('side')
        side = found['side']
        new = other.get(side.lower(), side)
        # As it was: left, Left or LEFT.
        new = new.upper() if side.isupper() else new
        new = new.capitalize() if side.istitle() else new
        return word[0][:start] + new + word[0][end:]

    return WORD.sub(exchanged, name)
