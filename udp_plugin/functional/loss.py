"""The loss of offset targets."""

from typing import Optional, Tuple

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from .constants import OFFSET_WEIGHT, OFFSET_WINDOW

#: On a CPU, so many pixels are compared at a time.
CACHED_PIXELS = 2**17


def offset_loss(
    maps: Tensor,
    target: Tensor,
    weights: Optional[Tensor] = None,
    topk: Optional[int] = None,
    published: bool = False,
) -> Tensor:
    """Compare offset maps: squared error of H, absolute error of the offsets::

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
        target: Target maps of the same shape, which get no gradient, see
            :func:`~.encoding.offset_target`; the target's H is the disc.
        weights: Of the keypoints, shape (B, K); 1 if not given.
        topk: How many keypoints of a sample count; all if not given.
        published: The loss as published.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not go together, or ``topk`` is more than K.

    Example:
        >>> offset_loss(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
        tensor(0.5000)
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
    # On a CPU some keypoints at a time, whose maps stay in its cache.
    pixels = maps.shape[-2] * maps.shape[-1]
    maps = maps.reshape(-1, 3, *maps.shape[-2:])
    target = target.detach().reshape(maps.shape)
    some = CACHED_PIXELS // pixels + 1 if maps.device.type == 'cpu' else len(maps)
    pairs = zip(maps.split(some), target.split(some))
    parts = zip(*(_errors(*pair, published) for pair in pairs))
    classes, offsets = (torch.cat(part).view(batch, keypoints) for part in parts)
    if weights is not None:
        classes = classes * weights.square()
        offsets = offsets * (weights.square() if published else weights.abs())
    losses = classes + offsets
    if topk is not None:
        losses = losses.topk(topk, dim=1, sorted=False)[0]
    return losses.mean()


def _errors(maps: Tensor, target: Tensor, published: bool) -> Tuple[Tensor, Tensor]:
    """The two parts of the loss, without weights: (N) each, of maps (N, 3, H, W)."""
    h, offsets = maps.split((1, 2), 1)
    disc, right = target.split((1, 2), 1)
    classes = mse_loss(h, disc, reduction='none').mean((1, 2, 3)) / 2
    if published:
        errors = disc * mse_loss(offsets, right, reduction='none')
        return classes, errors.mean((2, 3)).sum(1) / 2
    distance = right.square().sum(1, keepdim=True)
    window = disc * (distance / (-2 * OFFSET_WINDOW**2)).exp()
    # A keypoint outside the map has no disc.
    total = window.sum((1, 2, 3)).clamp(min=1e-3)
    errors = window * l1_loss(offsets, right, reduction='none')
    return classes, OFFSET_WEIGHT * errors.sum((1, 2, 3)) / total
