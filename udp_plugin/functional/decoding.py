"""Maps to keypoints: argmax (Eq. 18), DARK's step, and the offsets of Eq. 29.

Keypoints are in heatmap px (see :mod:`.geometry`). Maps may have any leading
dimensions, any floating dtype and any device that holds values; half precision is
computed in float32. Nothing is changed in place. Whatever the maps hold, coordinates
are finite and within the map: a pixel that is NaN or infinite counts as 0, and a map
without a peak (nothing above zero, or flat) gives the map's middle with score 0.

What is written here is the definition. Where maps are on the CPU, :mod:`.kernels`
computes the same in one pass per map.
"""

import math
from functools import lru_cache
from typing import Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from . import kernels
from .blurring import (
    blur_stencil,
    blurred,
    blurred_around,
    finite,
    full_precision,
    gaussian,
    gaussian_kernel_sigma,
    longest_step,
    opencv_kernel,
    windows,
)
from .checks import check_kernel_size, check_maps, check_positive
from .constants import (
    AUTHORS_KERNELS,
    FLAT,
    VOTING_ROUNDS,
    VOTING_SPREAD,
    VOTING_WINDOW,
)
from .geometry import constant, unit_length

#: The ways to read offset maps, see :func:`decode_offset`.
READINGS = ('voting', 'authors', 'toolbox')

Decoded = Tuple[Tensor, Tensor]


def decode_argmax(maps: Tensor, quarter: bool = True) -> Decoded:
    """Read maps with the biased decoding (Eq. 18): argmax, and a quarter pixel towards
    the higher neighbour on each axis.

    Args:
        maps: Shape (..., K, H, W).
        quarter: Make the quarter step, except at the border pixels where the
            toolbox makes none.

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K).

    Raises:
        TypeError, ValueError: ``maps`` is not as said.

    Example:
        >>> decode_argmax(torch.eye(5)[None] * torch.arange(5))
        (tensor([[4., 4.]]), tensor([4.]))
    """
    check_maps(maps)
    flat = finite(maps).flatten(0, -3)
    height, width = flat.shape[-2:]
    peak, score = _peaks(flat)
    keypoints = peak.to(flat.dtype)
    if quarter:
        index = width * peak[:, 1] + peak[:, 0]
        around = index[:, None] + torch.tensor([-1, 1, -width, width]).to(index.device)
        around = around.clamp(0, width * height - 1)
        values = flat.flatten(1).gather(1, around)
        slope = torch.stack((values[:, 1] - values[:, 0], values[:, 3] - values[:, 2]))
        inner = (peak > 1) & (peak < _last(flat, peak)) & (peak.flip(-1) > 0)
        keypoints = keypoints + 0.25 * slope.T.sign() * (inner & (score > 0)[:, None])
    shape = maps.shape[:-2]
    return keypoints.view(*shape, 2), score.view(shape)


def dark_kernel_size(sigma: float) -> int:
    """The widest blur that stays within a target cut off at three sigma, px.

    It is the ``6 sigma - 1`` that DARK's configs use: 11 for sigma 2, 17 for 3.

    Example:
        >>> dark_kernel_size(2), dark_kernel_size(3)
        (11, 17)
    """
    return 2 * max(int(3 * sigma) - 1, 0) + 1


def decode_dark(maps: Tensor, kernel_size: int) -> Decoded:
    """Read Gaussian maps with DARK's Newton step, the unbiased decoding::

        c = argmax - D2^-1 D1,  D1 and D2 the derivatives of log(blurred map) there

    Derivatives are finite differences over 3 x 3 pixels. At the border, where the
    toolbox differs, the window moves inwards and the blur shrinks to the pixels there
    are, since the logarithm of a Gaussian is as quadratic there as anywhere.
    The step ends no farther from the argmax on each axis than the blur's sigma (or a
    pixel), and none is made where the map does not curve down on all sides.

    Args:
        maps: Shape (..., K, H, W).
        kernel_size: Size of the blur in px, odd; see :func:`dark_kernel_size`.

    Returns:
        tuple: keypoints (..., K, 2) in heatmap px and scores (..., K), the
        maximum of each map.

    Raises:
        TypeError, ValueError: ``maps`` or ``kernel_size`` is not as said.

    Example:
        >>> x = torch.exp(-(torch.arange(9) - 4.3) ** 2 / 8)
        >>> decode_dark((x * x[:, None])[None], kernel_size=3)[0].round(decimals=3)
        tensor([[4.3000, 4.3000]])
    """
    check_maps(maps)
    check_kernel_size(kernel_size)
    if kernels.fit(maps):
        return kernels.decode_dark(maps, kernel_size)
    keypoints, score = _dark(maps.flatten(0, -3), kernel_size)
    shape = maps.shape[:-2]
    return keypoints.view(*shape, 2), score.view(shape)


