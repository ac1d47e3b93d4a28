"""Flip test: mirrored maps back onto the direct ones, and their mean.

With the unbiased measure the two coincide as they are (Eq. 46): there is nothing
to shift, and nothing here that shifts.
"""

from typing import Sequence

import torch
from torch import Tensor


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
    maps: Tensor, mirrored: Tensor, flip_indices: Sequence[int], channels: int = 1
) -> Tensor:
    """Average direct maps and maps from the mirrored input (Eq. 46).

    Args:
        maps: From the input, shape (B, K * channels, H, W).
        mirrored: From the mirrored input, the same shape.
        flip_indices, channels: See :func:`flip_maps`, which raises the errors.

    Returns:
        New maps of the same shape.

    Example:
        >>> maps, mirrored = torch.tensor([[[[1., 2.]]]]), torch.tensor([[[[4., 1.]]]])
        >>> flip_average(maps, mirrored, [0])
        tensor([[[[1., 3.]]]])
    """
    # In place, of what is new.
    return flip_maps(mirrored, flip_indices, channels).add_(maps).mul_(0.5)
