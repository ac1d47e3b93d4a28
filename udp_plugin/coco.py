"""Files of COCO keypoints and their photographs, checked before anything is done.

What the toolbox or COCO's evaluation would end with hours later, or would make nonsense
of, is told at once. It needs no toolbox.
"""

import json
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

# Matplotlib brings it. It reads the head of a file alone, where OpenCV decodes all of
# the picture, which takes a hundred times as long.
from PIL import Image

from udp_plugin.errors import UserError
from udp_plugin.keypoint_names import refuse_duplicates

#: So many faults are listed.
LISTED = 10
#: What is larger is infinite in single precision, in which the toolbox has it.
LARGEST = 3e38
#: What there must be, by kind.
KEYS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id'),
    'categories': ('id', 'name'),
}
ONE = dict(images='image', annotations='annotation', categories='category')
#: EXIF's tag of how a photograph lies: 1 upright, 5 to 8 on its side.
ORIENTATION = 0x0112
#: Formats of which OpenCV and Pillow read the same size in the head of a file.
FORMATS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'BMP')
#: Of a fault: whose it is, and what.
Fault = Tuple[str, str]


# --- the file -------------------------------------------------------------------------


def read_coco(ann: Path) -> Dict[str, List[dict]]:
    """Read a file's images, annotations and categories, all of them lists of dicts.

    Raises:
        UserError: It cannot be read, or is no file of this kind.
    """
    try:
        content = json.loads(ann.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'--ann {ann}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'--ann {ann} is not a JSON file: {error}') from error
    content = content if isinstance(content, dict) else {}
    content.setdefault('categories', [])
    wrong = [key for key in KEYS if not _is_list_of(dict, content.get(key))]
    if wrong:
        raise UserError(
            f'--ann {ann} is not in COCO format: it needs lists of objects as images '
            f'(with {", ".join(KEYS["images"])}), annotations and categories; '
            f'{" and ".join(wrong)} {"is" if len(wrong) == 1 else "are"} missing or of '
            'another kind'
        )
    return content


def check_coco(
    content: Dict[str, List[dict]], ann: Path, num_keypoints: Optional[int] = None
) -> None:
    """Refuse a file on which the toolbox or COCO's evaluation would fail.

    Args:
        content: Of :func:`read_coco`.
        ann: The file.
        num_keypoints: Of each annotation, where a config names them; None is as many
            as its category names.

    Raises:
        UserError: With a line for each of the first :data:`LISTED` faults.
    """
    named = any(category.get('keypoints') for category in content['categories'])
    if num_keypoints is None and not named:
        raise UserError(
            f'--ann {ann} has no keypoints: none of its categories names any. In '
            "COCO's data they are in person_keypoints_*.json"
        )
    faults = [f'{who}: {what}' for who, what in _faults(content, num_keypoints)]
    head = f'--ann {ann} is not in COCO format'
    if len(faults) == 1:
        raise UserError(f'{head}: {faults[0]}')
    if faults:
        lines = [f'{head}, in {len(faults)} places:', *faults[:LISTED]]
        if len(faults) > LISTED:
            lines.append(f'and {len(faults) - LISTED} more')
        raise UserError('\n  '.join(lines))


def _faults(content: dict, num_keypoints: Optional[int]) -> Iterator[Fault]:
    ids = {}
    for kind, keys in KEYS.items():
        ids[kind] = _known_ids(content[kind])
        for who, entry in _named(kind, content[kind]):
            for key in keys:
                if key not in entry:
                    yield who, f'it has no {key}'
        yield from _id_faults(kind, content[kind])
    for who, image in _named('images', content['images']):
        name = image.get('file_name', '')
        if not isinstance(name, str):
            yield who, f'file_name must be text, got {_shown(name)}'
        for key in ('width', 'height'):
            if key in image and not (_is_whole(image[key]) and image[key] > 0):
                yield who, f'{key} must be a number of pixels, got {_shown(image[key])}'
    for who, category in _named('categories', content['categories']):
        for what in _category_faults(category):
            yield who, what
    counts = {
        category['id']: len(category['keypoints'])
        for category in content['categories']
        if _is_whole(category.get('id')) and isinstance(category.get('keypoints'), list)
    }
    for who, one in _named('annotations', content['annotations']):
        for key, kind in (('image_id', 'images'), ('category_id', 'categories')):
            # Where others lack theirs, it may be one of those.
            sure = key in one and len(ids[kind]) == len(content[kind])
            if sure and not (_is_whole(one[key]) and one[key] in ids[kind]):
                what = f'{key} {_shown(one[key])} is that of no {ONE[kind]} in the file'
                yield who, what
        category = one.get('category_id')
        count = num_keypoints or (counts.get(category) if _is_whole(category) else 0)
        for what in _annotation_faults(one, count):
            yield who, what


def _id_faults(kind: str, entries: Sequence[dict]) -> Iterator[Fault]:
    first: Dict[Any, int] = {}
    for index, (who, entry) in enumerate(_named(kind, entries)):
        found = entry.get('id')
        if 'id' in entry and not _is_whole(found):
            yield who, f'id must be a whole number, got {_shown(found)}'
        elif 'id' in entry and first.setdefault(found, index) != index:
            yield who, f'{kind}[{first[found]}] and {kind}[{index}] both have this id'


def _category_faults(category: dict) -> Iterator[str]:
    names, count = category.get('keypoints'), 0
    if names and not _is_list_of(str, names):
        wrong = names
        if isinstance(names, list):
            wrong = next(name for name in names if not isinstance(name, str))
        yield f'keypoints must be a list of names, got {_shown(wrong)}'
    elif names:
        count = len(names)
        try:
            refuse_duplicates(names)
        except ValueError as error:
            yield str(error)
    links, sigmas = category.get('skeleton') or [], category.get('sigmas')
    if count and not isinstance(links, list):
        yield f'skeleton must be a list of pairs, got {_shown(links)}'
    elif count:
        wrong = [link for link in links if not _is_link(link, count)]
        if wrong:
            hint = ''
            if all(_is_link(link, count - 1, first=0) for link in links):
                hint = '; it seems to be counted from 0'
            yield (
                'skeleton must have pairs of keypoints, counted from 1 to their number '
                f'{count}, got {_shown(wrong[0])}{hint}'
            )
    fit = _are_numbers(sigmas) and len(sigmas) == count and min(sigmas, default=1) > 0
    if sigmas is not None and count and not fit:
        yield f'sigmas must be {count} numbers above 0, got {_shown(sigmas)}'


def _annotation_faults(one: dict, count: Optional[int]) -> Iterator[str]:
    """Of an annotation with so many keypoints, or of any number."""
    bbox, keypoints = one.get('bbox'), one.get('keypoints')
    if 'bbox' in one and not (_are_numbers(bbox) and len(bbox) == 4):
        yield (
            'bbox must be left, top, width and height, finite numbers, got '
            f'{_shown(bbox)}'
        )
    if 'keypoints' in one and not _are_numbers(keypoints):
        wrong = keypoints
        if isinstance(keypoints, list):
            wrong = next((k for k in keypoints if not _are_numbers([k])), keypoints)
        yield f'keypoints must be finite numbers, got {_shown(wrong)}'
    elif 'keypoints' in one and count and len(keypoints) != 3 * count:
        yield (
            f'it has {len(keypoints)} numbers for the {count} keypoints there are, and '
            'not three each; without any, leave keypoints out'
        )
    if 'area' in one and not _are_numbers([one['area']]):
        yield f'area must be a finite number, got {_shown(one["area"])}'


def _named(kind: str, entries: Sequence[dict]) -> Iterator[Tuple[str, dict]]:
    """Entries with what to call them: by the id if they have one, or by the place."""
    for index, entry in enumerate(entries):
        by_id = _is_whole(entry.get('id'))
        yield f'{ONE[kind]} {entry["id"]}' if by_id else f'{kind}[{index}]', entry


def _known_ids(entries: Sequence[dict]) -> set:
    return {entry['id'] for entry in entries if _is_whole(entry.get('id'))}


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _is_whole(value: Any) -> bool:
    """Whether it counts something; other tools write 7.0 for 7."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and value % 1 == 0


def _is_link(value: Any, last: int, first: int = 1) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    return pair and all(_is_whole(one) and first <= one <= last for one in value)


def _are_numbers(values: Any) -> bool:
    """Whether it is a list of numbers that are finite in single precision."""
    if not isinstance(values, list):
        return False
    try:
        array = np.array(values)
    except ValueError:
        # Lists among them.
        return False
    flat = array.ndim == 1 and array.dtype.kind in 'iuf'
    return bool(flat and (np.abs(array) <= LARGEST).all())


def _shown(value: Any) -> str:
    """As the file has it, in as far as it fits into a line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


# --- photographs ----------------------------------------------------------------------


def read_in_color(path: Path) -> Optional[np.ndarray]:
    """A photograph as the toolbox reads it without further settings."""
    return cv2.imdecode(np.fromfile(str(path), np.uint8), cv2.IMREAD_COLOR)


def check_photographs(
    images: Sequence[dict],
    img: Path,
    ann: Path,
    read: Callable[[Path], Optional[np.ndarray]] = read_in_color,
) -> None:
    """Refuse photographs whose sizes are not those that the annotations are for.

    Args:
        images: Of a file that :func:`check_coco` let pass.
        img: The folder with them.
        ann: The file.
        read: What loads a photograph for the network, shape (h, w, ...). Whether it
            turns photographs as their EXIF data say is seen in one of each kind.

    Raises:
        UserError: Sizes differ, or a file is no picture; the first one is named.
    """
    turns: Dict[tuple, bool] = {}
    differing: List[str] = []
    with warnings.catch_warnings():
        # Pillow's, of large pictures and odd EXIF data.
        warnings.simplefilter('ignore')
        for image in images:
            path, said = img / image['file_name'], (image['width'], image['height'])
            kind, stored, orientation = _head(path)
            seen = stored
            if kind not in FORMATS:
                seen = stored = _size(read, path)
            elif orientation != 1 and stored[0] != stored[1]:
                if (kind, orientation) not in turns:
                    turned = _size(read, path) == stored[::-1]
                    turns[kind, orientation] = turned
                seen = stored[::-1] if turns[kind, orientation] else stored
            if seen != said:
                what = '{}×{} px, and {:g}×{:g} px in'.format(*seen, *said)
                reason = _why_differing(seen, said, stored, orientation)
                differing.append(f'{image["file_name"]} is {what} {ann}: {reason}')
    if differing:
        raise UserError(
            f'--img {img}: {len(differing)} of {len(images)} photographs are not of '
            f'the size that the annotations are for; {differing[0]}'
        )


def _why_differing(seen: tuple, said: tuple, stored: tuple, orientation: Any) -> str:
    if seen != said[::-1]:
        return (
            'it was resized since it was annotated; take the photographs as they '
            'were, or scale width, height, bbox and keypoints along'
        )
    if seen != stored:
        return (
            f'its EXIF orientation {orientation} turns it when it is loaded, and it '
            'was annotated unturned; remove the orientation from the photographs, or '
            "load them with LoadImage(color_type='color_ignore_orientation')"
        )
    if orientation in (5, 6, 7, 8):
        return (
            f'it was annotated as its EXIF orientation {orientation} turns it, which '
            "loading it does not; load it with LoadImage(color_type='color'), or "
            'store the photographs turned'
        )
    return (
        'it was turned since it was annotated, or width and height are mixed up; take '
        'the photographs as they were, or mend the file'
    )


def _head(path: Path) -> Tuple[str, Tuple[int, int], Any]:
    """Format, width and height as stored, and EXIF orientation of a picture."""
    try:
        with Image.open(path) as opened:
            exif = Image.Exif()
            # Not getexif(), for which Pillow decodes the whole of a PNG.
            exif.load(opened.info.get('exif', b''))
            return opened.format or '', opened.size, exif.get(ORIENTATION, 1)
    except Exception:
        # Pillow's errors have no base; OpenCV may know more formats.
        return '', (0, 0), 1


def _size(read: Callable, path: Path) -> Tuple[int, int]:
    """Width and height of a photograph as it is loaded."""
    try:
        height, width = read(path).shape[:2]
    except Exception as error:
        # Of None, or whatever other loaders raise.
        raise UserError(
            f'{path} cannot be read as a picture; replace it, or remove it from the '
            'annotations'
        ) from error
    return width, height
