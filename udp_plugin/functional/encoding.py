"""Keypoints to targets: the Gaussian of Eq. 17 and the disc of Eq. 24-26.

All keypoints are in heatmap px (see :mod:`.geometry`). A batch and its keypoints
are computed at once, on the device of the keypoints, and only the pixels around
them are.
"""

from typing import Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_positive
from .tables import taps, vector, window_index

#: ``R / sigma`` of a disc and of the Gaussian that it replaces: UDPv1's 3.5 at 2.
RADIUS_PER_SIGMA = 1.75


def _visible(keypoints: Tensor, visible: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
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
    if not keypoints.is_floating_point() or keypoints.dtype in (
        torch.float16,
        torch.bfloat16,
    ):
        keypoints = keypoints.float()
    # What is not finite times zero is NaN.
    weights = visible + (keypoints * 0).sum(-1)
    weights = torch.nan_to_num(weights, nan=0.0, posinf=0.0, neginf=0.0)
    drawn = weights >= 0.5
    return torch.where(drawn[..., None], keypoints, 0.0), drawn, weights


def _windows(
    first: Tensor, size: int, heatmap_size: Sequence[int]
) -> Tuple[Tensor, Tensor, Tensor]:
    """Windows of the maps, moved onto the map where they would reach beyond it.

    Args:
        first: Where they begin, shape (..., K, 2), (x, y), whole numbers.
        size: Their pixels an axis; where a map has fewer, it is taken as a whole.

    Returns:
        tuple: x of their columns (..., K, P), y of their rows (..., K, Q), and their
        pixels' indices in the flat map (..., K, P * Q).
    """
    width, height = heatmap_size
    size_x, size_y = min(size, width), min(size, height)
    last = vector(width - size_x, height - size_y, like=first)
    first = torch.minimum(first.clamp(min=0), last)
    x, y = first[..., 0:1], first[..., 1:2]
    corner = torch.add(x, y, alpha=width).long()
    index = corner + window_index(size_x, size_y, width, like=first)
    return x + taps(size_x, like=first), y + taps(size_y, like=first), index


def _draw(values: Tensor, index: Tensor, heatmap_size: Sequence[int]) -> Tensor:
    """Empty maps with a window of values in each.

    Args:
        values: Shape (..., K, C, Q, P); the C maps of a keypoint share their window.
        index: See :func:`_windows`.

    Returns:
        Shape (..., K * C, H, W).
    """
    width, height = heatmap_size
    values = values.flatten(-2)
    shape = (*values.shape[:-1], height * width)
    if values.device.type == 'cpu':
        # NumPy's zeros take no time: the system makes only pages that are used.
        maps = torch.from_numpy(np.zeros(shape, np.float32)).to(values.dtype)
    else:
        maps = values.new_zeros(shape)
    maps.scatter_(-1, index.unsqueeze(-2).expand_as(values), values)
    return maps.view(*shape[:-3], -1, height, width)


def gaussian_target(
    keypoints: Tensor,
    visible: Tensor,
    heatmap_size: Sequence[int],
    sigma: float,
    unbiased: bool = True,
) -> Tuple[Tensor, Tensor]:
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
        - Maps of shape (..., K, H, W), the peak is 1 at the keypoint.
        - Weights of shape (..., K): ``visible``, but 0 where a keypoint is not
          finite or where its Gaussian lies wholly outside the map.
    """
    check_positive(sigma, 'sigma')
    keypoints, drawn, weights = _visible(keypoints, visible)
    # As the toolbox rounds, towards zero below zero, so that windows agree.
    pixel = (keypoints + 0.5).trunc()
    size = vector(*heatmap_size, like=pixel)
    inside = ((pixel - 3 * sigma < size) & (pixel + 3 * sigma + 1 >= 0)).all(-1)

    reach = int(3 * sigma)
    x, y, index = _windows(pixel - reach, 2 * reach + 1, heatmap_size)
    center = keypoints if unbiased else pixel

    def profile(steps: Tensor, axis: int) -> Tensor:
        values = torch.exp((steps - center[..., axis, None]) ** 2 / (-2 * sigma**2))
        # A window that was moved holds pixels farther away.
        return values * ((steps - pixel[..., axis, None]).abs() <= reach)

    column = profile(y, 1) * drawn[..., None]
    values = column[..., :, None] * profile(x, 0)[..., None, :]
    weights = torch.where(drawn & ~inside, 0.0, weights)
    return _draw(values[..., None, :, :], index, heatmap_size), weights


def offset_target(
    keypoints: Tensor,
    visible: Tensor,
    heatmap_size: Sequence[int],
    radius: float,
) -> Tuple[Tensor, Tensor]:
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
        - Maps of shape (..., 3K, H, W); the channels of keypoint ``k`` are
          ``3k`` (H), ``3k + 1`` (X) and ``3k + 2`` (Y).
        - Weights of shape (..., K): ``visible``, but 0 where a keypoint is not
          finite. A keypoint outside the map keeps its weight: an empty map is
          its right answer.
    """
    check_positive(radius, 'radius')
    keypoints, drawn, weights = _visible(keypoints, visible)
    first = (keypoints - radius).floor()
    x, y, index = _windows(first, int(2 * radius) + 2, heatmap_size)
    dx = (keypoints[..., 0:1] - x)[..., None, :]
    dy = (keypoints[..., 1:2] - y)[..., :, None]
    disc = (dx**2 + dy**2 <= radius**2) & drawn[..., None, None]
    # Not a product: a far keypoint's overflow times zero would be NaN.
    values = (
        disc.to(keypoints.dtype),
        torch.where(disc, dx / radius, 0.0),
        torch.where(disc, dy / radius, 0.0),
    )
    return _draw(torch.stack(values, -3), index, heatmap_size), weights
