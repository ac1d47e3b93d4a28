"""Flip test: mirrored maps back onto the direct ones, and their mean.

With the unbiased measure the two coincide as they are (Eq. 46), and nothing is moved.
Those of a network that was trained with the biased one do not (Eq. 36), and are moved
by as much as they are apart.
"""

import math
from functools import lru_cache
from typing import Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .blurring import finite, full_precision
from .geometry import constant, unit_length


def flip_maps(maps: Tensor, flip_indices: Sequence[int], channels: int = 1) -> Tensor:
    """Mirror maps that come from a mirrored input, so that they fit the input.

    Columns are reversed, left and right keypoints swapped, and of offset maps
    the x offset changes its sign.

    Args:
        maps: Shape (B, K * channels, H, W).
        flip_indices: For each of the K keypoints its counterpart's index.
        channels: Maps a keypoint: 1 for Gaussians, 3 (H, X, Y) for offsets.

    Returns:
        New maps of the same shape.

    Raises:
        ValueError: ``flip_indices`` names what is no keypoint, or does not fit the
            channels.

    Example:
        >>> flip_maps(torch.tensor([[[[1., 2.]], [[3., 4.]]]]), [1, 0])
        tensor([[[[4., 3.]],
        <BLANKLINE>
                 [[2., 1.]]]])
    """
    if not all(0 <= index < len(flip_indices) for index in flip_indices):
        raise ValueError(
            'flip_indices must name a keypoint (from 0 on) for each keypoint, got '
            f'{list(flip_indices)}'
        )
    if maps.ndim != 4 or maps.shape[1] != len(flip_indices) * channels:
        raise ValueError(
            f'flip_indices names {len(flip_indices)} keypoints, so maps must have '
            f'shape (B, {len(flip_indices) * channels}, H, W), got {tuple(maps.shape)}'
        )
    index = [channels * k + c for k in flip_indices for c in range(channels)]
    flipped = maps[:, index].flip(-1)
    if channels == 3:
        signs = torch.tensor([1.0, -1.0, 1.0] * len(flip_indices), dtype=maps.dtype)
        flipped.mul_(signs.to(maps.device)[:, None, None])
    return flipped


def flip_average(
    maps: Tensor,
    mirrored: Tensor,
    flip_indices: Sequence[int],
    channels: int = 1,
    misalignment: Tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Average direct maps and maps from the mirrored input (Eq. 46).

    Args:
        maps: From the input, shape (B, K * channels, H, W).
        mirrored: From the mirrored input, the same shape.
        flip_indices, channels: See :func:`flip_maps`, which raises the errors.
        misalignment: Where the mirrored maps, mirrored back, lie from the direct ones,
            heatmap px to the right and down; see :func:`~.geometry.flip_misalignment`.

    Returns:
        New maps of the same shape.

    Example:
        >>> maps, mirrored = torch.tensor([[[[1., 2.]]]]), torch.tensor([[[[4., 1.]]]])
        >>> flip_average(maps, mirrored, [0])
        tensor([[[[1., 3.]]]])
    """
    back = flip_maps(mirrored, flip_indices, channels)
    if any(misalignment):
        back = move(finite(back), (-misalignment[0], -misalignment[1]))
    # In place, of what is new.
    return back.add_(maps).mul_(0.5)


def flip_average_vectors(
    vectors: Tensor,
    mirrored: Tensor,
    flip_indices: Sequence[int],
    misalignment: float = 0.0,
) -> Tensor:
    """Average direct vectors along x and those from the mirrored input.

    Args:
        vectors: From the input, shape (B, K, W).
        mirrored: From the mirrored input, the same shape.
        flip_indices: For each of the K keypoints its counterpart's index.
        misalignment: Where the mirrored vectors, reversed, lie from the direct ones,
            bins to the right; see :func:`~.vectors.vector_misalignment`.

    Returns:
        New vectors of the same shape.

    Example:
        >>> flip_average_vectors(torch.eye(2)[None], torch.eye(2)[None], [1, 0])
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    back = mirrored[:, list(flip_indices)].flip(-1)
    if misalignment:
        back = move(finite(back), (-misalignment, 0.0))
    return (vectors + back) / 2


@full_precision
def move(images: Tensor, distance: Tuple[float, float]) -> Tensor:
    """Move images or maps by a part of a pixel, or by more; edge pixels are repeated.

    Between pixels is Lagrange's polynomial through the eight nearest. Where it moves a
    Gaussian of sigma 2, DARK reads the distance to 5e-5 px (cubic convolution: 3e-3).

    Args:
        images: Shape (..., H, W), floating; what is not finite spreads.
        distance: To the right and down, px.

    Returns:
        New images of the same shape.

    Example:
        >>> move(torch.tensor([[1., 2., 3., 5.]]), (1, 0))
        tensor([[1., 1., 2., 3.]])
    """
    if images.dtype in (torch.float16, torch.bfloat16):
        # Weights would be rounded, and CPUs do not multiply all of these.
        return move(images.float(), distance).to(images.dtype)
    height, width = map(int, images.shape[-2:])
    moved = images.clone()
    if distance[0]:
        moved = moved @ constant(_moving(width, float(distance[0])), images).T
    if distance[1]:
        moved = constant(_moving(height, float(distance[1])), images) @ moved
    return moved


#: How many pixels an interpolated one is computed from.
_TAPS = 8


@lru_cache(maxsize=64)
def _moving(length: int, distance: float) -> np.ndarray:
    """The matrix (length, length) by which a row of pixels is moved to the right."""
    whole = math.floor(-distance)
    part = -distance - whole
    near = np.arange(_TAPS) - (_TAPS // 2 - 1)
    others = [near[near != k] for k in near]
    weights = [np.prod((part - rest) / (k - rest)) for k, rest in zip(near, others)]
    matrix, pixels = np.zeros((length, length)), np.arange(length)
    (last,) = unit_length((length,))
    for k, weight in zip(near, weights):
        source = (pixels + whole + k).clip(0, last)
        np.add.at(matrix, (pixels, source), weight)
    return matrix
