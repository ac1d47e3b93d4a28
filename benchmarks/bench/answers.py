"""The right answers: plain statements in float64, and comparisons with them.

Here nothing is fast: one keypoint after another, each map blurred as a whole.
"""

import math
from typing import Any, List, NamedTuple, Tuple

import cv2
import numpy as np

from udp_plugin.functional import unit_length

#: Two pixels nearer in height than this may be told apart by rounding alone.
TIE = 1e-5
#: Rounding of a sum in float32, as a share of the sum of its terms' sizes.
ROUNDING = 5e-7
#: A map that varies by less than this share of its maximum has no peak.
FLAT = 1e-5


class WrongAnswer(Exception):
    """Something that was to be timed does not compute what it should."""


def compare(name: str, came: Any, expected: Any, allowed: float) -> None:
    """Raise :class:`WrongAnswer` where values are off by more than is allowed."""
    try:
        np.testing.assert_allclose(came, expected, rtol=0, atol=allowed)
    except AssertionError as error:
        # Without the arrays.
        lines = str(error).strip().split('\n x: ')[0].splitlines()
        raise WrongAnswer(f'{name}: {"; ".join(filter(None, lines))}') from None


class Plain(NamedTuple):
    """The plain reading of a map.

    Attributes:
        keypoint: (x, y), heatmap px.
        score: Its score.
        clear: Whether rounding to float32 moves it by less than 1e-4 px.
        as_others: Whether others are defined to read the same.
    """

    keypoint: Tuple[float, float]
    score: float
    clear: bool
    as_others: bool


def plain_dark(h: np.ndarray, kernel_size: int) -> Plain:
    """DARK's step from the highest pixel, see :func:`~.functional.decode_dark`."""
    h = h.astype(np.float64)
    (x, y), score, clear = _peak(h)
    if not score:
        return Plain((x, y), 0.0, clear, False)
    ends = unit_length(h.shape[::-1])
    cx, cy = (min(max(c, 1), end - 1) for c, end in zip((x, y), ends))
    reach = [min(c, end - c) - 1 for c, end in zip((cx, cy), ends)]
    kernels = [_kernel(kernel_size, r) for r in reach]
    near = slice(cy - 1, cy + 2), slice(cx - 1, cx + 2)
    v = cv2.sepFilter2D(h, cv2.CV_64F, *kernels)[near]
    v = np.maximum(v, max(1e-3 * v.max(), 1e-30))
    # What rounding may change in logarithms, by which the step is then made.
    rounding = (cv2.sepFilter2D(np.abs(h), cv2.CV_64F, *kernels)[near] / v).max()
    rounding *= ROUNDING
    v = np.log(v)
    dx, dy = (v[1, 2] - v[1, 0]) / 2, (v[2, 1] - v[0, 1]) / 2
    dxx = v[1, 2] - 2 * v[1, 1] + v[1, 0]
    dyy = v[2, 1] - 2 * v[1, 1] + v[0, 1]
    dxy = v[2, 2] - v[1, 2] - v[2, 1] + 2 * v[1, 1] - v[1, 0] - v[0, 1] + v[0, 0]
    dxy /= 2
    det = dxx * dyy - dxy**2
    curvature = (-dxx - dyy - math.hypot(dxx - dyy, 2 * dxy)) / 2
    # A top that is all but flat is flat or curved by rounding alone.
    clear = clear and abs(det - 1e-9) > 5e-10 and abs(curvature) > 4 * rounding
    if dxx >= 0 or det <= 1e-9:
        return Plain((x, y), score, clear, False)
    step = (dxy * dy - dyy * dx) / det, (dxy * dx - dxx * dy) / det
    # Of the slopes, and of the curvatures by which they are divided.
    rounding *= (1 + 4 * math.hypot(*step)) / curvature
    step = cx - x + step[0], cy - y + step[1]
    found = (x + min(max(step[0], -1), 1), y + min(max(step[1], -1), 1))
    clear = clear and rounding < 1e-4
    # The built-in's step has no end, and its blur darkens the border.
    inside = min(reach) >= kernel_size // 2 and max(map(abs, step)) < 0.99
    return Plain(_within(found, h), score, clear, clear and inside and score > 0.3)


def _kernel(kernel_size: int, reach: int) -> np.ndarray:
    """OpenCV's kernel, or one that is narrower in proportion, near the border."""
    full = kernel_size // 2
    if reach >= full:
        return cv2.getGaussianKernel(kernel_size, 0, cv2.CV_64F)
    sigma = 0.3 * (full - 1) + 0.8
    taps = np.arange(-reach, reach + 1)
    weights = np.exp(-(taps**2) / (2 * (sigma * max(reach, 0.5) / full) ** 2))
    return weights / weights.sum()


