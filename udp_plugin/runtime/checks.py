"""Checks of what a model is given: a photograph, boxes and rotations."""

from typing import Optional

import numpy as np

#: OpenCV 4's warps count pixels in 16 bits.
LONGEST_SIDE = 2**15 - 2

#: Of boxes and of keypoints that are drawn: what is farther away, in source px, is in
#: no photograph.
FARTHEST = 1e6

GREY = 'a grey one becomes one by cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)'
RGBA = 'one with transparency becomes one by cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)'
UNREAD = 'which is what cv2.imread gives for a file that it cannot read; check the path'
#: What to do with arrays that are no photographs yet, by their last axis.
CONVERSIONS = {(): GREY, (1,): GREY, (4,): RGBA}


def check_image(image: np.ndarray) -> np.ndarray:
    """``image`` if it is a photograph (h, w, 3), uint8, BGR, as of ``cv2.imread``.

    Raises:
        ValueError: It is anything else, such as None, grey, RGBA or floating.
    """
    got = None
    if image is None:
        got = f'None, {UNREAD}'
    elif not isinstance(image, np.ndarray):
        got = type(image).__name__
    elif image.ndim > 1 and image.shape[2:] in CONVERSIONS:
        got = f'shape {image.shape}; {CONVERSIONS[image.shape[2:]]}'
    elif image.shape[2:] != (3,) or image.dtype != np.uint8:
        got = f'shape {image.shape}, {image.dtype}'
    if got:
        raise ValueError(
            'image must be a uint8 array of shape (h, w, 3), BGR as of cv2.imread, '
            f'got {got}'
        )
    if not 1 <= min(image.shape[:2]) <= max(image.shape[:2]) <= LONGEST_SIDE:
        raise ValueError(
            f'image must have sides of 1 to {LONGEST_SIDE} pixels, got shape '
            f'{image.shape}'
        )
    return image


def check_boxes(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of left, top, right and bottom in source px as float64.

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
    far = np.abs(checked) > FARTHEST
    for must, broken, hint in (
        ('be finite', ~np.isfinite(checked), ''),
        (f'be in source px, at most {FARTHEST:g} away', far, ''),
        (
            'have its right beyond its left and its bottom beyond its top',
            checked[:, 2:] <= checked[:, :2],
            '; boxes are left, top, right and bottom, not left, top, width and height',
        ),
    ):
        if broken.any():
            i = broken.any(axis=1).argmax()
            raise ValueError(f'boxes[{i}] must {must}, got {checked[i].tolist()}{hint}')
    return checked


def check_rotations(rotations: Optional[np.ndarray], count: int) -> np.ndarray:
    """Rotations in degrees as float64 of shape (count,), zeros for None.

    Raises:
        ValueError: The shape is another, or one is not finite.
    """
    rotations = np.zeros(count) if rotations is None else rotations
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
