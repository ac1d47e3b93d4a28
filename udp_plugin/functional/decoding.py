"""Maps to keypoints: argmax (Eq. 18), DARK's step, and the offsets of Eq. 29.

Keypoints are in heatmap px (see :mod:`.geometry`). Maps may have any leading
dimensions, any floating dtype and any device that holds values; half precision is
computed in float32. A recorded graph (see :mod:`.recording`) computes the same without
looking at values. Nothing is changed in place. Whatever the maps hold, coordinates are
finite and within the map: a pixel that is NaN or infinite counts as 0, and a map
without a peak (nothing above zero, or flat) gives the map's middle with score 0.
"""

import math
from typing import Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .blurring import (
    blurred_crop,
    check_maps,
    computable,
    crop,
    first_pixel,
    full_precision,
    gaussian,
    gaussian_kernel_sigma,
    opencv_kernel,
)
from .checks import check_kernel_size, check_positive
from .geometry import unit_length
from .peaks import blurred_peaks, peaks
from .recording import size_of
from .tables import table, vector

#: The ways to read offset maps, see :func:`decode_offset`.
READINGS = ('voting', 'authors', 'toolbox')

#: Blurs of the authors' code for the classification map and for the offsets.
AUTHORS_KERNELS = (15, 7)

#: Voting: the share of R that is the sigma of its window, how often the window moves
#: to where its pixels point, and the spread of their votes, as a share of R, at which
#: they agree by half. Chosen on networks trained on drawn figures.
VOTING_WINDOW = 1 / 3
VOTING_ROUNDS = 5
VOTING_SPREAD = 1 / 6


def _last(maps: Tensor, like: Tensor) -> Tensor:
    """The last pixel of maps, (x, y)."""
    return vector(*unit_length(size_of(maps)[::-1]), like=like)


def _within(keypoints: Tensor, maps: Tensor) -> Tensor:
    """Keypoints moved onto the map, if they are not."""
    return torch.minimum(keypoints.clamp(min=0), _last(maps, keypoints))


def decode_argmax(maps: Tensor, quarter: bool = True) -> Tuple[Tensor, Tensor]:
    """The biased decoding (Eq. 18): argmax, and a quarter pixel towards the
    higher neighbour on each axis.

    Args:
        maps: Shape (..., K, H, W).
        quarter: Make the quarter step, except at the border pixels where the
            toolbox makes none.

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K).
    """
    check_maps(maps)
    flat = computable(maps).flatten(0, -3)
    peak, score = peaks(flat)
    keypoints = peak.to(flat.dtype)
    if quarter:
        inner = (peak > 1) & (peak < _last(maps, peak)) & (peak.flip(-1) > 0)
        left = torch.minimum((peak - 1).clamp(min=0), _last(maps, peak) - 2)
        row = crop(flat[:, None], torch.stack((left[:, 0], peak[:, 1]), -1), (3, 1))
        column = crop(flat[:, None], torch.stack((peak[:, 0], left[:, 1]), -1), (1, 3))
        around = torch.stack((row[:, 0, 0], column[:, 0, :, 0]), 1)
        slope = around[..., 2] - around[..., 0]
        keypoints = keypoints + 0.25 * slope.sign() * (inner & (score > 0)[:, None])
    return _like_maps(keypoints, score, maps.shape[:-2])


def _like_maps(
    keypoints: Tensor, score: Tensor, shape: Sequence[int]
) -> Tuple[Tensor, Tensor]:
    """Keypoints (..., K, 2) and scores (..., K) of maps with these leading axes."""
    return keypoints.view(*shape, 2), score.view(*shape)


@table
def _stencil_blur(length: int, kernel_size: int) -> np.ndarray:
    """Blurs of an axis at the three pixels of DARK's step, for each peak.

    The blur reaches as far as there are pixels on both sides, and its sigma shrinks
    with its reach.

    Returns:
        Shape (length, 3, P), for windows of ``P = 2 * (kernel_size // 2) + 3`` pixels
        around the peak, or as many as there are.
    """
    (last,) = unit_length((length,))
    full = kernel_size // 2
    size = min(2 * full + 3, length)
    blurs = np.zeros((length, 3, size))
    for peak in range(length):
        center = min(max(peak, 1), last - 1)
        first = min(max(peak - full - 1, 0), length - size)
        reach = min(center - 1, last - center - 1, full)
        if reach == full:
            weights = opencv_kernel(kernel_size)
        else:
            sigma = gaussian_kernel_sigma(kernel_size) * max(reach, 0.5) / full
            weights = gaussian(reach, sigma)
        for row in range(3):
            start = center - 1 + row - reach - first
            blurs[peak, row, start : start + weights.size] = weights
    return blurs


