"""Maps to keypoints: argmax (Eq. 18), DARK's step, and the offsets of Eq. 29.

Keypoints are in heatmap px (see :mod:`.geometry`). Maps may have any leading
dimensions, any device and any floating dtype; half precision is computed in
float32. Nothing is changed in place. Whatever the maps hold, coordinates are
finite and within the map: a pixel that is NaN or infinite counts as 0, and a map
without a peak (nothing above zero, or flat) gives the map's middle with score 0.
"""

import math
from functools import lru_cache, wraps
from typing import Callable, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_kernel_size, check_positive
from .geometry import unit_length

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

#: OpenCV's Gaussian kernels of up to 9 px, which do not follow its formula.
SMALL_KERNELS = {
    1: (1.0,),
    3: (1.0, 2.0, 1.0),
    5: (1.0, 4.0, 6.0, 4.0, 1.0),
    7: (2.0, 7.0, 14.0, 18.0, 14.0, 7.0, 2.0),
    9: (4.0, 13.0, 30.0, 51.0, 60.0, 51.0, 30.0, 13.0, 4.0),
}

#: A map varying by less than this share of its maximum is flat: more than the
#: rounding of a blur in float32, less than any peak.
FLAT = 1e-5


def gaussian_kernel_sigma(kernel_size: int) -> float:
    """The sigma that OpenCV gives a Gaussian kernel of this size, in px.

    Example:
        >>> round(gaussian_kernel_sigma(11), 6)
        2.0
    """
    return 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8


def _full_precision(function: Callable) -> Callable:
    """Keep autocast, under which models run, from rounding coordinates to half."""

    @wraps(function)
    def in_full_precision(maps, *args, **kwargs):
        device = maps.device.type if isinstance(maps, Tensor) else 'cpu'
        if device not in ('cpu', 'cuda'):
            return function(maps, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(maps, *args, **kwargs)

    return in_full_precision


def _gaussian(reach: int, sigma: float) -> np.ndarray:
    """Weights of a Gaussian at ``-reach ... reach``, summing to 1."""
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()


def _opencv_kernel(kernel_size: int) -> np.ndarray:
    """``cv2.getGaussianKernel(kernel_size, 0)``, whose small ones are tables."""
    if kernel_size in SMALL_KERNELS:
        weights = np.array(SMALL_KERNELS[kernel_size])
        return weights / weights.sum()
    return _gaussian(kernel_size // 2, gaussian_kernel_sigma(kernel_size))


def _like(values: np.ndarray, maps: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=maps.dtype, device=maps.device)


def _reflect(index, last: int):
    """Indices beyond ``0 ... last`` reflected, without repeating the edge."""
    index = index % (2 * last)
    return last - abs(last - index)


@lru_cache(maxsize=64)
def _blur_matrix(length: int, kernel_size: int) -> np.ndarray:
    """A blur along an axis, reflected borders included, as a square matrix."""
    (last,) = unit_length((length,))
    reach = kernel_size // 2
    rows = np.arange(length)[:, None]
    matrix = np.zeros((length, length))
    columns = _reflect(rows + np.arange(-reach, reach + 1), last)
    np.add.at(matrix, (rows, columns), _opencv_kernel(kernel_size))
    return matrix


def _blur(maps: Tensor, kernel_size: int) -> Tensor:
    height, width = maps.shape[-2:]
    rows = _like(_blur_matrix(height, kernel_size), maps)
    columns = _like(_blur_matrix(width, kernel_size), maps)
    return rows @ (maps @ columns.T)


@_full_precision
def blur(maps: Tensor, kernel_size: int) -> Tensor:
    """Blur maps as ``cv2.GaussianBlur(map, (k, k), 0)`` does.

    Args:
        maps: Shape (..., K, H, W).
        kernel_size: ``k``, odd; the kernel is OpenCV's for that size. Borders
            are reflected without repeating the edge.

    Returns:
        New maps of the same shape.
    """
    _check_maps(maps)
    check_kernel_size(kernel_size)
    return _blur(_readable(maps), kernel_size)


def _readable(maps: Tensor) -> Tensor:
    """Maps in a computable dtype, with 0 for what is not finite."""
    if not maps.is_floating_point() or maps.dtype in (torch.float16, torch.bfloat16):
        maps = maps.float()
    return torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)


def _check_maps(maps: Tensor) -> None:
    if not isinstance(maps, Tensor):
        raise TypeError(f'maps must be a torch.Tensor, got {type(maps).__name__}')
    if maps.ndim < 3 or min(maps.shape[-2:]) < 3:
        raise ValueError(
            'maps must have shape (..., K, H, W) with H and W of at least 3, got '
            f'{tuple(maps.shape)}'
        )


def _find_peaks(maps: Tensor) -> Tuple[Tensor, Tensor]:
    """Argmax pixels (..., 2) as (x, y) integers, and their values (...)."""
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2)
    score, index = flat.max(-1)
    found = (score > 0) & (score - flat.amin(-1) > FLAT * score)
    middle = height // 2 * width + width // 2
    index = torch.where(found, index, torch.full_like(index, middle))
    y = torch.div(index, width, rounding_mode='floor')
    peak = torch.stack((index - y * width, y), -1)
    return peak, torch.where(found, score, torch.zeros_like(score))


