"""The loss of offset targets."""

from typing import Optional

import torch
from torch import Tensor


def offset_loss(
    maps: Tensor,
    target: Tensor,
    weights: Optional[Tensor] = None,
    topk: Optional[int] = None,
) -> Tensor:
    """Squared error of H, and of X and Y inside the disc, each weighted a half.

    The mean is over the batch, the keypoints and all pixels, as published; it
    equals the toolbox's ``CombinedTargetMSELoss``. As there, a keypoint's weight
    multiplies its errors before they are squared, those of X and Y included.
    With ``topk`` only the keypoints of each sample with the largest errors count
    (online hard keypoint mining), a keypoint's error being that of its three maps.

    Args:
        maps: Predicted maps, shape (B, 3K, H, W).
        target: Target maps of the same shape, see
            :func:`~.encoding.offset_target`; the target's H is the disc.
        weights: Of the keypoints, shape (B, K); 1 if not given.
        topk: How many keypoints of a sample count; all if not given.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not go together, or ``topk`` is more than K.
    """
    if maps.ndim != 4 or maps.shape[1] % 3 or maps.shape != target.shape:
        raise ValueError(
            'predicted and target maps must both have shape (B, 3K, H, W), got '
            f'{tuple(maps.shape)} and {tuple(target.shape)}; out_channels of the head '
            'is the number of keypoints (three times that in a stock config of '
            'combined targets)'
        )
    batch, channels = maps.shape[:2]
    keypoints = channels // 3
    maps = maps.unflatten(1, (keypoints, 3))
    target = target.unflatten(1, (keypoints, 3))
    disc = target[:, :, :1]
    mask = torch.cat((torch.ones_like(disc), disc, disc), 2)
    if weights is not None:
        if weights.shape != (batch, keypoints):
            raise ValueError(
                f'weights must have shape {(batch, keypoints)} to go with maps of '
                f'shape {(batch, channels)} + (H, W), got {tuple(weights.shape)}'
            )
        mask = mask * weights[:, :, None, None, None]
    squares = ((maps - target) * mask).square()
    if topk is None:
        return 1.5 * squares.mean()
    if topk > keypoints:
        raise ValueError(
            f'topk must be at most {keypoints}, the number of keypoints, got {topk}'
        )
    return 1.5 * squares.mean((2, 3, 4)).topk(topk, dim=1, sorted=False)[0].mean()
