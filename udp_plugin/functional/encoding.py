"""Keypoints to targets: the Gaussian of Eq. 17 and the disc of Eq. 24-26.

All keypoints are in heatmap px (see :mod:`.geometry`); arrays give arrays, tensors
tensors on their device. A batch and its keypoints are computed at once, only the
pixels around keypoints are, and these in double precision, so that targets are the
same wherever they are made.
"""

from typing import Any, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_positive
from .geometry import Array
from .tables import table, taps, vector, window_index

#: ``R / sigma`` of a disc and of the Gaussian that it replaces: UDPv1's 3.5 at 2.
RADIUS_PER_SIGMA = 1.75


def _module(values: Array) -> Any:
    """The library of an array or a tensor."""
    return torch if isinstance(values, Tensor) else np


def in_double(values: Array) -> Array:
    """Values in float64; in float32 on Apple's GPUs, which have no other."""
    if not isinstance(values, Tensor):
        return values.astype(np.float64)
    return values.to(torch.float32 if values.device.type == 'mps' else torch.float64)


def _visible(keypoints: Array, visible: Array) -> Tuple[Array, Array, Array]:
    """Checked keypoints without NaN, which of them to draw, and their weights."""
    if keypoints.ndim < 2 or keypoints.shape[-1] != 2:
        raise ValueError(
            f'keypoints must have shape (..., K, 2), got {tuple(keypoints.shape)}'
        )
    if visible.shape != keypoints.shape[:-1]:
        raise ValueError(
            f'visible must have shape {tuple(keypoints.shape[:-1])} to go with '
            f'keypoints of shape {tuple(keypoints.shape)}, got {tuple(visible.shape)}'
        )
    xp = _module(keypoints)
    known = xp.isfinite(keypoints).all(-1) & xp.isfinite(visible)
    weights = xp.where(known, visible, 0.0)
    drawn = weights >= 0.5
    keypoints = xp.where(drawn[..., None], in_double(keypoints), 0.0)
    return keypoints, drawn, weights


def _windows(
    first: Array, size: int, heatmap_size: Sequence[int]
) -> Tuple[Array, Array, Array]:
    """Windows of the maps, moved onto the map where they would reach beyond it.

    Args:
        first: Where they begin, shape (..., K, 2), (x, y), whole numbers.
        size: Their pixels an axis; where a map has fewer, it is taken as a whole.

    Returns:
        tuple: x of their columns (..., K, P), y of their rows (..., K, Q), and their
        pixels' indices in the flat map (..., K, P * Q).
    """
    xp = _module(first)
    width, height = heatmap_size
    size_x, size_y = min(size, width), min(size, height)
    first = xp.maximum(first, vector(0, 0, like=first))
    last = vector(width - size_x, height - size_y, like=first)
    first = xp.minimum(first, last)
    x, y = first[..., 0:1], first[..., 1:2]
    corner = x + width * y
    corner = corner.long() if xp is torch else corner.astype(np.int64)
    index = corner + window_index(size_x, size_y, width, like=first)
    return x + taps(size_x, like=first), y + taps(size_y, like=first), index


def _draw(values: Array, index: Array, heatmap_size: Sequence[int]) -> Array:
    """Empty maps with a window of values in each.

    Args:
        values: Shape (..., K, C, Q, P); the C maps of a keypoint share their window.
        index: See :func:`_windows`.

    Returns:
        Shape (..., K * C, H, W), float32.
    """
    width, height = heatmap_size
    channels = values.shape[-3]
    shape = (*index.shape[:-2], index.shape[-2] * channels, height, width)
    values = values.reshape(-1)
    if isinstance(values, Tensor):
        values = values.float()
    if isinstance(values, Tensor) and values.device.type != 'cpu':
        maps = values.new_zeros(shape)
    else:
        # NumPy's zeros take no time: the system makes only the pages that are used.
        maps = np.zeros(shape, np.float32)
        maps = torch.from_numpy(maps) if isinstance(values, Tensor) else maps
    index = index.reshape(-1, 1, index.shape[-1])
    start = _starts(len(index), channels, height * width, like=values)
    maps.reshape(-1)[(index + start).reshape(-1)] = values
    return maps


