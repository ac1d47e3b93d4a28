"""Keypoints to targets: the Gaussian of Eq. 17 and the disc of Eq. 24-26.

All keypoints are in heatmap px (see :mod:`.geometry`). A batch and its keypoints
are computed at once, on the device of the keypoints.
"""

from typing import Sequence, Tuple

import torch
from torch import Tensor

from .checks import check_positive

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
    known = torch.isfinite(keypoints).all(-1) & torch.isfinite(visible)
    weights = torch.where(known, visible, torch.zeros_like(visible))
    drawn = weights >= 0.5
    keypoints = torch.where(drawn[..., None], keypoints, torch.zeros_like(keypoints))
    return keypoints, drawn, weights


def _grid(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, dtype=like.dtype, device=like.device)


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
    width, height = heatmap_size
    reach = 3 * sigma
    # As the toolbox rounds, towards zero below zero, so that windows agree.
    pixel = (keypoints + 0.5).trunc()
    size = torch.as_tensor([width, height], dtype=pixel.dtype, device=pixel.device)
    inside = ((pixel - reach < size) & (pixel + reach + 1 >= 0)).all(-1)
    center = keypoints if unbiased else pixel

    def profile(axis: int, length: int) -> Tensor:
        x = _grid(length, keypoints)
        values = torch.exp(-((x - center[..., axis, None]) ** 2) / (2 * sigma**2))
        near = (x - pixel[..., axis, None]).abs() <= reach
        return values * near

    drawn_inside = (drawn & inside)[..., None]
    column = profile(1, height) * drawn_inside
    maps = column[..., :, None] * profile(0, width)[..., None, :]
    weights = torch.where(drawn & ~inside, torch.zeros_like(weights), weights)
    return maps, weights


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
    width, height = heatmap_size
    dx = (keypoints[..., 0, None] - _grid(width, keypoints))[..., None, :]
    dy = (keypoints[..., 1, None] - _grid(height, keypoints))[..., :, None]
    disc = (dx**2 + dy**2 <= radius**2) & drawn[..., None, None]
    # Not a product: a far keypoint's overflow times zero would be NaN.
    zero = keypoints.new_zeros(())
    maps = torch.stack(
        (
            disc.to(keypoints.dtype),
            torch.where(disc, dx / radius, zero),
            torch.where(disc, dy / radius, zero),
        ),
        dim=-3,
    )
    return maps.flatten(-4, -3), weights