@table
def _differences() -> np.ndarray:
    """What 3 x 3 pixels are multiplied by for dx, dy, dxx, dyy and dxy."""
    return (
        np.array(
            [
                [[0, 0, 0], [-1, 0, 1], [0, 0, 0]],
                [[0, -1, 0], [0, 0, 0], [0, 1, 0]],
                [[0, 0, 0], [2, -4, 2], [0, 0, 0]],
                [[0, 2, 0], [0, -4, 0], [0, 2, 0]],
                # Seven of the nine pixels, as in the authors' code.
                [[1, -1, 0], [-1, 2, -1], [0, -1, 1]],
            ]
        )
        .reshape(5, 9)
        .T
        / 2
    )


def dark_kernel_size(sigma: float) -> int:
    """The widest blur that stays within a target cut off at three sigma.

    It is the ``6 sigma - 1`` that DARK's configs use: 11 for sigma 2, 17 for 3.
    """
    return 2 * max(int(3 * sigma) - 1, 0) + 1


@full_precision
def decode_dark(maps: Tensor, kernel_size: int) -> Tuple[Tensor, Tensor]:
    """The unbiased decoding of Gaussian maps: DARK's Newton step.

    From the argmax, one Newton step on the logarithm of the blurred map, with
    finite differences over 3 x 3 pixels. At the border, where the toolbox
    differs, the window moves inwards and the blur shrinks to the pixels there
    are, since the logarithm of a Gaussian is as quadratic there as anywhere.
    The step ends at most one pixel an axis from the argmax, and none is made
    where the map does not curve down on all sides.

    Args:
        maps: Shape (..., K, H, W).
        kernel_size: Size of the blur in px, odd; see :func:`dark_kernel_size`.

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K), the
        maximum of each map.
    """
    check_maps(maps)
    check_kernel_size(kernel_size)
    flat = computable(maps).flatten(0, -3)
    peak, score = peaks(flat)

    height, width = size_of(flat)
    reach = kernel_size // 2 + 1
    size = min(2 * reach + 1, width), min(2 * reach + 1, height)
    first = first_pixel(peak, reach, size, flat)
    values = crop(flat[:, None], first, size)[:, 0]
    blur_x = _stencil_blur(width, kernel_size, like=flat)[peak[:, 0]]
    blur_y = _stencil_blur(height, kernel_size, like=flat)[peak[:, 1]]
    v = (blur_y @ values @ blur_x.transpose(-1, -2)).flatten(-2)

    floor = (1e-3 * v.amax(-1, keepdim=True)).clamp(min=1e-30)
    logarithm = torch.maximum(v, floor).log()
    dx, dy, dxx, dyy, dxy = (logarithm @ _differences(like=flat)).unbind(-1)
    det = dxx * dyy - dxy**2
    curved = (dxx < 0) & (det > 1e-9) & (score > 0)
    step = torch.stack((dxy * dy - dyy * dx, dxy * dx - dxx * dy), -1)
    step = step / torch.where(curved, det, vector(1.0, like=det))[:, None]
    # At the border, the step is made from the pixel next to it.
    inwards = torch.minimum(peak.clamp(min=1), _last(maps, peak) - 1) - peak
    step = (inwards + step).clamp(-1, 1)
    keypoints = peak + torch.where(curved[:, None], step, vector(0.0, like=step))
    return _like_maps(_within(keypoints, maps), score, maps.shape[:-2])


