"""Checks of what a model is given: a photograph, boxes and rotations."""

from typing import Optional

import numpy as np

#: OpenCV 4's warps count pixels in 16 bits.
LONGEST_SIDE = 2**15 - 2

#: Of boxes and of keypoints that are drawn: what is farther away, in source px, is in
#: no photograph.
FARTHEST = 1e6

#: What to do with arrays that are no photographs yet.
CONVERSIONS = {
    1: 'a grey one becomes one by cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)',
    4: 'one with transparency becomes one by cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)',
}


def check_image(image: np.ndarray) -> np.ndarray:
    """``image`` if it is a photograph as ``cv2.imread`` gives it.

    Args:
        image: Shape (h, w, 3), uint8, BGR.

    Raises:
        ValueError: It is anything else, such as None, grey, RGBA or floating.
    """
    expected = 'image must be a uint8 array of shape (h, w, 3), BGR as of cv2.imread'
    if image is None:
        raise ValueError(
            f'{expected}, got None, which is what cv2.imread gives for a file that it '
            'cannot read; check the path'
        )
    if not isinstance(image, np.ndarray):
        raise ValueError(f'{expected}, got {type(image).__name__}')
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] in CONVERSIONS):
        channels = 1 if image.ndim == 2 else image.shape[2]
        raise ValueError(
            f'{expected}, got shape {image.shape}; {CONVERSIONS[channels]}'
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'{expected}, got shape {image.shape}, {image.dtype}')
    if not 1 <= min(image.shape[:2]) <= max(image.shape[:2]) <= LONGEST_SIDE:
        raise ValueError(
            f'image must have sides of 1 to {LONGEST_SIDE} pixels, got shape '
            f'{image.shape}'
        )
    return image


def check_boxes(boxes: np.ndarray) -> np.ndarray:
    """Boxes as float64 of shape (N, 4), none of which is empty.

    Args:
        boxes: Left, top, right and bottom in source px, shape (N, 4), or nothing.

    Raises:
        ValueError: The shape is another, or a box is not finite or not larger than
            nothing; the message says which.
    """
    checked = _numbers(boxes, 'boxes')
    if checked.shape == (0,):
        checked = checked.reshape(0, 4)
    if checked.ndim != 2 or checked.shape[1] != 4:
        raise ValueError(
            'boxes must have shape (N, 4), a row of left, top, right and bottom for '
            f'each person, got shape {checked.shape}'
        )
    for i, box in enumerate(checked):
        if not np.isfinite(box).all():
            raise ValueError(f'boxes[{i}] must be finite, got {box.tolist()}')
        if np.abs(box).max() > FARTHEST:
            raise ValueError(
                f'boxes[{i}] must be in source px, at most {FARTHEST:g} away, got '
                f'{box.tolist()}'
            )
        if (box[2:] <= box[:2]).any():
            raise ValueError(
                f'boxes[{i}] must have its right beyond its left and its bottom beyond '
                f'its top, got {box.tolist()}; boxes are left, top, right and bottom, '
                'not left, top, width and height'
            )
    return checked


def check_rotations(rotations: Optional[np.ndarray], count: int) -> np.ndarray:
    """Rotations as float64 of shape (N,), zeros for None.

    Args:
        rotations: Degrees, shape (N,).
        count: ``N``.

    Raises:
        ValueError: The shape is another, or one is not finite.
    """
    if rotations is None:
        return np.zeros(count)
    checked = _numbers(rotations, 'rotations')
    if checked.shape != (count,) or not np.isfinite(checked).all():
        raise ValueError(
            f'rotations must be {count} finite numbers of degrees, one for each box, '
            f'got {checked.tolist()}'
        )
    return checked


def _numbers(values, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{name} must be an array of numbers: {error}') from None
