"""Flip test: mirrored maps back onto the direct ones, and their mean.

With the unbiased measure the two coincide as they are (Eq. 46): there is nothing
to shift, and nothing here that shifts.
"""

from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from .recording import recording
from .tables import table


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
    index = torch.tensor(flip_indices, device=maps.device)
    index = channels * index[:, None] + torch.arange(channels, device=maps.device)
    flipped = maps[:, index.flatten()].flip(-1)
    if channels == 3 and recording():
        # In a graph, writing into a part is many operations.
        return flipped * _x_sign(len(flip_indices), like=maps)
    if channels == 3:
        flipped[:, 1::3].neg_()
    return flipped


@table
def _x_sign(keypoints: int) -> np.ndarray:
    """-1 for the x offsets and 1 for all else, shape (3K, 1, 1)."""
    return np.tile([1.0, -1.0, 1.0], keypoints)[:, None, None]


def flip_average(
    maps: Tensor, mirrored: Tensor, flip_indices: Sequence[int], channels: int = 1
) -> Tensor:
    """The mean of direct maps and of maps from the mirrored input.

    Args:
        maps: From the input, shape (B, K * channels, H, W).
        mirrored: From the mirrored input, the same shape.
        flip_indices, channels: See :func:`flip_maps`.
    """
    return flip_maps(mirrored, flip_indices, channels).add_(maps).mul_(0.5)