def plain_offset(
    maps: np.ndarray, radius: float, reading: str, kernel_size: int
) -> Plain:
    """Eq. 29 by any of the readings, see :func:`~.functional.decode_offset`.

    Args:
        maps: H, X and Y of a keypoint, shape (3, H, W).
        radius: R, heatmap px.
        reading: One of ``F.READINGS``.
        kernel_size: Of the blur of H.
    """
    h, x_offset, y_offset = maps.astype(np.float64)
    blurred = cv2.GaussianBlur(h, (kernel_size, kernel_size), 0)
    (x, y), score, clear = _peak(np.where(h > 0, blurred, 0))
    if not score:
        return Plain((x, y), 0.0, clear, False)
    if reading == 'voting':
        (shift_x, shift_y), score = _vote(h, x_offset, y_offset, (x, y), radius)
    else:
        if reading == 'authors':
            x_offset = cv2.GaussianBlur(x_offset, (7, 7), 0)
            y_offset = cv2.GaussianBlur(y_offset, (7, 7), 0)
        shift_x, shift_y = radius * x_offset[y, x], radius * y_offset[y, x]
    found = x + shift_x, y + shift_y
    # Others look for the peak also where H is empty, and leave the map.
    elsewhere, _, also_clear = _peak(blurred)
    same = elsewhere == (x, y) and clear and also_clear
    return Plain(_within(found, h), score, clear, same and _within(found, h) == found)


def _vote(h, x_offset, y_offset, peak: Tuple[int, int], radius: float):
    """Where the pixels of the disc point to, from the peak, and how well they agree."""
    reach = radius + math.sqrt(0.5)
    side = math.ceil(reach)
    near = tuple(slice(max(p - side, 0), p + side + 1) for p in peak[::-1])
    y, x = (grid[near] for grid in np.indices(h.shape))
    x, y = x - peak[0], y - peak[1]
    h = np.maximum(h[near], 0) * (x**2 + y**2 <= reach**2)
    to_x = x + radius * np.clip(x_offset[near], -1, 1)
    to_y = y + radius * np.clip(y_offset[near], -1, 1)
    cx = cy = 0.0
    for _ in range(5):
        window = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (radius / 3) ** 2))
        votes = h * window
        cx, cy = (votes * to_x).sum() / votes.sum(), (votes * to_y).sum() / votes.sum()
    spread = (votes * ((to_x - cx) ** 2 + (to_y - cy) ** 2)).sum() / votes.sum()
    mean = votes.sum() / window.sum()
    return (cx, cy), math.sqrt(mean / (1 + spread / (radius / 6) ** 2))


def _peak(h: np.ndarray) -> Tuple[Tuple[int, int], float, bool]:
    """The highest pixel, its height, and whether it is clearly the highest."""
    height, width = h.shape
    y, x = np.unravel_index(h.argmax(), h.shape)
    second, first = np.partition(h, h.size - 2, axis=None)[-2:]
    clear = bool(first - second >= TIE)
    if first <= 0 or first - h.min() <= FLAT * first:
        return (width // 2, height // 2), 0.0, clear
    return (int(x), int(y)), float(first), clear


def _within(point: Tuple[float, float], h: np.ndarray) -> Tuple[float, float]:
    x, y = (min(max(c, 0), end) for c, end in zip(point, unit_length(h.shape[::-1])))
    return x, y


def authors_decoding(
    maps: np.ndarray, radius: float
) -> Tuple[List[Tuple[float, float]], List[float]]:
    """The authors' reading of offset maps with OpenCV, one map after another.

    Args:
        maps: Shape (B, 3K, H, W), float32.
        radius: R, heatmap px.

    Returns:
        tuple: of B * K keypoints their (x, y) in heatmap px, and their scores.
    """
    keypoints, scores = [], []
    for h, x, y in maps.reshape(-1, 3, *maps.shape[-2:]):
        h = cv2.GaussianBlur(h, (15, 15), 0)
        x = cv2.GaussianBlur(x, (7, 7), 0)
        y = cv2.GaussianBlur(y, (7, 7), 0)
        _, score, _, (px, py) = cv2.minMaxLoc(h)
        keypoints.append((px + radius * x[py, px], py + radius * y[py, px]))
        scores.append(score)
    return keypoints, scores
