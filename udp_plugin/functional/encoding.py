"""Keypoints to targets: the Gaussian of Eq. 17 and the disc of Eq. 24-26.

Keypoints are in heatmap px (see :mod:`.geometry`). Arrays give arrays and tensors give
tensors on their device, by the same lines; both compute in double precision, so that
targets are the same wherever they are made. Only the pixels around a keypoint are
computed, for all keypoints of a batch at once.
"""

from typing import Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_positive
from .geometry import Array, constant, library_of


def in_double(values: Array) -> Array:
    """Values in float64; in float32 on Apple's GPUs, which have no other.

    Args:
        values: An array or a tensor of any shape.

    Example:
        >>> in_double(torch.ones(2)).dtype
        torch.float64
    """
    if not isinstance(values, Tensor):
        return values.astype(np.float64)
    return values.to(torch.float32 if values.device.type == 'mps' else torch.float64)


def gaussian_target(
    keypoints: Array,
    visible: Array,
    heatmap_size: Sequence[int],
    sigma: float,
    unbiased: bool = True,
) -> Tuple[Array, Array]:
    """Draw a Gaussian per keypoint (Eq. 17), cut off beyond three sigma an axis::

        H(x, y) = exp(-((x - m)^2 + (y - n)^2) / (2 sigma^2))

    Args:
        keypoints: ``(m, n)``, shape (..., K, 2), heatmap px.
        visible: Shape (..., K); a keypoint is drawn where this is at least 0.5.
        heatmap_size: ``(W, H)`` in pixels.
        sigma: Of the Gaussian, heatmap px.
        unbiased: Keep the sub-pixel centre. If False, the centre is rounded to
            a pixel, as SimpleBaseline and HRNet do.

    Returns:
        tuple:
        - Maps of shape (..., K, H, W), float32; the peak is 1 at the keypoint.
        - Weights of shape (..., K): ``visible``, but 0 where a keypoint is not
          finite or where its Gaussian lies wholly outside the map.

    Raises:
        ValueError: Shapes do not go together, or sigma is not positive.

    Example:
        >>> maps, weights = gaussian_target(np.array([[2., 1.]]), np.ones(1), (4, 3), 1)
        >>> maps.shape, maps[0, 1].round(2)
        ((1, 3, 4), array([0.14, 0.61, 1.  , 0.61], dtype=float32))
    """
    check_positive(sigma, 'sigma')
    xp = library_of(keypoints)
    keypoints, drawn, weights = _drawable(keypoints, visible)
    # As the toolbox rounds, towards zero below zero, so that windows agree.
    pixel = xp.trunc(keypoints + 0.5)
    size = constant(heatmap_size, pixel)
    inside = ((pixel - 3 * sigma < size) & (pixel + 3 * sigma + 1 >= 0)).all(-1)

    reach = int(3 * sigma)
    x, y, index = _windows(pixel - reach, 2 * reach + 1, heatmap_size)
    center = keypoints if unbiased else pixel

    def profile(steps: Array, axis: int) -> Array:
        values = xp.exp((steps - center[..., axis, None]) ** 2 / (-2 * sigma**2))
        # A window that was moved onto the map holds pixels farther away.
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
    """Draw a disc and the offsets to its centre per keypoint (Eq. 24-26)::

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

    Raises:
        ValueError: Shapes do not go together, or the radius is not positive.

    Example:
        >>> maps, _ = offset_target(np.array([[2., 1.]]), np.ones(1), (4, 3), radius=1)
        >>> maps[:2, 1].tolist()
        [[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, -1.0]]
    """
    check_positive(radius, 'radius')
    xp = library_of(keypoints)
    keypoints, drawn, weights = _drawable(keypoints, visible)
    first = xp.floor(keypoints - radius)
    x, y, index = _windows(first, int(2 * radius) + 2, heatmap_size)
    dx = (keypoints[..., 0:1] - x)[..., None, :]
    dy = (keypoints[..., 1:2] - y)[..., :, None]
    disc = (dx * dx + dy * dy <= radius**2) & drawn[..., None, None]
    # Not a product: a far keypoint's overflow times zero would be NaN.
    dx, dy = xp.where(disc, dx / radius, 0.0), xp.where(disc, dy / radius, 0.0)
    return _draw(xp.stack((disc * 1.0, dx, dy), -3), index, heatmap_size), weights


def _drawable(keypoints: Array, visible: Array) -> Tuple[Array, Array, Array]:
    """Keypoints without NaN, in double precision, which to draw, and their weights."""
    if keypoints.ndim < 2 or keypoints.shape[-1] != 2:
        raise ValueError(
            f'keypoints must have shape (..., K, 2), got {tuple(keypoints.shape)}'
        )
    if visible.shape != keypoints.shape[:-1]:
        raise ValueError(
            f'visible must have shape {tuple(keypoints.shape[:-1])} to go with '
            f'keypoints of shape {tuple(keypoints.shape)}, got {tuple(visible.shape)}'
        )
    xp = library_of(keypoints)
    known = xp.isfinite(keypoints).all(-1) & xp.isfinite(visible)
    weights = xp.where(known, visible, 0.0)
    drawn = weights >= 0.5
    return xp.where(drawn[..., None], in_double(keypoints), 0.0), drawn, weights


def _windows(
    first: Array, size: int, heatmap_size: Sequence[int]
) -> Tuple[Array, Array, Array]:
    """Windows of the maps, moved onto the map where they would reach beyond it.

    Args:
        first: Their first pixels (x, y), shape (..., K, 2), whole numbers.
        size: Their pixels an axis; where a map has fewer, it is taken as a whole.

    Returns:
        tuple: x of their columns (..., K, P), y of their rows (..., K, Q), and their
        pixels' indices in the flat map (..., K, P * Q).
    """
    width, height = heatmap_size
    size_x, size_y = min(size, width), min(size, height)
    # clip is a method of both arrays and tensors.
    x = first[..., 0:1].clip(0, width - size_x) + _count(size_x, first)
    y = first[..., 1:2].clip(0, height - size_y) + _count(size_y, first)
    index = (width * y)[..., :, None] + x[..., None, :]
    index = index.long() if isinstance(index, Tensor) else index.astype(np.int64)
    return x, y, index.reshape(*index.shape[:-2], size_x * size_y)


def _count(steps: int, like: Array) -> Array:
    """``0 ... steps - 1``, of the library, dtype and device of ``like``."""
    if isinstance(like, Tensor):
        return torch.arange(steps, dtype=like.dtype, device=like.device)
    return np.arange(steps, dtype=np.float64)


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
    index = index.reshape(-1, 1, index.shape[-1])
    # NumPy's zeros take no time: the system makes only the pages that are used.
    maps, number = np.zeros(shape, np.float32), np.arange(len(index) * channels)
    if isinstance(values, Tensor):
        device, values = values.device, values.float()
        on_cpu = device.type == 'cpu'
        maps = torch.from_numpy(maps) if on_cpu else values.new_zeros(shape)
        number = torch.from_numpy(number).to(device)
    start = width * height * number.reshape(-1, channels, 1)
    maps.reshape(-1)[(index + start).reshape(-1)] = values.reshape(-1)
    return maps
