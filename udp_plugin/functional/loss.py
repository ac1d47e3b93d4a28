"""The loss of offset targets."""

from typing import Optional

import torch
from torch import Tensor

#: The offsets' part beside half the mean squared error of H, and the share of R that is
#: the sigma of their weights. Chosen on trained networks: ``udp-plugin study``.
OFFSET_WEIGHT = 0.006
OFFSET_WINDOW = 1 / 3


def offset_loss(
    maps: Tensor,
    target: Tensor,
    weights: Optional[Tensor] = None,
    topk: Optional[int] = None,
    published: bool = False,
) -> Tensor:
    """Squared error of H, and the offsets' absolute error inside the disc::

        0.5 * mean((H - H*)^2) + 0.006 * sum(g (|X - X*| + |Y - Y*|)) / sum(g)
        g = H* exp(-4.5 (X*^2 + Y*^2))

    of each keypoint, the mean over all pixels and the sums over those of its disc,
    where ``g`` is the window of the votes, sigma ``R / 3``; averaged over
    batch and keypoints. As published, offsets have the squared error and are
    averaged over all pixels as well, of which the disc is a hundredth, so that they
    learn slowly::

        0.5 * mean((H - H*)^2 + H* ((X - X*)^2 + (Y - Y*)^2))

    The latter equals the toolbox's ``CombinedTargetMSELoss``. As there, a keypoint's
    weight multiplies its errors, before they are squared.

    With ``topk`` only the keypoints of each sample with the largest errors count
    (online hard keypoint mining), a keypoint's error being that of its three maps.

    Args:
        maps: Predicted maps, shape (B, 3K, H, W).
        target: Target maps of the same shape, see
            :func:`~.encoding.offset_target`; the target's H is the disc.
        weights: Of the keypoints, shape (B, K); 1 if not given.
        topk: How many keypoints of a sample count; all if not given.
        published: The loss as published.

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
    if weights is not None and weights.shape != (batch, keypoints):
        raise ValueError(
            f'weights must have shape {(batch, keypoints)} to go with maps of '
            f'shape {(batch, channels)} + (H, W), got {tuple(weights.shape)}'
        )
    if topk is not None and topk > keypoints:
        raise ValueError(
            f'topk must be at most {keypoints}, the number of keypoints, got {topk}'
        )
    target = target.unflatten(1, (keypoints, 3))
    errors = maps.unflatten(1, (keypoints, 3)) - target
    if weights is not None:
        errors = errors * weights[:, :, None, None, None]
    disc = target[:, :, 0]
    losses = 0.5 * errors[:, :, 0].square().mean((2, 3))
    offsets = errors[:, :, 1:]
    if published:
        losses = losses + (offsets.square().sum(2) * disc).mean((2, 3)) / 2
    else:
        distance = target[:, :, 1:].square().sum(2)
        inner = disc * torch.exp(-distance / (2 * OFFSET_WINDOW**2))
        total = (offsets.abs().sum(2) * inner).sum((2, 3))
        # A keypoint outside the map has no disc.
        losses = losses + OFFSET_WEIGHT * total / inner.sum((2, 3)).clamp(min=1e-3)
    if topk is not None:
        losses = losses.topk(topk, dim=1, sorted=False)[0]
    return losses.mean()