@table
def _starts(keypoints: int, channels: int, pixels: int) -> np.ndarray:
    """Where the maps of keypoints start among all pixels: shape (K, C, 1)."""
    starts = pixels * np.arange(keypoints * channels, dtype=np.int64)
    return starts.reshape(keypoints, channels, 1)


def gaussian_target(
    keypoints: Array,
    visible: Array,
    heatmap_size: Sequence[int],
    sigma: float,
    unbiased: bool = True,
) -> Tuple[Array, Array]:
    """A Gaussian per keypoint (Eq. 17), cut off beyond three sigma an axis.

    Args:
        keypoints: Shape (..., K, 2), heatmap px.
        visible: Shape (..., K); a keypoint is drawn where this is at least 0.5.
        heatmap_size: ``(W, H)`` in pixels.
        sigma: Of the Gaussian, heatmap px.
        unbiased: Keep the sub-pixel centre. If False, the centre is rounded to
            a pixel, as SimpleBaseline and HRNet do.

    Returns:
        tuple:
        - Maps of shape (..., K, H, W), float32, the peak is 1 at the keypoint.
        - Weights of shape (..., K): ``visible``, but 0 where a keypoint is not
          finite or where its Gaussian lies wholly outside the map.
    """
    check_positive(sigma, 'sigma')
    xp = _module(keypoints)
    keypoints, drawn, weights = _visible(keypoints, visible)
    # As the toolbox rounds, towards zero below zero, so that windows agree.
    pixel = xp.trunc(keypoints + 0.5)
    size = vector(*heatmap_size, like=pixel)
    inside = ((pixel - 3 * sigma < size) & (pixel + 3 * sigma + 1 >= 0)).all(-1)

    reach = int(3 * sigma)
    x, y, index = _windows(pixel - reach, 2 * reach + 1, heatmap_size)
    center = keypoints if unbiased else pixel

    def profile(steps: Array, axis: int) -> Array:
        values = xp.exp((steps - center[..., axis, None]) ** 2 / (-2 * sigma**2))
        # A window that was moved holds pixels farther away.
        return values * (xp.abs(steps - pixel[..., axis, None]) <= reach)

    column = profile(y, 1) * drawn[..., None]
    values = column[..., :, None] * profile(x, 0)[..., None, :]
    weights = xp.where(drawn & ~inside, 0.0, weights)
    return _draw(values[..., None, :, :], index, heatmap_size), weights


def offset_target(
    keypoints: Array,
    visible: Array,
    heatmap_size: Sequence[int],
    radius: float,
) -> Tuple[Array, Array]:
    """A disc and the offsets to its centre per keypoint (Eq. 24-26)::

        H(x, y) = 1 where (x - m)^2 + (y - n)^2 <= R^2, else 0
        X(x, y) = (m - x) / R,  Y(x, y) = (n - y) / R   (zero outside the disc)

    Args:
        keypoints: ``(m, n)``, shape (..., K, 2), heatmap px.
        visible: Shape (..., K); a keypoint is drawn where this is at least 0.5.
        heatmap_size: ``(W, H)`` in pixels.
        radius: ``R`` of the disc, heatmap px.

    Returns:
        tuple:
        - Maps of shape (..., 3K, H, W), float32; the channels of keypoint ``k`` are
          ``3k`` (H), ``3k + 1`` (X) and ``3k + 2`` (Y).
        - Weights of shape (..., K): ``visible``, but 0 where a keypoint is not
          finite. A keypoint outside the map keeps its weight: an empty map is
          its right answer.
    """
    check_positive(radius, 'radius')
    xp = _module(keypoints)
    keypoints, drawn, weights = _visible(keypoints, visible)
    first = xp.floor(keypoints - radius)
    x, y, index = _windows(first, int(2 * radius) + 2, heatmap_size)
    dx = (keypoints[..., 0:1] - x)[..., None, :]
    dy = (keypoints[..., 1:2] - y)[..., :, None]
    disc = (dx * dx + dy * dy <= radius**2) & drawn[..., None, None]
    # Not a product: a far keypoint's overflow times zero would be NaN.
    dx, dy = xp.where(disc, dx / radius, 0.0), xp.where(disc, dy / radius, 0.0)
    values = (disc * 1.0, dx, dy)
    return _draw(xp.stack(values, -3), index, heatmap_size), weights
