"""The right answers: plain statements in float64, and comparisons with them.

Here nothing is fast: one keypoint after another, each map blurred as a whole.
"""

import math
from typing import Any, List, Tuple

import cv2
import numpy as np

from udp_plugin.errors import UserError
from udp_plugin.functional import unit_length


class WrongAnswer(UserError):
    """Something that was to be timed does not compute what it should."""


def compare(
    what: str, came: Any, expected: Any, allowed: float, share: float = 0.0
) -> None:
    """Compare arrays, whose values may differ where rounding decides.

    Args:
        what: Is compared.
        came: What was computed.
        expected: What should have been, of the same shape.
        allowed: The difference by which each value may be off.
        share: Of the values that are not 0, as many as this may be off by more.

    Raises:
        WrongAnswer: Shapes differ, or more values are off by more.
    """
    if np.shape(came) != np.shape(expected):
        raise WrongAnswer(f'{what}: {np.shape(came)} instead of {np.shape(expected)}')
    off = np.abs(np.asarray(came, np.float64) - expected)
    wrong = ~(off <= allowed)
    if wrong.sum() > share * np.count_nonzero(expected):
        raise WrongAnswer(
            f'{what}: {wrong.sum()} of {wrong.size} values are off by more than '
            f'{allowed:g}, in the median by {np.median(off[wrong]):.2g}'
        )


def plain_reading(maps: np.ndarray, codec: Any) -> Tuple[np.ndarray, float]:
    """What a codec of ours reads, see ``decode_dark`` and ``decode_offset`` of ``F``.

    Args:
        maps: Of a keypoint, shape (C, H, W).
        codec: The codec, with its reading.

    Returns:
        tuple: (x, y) in heatmap px, and the score.
    """
    read = _dark if len(maps) == 1 else _offset
    point, score = read(maps.astype(np.float64), codec)
    return np.clip(point, 0, unit_length(maps.shape[:0:-1])), score


def _offset(maps: np.ndarray, codec: Any) -> Tuple[np.ndarray, float]:
    """Eq. 29 by any of the readings."""
    h, offsets = maps[0], maps[1:]
    sizes = {'voting': 2 * int(2 * codec.radius) + 1, 'authors': 15}
    kernel_size = sizes.get(codec.reading, 2 * codec.blur_kernel_size + 1)
    blurred = cv2.GaussianBlur(h, (kernel_size, kernel_size), 0)
    (x, y), score = _peak(np.where(h > 0, blurred, 0))
    if not score:
        return np.array([x, y]), score
    if codec.reading == 'voting':
        return _vote(maps, x, y, codec.radius)
    if codec.reading == 'authors':
        offsets = np.stack([cv2.GaussianBlur(each, (7, 7), 0) for each in offsets])
    return (x, y) + codec.radius * offsets[:, y, x], score


def _vote(maps: np.ndarray, px: int, py: int, radius: float):
    """Where the pixels around the peak point to, and how well they agree."""
    reach = radius + math.sqrt(0.5)
    side = math.ceil(reach)
    height, width = maps.shape[1:]
    columns = np.arange(max(px - side, 0), min(px + side + 1, width))
    rows = np.arange(max(py - side, 0), min(py + side + 1, height))[:, None]
    x, y = columns - px, rows - py
    h, x_offset, y_offset = maps[:, rows, columns]
    h = np.maximum(h, 0) * (x**2 + y**2 <= reach**2)
    to_x = x + radius * np.clip(x_offset, -1, 1)
    to_y = y + radius * np.clip(y_offset, -1, 1)
    cx = cy = 0.0
    for _ in range(5):
        window = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (radius / 3) ** 2))
        votes = h * window
        cx, cy = (votes * to_x).sum() / votes.sum(), (votes * to_y).sum() / votes.sum()
    spread = (votes * ((to_x - cx) ** 2 + (to_y - cy) ** 2)).sum() / votes.sum()
    mean = votes.sum() / window.sum()
    score = math.sqrt(mean / (1 + spread / (radius / 6) ** 2))
    return np.array([px + cx, py + cy]), score


def _dark(maps: np.ndarray, codec: Any) -> Tuple[np.ndarray, float]:
    """DARK's step from the highest pixel."""
    h = maps[0]
    peak, score = _peak(h)
    if not score:
        return peak, score
    ends = unit_length(h.shape[::-1])
    cx, cy = (min(max(c, 1), end - 1) for c, end in zip(peak, ends))
    # OpenCV's kernel, or near the border one that is narrower in proportion.
    full = codec.blur_kernel_size // 2
    sigma = 0.3 * (full - 1) + 0.8
    kernels = []
    for c, end in zip((cx, cy), ends):
        reach = min(c - 1, end - c - 1, full)
        narrower = sigma * max(reach, 0.5) / full if reach < full else 0
        kernels.append(cv2.getGaussianKernel(2 * reach + 1, narrower, cv2.CV_64F))
    v = cv2.sepFilter2D(h, cv2.CV_64F, *kernels)[cy - 1 : cy + 2, cx - 1 : cx + 2]
    v = np.log(np.maximum(v, max(1e-3 * v.max(), 1e-30)))
    slope = np.array([v[1, 2] - v[1, 0], v[2, 1] - v[0, 1]]) / 2
    dxx = v[1, 2] - 2 * v[1, 1] + v[1, 0]
    dyy = v[2, 1] - 2 * v[1, 1] + v[0, 1]
    dxy = v[2, 2] - v[1, 2] - v[2, 1] + 2 * v[1, 1] - v[1, 0] - v[0, 1] + v[0, 0]
    curvature = np.array([[dxx, dxy / 2], [dxy / 2, dyy]])
    if dxx >= 0 or np.linalg.det(curvature) <= 1e-9:
        return peak, score
    step = (cx, cy) - peak - np.linalg.solve(curvature, slope)
    longest = max(1, sigma)
    return peak + np.clip(step, -longest, longest), score


def _peak(h: np.ndarray) -> Tuple[np.ndarray, float]:
    """The highest pixel and its height, or the middle and 0."""
    height, width = h.shape
    y, x = np.unravel_index(h.argmax(), h.shape)
    # A map that varies by less than a share of its maximum has no peak.
    if h[y, x] <= 0 or h[y, x] - h.min() <= 1e-5 * h[y, x]:
        return np.array([width // 2, height // 2]), 0.0
    return np.array([x, y]), float(h[y, x])


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
