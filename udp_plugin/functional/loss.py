"""The loss of offset targets."""

from typing import Iterator, Optional, Tuple

import torch
from torch import Tensor

#: The offsets' part beside half the mean squared error of H, and the share of R that is
#: the sigma of their weights. Chosen on trained networks: ``udp-plugin study``.
OFFSET_WEIGHT = 0.006
OFFSET_WINDOW = 1 / 3

#: On a CPU, so many numbers of the maps are compared at a time.
CACHED_NUMBERS = 2**20


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
        ValueError: Shapes do not go together, ``topk`` is more than K, or the target
            requires a gradient: there are those of maps and weights, and no second
            ones.
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
    if target.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            'target must not require a gradient, since none is computed for it; give '
            'target.detach()'
        )
    dtype = torch.promote_types(maps.dtype, target.dtype)
    classes, offsets = _Errors.apply(maps.to(dtype), target.to(dtype), published)
    if weights is not None:
        classes = classes * weights.square()
        offsets = offsets * (weights.square() if published else weights.abs())
    losses = classes + offsets
    if topk is not None:
        losses = losses.topk(topk, dim=1, sorted=False)[0]
    return losses.mean()


class _Errors(torch.autograd.Function):
    """The two parts of the loss of each keypoint, without weights: (B, K) each.

    Of some samples at a time, so that what is between stays in the processor's cache;
    nothing but maps and target is kept for the gradient.
    """

    @staticmethod
    def forward(ctx, maps: Tensor, target: Tensor, published: bool):
        ctx.save_for_backward(maps, target)
        ctx.published = published
        parts = [_errors(*some, published) for some in _some(maps, target)]
        return tuple(torch.cat(part) for part in zip(*parts))

    @staticmethod
    def backward(ctx, classes: Tensor, offsets: Tensor):
        if torch.is_grad_enabled():
            raise RuntimeError(
                'offset_loss has no second derivative: its gradient is not made of '
                'operations that autograd knows; leave out create_graph=True'
            )
        maps, target = ctx.saved_tensors
        gradient = torch.empty_like(maps)
        for some in _some(maps, target, gradient, classes, offsets):
            _gradients(*some, ctx.published)
        return gradient, None, None


def _some(maps: Tensor, *others: Tensor) -> Iterator[Tuple[Tensor, ...]]:
    """Some samples of each tensor at a time: all, if not on a CPU."""
    samples = max(len(maps), 1)
    if maps.device.type == 'cpu':
        samples = CACHED_NUMBERS // max(maps[:1].numel(), 1) + 1
    return zip(*(tensor.split(samples) for tensor in (maps, *others)))


def _offset_weights(target: Tensor, published: bool) -> Tensor:
    """What errors of offsets count, (B, K, H, W), of target maps (B, K, 3, H, W)."""
    disc, x, y = target.unbind(2)
    if published:
        return disc / (disc.shape[-2] * disc.shape[-1])
    distance = x.square().addcmul_(y, y)
    window = distance.mul_(-0.5 / OFFSET_WINDOW**2).exp_().mul_(disc)
    # A keypoint outside the map has no disc.
    total = window.sum((2, 3), keepdim=True).clamp(min=1e-3)
    return window.mul_(OFFSET_WEIGHT / total)


def _errors(maps: Tensor, target: Tensor, published: bool) -> Tuple[Tensor, Tensor]:
    """The parts of the loss, (B, K) each, of maps (B, 3K, H, W)."""
    errors = (maps - target).unflatten(1, (-1, 3))
    classes, x, y = errors[:, :, 0], errors[:, :, 1], errors[:, :, 2]
    offsets = x.square_().addcmul_(y, y).div_(2) if published else x.abs_() + y.abs_()
    weights = _offset_weights(target.unflatten(1, (-1, 3)), published)
    return classes.square_().mean((2, 3)) / 2, offsets.mul_(weights).sum((2, 3))


def _gradients(
    maps: Tensor,
    target: Tensor,
    gradient: Tensor,
    classes: Tensor,
    offsets: Tensor,
    published: bool,
) -> None:
    """Put into ``gradient`` that of the parts of the loss, times (B, K) for each."""
    torch.sub(maps, target, out=gradient)
    gradient = gradient.unflatten(1, (-1, 3))
    pixels = gradient.shape[-2] * gradient.shape[-1]
    gradient[:, :, 0].mul_((classes / pixels)[:, :, None, None])
    weights = _offset_weights(target.unflatten(1, (-1, 3)), published)
    weights.mul_(offsets[:, :, None, None])
    slope = gradient[:, :, 1:] if published else gradient[:, :, 1:].sign_()
    slope.mul_(weights[:, :, None])