def _last(maps: Tensor) -> Tensor:
    """Index of the last pixel, (x, y)."""
    height, width = maps.shape[-2:]
    return torch.as_tensor(unit_length((width, height)), device=maps.device)


def _within(keypoints: Tensor, maps: Tensor) -> Tensor:
    last = _last(maps).to(keypoints)
    return torch.minimum(keypoints.clamp(min=0), last)


def _window(
    maps: Tensor, center: Tensor, reach: int, border: str
) -> Tuple[Tensor, Tensor, Tensor]:
    """Square windows of maps.

    Args:
        maps: Shape (..., C, H, W), the C maps share a centre.
        center: Shape (..., 2), integer (x, y).
        reach: The window is ``2 * reach + 1`` wide.
        border: ``'reflect'`` or ``'zero'``.

    Returns:
        tuple: values (..., C, P, P), and the x and y pixel indices of the
        window's columns and rows, each (..., P).
    """
    height, width = maps.shape[-2:]
    last_x, last_y = unit_length((width, height))
    taps = torch.arange(-reach, reach + 1, device=maps.device)
    x, y = center[..., 0:1] + taps, center[..., 1:2] + taps
    if border == 'reflect':
        read_x, read_y = _reflect(x, last_x), _reflect(y, last_y)
    else:
        read_x, read_y = x.clamp(0, last_x), y.clamp(0, last_y)
    index = (read_y[..., :, None] * width + read_x[..., None, :]).flatten(-2)
    flat = maps.flatten(-2)
    index = index[..., None, :].expand(flat.shape[:-1] + index.shape[-1:])
    values = flat.gather(-1, index).unflatten(-1, (taps.numel(), taps.numel()))
    if border == 'zero':
        on_map = (read_y == y)[..., :, None] & (read_x == x)[..., None, :]
        values = values * on_map[..., None, :, :]
    return values, x, y


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
    _check_maps(maps)
    maps = _readable(maps)
    peak, score = _find_peaks(maps)
    keypoints = peak.to(maps.dtype)
    if quarter:
        values, _, _ = _window(maps[..., None, :, :], peak, 1, 'zero')
        values = values[..., 0, :, :]
        slope = torch.stack(
            (
                values[..., 1, 2] - values[..., 1, 0],
                values[..., 2, 1] - values[..., 0, 1],
            ),
            -1,
        )
        inner = (peak > 1) & (peak < _last(maps)) & (peak.flip(-1) > 0)
        keypoints = keypoints + 0.25 * slope.sign() * (inner & (score > 0)[..., None])
    return keypoints, score


@lru_cache(maxsize=64)
def _stencil_blurs(kernel_size: int) -> np.ndarray:
    """Blurs of every reach up to the kernel's, at the three middle pixels.

    Returns:
        Shape (R + 1, 3, 2R + 3): matrix ``r`` takes a window of ``2R + 3``
        pixels to its three middle ones, blurred by a Gaussian that reaches
        ``r`` pixels. Its sigma shrinks with its reach.
    """
    full = kernel_size // 2
    blurs = np.zeros((full + 1, 3, 2 * full + 3))
    for reach in range(full + 1):
        if reach == full:
            weights = _opencv_kernel(kernel_size)
        else:
            sigma = gaussian_kernel_sigma(kernel_size) * max(reach, 0.5) / full
            weights = _gaussian(reach, sigma)
        for row in range(3):
            start = full + row - reach
            blurs[reach, row, start : start + weights.size] = weights
    return blurs


def dark_kernel_size(sigma: float) -> int:
    """The widest blur that stays within a target cut off at three sigma.

    It is the ``6 sigma - 1`` that DARK's configs use: 11 for sigma 2, 17 for 3.
    """
    return 2 * max(int(3 * sigma) - 1, 0) + 1


@_full_precision
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
    _check_maps(maps)
    check_kernel_size(kernel_size)
    maps = _readable(maps)
    peak, score = _find_peaks(maps)

    last = _last(maps)
    center = torch.minimum(peak.clamp(min=1), last - 1)
    full = kernel_size // 2
    reach = torch.minimum(center, last - center).sub(1).clamp(max=full)
    values, _, _ = _window(maps[..., None, :, :], center, full + 1, 'zero')
    blurs = _like(_stencil_blurs(kernel_size), maps)
    blur_x, blur_y = blurs[reach[..., 0]], blurs[reach[..., 1]]
    v = blur_y @ values[..., 0, :, :] @ blur_x.transpose(-1, -2)

    floor = (1e-3 * v.amax((-2, -1), keepdim=True)).clamp(min=1e-30)
    v = torch.maximum(v, floor).log()
    dx = (v[..., 1, 2] - v[..., 1, 0]) / 2
    dy = (v[..., 2, 1] - v[..., 0, 1]) / 2
    dxx = v[..., 1, 2] - 2 * v[..., 1, 1] + v[..., 1, 0]
    dyy = v[..., 2, 1] - 2 * v[..., 1, 1] + v[..., 0, 1]
    # Seven of the nine pixels, as in the authors' code.
    dxy = (
        v[..., 2, 2]
        - v[..., 1, 2]
        - v[..., 2, 1]
        + 2 * v[..., 1, 1]
        - v[..., 1, 0]
        - v[..., 0, 1]
        + v[..., 0, 0]
    ) / 2
    det = dxx * dyy - dxy**2
    curved = (dxx < 0) & (det > 1e-9) & (score > 0)
    det = torch.where(curved, det, torch.ones_like(det))
    step = torch.stack((dxy * dy - dyy * dx, dxy * dx - dxx * dy), -1) / det[..., None]
    step = (center - peak + step).clamp(-1, 1)
    keypoints = peak + torch.where(curved[..., None], step, torch.zeros_like(step))
    return _within(keypoints, maps), score