def decode_offset(
    maps: Tensor,
    radius: float,
    reading: str = 'voting',
    kernel_size: Optional[int] = None,
) -> Decoded:
    """Read offset maps (Eq. 29)::

        c = p + R * (X(p), Y(p)),  p = argmax of the blurred H

    The argmax is taken among the pixels where H is positive. There

    - ``'authors'`` reads Eq. 29 as the paper's code does: X and Y are blurred by a
      7 x 7 Gaussian;
    - ``'toolbox'`` takes X and Y as they are (MMPose 1.x);
    - ``'voting'`` takes the mean of the places that the pixels around the keypoint
      point to, weighted by their own H and by a Gaussian window, ``sigma = R / 3``::

          c = sum(w(p) * (p + R * (X(p), Y(p)))) / sum(w(p))
          w(p) = H(p) * exp(-|p - c|^2 / (2 sigma^2))

      over the pixels of a disc that lies around the argmax, where ``c`` starts
      and from which it moves five times. A network's offsets are the truer the
      shorter they are, and as much too short on one side of the keypoint as on
      the other.

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
        TypeError: ``maps`` is no tensor.
        ValueError: The maps' channels are no multiple of three, ``radius`` is not
            positive, ``reading`` is not known, or ``kernel_size`` is not odd.

    Example:
        >>> from udp_plugin.functional import offset_target
        >>> point, visible = torch.tensor([[8.3, 9.0]]), torch.ones(1)
        >>> decode_offset(offset_target(point, visible, (16, 16), 2)[0], radius=2)[0]
        tensor([[8.3000, 9.0000]])
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
    read = kernels.decode_offset if kernels.fit(maps) else _offset
    each = maps.reshape(-1, 3, *maps.shape[-2:])
    keypoints, score = read(each, radius, reading, kernel_size)
    shape = *maps.shape[:-3], maps.shape[-3] // 3
    return keypoints.view(*shape, 2), score.view(shape)


# --- the definition: maps (N, H, W) or (N, 3, H, W) to (N, 2) and (N) -----------------


def _last(maps: Tensor, like: Tensor) -> Tensor:
    """The last pixel (x, y) of maps."""
    return constant(unit_length(maps.shape[:-3:-1]), like)


def _peaks(maps: Tensor) -> Decoded:
    """The argmax pixels (x, y) of finite maps, and their values.

    Returns:
        tuple: Shape (N, 2), integer: the map's middle where there is no peak; and (N),
        0 there.
    """
    height, width = map(int, maps.shape[-2:])
    flat = maps.flatten(-2)
    score, index = flat.max(-1)
    found = (score > 0) & (score - flat.amin(-1) > FLAT * score)
    index = torch.where(found, index, height // 2 * width + width // 2)
    y = torch.div(index, width, rounding_mode='floor')
    return torch.stack((index - y * width, y), -1), score * found


def _place(peak: Tensor, shift: Tensor, score: Tensor, maps: Tensor) -> Tensor:
    """Where a peak was moved to, if it is one, and not beyond the map."""
    shift = torch.where((score > 0)[:, None], shift, torch.zeros_like(shift))
    keypoints = (peak + shift).clamp(min=0)
    return torch.minimum(keypoints, _last(maps, keypoints))


@lru_cache(maxsize=64)
def _dark_stencil(length: int, kernel_size: int) -> np.ndarray:
    """The blur of an axis at the three pixels of DARK's step, for each peak.

    The blur reaches as far as there are pixels on both sides, and its sigma shrinks
    with its reach.

    Returns:
        Shape (length, 3, P), see :func:`~.blurring.blurred_around`.
    """
    (last,) = unit_length((length,))
    full = kernel_size // 2
    size = min(2 * full + 3, length)
    stencil = np.zeros((length, 3, size))
    for peak in range(length):
        center = min(max(peak, 1), last - 1)
        first = min(max(peak - size // 2, 0), length - size)
        reach = min(center - 1, last - center - 1, full)
        if reach == full:
            weights = opencv_kernel(kernel_size)
        else:
            sigma = gaussian_kernel_sigma(kernel_size) * max(reach, 0.5) / full
            weights = gaussian(reach, sigma)
        for row in range(3):
            start = center - 1 + row - reach - first
            stencil[peak, row, start : start + weights.size] = weights
    return stencil


#: What 3 x 3 pixels are multiplied by for dx, dy, dxx, dyy and dxy. The last takes
#: seven of the nine, as in the authors' code.
_DIFFERENCES = (
    np.array(
        [
            [[0, 0, 0], [-1, 0, 1], [0, 0, 0]],
            [[0, -1, 0], [0, 0, 0], [0, 1, 0]],
            [[0, 0, 0], [2, -4, 2], [0, 0, 0]],
            [[0, 2, 0], [0, -4, 0], [0, 2, 0]],
            [[1, -1, 0], [-1, 2, -1], [0, -1, 1]],
        ]
    )
    .reshape(5, 9)
    .T
    / 2
)


@full_precision
def _dark(maps: Tensor, kernel_size: int) -> Decoded:
    """:func:`decode_dark` of maps (N, H, W)."""
    maps = finite(maps)
    height, width = map(int, maps.shape[-2:])
    peak, score = _peaks(maps)
    stencils = _dark_stencil(width, kernel_size), _dark_stencil(height, kernel_size)
    around = blurred_around(maps[:, None], peak, stencils).flatten(1)

    floor = (1e-3 * around.amax(-1, keepdim=True)).clamp(min=1e-30)
    logarithm = torch.maximum(around, floor).log()
    derivatives = logarithm @ constant(_DIFFERENCES, logarithm)
    dx, dy, dxx, dyy, dxy = derivatives.unbind(-1)
    det = dxx * dyy - dxy**2
    curved = (dxx < 0) & (det > 1e-9)
    step = torch.stack((dxy * dy - dyy * dx, dxy * dx - dxx * dy), -1)
    step = step / torch.where(curved, det, torch.ones_like(det))[:, None]
    # At the border, the step is made from the pixel next to it.
    inner = torch.minimum(peak.clamp(min=1), _last(maps, peak) - 1)
    step = torch.where(curved[:, None], inner - peak + step, torch.zeros_like(step))
    bound = longest_step(kernel_size)
    return _place(peak, step.clamp(-bound, bound), score, maps), score


@full_precision
def _offset(maps: Tensor, radius: float, reading: str, kernel_size: int) -> Decoded:
    """:func:`decode_offset` of maps (N, 3, H, W)."""
    height, width = map(int, maps.shape[-2:])
    classes = finite(maps[:, 0])
    # Reflected borders can raise the blurred map highest where H itself is empty.
    peak, score = _peaks(blurred(classes, kernel_size) * (classes > 0))
    if reading == 'voting':
        shift, score_of_votes = _vote(maps, peak, radius)
        score = torch.where(score > 0, score_of_votes, score)
    elif reading == 'authors':
        kernel = AUTHORS_KERNELS[1]
        stencils = blur_stencil(width, kernel), blur_stencil(height, kernel)
        shift = radius * blurred_around(maps[:, 1:], peak, stencils).flatten(1)
    else:
        shift = radius * windows(maps[:, 1:], peak, (1, 1))[0].flatten(1)
    return _place(peak, shift, score, maps), score


def _grid(size: Sequence[int]) -> np.ndarray:
    """x and y of a window's pixels, counted from its middle one: shape (2, Q * P)."""
    y, x = np.mgrid[: size[1], : size[0]]
    return np.stack((x - size[0] // 2, y - size[1] // 2)).reshape(2, -1)


def _vote(maps: Tensor, peak: Tensor, radius: float) -> Decoded:
    """Where the pixels around the keypoint point to, from the peak, and the score.

    Args:
        maps: Shape (N, 3, H, W).
        peak: Shape (N, 2), integer.

    Returns:
        tuple: Shape (N, 2), heatmap px, and (N).
    """
    height, width = map(int, maps.shape[-2:])
    # The keypoint is up to half a pixel an axis away from the peak.
    reach = radius + math.sqrt(0.5)
    pixels = math.ceil(reach)
    size = min(2 * pixels + 1, width), min(2 * pixels + 1, height)
    values, first = windows(maps, peak, size)
    values = values.flatten(-2)

    # In heatmap px from here on, counted from the window's middle pixel.
    grid = constant(_grid(size), values)
    start = (peak - first) + grid[:, 0]
    away = grid - start[:, :, None]
    near = away.square().sum(1) <= reach**2
    # A window that was moved onto the map holds pixels farther away.
    around = away.abs().amax(1) <= pixels
    classes = values[:, 0].clamp(min=0) * near
    # Relative to the largest, so that tiny or huge maps neither vanish nor overflow.
    largest = classes.amax(-1).clamp(min=1e-30)
    classes = classes / largest[:, None]
    # No offset of a disc is longer; a wild one's overflow would become NaN.
    place = radius * values[:, 1:].clamp(-1, 1) + grid

    # The window exp(-|p - c|^2 / (2 sigma^2)) at pixels p, up to a factor that cancels
    # out: exp((p c - |p|^2 / 2) / sigma^2), at most 1.
    sigma = VOTING_WINDOW * radius
    towards = grid / sigma**2
    at_middle = grid.square().sum(0) / (-2 * sigma**2)
    places = place.transpose(-1, -2)
    center = start
    for _ in range(VOTING_ROUNDS):
        logits = torch.addmm(at_middle, center, towards)
        window = (logits - logits.amax(-1, keepdim=True)).exp()
        weights = window * classes
        total = weights.sum(-1).clamp(min=1e-30)
        center = (weights[:, None] @ places)[:, 0] / total[:, None]
    square = (place - center[:, :, None]).square().sum(1)
    spread = (weights * square).sum(-1) / total
    mean = largest * (total / (window * around).sum(-1))
    agreement = 1 / (1 + spread / (VOTING_SPREAD * radius) ** 2)
    return center - start, (mean * agreement).sqrt()