@full_precision
def decode_offset(
    maps: Tensor,
    radius: float,
    reading: str = 'voting',
    kernel_size: Optional[int] = None,
) -> Tuple[Tensor, Tensor]:
    """The paper's decoding of offset maps (Eq. 29).

    The classification map H is blurred and its argmax taken, among the pixels
    where H is positive; there

    - ``'voting'`` takes the mean of the places that the pixels around the keypoint
      point to, weighted by their own H and by a Gaussian window, ``sigma = R / 3``::

          c = sum(w(p) * (p + R * offset(p))) / sum(w(p))
          w(p) = H(p) * exp(-|p - c|^2 / (2 sigma^2))

      over the pixels of a disc that lies around the argmax, where ``c`` starts
      and from which it moves five times. A network's offsets are the truer the
      shorter they are, and as much too short on one side of the keypoint as on
      the other;
    - ``'authors'`` adds ``R`` times the offsets, blurred by a 7 x 7 Gaussian
      (the authors' code);
    - ``'toolbox'`` adds ``R`` times the offsets as they are (MMPose 1.x).

    Args:
        maps: Shape (..., 3K, H, W); channels ``3k`` (H), ``3k + 1`` (X) and
            ``3k + 2`` (Y), see :func:`~.encoding.offset_target`.
        radius: ``R`` in heatmap px.
        reading: One of :data:`READINGS`.
        kernel_size: Size of the blur of H in px, odd. Defaults to that of the disc,
            ``4 R``, for ``'voting'``, and else to 15 (the authors' code).

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K). The score is
        the maximum of each blurred classification map; of ``'voting'`` it is the
        geometric mean of H's mean in the window and of ``1 / (1 + (6 s / R)^2)`` for
        votes that spread by ``s`` around their mean: about 1 on perfect maps, less
        at the border.

    Raises:
        ValueError: The maps' channels are no multiple of three, ``radius`` is not
            positive, ``reading`` is not known, or ``kernel_size`` is not odd.
    """
    check_maps(maps)
    check_positive(radius, 'radius')
    if kernel_size is None:
        voting = reading == 'voting'
        kernel_size = 2 * int(2 * radius) + 1 if voting else AUTHORS_KERNELS[0]
    check_kernel_size(kernel_size)
    if maps.shape[-3] % 3:
        raise ValueError(
            'offset maps have three channels a keypoint, got maps of shape '
            f'{tuple(maps.shape)}, whose {maps.shape[-3]} channels are no multiple of 3'
        )
    if reading not in READINGS:
        raise ValueError(f'reading must be one of {READINGS}, got {reading!r}')
    flat = maps.reshape(-1, 3, *size_of(maps))
    peak, score = blurred_peaks(computable(flat[:, 0]), kernel_size, radius)
    if reading == 'voting':
        shift, votes_score = _vote(flat, peak, radius)
        score = torch.where(score > 0, votes_score, score)
    elif reading == 'authors':
        blurred = blurred_crop(flat[:, 1:], peak, (1, 1), AUTHORS_KERNELS[1])
        shift = radius * blurred.flatten(-3)
    else:
        shift = radius * crop(flat[:, 1:], peak, (1, 1)).flatten(-3)
    keypoints = peak + torch.where((score > 0)[:, None], shift, vector(0.0, like=shift))
    shape = *maps.shape[:-3], maps.shape[-3] // 3
    return _like_maps(_within(keypoints, maps), score, shape)


@table
def _grid(size_x: int, size_y: int) -> np.ndarray:
    """x and y of a window's pixels, counted from its middle one: shape (2, Q * P)."""
    y, x = np.mgrid[:size_y, :size_x]
    return np.stack((x - size_x // 2, y - size_y // 2)).reshape(2, -1).astype(float)


def _vote(maps: Tensor, peak: Tensor, radius: float) -> Tuple[Tensor, Tensor]:
    """Where the pixels around the keypoint point to, from the peak, and the score.

    Args:
        maps: Shape (N, 3, H, W).
        peak: Shape (N, 2), integer.

    Returns:
        tuple: Shape (N, 2), heatmap px, and (N).
    """
    height, width = size_of(maps)
    # The keypoint is up to half a pixel an axis away from the peak.
    reach = radius + math.sqrt(0.5)
    pixels = math.ceil(reach)
    size = min(2 * pixels + 1, width), min(2 * pixels + 1, height)
    first = first_pixel(peak, pixels, size, maps)
    values = crop(maps, first, size).flatten(-2)

    # In heatmap px from here on, counted from the window's middle pixel.
    grid = _grid(*size, like=values)
    start = (peak - first) + grid[:, 0]
    away = grid - start[:, :, None]
    near = away.square().sum(1) <= reach**2
    # A window that was moved onto the map holds pixels farther away.
    around = away.abs_().amax(1) <= pixels
    classes = values[:, 0].clamp(min=0) * near
    # Relative to the largest, so that tiny or huge maps neither vanish nor overflow.
    largest = classes.amax(-1).clamp(min=1e-30)
    classes = classes / largest[:, None]
    # No offset of a disc is longer; a wild one's overflow would become NaN.
    place = values[:, 1:].clamp(-1, 1).mul_(radius).add_(grid)

    # The window exp(-|p - c|^2 / (2 sigma^2)) at pixels p, up to a factor that cancels
    # out: exp((p c - |p|^2 / 2) / sigma^2), at most 1.
    sigma = VOTING_WINDOW * radius
    towards = grid / sigma**2
    at_middle = grid.square().sum(0) / (-2 * sigma**2)
    places = place.transpose(-1, -2)
    center = start
    for _ in range(VOTING_ROUNDS):
        logits = torch.addmm(at_middle, center, towards)
        window = (logits - logits.amax(-1, keepdim=True)).exp_()
        weights = window * classes
        total = weights.sum(-1).clamp(min=1e-30)
        center = (weights[:, None] @ places)[:, 0] / total[:, None]
    square = (place - center[:, :, None]).square().sum(1)
    spread = (weights * square).sum(-1) / total
    mean = largest * (total / (window * around).sum(-1))
    agreement = 1 / (1 + spread / (VOTING_SPREAD * radius) ** 2)
    return center - start, (mean * agreement).sqrt()