@_full_precision
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
        votes that spread by ``s`` around their mean: 1 on perfect maps.

    Raises:
        ValueError: The maps' channels are no multiple of three, ``radius`` is not
            positive, ``reading`` is not known, or ``kernel_size`` is not odd.
    """
    _check_maps(maps)
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
    maps = maps.unflatten(-3, (maps.shape[-3] // 3, 3))
    classes = _readable(maps[..., 0, :, :])
    # Reflected borders can raise the blurred map highest where H itself is empty.
    blurred = _blur(classes, kernel_size)
    peak, score = _find_peaks(torch.where(classes > 0, blurred, blurred.new_zeros(())))
    keypoints = peak.to(classes.dtype)

    if reading == 'voting':
        shift, votes_score = _vote(maps, peak, radius)
        score = torch.where(score > 0, votes_score, score)
    else:
        reach = AUTHORS_KERNELS[1] // 2 if reading == 'authors' else 0
        offsets, _, _ = _window(maps[..., 1:, :, :], peak, reach, 'reflect')
        offsets = _readable(offsets)
        if reach:
            weights = _like(_opencv_kernel(AUTHORS_KERNELS[1]), offsets)
            offsets = weights @ offsets @ weights
        else:
            offsets = offsets[..., 0, 0]
        shift = radius * offsets
    shift = torch.where((score > 0)[..., None], shift, torch.zeros_like(shift))
    return _within(keypoints + shift, maps), score


def _vote(maps: Tensor, peak: Tensor, radius: float) -> Tuple[Tensor, Tensor]:
    """Where the pixels around the keypoint point to, from the peak, and the score.

    Args:
        maps: Shape (..., K, 3, H, W).
        peak: Shape (..., K, 2), integer.

    Returns:
        tuple: Shape (..., K, 2), heatmap px, and (..., K).
    """
    # The keypoint is up to half a pixel an axis away from the peak.
    reach = radius + math.sqrt(0.5)
    values, x, y = _window(maps, peak, math.ceil(reach), 'zero')
    values = _readable(values)
    last_x, last_y = unit_length((maps.shape[-1], maps.shape[-2]))
    on_map_x, on_map_y = (x == x.clamp(0, last_x)), (y == y.clamp(0, last_y))
    # In R from here on, counted from the peak.
    x = (x - peak[..., 0:1]).to(values.dtype) / radius
    y = (y - peak[..., 1:2]).to(values.dtype) / radius
    near = x[..., None, :] ** 2 + y[..., :, None] ** 2 <= (reach / radius) ** 2
    classes = values[..., 0, :, :].clamp(min=0) * near
    # Relative to the largest, so that tiny or huge maps neither vanish nor overflow.
    largest = classes.amax((-2, -1), keepdim=True).clamp(min=1e-30)
    classes = classes / largest
    # No offset of a disc is longer; a wild one's overflow would become NaN.
    offsets = values[..., 1:, :, :].clamp(-1, 1)
    place_x = x[..., None, :] + offsets[..., 0, :, :]
    place_y = y[..., :, None] + offsets[..., 1, :, :]
    square = place_x**2 + place_y**2
    votes = classes[..., None, :, :] * torch.stack(
        (torch.ones_like(square), place_x, place_y, square), -3
    )

    def window(steps: Tensor, center: Tensor) -> Tensor:
        return torch.exp(-(((steps - center) / VOTING_WINDOW) ** 2) / 2)

    center = torch.zeros_like(x[..., :2])
    for _ in range(VOTING_ROUNDS):
        window_x, window_y = window(x, center[..., 0:1]), window(y, center[..., 1:2])
        columns = (votes * window_x[..., None, None, :]).sum(-1)
        sums = (columns * window_y[..., None, :]).sum(-1)
        total = sums[..., 0].clamp(min=1e-30)
        center = sums[..., 1:3] / total[..., None]
    spread = (sums[..., 3] / total - center.square().sum(-1)).clamp(min=0)
    area = (window_x * on_map_x).sum(-1) * (window_y * on_map_y).sum(-1)
    height = largest[..., 0, 0] * (total / area)
    agreement = 1 / (1 + spread / VOTING_SPREAD**2)
    return radius * center, (height * agreement).sqrt()
